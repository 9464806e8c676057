//! The disks of this host under the guests' own images.

use super::host;
use super::image::Image;
use super::open_files::{self, FileId, OpenFile};
use super::vm::Vm;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use vslice_trace::host::{DiskFacts, HostDisks};

/// Device mapper and md may lie on each other, no deeper than this.
const DEPTH_MAX: usize = 8;

/// The disk under a directory in which images are created.
#[must_use]
pub fn under_directory(path: &Path) -> HostDisks {
    match host::disk_facts(path) {
        Some(disk) => HostDisks { disks: vec![disk], disks_missing: Vec::new() },
        None => not_known(format!("{} is not on a block device", path.display())),
    }
}

/// The disks under the images that VMs have open: the files that their command lines name, and block
/// devices, which may have been plugged in later. If no such file is known, all open files that can be
/// images count.
#[must_use]
pub fn under_vms(vms: &[Vm]) -> HostDisks {
    under_images(vms, |vm| open_files::images(vm.pid))
}

fn under_images(vms: &[Vm], images_of: impl Fn(&Vm) -> io::Result<Vec<OpenFile>>) -> HostDisks {
    let mut found = HostDisks::default();
    for vm in vms {
        match images_of(vm) {
            Ok(images) => of_disks(vm, images)
                .iter()
                .for_each(|image| add(&mut found, under(&image.path, image.metadata()))),
            Err(error) => found
                .disks_missing
                .push(format!("the open files of {} are not visible: {error}", vm.label())),
        }
    }
    if found == HostDisks::default() {
        let labels: Vec<String> = vms.iter().map(Vm::label).collect();
        return not_known(format!("no disk image of {} is open", labels.join(" and ")));
    }
    found.disks.sort_by(|a, b| a.device.cmp(&b.device));
    found.disks.dedup_by(|a, b| a.device == b.device);
    found
}

fn not_known(reason: String) -> HostDisks {
    HostDisks { disks: Vec::new(), disks_missing: vec![reason] }
}

fn add(found: &mut HostDisks, disks: Result<Vec<DiskFacts>, String>) {
    match disks {
        Ok(disks) => found.disks.extend(disks),
        Err(reason) => found.disks_missing.push(reason),
    }
}

/// Those of the open files that are the VM's disks; all of them, if its command line names none of them. A VMM
/// also reads firmware, logs and the guest's memory, and nothing but their names tells them from images.
fn of_disks(vm: &Vm, mut images: Vec<OpenFile>) -> Vec<OpenFile> {
    let id = |image: Image| FileId::of(&fs::metadata(image.path).ok()?);
    let named: Vec<FileId> =
        Image::of_vm(vm).unwrap_or_default().into_iter().filter_map(id).collect();
    if images.iter().any(|image| named.contains(&image.id)) {
        let is_block = |id: FileId| matches!(id, FileId::Block { .. });
        let is_unnamed =
            |image: &OpenFile| vm.unnamed_images.iter().any(|other| other.path == image.path);
        images.retain(|image| named.contains(&image.id) || is_block(image.id) || is_unnamed(image));
    }
    images
}

/// The disks under an image that is open: the one that its file system or its partition is on, and those
/// that device mapper and md pass its I/O on to.
fn under(path: &Path, metadata: &Metadata) -> Result<Vec<DiskFacts>, String> {
    let is_device = metadata.file_type().is_block_device();
    let number = if is_device { metadata.rdev() } else { metadata.dev() };
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let (_, disk) = host::device_and_disk(major, minor).ok_or_else(|| {
        let shown = path.display();
        format!(
            "{shown} is on a file system that is not on one block device (device {major}:{minor})"
        )
    })?;
    let mut disks = Vec::new();
    descend(&disk, DEPTH_MAX, &mut disks);
    Ok(disks.iter().filter_map(|disk| host::facts_of_disk(disk)).collect())
}

