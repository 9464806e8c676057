//! The host's I/O for one VM, from what the block layer did.
//!
//! The block layer reports a completion only by disk and sectors: adjacent I/Os are merged into one request
//! and a large one is split over several, so an I/O is done when each of its sectors is. That is its own end
//! only if no other I/O for the same sectors was in flight. Completions may be missing too: some kernels hide
//! what their idle tasks do. So for each I/O vslice asks what else may have been in flight for its sectors:
//!
//! - An I/O whose sectors are submitted again was not seen to end: whatever is done there from then on
//!   may be either's.
//! - It did end by the time at which a request that waited for it had ended, see `matching.rs`.
//! - One of which that is not known leaves its sectors in doubt for good.

use super::sectors::{BySector, SectorSet};
use super::target::HostAccess;
use crate::host_event::{BlockEvent, BlockStep};
use crate::units::HostNs;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// I/Os in flight that are kept at most: more than any disk's queue holds.
const OPEN_MAX: usize = 4096;
/// I/Os that are kept at most; requests normally let go of them much earlier.
const KEPT_MAX: usize = 1 << 16;
/// Pieces of an I/O that are waited for at most.
const PIECES_MAX: usize = 256;
/// Losses that are kept at most; then they run together.
const LOSSES_MAX: usize = 4096;

/// Who handed an I/O to the block layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitter {
    /// A thread of this VM.
    OwnVm,
    /// Anybody else.
    Other,
}

/// How far an I/O came.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// These of its sectors were not seen to be done.
    Open(Vec<Range<u64>>),
    /// The last of its sectors was done.
    Seen(HostNs),
    /// Its sectors were submitted again, or events were lost: its end will not be seen any more.
    Unseen,
}

/// One I/O, from being handed to the block layer to its completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostIo {
    /// In order of submission.
    pub(super) number: u64,
    pub(super) submitted: HostNs,
    pub(super) sectors: Range<u64>,
    pub(super) submitter: Submitter,
    end: End,
    /// When it was done another I/O may have been in flight for some of its sectors.
    is_doubtful: bool,
    /// It had ended by then, as a request that waited for it had.
    ended_by: Option<HostNs>,
}

impl HostIo {
    /// When all of its sectors were done; `None` while that has not been seen.
    pub(super) fn completed(&self) -> Option<HostNs> {
        match self.end {
            End::Seen(at) => Some(at),
            End::Open(_) | End::Unseen => None,
        }
    }

    /// Before that it had ended, as far as requests say.
    pub(super) fn ended_by(&self) -> Option<HostNs> {
        self.ended_by
    }

    /// Whether it is certain that it was not in flight any more at that time.
    pub(super) fn has_ended_by(&self, time: HostNs) -> bool {
        let was_seen = !self.is_doubtful && self.completed().is_some_and(|at| at <= time);
        was_seen || self.ended_by.is_some_and(|by| by <= time)
    }

    fn is_open(&self) -> bool {
        matches!(self.end, End::Open(_))
    }

    pub(super) fn sectors_count(&self) -> u64 {
        self.sectors.end - self.sectors.start
    }
}

/// The I/O of a VM, in bounded memory.
///
/// Of others' I/O only what touches the VM's image matters, see [`Ios::push`]: it may be what a
/// completion is of.
#[derive(Debug, Default)]
pub(super) struct Ios {
    /// Those of which nothing can be in the way of another: their ends were seen and are their own.
    over: BySector<HostIo>,
    /// All others.
    uncertain: BySector<HostIo>,
    /// The first sectors of those kept, by number.
    first_sectors: BTreeMap<u64, u64>,
    /// The numbers of those that are open.
    open: BTreeSet<u64>,
    /// Two reads of the same sectors are never in flight at once, as both are for the same pages.
    is_through_page_cache: bool,
    next_number: u64,
    /// I/O of which nobody knows whether it has ended may be in flight for these.
    in_doubt: SectorSet,
    losses: VecDeque<Range<HostNs>>,
    /// I/O in flight before this may have ended unseen.
    loss_until: HostNs,
    /// Of I/O that ended before this, not all is known any more.
    forgotten_until: HostNs,
    now: HostNs,
}

impl Ios {
    /// Nothing yet; the VMM reads its image in this way.
    pub(super) fn new(access: HostAccess) -> Ios {
        Ios { is_through_page_cache: access == HostAccess::Cached, ..Ios::default() }
    }

