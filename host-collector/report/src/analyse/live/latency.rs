//! Latencies of a second.

use super::second::LatencySecond;
use hdrhistogram::Histogram;

/// The bounds of the buckets that metrics have, in nanoseconds.
pub const LATENCY_BOUNDS_NS: [u64; 12] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];

/// Longer ones are not told apart: more than a quarter of an hour.
const MAX_NS: u64 = 1 << 40;

/// Adds up latencies, in a memory that does not depend on how many there are.
#[derive(Debug, Clone)]
pub struct LatencyTally {
    histogram: Histogram<u64>,
    total_ns: u64,
    within: [u64; LATENCY_BOUNDS_NS.len()],
}

impl Default for LatencyTally {
    fn default() -> LatencyTally {
        let histogram = Histogram::new_with_bounds(1, MAX_NS, 2)
            .expect("1 is a valid lower bound, 2 a valid number of digits");
        LatencyTally { histogram, total_ns: 0, within: [0; LATENCY_BOUNDS_NS.len()] }
    }
}

impl LatencyTally {
    /// Adds one.
    pub fn add(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
        self.total_ns = self.total_ns.saturating_add(ns);
        for (within, bound_ns) in self.within.iter_mut().zip(LATENCY_BOUNDS_NS) {
            *within += u64::from(ns <= bound_ns);
        }
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &LatencyTally) {
        // Both have the same bounds.
        let _ = self.histogram.add(&other.histogram);
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        for (within, other) in self.within.iter_mut().zip(other.within) {
            *within += other;
        }
    }

    /// What they come to.
    #[must_use]
    pub fn second(&self) -> LatencySecond {
        let some = !self.histogram.is_empty();
        let quantile = |q| some.then(|| self.histogram.value_at_quantile(q));
        LatencySecond {
            count: self.histogram.len(),
            total_ns: self.total_ns,
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
            max_ns: some.then(|| self.histogram.max()),
            within: self.within,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_is_no_longer_than_their_bound() {
        let mut tally = LatencyTally::default();
        assert_eq!(tally.second().p50_ns, None, "there are none");
        for ns in [0, 100_000, 100_001, 2_000_000_000] {
            tally.add(ns);
        }
        let mut twice = tally.clone();
        twice.merge(&tally);
        let second = tally.second();
        assert_eq!((second.count, second.total_ns), (4, 2_000_200_001));
        assert_eq!((second.within[0], second.within[1], second.within[11]), (2, 3, 3));
        assert_eq!((twice.second().count, twice.second().within[1]), (8, 6));
    }
}
