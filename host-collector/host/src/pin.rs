//! Pins threads to pCPUs and puts them back, also after the collector was killed.
//!
//! Before a thread's affinity is changed, its previous one is written to a [`journal`], together
//! with the start of the thread and the start of the collector. [`Pinning`] undoes its changes when
//! it is dropped; a collector that was killed leaves its journal, and the next one that starts calls
//! [`undo_stale_journals`]. Neither touches a thread that began later and has an old one's id, nor
//! one that somebody else has given another affinity since.

use super::journal::{self, Journal, JournalError, Undone};
use crate::procfs::{self, StartTicks};
use crate::threads::VmmThread;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use thiserror::Error;
use vslice_core::units::{PcpuId, Tid};
use vslice_trace::thread::ThreadRole;

const KIND: &str = "affinity";

/// A thread and the pCPU to pin it to.
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

/// The pCPUs to which the threads of one VM are pinned, by role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmPins {
    /// The pCPU of each vCPU thread, in order of the vCPUs; vCPUs beyond the list are not pinned.
    pub vcpus: Vec<PcpuId>,
    /// The pCPU of the main loop thread.
    pub main_loop: PcpuId,
    /// The pCPU of all iothreads.
    pub iothreads: PcpuId,
    /// The pCPU of worker threads and of all other threads.
    pub workers: PcpuId,
    /// The pCPU of the kernel's vhost threads.
    pub vhost: PcpuId,
}

impl VmPins {
    /// The pins of these threads.
    #[must_use]
    pub fn pins(&self, threads: &[VmmThread]) -> Vec<Pin> {
        let pin = |thread: &VmmThread| {
            let pcpu = self.pcpu_of(&thread.role)?;
            Some(Pin { pid: thread.pid, tid: thread.tid, pcpu })
        };
        threads.iter().filter_map(pin).collect()
    }

    /// Where a thread of this role is to run; `None` for a vCPU that they do not know.
    #[must_use]
    pub fn pcpu_of(&self, role: &ThreadRole) -> Option<PcpuId> {
        match role {
            ThreadRole::Vcpu(vcpu) => self.vcpus.get(usize::from(vcpu.0)).copied(),
            ThreadRole::MainLoop => Some(self.main_loop),
            ThreadRole::Iothread(_) => Some(self.iothreads),
            ThreadRole::Vhost => Some(self.vhost),
            ThreadRole::Worker | ThreadRole::Other => Some(self.workers),
        }
    }
}

/// Why a thread could not be pinned.
#[derive(Debug, Error)]
pub enum PinError {
    /// See [`JournalError`].
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel refused.
    #[error("thread {tid} cannot be pinned to {pcpu}: {errno}")]
    Affinity {
        /// The thread.
        tid: Tid,
        /// The pCPU to which it should have been pinned.
        pcpu: PcpuId,
        /// The kernel's error; `EINVAL` if the pCPU is offline or outside the thread's cpuset.
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
    journal: Journal,
    /// The pinned threads, by id.
    entries: BTreeMap<Tid, Entry>,
}

impl Pinning {
    /// Creates a pinning without pins yet. Its journal is in `directory`, which is created.
    ///
    /// # Errors
    /// [`PinError::Journal`].
    pub fn new(directory: &Path) -> Result<Pinning, PinError> {
        let journal = Journal::create(directory, KIND)?;
        Ok(Pinning { journal, entries: BTreeMap::new() })
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
            self.journal.write(&entry)?;
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
}

impl Drop for Pinning {
    fn drop(&mut self) {
        if self.entries.values().filter(|entry| restore(entry).is_err()).count() > 0 {
            self.journal.keep();
        }
    }
}

/// Restores the affinities that dead collectors have left changed. Returns how many were restored and how
/// many could not be; the next call tries those again.
///
/// # Errors
/// Fails if the directory cannot be read; a directory that does not exist counts as empty.
pub fn undo_stale_journals(directory: &Path) -> io::Result<Undone> {
    journal::undo_stale(directory, KIND, |entries: Vec<Entry>| {
        // Of a thread that was pinned twice, the last line has the pin and all have what was before.
        let last: BTreeMap<Tid, Entry> =
            entries.into_iter().map(|entry| (entry.tid, entry)).collect();
        last.values().fold(Undone::default(), |undone, entry| undone.add(&restore(entry)))
    })
}

/// Puts one thread back, if it is the same thread and still where it was put, and says whether it did.
fn restore(entry: &Entry) -> io::Result<bool> {
    let is_ours = procfs::start_ticks(entry.tid) == Some(entry.start)
        && affinity(entry.tid).is_ok_and(|now| now == [entry.pinned_to]);
    match is_ours.then(|| set_affinity(entry.tid, &entry.previous)) {
        None | Some(Err(Errno::ESRCH)) => Ok(false),
        Some(Ok(())) => Ok(true),
        Some(Err(errno)) => Err(errno.into()),
    }
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

/// Restricts a thread to these pCPUs.
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
mod tests;
