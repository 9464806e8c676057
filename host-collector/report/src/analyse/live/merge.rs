//! Events of all pCPUs in order of time, while more of them come.

use std::collections::BTreeSet;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::{HostNs, PcpuId};

/// Events that wait at most. Beyond that the oldest are left out, and that is a loss.
const WAITING_MAX: usize = 1 << 21;

/// Events that were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// Not before the first of them.
    pub from: HostNs,
    /// Not after the last of them.
    pub until: HostNs,
    /// How many.
    pub count: u64,
}

/// Puts events in order.
///
/// Each pCPU's come in order, those of one behind those of another. Up to a time of which is said that all have come,
/// they can be taken.
#[derive(Debug, Default)]
pub(super) struct LiveMerge {
    /// In order of time; those of one time in the order in which a run directory's merge has them, by pCPU.
    waiting: Vec<HostEvent>,
    is_sorted: bool,
    all_came_until: HostNs,
    taken_until: HostNs,
    pcpus: BTreeSet<PcpuId>,
    late_count: u64,
    left_out_count: u64,
}

impl LiveMerge {
    /// Takes more events. All that happened before `all_came_until` have come with these.
    pub(super) fn push(&mut self, events: Vec<HostEvent>, all_came_until: HostNs) {
        self.pcpus.extend(events.iter().map(|event| event.pcpu));
        let is_late = |event: &&HostEvent| event.time < self.taken_until;
        self.late_count += events.iter().filter(is_late).count() as u64;
        self.waiting.extend(events);
        self.is_sorted = false;
        self.all_came_until = self.all_came_until.max(all_came_until);
        if self.waiting.len() > WAITING_MAX {
            self.give_way();
        }
    }

    /// Some were not handed on.
    pub(super) fn left_out(&mut self, left_out: LeftOut) {
        let LeftOut { from, until, count } = left_out;
        self.left_out_count += count;
        // What of them the kernel had lost is counted with what it told.
        let lost =
            |pcpu| HostEvent { time: from, pcpu, kind: HostEventKind::Lost { until, count: 0 } };
        self.waiting.extend(self.pcpus.iter().copied().map(lost));
        self.is_sorted = false;
    }

    /// Until then all events have come.
    pub(super) fn all_came_until(&self) -> HostNs {
        self.all_came_until
    }

    /// The events before `until`, as far as all have come.
    pub(super) fn take_before(&mut self, until: HostNs) -> Vec<HostEvent> {
        let until = until.min(self.all_came_until);
        self.sort();
        let count = self.waiting.partition_point(|event| event.time < until);
        self.taken_until = self.taken_until.max(until);
        self.waiting.drain(..count).collect()
    }

    /// How many came late, and how many were left out, since this was last asked.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.late_count), std::mem::take(&mut self.left_out_count))
    }

    fn give_way(&mut self) {
        self.sort();
        let excess = self.waiting.len() - WAITING_MAX / 2;
        let gone: Vec<HostEvent> = self.waiting.drain(..excess).collect();
        if let (Some(first), Some(last)) = (gone.first(), gone.last()) {
            let count = gone.len() as u64;
            self.left_out(LeftOut { from: first.time, until: last.time, count });
        }
    }

    fn sort(&mut self) {
        if !self.is_sorted {
            // Stable, as the events of one pCPU and one time have an order.
            self.waiting.sort_by_key(|event| (event.time, event.pcpu));
            self.is_sorted = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vslice_core::units::Tid;

    fn event(time: u64, pcpu: u32) -> HostEvent {
        let kind = HostEventKind::Exit { tid: Tid(1) };
        HostEvent { time: HostNs(time), pcpu: PcpuId(pcpu), kind }
    }

    #[test]
    fn what_may_still_be_preceded_is_not_taken_and_what_is_late_is_counted() {
        let mut merge = LiveMerge::default();
        merge.push(vec![event(10, 1), event(30, 1), event(5, 2)], HostNs(20));
        let times = |events: Vec<HostEvent>| events.iter().map(|event| event.time.0).collect();
        let taken: Vec<u64> = times(merge.take_before(HostNs(100)));
        assert_eq!(taken, [5, 10]);
        merge.push(vec![event(15, 2), event(25, 2)], HostNs(40));
        let taken: Vec<u64> = times(merge.take_before(HostNs(100)));
        assert_eq!(taken, [15, 25, 30]);
        assert_eq!(merge.take_counts(), (1, 0));
    }

    #[test]
    fn what_is_left_out_is_a_loss_on_each_pcpu() {
        let mut merge = LiveMerge::default();
        merge.push(vec![event(10, 1), event(11, 2)], HostNs(20));
        merge.left_out(LeftOut { from: HostNs(12), until: HostNs(14), count: 7 });
        let taken = merge.take_before(HostNs(100));
        let lost = HostEventKind::Lost { until: HostNs(14), count: 0 };
        let lost_on: Vec<u32> =
            taken.iter().filter(|event| event.kind == lost).map(|event| event.pcpu.0).collect();
        assert_eq!((lost_on, merge.take_counts()), (vec![1, 2], (0, 7)));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut merge = LiveMerge::default();
        let count = WAITING_MAX as u64 + 1;
        merge.push((0..count).map(|time| event(time, 0)).collect(), HostNs(0));
        assert!(merge.waiting.len() <= WAITING_MAX);
        let taken = merge.waiting.iter().filter(|event| event.kind != event_kind()).count();
        let (_, left_out_count) = merge.take_counts();
        assert_eq!(taken, 1, "the loss");
        assert_eq!(left_out_count + merge.waiting.len() as u64 - 1, count);
    }

    fn event_kind() -> HostEventKind {
        event(0, 0).kind
    }

    proptest! {
        /// However the reading of the rings cuts what happened, what is taken is what a run directory's merge gives.
        #[test]
        fn pieces_come_out_as_one(
            times in prop::collection::vec(prop::collection::vec(0..60_u64, 0..30), 1..4),
            cuts in prop::collection::vec(0..60_u64, 0..6),
        ) {
            let mut all = Vec::new();
            for (pcpu, times) in (0..).zip(times) {
                let mut times = times;
                times.sort_unstable();
                all.extend(times.into_iter().map(|time| event(time, pcpu)));
            }
            let mut expected = all.clone();
            expected.sort_by_key(|event| event.time);
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(60);
            let (mut merge, mut taken, mut from) = (LiveMerge::default(), Vec::new(), 0);
            for cut in cuts {
                let piece = all.iter().filter(|event| (from..cut).contains(&event.time.0));
                merge.push(piece.cloned().collect(), HostNs(cut));
                taken.extend(merge.take_before(HostNs(u64::MAX)));
                from = cut;
            }
            prop_assert_eq!(taken, expected);
            prop_assert_eq!(merge.take_counts(), (0, 0));
        }
    }
}