    /// Events up to this time have come.
    pub(super) fn now(&self) -> HostNs {
        self.now
    }

    /// No event before `time` will come any more.
    pub(super) fn advance(&mut self, time: HostNs) {
        self.now = self.now.max(time);
        if self.loss_until > HostNs(0) && time >= self.loss_until {
            let until = std::mem::take(&mut self.loss_until);
            self.give_up(until);
        }
    }

    /// Takes what the disk did. I/O of others is passed over unless it is for the VM's image
    /// (`is_for_image`) or, where that is not known (`None`), for what the VM has in flight.
    pub(super) fn push(
        &mut self,
        time: HostNs,
        event: &BlockEvent,
        submitter: Submitter,
        is_for_image: impl Fn(&Range<u64>) -> Option<bool>,
    ) {
        self.advance(time);
        let sectors = event.sector..event.sector.saturating_add(u64::from(event.sectors));
        // A flush has no sectors.
        if sectors.is_empty() {
            return;
        }
        match event.step {
            BlockStep::Submitted => {
                let in_flight =
                    || self.uncertain.overlapping(&sectors).any(|io| !io.has_ended_by(time));
                let matters = submitter == Submitter::OwnVm
                    || is_for_image(&sectors).unwrap_or_else(in_flight);
                if matters {
                    self.submitted(time, sectors, submitter);
                }
            }
            BlockStep::Issued => {}
            BlockStep::Completed => self.completed(time, &sectors),
        }
    }

    /// Events between `from` and `until` were lost.
    pub(super) fn lost(&mut self, from: HostNs, until: HostNs) {
        self.give_up(HostNs(u64::MAX));
        self.loss_until = self.loss_until.max(until);
        let is_full = self.losses.len() >= LOSSES_MAX;
        match self.losses.back_mut() {
            Some(last) if is_full => last.end = last.end.max(until),
            _ => self.losses.push_back(from..until),
        }
    }

    /// The ends of those that are open and were submitted before `time` will not be seen.
    fn give_up(&mut self, time: HostNs) {
        let Ios { uncertain, first_sectors, open, .. } = self;
        open.retain(|number| {
            let first = first_sectors.get(number);
            let io = first.and_then(|first| uncertain.get_mut(*first, *number));
            let Some(io) = io.filter(|io| io.submitted < time) else { return true };
            io.end = End::Unseen;
            false
        });
    }

    /// Lets go of what ended before `time`, which no request to come can have been submitted before.
    pub(super) fn forget_before(&mut self, time: HostNs) {
        let over = |io: &HostIo| {
            let has_ended = io.has_ended_by(time);
            let ends_later = io.has_ended_by(HostNs(u64::MAX)) || io.is_open();
            (has_ended || !ends_later).then_some((io.number, !has_ended))
        };
        let early = self.all().take_while(|io| io.submitted < time);
        let gone: Vec<(u64, bool)> = early.filter_map(over).collect();
        gone.into_iter().for_each(|(number, is_in_doubt)| self.remove(number, is_in_doubt));
        // They come in order of their beginnings; a long one at the front holds back short ones.
        while self.losses.front().is_some_and(|loss| loss.end < time) {
            self.losses.pop_front();
        }
    }

    /// Whether events were lost between `start` and `end`.
    pub(super) fn has_lost(&self, start: HostNs, end: HostNs) -> bool {
        self.losses.iter().any(|loss| loss.start <= end && loss.end > start)
    }

    /// Whether I/O that was in flight at `time` may have been let go of.
    pub(super) fn has_forgotten(&self, time: HostNs) -> bool {
        time < self.forgotten_until
    }

    /// The I/O for any of these sectors, whoever's.
    pub(super) fn on(&self, sectors: &Range<u64>) -> impl Iterator<Item = &HostIo> {
        self.over.overlapping(sectors).chain(self.uncertain.overlapping(sectors))
    }

    /// All I/O that is kept, in order of submission.
    pub(super) fn all(&self) -> impl Iterator<Item = &HostIo> {
        self.first_sectors.keys().filter_map(|number| self.get(*number))
    }

    /// Whether I/O that was let go of may still be in flight for some of these sectors.
    pub(super) fn is_in_doubt(&self, sectors: &Range<u64>) -> bool {
        self.in_doubt.overlaps(sectors)
    }

