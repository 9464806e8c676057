//! What sampling yields: looks at threads, totals of their scheduler, and gaps.

use crate::units::{HostNs, Tid};
use std::sync::Arc;

/// One item of a stream of samples, in order of `time`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleItem {
    /// What a thread was doing.
    Look(Look),
    /// How a thread was scheduled up to now.
    Schedstat(Schedstat),
    /// Looks that were due between `time` and `until` and were not taken, because the sampling thread was
    /// delayed.
    Gap {
        /// When the first of them was due.
        time: HostNs,
        /// When looking went on.
        until: HostNs,
        /// Rounds of looks that were left out.
        rounds_count: u64,
    },
}

/// What one thread was doing at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Look {
    /// When it was looked at.
    pub time: HostNs,
    /// The thread.
    pub tid: Tid,
    /// The system call that it was in, as far as that is shown.
    pub call: Call,
    /// Its state as `/proc/TID/stat` writes it (`S`, `D`, ...), read a moment later; `None` where it
    /// was on a pCPU or waited for one, which `call` says.
    pub state: Option<u8>,
    /// The kernel function that it slept in (`/proc/TID/wchan`), read between the two; `None` if the thread
    /// no longer slept or the function is not shown.
    pub wchan: Option<Arc<str>>,
}

/// What `/proc/TID/syscall` tells of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// It is not shown: the rights are missing, or the kernel does not have the file.
    Hidden,
    /// The thread was on a pCPU, or waited for one.
    Running,
    /// It slept, and not in a system call: in a page fault, for instance.
    None,
    /// It slept in a system call.
    In {
        /// Its number on x86-64.
        number: u32,
        /// Its first three arguments.
        args: [u64; 3],
    },
}

/// `/proc/TID/schedstat`: what the scheduler has counted of a thread since its birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedstat {
    /// When it was read.
    pub time: HostNs,
    /// The thread.
    pub tid: Tid,
    /// Time on a pCPU, as of the last switch or tick.
    pub on_pcpu_ns: u64,
    /// Time spent runnable but not on a pCPU, as of the last time that it came on one.
    pub run_delay_ns: u64,
    /// How often it came on a pCPU.
    pub timeslices_count: u64,
}

impl SampleItem {
    /// When it was taken; of a gap, when it began.
    #[must_use]
    pub fn time(&self) -> HostNs {
        match self {
            SampleItem::Look(look) => look.time,
            SampleItem::Schedstat(schedstat) => schedstat.time,
            SampleItem::Gap { time, .. } => *time,
        }
    }
}
