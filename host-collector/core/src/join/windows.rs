//! The requests of a VM as the host may have seen them, found by their sectors and times.

use super::phase::NoPhase;
use super::sectors::BySector;
use super::target::overlap;
use crate::units::HostNs;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use vslice_wire::GuestTicks;

/// A request as the host may have seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// In the order in which they were noted.
    pub(super) number: u64,
    pub(super) start: HostNs,
    pub(super) end: HostNs,
    /// The request began after this ...
    pub(super) earliest: HostNs,
    /// ... and ended before that, however wrong the clock map is.
    pub(super) latest: HostNs,
    /// It lasted no longer.
    pub(super) longest_ns: u64,
    /// What it is for, where that is known.
    pub(super) sectors: Option<Vec<Range<u64>>>,
    /// The sectors of the guest's disk that it is for, if these may move on the host's.
    pub(super) guest_sectors: Range<u64>,
    /// When and by which vCPU it was issued, as the guest says it.
    pub(super) issue: (GuestTicks, u16),
    /// How long it is, in bytes.
    pub(super) length_bytes: u64,
    /// What of the host's I/O can be told to be its own.
    pub(super) rule: Rule,
    /// The image may be flushed for it.
    pub(super) may_flush: bool,
    /// Its driver may have handed it over before `start` already.
    pub(super) may_begin_early: bool,
    /// It was noted only when I/O of its time had been let go of.
    pub(super) is_late: bool,
}

/// What of the host's I/O can be told to be a request's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// What is for the sectors that it reads.
    Read,
    /// What is for the sectors that it writes. Through the page cache it waits for none.
    Write,
    /// What the VMM waits for when it flushes the image.
    Flush {
        /// Whether the flushes of the host's disk that the VM makes can be for no other of its disks.
        is_alone: bool,
    },
    /// What is for the sectors that it writes, and what the VMM waits for when it flushes the image before or
    /// after that.
    FlushedWrite,
    /// None, for this reason.
    None(NoPhase),
}

impl Window {
    /// What of a time lies within it.
    pub(super) fn within(&self, time: Range<HostNs>) -> Range<HostNs> {
        time.start.clamp(self.start, self.end)..time.end.clamp(self.start, self.end)
    }

    /// Whether it may only end once the host's I/O for its sectors has.
    pub(super) fn waits_for_sectors(&self) -> bool {
        matches!(self.rule, Rule::Read | Rule::Write | Rule::FlushedWrite)
    }

    /// Whether all that the host's disk does for it is for its sectors.
    pub(super) fn is_told_by_sectors(&self) -> bool {
        matches!(self.rule, Rule::Read | Rule::Write) && self.sectors.is_some()
    }

    pub(super) fn reads(&self, sectors: &Range<u64>) -> bool {
        let own = self.sectors.as_ref();
        own.is_none_or(|own| own.iter().any(|range| overlap(range, sectors)))
    }

    pub(super) fn reads_what(&self, other: &Window) -> bool {
        let theirs = other.sectors.as_ref();
        theirs.is_none_or(|theirs| theirs.iter().any(|range| self.reads(range)))
    }

    /// Whether it is a flush that the guest's kernel handed over as one with the other request's: what the host
    /// flushed meanwhile is for both.
    pub(super) fn is_one_with(&self, other: &Window) -> bool {
        matches!(self.rule, Rule::Flush { .. }) && self.issue == other.issue
    }

    /// Whether it may have been under way then.
    pub(super) fn contains(&self, time: HostNs) -> bool {
        self.earliest <= time && time <= self.latest
    }

    /// Whether it may have been under way at some time from `from` until `until`.
    pub(super) fn meets(&self, from: HostNs, until: HostNs) -> bool {
        self.earliest <= until && from <= self.latest
    }
}

/// Requests that are under way, and some that have just ended.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// By their earliest beginnings and numbers.
    by_time: BTreeMap<(HostNs, u64), Rc<Window>>,
    /// Those whose sectors are known.
    by_sector: BySector<Rc<Window>>,
    /// The others.
    unmapped: BTreeMap<(HostNs, u64), Rc<Window>>,
    #[cfg(test)]
    comparisons_count: std::cell::Cell<usize>,
}

impl Windows {
    pub(super) fn len(&self) -> usize {
        self.by_time.len()
    }

    pub(super) fn insert(&mut self, window: Rc<Window>) {
        for (piece, sectors) in (0..).zip(window.sectors.iter().flatten()) {
            self.by_sector.insert(sectors, key(&window, piece), Rc::clone(&window));
        }
        let key = (window.earliest, window.number);
        if window.sectors.is_none() {
            self.unmapped.insert(key, Rc::clone(&window));
        }
        self.by_time.insert(key, window);
    }

    /// Takes out the one that began first.
    pub(super) fn pop_first(&mut self) -> Option<Rc<Window>> {
        let (_, window) = self.by_time.pop_first()?;
        self.forget(&window);
        Some(window)
    }

    /// Takes out those that ended before `time`.
    pub(super) fn take_ended(&mut self, time: HostNs) -> Vec<Rc<Window>> {
        let mut ended = Vec::new();
        #[cfg(test)]
        self.comparisons_count.set(self.comparisons_count.get() + self.by_time.len());
        self.by_time.retain(|_, window| {
            let is_ended = window.latest < time;
            if is_ended {
                ended.push(Rc::clone(window));
            }
            !is_ended
        });
        ended.iter().for_each(|window| self.forget(window));
        ended
    }

    /// Those that may have been under way at some time from `from` until `until`.
    pub(super) fn meeting(&self, from: HostNs, until: HostNs) -> impl Iterator<Item = &Window> {
        let begun = self.by_time.range(..=(until, u64::MAX)).map(|(_, window)| window.as_ref());
        begun.filter(move |window| window.meets(from, until))
    }

    /// When the first of them may have begun.
    pub(super) fn earliest(&self) -> Option<HostNs> {
        self.by_time.first_key_value().map(|((earliest, _), _)| *earliest)
    }

    /// Those that read any of these sectors, and of those whose sectors are not known the ones that may
    /// have begun by `time`, the latest first.
    pub(super) fn near<'a>(
        &'a self,
        sectors: &Range<u64>,
        time: HostNs,
    ) -> impl Iterator<Item = &'a Rc<Window>> {
        let by_sector = self.by_sector.overlapping(sectors);
        let unmapped = self.unmapped.range(..=(time, u64::MAX)).rev().map(|(_, window)| window);
        by_sector.chain(unmapped).inspect(|_| {
            #[cfg(test)]
            self.comparisons_count.set(self.comparisons_count.get() + 1);
        })
    }

    #[cfg(test)]
    pub(super) fn comparisons_count(&self) -> usize {
        self.by_sector.comparisons_count.get() + self.comparisons_count.get()
    }

    fn forget(&mut self, window: &Window) {
        self.unmapped.remove(&(window.earliest, window.number));
        for (piece, sectors) in (0..).zip(window.sectors.iter().flatten()) {
            self.by_sector.remove(sectors.start, key(window, piece));
        }
    }
}

/// Pieces of one request that begin at the same sector would be the same piece.
fn key(window: &Window, piece: u64) -> u64 {
    window.number.wrapping_mul(1 << 16).wrapping_add(piece)
}
