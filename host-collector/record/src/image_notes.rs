//! What is noted of all disks of each VM just before recording begins, with and without an agent: whose I/O on
//! which sectors of the host's disks is the VM's. What cannot be found becomes the reason why.

use std::fs;
use std::path::Path;
use vslice_core::text::harmless;
use vslice_host::disk::Disk;
use vslice_host::image::Image;
use vslice_host::open_files::{FileId, OpenFile, open_files};
use vslice_host::vm::Vm;
use vslice_trace::image::ImageRecord;
use vslice_trace::manifest::VmRecord;

/// Extents of one VM's disks that the manifest keeps at most; images are few, and fragmented ones have thousands.
const EXTENTS_MAX: usize = 32 << 10;

/// Numbers of one file that the manifest keeps at most; QEMU has one or two.
const DESCRIPTORS_MAX: usize = 64;

/// Notes the disks of this VM. Not while anything is measured: it reads.
pub(crate) fn note(record: &mut VmRecord, vm: &Vm) {
    let Some(disks) = &vm.disks else {
        record.disks_missing = Some("the disks of this VMM are unknown".to_owned());
        return;
    };
    let mut room = EXTENTS_MAX;
    // Those of another process than the VMM's, which may have a disk's file open as well, are not looked at.
    let files = open_files(vm.pid).unwrap_or_default();
    let image = |disk| image_record(vm, disk, &files, &mut room);
    record.disks = disks.iter().map(image).collect();
}

/// The numbers by which the VMM has this file open.
fn descriptors(files: &[OpenFile], path: &Path) -> Vec<u32> {
    let id = fs::metadata(path).ok().and_then(|file| FileId::of(&file));
    let own = files.iter().filter(|file| Some(file.id) == id);
    own.map(|file| file.fd).take(DESCRIPTORS_MAX).collect()
}

fn iothreads(disk: &Disk) -> Vec<String> {
    disk.iothreads.iter().map(|id| harmless(id)).collect()
}

fn image_record(vm: &Vm, disk: &Disk, files: &[OpenFile], room: &mut usize) -> ImageRecord {
    let own = |text: &Option<String>| text.as_deref().map(harmless);
    let mut record = ImageRecord {
        label: harmless(&disk.label()),
        serial: own(&disk.serial),
        pci_address: own(&disk.pci_address),
        bus: harmless(&disk.bus.to_string()),
        iothreads: disk.iothreads_missing.is_none().then(|| iothreads(disk)),
        size_bytes: None,
        is_direct: disk.is_direct,
        descriptors: Vec::new(),
        whole_disk: None,
        missing: None,
        extents: Vec::new(),
        extents_missing: None,
    };
    let Some(image) = Image::of_disk(vm.pid, disk) else {
        let no_file = || "it is on no file of the host".to_owned();
        record.missing = Some(harmless(&disk.storage.why_no_cache().unwrap_or_else(no_file)));
        return record;
    };
    record.size_bytes = image.disk_bytes();
    record.descriptors = descriptors(files, &image.path);
    let whole = match image.whole_disk() {
        Ok(whole) => whole,
        Err(reason) => {
            record.missing = Some(harmless(&reason));
            return record;
        }
    };
    match image.extents(&whole) {
        Ok(extents) if extents.len() <= *room => {
            *room -= extents.len();
            record.extents = extents;
        }
        Ok(_) => {
            let reason = format!("the disks of the VM have more than {EXTENTS_MAX} extents");
            record.extents_missing = Some(reason);
        }
        Err(reason) => record.extents_missing = Some(harmless(&reason)),
    }
    record.whole_disk = Some(whole);
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use vslice_core::units::Tid;
    use vslice_host::disk::{Bus, DiskBus, Storage};
    use vslice_trace::vmm::Vmm;

    fn noted(disks: Option<Vec<Disk>>) -> VmRecord {
        // This process is the VM here.
        let vm = Vm { disks, ..Vm::named("web") };
        let mut record = VmRecord::new("web", Vmm::Qemu, Tid(1), vec![]);
        note(&mut record, &vm);
        record
    }

    fn on(storage: Storage) -> Disk {
        let format = Some("raw".to_owned());
        Disk { storage, format, ..Disk::new(Bus::Known(DiskBus::VirtioBlk)) }
    }

    #[test]
    fn every_disk_is_noted_with_what_is_known_of_it_or_why_it_is_not() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("writable");
        file.as_file().set_len(1 << 20).expect("sparse");
        let raw = Disk {
            id: Some("d\u{1b}0".to_owned()),
            serial: Some("A1\u{9b}".to_owned()),
            pci_address: Some("0000:00:05.0".to_owned()),
            is_direct: Some(true),
            ..on(Storage::file(file.path()))
        };
        let qcow2 = Disk { format: Some("qcow2".to_owned()), ..raw.clone() };
        let rbd = Storage::Protocol { driver: "rbd".to_owned(), place: None, socket: None };
        let gone = Disk {
            contradiction: Some("that file was deleted, and is still open".to_owned()),
            ..raw.clone()
        };
        let others = [Storage::Empty, Storage::file("/proc/self/stat"), rbd].map(on);
        let all = [raw, qcow2, gone].into_iter().chain(others).collect();
        let record = noted(Some(all));
        let [raw, qcow2, gone, empty, in_memory, rbd] = &record.disks[..] else {
            panic!("{:?}", record.disks)
        };
        let path = file.path().display();
        assert_eq!(raw.label, format!("virtio-blk d?0 on {path} (raw)"));
        assert_eq!(raw.serial.as_deref(), Some("A1?"));
        assert_eq!(
            (raw.pci_address.as_deref(), raw.bus.as_str()),
            (Some("0000:00:05.0"), "virtio-blk")
        );
        assert_eq!((raw.size_bytes, raw.is_direct), (Some(1 << 20), Some(true)));
        assert_eq!(raw.whole_disk.is_none(), raw.missing.is_some(), "{raw:?}");
        let own = u32::try_from(file.as_raw_fd()).expect("it is open");
        assert_eq!((&raw.descriptors, &qcow2.descriptors), (&vec![own], &vec![own]));
        assert_eq!((&empty.descriptors, &rbd.descriptors), (&vec![], &vec![]));
        if qcow2.whole_disk.is_some() {
            let reason = qcow2.extents_missing.as_deref();
            assert!(
                reason.is_some_and(|reason| reason.ends_with("has the format qcow2")),
                "{qcow2:?}"
            );
        }
        let missing = |disk: &ImageRecord, words: &str| {
            let reason = disk.missing.as_deref();
            assert!(reason.is_some_and(|reason| reason.contains(words)), "{disk:?}");
            assert_eq!((&disk.whole_disk, &disk.extents[..]), (&None, &[][..]));
        };
        missing(gone, "but that file was deleted");
        missing(empty, "it has no medium");
        missing(in_memory, "not on one block device");
        missing(rbd, "QEMU's driver rbd uses no file of the host");
        assert_eq!(record.disks_missing, None);
    }

    #[test]
    fn disks_that_nothing_tells_have_the_reason() {
        let record = noted(None);
        assert_eq!(record.disks, []);
        assert_eq!(record.disks_missing.as_deref(), Some("the disks of this VMM are unknown"));
        assert_eq!(noted(Some(vec![])).disks_missing, None, "it has none");
    }
}
