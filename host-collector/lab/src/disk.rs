//! Scratch images: the disks that guests read.

use super::plan::DiskPlan;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error;
use vslice_spec::split_mix::SplitMix64;

/// Why there is no image.
#[derive(Debug, Error)]
pub enum DiskError {
    /// It cannot be written.
    #[error("the guest's disk {path} of {size_bytes} bytes cannot be written: {source}")]
    Write {
        /// The image.
        path: PathBuf,
        /// Its size in bytes.
        size_bytes: u64,
        /// Why.
        source: io::Error,
    },
    /// The file system holds less than was written: it leaves holes, or joins equal blocks.
    #[error(
        "the guest's disk {path} holds {allocated_bytes} of {size_bytes} bytes: reads of it would not reach the storage"
    )]
    Sparse {
        /// The image.
        path: PathBuf,
        /// Its size in bytes.
        size_bytes: u64,
        /// What the file system has allocated in bytes.
        allocated_bytes: u64,
    },
    /// No `O_DIRECT` here.
    #[error(
        "{path} cannot be opened with O_DIRECT ({source}), which cache = \"none\" needs: set VSLICE_TMP to a directory on a disk, or use --cache writeback --aio threads"
    )]
    NoDirect {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

const CHUNK_BYTES: usize = 1 << 20;

/// Writes an image for this disk with real data, on storage, the same in every run. A sparse file
/// would be answered by the file system alone, and equal blocks can be compressed or joined away.
///
/// Gives up soon after `interrupted` is set: a large image takes minutes.
///
/// # Errors
/// [`DiskError`].
pub fn create_scratch(
    path: &Path,
    disk: &DiskPlan,
    interrupted: &AtomicBool,
) -> Result<(), DiskError> {
    let size_bytes = disk.size_bytes;
    let write_error = |source| DiskError::Write { path: path.to_owned(), size_bytes, source };
    let allocated_bytes = write_data(path, size_bytes, interrupted).map_err(write_error)?;
    if allocated_bytes < size_bytes / 2 {
        return Err(DiskError::Sparse { path: path.to_owned(), size_bytes, allocated_bytes });
    }
    if disk.cache.is_direct() {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .map_err(|source| DiskError::NoDirect { path: path.to_owned(), source })?;
    }
    Ok(())
}

/// Returns what the file system has allocated, in bytes.
fn write_data(path: &Path, size_bytes: u64, interrupted: &AtomicBool) -> io::Result<u64> {
    let mut file = File::create_new(path)?;
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    let mut state = SplitMix64(0);
    let mut left_bytes = size_bytes;
    while left_bytes > 0 {
        if interrupted.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        for word in chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&state.next().to_le_bytes());
        }
        let bytes = usize::try_from(left_bytes).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        file.write_all(&chunk[..bytes])?;
        left_bytes -= bytes as u64;
    }
    // Only now are blocks allocated for certain, and nothing is left to be written back during
    // the measurement.
    file.sync_all()?;
    // st_blocks counts units of 512 bytes on every file system, see inode(7).
    Ok(file.metadata()?.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use std::collections::HashSet;
    use std::fs;
    use vslice_host::disk::Cache;

    static NEVER: AtomicBool = AtomicBool::new(false);

    #[test]
    fn an_interrupted_image_is_given_up() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("vm1.raw");
        let error = create_scratch(&path, &disk(1 << 40), &AtomicBool::new(true));
        assert!(matches!(error, Err(DiskError::Write { .. })), "{error:?}");
    }

    fn disk(size_bytes: u64) -> DiskPlan {
        let plan = Plan::load("demo").expect("built in");
        let disk = plan.vms[0].disk.clone().expect("vm1 has a disk");
        // A test's scratch may be in memory.
        DiskPlan { size_bytes, cache: Cache::Writeback, ..disk }
    }

    #[test]
    fn an_image_has_its_size_and_no_two_equal_sectors() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("vm1.raw");
        create_scratch(&path, &disk((3 << 20) + 512), &NEVER).expect("scratch is writable");
        let bytes = fs::read(&path).expect("it was written");
        assert_eq!(bytes.len(), (3 << 20) + 512);
        let sectors: HashSet<&[u8]> = bytes.chunks(512).collect();
        assert_eq!(sectors.len(), bytes.len() / 512);
    }

    #[test]
    fn an_image_never_replaces_a_file() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("vm1.raw");
        fs::write(&path, "precious").expect("scratch is writable");
        let message =
            create_scratch(&path, &disk(1 << 20), &NEVER).expect_err("it exists").to_string();
        assert!(message.contains("of 1048576 bytes cannot be written"), "{message}");
        assert_eq!(fs::read(&path).expect("it is there"), b"precious");
    }
}
