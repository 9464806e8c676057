//! The parts that a request's latency is split into.

use crate::timeline::{BlockReason, Span, ThreadState};
use crate::units::{HostNs, VcpuId};
use serde::{Deserialize, Serialize};
use vslice_wire::Request;

/// What the vCPU thread was doing, as a part of a request's latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// On a pCPU: in the guest, in KVM or in the VMM's userspace.
    OnPcpu,
    /// Runnable, but somebody else was given the pCPU.
    PreemptWait,
    /// Woken, but not yet on a pCPU.
    WakeupDelay,
    /// Asleep on a futex: a lock or a condition of the VMM.
    Futex,
    /// The guest was idle: it waited, normally for the device.
    Halt,
    /// Asleep somewhere else in the host's kernel.
    OtherSleep,
    /// Overlaps a loss, or a sleep of which no stack is known.
    Unknown,
}

impl Part {
    /// Every part, in the order in which they are printed.
    pub const ALL: [Part; 7] = [
        Part::OnPcpu,
        Part::PreemptWait,
        Part::WakeupDelay,
        Part::Futex,
        Part::Halt,
        Part::OtherSleep,
        Part::Unknown,
    ];

    /// The part's name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::OnPcpu => "on_pcpu",
            Part::PreemptWait => "preempt_wait",
            Part::WakeupDelay => "wakeup_delay",
            Part::Futex => "futex",
            Part::Halt => "halt",
            Part::OtherSleep => "other_sleep",
            Part::Unknown => "unknown",
        }
    }

    /// The part that a thread's state counts towards.
    #[must_use]
    pub fn of(state: &ThreadState) -> Part {
        match state {
            ThreadState::Running { .. } => Part::OnPcpu,
            ThreadState::PreemptWait { .. } => Part::PreemptWait,
            ThreadState::WakeupDelay { .. } => Part::WakeupDelay,
            ThreadState::Blocked { reason, .. } => match reason {
                BlockReason::Futex => Part::Futex,
                BlockReason::Halt => Part::Halt,
                BlockReason::Other => Part::OtherSleep,
                BlockReason::Unknown => Part::Unknown,
            },
            ThreadState::Unknown { .. } => Part::Unknown,
        }
    }
}

/// Nanoseconds by part; together they are the length of the window that was split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartsNs([u64; Part::ALL.len()]);

impl PartsNs {
    /// Nanoseconds in `part`.
    #[must_use]
    pub fn get(&self, part: Part) -> u64 {
        self.0[part as usize]
    }

    /// Adds nanoseconds to `part`; it stays at `u64::MAX`, 584 years, which only a lying guest
    /// reaches.
    pub fn add(&mut self, part: Part, length_ns: u64) {
        let sum_ns = &mut self.0[part as usize];
        *sum_ns = sum_ns.saturating_add(length_ns);
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &PartsNs) {
        for part in Part::ALL {
            self.add(part, other.get(part));
        }
    }

    /// The sum over all parts.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.0.iter().fold(0, |total_ns, part_ns| total_ns.saturating_add(*part_ns))
    }
}

/// Whether a request's latency can be given to causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribution {
    /// All of it lies on a known timeline.
    Attributed,
    /// It touches an interval in which records were lost.
    Lost,
    /// The thread that made it moved between vCPUs meanwhile.
    Moved,
    /// It lies, at least in part, outside what was recorded on the host.
    NotRecorded,
}

/// One request, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakdown {
    /// The request as the guest recorded it.
    pub request: Request,
    /// The vCPU whose thread was laid over it: where it was submitted.
    pub vcpu: VcpuId,
    /// Its submission on the host's clock.
    pub start: HostNs,
    /// Its completion on the host's clock.
    pub end: HostNs,
    /// How far `start` and `end` may be off, by the clock map.
    pub bound_ns: u64,
    /// Its latency by part; `parts.total_ns()` is exactly `end - start`.
    pub parts: PartsNs,
    /// Whether the parts may be believed.
    pub attribution: Attribution,
    /// The vCPU thread's spans over the window, clipped to it (antagonists scaled down to what
    /// fits), the first [`CHAIN_SPANS_MAX`] of them.
    pub chain: Vec<Span>,
    /// How many spans the window had beyond those in `chain`.
    pub chain_cut_count: u64,
}

impl Breakdown {
    /// The latency in nanoseconds of the host's clock.
    #[must_use]
    pub fn latency_ns(&self) -> u64 {
        self.end.since_ns(self.start)
    }
}

/// Spans that a [`Breakdown`] keeps at most.
pub const CHAIN_SPANS_MAX: usize = 64;
