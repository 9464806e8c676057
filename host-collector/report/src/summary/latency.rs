//! Latencies and where they went, per bucket of latency: see [`super::model`], "What the classes
//! are".

use super::distribution::{Distribution, Precision};
use super::io::IoTotals;
use super::ledger::Room;
use super::model::LatencyNs;
use super::runners::{Buckets, Runners, Told};
use super::totals::sum;
use super::what_if::{GroupRoom, WhatIf, WhatIfTally};
use rustc_hash::FxHashMap;
use std::ops::{Bound, RangeBounds};
use vslice_core::join::{Breakdown, GuestRequest, Part, PartsNs, Phase};
use vslice_core::timeline::Who;
use vslice_core::units::{PcpuId, VcpuId};

use super::names::{Directory, VmIndex};

/// Who is told apart of one kind of requests: the heaviest names, each in each bucket of latency; and how
/// many threads and processes are counted one by one.
const ROOM: Room = Room { keys: 4096, cells: 1 << 19, members: 1 << 17 };

/// The same where there are many kinds.
const ROOM_OF_MANY: Room = Room { keys: 512, cells: 1 << 14, members: 1 << 12 };

/// Groups of antagonists that are thought away of one kind of requests, and the buckets of all of them.
const GROUP_ROOM: GroupRoom = GroupRoom { groups: 1024, cells: 1 << 17 };

/// The same where there are many kinds.
const GROUP_ROOM_OF_MANY: GroupRoom = GroupRoom { groups: 128, cells: 1 << 13 };

/// Where somebody ran while a vCPU thread waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Encounter {
    pub(super) victim_vm: VmIndex,
    pub(super) victim_vcpu: VcpuId,
    pub(super) pcpu: PcpuId,
}

/// What the requests of one bucket or one class come to.
#[derive(Debug, Clone)]
pub(super) struct ClassTotals {
    pub(super) count: u64,
    pub(super) unattributable: u64,
    pub(super) latency_ns: u64,
    pub(super) parts: PartsNs,
    pub(super) clock_error: PartsNs,
    pub(super) clock_uncertain: u64,
    pub(super) io: IoTotals,
    /// How long they waited for a pCPU.
    pub(super) wait_ns: u64,
    /// For how long it was idle meanwhile.
    pub(super) idle_ns: u64,
}

impl ClassTotals {
    fn new() -> Self {
        ClassTotals {
            count: 0,
            unattributable: 0,
            latency_ns: 0,
            parts: PartsNs::default(),
            clock_error: PartsNs::default(),
            clock_uncertain: 0,
            io: IoTotals::default(),
            wait_ns: 0,
            idle_ns: 0,
        }
    }

    fn add_all(&mut self, other: &ClassTotals) {
        self.count += other.count;
        self.unattributable += other.unattributable;
        self.latency_ns = self.latency_ns.saturating_add(other.latency_ns);
        self.parts.add_all(&other.parts);
        self.clock_error.add_all(&other.clock_error);
        self.clock_uncertain += other.clock_uncertain;
        self.io.add_all(&other.io);
        self.wait_ns = self.wait_ns.saturating_add(other.wait_ns);
        self.idle_ns = self.idle_ns.saturating_add(other.idle_ns);
    }
}

/// The latencies of a run.
#[derive(Debug)]
pub(super) struct LatencyTally {
    distribution: Distribution,
    buckets: FxHashMap<u64, ClassTotals>,
    /// Who ran while requests waited, by the same buckets.
    encounters: Runners<Encounter>,
    what_if: WhatIfTally,
}

impl LatencyTally {
    /// Of the only kind of requests that there is.
    pub(super) fn new() -> Self {
        LatencyTally::with(Precision::Fine, ROOM, GROUP_ROOM)
    }

    /// Of one of many kinds.
    pub(super) fn one_of_many() -> Self {
        LatencyTally::with(Precision::Coarse, ROOM_OF_MANY, GROUP_ROOM_OF_MANY)
    }

    fn with(precision: Precision, room: Room, group_room: GroupRoom) -> Self {
        let (distribution, encounters) = (Distribution::new(precision), Runners::new(room));
        let what_if = WhatIfTally::new(group_room);
        LatencyTally { distribution, buckets: FxHashMap::default(), encounters, what_if }
    }

    pub(super) fn record_unattributable(&mut self, latency_ns: u64) {
        self.record(latency_ns).unattributable += 1;
    }

