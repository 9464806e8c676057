//! What is noted of each guest's disk just before requests are recorded, so that the host's I/O can
//! be given to them. Nothing of it is needed for a run: what cannot be found becomes the reason why.

use vslice_host::image::Image;
use vslice_spec::ReaderSpec;
use vslice_trace::disk::DiskRecord;
use vslice_trace::manifest::VmRecord;
use vslice_wire::{GuestDisk, Ready};

/// Notes what a VM's reader reads of these images, of which its guest said so much. Not while
/// requests are measured: it reads.
pub(crate) fn note(
    vm: &mut VmRecord,
    reader: &ReaderSpec,
    images: Result<Vec<Image>, String>,
    said: Option<&Ready>,
) {
    let disk = said.and_then(|said| said.disk.as_ref());
    let mut record = DiskRecord {
        is_direct: None,
        pattern: reader.pattern,
        size_bytes: said.map_or(0, |said| said.target_bytes),
        offset_bytes: 0,
        whole_disk: None,
        missing: None,
        extents: Vec::new(),
        extents_missing: None,
    };
    match images.and_then(|images| the_one(images, disk)) {
        Ok(image) => note_image(&mut record, &image, disk),
        Err(reason) => record.missing = Some(reason),
    }
    vm.disk = Some(record);
}

/// The image that the guest's disk is made of: the only one of that size.
fn the_one(images: Vec<Image>, disk: Option<&GuestDisk>) -> Result<Image, String> {
    let wanted_bytes = disk.map(|disk| disk.size_bytes);
    let can_be = |image: &Image| match (wanted_bytes, image.disk_bytes()) {
        (Some(wanted_bytes), Some(bytes)) => wanted_bytes == bytes,
        _ => true,
    };
    let all = images.len();
    let mut fitting = images.into_iter().filter(can_be);
    let of_that_size = wanted_bytes.map(|bytes| format!(" of {bytes} bytes")).unwrap_or_default();
    match (fitting.next(), fitting.count()) {
        (Some(image), 0) => Ok(image),
        (Some(_), others) => Err(format!(
            "the guest may be reading any of {} disks of the VM{of_that_size}",
            others + 1
        )),
        (None, _) if all == 0 => {
            Err("the VM's command line has no disk with its own file".to_owned())
        }
        (None, _) => Err(format!(
            "no file on the VM's command line is the disk that the guest reads{of_that_size}: it is no \
            file of the host, or was plugged in later"
        )),
    }
}

