//! What one hog told, read as far as it is needed.

use std::collections::VecDeque;
use vslice_core::clock::ClockMap;
use vslice_core::units::HostNs;
use vslice_trace::HogGapItem;

/// Gaps around one absence that are kept at most. A hog tells of one for each; one that tells of so many
/// for a single one is not believed any more.
const NEAR_MAX: usize = 1024;

/// A gap on the host's clock, as long as it may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// What the hog told.
    pub(super) told: HogGapItem,
    /// The last look before was not before this.
    pub(super) earliest_start: HostNs,
    /// The first look after was not after this.
    pub(super) latest_end: HostNs,
}

/// The gaps of one hog in order of time, up to the first one that the map has no host time for. Of them
/// only those around one time are in memory.
pub(super) struct Gaps {
    told: Box<dyn Iterator<Item = HogGapItem>>,
    map: ClockMap,
    near: VecDeque<Gap>,
    first_end: Option<HostNs>,
    last_start: Option<HostNs>,
    is_over: bool,
}

impl Gaps {
    /// `map` rests on nothing that the hog told.
    pub(super) fn new(told: impl Iterator<Item = HogGapItem> + 'static, map: ClockMap) -> Gaps {
        let (near, first_end, last_start) = (VecDeque::new(), None, None);
        Gaps { told: Box::new(told), map, near, first_end, last_start, is_over: false }
    }

    pub(super) fn map(&self) -> &ClockMap {
        &self.map
    }

    /// Reads on to the first gap that begins after `until`, and lets go of those that ended before `from`.
    pub(super) fn read(&mut self, from: HostNs, until: HostNs) {
        while self.near.front().is_some_and(|gap| gap.latest_end < from) {
            self.near.pop_front();
        }
        while !self.is_over && self.last_start.is_none_or(|start| start <= until) {
            let Some(gap) = self.told.next().and_then(|told| self.place(&told)) else {
                self.end();
                break;
            };
            self.first_end.get_or_insert(gap.latest_end);
            self.last_start = Some(gap.earliest_start);
            if gap.latest_end >= from {
                self.near.push_back(gap);
            }
            if self.near.len() >= NEAR_MAX {
                self.end();
            }
        }
    }

    /// Nothing that comes later counts, nor is it kept for anybody.
    fn end(&mut self) {
        self.is_over = true;
        self.told = Box::new(std::iter::empty());
    }

    /// Those that were read and not let go of.
    pub(super) fn near(&self) -> impl Iterator<Item = &Gap> {
        self.near.iter()
    }

    /// Whether the hog is known to have looked before the first time and after the second, up to which
    /// its gaps have been read.
    pub(super) fn surround(&self, from: HostNs, until: HostNs) -> bool {
        self.first_end.is_some_and(|end| end <= from)
            && self.last_start.is_some_and(|start| until <= start)
    }

    fn place(&self, told: &HogGapItem) -> Option<Gap> {
        let (start, end) = (self.map.to_host(told.start).ok()?, self.map.to_host(told.end).ok()?);
        let earliest_start = HostNs(start.at.0.saturating_sub(start.bound_ns));
        let latest_end = HostNs(end.at.0.saturating_add(end.bound_ns));
        Some(Gap { told: *told, earliest_start, latest_end })
    }
}
