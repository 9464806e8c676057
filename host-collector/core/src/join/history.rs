//! The recent states of a vCPU's thread.

use super::part::Part;
use super::phase::{PhaseParts, RequestIo};
use crate::units::HostNs;
use std::collections::VecDeque;

/// Stretches that are kept at most.
const STRETCHES_MAX: usize = 1 << 20;

/// Stretches around the end of one request that are looked at at most.
const STRETCHES_LOOKED_AT_MAX: usize = 4096;

/// The recent states of a vCPU's thread, back to the earliest request that is in flight.
#[derive(Debug, Default)]
pub(super) struct History {
    stretches: VecDeque<Stretch>,
    forgotten_until: HostNs,
    until: HostNs,
}

/// What a thread did from some time on, forwards or backwards: each part with the distance in nanoseconds up
/// to which it lasted. The last one reaches as far as was asked for.
pub(super) type PartsByDistance = Vec<(u64, Part)>;

#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: HostNs,
    end: HostNs,
    part: Part,
}

impl History {
    /// What it did next.
    pub(super) fn push(&mut self, start: HostNs, end: HostNs, part: Part) {
        self.until = self.until.max(end);
        match self.stretches.back_mut() {
            Some(last) if last.end == start && last.part == part => last.end = end,
            _ => self.stretches.push_back(Stretch { start, end, part }),
        }
        if self.stretches.len() > STRETCHES_MAX
            && let Some(gone) = self.stretches.pop_front()
        {
            self.forgotten_until = gone.end;
        }
    }

    /// The end of the last state that was pushed.
    pub(super) fn until(&self) -> HostNs {
        self.until
    }

    /// Drops what ended before `time`.
    pub(super) fn forget_before(&mut self, time: HostNs) {
        while self.stretches.front().is_some_and(|stretch| stretch.end <= time) {
            self.stretches.pop_front();
        }
    }

    /// Whether the state at `time` may have been dropped for lack of room.
    pub(super) fn has_forgotten(&self, time: HostNs) -> bool {
        time < self.forgotten_until
    }

    /// The product over `[start, end)`, of which only `[known_from, known_until)` is to be believed
    /// and the rest counts as unknown; a window of `parts` as whoever laid the spans over it says.
    pub(super) fn product(
        &self,
        (start, end): (HostNs, HostNs),
        (known_from, known_until): (HostNs, HostNs),
        io: &RequestIo,
    ) -> PhaseParts {
        let mut product = PhaseParts::default();
        let mut at = start;
        let first = self.stretches.partition_point(|stretch| stretch.end <= known_from.max(start));
        for stretch in self.stretches.range(first..) {
            let from = stretch.start.max(known_from).max(at);
            let until = stretch.end.min(known_until).min(end);
            if until <= from {
                break;
            }
            product.add(at, from, Part::Unknown, io);
            product.add(from, until, stretch.part, io);
            at = until;
        }
        product.add(at, end, Part::Unknown, io);
        product
    }

    /// What it did from `at` on, as far as `length_ns`; what is not here is unknown. `None` if it
    /// did too much.
    pub(super) fn after(&self, at: HostNs, length_ns: u64) -> Option<PartsByDistance> {
        let first = self.stretches.partition_point(|stretch| stretch.end <= at);
        let until = HostNs(at.0.saturating_add(length_ns));
        let stretches = self.stretches.range(first..).take_while(|stretch| stretch.start < until);
        parts_by_distance(
            stretches.map(|stretch| {
                (stretch.start.since_ns(at), stretch.end.since_ns(at), stretch.part)
            }),
            length_ns,
        )
    }

    /// The same from `at` backwards.
    pub(super) fn before(&self, at: HostNs, length_ns: u64) -> Option<PartsByDistance> {
        let last = self.stretches.partition_point(|stretch| stretch.start < at);
        let from = HostNs(at.0.saturating_sub(length_ns));
        let stretches = self.stretches.range(..last).rev();
        let stretches = stretches.take_while(|stretch| stretch.end > from);
        parts_by_distance(
            stretches.map(|stretch| {
                (at.since_ns(stretch.end), at.since_ns(stretch.start), stretch.part)
            }),
            length_ns,
        )
    }
}

