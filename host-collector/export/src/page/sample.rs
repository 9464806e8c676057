//! Some of many requests: the slowest ones, all of them, and a fair sample of the others.
//!
//! Each request draws a number, and of the others those with the lowest numbers are kept: so any of them is as likely as
//! any other to be there, and a smaller sample of the sample is one of all. The numbers come from a fixed seed, as equal
//! run directories give equal pages.

use super::model::SampleColumns;
use std::collections::BTreeMap;
use vslice_core::units::HostNs;

/// One of this many is there because it is among the slowest.
const SLOWEST_ONE_OF: usize = 10;

/// A request in a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) start: HostNs,
    pub(super) latency_ns: u64,
    /// The numbers of the part and of the cause that took most of it.
    pub(super) dominant: usize,
    pub(super) cause: usize,
}

/// A sample of requests that come one by one.
#[derive(Debug)]
pub(super) struct Sample {
    points_max: usize,
    seen: u64,
    /// By latency, and by place among all.
    slowest: BTreeMap<(u64, u64), Point>,
    /// By the number that they drew, and by place among all.
    others: BTreeMap<(u64, u64), Point>,
}

impl Sample {
    pub(super) fn new(points_max: usize) -> Sample {
        Sample { points_max, seen: 0, slowest: BTreeMap::new(), others: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, point: Point) {
        let place = self.seen;
        self.seen += 1;
        let is_full = self.slowest.len() >= self.slowest_max();
        let is_slow = |first: &(u64, u64)| (point.latency_ns, place) > *first;
        let has_room = self.slowest.first_key_value().is_none_or(|(first, _)| is_slow(first));
        if !is_full || has_room {
            self.slowest.insert((point.latency_ns, place), point);
        } else {
            self.add_to_others(point, place);
        }
        self.fit();
    }

    fn add_to_others(&mut self, point: Point, place: u64) {
        let key = (drawn(place), place);
        let has_room = self.others.len() < self.points_max - self.slowest_max();
        if has_room || self.others.last_key_value().is_some_and(|(last, _)| key < *last) {
            self.others.insert(key, point);
        }
    }

    fn slowest_max(&self) -> usize {
        self.points_max.div_ceil(SLOWEST_ONE_OF)
    }

    /// How many points there are.
    pub(super) fn len(&self) -> usize {
        self.slowest.len() + self.others.len()
    }

    /// Keeps no more than so many.
    pub(super) fn shrink(&mut self, points_max: usize) {
        self.points_max = self.points_max.min(points_max);
        self.fit();
    }

    fn fit(&mut self) {
        while self.slowest.len() > self.slowest_max() {
            let Some(((_, place), point)) = self.slowest.pop_first() else { break };
            self.add_to_others(point, place);
        }
        while self.others.len() > self.points_max - self.slowest_max() {
            self.others.pop_last();
        }
    }

    /// Its points in order of their starts, since `start`.
    pub(super) fn columns(&self, start: HostNs) -> SampleColumns {
        let is_all = self.seen == self.len() as u64;
        let mut points: Vec<(Point, u64)> = [&self.slowest, &self.others]
            .into_iter()
            .flatten()
            .map(|((_, place), point)| (*point, *place))
            .collect();
        points.sort_unstable_by_key(|(point, place)| (point.start, *place));
        let points = || points.iter().map(|(point, _)| point);
        SampleColumns {
            of: self.seen,
            slowest: if is_all { self.seen } else { self.slowest.len() as u64 },
            start_us: points().map(|point| since_us(point.start, start)).collect(),
            latency_us: points()
                .map(|point| point.latency_ns.saturating_add(500) / 1_000)
                .collect(),
            dominant: points().map(|point| point.dominant).collect(),
            cause: points().map(|point| point.cause).collect(),
        }
    }
}

/// Microseconds since `start`, less than 0 before it.
pub(super) fn since_us(time: HostNs, start: HostNs) -> i64 {
    let us = (i128::from(time.0) - i128::from(start.0)).div_euclid(1_000);
    i64::try_from(us).unwrap_or(i64::MAX)
}

/// What the request at this place draws: `splitmix64` (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
fn drawn(place: u64) -> u64 {
    let mut bits = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// How many points each of these many samples may have, if all together may have `points_max`: those that are small stay
/// whole, the others have as many as each other.
pub(super) fn shares(lengths: &[usize], points_max: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|place| lengths[*place]);
    let (mut left, mut shares) = (points_max, vec![0; lengths.len()]);
    for (done, place) in order.iter().enumerate() {
        shares[*place] = lengths[*place].min(left / (lengths.len() - done));
        left -= shares[*place];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(latency_ns: u64) -> Point {
        Point { start: HostNs(latency_ns % 977), latency_ns, dominant: 0, cause: 0 }
    }

    fn latencies(sample: &Sample) -> Vec<u64> {
        let mut all: Vec<u64> = [&sample.slowest, &sample.others]
            .into_iter()
            .flatten()
            .map(|(_, point)| point.latency_ns)
            .collect();
        all.sort_unstable();
        all
    }

    proptest! {
        /// However it is cut down, the slowest are there, and so many as there may be.
        #[test]
        fn the_slowest_are_all_there(
            requests in prop::collection::vec(0..10_000_u64, 0..500), most in 1..200_usize, cut in 1..200_usize
        ) {
            let mut sample = Sample::new(most);
            requests.iter().for_each(|latency_ns| sample.add(point(*latency_ns)));
            sample.shrink(cut);
            let most = most.min(cut);
            prop_assert_eq!(sample.len(), requests.len().min(most));
            let mut slowest = requests.clone();
            slowest.sort_unstable();
            let columns = sample.columns(HostNs(0));
            prop_assert_eq!(columns.of, requests.len() as u64);
            let count = usize::try_from(columns.slowest).unwrap();
            prop_assert!(count >= requests.len().min(most.div_ceil(10)));
            let from = slowest.len() - count;
            let there = latencies(&sample);
            prop_assert_eq!(&there[there.len() - count..], &slowest[from..]);
            prop_assert!(columns.start_us.is_sorted());
        }

        /// What is cut down later is what would have been kept at once.
        #[test]
        fn a_sample_of_the_sample_is_one_of_all(
            requests in prop::collection::vec(0..10_000_u64, 0..500), most in 20..200_usize
        ) {
            let (mut at_once, mut later) = (Sample::new(most / 2), Sample::new(most));
            for latency_ns in requests {
                at_once.add(point(latency_ns));
                later.add(point(latency_ns));
            }
            later.shrink(most / 2);
            prop_assert_eq!(latencies(&at_once), latencies(&later));
        }

        #[test]
        fn small_samples_stay_whole(lengths in prop::collection::vec(0..500_usize, 1..40), most in 0..2_000_usize) {
            let shares = shares(&lengths, most);
            let total: usize = shares.iter().sum();
            prop_assert!(total <= most.min(lengths.iter().sum()));
            let least = most / lengths.len();
            for (share, length) in shares.iter().zip(&lengths) {
                prop_assert!(share <= length && *share >= least.min(*length));
            }
            if lengths.iter().sum::<usize>() <= most {
                prop_assert_eq!(shares, lengths);
            }
        }
    }

    /// The mean of what is kept of the numbers up to a million is theirs.
    #[test]
    fn the_others_are_a_fair_sample() {
        let mut sample = Sample::new(10_000);
        // The slowest come last, so that most of the others have been among the slowest for a while.
        (0..200_000).for_each(|latency_ns| sample.add(point(latency_ns)));
        let others: Vec<u64> = sample.others.values().map(|point| point.latency_ns).collect();
        assert_eq!(others.len(), 9_000);
        for tenth in 0..10 {
            let range = tenth * 19_900..(tenth + 1) * 19_900;
            let count = others.iter().filter(|latency_ns| range.contains(*latency_ns)).count();
            // Of 9,000 drawn a tenth is 900, with a deviation of 28.
            assert!(count.abs_diff(900) < 5 * 28, "{count} in the {tenth}th tenth");
        }
    }
}
