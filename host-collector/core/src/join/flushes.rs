//! Flushes of the host's disk, and whose they are.
//!
//! A flush has no sectors (linux: `blkdev_issue_flush`), and those that are under way together are made one by
//! the kernel (block/blk-flush.c). What is certain:
//!
//! - It ends with a completion at sector 0 of no sectors (`blk_flush_complete_seq`). The flush that the
//!   kernel makes of several completes as well, at no sector at all, and one that a write brings with it at
//!   that write's sector.
//! - A request for a flush that only the VM's flush can be for is one that no other request for a flush was
//!   under way with when that was handed over, but those that the guest's kernel made one of; and that flush
//!   alone was handed over while it was.
//! - The completion is its own if no other flush was in flight, and no other one completed before the request
//!   did.
//!
//! Before its flush the host may have had to write the journal of the file system that the image is on; that
//! is before the host has the flush, and so counts as [`Phase::Queued`](super::Phase::Queued).

use super::ios::Submitter;
use super::phase::NoPhase;
use super::windows::Window;
use crate::units::HostNs;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

/// Flushes that are kept at most.
const KEPT_MAX: usize = 4096;

/// The flushes of a host's disk, and the requests for some.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    submitted: VecDeque<Flush>,
    completed: VecDeque<HostNs>,
    in_flight_count: u64,
    /// Of what was before this, not all is known any more.
    forgotten_until: HostNs,
    /// By their earliest beginnings and numbers.
    requests: BTreeMap<(HostNs, u64), Rc<Window>>,
}

/// A flush that was handed to the block layer.
#[derive(Debug, Clone, Copy)]
struct Flush {
    time: HostNs,
    submitter: Submitter,
    /// With it so many may have been in flight.
    in_flight_count: u64,
}

impl Flushes {
    /// Takes note of a request that may ask for flushes.
    pub(super) fn note(&mut self, window: &Rc<Window>) {
        self.requests.insert((window.earliest, window.number), Rc::clone(window));
    }

    /// A request that was noted is over for all that are still to come.
    pub(super) fn forget(&mut self, window: &Window) {
        self.requests.remove(&(window.earliest, window.number));
    }

    pub(super) fn submitted(&mut self, time: HostNs, submitter: Submitter) {
        self.in_flight_count = self.in_flight_count.saturating_add(1);
        let in_flight_count = self.in_flight_count;
        self.submitted.push_back(Flush { time, submitter, in_flight_count });
        if self.submitted.len() > KEPT_MAX
            && let Some(gone) = self.submitted.pop_front()
        {
            self.forgotten_until = self.forgotten_until.max(gone.time);
        }
    }

    /// The completion of a request of no sectors.
    pub(super) fn completed(&mut self, time: HostNs, sector: u64) {
        if sector != 0 {
            return;
        }
        self.in_flight_count = self.in_flight_count.saturating_sub(1);
        self.completed.push_back(time);
        if self.completed.len() > KEPT_MAX
            && let Some(gone) = self.completed.pop_front()
        {
            self.forgotten_until = self.forgotten_until.max(gone);
        }
    }

    /// Events were lost: which flushes are in flight is found out anew. One of before may still end, so of
    /// two completions neither is certain.
    pub(super) fn lost(&mut self) {
        self.in_flight_count = 0;
    }

    /// Lets go of what was before `time`.
    pub(super) fn forget_before(&mut self, time: HostNs) {
        while self.submitted.pop_front_if(|flush| flush.time < time).is_some() {}
        while self.completed.pop_front_if(|done| *done < time).is_some() {}
    }

    /// When the host had the flush that this request asked for.
    pub(super) fn of(&self, request: &Window) -> Result<Range<HostNs>, NoPhase> {
        if request.earliest < self.forgotten_until {
            return Err(NoPhase::Forgotten);
        }
        let meanwhile = |time: HostNs| request.contains(time);
        let mut own = self
            .submitted
            .iter()
            .filter(|flush| flush.submitter == Submitter::OwnVm && meanwhile(flush.time));
        let own = match (own.next(), own.next()) {
            (None, _) => return Err(NoPhase::NoIo),
            (Some(_), Some(_)) => return Err(NoPhase::Ambiguous),
            (Some(own), None) => own,
        };
        let near = self.requests.range(..=(own.time, u64::MAX)).map(|(_, window)| window);
        // Those that the guest's kernel handed over as one flush have the host's together.
        let is_rival =
            |other: &&Rc<Window>| other.issue != request.issue && other.contains(own.time);
        let mut rivals = near.filter(is_rival);
        if rivals.next().is_some() || own.in_flight_count > 1 {
            return Err(NoPhase::Ambiguous);
        }
        let is_later = |done: &&HostNs| own.time <= **done && **done <= request.latest;
        let mut done = self.completed.iter().filter(is_later);
        let done = match (done.next(), done.next()) {
            (None, _) => return Err(NoPhase::Unfinished),
            (Some(_), Some(_)) => return Err(NoPhase::Ambiguous),
            (Some(done), None) => *done,
        };
        let another = |flush: &Flush| own.time < flush.time && flush.time <= done;
        if self.submitted.iter().any(another) {
            return Err(NoPhase::Ambiguous);
        }
        Ok(own.time..done)
    }
}
