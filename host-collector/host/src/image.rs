//! The image on the host that a VM's disk is made of.
#![expect(clippy::big_endian_bytes, reason = "the headers of qcow2 are big endian")]

use super::disk::Disk;
use super::vm::Vm;
use super::{extents, host};
use crate::open_files::open_named;
use crate::procfs::seen_by;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::PathBuf;
use vslice_core::extent::Extent;
use vslice_core::units::Tid;
use vslice_trace::host::WholeDisk;

/// What a qcow2 image begins with (qemu/docs/interop/qcow2.txt).
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
/// Where its header tells the size of the disk that the guest sees, big endian.
const QCOW2_SIZE_AT: u64 = 24;
/// QEMU rounds the size of a raw image up to this.
const SECTOR_BYTES: u64 = 512;

/// A file or a block device of the host that holds a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Where it is, as this process sees it.
    pub path: PathBuf,
    /// `raw`, `qcow2`, ...; `None` if the VMM finds that out by itself.
    pub format: Option<String>,
    /// Whether the VMM reads it with `O_DIRECT`; `None` if that is not known.
    pub is_direct: Option<bool>,
    /// What speaks against it being what the guest reads, as a sentence without its end.
    pub contradiction: Option<String>,
}

impl Image {
    /// The images of a VM, by its command line. Its process may be in a mount namespace of its own,
    /// so they are looked for in its view of the file systems.
    ///
    /// # Errors
    /// Why they are not known, as a sentence without its end.
    pub fn of_vm(vm: &Vm) -> Result<Vec<Image>, String> {
        let disks = vm.disks.as_ref().ok_or("the disks of this VMM are unknown")?;
        let images = disks.iter().filter_map(|disk| Image::of_disk(vm.pid, disk));
        Ok(images.collect())
    }

    /// The image of one disk of the VMM with this id; `None` if that is not on a file or a block device of the host.
    #[must_use]
    pub fn of_disk(vmm: Tid, disk: &Disk) -> Option<Image> {
        Some(Image {
            path: seen_by(vmm, disk.path()?),
            format: disk.format.clone(),
            is_direct: disk.is_direct,
            contradiction: disk.contradiction.clone(),
        })
    }

    /// The size of the disk that the guest sees, in bytes; `None` if it cannot be read, or is not
    /// known of this format.
    #[must_use]
    pub fn disk_bytes(&self) -> Option<u64> {
        let mut file = open_named(&self.path).ok()?;
        match self.format.as_deref() {
            Some("raw") => file.seek(SeekFrom::End(0)).ok()?.checked_next_multiple_of(SECTOR_BYTES),
            Some("qcow2") | None => qcow2_bytes(&file).ok().flatten(),
            Some(_) => None,
        }
    }

    /// Where on the whole disk of the host the bytes of the guest's disk lie, in order of their
    /// offsets.
    ///
    /// # Errors
    /// Why that is not known, as a sentence without its end.
    pub fn extents(&self, whole: &WholeDisk) -> Result<Vec<Extent>, String> {
        let shown = self.path.display();
        match self.format.as_deref() {
            Some("raw") => {}
            Some(format) => return Err(format!("{shown} has the format {format}")),
            None => return Err(format!("the format of {shown} is not on the VMM's command line")),
        }
        let unseen = |error| format!("{shown} cannot be examined: {error}");
        if !fs::metadata(&self.path).map_err(unseen)?.file_type().is_block_device() {
            return extents::extents(&self.path, whole.first_sector);
        }
        let mut device = open_named(&self.path).map_err(unseen)?;
        let length_bytes = device.seek(SeekFrom::End(0)).map_err(unseen)?;
        Ok(vec![Extent { offset_bytes: 0, sector: whole.first_sector, length_bytes }])
    }

    /// The whole disk of the host that it is on.
    ///
    /// # Errors
    /// See [`host::whole_disk`]; and if it need not be what the guest reads.
    pub fn whole_disk(&self) -> Result<WholeDisk, String> {
        if let Some(contradiction) = &self.contradiction {
            return Err(format!("the disk was on {}, but {contradiction}", self.path.display()));
        }
        host::whole_disk(&self.path)
    }
}

