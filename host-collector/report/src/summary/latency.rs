//! Latencies and where they went, per bucket of latency: see [`super::model`], "What the classes
//! are".

use super::distribution::Distribution;
use super::io::IoTotals;
use super::ledger::Room;
use super::model::LatencyNs;
use super::runners::{Buckets, Runners, Told};
use super::totals::PartTotals;
use std::collections::BTreeMap;
use std::ops::Bound;
use vslice_core::join::{Breakdown, Part, PartsNs};
use vslice_core::timeline::Who;
use vslice_core::units::{PcpuId, VcpuId};

use super::names::VmIndex;

/// Who is told apart: the heaviest names, each in each bucket of latency; and how many threads and
/// processes are counted one by one.
const ROOM: Room = Room { keys: 4096, cells: 1 << 19, members: 1 << 17 };

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
    pub(super) parts: PartTotals,
    pub(super) clock_error: PartsNs,
    pub(super) clock_uncertain: u64,
    pub(super) io: IoTotals,
    /// For how long a pCPU was idle while they waited for it.
    pub(super) idle_ns: u64,
}

impl ClassTotals {
    fn new() -> Self {
        ClassTotals {
            count: 0,
            unattributable: 0,
            latency_ns: 0,
            parts: PartTotals::default(),
            clock_error: PartsNs::default(),
            clock_uncertain: 0,
            io: IoTotals::default(),
            idle_ns: 0,
        }
    }

    fn add_all(&mut self, other: &ClassTotals) {
        self.count += other.count;
        self.unattributable += other.unattributable;
        self.latency_ns = self.latency_ns.saturating_add(other.latency_ns);
        for part in Part::ALL {
            self.parts.add(part, other.parts.get(part));
        }
        self.clock_error.add_all(&other.clock_error);
        self.clock_uncertain += other.clock_uncertain;
        self.io.add_all(&other.io);
        self.idle_ns = self.idle_ns.saturating_add(other.idle_ns);
    }
}

/// The latencies of a run.
#[derive(Debug)]
pub(super) struct LatencyTally {
    distribution: Distribution,
    buckets: BTreeMap<u64, ClassTotals>,
    /// Who ran while requests waited, by the same buckets.
    encounters: Runners<Encounter>,
}

impl LatencyTally {
    pub(super) fn new() -> Self {
        let (distribution, encounters) = (Distribution::new(), Runners::new(ROOM));
        LatencyTally { distribution, buckets: BTreeMap::new(), encounters }
    }

    pub(super) fn record_unattributable(&mut self, latency_ns: u64) {
        self.record(latency_ns).unattributable += 1;
    }

    pub(super) fn record_attributed(&mut self, latency_ns: u64, parts: &PartsNs) {
        let bucket = self.record(latency_ns);
        bucket.count += 1;
        bucket.latency_ns = bucket.latency_ns.saturating_add(latency_ns);
        for part in Part::ALL {
            bucket.parts.add(part, parts.get(part));
        }
    }

    /// Takes who ran while a request of this VM waited that [`Self::record_attributed`] has taken.
    pub(super) fn add_waits(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        let latency_ns = breakdown.latency_ns();
        let bucket = self.distribution.bucket_ns(latency_ns);
        for (pcpu, ran) in breakdown.waits.rows() {
            match (&ran.who, pcpu) {
                (Who::Idle, _) => {
                    let idle_ns = &mut self.bucket(latency_ns).idle_ns;
                    *idle_ns = idle_ns.saturating_add(ran.ran_ns);
                }
                (Who::Thread(_), Some(pcpu)) => {
                    let met = Encounter { victim_vm: vm, victim_vcpu: breakdown.vcpu, pcpu };
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

    pub(super) fn latency_ns(&self) -> LatencyNs {
        let quantile_ns = |quantile| self.distribution.quantile_ns(quantile);
        LatencyNs {
            min: self.distribution.min_ns(),
            mean: self.distribution.mean_ns(),
            p50: quantile_ns(0.5),
            p90: quantile_ns(0.9),
            p99: quantile_ns(0.99),
            p999: quantile_ns(0.999),
            p9999: quantile_ns(0.9999),
            max: self.distribution.max_ns(),
        }
    }

    /// The requests slower than `threshold_ns`, which has to be a quantile of [`Self::latency_ns`];
    /// all of them for `None`.
    pub(super) fn class(&self, threshold_ns: Option<u64>) -> ClassTotals {
        let mut totals = ClassTotals::new();
        for (_, bucket) in self.buckets.range(slower_than(threshold_ns)) {
            totals.add_all(bucket);
        }
        totals
    }

    /// Who ran while requests waited that are slower than these thresholds, as in [`Self::class`]: of
    /// each class the `count` longest, and for all of them what they had in each class, the longest
    /// first, with what all others had.
    pub(super) fn encounters(
        &self,
        count: usize,
        thresholds_ns: [Option<u64>; 3],
    ) -> [Told<'_, Encounter>; 3] {
        self.encounters.longest(count, thresholds_ns.map(slower_than))
    }
}

/// The buckets of the requests slower than this; all for `None`.
fn slower_than(threshold_ns: Option<u64>) -> Buckets {
    (threshold_ns.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
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
            let latency_ns = tally.latency_ns();
            for threshold_ns in [None, latency_ns.p99, latency_ns.p50] {
                let class = tally.class(threshold_ns);
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
                prop_assert_eq!(&class.parts, &PartTotals::from(&expected));
                prop_assert_eq!(class.parts.total_ns(), class.latency_ns);
            }
        }
    }

    #[test]
    fn alike_requests_have_none_above_the_percentile() {
        let mut tally = LatencyTally::new();
        (0..50).for_each(|_| tally.record_attributed(7, &parts_of(&[7])));
        let latency_ns = tally.latency_ns();
        assert_eq!((latency_ns.p99, latency_ns.max), (Some(7), Some(7)));
        assert_eq!(tally.class(latency_ns.p99).count, 0);
        assert_eq!(tally.class(None).count, 50);
    }

    #[test]
    fn memory_is_bounded_by_the_digits_not_by_the_requests() {
        let mut tally = LatencyTally::new();
        (0..200_000_u64).for_each(|index| tally.record_unattributable(index * 1_000));
        assert!(tally.buckets.len() < 20_000, "{} buckets", tally.buckets.len());
        assert_eq!(tally.count(), 200_000);
    }
}
