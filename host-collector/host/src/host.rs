//! The host itself: the facts that a run's numbers depend on, as far as the host tells them.

use crate::{conditions, slice};
use nix::time::{ClockId, clock_getres};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};
use thiserror::Error;
use vslice_trace::host::{DiskFacts, HostDisks, HostFacts, HostPcpus, PcpuListError, WholeDisk};

/// Why the online pCPUs are unknown.
#[derive(Debug, Error)]
pub enum HostPcpusError {
    /// The file cannot be read.
    #[error("{ONLINE_PATH} cannot be read: {0}")]
    Read(io::Error),
    /// The text is not a list of pCPUs.
    #[error(transparent)]
    Parse(#[from] PcpuListError),
}

const ONLINE_PATH: &str = "/sys/devices/system/cpu/online";

/// The pCPUs that are online.
///
/// # Errors
/// [`HostPcpusError`].
pub fn online_pcpus() -> Result<HostPcpus, HostPcpusError> {
    let text = fs::read_to_string(ONLINE_PATH).map_err(HostPcpusError::Read)?;
    Ok(HostPcpus::parse(text.trim())?)
}

/// Collects the facts of this host; `host_disks` are passed in.
#[must_use]
pub fn facts(qemu: &Path, host_disks: HostDisks) -> HostFacts {
    let mut unknown = BTreeMap::new();
    let mut known = |field: &str, told: Result<String, String>| {
        told.map_err(|reason| unknown.insert(field.to_owned(), reason)).ok()
    };
    let host_name = known("host_name", read_told("/proc/sys/kernel/hostname"));
    let kernel_release = known("kernel_release", read_told("/proc/sys/kernel/osrelease"));
    let clocksource = known("clocksource", read_told(CLOCK_SOURCE));
    let governor = known("governor", read_told(GOVERNOR));
    let qemu_version = known("qemu_version", qemu_version(qemu));
    let processor_model = known("processor_model", processor_model());
    let tick_ns = tick_ns();
    let pcpus_online = online_pcpus();
    if let Err(error) = &pcpus_online {
        unknown.insert("pcpus_online".to_owned(), error.to_string());
    }
    let pcpus_online = pcpus_online.ok();
    let pcpus_count = pcpus_online.as_ref().map(HostPcpus::count);
    HostFacts {
        host_name,
        tick_hz: tick_ns.and_then(|tick_ns| u32::try_from(1_000_000_000 / tick_ns).ok()),
        slice: tick_ns
            .zip(pcpus_count)
            .map(|(tick_ns, count)| slice::of_host(kernel_release.as_deref(), tick_ns, count)),
        kernel_release,
        processor_model,
        pcpus_online,
        memory_bytes: fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text)),
        governor,
        clocksource,
        qemu_version,
        host_disks,
        disk_before: None,
        conditions: Some(conditions::of_host()),
        unknown,
    }
}

const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const GOVERNOR: &str = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";

fn processor_model() -> Result<String, String> {
    let text =
        fs::read_to_string("/proc/cpuinfo").map_err(|error| format!("/proc/cpuinfo: {error}"))?;
    value_of(&text, "model name").ok_or_else(|| "/proc/cpuinfo has no model name".to_owned())
}