/// Adds what a disk's directory in sysfs says it is made of: itself, if it is made of no other.
fn descend(disk: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let slaves: Vec<PathBuf> = fs::read_dir(disk.join("slaves"))
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::canonicalize(entry.ok()?.path()).ok())
        .filter_map(|device| host::disk_of_device(&device))
        .collect();
    if slaves.is_empty() || depth == 0 {
        found.push(disk.to_owned());
    }
    for slave in slaves.iter().filter(|_| depth > 0) {
        descend(slave, depth - 1, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Bus, Disk, DiskBus, Storage};
    use std::fs::File;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_disk_is_the_one_under_the_image_that_is_open() {
        let vm = Vm::named("web");
        let image = tempfile::NamedTempFile::new_in("/var/tmp").expect("writable");
        let _open = File::open(image.path()).expect("there");
        // This process is the VM here.
        let found = under_vms(std::slice::from_ref(&vm));
        match host::disk_facts(image.path()) {
            Some(disk) => assert!(found.disks.contains(&disk), "{found:?} has no {disk:?}"),
            None => assert!(found.disks_missing.iter().any(|why| why.contains("block device"))),
        }
        let gone = Vm { pid: vslice_core::units::Tid(u32::MAX), ..vm };
        let found = under_vms(&[gone]);
        assert_eq!(found.disks, []);
        let lines = found.lines();
        assert!(
            lines[0].starts_with("host disk unknown, because the open files of web"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_disk_that_is_not_known_has_its_reason() {
        let in_memory = under_directory(Path::new("/proc"));
        assert_eq!(
            in_memory.lines(),
            ["host disk unknown, because /proc is not on a block device"]
        );
        let vms = ["web", "db"].map(Vm::named);
        let without = under_images(&vms, |_| Ok(Vec::new()));
        assert_eq!(
            without.lines(),
            ["host disk unknown, because no disk image of web and db is open"]
        );
        let path = Path::new("/proc/self/stat");
        let metadata = fs::metadata(path).expect("there");
        let mut beside = HostDisks::default();
        add(&mut beside, under(path, &metadata));
        let reason =
            "unknown, because /proc/self/stat is on a file system that is not on one block device";
        assert!(beside.lines()[0].starts_with(&format!("host disk {reason}")), "{beside:?}");
        let disk = host::facts_of_disk(Path::new("/sys/block/vdz")).expect("a name");
        add(&mut beside, Ok(vec![disk]));
        let lines = beside.lines();
        assert!(lines[0].starts_with("host disk vdz, "), "{lines:?}");
        assert!(lines[1].starts_with(&format!("another host disk {reason}")), "{lines:?}");
    }

    #[test]
    fn what_a_vmm_reads_beside_its_disks_is_no_image() {
        let directory = tempfile::tempdir_in("/var/tmp").expect("writable");
        let opened = |name: &str| {
            let path = directory.path().join(name);
            fs::write(&path, b"x").expect("room");
            (File::open(&path).expect("there"), path)
        };
        let ((_disk, disk), (_firmware, firmware)) = (opened("disk"), opened("OVMF_VARS.fd"));
        // This process is the VM here.
        let mut vm = Vm::named("web");
        let seen = |vm: &Vm| {
            let images = open_files::images(vm.pid).expect("its own");
            let mut paths: Vec<PathBuf> =
                of_disks(vm, images).into_iter().map(|image| image.path).collect();
            paths.retain(|path| path.starts_with(directory.path()));
            paths.sort();
            paths
        };
        let all = [firmware, disk.clone()];
        assert_eq!(seen(&vm), all, "nothing tells which of them is a disk");
        let storage = Storage::file(disk.clone());
        vm.disks = Some(vec![Disk { storage, ..Disk::new(Bus::Known(DiskBus::VirtioBlk)) }]);
        assert_eq!(seen(&vm), [disk]);
        let storage = Storage::file("/nonexistent");
        vm.disks = Some(vec![Disk { storage, ..Disk::new(Bus::Known(DiskBus::VirtioBlk)) }]);
        assert_eq!(seen(&vm), all, "none that it names is open");
    }

    #[test]
    fn a_volume_is_on_the_disks_that_it_is_made_of() {
        let sysfs = tempfile::tempdir().expect("scratch");
        let at = |name: &str| sysfs.path().join(name);
        for directory in ["dm-1/queue", "dm-1/slaves", "dm-0/queue", "dm-0/slaves"] {
            fs::create_dir_all(at(directory)).expect("scratch is writable");
        }
        for directory in ["sda/queue", "sda/sda2", "sdb/queue"] {
            fs::create_dir_all(at(directory)).expect("scratch is writable");
        }
        symlink(at("dm-0"), at("dm-1/slaves/dm-0")).expect("scratch is writable");
        symlink(at("sda/sda2"), at("dm-0/slaves/sda2")).expect("scratch is writable");
        symlink(at("sdb"), at("dm-0/slaves/sdb")).expect("scratch is writable");
        let mut found = Vec::new();
        descend(&at("dm-1"), DEPTH_MAX, &mut found);
        found.sort();
        assert_eq!(found, [at("sda"), at("sdb")]);
        // A device that is its own slave ends too.
        symlink(at("dm-1"), at("dm-0/slaves/dm-1")).expect("scratch is writable");
        found.clear();
        descend(&at("dm-1"), DEPTH_MAX, &mut found);
        assert!(found.contains(&at("sdb")));
    }
}
