//! The disk under a target, as sysfs shows it.

use crate::error::WorkloadError;
use nix::sys::stat::{major, minor};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

/// Where Linux shows its devices.
pub(super) const SYSFS: &str = "/sys";

/// Where the nodes of the devices are.
pub(super) const DEVICES: &str = "/dev";

/// How long `auto` waits for a disk: the drivers probe after their modules have loaded.
pub(super) const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// How long `auto` waits for a second disk once it has seen one. The disks of one machine appear
/// within some milliseconds of each other; to take the first of two would be a guess.
const SETTLE: Duration = Duration::from_millis(300);

const POLL: Duration = Duration::from_millis(20);

/// The unit of sizes and starts in sysfs, whatever a device's own blocks are
/// (linux/Documentation/ABI/stable/sysfs-block).
const SECTOR_BYTES: u64 = 512;

/// Block devices that are no disks: made of memory or of other block devices, or with a medium that
/// comes and goes.
const NO_DISKS: [&str; 8] = ["loop", "ram", "zram", "sr", "fd", "md", "dm-", "nbd"];

/// A whole disk, by its directory in sysfs (`/sys/devices/.../block/vda`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// The disk with the device number `device`, or the one that the partition with that number is
    /// part of. `None` for numbers that are no block device: those of btrfs, overlayfs, NFS.
    pub(super) fn of_device(sysfs: &Path, device: u64) -> Option<Disk> {
        let mut directory = fs::canonicalize(sysfs.join(device_link(device))).ok()?;
        if directory.join("partition").exists() {
            directory.pop();
        }
        Some(Disk { directory })
    }

    /// The smallest read that the disk can do, in bytes.
    pub(super) fn logical_block_bytes(&self) -> Option<u32> {
        let text = fs::read_to_string(self.directory.join("queue/logical_block_size")).ok()?;
        text.trim().parse().ok()
    }

    /// Its size in bytes.
    fn size_bytes(&self) -> Option<u64> {
        read_number(&self.directory.join("size")).ok()?.checked_mul(SECTOR_BYTES)
    }

    /// Whether it is no device of memory or over others.
    fn is_whole(&self) -> bool {
        let name = self.directory.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| !is_no_disk(&name))
    }

    /// The scheduler that its queue has now; `None` if that cannot be read.
    fn scheduler(&self) -> Option<String> {
        let offered = fs::read_to_string(self.directory.join("queue/scheduler")).ok()?;
        current_scheduler(&offered).map(str::to_owned)
    }

    /// Sets the I/O scheduler of this disk until the setting is dropped.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::Scheduler`] with what the kernel offers instead.
    pub(super) fn set_scheduler(&self, wanted: &str) -> Result<SchedulerSetting, WorkloadError> {
        let file = self.directory.join("queue/scheduler");
        let refused = |offered: &str, source| WorkloadError::Scheduler {
            file: file.clone(),
            wanted: wanted.to_owned(),
            offered: offered.trim().to_owned(),
            source,
        };
        let offered = fs::read_to_string(&file).map_err(|source| refused("nothing", source))?;
        let current = current_scheduler(&offered);
        if current == Some(wanted) {
            return Ok(SchedulerSetting { file, previous: None });
        }
        fs::write(&file, wanted).map_err(|source| refused(&offered, source))?;
        let previous = current.map(str::to_owned);
        Ok(SchedulerSetting { file, previous })
    }
}

/// A whole disk, and where a target is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPlace {
    /// The size of the whole disk in bytes.
    pub disk_bytes: u64,
    /// The byte of it at which the target begins; `None` for a file, which has no one place.
    pub offset_bytes: Option<u64>,
    /// The I/O scheduler of its queue, if that can be read.
    pub io_scheduler: Option<String>,
}

impl DiskPlace {
    /// The place of what has this device number: of a disk or a partition where `is_device`, and
    /// else of a file on one. `None` for what is on no disk of its own, device mapper and md
    /// included: what lies there is somewhere on other disks.
    pub(super) fn of_device(sysfs: &Path, device: u64, is_device: bool) -> Option<DiskPlace> {
        let disk = Disk::of_device(sysfs, device).filter(Disk::is_whole)?;
        let own = fs::canonicalize(sysfs.join(device_link(device))).ok()?;
        let first_sector = match own == disk.directory {
            true => Some(0),
            false => read_number(&own.join("start")).ok(),
        };
        Some(DiskPlace {
            disk_bytes: disk.size_bytes()?,
            offset_bytes: first_sector
                .filter(|_| is_device)
                .and_then(|sector| sector.checked_mul(SECTOR_BYTES)),
            io_scheduler: disk.scheduler(),
        })
    }
}

/// Where sysfs tells of the block device with this number.
fn device_link(device: u64) -> String {
    format!("dev/block/{}:{}", major(device), minor(device))
}

