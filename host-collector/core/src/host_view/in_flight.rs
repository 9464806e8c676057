//! Which I/O is in flight on the host's disks, and which completion is whose.
//!
//! The block layer tells a completion by disk and sectors alone: adjacent I/Os are merged and large ones are split, so
//! one is done when each of its sectors is. If another I/O for some of its sectors was in flight at the same time,
//! its end may be the other's and is not told.

use crate::host_event::{BlockEvent, BlockStep};
use crate::join::Submitter;
use crate::join::sectors::BySector;
use crate::units::HostNs;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::ops::Range;

/// I/Os in flight that are kept at most, whoever's.
const OPEN_MAX: usize = 4096;
/// Pieces of an I/O that are waited for at most.
const PIECES_MAX: usize = 256;

/// Why the end of an I/O is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoEnd {
    /// Records were lost while it was in flight.
    Lost,
    /// Another I/O for some of its sectors was in flight at the same time.
    Ambiguous,
    /// It was not seen to end.
    Unfinished,
    /// It has no sectors, as a flush: its completion cannot be told from others'.
    NoSectors,
}

impl NoEnd {
    /// All of them.
    pub const ALL: [NoEnd; 4] =
        [NoEnd::Lost, NoEnd::Ambiguous, NoEnd::Unfinished, NoEnd::NoSectors];
}

/// An I/O of the VM of which nothing more will be seen.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) event: BlockEvent,
    pub(super) submitted: HostNs,
    pub(super) done: Result<HostNs, NoEnd>,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    event: BlockEvent,
    submitted: HostNs,
    is_own: bool,
    left: Vec<Range<u64>>,
    /// Why its end will not be known.
    spoilt: Option<NoEnd>,
}

/// All I/O in flight, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    disks: FxHashMap<u32, BySector<Flight>>,
    /// Disk and first sector of each, by number.
    places: BTreeMap<u64, (u32, u64)>,
    next_number: u64,
    lost_until: HostNs,
}

impl InFlight {
    /// Takes what a disk did; returns I/O of the VM that has ended.
    pub(super) fn push(
        &mut self,
        time: HostNs,
        event: &BlockEvent,
        submitter: Submitter,
    ) -> Vec<Ended> {
        let sectors = event.sector..event.sector.saturating_add(u64::from(event.sectors));
        match event.step {
            BlockStep::Submitted if sectors.is_empty() => {
                let is_own = submitter == Submitter::OwnVm;
                let done = Err(NoEnd::NoSectors);
                let ended = is_own.then_some(Ended { event: *event, submitted: time, done });
                ended.into_iter().collect()
            }
            BlockStep::Submitted => self.submitted(time, event, &sectors, submitter),
            BlockStep::Completed => self.completed(time, event.device, &sectors),
            BlockStep::Issued => Vec::new(),
        }
    }

    /// Events until then were lost: what is in flight may have ended unseen.
    pub(super) fn lost(&mut self, until: HostNs) -> Vec<Ended> {
        self.lost_until = self.lost_until.max(until);
        self.end_all(NoEnd::Lost)
    }

    /// Nothing will come any more.
    pub(super) fn finish(&mut self) -> Vec<Ended> {
        self.end_all(NoEnd::Unfinished)
    }

    fn end_all(&mut self, why: NoEnd) -> Vec<Ended> {
        let numbers: Vec<u64> = self.places.keys().copied().collect();
        numbers.into_iter().filter_map(|number| self.end(number, Err(why))).collect()
    }

    /// Lets go of one; returns it if it is the VM's.
    fn end(&mut self, number: u64, done: Result<HostNs, NoEnd>) -> Option<Ended> {
        let (device, first) = self.places.remove(&number)?;
        let flight = self.disks.get_mut(&device)?.remove(first, number)?;
        let Flight { event, submitted, is_own, spoilt, .. } = flight;
        let done = spoilt.map_or(done, Err);
        is_own.then_some(Ended { event, submitted, done })
    }

    fn submitted(
        &mut self,
        time: HostNs,
        event: &BlockEvent,
        sectors: &Range<u64>,
        submitter: Submitter,
    ) -> Vec<Ended> {
        let number = self.next_number;
        self.next_number += 1;
        let mut spoilt = (time < self.lost_until).then_some(NoEnd::Lost);
        let disk = self.disks.entry(event.device).or_default();
        for other in disk.overlapping_mut(sectors) {
            other.spoilt.get_or_insert(NoEnd::Ambiguous);
            spoilt.get_or_insert(NoEnd::Ambiguous);
        }
        let flight = Flight {
            number,
            event: *event,
            submitted: time,
            is_own: submitter == Submitter::OwnVm,
            left: vec![sectors.clone()],
            spoilt,
        };
        disk.insert(sectors, number, flight);
        self.places.insert(number, (event.device, sectors.start));
        if self.places.len() <= OPEN_MAX {
            return Vec::new();
        }
        let oldest = self.places.keys().next().copied();
        oldest.and_then(|oldest| self.end(oldest, Err(NoEnd::Unfinished))).into_iter().collect()
    }

