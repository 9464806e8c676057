//! What was observed where the events of a thread cannot all be right.
//!
//! The kernel cannot switch a thread in twice without switching it out in between, so each of these
//! proves that a record is missing, although no loss was reported (a filter that is too narrow, or
//! a defect in the recorder). The time that it puts in doubt becomes `Unknown`.
//!
//! It does happen: on one machine with Linux 6.18 `perf record -a` missed several switches a second
//! away from two threads of the machine's own supervisor, and reported no loss.

use crate::units::{HostNs, PcpuId, Tid};
use std::fmt;

/// One observation that contradicts what was seen before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// When it was observed.
    pub time: HostNs,
    /// The watched thread that it puts in doubt.
    pub tid: Tid,
    /// What was observed.
    pub kind: ContradictionKind,
}

/// What a [`Contradiction`] observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContradictionKind {
    /// It was switched in while it was already running.
    SwitchedInTwice {
        /// Where it was running.
        running_on: PcpuId,
        /// Where it was switched in.
        switched_in_on: PcpuId,
    },
    /// It was switched out although it was not running.
    SwitchedOutTwice {
        /// Where it was switched out.
        switched_out_on: PcpuId,
    },
    /// It was switched out of another pCPU than the one that it was running on.
    SwitchedOutElsewhere {
        /// Where it was running.
        running_on: PcpuId,
        /// Where it was switched out.
        switched_out_on: PcpuId,
    },
    /// Somebody else was switched out of the pCPU that it was running on.
    Displaced {
        /// Where it was running.
        running_on: PcpuId,
        /// Who was switched out there.
        by: Tid,
    },
}

impl fmt::Display for Contradiction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time_ns, tid) = (self.time.0, self.tid);
        match self.kind {
            ContradictionKind::SwitchedInTwice { running_on, switched_in_on } => write!(
                formatter,
                "at {time_ns} ns thread {tid} was switched in on {switched_in_on} while it was \
                 running on {running_on}"
            ),
            ContradictionKind::SwitchedOutTwice { switched_out_on } => write!(
                formatter,
                "at {time_ns} ns thread {tid} was switched out on {switched_out_on} while it was \
                 not running"
            ),
            ContradictionKind::SwitchedOutElsewhere { running_on, switched_out_on } => write!(
                formatter,
                "at {time_ns} ns thread {tid} was switched out on {switched_out_on} while it was \
                 running on {running_on}"
            ),
            ContradictionKind::Displaced { running_on, by } => write!(
                formatter,
                "at {time_ns} ns thread {by} was switched out on {running_on}, where thread {tid} \
                 was running"
            ),
        }
    }
}

/// All contradictions of a run: how many, and the first [`Contradictions::KEPT_MAX`] of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contradictions {
    count: u64,
    first: Vec<Contradiction>,
}

impl Contradictions {
    /// How many are kept one by one.
    pub const KEPT_MAX: usize = 16;

    pub(super) fn push(&mut self, contradiction: Contradiction) {
        self.count += 1;
        if self.first.len() < Self::KEPT_MAX {
            self.first.push(contradiction);
        }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first of them, in order of time.
    #[must_use]
    pub fn first(&self) -> &[Contradiction] {
        &self.first
    }
}
