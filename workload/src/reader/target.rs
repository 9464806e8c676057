//! What a reader reads: found or created, opened past the page cache, and refused where reading it
//! would say nothing about a disk.

use super::buffer::AlignedBuffer;
use super::create::{create_file, directory_of, failed};
use super::disk::{
    DEVICES, DISK_PATIENCE, Disk, DiskPlace, SYSFS, SchedulerSetting, find_only_disk,
};
use crate::error::WorkloadError;
use nix::errno::Errno;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::{Whence, lseek};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use vslice_spec::workload::{AUTO_TARGET, ReaderSpec};

/// `statfs.f_type` of ramfs (linux/magic.h), which an initramfs without tmpfs is.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// The unit of `st_blocks`, whatever the file system's own block size is (inode(7)).
const STAT_BLOCK_BYTES: u64 = 512;

/// An open file or block device, ready for direct reads.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// At least one block.
    pub(super) target_bytes: u64,
    /// The disk that it is or lies on, where sysfs knows one.
    disk: Option<Disk>,
    /// The device number that it has or is on, and whether it is that device.
    device: (u64, bool),
}

impl Target {
    /// Finds, creates if asked to, opens and checks the target of a valid `spec`.
    pub(super) fn open(spec: &ReaderSpec) -> Result<Target, WorkloadError> {
        let path = if spec.target == AUTO_TARGET {
            find_only_disk(Path::new(SYSFS), Path::new(DEVICES), DISK_PATIENCE)?
        } else {
            PathBuf::from(&spec.target)
        };
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && spec.create => {
                refuse_memory(directory_of(&path))?;
                create_file(&path, spec.total_bytes)?;
                fs::metadata(&path)
            }
            other => other,
        }
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => WorkloadError::TargetMissing { path: path.clone() },
            _ => failed("look at", &path, source),
        })?;
        Target::open_existing(path, &metadata, spec.block_bytes)
    }

    fn open_existing(
        path: PathBuf,
        metadata: &Metadata,
        block_bytes: u32,
    ) -> Result<Target, WorkloadError> {
        let is_device = metadata.file_type().is_block_device();
        if !is_device && !metadata.is_file() {
            // Opening a FIFO or a terminal could wait for ever.
            return Err(WorkloadError::TargetKind { path });
        }
        if !is_device {
            refuse_memory(&path)?;
        }
        let file = open_direct(&path)?;
        let target_bytes = size_bytes(&file).map_err(|error| failed("measure", &path, error))?;
        if target_bytes < u64::from(block_bytes) {
            return Err(WorkloadError::TargetTooSmall { path, target_bytes, block_bytes });
        }
        if !is_device {
            refuse_sparse(&path, &file, target_bytes)?;
        }
        let device = if is_device { metadata.rdev() } else { metadata.dev() };
        let disk = Disk::of_device(Path::new(SYSFS), device);
        let target = Target { path, file, target_bytes, disk, device: (device, is_device) };
        target.refuse_small_blocks(block_bytes)?;
        Ok(target)
    }

    /// The whole disk that it is or lies on, as it is now.
    pub(super) fn place(&self) -> Option<DiskPlace> {
        let (device, is_device) = self.device;
        DiskPlace::of_device(Path::new(SYSFS), device, is_device)
    }

    /// Sets the I/O scheduler of the disk under the target until the setting is dropped.
    pub(super) fn set_scheduler(&self, wanted: &str) -> Result<SchedulerSetting, WorkloadError> {
        match &self.disk {
            Some(disk) => disk.set_scheduler(wanted),
            None => Err(WorkloadError::NoScheduler { path: self.path.clone() }),
        }
    }

    /// The kernel refuses a direct read of less than a logical block with `EINVAL`. Where sysfs does
    /// not know the disk, one read finds out; it may fail for any other reason, because a failed
    /// read is a result.
    fn refuse_small_blocks(&self, block_bytes: u32) -> Result<(), WorkloadError> {
        let path = self.path.clone();
        match self.disk.as_ref().and_then(Disk::logical_block_bytes) {
            Some(logical_block_bytes) if block_bytes < logical_block_bytes => {
                Err(WorkloadError::BlockTooSmall { path, block_bytes, logical_block_bytes })
            }
            Some(_) => Ok(()),
            None => {
                let mut buffer = AlignedBuffer::new(block_bytes as usize);
                match self.file.read_at(buffer.as_mut_slice(), 0) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        Err(WorkloadError::BlockRefused { path, block_bytes })
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

fn open_direct(path: &Path) -> Result<File, WorkloadError> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).map_err(|source| {
        match source.raw_os_error() {
            Some(libc::EINVAL) => WorkloadError::NoDirectIo { path: path.to_owned() },
            _ => failed("open", path, source),
        }
    })
}

/// `stat` says 0 for a block device; its end says the truth for both.
fn size_bytes(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Refuses a file system that is memory. tmpfs takes `O_DIRECT` since Linux 6.6, so opening the
/// file would not tell.
fn refuse_memory(path: &Path) -> Result<(), WorkloadError> {
    let file_system =
        statfs(path).map_err(|errno| failed("find the file system of", path, errno.into()))?;
    match file_system.filesystem_type() {
        TMPFS_MAGIC | RAMFS_MAGIC => Err(WorkloadError::TargetInMemory { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Refuses a file with holes, and one that was only ever preallocated: ext4, xfs and btrfs report
/// extents that were never written as holes, and read both without the disk.
fn refuse_sparse(path: &Path, file: &File, target_bytes: u64) -> Result<(), WorkloadError> {
    let hole_at = match lseek(file, 0, Whence::SeekHole) {
        Ok(position) => u64::try_from(position).expect("a file position is not negative"),
        // A file system that knows no holes has none that matter here.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => target_bytes,
        Err(errno) => return Err(failed("look for holes in", path, errno.into())),
    };
    let metadata = file.metadata().map_err(|error| failed("look at", path, error))?;
    let data_bytes = hole_at.min(metadata.blocks() * STAT_BLOCK_BYTES);
    if data_bytes < target_bytes {
        return Err(WorkloadError::Sparse { path: path.to_owned(), data_bytes, target_bytes });
    }
    Ok(())
}
