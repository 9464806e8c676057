//! Readers on a loop device: its size, its block size, its I/O scheduler, a full file system on it.

use crate::run::{directory_on_disk, file_of, prepare, results, run, spec};
use crate::targets::refusal;
use libtest_mimic::{Completion, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use vslice_spec::ReaderSpec;
use vslice_workload::clock::Clock;
use vslice_workload::error::WorkloadError;
use vslice_workload::reader::Reader;

const DISK_BYTES: usize = 8 << 20;

type Body = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let bodies: [(&str, Body); 5] = [
        ("a_block_device_is_read", a_block_device_is_read),
        ("blocks_smaller_than_the_disks_are_refused", blocks_smaller_than_the_disks_are_refused),
        ("the_scheduler_is_set_and_put_back", the_scheduler_is_set_and_put_back),
        ("an_unknown_scheduler_is_refused", an_unknown_scheduler_is_refused),
        ("a_full_disk_is_refused", a_full_disk_is_refused),
    ];
    let trial = |(name, body): (&str, Body)| {
        Trial::ignorable_test(format!("block_device::{name}"), move || match what_is_missing() {
            Some(missing) => Ok(Completion::ignored_with(missing)),
            None => body().map(|()| Completion::Completed),
        })
    };
    bodies.into_iter().map(trial).collect()
}

fn what_is_missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("loop devices need root".to_owned());
    }
    match command("losetup", &["--find"]) {
        Ok(_) => None,
        Err(error) => Some(format!("no loop device: {}", error.message().unwrap_or("unknown"))),
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?.trim().to_owned());
    }
    Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// A loop device, detached when dropped.
struct LoopDevice {
    node: String,
}

impl LoopDevice {
    fn on(file: &Path, sector_bytes: u32) -> Result<LoopDevice, Failed> {
        let file = file.to_str().ok_or("not UTF-8")?;
        let sector_bytes = sector_bytes.to_string();
        let arguments = ["--find", "--show", "--sector-size", &sector_bytes, file];
        Ok(LoopDevice { node: command("losetup", &arguments)? })
    }

    fn path(&self) -> &Path {
        Path::new(&self.node)
    }

    fn scheduler_file(&self) -> PathBuf {
        let name = self.path().file_name().unwrap_or_default();
        Path::new("/sys/block").join(name).join("queue/scheduler")
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = command("losetup", &["--detach", &self.node]);
    }
}

fn a_block_device_is_read() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let device = LoopDevice::on(&file_of(&directory, DISK_BYTES)?, 512)?;
    let reader = prepare(&spec(device.path(), 20)?)?;
    assert_eq!(reader.target(), device.path());
    assert_eq!(reader.target_bytes(), DISK_BYTES as u64);
    let (end, records) = run(reader)?;
    assert_eq!(end.requests, 20);
    assert_eq!(results(&records), [4096; 20]);
    Ok(())
}

fn blocks_smaller_than_the_disks_are_refused() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let device = LoopDevice::on(&file_of(&directory, DISK_BYTES)?, 4096)?;
    let small = ReaderSpec { block_bytes: 2048, ..spec(device.path(), 20)? };
    let error = refusal(&small, None)?;
    assert!(
        matches!(
            error,
            WorkloadError::BlockTooSmall { block_bytes: 2048, logical_block_bytes: 4096, .. }
        ),
        "{error}"
    );
    prepare(&spec(device.path(), 20)?)?;
    Ok(())
}

/// The bracketed scheduler, and one of the others.
fn current_and_other(file: &Path) -> Result<(String, String), Failed> {
    let offered = fs::read_to_string(file)?;
    let (current, others): (Vec<&str>, Vec<&str>) =
        offered.split_whitespace().partition(|name| name.starts_with('['));
    let current = current.first().ok_or("no scheduler is in brackets")?;
    let other = others.first().ok_or("there is only one scheduler")?;
    Ok((current.trim_matches(['[', ']']).to_owned(), (*other).to_owned()))
}

fn the_scheduler_is_set_and_put_back() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let device = LoopDevice::on(&file_of(&directory, DISK_BYTES)?, 512)?;
    let (before, wanted) = current_and_other(&device.scheduler_file())?;
    let spec = spec(device.path(), 20)?;

    let reader = Reader::prepare(&spec, Some(&wanted), Clock::MonotonicRaw)?;
    assert_eq!(current_and_other(&device.scheduler_file())?.0, wanted);
    run(reader)?;
    assert_eq!(current_and_other(&device.scheduler_file())?.0, before);

    let never_run = Reader::prepare(&spec, Some(&wanted), Clock::MonotonicRaw)?;
    assert_eq!(current_and_other(&device.scheduler_file())?.0, wanted);
    drop(never_run);
    assert_eq!(current_and_other(&device.scheduler_file())?.0, before);
    Ok(())
}

fn an_unknown_scheduler_is_refused() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let device = LoopDevice::on(&file_of(&directory, DISK_BYTES)?, 512)?;
    let before = fs::read_to_string(device.scheduler_file())?;
    let error = refusal(&spec(device.path(), 20)?, Some("cfq"))?;
    assert!(matches!(error, WorkloadError::Scheduler { .. }), "{error}");
    assert!(error.to_string().contains(&format!("it offers: {}", before.trim())), "{error}");
    assert_eq!(fs::read_to_string(device.scheduler_file())?, before);
    Ok(())
}

/// A mounted file system, unmounted when dropped.
struct Mount {
    directory: String,
}

impl Mount {
    fn new(device: &LoopDevice, directory: &Path) -> Result<Mount, Failed> {
        let directory = directory.to_str().ok_or("not UTF-8")?.to_owned();
        command("mount", &[&device.node, &directory])?;
        Ok(Mount { directory })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = command("umount", &[&self.directory]);
    }
}

fn a_full_disk_is_refused() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let device = LoopDevice::on(&file_of(&directory, DISK_BYTES)?, 512)?;
    command("mkfs.ext4", &["-q", &device.node])?;
    let root = directory.path().join("root");
    fs::create_dir(&root)?;
    let mount = Mount::new(&device, &root)?;
    let entries_before = fs::read_dir(&root)?.count();

    let too_much = ReaderSpec { create: true, ..spec(&root.join("data"), 4096)? };
    let error = refusal(&too_much, None)?;
    let WorkloadError::DiskFull { needed_bytes, available_bytes, .. } = error else {
        return Err(error.into());
    };
    assert_eq!(needed_bytes, 16 << 20);
    assert!((1..8 << 20).contains(&available_bytes), "{available_bytes}");
    assert_eq!(fs::read_dir(&root)?.count(), entries_before);

    // A file on a partition-less disk leads to that disk's scheduler.
    let fits = ReaderSpec { create: true, ..spec(&root.join("data"), 16)? };
    let (_, wanted) = current_and_other(&device.scheduler_file())?;
    let reader = Reader::prepare(&fits, Some(&wanted), Clock::MonotonicRaw)?;
    assert_eq!(current_and_other(&device.scheduler_file())?.0, wanted);
    drop(reader);
    drop(mount);
    Ok(())
}
