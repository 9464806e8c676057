//! A file system of the kernel's own (tracefs, debugfs) that is mounted where nobody else sees it.

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where it is mounted, for as long as it takes to get hold of it: every machine whose processes can be
/// looked at has this directory, and nobody else sees what is on it.
const PLACE: &str = "/proc";

/// A mount that lasts until this is dropped.
#[derive(Debug)]
pub struct PrivateMount {
    root: PathBuf,
    /// Keeps the mount alive, which has no place in the file system.
    _held: OwnedFd,
}

impl PrivateMount {
    /// Mounts a file system of this type and keeps hold of it by a file descriptor. A thread with
    /// mounts of its own does that, and its mounts go when it ends: the kernel drops this one with
    /// the descriptor, so nothing is left behind even after SIGKILL, and nobody saw it.
    ///
    /// # Errors
    /// When mounting is refused (it needs `CAP_SYS_ADMIN`), or the kernel has no such type.
    pub fn new(kind: &str, more: MsFlags) -> io::Result<PrivateMount> {
        let held = std::thread::scope(|scope| {
            let mounting = std::thread::Builder::new().name("vslice-mount".into());
            let mounting = mounting.spawn_scoped(scope, || mount_unseen(kind, more))?;
            mounting.join().map_err(|_| io::Error::other("the thread that mounts has died"))?
        })?;
        let root = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        Ok(PrivateMount { root, _held: held })
    }

    /// The path of the mounted file system.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }
}

/// To be called in a thread that ends after it.
fn mount_unseen(kind: &str, more: MsFlags) -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // A copy of a shared mount is its peer, and what is mounted on one would come up on the other
    // (linux: Documentation/filesystems/sharedsubtree.rst).
    mount(None::<&str>, PLACE, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | more;
    mount(Some(kind), PLACE, Some(kind), flags, None::<&str>)?;
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(PLACE, directory, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// tracefs may be there already: a second mount of it is the same file system.
    #[test]
    fn what_is_mounted_is_there_and_nobody_sees_it() {
        let seen = || fs::read_to_string("/proc/self/mounts").unwrap();
        let before = seen();
        let private = match PrivateMount::new("tmpfs", MsFlags::empty()) {
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
            Ok(private) => private,
        };
        fs::write(private.path().join("written"), "here").unwrap();
        assert_eq!(fs::read_to_string(private.path().join("written")).unwrap(), "here");
        assert_eq!(seen(), before);
        assert!(!Path::new("/proc/written").exists());
        let again = PrivateMount::new("tmpfs", MsFlags::MS_RDONLY).unwrap();
        assert!(fs::write(again.path().join("written"), "here").is_err());
        let none = PrivateMount::new("no-such-file-system", MsFlags::empty()).unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::ENODEV));
    }
}
