//! A file of real data: written to the last byte, and not compressible by a disk or a VMM that
//! would otherwise read zeroes from nowhere.

use crate::error::WorkloadError;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::sys::statvfs::statvfs;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use vslice_spec::split_mix::SplitMix64;

/// How much is written at once.
const CHUNK_BYTES: usize = 1 << 20;
const WORD_BYTES: usize = size_of::<u64>();
const WORDS_PER_CHUNK: u64 = (CHUNK_BYTES / WORD_BYTES) as u64;

/// Creates `path` with `total_bytes` of data that is on the disk when this returns. The file has
/// another name until it is whole, so that a run which is killed meanwhile leaves nothing that looks
/// like a target.
///
/// # Errors
///
/// [`WorkloadError::DiskFull`], and [`WorkloadError::Target`] for anything else; no part of the
/// file is left behind.
pub(super) fn create_file(path: &Path, total_bytes: u64) -> Result<(), WorkloadError> {
    let partial = partial_path(path);
    write_whole(&partial, path, total_bytes).map_err(|source| {
        // The reason to report is why the file could not be written.
        let _ = fs::remove_file(&partial);
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => WorkloadError::DiskFull {
                path: path.to_owned(),
                needed_bytes: total_bytes,
                available_bytes: available_bytes(directory_of(path)),
            },
            _ => failed("create", path, source),
        }
    })
}

/// The name that a target has while it is being written.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".vslice-partial");
    path.with_file_name(name)
}

fn write_whole(partial: &Path, path: &Path, total_bytes: u64) -> io::Result<()> {
    let space = statvfs(directory_of(path))?;
    if total_bytes > space.blocks_available() * space.fragment_size() {
        // Not by trying: until it fails, the attempt would leave no room for anybody else.
        return Err(Errno::ENOSPC.into());
    }
    let mut file = File::create(partial)?;
    reserve(&file, total_bytes)?;
    write_data(&mut file, total_bytes)?;
    file.sync_all()?;
    // The pages are clean now and would only fill the guest's memory; advice can be ignored.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    fs::rename(partial, path)?;
    File::open(directory_of(path))?.sync_all()
}

/// Asks for all the room at once: a quota or another writer that leaves too little shows now and
/// not after minutes.
fn reserve(file: &File, total_bytes: u64) -> io::Result<()> {
    let length = i64::try_from(total_bytes).map_err(|_| io::Error::from(Errno::EFBIG))?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn write_data(file: &mut File, total_bytes: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut word_position = 0;
    let mut left_bytes = total_bytes;
    while left_bytes > 0 {
        fill(&mut chunk, word_position);
        word_position += WORDS_PER_CHUNK;
        let length = usize::try_from(left_bytes).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        file.write_all(&chunk[..length])?;
        left_bytes -= length as u64;
    }
    Ok(())
}

/// Fills `chunk` with the pseudo-random words from `word_position` on.
fn fill(chunk: &mut [u8], word_position: u64) {
    for (word, position) in chunk.chunks_exact_mut(WORD_BYTES).zip(word_position..) {
        word.copy_from_slice(&SplitMix64(0).at(position).to_le_bytes());
    }
}

/// What an unprivileged process may still write; 0 if the kernel does not say.
fn available_bytes(directory: &Path) -> u64 {
    statvfs(directory).map_or(0, |space| space.blocks_available() * space.fragment_size())
}

/// The directory that `path` is in; the current one for a plain name.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> WorkloadError {
    WorkloadError::Target { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_on_disk() -> tempfile::TempDir {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        fs::create_dir_all(&target).unwrap();
        tempfile::tempdir_in(target).unwrap()
    }

    #[test]
    fn a_plain_name_is_in_the_current_directory() {
        assert_eq!(directory_of(Path::new("data")), Path::new("."));
        assert_eq!(directory_of(Path::new("/data")), Path::new("/"));
        assert_eq!(directory_of(Path::new("a/b/data")), Path::new("a/b"));
    }

    #[test]
    fn a_created_file_has_its_size_and_no_repetition() {
        let directory = directory_on_disk();
        let path = directory.path().join("data");
        let total_bytes = CHUNK_BYTES + 4096 + 5;
        create_file(&path, total_bytes as u64).unwrap();

        let data = fs::read(&path).unwrap();
        assert_eq!(data.len(), total_bytes);
        let mut blocks: Vec<&[u8]> = data.chunks_exact(512).collect();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), total_bytes / 512, "no two blocks are the same");
        let ones: u32 = data.iter().map(|byte| byte.count_ones()).sum();
        let share = f64::from(ones) / (data.len() as f64 * 8.0);
        assert!((0.499..0.501).contains(&share), "{share} of the bits are set");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "only the file is left");
    }

    #[test]
    fn a_file_that_does_not_fit_leaves_nothing_behind() {
        let directory = directory_on_disk();
        let path = directory.path().join("data");
        let error = create_file(&path, 1 << 60).unwrap_err();
        assert!(
            matches!(error, WorkloadError::DiskFull { needed_bytes, .. } if needed_bytes == 1 << 60),
            "{error}"
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let directory = directory_on_disk();
        let error = create_file(&directory.path().join("missing/data"), 4096).unwrap_err();
        assert!(matches!(error, WorkloadError::Target { action: "create", .. }), "{error}");
    }
}
