//! Events that the kernel has counted, of which perf's rings had no record and told no loss. Pure.
//!
//! Some kernels record nothing of what happens while certain tasks are current, a vCPU's idle task for instance, and
//! with it nothing of what an interrupt of theirs completes. An event of perf's counts it all the same (linux:
//! kernel/events/core.c, `perf_swevent_event` counts before it looks for whoever wants a record).

use super::formats::Tracepoint;
use vslice_perf::sys::EventCount;
use vslice_wire::ObservedHidden;

/// How many records one ring has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Records {
    by_tracepoint: [u64; Tracepoint::ALL.len()],
    /// Those of which it is not known which tracepoint's they are.
    of_any: u64,
}

/// What one ring had no room for, as it told itself: of which event it was, it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RingLosses {
    pub(super) count: u64,
    /// Whether it may have been more.
    pub(super) may_be_more: bool,
}

impl Records {
    /// Another one, of this tracepoint if that is known.
    pub(super) fn add(&mut self, of: Option<Tracepoint>) {
        match of {
            Some(tracepoint) => self.by_tracepoint[tracepoint as usize] += 1,
            None => self.of_any += 1,
        }
    }

    /// What its events have counted beyond these records and beyond what a loss may explain: `None` is an event
    /// that cannot be read. To be asked when all that they have counted is in the ring, or nowhere.
    pub(super) fn hidden(
        &self,
        events: impl IntoIterator<Item = (Tracepoint, Option<EventCount>)>,
        losses: RingLosses,
    ) -> ObservedHidden {
        let mut written_counts = [0_u64; Tracepoint::ALL.len()];
        let (mut is_all_read, mut tells_losses) = (true, true);
        for (tracepoint, count) in events {
            let Some(count) = count else {
                is_all_read = false;
                continue;
            };
            tells_losses &= count.lost.is_some();
            let written = count.value.saturating_sub(count.lost.unwrap_or(0));
            let written_count = &mut written_counts[tracepoint as usize];
            *written_count = written_count.saturating_add(written);
        }
        let losses = if tells_losses { RingLosses::NONE } else { losses };
        let anyones = self.of_any.saturating_add(losses.count);
        let hidden = |tracepoint: Tracepoint| {
            let of = tracepoint as usize;
            let missing = written_counts[of].saturating_sub(self.by_tracepoint[of]);
            if losses.may_be_more { 0 } else { missing.saturating_sub(anyones) }
        };
        let others = [Tracepoint::Remap, Tracepoint::Refused, Tracepoint::Requeue].map(hidden);
        ObservedHidden {
            queued_count: hidden(Tracepoint::Queue),
            issued_count: hidden(Tracepoint::Issue),
            completed_count: hidden(Tracepoint::Complete),
            others_count: others.into_iter().fold(0, u64::saturating_add),
            is_exact: is_all_read && anyones == 0 && !losses.may_be_more,
        }
    }
}

impl RingLosses {
    const NONE: RingLosses = RingLosses { count: 0, may_be_more: false };
}

/// What all rings hide together.
pub(super) fn together(rings: impl IntoIterator<Item = ObservedHidden>) -> ObservedHidden {
    let none = ObservedHidden { is_exact: true, ..ObservedHidden::default() };
    rings.into_iter().fold(none, |all, ring| ObservedHidden {
        queued_count: all.queued_count.saturating_add(ring.queued_count),
        issued_count: all.issued_count.saturating_add(ring.issued_count),
        completed_count: all.completed_count.saturating_add(ring.completed_count),
        others_count: all.others_count.saturating_add(ring.others_count),
        is_exact: all.is_exact && ring.is_exact,
    })
}

/// Whether something is hidden.
pub(super) fn is_any(hidden: ObservedHidden) -> bool {
    let ObservedHidden { queued_count, issued_count, completed_count, others_count, .. } = hidden;
    [queued_count, issued_count, completed_count, others_count].into_iter().any(|count| count > 0)
}

#[cfg(test)]
#[path = "hidden_tests.rs"]
mod tests;
