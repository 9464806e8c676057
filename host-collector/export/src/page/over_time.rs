//! Where the time of requests went, by when they began: exact sums over stretches of equal length.
//!
//! A run may be of any length, and is not known beforehand: when there would be too many stretches, each two that are
//! neighbours become one. So there are never more than so many, and each sum stays exact.

use super::bands::Totals;
use super::cause::CAUSES;
use super::model::{Column, Stretches};
use std::collections::BTreeMap;
use vslice_core::join::{Attribution, Breakdown, Part, Phase};
use vslice_core::units::HostNs;

/// Stretches that are kept of one group of requests at most.
pub(super) const STRETCHES_MAX: usize = 512;

/// How long stretches are at first.
const FIRST_NS: u64 = 1_000;

/// What the requests that began in each stretch come to.
#[derive(Debug)]
pub(super) struct OverTime {
    start: HostNs,
    length_ns: u64,
    /// By how many stretches after `start` they begin; fewer than none before it.
    stretches: BTreeMap<i64, Stretch>,
}

#[derive(Debug)]
struct Stretch {
    requests: u64,
    attributed: Totals,
}

impl OverTime {
    /// Stretches are counted from `start`.
    pub(super) fn new(start: HostNs) -> OverTime {
        OverTime { start, length_ns: FIRST_NS, stretches: BTreeMap::new() }
    }

    /// Takes a request; `causes_ns` are its own.
    pub(super) fn add(&mut self, breakdown: &Breakdown, causes_ns: &[u64; CAUSES.len()]) {
        let place = self.place(breakdown.start);
        let stretch = self.stretches.entry(place).or_insert_with(Stretch::none);
        stretch.requests += 1;
        if breakdown.attribution == Attribution::Attributed {
            stretch.attributed.add_all(&Totals::of(breakdown, causes_ns));
        }
        self.fit(STRETCHES_MAX);
    }

    fn place(&self, time: HostNs) -> i64 {
        let since_ns = i128::from(time.0) - i128::from(self.start.0);
        i64::try_from(since_ns.div_euclid(i128::from(self.length_ns))).unwrap_or(i64::MAX)
    }

    /// Makes them so long that there are no more than so many.
    pub(super) fn fit(&mut self, stretches_max: usize) {
        // Those on either side of the beginning stay two.
        while self.stretches.len() > stretches_max.max(2) {
            self.length_ns = self.length_ns.saturating_mul(2);
            for (place, stretch) in std::mem::take(&mut self.stretches) {
                let of_two = self.stretches.entry(place.div_euclid(2));
                of_two.or_insert_with(Stretch::none).add_all(&stretch);
            }
        }
    }

    /// As the page has them.
    pub(super) fn columns(&self) -> Stretches {
        let attributed = || self.stretches.values().map(|stretch| &stretch.attributed);
        let column = |of: usize, length_ns: &dyn Fn(&Totals) -> u64| Column {
            of,
            ns: attributed().map(length_ns).collect(),
        };
        let taken = |columns: Vec<Column>| -> Vec<Column> {
            columns.into_iter().filter(|column| column.ns.iter().any(|ns| *ns > 0)).collect()
        };
        let parts = Part::ALL.iter().map(|part| column(*part as usize, &|of| of.parts.get(*part)));
        let phases = (0..Phase::ALL.len()).map(|place| column(place, &|of| of.phases_ns[place]));
        let causes = (0..CAUSES.len()).map(|place| column(place, &|of| of.causes_ns[place]));
        Stretches {
            length_ns: self.length_ns,
            places: self.stretches.keys().copied().collect(),
            requests: self.stretches.values().map(|stretch| stretch.requests).collect(),
            attributed: attributed().map(|of| of.count).collect(),
            parts_ns: taken(parts.collect()),
            phases_ns: taken(phases.collect()),
            causes_ns: taken(causes.collect()),
        }
    }
}

impl Stretch {
    fn none() -> Stretch {
        Stretch { requests: 0, attributed: Totals::none() }
    }

    fn add_all(&mut self, other: &Stretch) {
        self.requests += other.requests;
        self.attributed.add_all(&other.attributed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::bands::causes_ns;
    use super::super::tests::{breakdown, observed_by};
    use super::*;
    use proptest::prelude::*;
    use vslice_core::join::GuestRequest;

    /// The window begins here; some requests began before.
    const START: HostNs = HostNs(1 << 40);

    proptest! {
        /// Against the definition, with every request kept.
        #[test]
        fn a_stretch_has_the_requests_that_began_in_it(
            requests in prop::collection::vec(
                (0..41_u32, 0..u64::MAX, prop::collection::vec(0..9_u64, Part::ALL.len()), prop::bool::weighted(0.8)),
                1..300,
            ),
            stretches_max in 2..40_usize,
        ) {
            let made: Vec<Breakdown> = requests.iter().map(|(bits, random, parts_ns, is_attributed)| {
                let attribution =
                    if *is_attributed { Attribution::Attributed } else { Attribution::Lost };
                let start = START.0 - (1 << 20) + random % (1 << bits);
                breakdown(start, parts_ns, attribution, GuestRequest::Observed(observed_by(0)))
            }).collect();
            let mut over_time = OverTime::new(START);
            for of in &made {
                over_time.add(of, &causes_ns(of));
                over_time.fit(stretches_max);
                prop_assert!(over_time.stretches.len() <= stretches_max);
            }
            let told = over_time.columns();
            prop_assert!((told.length_ns / FIRST_NS).is_power_of_two());
            prop_assert_eq!(told.requests.iter().sum::<u64>(), made.len() as u64);
            for (at, place) in told.places.iter().enumerate() {
                let from = i128::from(START.0) + i128::from(*place) * i128::from(told.length_ns);
                let within = from..from + i128::from(told.length_ns);
                let began = made.iter().filter(|of| within.contains(&i128::from(of.start.0)));
                let attributed: Vec<&Breakdown> =
                    began.clone().filter(|of| of.attribution == Attribution::Attributed).collect();
                prop_assert_eq!(told.requests[at], began.count() as u64);
                prop_assert_eq!(told.attributed[at], attributed.len() as u64);
                for part in Part::ALL {
                    let sum_ns: u64 = attributed.iter().map(|of| of.parts.get(part)).sum();
                    let column = told.parts_ns.iter().find(|column| column.of == part as usize);
                    prop_assert_eq!(column.map_or(0, |column| column.ns[at]), sum_ns);
                }
                let latency_ns: u64 = attributed.iter().map(|of| of.latency_ns()).sum();
                for columns in [&told.phases_ns, &told.causes_ns] {
                    prop_assert_eq!(columns.iter().map(|of| of.ns[at]).sum::<u64>(), latency_ns);
                }
            }
        }
    }

    #[test]
    fn however_long_a_run_is_no_more_is_kept_of_it() {
        let mut over_time = OverTime::new(START);
        for turn in 0..40_000_u64 {
            // A request each second, half a day of them.
            let start = START.0 + turn * 1_000_000_000;
            let request = GuestRequest::Observed(observed_by(turn));
            let of = breakdown(start, &[7], Attribution::Attributed, request);
            over_time.add(&of, &causes_ns(&of));
            assert!(over_time.stretches.len() <= STRETCHES_MAX);
        }
        assert!(over_time.stretches.len() > STRETCHES_MAX / 4, "nor much less");
        assert_eq!(over_time.columns().parts_ns[0].ns.iter().sum::<u64>(), 280_000);
    }
}
