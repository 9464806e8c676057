//! Requests in the order in which they were submitted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use vslice_wire::Request;

/// How many requests wait for an earlier one at most, by default: 48 MiB of them.
pub const HELD_REQUESTS_MAX: usize = 1 << 20;

/// Turns one guest's requests from the order of completion, in which a run has them, into the
/// order of submission, in which a [`Join`](super::Join) takes them.
///
/// With several requests in flight one that is slow is overtaken by all that come and go meanwhile:
/// not only by as many as are in flight, but by as many as complete within its latency. `index`
/// counts without a gap in order of submission, so a request is held back just until all with a
/// smaller index are out; with one request in flight nothing is ever held.
///
/// An index that never comes, because its request was dropped, would hold back all that follow.
/// So no more than a limit are held; beyond it the smallest index goes out, and whatever is
/// missing below it is given up. A request that comes after it was given up goes out at once, out
/// of order, and the join will find that the spans of its beginning have passed.
///
/// All of a guest's requests must come through here, before they are split by vCPU: a split leaves
/// gaps.
#[derive(Debug)]
pub struct SubmissionOrder<Source> {
    source: Source,
    held: BinaryHeap<Reverse<ByIndex>>,
    held_max: usize,
    /// The index that goes out next if it comes.
    next_index: u64,
}

impl<Source: Iterator<Item = Request>> SubmissionOrder<Source> {
    /// Orders `source`, holding back at most [`HELD_REQUESTS_MAX`].
    pub fn new(source: Source) -> Self {
        Self::holding(source, HELD_REQUESTS_MAX)
    }

    /// Orders `source`, holding back at most `held_max` requests.
    pub fn holding(source: Source, held_max: usize) -> Self {
        SubmissionOrder { source, held: BinaryHeap::new(), held_max, next_index: 0 }
    }
}

impl<Source: Iterator<Item = Request>> Iterator for SubmissionOrder<Source> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        loop {
            let is_due =
                self.held.peek().is_some_and(|Reverse(first)| first.0.index <= self.next_index);
            if !is_due
                && self.held.len() <= self.held_max
                && let Some(request) = self.source.next()
            {
                if request.index == self.next_index {
                    self.next_index = self.next_index.saturating_add(1);
                    return Some(request);
                }
                self.held.push(Reverse(ByIndex(request)));
                continue;
            }
            let Reverse(ByIndex(request)) = self.held.pop()?;
            self.next_index = self.next_index.max(request.index.saturating_add(1));
            return Some(request);
        }
    }
}

/// A request that compares by its index.
#[derive(Debug)]
struct ByIndex(Request);

impl PartialEq for ByIndex {
    fn eq(&self, other: &Self) -> bool {
        self.0.index == other.0.index
    }
}

impl Eq for ByIndex {}

impl PartialOrd for ByIndex {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByIndex {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.index.cmp(&other.0.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vslice_wire::GuestTicks;

    fn request(index: u64) -> Request {
        let (submitted, completed) = (GuestTicks(index), GuestTicks(index));
        Request { index, submitted, completed, vcpu_submitted: 0, vcpu_completed: 0, result: 0 }
    }

    fn ordered(indices: &[u64], held_max: usize) -> Vec<u64> {
        SubmissionOrder::holding(indices.iter().map(|index| request(*index)), held_max)
            .map(|request| request.index)
            .collect()
    }

    #[test]
    fn a_slow_request_is_waited_for_up_to_the_limit() {
        assert_eq!(ordered(&[1, 2, 3, 0, 4], 3), [0, 1, 2, 3, 4]);
        // Beyond the limit it is given up, and comes out late.
        assert_eq!(ordered(&[1, 2, 3, 0, 4], 2), [1, 2, 3, 0, 4]);
    }

    #[test]
    fn a_dropped_request_delays_but_loses_nothing() {
        assert_eq!(ordered(&[0, 1, 5, 6, 4, 7, 9, 8], 2), [0, 1, 4, 5, 6, 7, 8, 9]);
        assert_eq!(ordered(&[3, u64::MAX, u64::MAX], 10), [3, u64::MAX, u64::MAX]);
    }

    #[test]
    fn a_source_in_order_is_not_read_ahead() {
        let read = std::cell::Cell::new(0);
        let source = (0..10).map(request).inspect(|_| read.set(read.get() + 1));
        let mut order = SubmissionOrder::new(source);
        assert_eq!(order.next().map(|request| request.index), Some(0));
        assert_eq!(read.get(), 1);
    }

    proptest! {
        #[test]
        fn a_limit_that_is_never_reached_sorts(
            indices in Just((0..60_u64).collect::<Vec<u64>>()).prop_shuffle(),
            gap in 0..60_u64,
        ) {
            let indices: Vec<u64> = indices.into_iter().filter(|index| *index != gap).collect();
            let out = ordered(&indices, 100);
            let mut sorted = indices;
            sorted.sort_unstable();
            prop_assert_eq!(out, sorted);
        }

        #[test]
        fn nothing_is_lost_or_invented(
            indices in prop::collection::vec(0..40_u64, 0..60), held_max in 0..8_usize,
        ) {
            let mut out = ordered(&indices, held_max);
            let mut all = indices;
            out.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(out, all);
        }
    }
}
