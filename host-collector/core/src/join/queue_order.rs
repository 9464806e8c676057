//! Observed requests in the order in which they were queued.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use vslice_wire::{Dropped, GuestTicks, ObservedRequest};

/// How many observed requests wait for an earlier one at most, by default: 88 MiB of them.
pub const HELD_OBSERVED_MAX: usize = 1 << 20;

/// What a guest tells of the requests that it observed, as [`QueueOrder`] takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A request, as it completed.
    Request(ObservedRequest),
    /// Requests, or their parts, that were not recorded.
    Lost(Dropped),
    /// Every request that was queued before this has been told, or is lost.
    Settled(GuestTicks),
}

/// What comes out of [`QueueOrder`], or of whoever places that on the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordered<Request, Loss> {
    /// The next request.
    Request(Request),
    /// Requests were not recorded then. It comes before all requests that were queued after the guest told
    /// of it.
    Lost(Loss),
}

/// Turns what a guest tells of its observed requests, in order of completion, into the order in which they
/// were queued, in which an [`ObservedJoin`](super::ObservedJoin) takes them.
///
/// They have no number of their own, so a request is held back until the guest says that all that were queued
/// before it have been told. A guest that does not say so for long holds back no more than a limit; beyond it
/// the earliest goes out. One that comes after later ones went out goes out at once, out of order, and of a
/// guest whose times run backwards nothing is lost either.
#[derive(Debug)]
pub struct QueueOrder<Source> {
    source: Source,
    held: BinaryHeap<Reverse<ByQueueTime>>,
    held_max: usize,
    settled: GuestTicks,
    /// Requests so far, so that those queued at one time keep their order.
    count: u64,
}

impl<Source: Iterator<Item = Told>> QueueOrder<Source> {
    /// Orders `source`, holding back at most [`HELD_OBSERVED_MAX`].
    pub fn new(source: Source) -> Self {
        Self::holding(source, HELD_OBSERVED_MAX)
    }

    /// Orders `source`, holding back at most `held_max` requests.
    pub fn holding(source: Source, held_max: usize) -> Self {
        QueueOrder { source, held: BinaryHeap::new(), held_max, settled: GuestTicks(0), count: 0 }
    }
}

impl<Source: Iterator<Item = Told>> Iterator for QueueOrder<Source> {
    type Item = Ordered<ObservedRequest, Dropped>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let first = self.held.peek().map(|Reverse(first)| first.request.queued);
            let is_due = first.is_some_and(|queued| queued < self.settled);
            if is_due || self.held.len() > self.held_max {
                break;
            }
            match self.source.next() {
                Some(Told::Request(request)) => {
                    self.held.push(Reverse(ByQueueTime { request, number: self.count }));
                    self.count += 1;
                }
                Some(Told::Lost(lost)) => return Some(Ordered::Lost(lost)),
                Some(Told::Settled(settled)) => self.settled = self.settled.max(settled),
                None => break,
            }
        }
        self.held.pop().map(|Reverse(first)| Ordered::Request(first.request))
    }
}

/// A request that compares by when it was queued.
#[derive(Debug)]
struct ByQueueTime {
    request: ObservedRequest,
    number: u64,
}

impl ByQueueTime {
    fn key(&self) -> (GuestTicks, u64) {
        (self.request.queued, self.number)
    }
}

impl PartialEq for ByQueueTime {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByQueueTime {}

impl PartialOrd for ByQueueTime {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByQueueTime {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::super::observed_laws::observed;
    use super::*;
    use proptest::prelude::*;

    /// Requests by when they were queued, `-n` for "settled before n".
    fn told(items: &[i64]) -> Vec<Told> {
        let one = |item: &i64| match u64::try_from(*item) {
            Ok(queued) => Told::Request(observed([queued, queued, queued], [0; 3])),
            Err(_) => Told::Settled(GuestTicks(item.unsigned_abs())),
        };
        items.iter().map(one).collect()
    }

    fn ordered(items: &[i64], held_max: usize) -> Vec<u64> {
        let order = QueueOrder::holding(told(items).into_iter(), held_max);
        order.map(queued).collect()
    }

    fn queued(ordered: Ordered<ObservedRequest, Dropped>) -> u64 {
        match ordered {
            Ordered::Request(request) => request.queued.0,
            Ordered::Lost(lost) => panic!("{lost:?}"),
        }
    }

    #[test]
    fn a_loss_is_told_at_once() {
        let lost = Dropped { count: 3, first: GuestTicks(5), last: GuestTicks(7) };
        let [first, second, settled] = told(&[20, 10, -15])[..] else { unreachable!() };
        let mut order = QueueOrder::new([first, Told::Lost(lost), second, settled].into_iter());
        assert_eq!(order.next(), Some(Ordered::Lost(lost)));
        assert_eq!([order.next(), order.next()].map(|next| next.map(queued)), [Some(10), Some(20)]);
    }

    #[test]
    fn a_slow_request_is_waited_for_until_all_before_it_are_told() {
        assert_eq!(ordered(&[20, 30, 10, -31, 50, 40], 9), [10, 20, 30, 40, 50]);
        // Too many wait: the earliest goes out, and what comes later goes out late.
        assert_eq!(ordered(&[20, 30, 40, 10, -41], 2), [20, 10, 30, 40]);
        // A guest that lies of what it has told, or takes it back.
        assert_eq!(ordered(&[-100, 20, 10, -5, 30], 9), [20, 10, 30]);
    }

    #[test]
    fn what_is_settled_goes_out_before_more_is_read() {
        let read = std::cell::Cell::new(0);
        let source = told(&[20, 10, -15, 30, -25, 40]).into_iter();
        let mut order = QueueOrder::new(source.inspect(|_| read.set(read.get() + 1)));
        let mut next = || (order.next().map(queued), read.get());
        assert_eq!(next(), (Some(10), 3), "20 may not be the next");
        assert_eq!(next(), (Some(20), 5));
    }

    proptest! {
        /// Any guest: what it tells comes out, each once; of one that keeps its word, in order.
        #[test]
        fn nothing_is_lost_or_invented(
            items in prop::collection::vec(-40..40_i64, 0..60), held_max in 0..8_usize,
        ) {
            let mut out = ordered(&items, held_max);
            let mut all: Vec<u64> =
                items.iter().filter_map(|item| u64::try_from(*item).ok()).collect();
            let is_true = (0..items.len()).all(|place| {
                let settled = -items[place];
                settled <= 0 || items[place..].iter().all(|later| *later < 0 || *later >= settled)
            });
            if is_true && all.len() <= held_max {
                prop_assert!(out.is_sorted(), "{out:?}");
            }
            out.sort_unstable();
            all.sort_unstable();
            prop_assert_eq!(out, all);
        }
    }
}
