//! The phases of a request's I/O, crossed with what the vCPU's thread was doing.

use super::part::{Part, PartsNs};
use crate::units::HostNs;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How far the host has come with a request's I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Submitted by the guest, not yet handed to the host's block layer.
    Queued,
    /// In flight on the host.
    Device,
    /// Done on the host; the guest has not seen it.
    Completed,
    /// Not known: see [`NoPhase`].
    Unknown,
}

impl Phase {
    /// Every phase, in order of time, and the unknown one.
    pub const ALL: [Phase; 4] = [Phase::Queued, Phase::Device, Phase::Completed, Phase::Unknown];

    /// The phase's name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Device => "device",
            Phase::Completed => "completed",
            Phase::Unknown => "unknown",
        }
    }
}

/// Why the phases of a request are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoPhase {
    /// The host's I/O was not recorded.
    NotRecorded,
    /// Records were lost meanwhile.
    Lost,
    /// No host I/O was seen for it: the host's page cache served it, for instance.
    NoIo,
    /// There was I/O, but it may be another request's.
    Ambiguous,
    /// There was I/O for its data whose end was not seen.
    Unfinished,
    /// There was I/O for its data that does not lie within it, clock errors allowed for.
    Contradiction,
    /// More was under way than is kept.
    Forgotten,
}

impl NoPhase {
    /// Every reason, in the order in which they are printed.
    pub const ALL: [NoPhase; 7] = [
        NoPhase::NotRecorded,
        NoPhase::Lost,
        NoPhase::NoIo,
        NoPhase::Ambiguous,
        NoPhase::Unfinished,
        NoPhase::Contradiction,
        NoPhase::Forgotten,
    ];
}

/// When the host had a request's I/O, within the request's own window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoMarks {
    /// The first I/O was handed to the block layer.
    pub submitted: HostNs,
    /// The last one was done; not before `submitted`.
    pub completed: HostNs,
}

/// Nanoseconds by phase and part. Over all phases, each part has what the request's
/// [`PartsNs`] have, and together they are its latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhaseParts([PartsNs; Phase::ALL.len()]);

impl PhaseParts {
    /// Of a request whose phases are not known.
    #[must_use]
    pub fn unknown(parts: PartsNs) -> PhaseParts {
        let mut all = PhaseParts::default();
        all.0[Phase::Unknown as usize] = parts;
        all
    }

    /// The parts of one phase.
    #[must_use]
    pub fn of(&self, phase: Phase) -> &PartsNs {
        &self.0[phase as usize]
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &PhaseParts) {
        for phase in Phase::ALL {
            self.0[phase as usize].add_all(other.of(phase));
        }
    }

    /// **I/O inactivity**: the data was there, and nobody was on the pCPU to take it (Jia et al.,
    /// "Effectively Mitigating I/O Inactivity in vCPU Scheduling", USENIX ATC 2018).
    #[must_use]
    pub fn inactivity_ns(&self) -> u64 {
        self.of(Phase::Completed).get(Part::PreemptWait)
    }

    /// Adds what the thread did from one time until another, cut at the marks.
    pub fn add(&mut self, from: HostNs, until: HostNs, part: Part, marks: &IoMarks) {
        let edges = [HostNs(0), marks.submitted, marks.completed, HostNs(u64::MAX)];
        for (phase, edge) in Phase::ALL.into_iter().zip(edges.windows(2)) {
            let (from, until) = (from.max(edge[0]), until.min(edge[1]));
            self.0[phase as usize].add(part, until.since_ns(from));
        }
    }
}

/// Stretches that are kept at most.
const STRETCHES_MAX: usize = 1 << 20;

/// What a vCPU's thread did lately: as far back as any request that is under way.
#[derive(Debug, Default)]
pub(super) struct History {
    stretches: VecDeque<Stretch>,
    forgotten_until: HostNs,
}

#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: HostNs,
    end: HostNs,
    part: Part,
}

impl History {
    /// What it did next.
    pub(super) fn push(&mut self, start: HostNs, end: HostNs, part: Part) {
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

    /// Lets go of what ended before `time`.
    pub(super) fn forget_before(&mut self, time: HostNs) {
        while self.stretches.front().is_some_and(|stretch| stretch.end <= time) {
            self.stretches.pop_front();
        }
    }

    /// Whether what it did at `time` may have been let go of for want of room.
    pub(super) fn has_forgotten(&self, time: HostNs) -> bool {
        time < self.forgotten_until
    }

    /// The product over `[start, end)`, of which only `[known_from, known_until)` is to be believed
    /// and the rest counts as unknown; a window of `parts` as whoever laid the spans over it says.
    pub(super) fn product(
        &self,
        (start, end): (HostNs, HostNs),
        (known_from, known_until): (HostNs, HostNs),
        marks: &IoMarks,
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
            product.add(at, from, Part::Unknown, marks);
            product.add(from, until, stretch.part, marks);
            at = until;
        }
        product.add(at, end, Part::Unknown, marks);
        product
    }
}

#[cfg(test)]
mod tests {
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
            marks in (0..60_u64, 0..60_u64), forgotten in 0..60_u64,
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
            let io = IoMarks { submitted: HostNs(submitted), completed: HostNs(completed) };
            let believed = (HostNs(known.0), HostNs(known.1));
            let product = history.product((HostNs(start), HostNs(end)), believed, &io);
            let mut expected = PhaseParts::default();
            for time in start..end {
                let phase = match time {
                    _ if time < submitted => Phase::Queued,
                    _ if time < completed => Phase::Device,
                    _ => Phase::Completed,
                };
                let is_known = (known.0..known.1).contains(&time);
                let part = by_time[index(time)].filter(|_| is_known).unwrap_or(Part::Unknown);
                expected.0[phase as usize].add(part, 1);
            }
            prop_assert_eq!(product, expected);
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
