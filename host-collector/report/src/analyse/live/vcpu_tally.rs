//! What a vCPU's thread did in a second.

use super::second::Modes;
use super::waited_for::WaitedFor;
use crate::summary::OffReason;
use std::collections::BTreeMap;
use vslice_core::timeline::{
    Antagonist, LockWait, Reason, RunMode, Span, ThreadState, UnknownCause, Who,
};
use vslice_core::units::{HostNs, PcpuId};

/// Adds up the spans of one thread, second by second. A span that goes on counts up to the second's end, and from there
/// in the next.
#[derive(Debug)]
pub(super) struct VcpuTally {
    /// Up to here everything is counted.
    counted_until: HostNs,
    pub(super) modes: Modes,
    pub(super) waiting: BTreeMap<OffReason, u64>,
    pub(super) asleep: BTreeMap<OffReason, u64>,
    pub(super) throttled_ns: u64,
    pub(super) unknown: BTreeMap<UnknownCause, u64>,
    pub(super) worst_wait: Option<Wait>,
    pub(super) waited_for: WaitedFor,
    pub(super) lock_waits_count: u64,
    pub(super) lock_waits_ns: u64,
    pub(super) worst_lock_wait: Option<LockWait>,
}

/// A wait for a pCPU.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub(super) length_ns: u64,
    pub(super) goes_on: bool,
    pub(super) reason: OffReason,
    pub(super) pcpu: PcpuId,
    pub(super) by: Option<Antagonist>,
}

/// What a thread did all the time without an event that told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// It kept its pCPU.
    Kept,
    /// It slept.
    Asleep,
}

impl VcpuTally {
    pub(super) fn new(start: HostNs) -> VcpuTally {
        VcpuTally {
            counted_until: start,
            modes: Modes::default(),
            waiting: BTreeMap::new(),
            asleep: BTreeMap::new(),
            throttled_ns: 0,
            unknown: BTreeMap::new(),
            worst_wait: None,
            waited_for: WaitedFor::default(),
            lock_waits_count: 0,
            lock_waits_ns: 0,
            worst_lock_wait: None,
        }
    }

    /// A new second, in which nothing is counted yet.
    pub(super) fn turn(&mut self) {
        let before = std::mem::replace(self, VcpuTally::new(self.counted_until));
        self.waited_for = before.waited_for.turned();
    }

    /// Takes a span that is over.
    pub(super) fn span(&mut self, span: &Span) {
        self.take(span, false);
    }

    /// Takes what is known of a span that has not gone out.
    pub(super) fn open(&mut self, span: &Span, second_end: HostNs) {
        self.take(span, span.end >= second_end);
    }

    /// The second ends: of the rest of it nothing is known, but what no event tells.
    pub(super) fn close(&mut self, end: HostNs, unseen: Option<Unseen>) {
        let rest_ns = end.since_ns(self.counted_until);
        if rest_ns > 0 {
            *self.unknown.entry(UnknownCause::NotYetSeen).or_default() += rest_ns;
        }
        self.counted_until = self.counted_until.max(end);
        let Some(unseen) = unseen else { return };
        let Some(ns) = self.unknown.remove(&UnknownCause::NotYetSeen) else { return };
        match unseen {
            Unseen::Kept => self.modes.unsplit_ns += ns,
            Unseen::Asleep => {
                *self.asleep.entry(OffReason::Left(Reason::Unknown)).or_default() += ns;
            }
        }
    }

    pub(super) fn lock_wait(&mut self, wait: &LockWait) {
        let length_ns = wait.end.since_ns(wait.start);
        self.lock_waits_count += 1;
        self.lock_waits_ns = self.lock_waits_ns.saturating_add(length_ns);
        let worst_ns = self.worst_lock_wait.map_or(0, |worst| worst.end.since_ns(worst.start));
        if length_ns > worst_ns {
            self.worst_lock_wait = Some(*wait);
        }
    }

    pub(super) fn running_ns(&self) -> u64 {
        let Modes { guest_ns, kvm_ns, halt_poll_ns, vmm_ns, unsplit_ns } = self.modes;
        guest_ns + kvm_ns + halt_poll_ns + vmm_ns + unsplit_ns
    }

    fn take(&mut self, span: &Span, goes_on: bool) {
        // What was held back at the end of an earlier second is told again.
        if span.end <= self.counted_until {
            return;
        }
        let gap_ns = span.start.since_ns(self.counted_until);
        if gap_ns > 0 {
            *self.unknown.entry(UnknownCause::NotYetSeen).or_default() += gap_ns;
        }
        let ns = span.end.since_ns(span.start.max(self.counted_until));
        self.counted_until = span.end;
        self.count(&span.state, ns);
        if let Some(pcpu) = span.state.waits_for() {
            self.waited(span, pcpu, ns, goes_on);
        }
    }

    fn count(&mut self, state: &ThreadState, ns: u64) {
        match (state, OffReason::of(state)) {
            (ThreadState::Running { mode, .. }, _) => *self.mode(*mode) += ns,
            (ThreadState::Unknown { cause }, _) => *self.unknown.entry(*cause).or_default() += ns,
            (ThreadState::PreemptWait { reason: Reason::Throttle, .. }, _) => {
                self.throttled_ns += ns;
            }
            (ThreadState::Blocked(_), Some(reason)) => {
                *self.asleep.entry(reason).or_default() += ns;
            }
            (_, Some(reason)) => *self.waiting.entry(reason).or_default() += ns,
            (_, None) => *self.unknown.entry(UnknownCause::NotYetSeen).or_default() += ns,
        }
    }

    fn mode(&mut self, mode: RunMode) -> &mut u64 {
        match mode {
            RunMode::Unsplit => &mut self.modes.unsplit_ns,
            RunMode::Guest => &mut self.modes.guest_ns,
            RunMode::Kvm => &mut self.modes.kvm_ns,
            RunMode::HaltPoll => &mut self.modes.halt_poll_ns,
            RunMode::Vmm => &mut self.modes.vmm_ns,
        }
    }

    fn waited(&mut self, span: &Span, pcpu: PcpuId, ns: u64, goes_on: bool) {
        self.waited_for.wait(span, ns, goes_on);
        let length_ns = span.length_ns();
        if self.worst_wait.as_ref().is_some_and(|worst| worst.length_ns >= length_ns) {
            return;
        }
        let Some(reason) = OffReason::of(&span.state) else { return };
        let by = span.antagonists.iter().find(|ran| ran.who != Who::Others);
        self.worst_wait = Some(Wait { length_ns, goes_on, reason, pcpu, by: by.cloned() });
    }
}
