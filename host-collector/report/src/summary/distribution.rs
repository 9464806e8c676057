//! A distribution of lengths in bounded memory: an HDR histogram, and exactly what can be had so.

use super::model::LatencyNs;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// How exact a distribution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Three digits: a percentile is at most 0.1 % above the true one.
    Fine,
    /// Two digits: at most 1 %, in a tenth of the buckets.
    Coarse,
}

/// The longest length that is told from longer ones, in nanoseconds (146 years): what an
/// auto-resizing histogram takes at most. It bounds the memory too, at about 430 KiB.
const LENGTH_MAX_NS: u64 = 1 << 62;

/// Lengths in nanoseconds.
#[derive(Debug, Clone)]
pub struct Distribution {
    histogram: Histogram<u64>,
    min_ns: u64,
    max_ns: u64,
    sum_ns: u128,
}

impl Distribution {
    /// None yet.
    ///
    /// # Panics
    /// Never: an HDR histogram takes so many digits.
    #[must_use]
    pub fn new(precision: Precision) -> Self {
        let digits = match precision {
            Precision::Fine => 3,
            Precision::Coarse => 2,
        };
        let histogram = Histogram::new(digits).expect("they are in the range [0, 5]");
        Distribution { histogram, min_ns: u64::MAX, max_ns: 0, sum_ns: 0 }
    }

    /// Takes one more.
    ///
    /// # Panics
    /// Never: the histogram takes every length that is recorded in it.
    pub fn record(&mut self, length_ns: u64) {
        self.histogram
            .record(length_ns.min(LENGTH_MAX_NS))
            .expect("an auto-resizing histogram takes every value up to LENGTH_MAX_NS");
        self.min_ns = self.min_ns.min(length_ns);
        self.max_ns = self.max_ns.max(length_ns);
        self.sum_ns += u128::from(length_ns);
    }

