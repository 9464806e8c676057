//! A distribution of lengths in bounded memory: an HDR histogram, and exactly what can be had so.

use hdrhistogram::Histogram;

/// Digits that the histogram keeps: a percentile is at most 0.1 % above the true one.
const SIGNIFICANT_DIGITS: u8 = 3;

/// The longest length that is told from longer ones, in nanoseconds (146 years): what an
/// auto-resizing histogram takes at most. It bounds the memory too, at about 430 KiB.
const LENGTH_MAX_NS: u64 = 1 << 62;

/// Lengths in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    histogram: Histogram<u64>,
    min_ns: u64,
    max_ns: u64,
    sum_ns: u128,
}

impl Distribution {
    pub(super) fn new() -> Self {
        let histogram =
            Histogram::new(SIGNIFICANT_DIGITS).expect("3 digits are in the range [0, 5]");
        Distribution { histogram, min_ns: u64::MAX, max_ns: 0, sum_ns: 0 }
    }

    pub(super) fn record(&mut self, length_ns: u64) {
        self.histogram
            .record(length_ns.min(LENGTH_MAX_NS))
            .expect("an auto-resizing histogram takes every value up to LENGTH_MAX_NS");
        self.min_ns = self.min_ns.min(length_ns);
        self.max_ns = self.max_ns.max(length_ns);
        self.sum_ns += u128::from(length_ns);
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The shortest, exactly.
    pub(super) fn min_ns(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.min_ns)
    }

    /// The longest, exactly.
    pub(super) fn max_ns(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.max_ns)
    }

    /// The mean, rounded to a nanosecond.
    pub(super) fn mean_ns(&self) -> Option<u64> {
        let count = u128::from(self.count());
        let mean_ns = (self.sum_ns + count / 2).checked_div(count)?;
        Some(u64::try_from(mean_ns).expect("a mean is at most the largest u64"))
    }

    /// The quantile, in [0, 1]: the upper edge of the bucket that holds it, or the longest length
    /// if that is less, or the shortest if it is more, which takes lengths above [`LENGTH_MAX_NS`]. So what is longer than a quantile is exactly what lies in later buckets.
    pub(super) fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let edge_ns = self.histogram.value_at_quantile(quantile);
        Some(edge_ns.max(self.min_ns()?).min(self.max_ns))
    }

    /// The lower edge of the bucket that holds `length_ns`.
    pub(super) fn bucket_ns(&self, length_ns: u64) -> u64 {
        self.histogram.lowest_equivalent(length_ns.min(LENGTH_MAX_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_distribution_has_no_figures() {
        let empty = Distribution::new();
        let figures = [empty.min_ns(), empty.max_ns(), empty.mean_ns(), empty.quantile_ns(0.99)];
        assert_eq!((empty.count(), figures), (0, [None; 4]));
    }

    #[test]
    fn the_figures_of_one_to_a_thousand() {
        let mut distribution = Distribution::new();
        (1..=1000).for_each(|length_ns| distribution.record(length_ns));
        assert_eq!(distribution.quantile_ns(0.5), Some(500));
        assert_eq!(distribution.quantile_ns(0.99), Some(990));
        assert_eq!(distribution.quantile_ns(0.999), Some(999));
        assert_eq!((distribution.min_ns(), distribution.max_ns()), (Some(1), Some(1000)));
        assert_eq!(distribution.mean_ns(), Some(501), "500.5 rounds up");
    }

    #[test]
    fn the_longest_lengths_there_are_do_no_harm() {
        let mut distribution = Distribution::new();
        distribution.record(u64::MAX);
        distribution.record(u64::MAX);
        assert_eq!(distribution.mean_ns(), Some(u64::MAX));
        assert_eq!(distribution.max_ns(), Some(u64::MAX));
        assert!(distribution.bucket_ns(u64::MAX) <= LENGTH_MAX_NS);
        assert_eq!(distribution.quantile_ns(0.5), Some(u64::MAX), "not below the shortest");
    }

    proptest! {
        #[test]
        fn a_quantile_separates_buckets(
            lengths in prop::collection::vec(0..50_000_000_u64, 1..200), quantile in 0.01..1.0_f64
        ) {
            let mut distribution = Distribution::new();
            lengths.iter().for_each(|length_ns| distribution.record(*length_ns));
            let quantile_ns = distribution.quantile_ns(quantile).unwrap();
            for length_ns in lengths {
                let is_longer = length_ns > quantile_ns;
                prop_assert_eq!(distribution.bucket_ns(length_ns) > quantile_ns, is_longer);
            }
        }
    }
}
