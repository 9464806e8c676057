//! Pins threads to pCPUs and puts them back, also after the collector was killed.
//!
//! Before a thread's affinity is changed, its previous one is written to a journal file, together
//! with the start of the thread and the start of the collector. [`Pinning`] undoes its changes when
//! it is dropped; a collector that was killed leaves its journal, and the next one that starts calls
//! [`undo_stale_journals`]. Neither touches a thread that began later and has an old one's id, nor
//! one that somebody else has given another affinity since.

use crate::units::{PcpuId, Tid};
use crate::vmm::procfs::{self, StartTicks};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A thread and the pCPU that it is to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The process of the thread. A thread that is born later has inherited its creator's pin and
    /// gets the affinity that this process's first thread had before its own pin.
    pub pid: Tid,
    /// The thread.
    pub tid: Tid,
    /// The only pCPU that it may run on.
    pub pcpu: PcpuId,
}

/// Why a thread could not be pinned.
#[derive(Debug, Error)]
pub enum PinError {
    /// The journal.
    #[error("the journal of affinities {path} cannot be written: {source}")]
    Journal {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("thread {tid} cannot be pinned to {pcpu}: {errno}")]
    Affinity {
        /// The thread.
        tid: Tid,
        /// Where it should have run.
        pcpu: PcpuId,
        /// What the kernel said; `EINVAL` is a pCPU that is offline or outside its cpuset.
        errno: Errno,
    },
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    tid: Tid,
    start: StartTicks,
    pinned_to: PcpuId,
    previous: Vec<PcpuId>,
}

/// The affinities that this process has changed.
#[derive(Debug)]
pub struct Pinning {
    path: PathBuf,
    journal: File,
    /// The pinned threads, by id.
    entries: BTreeMap<Tid, Entry>,
}

impl Pinning {
    /// Nothing is pinned yet; the journal will be in `directory`, which is created.
    ///
    /// # Errors
    /// [`PinError::Journal`].
    pub fn new(directory: &Path) -> Result<Pinning, PinError> {
        let own = Tid(std::process::id());
        let start = procfs::start_ticks(own).unwrap_or(StartTicks(0));
        let mut number = 0_u32;
        loop {
            let path = directory.join(format!("affinity-{own}-{}-{number}.journal", start.0));
            let created = fs::create_dir_all(directory)
                .and_then(|()| OpenOptions::new().create_new(true).append(true).open(&path));
            match created {
                Ok(journal) => return Ok(Pinning { path, journal, entries: BTreeMap::new() }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(PinError::Journal { path, source }),
            }
        }
    }

    /// Pins these threads. Threads that ended meanwhile are left out, threads that are where they
    /// should be already are not touched: it may be called again for threads that were born since.
    ///
    /// # Errors
    /// [`PinError`]; the threads before the one that failed are pinned, and will be put back.
    pub fn apply(&mut self, pins: &[Pin]) -> Result<(), PinError> {
        for pin in pins {
            let Some(start) = procfs::start_ticks(pin.tid) else { continue };
            if self
                .entries
                .get(&pin.tid)
                .is_some_and(|entry| (entry.start, entry.pinned_to) == (start, pin.pcpu))
            {
                continue;
            }
            let Some(previous) = self.previous(pin, start)? else { continue };
            let entry = Entry { tid: pin.tid, start, pinned_to: pin.pcpu, previous };
            self.write(&entry)?;
            self.entries.insert(pin.tid, entry);
            match set_affinity(pin.tid, &[pin.pcpu]) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => {
                    return Err(PinError::Affinity { tid: pin.tid, pcpu: pin.pcpu, errno });
                }
            }
        }
        Ok(())
    }

