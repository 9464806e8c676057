//! The images that a VMM has open, by the kernel's word: `/proc/PID/fd` leads to the very files, also those
//! of another mount namespace and those that were plugged in later, and `/proc/PID/fdinfo` tells how they
//! were opened (proc_pid_fdinfo(5)).

use super::procfs;
use nix::sys::statfs::{FsType, HUGETLBFS_MAGIC, TMPFS_MAGIC, statfs};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
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

    /// Whether it has no name any more. A file that has one may end in the word by which the kernel says so.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.path_when_opened() != self.path && self.metadata.nlink() == 0
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
    let info = info(pid, fd).ok()?;
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

/// The flags come first; then there are as many lines as the file has locks, which QEMU has some ten of.
const INFO_BYTES_MAX: u64 = 1 << 14;

fn info(pid: Tid, fd: u32) -> io::Result<String> {
    let mut info = String::new();
    let file = File::open(format!("/proc/{pid}/fdinfo/{fd}"))?;
    file.take(INFO_BYTES_MAX).read_to_string(&mut info)?;
    Ok(info)
}

/// Opens the file or the block device at a path that somebody else has named. To open a pipe would be to wait for its
/// writer, and to open another device may be to start it.
///
/// # Errors
/// Those of open(2), and [`io::ErrorKind::InvalidInput`] for what is neither.
pub(crate) fn open_named(path: &Path) -> io::Result<File> {
    let neither =
        || io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device");
    FileId::of(&fs::metadata(path)?).ok_or_else(neither)?;
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// The text of a file that somebody else has named, if it is one of at most so many bytes.
pub(crate) fn text_of_named(path: &Path, bytes_max: u64) -> Option<String> {
    let file = open_named(path).ok()?;
    let mut text = String::new();
    let is_small = file.metadata().ok()?.len() <= bytes_max;
    file.take(bytes_max).read_to_string(&mut text).ok().filter(|_| is_small)?;
    Some(text)
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
    use std::io::Write;

    fn own() -> Tid {
        Tid(std::process::id())
    }

    fn way(path: &Path) -> Option<bool> {
        let id = FileId::of(&fs::metadata(path).ok()?)?;
        let files = open_files(own()).expect("its own");
        is_direct(&files.iter().filter(|file| file.id == id).collect::<Vec<_>>())
    }

    #[test]
    fn nobody_is_made_to_wait_or_to_read_without_end_by_what_he_names() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = |name: &str| scratch.path().join(name);
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        fs::write(path("small"), "{}").expect("scratch is writable");
        std::os::unix::fs::symlink(path("small"), path("link")).expect("scratch is writable");
        for (name, text) in
            [("small", Some("{}")), ("link", Some("{}")), ("pipe", None), ("none", None)]
        {
            assert_eq!(text_of_named(&path(name), 2).as_deref(), text, "{name}");
        }
        assert_eq!(text_of_named(&path("small"), 1), None, "half of it says something else");
        assert_eq!(text_of_named(Path::new("/dev/zero"), 2), None);
        let refused = open_named(Path::new("/dev/null")).expect_err("a device");
        assert_eq!(refused.to_string(), "neither a file nor a block device");
    }

    #[test]
    fn a_file_whose_name_ends_as_if_it_was_deleted_is_there() {
        let scratch = tempfile::tempdir().expect("scratch");
        let [there, gone] = ["a (deleted)", "b"].map(|name| scratch.path().join(name));
        let [first, second] = [&there, &gone].map(|path| File::create(path).expect("writable"));
        fs::remove_file(&gone).expect("there");
        let is_deleted = |file: &File| {
            let id = FileId::of(&file.metadata().expect("open"));
            let mut files = open_files(own()).expect("its own").into_iter();
            files.find(|open| Some(open.id) == id).map(|open| open.is_deleted())
        };
        assert_eq!((is_deleted(&first), is_deleted(&second)), (Some(false), Some(true)));
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
