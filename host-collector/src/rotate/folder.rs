//! The folder of the runs: their names, and that only they are removed.

use super::kept::EndedRun;
use anyhow::{Context, bail};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use vslice_core::calendar::DayTime;
use vslice_trace::RunDir;

/// What the names of its runs begin with.
const PREFIX: &str = "attach-";

/// What a name looks like behind that, where `0` stands for any digit.
const PATTERN: &str = "0000-00-00T00-00-00Z";

/// Runs that began in the same second are told apart up to this number.
const NUMBER_MAX: u32 = 99;

/// A manifest that is longer is not read here. What is needed of it stands in its first lines, but JSON is read whole.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// A folder of which this process has the lock.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Closed with this process, however that ends.
    _lock: File,
}

/// Why a directory stays that has the name of a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRemoved {
    /// It has something that no recorder made.
    #[error("it has {0:?}, which is no file of a run")]
    Foreign(String),
    /// Somebody else's manifest.
    #[error("its run.json is not that of an attached recording")]
    OtherManifest,
    /// The kernel refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What of a manifest says whose it is.
#[derive(Debug, Deserialize)]
struct Marker {
    schema: String,
    plan_name: String,
}

impl Folder {
    /// Makes the folder if it is not there, and takes its lock.
    ///
    /// # Errors
    /// If it cannot be written, or another process has the lock.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Folder> {
        let cannot = || format!("cannot record into {}", path.display());
        fs::create_dir_all(path).with_context(cannot)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path.join(".rotate.lock"))
            .with_context(cannot)?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!("another vslice records into {} continuously", path.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A name for a run that begins now, which no other has.
    pub(crate) fn new_name(&self, realtime_s: i64) -> anyhow::Result<String> {
        let names = (1..=NUMBER_MAX).map(|number| name_of(realtime_s, number));
        let is_free = |name: &String| fs::symlink_metadata(self.path.join(name)).is_err();
        let mut free = names.filter(is_free);
        free.next()
            .with_context(|| format!("{} has too many runs of one second", self.path.display()))
    }

    /// Its runs but for those that are being recorded, in order of their names.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub(crate) fn ended_runs(&self, recording: &[&str]) -> io::Result<Vec<EndedRun>> {
        let mut runs = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Not followed: a link is no directory.
            if !is_run_name(&name) || recording.contains(&&*name) || !entry.file_type()?.is_dir() {
                continue;
            }
            let (bytes, ended) = size(&entry.path());
            runs.insert(name.clone(), EndedRun { name, ended, bytes });
        }
        Ok(runs.into_values().collect())
    }

    /// What the files of a run take on the disk.
    pub(crate) fn run_bytes(&self, name: &str) -> u64 {
        size(&self.path.join(name)).0
    }

    /// Removes a run: a directory with nothing in it but the files of an attached recording. It is opened once and
    /// not followed if it is a link, so that nothing else is removed, whoever renames what meanwhile.
    ///
    /// # Errors
    /// [`NotRemoved`]; of one that is not a run nothing was removed.
    pub(crate) fn remove(&self, name: &str) -> Result<(), NotRemoved> {
        let path = self.path.join(name);
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let dir = match File::options().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let opened = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        let mut names = Vec::new();
        for entry in fs::read_dir(&opened)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.file_type()?.is_file() || !is_of_a_run(&name) {
                return Err(NotRemoved::Foreign(name));
            }
            names.push(name);
        }
        if names.iter().any(|name| name == "run.json") && !is_attached(&opened.join("run.json")) {
            return Err(NotRemoved::OtherManifest);
        }
        // The manifest last: what is left of an interrupted removal is still known as a run.
        names.sort_by_key(|name| name == "run.json");
        for name in names {
            unlinkat(&dir, name.as_str(), UnlinkatFlags::NoRemoveDir).map_err(io::Error::from)?;
        }
        Ok(fs::remove_dir(&path)?)
    }
}

fn name_of(realtime_s: i64, number: u32) -> String {
    let time = DayTime::of_unix_s(realtime_s, 0);
    let name = format!("{PREFIX}{}T{}Z", time.day, time.clock().replace(':', "-"));
    if number == 1 { name } else { format!("{name}-{number:02}") }
}

fn is_run_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let Some((time, number)) = rest.split_at_checked(PATTERN.len()) else { return false };
    let fits = |(letter, pattern): (u8, u8)| match pattern {
        b'0' => letter.is_ascii_digit(),
        _ => letter == pattern,
    };
    let is_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    time.bytes().zip(PATTERN.bytes()).all(fits)
        && (number.is_empty() || number.strip_prefix('-').is_some_and(is_digits))
}

/// Whether a recording leaves a file of this name, also one that was killed; or its report.
fn is_of_a_run(name: &str) -> bool {
    RunDir::has_such_a_file(name) || name == "report.txt"
}

fn is_attached(run_json: &Path) -> bool {
    let read = || {
        let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(run_json).ok()?;
        let is_short = file.metadata().ok()?.len() <= MANIFEST_BYTES_MAX;
        is_short.then(|| serde_json::from_reader::<_, Marker>(io::BufReader::new(file)).ok())?
    };
    read().is_some_and(|marker| {
        marker.schema.starts_with("vslice.run/") && marker.plan_name == "attach"
    })
}

/// What the files of a directory take on the disk, and when the last of them was written. What cannot be looked at
/// takes nothing.
fn size(path: &Path) -> (u64, SystemTime) {
    let files = fs::read_dir(path).into_iter().flatten().flatten();
    // Not followed either.
    let facts = files.filter_map(|file| file.metadata().ok());
    let of_itself = fs::symlink_metadata(path).and_then(|data| data.modified());
    let start = (0, of_itself.unwrap_or(SystemTime::UNIX_EPOCH));
    facts.fold(start, |(bytes, latest), data| {
        let written = data.modified().unwrap_or(latest);
        // In units of 512 bytes, whatever a block of the file system is: stat(2).
        (bytes + data.blocks() * 512, latest.max(written))
    })
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