/// Stretches by how far away they begin and end, in order; what is between them is unknown.
fn parts_by_distance(
    stretches: impl Iterator<Item = (u64, u64, Part)>,
    length_ns: u64,
) -> Option<PartsByDistance> {
    let (mut away, mut covered_ns) = (PartsByDistance::new(), 0);
    for (from_ns, until_ns, part) in stretches {
        if from_ns > covered_ns {
            away.push((from_ns, Part::Unknown));
        }
        covered_ns = until_ns.min(length_ns);
        away.push((covered_ns, part));
        if away.len() > STRETCHES_LOOKED_AT_MAX {
            return None;
        }
    }
    if covered_ns < length_ns {
        away.push((length_ns, Part::Unknown));
    }
    Some(away)
}

#[cfg(test)]
mod tests {
    use super::super::part::PartsNs;
    use super::super::phase::Phase;
    use super::*;
    use proptest::prelude::*;

    fn index(number: u64) -> usize {
        usize::try_from(number).unwrap()
    }

    fn part(number: usize) -> Part {
        Part::ALL[number % Part::ALL.len()]
    }

    proptest! {
        /// By counting nanoseconds.
        #[test]
        fn the_product_is_what_counting_gives(
            stretches in prop::collection::vec((0..3_u64, 1..9_u64, 0..3_usize), 0..12),
            window in (0..60_u64, 0..60_u64), known in (0..60_u64, 0..80_u64),
            marks in (0..60_u64, 0..60_u64), pieces in (0..120_u64, 0..120_u64),
            forgotten in 0..60_u64,
        ) {
            let (start, end) = (window.0, window.0 + window.1);
            let submitted = start + marks.0.min(window.1);
            let completed = submitted.max(start + marks.1.min(window.1));
            let (mut history, mut by_time, mut at) = (History::default(), vec![None; 300], 0);
            for (gap, length, number) in stretches {
                let from = at + gap;
                at = from + length;
                history.push(HostNs(from), HostNs(at), part(number));
                (from..at).for_each(|time| by_time[index(time)] = Some(part(number)));
            }
            history.forget_before(HostNs(forgotten.min(start)));
            // Two I/Os, with a gap between them if the first ends before the second begins.
            let first_end = pieces.0.clamp(submitted, completed);
            let second_start = pieces.1.clamp(submitted, completed);
            let ios = [submitted..first_end, second_start..completed];
            let io = ios.map(|io| HostNs(io.start)..HostNs(io.end)).to_vec();
            let io = RequestIo::of(io).unwrap();
            let believed = (HostNs(known.0), HostNs(known.1));
            let product = history.product((HostNs(start), HostNs(end)), believed, &io);
            let mut expected = [PartsNs::default(); Phase::ALL.len()];
            for time in start..end {
                let phase = match time {
                    _ if time < submitted => Phase::Queued,
                    _ if (first_end..second_start).contains(&time) => Phase::Queued,
                    _ if time < completed => Phase::Device,
                    _ => Phase::Completed,
                };
                let is_known = (known.0..known.1).contains(&time);
                let part = by_time[index(time)].filter(|_| is_known).unwrap_or(Part::Unknown);
                expected[phase as usize].add(part, 1);
            }
            prop_assert_eq!(Phase::ALL.map(|phase| *product.of(phase)), expected);
        }
    }

    #[test]
    fn memory_is_bounded_and_what_was_let_go_of_is_known() {
        let mut history = History::default();
        for at in 0..STRETCHES_MAX as u64 + 10 {
            history.push(HostNs(at), HostNs(at + 1), part(index(at)));
        }
        assert_eq!(history.stretches.len(), STRETCHES_MAX);
        assert!(history.has_forgotten(HostNs(9)) && !history.has_forgotten(HostNs(10)));
    }
}