    /// What the thread goes back to; `None` if it has ended.
    fn previous(&self, pin: &Pin, start: StartTicks) -> Result<Option<Vec<PcpuId>>, PinError> {
        if let Some(entry) = self.entries.get(&pin.tid)
            && entry.start == start
        {
            return Ok(Some(entry.previous.clone()));
        }
        if let Some(main) = self.entries.get(&pin.pid) {
            return Ok(Some(main.previous.clone()));
        }
        match affinity(pin.tid) {
            Ok(previous) => Ok(Some(previous)),
            Err(Errno::ESRCH) => Ok(None),
            Err(errno) => Err(PinError::Affinity { tid: pin.tid, pcpu: pin.pcpu, errno }),
        }
    }

    fn write(&mut self, entry: &Entry) -> Result<(), PinError> {
        let journal_error = |source| PinError::Journal { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(entry).map_err(|error| journal_error(error.into()))?;
        line.push(b'\n');
        // One write, so that a reader never finds half a line unless the disk is full. No sync: a
        // crash of the host ends the threads too.
        self.journal.write_all(&line).map_err(journal_error)
    }
}

impl Drop for Pinning {
    fn drop(&mut self) {
        for entry in self.entries.values() {
            restore(entry);
        }
        // A journal that stays is harmless: what it names is where it was before.
        let _ = fs::remove_file(&self.path);
    }
}

/// Undoes what collectors have left that are no longer there. Returns how many threads went back.
///
/// # Errors
/// Those of reading the directory; a directory that does not exist is an empty one.
pub fn undo_stale_journals(directory: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut restored_count = 0;
    for entry in entries {
        let path = entry?.path();
        let Some((owner, start)) = owner_of(&path) else { continue };
        // The directory is open to everybody: what somebody else has written there is not for us to
        // do, and above all not for root.
        if !is_own_file(&path) {
            continue;
        }
        if procfs::is_alive(owner, start) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        // A line that does not parse was cut off when the disk was full, before its change.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        // Of a thread that was pinned twice, the last line has the pin and all have what was before.
        let last: BTreeMap<Tid, Entry> = lines.map(|entry| (entry.tid, entry)).collect();
        restored_count += last.values().filter(|entry| restore(entry)).count();
        fs::remove_file(&path)?;
    }
    Ok(restored_count)
}

/// Whether this user wrote it; a link is nobody's.
fn is_own_file(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.uid() == geteuid().as_raw())
}

/// The collector that wrote a journal, from its name `affinity-PID-START-NUMBER.journal`.
fn owner_of(path: &Path) -> Option<(Tid, StartTicks)> {
    let name = path.file_name()?.to_str()?;
    let mut parts = name.strip_prefix("affinity-")?.strip_suffix(".journal")?.split('-');
    let owner = Tid(parts.next()?.parse().ok()?);
    let start = StartTicks(parts.next()?.parse().ok()?);
    Some((owner, start))
}

/// Puts one thread back, if it is the same thread and still where it was put.
fn restore(entry: &Entry) -> bool {
    procfs::start_ticks(entry.tid) == Some(entry.start)
        && affinity(entry.tid).is_ok_and(|now| now == [entry.pinned_to])
        && set_affinity(entry.tid, &entry.previous).is_ok()
}

/// The pCPUs that a thread may run on.
///
/// # Errors
/// `ESRCH` if there is no such thread, `EINVAL` on a host of more than 1,024 pCPUs.
pub fn affinity(tid: Tid) -> Result<Vec<PcpuId>, Errno> {
    let set = sched_getaffinity(raw_pid(tid)?)?;
    let pcpus = (0..CpuSet::count()).filter(|&index| set.is_set(index).unwrap_or(false));
    Ok(pcpus.filter_map(|index| u32::try_from(index).ok().map(PcpuId)).collect())
}

/// Lets a thread run on these pCPUs only.
///
/// # Errors
/// `ESRCH` if there is no such thread, `EINVAL` if none of the pCPUs can run it, `EPERM` if it is
/// another user's.
pub fn set_affinity(tid: Tid, pcpus: &[PcpuId]) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    for pcpu in pcpus {
        set.set(usize::try_from(pcpu.0).map_err(|_| Errno::EINVAL)?)?;
    }
    sched_setaffinity(raw_pid(tid)?, &set)
}