    pub(super) fn record_attributed(&mut self, latency_ns: u64, parts: &PartsNs) {
        let bucket = self.record(latency_ns);
        bucket.count += 1;
        bucket.latency_ns = bucket.latency_ns.saturating_add(latency_ns);
        bucket.parts.add_all(parts);
    }

    /// Takes who ran while a request of this VM waited that [`Self::record_attributed`] has taken; `victim` is
    /// the vCPU that waited for a pCPU.
    pub(super) fn add_waits(
        &mut self,
        vm: VmIndex,
        breakdown: &Breakdown,
        victim: impl Fn(PcpuId) -> VcpuId,
    ) {
        let latency_ns = breakdown.latency_ns();
        let bucket = self.distribution.bucket_ns(latency_ns);
        let waited_ns = &mut self.bucket(latency_ns).wait_ns;
        *waited_ns = waited_ns.saturating_add(wait_ns(breakdown));
        for (pcpu, ran) in breakdown.waits.rows() {
            match (&ran.who, pcpu) {
                (Who::Idle, _) => {
                    let idle_ns = &mut self.bucket(latency_ns).idle_ns;
                    *idle_ns = idle_ns.saturating_add(ran.ran_ns);
                }
                (Who::Thread(_), Some(pcpu)) => {
                    let met = Encounter { victim_vm: vm, victim_vcpu: victim(pcpu), pcpu };
                    self.encounters.add(met, bucket, &ran);
                }
                (Who::Others | Who::Thread(_), _) => {
                    self.encounters.add_others(bucket, ran.ran_ns);
                }
            }
        }
    }

    /// Takes the I/O of a request that [`Self::record_attributed`] has taken, and its clock's
    /// error.
    pub(super) fn add_io_and_clock(&mut self, breakdown: &Breakdown) {
        let bucket = self.bucket(breakdown.latency_ns());
        bucket.io.add(breakdown);
        bucket.clock_error.add_all(&breakdown.clock_error.parts);
        bucket.clock_uncertain += u64::from(breakdown.clock_error.can_move);
    }

    /// Takes what a request of this VM would be without its causes that [`Self::record_attributed`] has taken.
    pub(super) fn add_what_if(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        self.what_if.add(vm, breakdown, &self.distribution);
    }

    /// What the percentiles of them, and of so many that were faster, would be without a cause; `None` if none could be
    /// attributed.
    pub(super) fn what_if(&self, faster_count: u64, directory: &Directory<'_>) -> Option<WhatIf> {
        self.what_if.finish(&self.distribution, faster_count, directory)
    }

    fn record(&mut self, latency_ns: u64) -> &mut ClassTotals {
        self.distribution.record(latency_ns);
        self.bucket(latency_ns)
    }

    fn bucket(&mut self, latency_ns: u64) -> &mut ClassTotals {
        self.buckets.entry(self.distribution.bucket_ns(latency_ns)).or_insert_with(ClassTotals::new)
    }

    pub(super) fn count(&self) -> u64 {
        self.distribution.count()
    }

    /// What a summary has of them and of so many requests more, all of which were faster.
    pub(super) fn latency_ns(&self, faster_count: u64) -> LatencyNs {
        self.distribution.latency_ns(faster_count)
    }

    /// How long the slowest hundredth took together, of these requests and so many that were faster; of few the
    /// slowest one.
    pub(super) fn slowest_hundredth_ns(&self, faster_count: u64) -> u64 {
        let made = self.count().saturating_add(faster_count);
        self.distribution.longest_ns(made.div_ceil(100))
    }

    /// The bucket that holds this latency, by its lower edge.
    pub(super) fn bucket_of(&self, latency_ns: u64) -> u64 {
        self.distribution.bucket_ns(latency_ns)
    }

    /// The requests of a class.
    pub(super) fn class(&self, slower: Slower) -> ClassTotals {
        let mut totals = ClassTotals::new();
        let of_class =
            self.buckets.iter().filter(|(edge_ns, _)| slower.buckets().contains(edge_ns));
        of_class.for_each(|(_, bucket)| totals.add_all(bucket));
        totals
    }

    /// Who ran while requests of these classes waited: of
    /// each class the `count` longest, and for all of them what they had in each class, the longest
    /// first, with what all others had.
    pub(super) fn encounters(
        &self,
        count: usize,
        classes: [Slower; 3],
    ) -> [Told<'_, Encounter>; 3] {
        self.encounters.longest(count, classes.map(Slower::buckets))
    }
}