/// The scheduler in brackets in `none [mq-deadline] kyber`, or the only one that there is.
fn current_scheduler(offered: &str) -> Option<&str> {
    let mut names = offered.split_ascii_whitespace();
    let bracketed = |name: &'_ str| name.starts_with('[') && name.ends_with(']');
    match names.clone().find(|name| bracketed(name)) {
        Some(name) => Some(&name[1..name.len() - 1]),
        None => names.next().filter(|_| names.next().is_none()),
    }
}

/// The I/O scheduler of a disk, set by us.
#[derive(Debug)]
pub(super) struct SchedulerSetting {
    file: PathBuf,
    /// What to put back; `None` if nothing was changed.
    previous: Option<String>,
}

impl Drop for SchedulerSetting {
    fn drop(&mut self) {
        if let Some(previous) = &self.previous {
            // If the kernel no longer takes what it had offered, there is nothing better to set.
            let _ = fs::write(&self.file, previous);
        }
    }
}

/// The node of the machine's only disk. Waits up to `patience` for it, because drivers probe when
/// they like.
///
/// # Errors
///
/// [`WorkloadError::NoDisk`] and [`WorkloadError::SeveralDisks`].
pub(super) fn find_only_disk(
    sysfs: &Path,
    devices: &Path,
    patience: Duration,
) -> Result<PathBuf, WorkloadError> {
    let directory = sysfs.join("block");
    let started = Instant::now();
    let ready = |name: &String| devices.join(name).exists();
    while !disks_in(&directory)?.iter().any(ready) {
        if started.elapsed() >= patience {
            return Err(WorkloadError::NoDisk { directory, waited_s: patience.as_secs() });
        }
        std::thread::sleep(POLL);
    }
    std::thread::sleep(SETTLE.min(patience));
    let mut names = disks_in(&directory)?;
    match names.len() {
        1 => Ok(devices.join(names.remove(0))),
        0 => Err(WorkloadError::NoDisk { directory, waited_s: patience.as_secs() }),
        _ => Err(WorkloadError::SeveralDisks { names }),
    }
}

/// The names of all disks, sorted.
fn disks_in(directory: &Path) -> Result<Vec<String>, WorkloadError> {
    let failed = |source| WorkloadError::Target {
        action: "look for a disk in",
        path: directory.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string()
            && is_disk(&name, &entry.path())
        {
            // In sysfs, the `/` of a node in a subdirectory (`cciss/c0d0`) is a `!`.
            names.push(name.replace('!', "/"));
        }
    }
    names.sort();
    Ok(names)
}

fn is_disk(name: &str, directory: &Path) -> bool {
    let says_one = |file| matches!(read_number(&directory.join(file)), Ok(1));
    // `hidden` are the paths of a multipath NVMe device, which has a disk of its own.
    !is_no_disk(name)
        && !says_one("removable")
        && !says_one("hidden")
        && matches!(read_number(&directory.join("size")), Ok(1..))
}

