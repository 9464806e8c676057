//! Room for the last words of a run on a disk that it has filled.

use crate::store::{RunDir, StoreError};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

/// More than the manifest, the stacks' names, the summary and the report of a run take together.
const RESERVE_BYTES: usize = 256 << 10;

/// Takes the room. [`release`] gives it back when the run has ended, however it did.
///
/// # Errors
/// When there is not that much room: then there is none for a run either.
pub(super) fn take(dir: &RunDir) -> Result<(), StoreError> {
    let path = path(dir);
    let write = || -> io::Result<()> {
        let mut file = File::create(&path)?;
        file.write_all(&vec![0x5a; RESERVE_BYTES])?;
        // A file system may find out only now that it has no room.
        file.sync_all()
    };
    write().map_err(|source| {
        let _nothing_to_keep = fs::remove_file(&path);
        StoreError::Io { doing: "write", path: path.clone(), source }
    })
}

/// Gives the room back, if it has not been given back already.
pub(super) fn release(dir: &RunDir) {
    let _may_be_gone = fs::remove_file(path(dir));
}

fn path(dir: &RunDir) -> PathBuf {
    dir.path().join(".reserve")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_taken_and_given_back() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(&scratch.path().join("run")).unwrap();
        take(&run).unwrap();
        assert_eq!(fs::metadata(path(&run)).unwrap().len(), RESERVE_BYTES as u64);
        release(&run);
        release(&run);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    }
}