/// The size that the header of a qcow2 image tells; `None` if it is none.
fn qcow2_bytes(file: &File) -> io::Result<Option<u64>> {
    let (mut magic, mut size) = ([0; 4], [0; 8]);
    file.read_exact_at(&mut magic, 0)?;
    if magic != QCOW2_MAGIC {
        return Ok(None);
    }
    file.read_exact_at(&mut size, QCOW2_SIZE_AT)?;
    Ok(Some(u64::from_be_bytes(size)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Bus, DiskBus, Storage};
    use std::io::Write;
    use std::path::Path;

    fn image(content: &[u8], format: Option<&str>) -> (tempfile::NamedTempFile, Image) {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").expect("writable");
        file.write_all(content).expect("room");
        let path = file.path().to_owned();
        (
            file,
            Image {
                path,
                format: format.map(str::to_owned),
                is_direct: Some(true),
                contradiction: None,
            },
        )
    }

    #[test]
    fn the_size_of_a_disk_is_that_of_a_raw_image_and_in_the_header_of_another() {
        let mut qcow2 = vec![0; 104];
        qcow2[..4].copy_from_slice(b"QFI\xfb");
        qcow2[24..32].copy_from_slice(&(5_u64 << 30).to_be_bytes());
        let bytes = |content: &[u8], format| {
            let (_file, image) = image(content, format);
            image.disk_bytes()
        };
        assert_eq!(bytes(&qcow2, Some("qcow2")), Some(5 << 30));
        assert_eq!(bytes(&qcow2, None), Some(5 << 30));
        assert_eq!(bytes(&qcow2, Some("raw")), Some(512), "whatever the guest wrote there");
        assert_eq!(bytes(&[0; 1025], Some("raw")), Some(1536));
        assert_eq!(bytes(&[0; 1025], None), None);
        assert_eq!(bytes(&[0; 3], Some("qcow2")), None);
        assert_eq!(bytes(&qcow2, Some("vmdk")), None);
    }

    #[test]
    fn only_raw_images_are_mapped() {
        let whole = WholeDisk { name: "vda".to_owned(), device: 1, first_sector: 2048 };
        let (_file, qcow2) = image(b"QFI\xfb", Some("qcow2"));
        assert!(qcow2.extents(&whole).is_err_and(|reason| reason.ends_with("the format qcow2")));
        let (_file, unknown) = image(b"", None);
        assert!(unknown.extents(&whole).is_err_and(|reason| reason.contains("is not on the VMM")));
        let (_file, raw) = image(b"", Some("raw"));
        let gone = Image { path: "/nonexistent".into(), ..raw };
        assert_eq!(gone.disk_bytes(), None);
        assert!(gone.extents(&whole).is_err_and(|reason| reason.contains("cannot be examined")));
    }

    #[test]
    fn images_are_looked_for_where_their_vm_sees_them() {
        let mut vm = Vm::named("web");
        assert!(Image::of_vm(&vm).is_err());
        let disk = |path: Option<&str>| Disk {
            storage: path.map_or(Storage::Empty, Storage::file),
            format: Some("raw".to_owned()),
            ..Disk::new(Bus::Known(DiskBus::VirtioBlk))
        };
        let paths = [Some("/proc/version"), None, Some("Cargo.toml"), Some("/nonexistent")];
        vm.disks = Some(paths.into_iter().map(disk).collect());
        let images = Image::of_vm(&vm).expect("known");
        // This process is the VM here.
        let below = |name: &str| Path::new(&format!("/proc/{}", std::process::id())).join(name);
        let expected =
            [PathBuf::from("/proc/version"), below("cwd/Cargo.toml"), below("root/nonexistent")];
        let paths: Vec<PathBuf> = images.into_iter().map(|image| image.path).collect();
        assert_eq!(paths, expected, "a drive without a medium has no image");
        assert!(paths[1].exists());
    }
}
