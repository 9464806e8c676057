//! The images that a VMM has open, by the kernel's word: `/proc/PID/fd` leads to the very files, also those
//! of another mount namespace and those that were plugged in later, and `/proc/PID/fdinfo` tells how they
//! were opened (proc_pid_fdinfo(5)).

use super::procfs;
use nix::sys::statfs::{FsType, HUGETLBFS_MAGIC, TMPFS_MAGIC, statfs};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use vslice_core::units::Tid;

/// `f_type` of ramfs (linux/include/uapi/linux/magic.h).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Standard input, output and error are below this.
const FIRST_OWN_FD: u32 = 3;

/// The identity of a file, independent of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileId {
    /// A regular file of a file system.
    Regular {
        /// The file system's device.
        device: u64,
        /// Its inode there.
        inode: u64,
    },
    /// A block device.
    Block {
        /// Its number.
        number: u64,
    },
}

impl FileId {
    /// `None` for what cannot be an image: a socket, a directory, a character device.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Option<FileId> {
        let kind = metadata.file_type();
        if kind.is_file() {
            return Some(FileId::Regular { device: metadata.dev(), inode: metadata.ino() });
        }
        kind.is_block_device().then(|| FileId::Block { number: metadata.rdev() })
    }
}

/// A file or a block device that a process has open, as one of its file descriptors.
#[derive(Debug, Clone)]
pub struct OpenFile {
    /// The file descriptor.
    pub fd: u32,
    /// Which file it is.
    pub id: FileId,
    /// The path by which the process opened it.
    pub path: PathBuf,
    /// `open(2)`'s flags.
    flags: i32,
    /// Whether it lies in memory.
    is_in_memory: bool,
    /// Whether QEMU has locked it as an image that it writes to.
    is_written_by_qemu: bool,
    metadata: Metadata,
}

impl OpenFile {
    /// Whether it is open with `O_DIRECT`.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.flags & libc::O_DIRECT != 0
    }

    /// Whether it is open for writing.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        matches!(self.flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR)
    }

    /// Whether QEMU has locked it as an image that it writes to. Not all images are locked: `locking=off`, and QEMU
    /// before 2.10.
    #[must_use]
    pub fn is_written_by_qemu(&self) -> bool {
        self.is_written_by_qemu
    }

    /// Whether it has no name any more.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.path_when_opened() != self.path
    }

    /// Its path, also if it was deleted since (proc_pid_fd(5)).
    #[must_use]
    pub fn path_when_opened(&self) -> &Path {
        self.path
            .to_str()
            .and_then(|path| path.strip_suffix(" (deleted)"))
            .map_or(&self.path, Path::new)
    }

    /// The file's metadata, with its kind and device.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Whether a guest's disk may be made of it: it can be read, is not only added to, as logs are, and is
    /// not the guest's memory.
    pub(crate) fn may_be_image(&self) -> bool {
        let is_read = matches!(self.flags & libc::O_ACCMODE, libc::O_RDONLY | libc::O_RDWR)
            && self.flags & (libc::O_PATH | libc::O_APPEND) == 0;
        is_read && self.fd >= FIRST_OWN_FD && !self.is_in_memory
    }
}

/// All files and block devices that a process has open, by their descriptors.
///
/// # Errors
/// Fails if they are not visible: the process belongs to another user, or it has ended.
pub fn open_files(pid: Tid) -> io::Result<Vec<OpenFile>> {
    // A descriptor may be closed while it is looked at.
    Ok(procfs::fds(pid)?.into_iter().filter_map(|fd| look_at(pid, fd)).collect())
}

/// The open files that can be disks of a guest, each once.
///
/// # Errors
/// As [`open_files`].
pub fn images(pid: Tid) -> io::Result<Vec<OpenFile>> {
    let mut images = open_files(pid)?;
    images.retain(OpenFile::may_be_image);
    images.sort_by_key(|file| (file.id, file.fd));
    images.dedup_by_key(|file| file.id);
    Ok(images)
}

/// Whether a file that is open so often is open with `O_DIRECT`; `None` if it is not open, or both with and without
/// it.
#[must_use]
pub fn is_direct(files: &[&OpenFile]) -> Option<bool> {
    let mut ways = files.iter().map(|file| file.is_direct());
    let first = ways.next()?;
    ways.all(|way| way == first).then_some(first)
}

fn look_at(pid: Tid, fd: u32) -> Option<OpenFile> {
    let link = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
    let metadata = fs::metadata(&link).ok()?;
    let id = FileId::of(&metadata)?;
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let is_in_memory = !matches!(id, FileId::Block { .. })
        && statfs(&link).is_ok_and(|found| {
            [TMPFS_MAGIC, HUGETLBFS_MAGIC, RAMFS_MAGIC].contains(&found.filesystem_type())
        });
    let path = fs::read_link(&link).ok()?;
    let is_written_by_qemu = is_written_by_qemu(&info);
    Some(OpenFile {
        fd,
        id,
        path,
        flags: flags(&info)?,
        is_in_memory,
        is_written_by_qemu,
        metadata,
    })
}

