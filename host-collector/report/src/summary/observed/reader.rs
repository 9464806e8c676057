//! Holds the stamps of vslice's own reader against those of the same requests in the guest's kernel.

use super::model::ReaderCheck;
use crate::summary::distribution::{Distribution, Precision};
use std::collections::{BTreeMap, VecDeque};
use vslice_core::join::Breakdown;
use vslice_spec::Pattern;
use vslice_spec::offsets::offset_of;
use vslice_wire::{BlockOperation, ObservedRequest, Request};

/// Requests of each side that wait for their counterparts at most. Both sides of a request are told when all is
/// known of it, which is soon after it is done; more are never in flight.
const WAITING_MAX: usize = 16_384;

const SECTOR_BYTES: u64 = 512;

/// Where the requests of a reader lie on its guest's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadPlaces {
    /// In this order.
    Known {
        /// The order in which they read.
        pattern: Pattern,
        /// The size of a request.
        block_bytes: u32,
        /// The size of what they read.
        size_bytes: u64,
        /// Where that begins on the disk.
        offset_bytes: u64,
    },
    /// That is not known, for this reason, a sentence without its full stop.
    Unknown(String),
}

/// One side of a request: where it is, and when it was on the host's clock.
#[derive(Debug, Clone, Copy)]
struct Side {
    start_ns: i128,
    end_ns: i128,
    /// By how much these may be off.
    bounds_ns: [i128; 2],
}

impl Side {
    fn of(breakdown: &Breakdown) -> Side {
        Side {
            start_ns: breakdown.start.0.into(),
            end_ns: breakdown.end.0.into(),
            bounds_ns: [breakdown.bounds.start_ns.into(), breakdown.bounds.end_ns.into()],
        }
    }

    /// Whether they have an instant in common, as far as the clock can tell.
    fn meets(&self, other: &Side) -> bool {
        let [start, end] = [0, 1].map(|at: usize| self.bounds_ns[at] + other.bounds_ns[at]);
        self.start_ns - start <= other.end_ns + end && other.start_ns - start <= self.end_ns + end
    }
}

/// Those of one side that wait for their counterparts, by sector and length; the oldest go first.
#[derive(Debug, Default)]
struct Waiting {
    by_place: BTreeMap<(u64, u64), VecDeque<(u64, Side)>>,
    /// Each with its number, also those that have found theirs.
    order: VecDeque<((u64, u64), u64)>,
    next: u64,
    given_up: u64,
}

impl Waiting {
    fn push(&mut self, place: (u64, u64), side: Side) {
        if self.order.len() >= WAITING_MAX
            && let Some((oldest, number)) = self.order.pop_front()
        {
            let is_there = self.take(oldest, |(of, _)| *of == number).is_some();
            self.given_up += u64::from(is_there);
        }
        self.by_place.entry(place).or_default().push_back((self.next, side));
        self.order.push_back((place, self.next));
        self.next += 1;
    }

    /// Takes the one that meets this.
    fn meeting(&mut self, place: (u64, u64), with: &Side) -> Option<Side> {
        self.take(place, |(_, side)| side.meets(with))
    }

    fn take(&mut self, place: (u64, u64), is_it: impl Fn(&(u64, Side)) -> bool) -> Option<Side> {
        let sides = self.by_place.get_mut(&place)?;
        let (_, side) = sides.remove(sides.iter().position(is_it)?)?;
        if sides.is_empty() {
            self.by_place.remove(&place);
        }
        Some(side)
    }

    /// How many found none.
    fn alone(&self) -> u64 {
        self.given_up + self.by_place.values().map(|sides| sides.len() as u64).sum::<u64>()
    }
}

/// The reader of one guest.
#[derive(Debug)]
pub(super) struct ReaderTally {
    places: ReadPlaces,
    reads: Waiting,
    observed: Waiting,
    before: Distribution,
    after: Distribution,
    check: ReaderCheck,
}

impl ReaderTally {
    pub(super) fn new(places: ReadPlaces) -> ReaderTally {
        ReaderTally {
            places,
            reads: Waiting::default(),
            observed: Waiting::default(),
            before: Distribution::new(Precision::Fine),
            after: Distribution::new(Precision::Fine),
            check: ReaderCheck::default(),
        }
    }

    /// Takes a request of the reader.
    pub(super) fn read(&mut self, request: &Request, breakdown: &Breakdown) {
        let ReadPlaces::Known { pattern, block_bytes, size_bytes, offset_bytes } = self.places
        else {
            return;
        };
        let offset = offset_of(pattern, block_bytes, size_bytes, request.index);
        let length = u64::from(block_bytes).min(size_bytes.saturating_sub(offset));
        let place = (offset_bytes.saturating_add(offset) / SECTOR_BYTES, length);
        let own = Side::of(breakdown);
        match self.observed.meeting(place, &own) {
            Some(observed) => self.compare(&own, &observed),
            None => self.reads.push(place, own),
        }
    }

    /// Takes a request that was observed.
    pub(super) fn observed(&mut self, request: &ObservedRequest, breakdown: &Breakdown) {
        if request.operation != BlockOperation::Read
            || matches!(self.places, ReadPlaces::Unknown(_))
        {
            return;
        }
        let place = (request.sector, u64::from(request.bytes));
        let observed = Side::of(breakdown);
        match self.reads.meeting(place, &observed) {
            Some(own) => self.compare(&own, &observed),
            None => self.observed.push(place, observed),
        }
    }

    fn compare(&mut self, own: &Side, observed: &Side) {
        let before_ns = observed.start_ns - own.start_ns;
        let after_ns = own.end_ns - observed.end_ns;
        let beyond =
            |margin_ns: i128, at: usize| -margin_ns - own.bounds_ns[at] - observed.bounds_ns[at];
        let beyond_ns = beyond(before_ns, 0).max(beyond(after_ns, 1)).max(0);
        self.check.matched += 1;
        self.check.violations += u64::from(beyond_ns > 0);
        let beyond_ns = u64::try_from(beyond_ns).unwrap_or(u64::MAX);
        self.check.worst_ns = self.check.worst_ns.max(beyond_ns);
        self.before.record(u64::try_from(before_ns.max(0)).unwrap_or(u64::MAX));
        self.after.record(u64::try_from(after_ns.max(0)).unwrap_or(u64::MAX));
    }

    pub(super) fn finish(self) -> ReaderCheck {
        let unchecked = match self.places {
            ReadPlaces::Known { .. } => None,
            ReadPlaces::Unknown(why) => Some(why),
        };
        ReaderCheck {
            unchecked,
            unmatched: self.reads.alone(),
            before_ns: self.before.latency_ns(0),
            after_ns: self.after.latency_ns(0),
            ..self.check
        }
    }
}