/// The first line that this QEMU prints with `--version`.
///
/// # Errors
/// The reason why it is unknown, as a sentence without its full stop.
pub fn qemu_version(qemu: &Path) -> Result<String, String> {
    if qemu.as_os_str().is_empty() {
        return Err("the program that runs it is not visible".to_owned());
    }
    let shown = qemu.display();
    let output = Command::new(qemu).arg("--version").output();
    let output = output.map_err(|error| format!("{shown} cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty());
    line.map(str::to_owned).ok_or_else(|| format!("{shown} --version prints nothing"))
}

/// The whole disk under a file, or the one that a block device is (a part of).
///
/// # Errors
/// The reason why its I/O cannot be attributed, as a sentence without its full stop.
pub fn whole_disk(path: &Path) -> Result<WholeDisk, String> {
    let shown = path.display();
    let metadata =
        fs::metadata(path).map_err(|error| format!("{shown} cannot be examined: {error}"))?;
    let is_device = metadata.file_type().is_block_device();
    let number = if is_device { metadata.rdev() } else { metadata.dev() };
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let Some((device, disk)) = device_and_disk(major, minor) else {
        return Err(format!(
            "{shown} is on a file system that is not on one block device (device {major}:{minor})"
        ));
    };
    let name = disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Only drivers with blk-mq have this directory. The others (device mapper, md, the head of an
    // NVMe multipath) pass bios on to other disks: no request of their own is ever issued or
    // completed, see `blk_mq_sysfs_register` of
    // linux/block/blk-mq-sysfs.c, which blk-sysfs.c calls for queues of blk-mq only.
    if !disk.join("mq").is_dir() {
        return Err(format!("{shown} is on {name}, which only passes I/O on to other disks"));
    }
    let text = read_trimmed(disk.join("dev")).unwrap_or_default();
    let device_number = kernel_device(&text)
        .ok_or_else(|| format!("the device number of {name} is unreadable: '{text}'"))?;
    let first_sector = match read_trimmed(device.join("start")) {
        Some(text) => text.parse().map_err(|_| {
            format!(
                "the start of a partition of {name} is \
            unreadable: '{text}'"
            )
        })?,
        None => 0,
    };
    Ok(WholeDisk { name, device: device_number, first_sector })
}

/// Reads `254:1` as the kernel's own `dev_t` (linux/include/linux/kdev_t.h, `MKDEV`: 20 bits for
/// the minor number).
fn kernel_device(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once(':')?;
    let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
    (major < 1 << 12 && minor < 1 << 20).then_some(major << 20 | minor)
}

/// The directories in sysfs of a block device and of the whole disk that it is (a part of).
pub(super) fn device_and_disk(major: u64, minor: u64) -> Option<(PathBuf, PathBuf)> {
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let disk = disk_of_device(&device)?;
    Some((device, disk))
}

/// The directory in sysfs of the whole disk that a device is (a part of): a partition has its queue there.
pub(super) fn disk_of_device(device: &Path) -> Option<PathBuf> {
    let mut candidates = [Some(device), device.parent()].into_iter().flatten();
    candidates.find(|candidate| candidate.join("queue").is_dir()).map(Path::to_owned)
}

/// The block device that holds a file, or that the file is. `None` for a file system in memory or on
/// several devices, and for a device without a queue.
#[must_use]
pub fn disk_facts(path: &Path) -> Option<DiskFacts> {
    let metadata = fs::metadata(path).ok()?;
    let is_device = metadata.file_type().is_block_device();
    let number = if is_device { metadata.rdev() } else { metadata.dev() };
    let (_, disk) = device_and_disk(nix::sys::stat::major(number), nix::sys::stat::minor(number))?;
    facts_of_disk(&disk)
}

/// What sysfs says of a whole disk, whose directory there this is.
pub(super) fn facts_of_disk(disk: &Path) -> Option<DiskFacts> {
    let line = read_trimmed(disk.join("queue/scheduler")).unwrap_or_default();
    let (scheduler, schedulers) = parse_schedulers(&line);
    Some(DiskFacts {
        device: disk.file_name()?.to_string_lossy().into_owned(),
        scheduler,
        schedulers,
        scheduler_asked: None,
        scheduler_before: None,
        rotational: read_trimmed(disk.join("queue/rotational")).map(|text| text == "1"),
    })
}

/// Reads `none [mq-deadline] kyber`: the one in use, and all.
pub(super) fn parse_schedulers(line: &str) -> (Option<String>, Vec<String>) {
    let bare = |word: &str| word.trim_matches(['[', ']']).to_owned();
    let in_use = line.split_whitespace().find(|word| word.starts_with('[')).map(bare);
    // A queue that can have none says so without marking it (`elv_iosched_show` in block/elevator.c).
    let in_use = in_use.or_else(|| (line.trim() == "none").then(|| "none".to_owned()));
    (in_use, line.split_whitespace().map(bare).collect())
}

/// The length of a tick in nanoseconds, which is the resolution of the clock that is read without asking
/// hardware (kernel/time/posix-timers.c, `KTIME_LOW_RES`).
#[must_use]
pub fn tick_ns() -> Option<u64> {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).ok()?;
    u64::try_from(Duration::from(resolution).as_nanos()).ok().filter(|length_ns| *length_ns > 0)
}

/// The value of the first line `key : value`.
fn value_of(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// `MemTotal` of `/proc/meminfo`, which counts in KiB and says kB.
fn memory(text: &str) -> Option<u64> {
    let value = value_of(text, "MemTotal")?;
    value.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A file's text, or why there is none.
fn read_told(path: &str) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Some(text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .ok_or_else(|| format!("{path} is empty"))
}

fn read_trimmed(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read_as_documented() {
        let (in_use, all) = parse_schedulers("none [mq-deadline] kyber bfq");
        assert_eq!(in_use.as_deref(), Some("mq-deadline"));
        assert_eq!(all, ["none", "mq-deadline", "kyber", "bfq"]);
        assert_eq!(parse_schedulers("[none]"), (Some("none".to_owned()), vec!["none".to_owned()]));
        assert_eq!(parse_schedulers("none"), (Some("none".to_owned()), vec!["none".to_owned()]));
        assert_eq!(parse_schedulers(""), (None, vec![]));
        assert_eq!(memory("MemTotal:       24560000 kB\nMemFree: 1 kB\n"), Some(24_560_000 * 1024));
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC: one\nmodel name\t: two\n";
        assert_eq!(value_of(cpuinfo, "model name").as_deref(), Some("AMD EPYC: one"));
    }

    #[test]
    fn device_numbers_become_the_kernels_own() {
        assert_eq!(kernel_device("254:1"), Some(254 << 20 | 1));
        assert_eq!(kernel_device("259:1048575"), Some(259 << 20 | 0xf_ffff));
        for text in ["", "254", "254:", "a:1", "4096:0", "1:1048576"] {
            assert_eq!(kernel_device(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_on_a_disk_is_a_reason() {
        let reason = whole_disk(Path::new("/proc/self/stat")).expect_err("not a disk");
        assert!(reason.contains("not on one block device"), "{reason}");
        let reason = whole_disk(Path::new("/nonexistent")).expect_err("no file");
        assert!(reason.starts_with("/nonexistent cannot be examined: No such file"), "{reason}");
    }

    #[test]
    fn this_host_has_a_kernel_and_pcpus_and_no_qemu_at_a_path_without_one() {
        let facts = facts(
            Path::new("/nonexistent/qemu"),
            crate::host_disks::under_directory(Path::new("/")),
        );
        assert!(facts.kernel_release.is_some());
        let told = nix::sys::utsname::uname().unwrap();
        assert_eq!(facts.host_name.as_deref(), told.nodename().to_str());
        assert!(facts.pcpus_online.as_ref().is_some_and(|pcpus| pcpus.count() > 0));
        assert_eq!(facts.qemu_version, None);
        let lines = facts.lines().join("\n");
        let reason = "QEMU version unknown, because /nonexistent/qemu cannot be run: No such file";
        assert!(lines.contains(reason), "{lines}");
        let mut unknown = lines.lines().filter(|line| line.contains("unknown"));
        assert!(unknown.all(|line| line.contains("unknown, because ")), "{lines}");
    }

    /// test(1) takes an option for a text that is not empty, and prints nothing.
    #[test]
    fn a_version_that_nobody_prints_is_not_known() {
        let unseen = qemu_version(Path::new("")).expect_err("no program");
        assert_eq!(unseen, "the program that runs it is not visible");
        let silent = qemu_version(Path::new("/usr/bin/test")).expect_err("it prints nothing");
        assert_eq!(silent, "/usr/bin/test --version prints nothing");
    }
}