    /// How many were taken.
    #[must_use]
    pub fn count(&self) -> u64 {
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

    /// The quantile, in millionths, over this distribution and so many more lengths, all of which are shorter than
    /// those in it; `None` if it is one of the shorter ones.
    pub(super) fn quantile_above_ns(&self, millionths: u32, shorter_count: u64) -> Option<u64> {
        let (own_rank, own) = (self.own_rank(millionths, shorter_count)?, self.count());
        // Halfway down to the rank before, so that no rounding of a float moves it.
        self.quantile_ns((own_rank as f64 - 0.5) / own as f64)
    }

    /// How many lengths each bucket has, by its lower edge.
    pub(super) fn counts(&self) -> BTreeMap<u64, u64> {
        let buckets = self.histogram.iter_recorded();
        buckets.map(|of| (self.bucket_ns(of.value_iterated_to()), of.count_at_value())).collect()
    }

    /// The same quantile once some of these lengths have become shorter, `counts` of them are in each bucket, and none
    /// is shorter than `shortest_ns`. The shorter ones stay; where it may be one of them it is `None`.
    pub(super) fn moved_quantile_above_ns(
        &self,
        counts: &BTreeMap<u64, u64>,
        shortest_ns: u64,
        millionths: u32,
        shorter_count: u64,
    ) -> Option<u64> {
        let mut left = self.own_rank(millionths, shorter_count)?;
        let holds = |(_, count): &(&u64, &u64)| {
            let rank = left;
            left = left.saturating_sub(u128::from(**count));
            rank <= u128::from(**count)
        };
        let (bucket_ns, _) = counts.iter().find(holds)?;
        // All that were only counted were shorter than the shortest of these as it was.
        if shorter_count > 0 && *bucket_ns < self.bucket_ns(self.min_ns()?) {
            return None;
        }
        let edge_ns = self.histogram.highest_equivalent(*bucket_ns);
        Some(edge_ns.max(shortest_ns).min(self.max_ns))
    }

    /// Which of these is the quantile, counted from the shortest on, over these and so many shorter ones.
    fn own_rank(&self, millionths: u32, shorter_count: u64) -> Option<u128> {
        let (shorter, own) = (u128::from(shorter_count), u128::from(self.count()));
        let rank = ((shorter + own) * u128::from(millionths)).div_ceil(1_000_000);
        rank.checked_sub(shorter).filter(|rank| *rank > 0)
    }

    /// The sum of the longest ones, so many of them, as exact as the buckets are.
    pub(super) fn longest_ns(&self, count: u64) -> u64 {
        let buckets = self.histogram.iter_recorded();
        let buckets: Vec<(u64, u64)> = buckets
            .map(|of| (of.value_iterated_to().min(self.max_ns), of.count_at_value()))
            .collect();
        let mut left = count;
        let of_bucket = |(length_ns, in_it): (u64, u64)| {
            let taken = in_it.min(left);
            left -= taken;
            length_ns.saturating_mul(taken)
        };
        buckets.into_iter().rev().map(of_bucket).fold(0, u64::saturating_add)
    }

    /// The figures that a summary has of them and of so many lengths more, all of which are shorter; what that leaves
    /// unknown is `None`.
    #[must_use]
    pub fn latency_ns(&self, shorter_count: u64) -> LatencyNs {
        let quantile_ns = |millionths| self.quantile_above_ns(millionths, shorter_count);
        let of_all = |known: Option<u64>| known.filter(|_| shorter_count == 0);
        LatencyNs {
            min: of_all(self.min_ns()),
            mean: of_all(self.mean_ns()),
            p50: quantile_ns(500_000),
            p90: quantile_ns(900_000),
            p99: quantile_ns(990_000),
            p999: quantile_ns(999_000),
            p9999: quantile_ns(999_900),
            max: self.max_ns(),
        }
    }

    /// The lower edge of the bucket that holds `length_ns`.
    #[must_use]
    pub fn bucket_ns(&self, length_ns: u64) -> u64 {
        self.histogram.lowest_equivalent(length_ns.min(LENGTH_MAX_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_distribution_has_no_figures() {
        let empty = Distribution::new(Precision::Fine);
        let figures = [empty.min_ns(), empty.max_ns(), empty.mean_ns(), empty.quantile_ns(0.99)];
        assert_eq!((empty.count(), figures), (0, [None; 4]));
    }

    #[test]
    fn the_figures_of_one_to_a_thousand() {
        let mut distribution = Distribution::new(Precision::Fine);
        (1..=1000).for_each(|length_ns| distribution.record(length_ns));
        assert_eq!(distribution.quantile_ns(0.5), Some(500));
        assert_eq!(distribution.quantile_ns(0.99), Some(990));
        assert_eq!(distribution.quantile_ns(0.999), Some(999));
        assert_eq!((distribution.min_ns(), distribution.max_ns()), (Some(1), Some(1000)));
        assert_eq!(distribution.mean_ns(), Some(501), "500.5 rounds up");
    }

    #[test]
    fn the_longest_lengths_there_are_do_no_harm() {
        let mut distribution = Distribution::new(Precision::Fine);
        distribution.record(u64::MAX);
        distribution.record(u64::MAX);
        assert_eq!(distribution.mean_ns(), Some(u64::MAX));
        assert_eq!(distribution.max_ns(), Some(u64::MAX));
        assert!(distribution.bucket_ns(u64::MAX) <= LENGTH_MAX_NS);
        assert_eq!(distribution.quantile_ns(0.5), Some(u64::MAX), "not below the shortest");
    }

    #[test]
    fn the_longest_are_summed_from_the_top() {
        let mut distribution = Distribution::new(Precision::Fine);
        [5, 900, 7, 900, 6].into_iter().for_each(|length_ns| distribution.record(length_ns));
        let sums = [0, 1, 2, 3, 5, 6].map(|count| distribution.longest_ns(count));
        assert_eq!(sums, [0, 900, 1800, 1807, 1818, 1818]);
    }

    #[test]
    fn shorter_lengths_that_are_only_counted_move_the_quantiles() {
        let mut distribution = Distribution::new(Precision::Fine);
        (901..=1000).for_each(|length_ns| distribution.record(length_ns));
        for (millionths, expected) in [
            (500_000, None),
            (900_000, None),
            (901_000, Some(901)),
            (990_000, Some(990)),
            (999_000, Some(999)),
        ] {
            let told = distribution.quantile_above_ns(millionths, 900);
            assert_eq!(told, expected, "{millionths}");
        }
        assert_eq!(distribution.quantile_above_ns(1_000_000, u64::MAX), Some(1000));
        assert_eq!(Distribution::new(Precision::Fine).quantile_above_ns(999_000, 5), None);
    }

    proptest! {
        /// Against the definition, with every length recorded.
        #[test]
        fn a_quantile_above_shorter_ones_is_that_of_all(
            shorter in prop::collection::vec(0..999_u64, 0..200),
            own in prop::collection::vec(1_000..2_000_u64, 1..200),
            millionths in prop::sample::select(vec![500_000_u32, 900_000, 990_000, 999_000, 999_900])
        ) {
            let mut distribution = Distribution::new(Precision::Fine);
            own.iter().for_each(|length_ns| distribution.record(*length_ns));
            let mut all = [shorter.clone(), own].concat();
            all.sort_unstable();
            let rank = (all.len() * millionths as usize).div_ceil(1_000_000);
            let expected = Some(all[rank.max(1) - 1]).filter(|length_ns| *length_ns >= 1_000);
            let told = distribution.quantile_above_ns(millionths, shorter.len() as u64);
            prop_assert_eq!(told, expected);
        }

        #[test]
        fn a_quantile_separates_buckets(
            lengths in prop::collection::vec(0..50_000_000_u64, 1..200), quantile in 0.01..1.0_f64
        ) {
            let mut distribution = Distribution::new(Precision::Fine);
            lengths.iter().for_each(|length_ns| distribution.record(*length_ns));
            let quantile_ns = distribution.quantile_ns(quantile).unwrap();
            for length_ns in lengths {
                let is_longer = length_ns > quantile_ns;
                prop_assert_eq!(distribution.bucket_ns(length_ns) > quantile_ns, is_longer);
            }
        }
    }
}