/// How long a request waited for a pCPU: its preemption waits and wakeup delays. Of an observed request only
/// while it may have waited for the vCPU, as of who ran meanwhile.
pub(super) fn wait_ns(breakdown: &Breakdown) -> u64 {
    let waits = [Part::PreemptWait, Part::WakeupDelay];
    match breakdown.request {
        GuestRequest::Read(_) => sum(waits.map(|part| breakdown.parts.get(part))),
        GuestRequest::Observed(_) => {
            let waited = Phase::ALL.into_iter().filter(|of| breakdown.vcpus.is_waited_for(*of));
            let of_phase = |phase| waits.map(|part| breakdown.phases.of(phase).get(part));
            sum(waited.flat_map(of_phase))
        }
    }
}

/// Which requests a class has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slower {
    /// All of them.
    All,
    /// Those slower than this quantile of the tally; none where it is unknown.
    Than(Option<u64>),
}

impl Slower {
    pub(super) fn threshold_ns(self) -> Option<u64> {
        match self {
            Slower::All => None,
            Slower::Than(threshold_ns) => threshold_ns,
        }
    }

    pub(super) fn buckets(self) -> Buckets {
        let above = match self {
            Slower::All => Bound::Unbounded,
            // No bucket begins so late.
            Slower::Than(threshold_ns) => Bound::Excluded(threshold_ns.unwrap_or(u64::MAX)),
        };
        (above, Bound::Unbounded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts_of(lengths_ns: &[u64]) -> PartsNs {
        let mut parts = PartsNs::default();
        for (part, length_ns) in Part::ALL.into_iter().zip(lengths_ns) {
            parts.add(part, *length_ns);
        }
        parts
    }

    /// The parts of a request, and whether it is attributed.
    fn requests() -> impl Strategy<Value = Vec<(Vec<u64>, bool)>> {
        let lengths = prop::collection::vec(0..3_000_000_u64, Part::ALL.len());
        prop::collection::vec((lengths, prop::bool::weighted(0.9)), 1..300)
    }

    proptest! {
        /// Against the definition, with every request kept.
        #[test]
        fn a_class_holds_exactly_the_slower_requests(requests in requests()) {
            let mut tally = LatencyTally::new();
            for (lengths, is_attributed) in &requests {
                let parts = parts_of(lengths);
                if *is_attributed {
                    tally.record_attributed(parts.total_ns(), &parts);
                } else {
                    tally.record_unattributable(parts.total_ns());
                }
            }
            let latency_ns = tally.latency_ns(0);
            for slower in [Slower::All, Slower::Than(latency_ns.p99), Slower::Than(latency_ns.p50)] {
                let (class, threshold_ns) = (tally.class(slower), slower.threshold_ns());
                let slower = requests.iter().map(|(lengths, attributed)| {
                    (parts_of(lengths), attributed)
                }).filter(|(parts, _)| threshold_ns.is_none_or(|edge| parts.total_ns() > edge));
                let (mut expected, mut count, mut unattributable) = (PartsNs::default(), 0, 0);
                for (parts, is_attributed) in slower {
                    if *is_attributed {
                        expected.add_all(&parts);
                        count += 1;
                    } else {
                        unattributable += 1;
                    }
                }
                prop_assert_eq!((class.count, class.unattributable), (count, unattributable));
                prop_assert_eq!(class.parts, expected);
                prop_assert_eq!(class.parts.total_ns(), class.latency_ns);
            }
        }
    }

    #[test]
    fn alike_requests_have_none_above_the_percentile() {
        let mut tally = LatencyTally::new();
        (0..50).for_each(|_| tally.record_attributed(7, &parts_of(&[7])));
        let latency_ns = tally.latency_ns(0);
        assert_eq!((latency_ns.p99, latency_ns.max), (Some(7), Some(7)));
        assert_eq!(tally.class(Slower::Than(latency_ns.p99)).count, 0);
        assert_eq!(tally.class(Slower::All).count, 50);
    }

    #[test]
    fn memory_is_bounded_by_the_digits_not_by_the_requests() {
        let mut tally = LatencyTally::new();
        (0..200_000_u64).for_each(|index| tally.record_unattributable(index * 1_000));
        assert!(tally.buckets.len() < 20_000, "{} buckets", tally.buckets.len());
        assert_eq!(tally.count(), 200_000);
    }
}
