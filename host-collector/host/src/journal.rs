//! Files that say what a collector has changed on the host, so that the next one can undo what one that
//! was killed has left.
//!
//! A change is written before it is made. The files lie in a directory that is open to everybody, and
//! have the changer's process and its start in their names: `KIND-PID-START-NUMBER.journal`.

use crate::procfs::{self, StartTicks};
use nix::unistd::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use vslice_core::units::Tid;

/// Why a change could not be logged, so that it was not made.
#[derive(Debug, Error)]
#[error("the journal of changes {path} cannot be written: {source}")]
pub struct JournalError {
    /// Its path.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The changes of one kind that this process has made. The file is removed when this is dropped; its
/// owner has undone the changes by then.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

/// The result of undoing the changes in journals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Undone {
    /// The number of changes that were undone.
    pub count: usize,
    /// The number of changes that could not be undone now.
    pub failed_count: usize,
}

impl Undone {
    /// Counts a change that went back, was not this journal's any more, or failed.
    pub(super) fn add(mut self, outcome: &io::Result<bool>) -> Undone {
        match outcome {
            Ok(is_back) => self.count += usize::from(*is_back),
            Err(_) => self.failed_count += 1,
        }
        self
    }
}

impl Journal {
    /// A new one in `directory`, which is created.
    pub(super) fn create(directory: &Path, kind: &str) -> Result<Journal, JournalError> {
        let own = Tid(std::process::id());
        let start = procfs::start_ticks(own).unwrap_or(StartTicks(0));
        let mut number = 0_u32;
        loop {
            let path = directory.join(format!("{kind}-{own}-{}-{number}.journal", start.0));
            let created = fs::create_dir_all(directory)
                .and_then(|()| OpenOptions::new().create_new(true).append(true).open(&path));
            match created {
                Ok(file) => return Ok(Journal { path, file, is_kept: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(JournalError { path, source }),
            }
        }
    }

    /// Writes a change down, in a line of its own.
    pub(super) fn write(&mut self, change: &impl Serialize) -> Result<(), JournalError> {
        let failed = |source| JournalError { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(change).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        // One write, so that a reader never finds half a line unless the disk is full. No sync: a
        // crash of the host ends what was changed too.
        self.file.write_all(&line).map_err(failed)
    }

    /// Leaves it to the next collector, as something in it could not be undone.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !self.is_kept {
            // A journal that stays is harmless: what it names is where it was before.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Hands the changes of each journal of this kind whose collector is no longer there to `undo`, and
/// removes the journal if none of them failed. Returns the sum of what `undo` did.
///
/// # Errors
/// Those of reading the directory; a directory that does not exist is an empty one, and a journal that
/// cannot be read is passed over.
pub(super) fn undo_stale<T: DeserializeOwned>(
    directory: &Path,
    kind: &str,
    undo: impl Fn(Vec<T>) -> Undone,
) -> io::Result<Undone> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Undone::default()),
        Err(error) => return Err(error),
    };
    let mut sum = Undone::default();
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let Some((owner, start)) = owner_of(&path, kind) else { continue };
        if procfs::is_alive(owner, start) {
            continue;
        }
        // The directory is open to everybody: what somebody else has written there is not for us to
        // do, and above all not for root.
        let Some(text) = own_text(&path) else { continue };
        // A line that does not parse was cut off when the disk was full, before its change.
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let undone = undo(lines.collect());
        sum.count += undone.count;
        sum.failed_count += undone.failed_count;
        if undone.failed_count == 0 {
            // One that stays has nothing left to undo.
            let _ = fs::remove_file(&path);
        }
    }
    Ok(sum)
}

/// What is in a file that this user wrote; a link is nobody's. Looked at and read as one open file, so
/// that none can take its place between the two.
fn own_text(path: &Path) -> Option<String> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let is_own = metadata.is_file() && metadata.uid() == geteuid().as_raw();
    let mut text = String::new();
    (is_own && file.read_to_string(&mut text).is_ok()).then_some(text)
}

/// The collector that wrote a journal, from its name.
fn owner_of(path: &Path, kind: &str) -> Option<(Tid, StartTicks)> {
    let name = path.file_name()?.to_str()?;
    let rest = name.strip_prefix(kind)?.strip_prefix('-')?;
    let mut parts = rest.strip_suffix(".journal")?.split('-');
    let owner = Tid(parts.next()?.parse().ok()?);
    let start = StartTicks(parts.next()?.parse().ok()?);
    Some((owner, start))
}