fn note_image(record: &mut DiskRecord, image: &Image, disk: Option<&GuestDisk>) {
    record.is_direct = image.is_direct;
    let whole = match image.whole_disk() {
        Ok(whole) => whole,
        Err(reason) => {
            record.missing = Some(reason);
            return;
        }
    };
    let offset_bytes = disk.and_then(|disk| disk.target_offset_bytes).ok_or_else(|| {
        "what the guest reads is not one contiguous range of its disk (for example, a file or a \
        logical volume)"
            .to_owned()
    });
    match offset_bytes.and_then(|offset| Ok((offset, image.extents(&whole)?))) {
        Ok((offset_bytes, extents)) => {
            (record.offset_bytes, record.extents) = (offset_bytes, extents);
        }
        Err(reason) => record.extents_missing = Some(reason),
    }
    record.whole_disk = Some(whole);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};
    use vslice_core::units::Tid;
    use vslice_spec::{Engine, Pattern};
    use vslice_trace::vmm::Vmm;
    use vslice_wire::ClockKind;

    fn raw(path: &Path) -> Image {
        Image {
            path: path.to_owned(),
            format: Some("raw".to_owned()),
            is_direct: Some(true),
            contradiction: None,
        }
    }

    fn sized(bytes: u64) -> (tempfile::NamedTempFile, Image) {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("writable");
        file.as_file().set_len(bytes).expect("sparse");
        let image = raw(file.path());
        (file, image)
    }

    fn said(size_bytes: u64, target_offset_bytes: Option<u64>) -> Ready {
        let disk = GuestDisk { size_bytes, target_offset_bytes, io_scheduler: String::new() };
        Ready {
            clock: ClockKind::Tsc,
            target: "/dev/vda".to_owned(),
            target_bytes: 4096,
            clock_source: String::new(),
            disk: Some(disk),
        }
    }

    fn noted(images: Result<Vec<Image>, String>, said: Option<&Ready>) -> DiskRecord {
        let reader = ReaderSpec {
            target: "auto".to_owned(),
            create: false,
            block_bytes: 4096,
            total_bytes: 1 << 20,
            duration_ms: None,
            pattern: Pattern::Seq,
            engine: Engine::Psync,
            depth: 1,
            vcpu: 1,
        };
        let mut vm = VmRecord::new("vm1", Vmm::Qemu, Tid(1), vec![]);
        note(&mut vm, &reader, images, said);
        vm.disk.expect("noted")
    }

    /// In memory, where no device is.
    #[test]
    fn what_is_not_on_a_disk_has_a_reason() {
        let stat = vec![raw(Path::new("/proc/self/stat"))];
        let record = noted(Ok(stat), None);
        assert_eq!(record.whole_disk, None);
        let reason = record.missing.expect("a reason");
        assert!(reason.contains("not on one block device"), "{reason}");
    }

    #[test]
    fn the_image_is_the_only_one_of_the_size_that_the_guest_sees() {
        let ((_a, small), (_b, large)) = (sized(1 << 20), sized(2 << 20));
        let both = || vec![small.clone(), large.clone()];
        let one = |images, bytes: Option<u64>| {
            the_one(images, bytes.map(|bytes| said(bytes, None).disk.expect("said")).as_ref())
        };
        assert_eq!(one(both(), Some(1 << 20)), Ok(small.clone()));
        assert_eq!(one(both(), Some(2 << 20)), Ok(large.clone()));
        let unlike = |result: Result<Image, String>, words: &str| {
            assert!(result.as_ref().is_err_and(|reason| reason.contains(words)), "{result:?}");
        };
        unlike(one(both(), Some(3 << 20)), "plugged in later");
        unlike(one(both(), None), "the guest may be reading any of 2 disks of the VM");
        unlike(one(vec![small.clone(), small.clone()], Some(1 << 20)), "of 1048576 bytes");
        unlike(one(vec![], Some(1 << 20)), "no disk with its own file");
        // What cannot be measured can be any.
        let unmeasured = Image { path: PathBuf::from("/nonexistent"), ..large };
        assert_eq!(one(vec![small, unmeasured.clone()], Some(2 << 20)), Ok(unmeasured));
    }

    #[test]
    fn what_the_guest_reads_is_where_it_says_or_nowhere() {
        let (_file, image) = sized(1 << 20);
        let record = noted(Ok(vec![image.clone()]), Some(&said(1 << 20, Some(1 << 19))));
        assert_eq!(record.whole_disk.is_none(), record.missing.is_some(), "{record:?}");
        if record.whole_disk.is_some() {
            assert_eq!((record.size_bytes, record.offset_bytes), (4096, 1 << 19));
            let record = noted(Ok(vec![image]), Some(&said(1 << 20, None)));
            assert!(
                record
                    .extents_missing
                    .is_some_and(|reason| reason.contains("not one contiguous range"))
            );
        }
        let contradiction = Some("that file is not open".to_owned());
        let stale = Image { contradiction, ..raw(Path::new("/a.img")) };
        let record = noted(Ok(vec![stale]), Some(&said(1 << 20, Some(0))));
        let reason = "the disk was on /a.img, but that file is not open";
        assert_eq!((record.missing.as_deref(), record.whole_disk), (Some(reason), None));
        let record = noted(Err("nobody knows".to_owned()), None);
        assert_eq!((record.missing.as_deref(), record.whole_disk), (Some("nobody knows"), None));
    }
}