fn is_no_disk(name: &str) -> bool {
    NO_DISKS.iter().any(|kind| {
        name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn read_number(file: &Path) -> io::Result<u64> {
    fs::read_to_string(file)?.trim().parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// A sysfs and a `/dev` with the disks that a test adds.
    struct Machine {
        root: TempDir,
    }

    impl Machine {
        fn new() -> Machine {
            let root = tempfile::tempdir().unwrap();
            for directory in ["sys/block", "sys/dev/block", "dev"] {
                fs::create_dir_all(root.path().join(directory)).unwrap();
            }
            Machine { root }
        }

        fn sysfs(&self) -> PathBuf {
            self.root.path().join("sys")
        }

        fn devices(&self) -> PathBuf {
            self.root.path().join("dev")
        }

        fn add(&self, name: &str, removable: u8, sectors: u64) -> PathBuf {
            let directory = self.sysfs().join("block").join(name);
            fs::create_dir_all(directory.join("queue")).unwrap();
            fs::write(directory.join("removable"), format!("{removable}\n")).unwrap();
            fs::write(directory.join("size"), format!("{sectors}\n")).unwrap();
            let node = self.devices().join(name.replace('!', "/"));
            fs::create_dir_all(node.parent().unwrap()).unwrap();
            fs::write(node, "").unwrap();
            directory
        }

        fn find(&self) -> Result<PathBuf, WorkloadError> {
            find_only_disk(&self.sysfs(), &self.devices(), Duration::ZERO)
        }
    }

    #[test]
    fn the_only_disk_is_found_among_devices_that_are_none() {
        let machine = Machine::new();
        for name in ["loop0", "ram1", "zram0", "sr0", "fd0", "md127", "dm-0", "nbd3"] {
            machine.add(name, 0, 2048);
        }
        machine.add("sdb", 1, 2048);
        machine.add("sdc", 0, 0);
        fs::write(machine.add("nvme0c0n1", 0, 2048).join("hidden"), "1\n").unwrap();
        assert!(matches!(machine.find(), Err(WorkloadError::NoDisk { .. })));
        machine.add("vda", 0, 2048);
        assert_eq!(machine.find().unwrap(), machine.devices().join("vda"));
    }

    #[test]
    fn a_disk_whose_node_is_in_a_directory_is_found() {
        let machine = Machine::new();
        machine.add("cciss!c0d0", 0, 2048);
        assert_eq!(machine.find().unwrap(), machine.devices().join("cciss/c0d0"));
    }

    #[test]
    fn of_several_disks_none_is_taken() {
        let machine = Machine::new();
        machine.add("vdb", 0, 2048);
        machine.add("vda", 0, 2048);
        let error = machine.find().unwrap_err();
        assert!(error.to_string().contains("several disks (vda, vdb)"), "{error}");
    }

    #[test]
    fn a_disk_that_appears_late_is_waited_for() {
        let machine = Machine::new();
        let (sysfs, devices) = (machine.sysfs(), machine.devices());
        let finding =
            std::thread::spawn(move || find_only_disk(&sysfs, &devices, Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(50));
        machine.add("sda", 0, 2048);
        assert_eq!(finding.join().unwrap().unwrap(), machine.devices().join("sda"));
    }

    #[test]
    fn a_partition_leads_to_its_disk() {
        let machine = Machine::new();
        let disk = machine.add("vda", 0, 2048);
        fs::write(disk.join("queue/logical_block_size"), "512\n").unwrap();
        fs::create_dir(disk.join("vda1")).unwrap();
        fs::write(disk.join("vda1/partition"), "1\n").unwrap();
        symlink("../../block/vda", machine.sysfs().join("dev/block/254:0")).unwrap();
        symlink("../../block/vda/vda1", machine.sysfs().join("dev/block/254:1")).unwrap();

        let whole = Disk::of_device(&machine.sysfs(), nix::sys::stat::makedev(254, 0)).unwrap();
        let part = Disk::of_device(&machine.sysfs(), nix::sys::stat::makedev(254, 1)).unwrap();
        assert_eq!(whole, part);
        assert_eq!(part.logical_block_bytes(), Some(512));
        assert_eq!(Disk::of_device(&machine.sysfs(), nix::sys::stat::makedev(0, 42)), None);
    }

    #[test]
    fn a_target_begins_where_its_partition_does_and_a_file_nowhere() {
        let machine = Machine::new();
        let disk = machine.add("vda", 0, 2048);
        fs::write(disk.join("queue/scheduler"), "none [mq-deadline]\n").unwrap();
        fs::create_dir(disk.join("vda1")).unwrap();
        fs::write(disk.join("vda1/partition"), "1\n").unwrap();
        fs::write(disk.join("vda1/start"), "64\n").unwrap();
        machine.add("dm-0", 0, 2048);
        for (number, device) in [(0, "vda"), (1, "vda/vda1"), (2, "dm-0")] {
            let link = machine.sysfs().join(format!("dev/block/254:{number}"));
            symlink(format!("../../block/{device}"), link).unwrap();
        }
        let place = |minor, is_device| {
            let device = nix::sys::stat::makedev(254, minor);
            DiskPlace::of_device(&machine.sysfs(), device, is_device)
        };
        let whole = DiskPlace {
            disk_bytes: 1 << 20,
            offset_bytes: Some(0),
            io_scheduler: Some("mq-deadline".to_owned()),
        };
        assert_eq!(place(0, true).as_ref(), Some(&whole));
        let part = DiskPlace { offset_bytes: Some(32 << 10), ..whole.clone() };
        assert_eq!(place(1, true).as_ref(), Some(&part));
        let file = DiskPlace { offset_bytes: None, ..whole };
        assert_eq!(place(1, false).as_ref(), Some(&file));
        assert_eq!(place(2, true), None, "what is on a logical volume is somewhere on other disks");
        assert_eq!(place(3, true), None);
    }

    #[test]
    fn the_current_scheduler_is_the_one_in_brackets() {
        assert_eq!(current_scheduler("none [mq-deadline] kyber bfq \n"), Some("mq-deadline"));
        assert_eq!(current_scheduler("[none] mq-deadline \n"), Some("none"));
        assert_eq!(current_scheduler("none\n"), Some("none"));
        assert_eq!(current_scheduler("\n"), None);
        assert_eq!(current_scheduler("none mq-deadline"), None);
    }

    #[test]
    fn a_scheduler_is_put_back_when_the_setting_is_dropped() {
        let machine = Machine::new();
        let directory = machine.add("vda", 0, 2048);
        let file = directory.join("queue/scheduler");
        let disk = Disk { directory };
        fs::write(&file, "none [mq-deadline] kyber\n").unwrap();

        let unchanged = disk.set_scheduler("mq-deadline").unwrap();
        drop(unchanged);
        assert_eq!(fs::read_to_string(&file).unwrap(), "none [mq-deadline] kyber\n");

        let setting = disk.set_scheduler("none").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "none");
        drop(setting);
        assert_eq!(fs::read_to_string(&file).unwrap(), "mq-deadline");
    }
}