    /// The I/O that may have been in flight for some of the sectors of `io` when `io` was submitted.
    pub(super) fn in_flight_with(&self, io: &HostIo) -> impl Iterator<Item = &HostIo> {
        let (number, submitted) = (io.number, io.submitted);
        let earlier =
            move |other: &&HostIo| other.number < number && !other.has_ended_by(submitted);
        self.uncertain.overlapping(&io.sectors).filter(earlier)
    }

    /// The I/O of this number had ended by `time`.
    pub(super) fn had_ended(&mut self, number: u64, time: HostNs) {
        let Some(first) = self.first_sectors.get(&number) else { return };
        if let Some(io) = self.uncertain.get_mut(*first, number) {
            io.ended_by = Some(io.ended_by.map_or(time, |by| by.min(time)));
            if io.is_open() {
                io.end = End::Unseen;
                self.open.remove(&number);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn comparisons_count(&self) -> usize {
        self.over.comparisons_count.get() + self.uncertain.comparisons_count.get()
    }

    fn get(&self, number: u64) -> Option<&HostIo> {
        let first = *self.first_sectors.get(&number)?;
        self.uncertain.get(first, number).or_else(|| self.over.get(first, number))
    }

    fn submitted(&mut self, time: HostNs, sectors: Range<u64>, submitter: Submitter) {
        for other in self.uncertain.overlapping_mut(&sectors) {
            let are_own = other.submitter == Submitter::OwnVm && submitter == Submitter::OwnVm;
            if self.is_through_page_cache && are_own && other.ended_by.is_none() {
                other.ended_by = Some(time);
            }
            if other.is_open() {
                other.end = End::Unseen;
                self.open.remove(&other.number);
            }
        }
        self.make_room();
        let number = self.next_number;
        self.next_number += 1;
        self.first_sectors.insert(number, sectors.start);
        self.open.insert(number);
        let io = HostIo {
            number,
            submitted: time,
            sectors: sectors.clone(),
            submitter,
            end: End::Open(vec![sectors.clone()]),
            is_doubtful: false,
            ended_by: None,
        };
        self.uncertain.insert(&sectors, number, io);
    }

    fn make_room(&mut self) {
        if self.open.len() >= OPEN_MAX
            && let Some(number) = self.open.pop_first()
        {
            self.let_go_of(number, self.now);
        }
        while self.first_sectors.len() >= KEPT_MAX {
            let Some(io) = self.all().next() else { break };
            let seen = io.completed().filter(|_| !io.is_doubtful);
            let ended = io.ended_by.or(seen).unwrap_or(self.now);
            self.let_go_of(io.number, ended);
        }
    }

    /// One that had ended by then at the latest, or else is in doubt.
    fn let_go_of(&mut self, number: u64, ended: HostNs) {
        let Some(io) = self.get(number) else { return };
        let is_in_doubt = !io.has_ended_by(self.now);
        if io.submitter == Submitter::OwnVm {
            self.forgotten_until = self.forgotten_until.max(ended);
        }
        self.remove(number, is_in_doubt);
    }

    fn remove(&mut self, number: u64, may_be_in_flight: bool) {
        let Some(first) = self.first_sectors.remove(&number) else { return };
        let uncertain = self.uncertain.remove(first, number);
        let Some(io) = uncertain.or_else(|| self.over.remove(first, number)) else { return };
        self.open.remove(&number);
        if may_be_in_flight {
            self.in_doubt.insert(&io.sectors);
        }
    }

    fn completed(&mut self, time: HostNs, sectors: &Range<u64>) {
        let mut done = Vec::new();
        for io in self.uncertain.overlapping_mut(sectors) {
            let End::Open(left) = &mut io.end else { continue };
            *left = left.iter().flat_map(|left| without(left, sectors)).collect();
            if left.is_empty() {
                io.end = End::Seen(time);
                self.open.remove(&io.number);
                done.push((io.sectors.start, io.number));
            } else if left.len() > PIECES_MAX {
                io.end = End::Unseen;
                self.open.remove(&io.number);
            }
        }
        for (first, number) in done {
            let Some(mut io) = self.uncertain.remove(first, number) else { continue };
            io.is_doubtful =
                self.is_in_doubt(&io.sectors) || self.in_flight_with(&io).next().is_some();
            let place = if io.is_doubtful { &mut self.uncertain } else { &mut self.over };
            place.insert(&io.sectors.clone(), number, io);
        }
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
    use proptest::prelude::*;

    fn push(ios: &mut Ios, time: u64, step: BlockStep, sectors: Range<u64>, who: Submitter) {
        let (tid, device) = (Tid(1), 254 << 20);
        let count = u32::try_from(sectors.end - sectors.start).unwrap();
        let event = BlockEvent {
            step,
            tid,
            device,
            sector: sectors.start,
            sectors: count,
            operation: None,
        };
        ios.push(HostNs(time), &event, who, |_| None);
    }

    /// Submissions `>`, completions `<` and others' submissions `o`, a nanosecond apart.
    fn ios(events: &[(char, Range<u64>)]) -> Ios {
        let mut ios = Ios::default();
        for ((kind, sectors), time) in events.iter().zip(1..) {
            let (step, who) = match kind {
                '>' => (BlockStep::Submitted, Submitter::OwnVm),
                'o' => (BlockStep::Submitted, Submitter::Other),
                'i' => (BlockStep::Issued, Submitter::Other),
                _ => (BlockStep::Completed, Submitter::Other),
            };
            push(&mut ios, time, step, sectors.clone(), who);
        }
        ios
    }

    /// Submission and completion of the VM's, and whether the completion is doubtful.
    fn known(ios: &Ios) -> Vec<(u64, Option<u64>, bool)> {
        let own = ios.all().filter(|io| io.submitter == Submitter::OwnVm);
        own.map(|io| (io.submitted.0, io.completed().map(|at| at.0), io.is_doubtful)).collect()
    }

    #[test]
    fn completions_are_matched_by_sectors() {
        let merged = ios(&[('>', 0..8), ('>', 8..16), ('i', 0..16), ('<', 0..16)]);
        assert_eq!(known(&merged), [(1, Some(4), false), (2, Some(4), false)]);
        let split = ios(&[('>', 0..16), ('<', 8..16), ('<', 16..24), ('<', 0..8)]);
        assert_eq!(known(&split), [(1, Some(4), false)]);
        let partial = ios(&[('>', 0..16), ('<', 4..8), ('<', 0..4)]);
        assert_eq!(known(&partial), [(1, None, false)]);
        let flush = ios(&[('>', 0..8), ('<', 4..4)]);
        assert_eq!(known(&flush), [(1, None, false)]);
    }

    #[test]
    fn others_matter_only_on_the_same_sectors() {
        let elsewhere = ios(&[('>', 0..8), ('o', 8..16), ('<', 8..16), ('<', 0..8)]);
        assert_eq!(known(&elsewhere), [(1, Some(4), false)]);
        let there = ios(&[('>', 0..8), ('o', 4..16), ('<', 0..8)]);
        assert_eq!(known(&there), [(1, None, false)]);
        let twice = ios(&[('>', 0..8), ('>', 0..8), ('<', 0..8)]);
        assert_eq!(known(&twice), [(1, None, false), (2, Some(3), true)]);
        let image = |sectors: &Range<u64>| Some(sectors.start < 100);
        for (first_sector, expected) in [(0, [(2, Some(3), true)]), (200, [(2, Some(3), false)])] {
            let mut ios = Ios::default();
            let (tid, device) = (Tid(1), 254 << 20);
            for (time, step, who) in [
                (1, BlockStep::Submitted, Submitter::Other),
                (2, BlockStep::Submitted, Submitter::OwnVm),
                (3, BlockStep::Completed, Submitter::Other),
            ] {
                let event = BlockEvent {
                    step,
                    tid,
                    device,
                    sector: first_sector,
                    sectors: 8,
                    operation: None,
                };
                ios.push(HostNs(time), &event, who, image);
            }
            assert_eq!(known(&ios), expected, "another was there first, at {first_sector}");
        }
        let in_turn = ios(&[('>', 0..8), ('<', 0..8), ('>', 0..8), ('<', 0..8)]);
        assert_eq!(known(&in_turn), [(1, Some(2), false), (3, Some(4), false)]);
    }

    #[test]
    fn what_was_in_flight_at_a_loss_is_given_up() {
        let mut ios = ios(&[('>', 0..8)]);
        ios.lost(HostNs(5), HostNs(9));
        push(&mut ios, 6, BlockStep::Submitted, 8..16, Submitter::OwnVm);
        push(&mut ios, 9, BlockStep::Submitted, 16..24, Submitter::OwnVm);
        push(&mut ios, 10, BlockStep::Completed, 0..24, Submitter::Other);
        assert_eq!(known(&ios), [(1, None, false), (6, None, false), (9, Some(10), false)]);
        assert!(ios.has_lost(HostNs(1), HostNs(5)) && ios.has_lost(HostNs(8), HostNs(20)));
        assert!(!ios.has_lost(HostNs(1), HostNs(4)) && !ios.has_lost(HostNs(9), HostNs(20)));
        ios.forget_before(HostNs(11));
        assert!(known(&ios).is_empty() && !ios.has_lost(HostNs(8), HostNs(20)));
        assert!(
            ios.is_in_doubt(&(0..1)) && ios.is_in_doubt(&(8..9)) && !ios.is_in_doubt(&(16..24))
        );
    }

    #[test]
    fn an_io_that_had_ended_is_nobodys_rival_and_takes_no_completion() {
        let mut one = ios(&[('>', 0..8)]);
        one.had_ended(0, HostNs(5));
        push(&mut one, 6, BlockStep::Completed, 0..8, Submitter::Other);
        push(&mut one, 7, BlockStep::Submitted, 0..8, Submitter::OwnVm);
        push(&mut one, 8, BlockStep::Completed, 0..8, Submitter::Other);
        assert_eq!(known(&one), [(1, None, false), (7, Some(8), false)]);
        one.forget_before(HostNs(9));
        assert!(known(&one).is_empty() && !one.is_in_doubt(&(0..8)));
        // Through the page cache nobody reads a page that is being read.
        let mut cached = Ios::new(HostAccess::Cached);
        for (time, step) in
            [(1, BlockStep::Submitted), (2, BlockStep::Submitted), (3, BlockStep::Completed)]
        {
            push(&mut cached, time, step, 0..8, Submitter::OwnVm);
        }
        assert_eq!(known(&cached), [(1, None, false), (2, Some(3), false)]);
    }

    #[test]
    fn memory_is_bounded_and_what_was_let_go_of_is_known() {
        let mut ios = Ios::default();
        for time in 0..(KEPT_MAX as u64 + 10) * 2 {
            let step = if time % 2 == 0 { BlockStep::Submitted } else { BlockStep::Completed };
            push(&mut ios, time, step, 0..8, Submitter::OwnVm);
        }
        assert_eq!(ios.first_sectors.len(), KEPT_MAX);
        assert!(ios.has_forgotten(HostNs(18)) && !ios.has_forgotten(HostNs(19)));
        for time in 0..OPEN_MAX as u64 + 10 {
            let sectors = time * 8..time * 8 + 8;
            push(&mut ios, 1 << 40, BlockStep::Submitted, sectors, Submitter::OwnVm);
        }
        assert_eq!(ios.open.len(), OPEN_MAX);
        assert!(ios.has_forgotten(HostNs((1 << 40) - 1)));
        (0..LOSSES_MAX as u64 + 10).for_each(|at| ios.lost(HostNs(at), HostNs(at + 1)));
        assert_eq!(ios.losses.len(), LOSSES_MAX);
        assert!(ios.has_lost(HostNs(LOSSES_MAX as u64 + 9), HostNs(u64::MAX)));
    }

    proptest! {
        /// However a disk cuts and orders them, an I/O is done with its last sector.
        #[test]
        fn an_io_is_done_with_its_last_sector(
            cuts in prop::collection::btree_set(1..64_u64, 0..8), order in any::<u64>(),
        ) {
            let edges: Vec<u64> = [0].into_iter().chain(cuts).chain([64]).collect();
            let mut pieces: Vec<Range<u64>> =
                edges.windows(2).map(|pair| pair[0]..pair[1]).collect();
            pieces.sort_by_key(|piece| (piece.start + 1).wrapping_mul(order | 1));
            let mut events = vec![('>', 0..64)];
            events.extend(pieces.iter().map(|piece| ('<', piece.clone())));
            let last = events.len() as u64;
            prop_assert_eq!(known(&ios(&events[..events.len() - 1])), [(1, None, false)]);
            prop_assert_eq!(known(&ios(&events)), [(1, Some(last), false)]);
        }
    }
}
