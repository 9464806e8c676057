//! A private directory for what exists only during a run: sockets and disks.

use crate::procfs::{self, StartTicks};
use nix::unistd::{geteuid, mkdtemp};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};
use thiserror::Error;
use vslice_core::units::Tid;

/// The bytes of a Unix socket's path without the final zero: `sun_path` of unix(7) less one.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The directory could not be made.
#[derive(Debug, Error)]
#[error("cannot create a directory in {parent}: {source}; set VSLICE_TMP to use another one")]
pub struct ScratchError {
    /// Where it should have been.
    pub parent: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// A directory that only this user can enter, removed with all that is in it when it is dropped.
///
/// Its name has the process that made it, so that the next run can remove what a killed one left.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
}

/// Where private directories are made: `$VSLICE_TMP`, or `/var/tmp`. Not `/tmp`, which on many
/// hosts is in memory, where no file can be opened with `O_DIRECT`; and a short path, because of
/// [`SOCKET_PATH_BYTES_MAX`].
#[must_use]
pub fn parent_dir() -> PathBuf {
    env::var_os("VSLICE_TMP")
        .filter(|value| !value.is_empty())
        .map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

impl PrivateDir {
    /// Makes one in `parent`.
    ///
    /// # Errors
    /// [`ScratchError`].
    pub fn create(parent: &Path) -> Result<PrivateDir, ScratchError> {
        let own = Tid(std::process::id());
        let start = procfs::start_ticks(own).unwrap_or(StartTicks(0));
        let template = parent.join(format!("vslice-{own}-{}-XXXXXX", start.0));
        // mkdtemp(3) makes it with mode 0700.
        let path = mkdtemp(&template)
            .map_err(|errno| ScratchError { parent: parent.to_owned(), source: errno.into() })?;
        Ok(PrivateDir { path })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // If this fails, the next run's `sweep_stale` does it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the private directories in `parent` of processes that are no longer there. Returns how
/// many; those that cannot be removed are left.
pub fn sweep_stale(parent: &Path) -> usize {
    let Ok(entries) = fs::read_dir(parent) else { return 0 };
    entries
        .flatten()
        .filter(|entry| {
            let owner = entry.file_name().to_str().and_then(owner_of);
            owner.is_some_and(|(pid, start)| !procfs::is_alive(pid, start))
                && is_own_directory(&entry.path())
                && fs::remove_dir_all(entry.path()).is_ok()
        })
        .count()
}

/// The parent is open to everybody: somebody else's directory, or a link, is not ours to remove.
fn is_own_directory(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw())
}

/// The process in `vslice-PID-START-XXXXXX`.
fn owner_of(name: &str) -> Option<(Tid, StartTicks)> {
    let mut parts = name.strip_prefix("vslice-")?.split('-');
    let pid = Tid(parts.next()?.parse().ok()?);
    let start = StartTicks(parts.next()?.parse().ok()?);
    parts.next().map(|_random| (pid, start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_private_directory_is_private_and_goes_with_its_owner() {
        let parent = tempfile::tempdir().expect("scratch");
        let directory = PrivateDir::create(parent.path()).expect("scratch is writable");
        let path = directory.path().to_owned();
        fs::write(path.join("file"), "x").expect("it is writable");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(sweep_stale(parent.path()), 0, "its owner is alive");
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().expect("scratch");
        let target = tempfile::tempdir().expect("somebody's directory");
        let pid = std::process::id();
        for name in [format!("vslice-{pid}-1-abcdef"), "vslice-notes".into(), "other-1-1-x".into()]
        {
            fs::create_dir(parent.path().join(name)).expect("scratch is writable");
        }
        symlink(target.path(), parent.path().join(format!("vslice-{pid}-2-abcdef")))
            .expect("scratch is writable");
        assert_eq!(sweep_stale(parent.path()), 1);
        assert!(!parent.path().join(format!("vslice-{pid}-1-abcdef")).exists());
        assert_eq!(fs::read_dir(parent.path()).expect("readable").count(), 3);
        assert!(target.path().exists());
    }

    #[test]
    fn a_parent_that_is_not_there_is_named() {
        let message = PrivateDir::create(Path::new("/nonexistent")).expect_err("no parent");
        assert!(message.to_string().contains("in /nonexistent: No such file"), "{message}");
    }
}
