//! A file system of the kernel's own (tracefs, debugfs) that is mounted where nobody else sees it.

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::mkdtemp;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A mount that lasts until this is dropped.
#[derive(Debug)]
pub struct PrivateMount {
    root: PathBuf,
    /// Keeps the mount alive, which has no place in the file system.
    _held: OwnedFd,
}

impl PrivateMount {
    /// Mounts a file system of this type on a temporary directory, keeps hold of it by a file
    /// descriptor and takes it off again at once: the kernel drops the mount with the descriptor, so
    /// nothing is left behind even after SIGKILL.
    ///
    /// # Errors
    /// When mounting is refused (it needs `CAP_SYS_ADMIN`), or the kernel has no such type.
    pub fn new(kind: &str, more: MsFlags) -> io::Result<PrivateMount> {
        let place = mkdtemp(&std::env::temp_dir().join(format!("vslice-{kind}-XXXXXX")))?;
        let result = mount_and_detach(kind, &place, more);
        fs::remove_dir(&place)?;
        let held = result?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        Ok(PrivateMount { root, _held: held })
    }

    /// The path of the mounted file system.
    pub fn path(&self) -> &Path {
        &self.root
    }
}

fn mount_and_detach(kind: &str, place: &Path, more: MsFlags) -> io::Result<OwnedFd> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | more;
    mount(Some(kind), place, Some(kind), flags, None::<&str>)?;
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let held = open(place, directory, Mode::empty());
    umount2(place, MntFlags::MNT_DETACH)?;
    Ok(held?)
}