    fn completed(&mut self, time: HostNs, device: u32, sectors: &Range<u64>) -> Vec<Ended> {
        let Some(disk) = self.disks.get_mut(&device) else { return Vec::new() };
        let mut over = Vec::new();
        for flight in disk.overlapping_mut(sectors) {
            flight.left = flight.left.iter().flat_map(|left| without(left, sectors)).collect();
            if flight.left.is_empty() {
                over.push((flight.number, Ok(time)));
            } else if flight.left.len() > PIECES_MAX {
                over.push((flight.number, Err(NoEnd::Unfinished)));
            }
        }
        over.into_iter().filter_map(|(number, done)| self.end(number, done)).collect()
    }
}

/// What of `left` is not in `done`.
fn without(left: &Range<u64>, done: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let before = left.start..left.end.min(done.start);
    let after = left.start.max(done.end)..left.end;
    [before, after].into_iter().filter(|range| !range.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Tid;

    /// Submissions `>`, others' `o`, completions `<`, a loss `!` of one nanosecond, a nanosecond apart.
    fn ended(events: &[(char, Range<u64>)]) -> Vec<(u64, Result<u64, NoEnd>)> {
        let mut in_flight = InFlight::default();
        let mut all = Vec::new();
        for ((kind, sectors), time) in events.iter().zip(1..) {
            let step = if *kind == '<' { BlockStep::Completed } else { BlockStep::Submitted };
            let own = if *kind == 'o' { Submitter::Other } else { Submitter::OwnVm };
            let count = u32::try_from(sectors.end - sectors.start).unwrap();
            let event = BlockEvent {
                step,
                tid: Tid(1),
                device: 5,
                sector: sectors.start,
                sectors: count,
                operation: None,
            };
            all.extend(match kind {
                '!' => in_flight.lost(HostNs(time + 1)),
                _ => in_flight.push(HostNs(time), &event, own),
            });
        }
        all.extend(in_flight.finish());
        let row = |ended: Ended| (ended.submitted.0, ended.done.map(|done| done.0));
        all.into_iter().map(row).collect()
    }

    #[test]
    fn an_io_is_done_when_each_of_its_sectors_is() {
        let merged = [('>', 0..8), ('>', 8..16), ('o', 16..24), ('<', 0..24)];
        assert_eq!(ended(&merged), [(1, Ok(4)), (2, Ok(4))]);
        let split = [('>', 0..16), ('<', 8..16), ('<', 0..8)];
        assert_eq!(ended(&split), [(1, Ok(3))]);
    }

    #[test]
    fn an_end_that_may_be_anothers_is_none() {
        let ambiguous = Err(NoEnd::Ambiguous);
        let twice = [('>', 0..8), ('>', 0..8), ('<', 0..8)];
        assert_eq!(ended(&twice), [(1, ambiguous), (2, ambiguous)]);
        assert_eq!(ended(&[('o', 4..12), ('>', 0..8), ('<', 0..8)]), [(2, ambiguous)]);
        assert_eq!(ended(&[('>', 0..8), ('o', 4..12), ('<', 0..8)]), [(1, ambiguous)]);
        // Once the other is done it is in nobody's way.
        assert_eq!(ended(&[('o', 4..12), ('<', 4..12), ('>', 0..8), ('<', 0..8)]), [(3, Ok(4))]);
    }

    #[test]
    fn what_was_not_seen_to_end_has_no_end() {
        assert_eq!(ended(&[('>', 0..8), ('<', 0..4)]), [(1, Err(NoEnd::Unfinished))]);
        assert_eq!(ended(&[('>', 0..8), ('!', 0..0), ('<', 0..8)]), [(1, Err(NoEnd::Lost))]);
        assert_eq!(ended(&[('!', 0..0), ('>', 0..8), ('<', 0..8)]), [(2, Ok(3))]);
        assert_eq!(ended(&[('>', 5..5)]), [(1, Err(NoEnd::NoSectors))]);
        assert_eq!(ended(&[('o', 0..8), ('o', 5..5)]), []);
    }

    #[test]
    fn what_is_in_flight_stays_bounded() {
        let submissions = (0..2 * OPEN_MAX as u64).map(|at| ('>', at * 8..at * 8 + 8));
        let ended = ended(&submissions.collect::<Vec<_>>());
        assert_eq!(ended.len(), 2 * OPEN_MAX);
        assert!(ended.iter().all(|(_, done)| *done == Err(NoEnd::Unfinished)));
        assert_eq!(ended[0].0, 1, "the oldest first");
    }
}