/// For the kernel, thread 0 is the caller; here it is the idle task, which nobody pins.
fn raw_pid(tid: Tid) -> Result<Pid, Errno> {
    match i32::try_from(tid.0) {
        Ok(raw) if raw > 0 => Ok(Pid::from_raw(raw)),
        _ => Err(Errno::ESRCH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A thread of this process that waits until it is dropped.
    struct Sleeper {
        tid: Tid,
        release: Option<mpsc::Sender<()>>,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    impl Sleeper {
        fn new() -> Sleeper {
            let (report, reported) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                report.send(nix::unistd::gettid().as_raw()).expect("the test waits for it");
                let _ = released.recv();
            });
            let tid = Tid(u32::try_from(reported.recv().expect("it began")).expect("positive"));
            Sleeper { tid, release: Some(release), thread: Some(thread) }
        }

        fn pin(&self, pcpu: PcpuId) -> Pin {
            Pin { pid: Tid(std::process::id()), tid: self.tid, pcpu }
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.release.take();
            self.thread.take().map(std::thread::JoinHandle::join);
        }
    }

    fn files_in(directory: &Path) -> usize {
        fs::read_dir(directory).expect("the directory is there").count()
    }

    #[test]
    fn a_pinned_thread_goes_back_and_the_journal_goes_away() {
        let directory = tempfile::tempdir().expect("scratch");
        let sleeper = Sleeper::new();
        let before = affinity(sleeper.tid).expect("it runs");
        let target = *before.last().expect("it may run somewhere");
        let mut pinning = Pinning::new(directory.path()).expect("a journal");
        pinning.apply(&[sleeper.pin(target)]).expect("its own thread");
        assert_eq!(affinity(sleeper.tid), Ok(vec![target]));
        pinning.apply(&[sleeper.pin(before[0])]).expect("it may be pinned again");
        assert_eq!(affinity(sleeper.tid), Ok(vec![before[0]]));
        assert_eq!(files_in(directory.path()), 1);
        drop(pinning);
        assert_eq!(affinity(sleeper.tid), Ok(before));
        assert_eq!(files_in(directory.path()), 0);
    }

    /// A journal as a collector leaves it that is killed: `owner` names one that is not there.
    fn stale_journal(directory: &Path, entries: &[Entry]) {
        let lines: Vec<String> =
            entries.iter().map(|entry| serde_json::to_string(entry).expect("JSON")).collect();
        let path = directory.join(format!("affinity-{}-1-0.journal", std::process::id()));
        fs::write(path, lines.join("\n") + "\n{\"tid\":1,\"sta").expect("scratch is writable");
    }

    fn entry(sleeper: &Sleeper, pinned_to: PcpuId, previous: &[PcpuId]) -> Entry {
        let start = procfs::start_ticks(sleeper.tid).expect("it runs");
        Entry { tid: sleeper.tid, start, pinned_to, previous: previous.to_vec() }
    }

    #[test]
    fn what_a_killed_collector_left_is_undone() {
        let directory = tempfile::tempdir().expect("scratch");
        let sleeper = Sleeper::new();
        let before = affinity(sleeper.tid).expect("it runs");
        set_affinity(sleeper.tid, &before[..1]).expect("its own thread");
        stale_journal(directory.path(), &[entry(&sleeper, before[0], &before)]);
        assert_eq!(undo_stale_journals(directory.path()).expect("readable"), 1);
        assert_eq!(affinity(sleeper.tid), Ok(before));
        assert_eq!(files_in(directory.path()), 0);
    }

    #[test]
    fn a_thread_that_only_has_the_same_id_is_not_touched() {
        let directory = tempfile::tempdir().expect("scratch");
        let sleeper = Sleeper::new();
        let before = affinity(sleeper.tid).expect("it runs");
        set_affinity(sleeper.tid, &before[..1]).expect("its own thread");
        let mut earlier = entry(&sleeper, before[0], &before);
        earlier.start = StartTicks(earlier.start.0 - 1);
        stale_journal(directory.path(), &[earlier]);
        assert_eq!(undo_stale_journals(directory.path()).expect("readable"), 0);
        assert_eq!(affinity(sleeper.tid), Ok(before[..1].to_vec()));
    }

    #[test]
    fn a_thread_that_somebody_else_has_moved_stays_there() {
        let directory = tempfile::tempdir().expect("scratch");
        let sleeper = Sleeper::new();
        let before = affinity(sleeper.tid).expect("it runs");
        let elsewhere = PcpuId(before.last().expect("it may run somewhere").0 + 1);
        stale_journal(directory.path(), &[entry(&sleeper, elsewhere, &before[..1])]);
        assert_eq!(undo_stale_journals(directory.path()).expect("readable"), 0);
        assert_eq!(affinity(sleeper.tid), Ok(before));
    }

    #[test]
    fn a_journal_that_somebody_else_may_have_written_is_not_done() {
        let (directory, elsewhere) =
            (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
        let sleeper = Sleeper::new();
        let previous = affinity(sleeper.tid).expect("it waits");
        set_affinity(sleeper.tid, &previous[..1]).expect("a pCPU that it may use");
        stale_journal(elsewhere.path(), &[entry(&sleeper, previous[0], &previous)]);
        let journals = fs::read_dir(elsewhere.path()).expect("readable");
        let journal = journals.flatten().next().expect("just written").path();
        let link = directory.path().join(journal.file_name().expect("it has one"));
        std::os::unix::fs::symlink(&journal, &link).expect("writable");
        assert_eq!(undo_stale_journals(directory.path()).expect("readable"), 0);
        assert!(link.is_symlink(), "it is not ours to remove");
        assert_eq!(affinity(sleeper.tid).expect("it waits"), previous[..1]);
    }

    #[test]
    fn the_journal_of_a_living_collector_is_left_alone() {
        let directory = tempfile::tempdir().expect("scratch");
        let sleeper = Sleeper::new();
        let target = affinity(sleeper.tid).expect("it runs")[0];
        let mut pinning = Pinning::new(directory.path()).expect("a journal");
        pinning.apply(&[sleeper.pin(target)]).expect("its own thread");
        assert_eq!(undo_stale_journals(directory.path()).expect("readable"), 0);
        assert_eq!(affinity(sleeper.tid), Ok(vec![target]));
        let nowhere = directory.path().join("none");
        assert_eq!(undo_stale_journals(&nowhere).expect("no directory, no journal"), 0);
    }

    #[test]
    fn a_thread_born_later_goes_back_to_what_its_process_had() {
        let directory = tempfile::tempdir().expect("scratch");
        let (first, born_later) = (Sleeper::new(), Sleeper::new());
        let before = affinity(first.tid).expect("it runs");
        let mut pinning = Pinning::new(directory.path()).expect("a journal");
        let pin = |tid, pcpu| Pin { pid: first.tid, tid, pcpu };
        pinning.apply(&[pin(first.tid, before[0])]).expect("its own thread");
        set_affinity(born_later.tid, &before[..1]).expect("as if it had inherited the pin");
        pinning.apply(&[pin(born_later.tid, before[0])]).expect("its own thread");
        drop(pinning);
        assert_eq!(affinity(born_later.tid), Ok(before));
    }

    #[test]
    fn a_pcpu_that_is_not_there_is_an_error_and_a_thread_that_is_gone_is_not() {
        let directory = tempfile::tempdir().expect("scratch");
        let sleeper = Sleeper::new();
        let mut pinning = Pinning::new(directory.path()).expect("a journal");
        let gone = Pin { pid: Tid(1), tid: Tid(i32::MAX.unsigned_abs()), pcpu: PcpuId(0) };
        assert!(pinning.apply(&[gone]).is_ok());
        let error = pinning.apply(&[sleeper.pin(PcpuId(1023))]).expect_err("no such pCPU");
        assert!(error.to_string().contains("cannot be pinned to pCPU1023: EINVAL"), "{error}");
    }
}