/// The line `flags: 02140002`, which is octal.
fn flags(info: &str) -> Option<i32> {
    let text = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(text.trim(), 8).ok()
}

/// The byte that QEMU locks of an image of which a node may be written to: `RAW_LOCK_PERM_BASE` and the place of
/// `BLK_PERM_WRITE` (qemu: block/file-posix.c, include/block/block-common.h).
const WRITE_PERMISSION_BYTE: u64 = 101;

/// A line is `lock: 1: OFDLCK ADVISORY READ -1 fe:00:27 100 101`: first and last byte come last.
fn is_written_by_qemu(info: &str) -> bool {
    let locks = info.lines().filter_map(|line| line.strip_prefix("lock:"));
    locks.filter(|lock| lock.contains("OFDLCK")).any(|lock| {
        let mut fields = lock.split_whitespace().rev();
        let last = fields.next().map(|last| last.parse().unwrap_or(u64::MAX));
        let first = fields.next().and_then(|first| first.parse::<u64>().ok());
        first.zip(last).is_some_and(|(first, last)| {
            (first..=last).contains(&WRITE_PERMISSION_BYTE) && last != u64::MAX
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    fn own() -> Tid {
        Tid(std::process::id())
    }

    fn way(path: &Path) -> Option<bool> {
        let id = FileId::of(&fs::metadata(path).ok()?)?;
        let files = open_files(own()).expect("its own");
        is_direct(&files.iter().filter(|file| file.id == id).collect::<Vec<_>>())
    }

    #[test]
    fn qemus_lock_of_what_it_writes_to_is_one_byte() {
        let locked =
            |line: &str| is_written_by_qemu(&format!("pos:\t0\nflags:\t02140002\n{line}\n"));
        assert!(locked("lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:27 100 101"));
        assert!(locked("lock:\t1: OFDLCK  ADVISORY  WRITE -1 fe:00:27 101 101"));
        assert!(!locked("lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:27 100 100"));
        assert!(!locked("lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:27 201 203"));
        assert!(!locked("lock:\t1: POSIX  ADVISORY  WRITE 77 fe:00:27 0 200"));
        assert!(!locked("lock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:27 0 EOF"));
        assert!(!locked(""));
    }

    #[test]
    fn the_flags_of_an_open_file_are_octal() {
        let info = "pos:\t0\nflags:\t02140002\nmnt_id:\t29\nino:\t1\n";
        let flags = flags(info).expect("a line of flags");
        assert_eq!(flags & libc::O_ACCMODE, libc::O_RDWR);
        assert_eq!(flags & libc::O_DIRECT, 0o40000 & flags, "as x86 has it, or none");
        assert_eq!(super::flags("pos:\t0\n"), None);
        assert_eq!(super::flags("flags:\t9\n"), None);
    }

    #[test]
    fn how_a_file_was_opened_is_the_kernels_word() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("writable");
        let of_now = || way(file.path());
        assert_eq!(of_now(), Some(false));
        let mut direct = OpenOptions::new();
        direct.read(true).custom_flags(libc::O_DIRECT);
        // A file system without O_DIRECT has nothing to show.
        if let Ok(_direct) = direct.open(file.path()) {
            assert_eq!(of_now(), None, "it is open in both ways");
        }
        let closed =
            tempfile::NamedTempFile::new_in("/var/tmp").expect("writable").into_temp_path();
        assert_eq!(way(&closed), None);
        assert!(open_files(Tid(u32::MAX)).is_err());
    }

    #[test]
    fn only_what_a_disk_may_be_made_of_is_an_image() {
        let directory = tempfile::tempdir_in("/var/tmp").expect("writable");
        let path = |name: &str| directory.path().join(name);
        for name in ["disk", "log", "out"] {
            File::create(path(name)).and_then(|mut file| file.write_all(b"x")).expect("room");
        }
        let _disk = File::open(path("disk")).expect("there");
        let _twice = File::open(path("disk")).expect("there");
        let mut options = OpenOptions::new();
        let _log = options.read(true).append(true).open(path("log")).expect("there");
        let _out = OpenOptions::new().write(true).open(path("out")).expect("there");
        let found = images(own()).expect("its own");
        let here = found.iter().filter(|image| image.path.starts_with(directory.path()));
        let names: Vec<&Path> = here.map(|image| image.path.as_path()).collect();
        assert_eq!(names, [path("disk")]);
    }
}
