//! The host's I/O for one VM, from what the block layer did.

use super::target::overlap;
use crate::host_event::{BlockEvent, BlockStep};
use crate::units::HostNs;
use std::collections::VecDeque;
use std::ops::Range;

/// I/Os in flight that are kept at most: more than any disk's queue holds.
const OPEN_MAX: usize = 4096;
/// Completed I/Os that are kept at most; requests normally let go of them much earlier.
const DONE_MAX: usize = 1 << 16;
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

/// One I/O, from being handed to the block layer to its completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostIo {
    pub(super) submitted: HostNs,
    /// When the last sector was done; `None` while that has not been seen.
    pub(super) completed: Option<HostNs>,
    pub(super) sectors: Range<u64>,
    /// Another I/O was in flight for some of these sectors: whose completion was seen is not known.
    pub(super) is_entangled: bool,
}

/// An I/O in flight, with the sectors that are not done.
#[derive(Debug)]
struct Open {
    io: HostIo,
    left: Vec<Range<u64>>,
    submitter: Submitter,
}

/// The I/O of a VM, in bounded memory.
///
/// Completions are told by disk and sectors only: the kernel merges adjacent I/Os into one request
/// and splits a large one over several, so an I/O is done when each of its sectors is. Of others'
/// I/O only what reads the same sectors matters: it makes an I/O of the VM entangled. One that was
/// there first is not seen, as all the disk's I/O would have to be kept for that; nobody but the VM
/// has a reason to read its image.
#[derive(Debug, Default)]
pub(super) struct Ios {
    open: Vec<Open>,
    /// In order of completion.
    done: VecDeque<HostIo>,
    losses: VecDeque<Range<HostNs>>,
    /// I/O in flight before this may have ended unseen.
    loss_until: HostNs,
    /// Of I/O that ended before this, not all is known any more.
    forgotten_until: HostNs,
    now: HostNs,
}

impl Ios {
    /// Events up to this time have come.
    pub(super) fn now(&self) -> HostNs {
        self.now
    }

    /// No event before `time` will come any more.
    pub(super) fn advance(&mut self, time: HostNs) {
        self.now = self.now.max(time);
        if self.loss_until > HostNs(0) && time >= self.loss_until {
            let until = std::mem::take(&mut self.loss_until);
            self.open.retain(|open| open.io.submitted >= until);
        }
    }

    /// Takes what the disk did.
    pub(super) fn push(&mut self, time: HostNs, event: &BlockEvent, submitter: Submitter) {
        self.advance(time);
        let sectors = event.sector..event.sector.saturating_add(u64::from(event.sectors));
        // A flush has no sectors.
        if !sectors.is_empty() {
            match event.step {
                BlockStep::Submitted => self.submitted(time, sectors, submitter),
                BlockStep::Issued => {}
                BlockStep::Completed => self.completed(time, &sectors),
            }
        }
    }

    /// Events between `from` and `until` were lost.
    pub(super) fn lost(&mut self, from: HostNs, until: HostNs) {
        self.open.clear();
        self.loss_until = self.loss_until.max(until);
        let is_full = self.losses.len() >= LOSSES_MAX;
        match self.losses.back_mut() {
            Some(last) if is_full => last.end = last.end.max(until),
            _ => self.losses.push_back(from..until),
        }
    }

    /// Lets go of what ended before `time`.
    pub(super) fn forget_before(&mut self, time: HostNs) {
        while self.done.front().is_some_and(|io| io.completed < Some(time)) {
            self.done.pop_front();
        }
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

    /// The VM's I/O that was in flight at some time from `from` on.
    pub(super) fn since(&self, from: HostNs) -> impl Iterator<Item = &HostIo> {
        let first = self.done.partition_point(|io| io.completed < Some(from));
        let open = self.open.iter().filter(|open| open.submitter == Submitter::OwnVm);
        self.done.range(first..).chain(open.map(|open| &open.io))
    }

    fn submitted(&mut self, time: HostNs, sectors: Range<u64>, submitter: Submitter) {
        let mut is_entangled = false;
        for other in self.open.iter_mut().filter(|open| overlap(&open.io.sectors, &sectors)) {
            other.io.is_entangled = true;
            is_entangled = true;
        }
        if submitter == Submitter::Other && !is_entangled {
            return;
        }
        if self.open.len() >= OPEN_MAX {
            self.open.remove(0);
            self.forgotten_until = self.now;
        }
        let io =
            HostIo { submitted: time, completed: None, sectors: sectors.clone(), is_entangled };
        self.open.push(Open { io, left: vec![sectors], submitter });
    }

    fn completed(&mut self, time: HostNs, sectors: &Range<u64>) {
        let done = &mut self.done;
        self.open.retain_mut(|open| {
            if !overlap(&open.io.sectors, sectors) {
                return true;
            }
            open.left = open.left.iter().flat_map(|left| without(left, sectors)).collect();
            if open.left.is_empty() && open.submitter == Submitter::OwnVm {
                done.push_back(HostIo { completed: Some(time), ..open.io.clone() });
            }
            !open.left.is_empty()
        });
        while self.done.len() > DONE_MAX {
            let gone = self.done.pop_front().and_then(|io| io.completed);
            self.forgotten_until = self.forgotten_until.max(gone.unwrap_or_default());
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
        let event = BlockEvent { step, tid, device, sector: sectors.start, sectors: count };
        ios.push(HostNs(time), &event, who);
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

    /// Submission, completion and whether it is entangled.
    fn known(ios: &Ios) -> Vec<(u64, Option<u64>, bool)> {
        let io = |io: &HostIo| (io.submitted.0, io.completed.map(|at| at.0), io.is_entangled);
        ios.since(HostNs(0)).map(io).collect()
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
        assert_eq!(known(&there), [(1, Some(3), true)]);
        let twice = ios(&[('>', 0..8), ('>', 0..8), ('<', 0..8)]);
        assert_eq!(known(&twice), [(1, Some(3), true), (2, Some(3), true)]);
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
        assert_eq!(known(&ios), [(9, Some(10), false)]);
        assert!(ios.has_lost(HostNs(1), HostNs(5)) && ios.has_lost(HostNs(8), HostNs(20)));
        assert!(!ios.has_lost(HostNs(1), HostNs(4)) && !ios.has_lost(HostNs(9), HostNs(20)));
        ios.forget_before(HostNs(11));
        assert!(known(&ios).is_empty() && !ios.has_lost(HostNs(8), HostNs(20)));
    }

    #[test]
    fn memory_is_bounded_and_what_was_let_go_of_is_known() {
        let mut ios = Ios::default();
        for time in 0..(DONE_MAX as u64 + 10) * 2 {
            let step = if time % 2 == 0 { BlockStep::Submitted } else { BlockStep::Completed };
            push(&mut ios, time, step, 0..8, Submitter::OwnVm);
        }
        assert_eq!(ios.done.len(), DONE_MAX);
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
