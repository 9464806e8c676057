//! Where the time of requests went, by how slow they were.
//!
//! Percentiles are known only at the end, and requests are not kept: they are added up by the buckets of the
//! distribution that gives the percentiles. A percentile is the upper edge of a bucket, so a band between two of them is
//! a union of whole buckets, and its sums are exact. So it is in the summary, which has the same edges: see
//! `summary/model.rs` of `vslice-report`.

use super::cause::{CAUSES, cause};
use super::model::Band;
use std::collections::BTreeMap;
use std::ops::Bound;
use vslice_core::join::{Attribution, Breakdown, Part, PartsNs, Phase};
use vslice_report::summary::distribution::{Distribution, Precision};
use vslice_report::summary::model::LatencyNs;

/// The latencies of some requests.
#[derive(Debug)]
pub(super) struct Bands {
    distribution: Distribution,
    /// The attributed ones, by the lower edges of the buckets.
    buckets: BTreeMap<u64, Totals>,
}

/// What some attributed requests come to.
#[derive(Debug, Clone)]
pub(super) struct Totals {
    pub(super) count: u64,
    fastest_ns: u64,
    slowest_ns: u64,
    latency_ns: u64,
    pub(super) parts: PartsNs,
    pub(super) phases_ns: [u64; Phase::ALL.len()],
    pub(super) causes_ns: [u64; CAUSES.len()],
    inactivity_ns: u64,
}

impl Bands {
    pub(super) fn new(precision: Precision) -> Bands {
        Bands { distribution: Distribution::new(precision), buckets: BTreeMap::new() }
    }

    /// Takes a request; `causes_ns` are its own.
    pub(super) fn add(&mut self, breakdown: &Breakdown, causes_ns: &[u64; CAUSES.len()]) {
        let latency_ns = breakdown.latency_ns();
        self.distribution.record(latency_ns);
        if breakdown.attribution == Attribution::Attributed {
            let bucket = self.distribution.bucket_ns(latency_ns);
            self.buckets
                .entry(bucket)
                .or_insert_with(Totals::none)
                .add_all(&Totals::of(breakdown, causes_ns));
        }
    }

    /// How many there are, attributed or not.
    pub(super) fn count(&self) -> u64 {
        self.distribution.count()
    }

    pub(super) fn attributed(&self) -> u64 {
        self.buckets.values().map(|bucket| bucket.count).sum()
    }

    /// Their latencies and those of so many more, all of which were faster.
    pub(super) fn latency_ns(&self, faster_count: u64) -> LatencyNs {
        self.distribution.latency_ns(faster_count)
    }

    /// The attributed ones between the percentiles, the fastest first. Of so many that were faster nothing is known but
    /// that.
    pub(super) fn bands(&self, faster_count: u64) -> Vec<Band> {
        let latency_ns = self.latency_ns(faster_count);
        let LatencyNs { p50, p90, p99, p999, p9999, .. } = latency_ns;
        let edges = [(50.0, p50), (90.0, p90), (99.0, p99), (99.9, p999), (99.99, p9999)];
        let known = edges.into_iter().filter_map(|(percentile, edge)| Some((percentile, edge?)));
        let (mut from, mut above) =
            (first_percentile(faster_count, self.count()), Bound::Unbounded);
        let mut bands = Vec::new();
        for (to, edge_ns) in known {
            bands.extend(self.band([from, to], (above, Bound::Included(edge_ns))));
            (from, above) = (to, Bound::Excluded(edge_ns));
        }
        bands.extend(self.band([from, 100.0], (above, Bound::Unbounded)));
        bands
    }

    fn band(&self, [from, to]: [f64; 2], buckets: (Bound<u64>, Bound<u64>)) -> Option<Band> {
        // Where many are alike, several percentiles are one.
        if let (Bound::Excluded(above), Bound::Included(edge)) = buckets
            && above >= edge
        {
            return None;
        }
        let mut all = Totals::none();
        self.buckets.range(buckets).for_each(|(_, totals)| all.add_all(totals));
        (all.count > 0).then(|| Band {
            from,
            to,
            count: all.count,
            latency_from_ns: all.fastest_ns,
            latency_to_ns: all.slowest_ns,
            latency_ns: all.latency_ns,
            parts_ns: Part::ALL.map(|part| all.parts.get(part)),
            phases_ns: all.phases_ns,
            causes_ns: all.causes_ns,
            inactivity_ns: all.inactivity_ns,
        })
    }
}

/// The percentile at which those begin that are not among the faster ones, to four digits.
fn first_percentile(faster_count: u64, own_count: u64) -> f64 {
    let all = u128::from(faster_count) + u128::from(own_count);
    let millionths = (u128::from(faster_count) * 1_000_000).checked_div(all).unwrap_or(0);
    millionths as f64 / 10_000.0
}

impl Totals {
    pub(super) fn none() -> Totals {
        Totals {
            count: 0,
            fastest_ns: u64::MAX,
            slowest_ns: 0,
            latency_ns: 0,
            parts: PartsNs::default(),
            phases_ns: [0; Phase::ALL.len()],
            causes_ns: [0; CAUSES.len()],
            inactivity_ns: 0,
        }
    }

    pub(super) fn of(breakdown: &Breakdown, causes_ns: &[u64; CAUSES.len()]) -> Totals {
        let latency_ns = breakdown.latency_ns();
        Totals {
            count: 1,
            fastest_ns: latency_ns,
            slowest_ns: latency_ns,
            latency_ns,
            parts: breakdown.parts,
            phases_ns: Phase::ALL.map(|phase| breakdown.phases.of(phase).total_ns()),
            causes_ns: *causes_ns,
            inactivity_ns: breakdown.phases.inactivity_ns(),
        }
    }

    pub(super) fn add_all(&mut self, other: &Totals) {
        self.count += other.count;
        self.fastest_ns = self.fastest_ns.min(other.fastest_ns);
        self.slowest_ns = self.slowest_ns.max(other.slowest_ns);
        self.latency_ns = self.latency_ns.saturating_add(other.latency_ns);
        self.parts.add_all(&other.parts);
        add_each(&mut self.phases_ns, &other.phases_ns);
        add_each(&mut self.causes_ns, &other.causes_ns);
        self.inactivity_ns = self.inactivity_ns.saturating_add(other.inactivity_ns);
    }
}

fn add_each(sums_ns: &mut [u64], lengths_ns: &[u64]) {
    for (sum_ns, length_ns) in sums_ns.iter_mut().zip(lengths_ns) {
        *sum_ns = sum_ns.saturating_add(*length_ns);
    }
}

/// A request's latency by cause.
pub(super) fn causes_ns(breakdown: &Breakdown) -> [u64; CAUSES.len()] {
    let mut causes_ns = [0; CAUSES.len()];
    for phase in Phase::ALL {
        let parts = Part::ALL.map(|part| (part, breakdown.phases.of(phase).get(part)));
        for (part, length_ns) in parts.into_iter().filter(|(_, length_ns)| *length_ns > 0) {
            let sum_ns: &mut u64 = &mut causes_ns[cause(breakdown, phase, part)];
            *sum_ns = sum_ns.saturating_add(length_ns);
        }
    }
    causes_ns
}
