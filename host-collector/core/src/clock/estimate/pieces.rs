//! Where a clock stepped: exchanges cut into as few pieces as causality allows.
//!
//! A piece is a stretch of stamps that one line fits. They are taken in the order in which the host
//! sent, which is that in which a guest answers. What fits a stretch fits every part of it. So
//! taking the longest piece possible, again and again, makes as few as possible, from the front as
//! well as from the back; and every division into as few has its k-th cut between the two places at
//! which these have theirs:
//!
//! ```text
//!   stamps          . . . . . . . . . . . . . . . . .
//!   from the front  [ longest fit       |           ]   cut as late as can be
//!   from the back   [           |       longest fit ]   cut as early as can be
//!   certain         [ first     ]       [ second    ]   the step was somewhere between
//! ```
//!
//! Only what is certain is made into lines: stamps between the two places may be from either side
//! of the step. So the truth is within the lines' bounds if the clock did not step more often than
//! it must have. (A step that is smaller than what delays leave open cannot be seen, by anybody.)
//!
//! # Cost
//! A piece of n stamps is found by doubling its length until it no longer fits, and then by
//! bisection: at most 2 log n tests of at most 2n stamps, of which each costs a sort. So the whole
//! costs O(n (log n)^2), whatever the stamps are: 10 exchanges a second for a day are 2 million
//! stamps.

use super::line::{Stamp, contradiction_ns};
use std::ops::Range;

/// A step of the clock, between two stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// The last stamp that is certainly before it.
    pub(super) before: Option<usize>,
    /// The first stamp that is certainly after it; there may be none on its piece.
    pub(super) after: usize,
    /// By how much the stamps contradict each other without it, in nanoseconds.
    pub(super) excess_ns: u64,
}

/// The stamps of each piece that are certainly its own, in order; and the steps between the pieces.
pub(super) fn pieces(stamps: &[Stamp]) -> (Vec<Range<usize>>, Vec<Step>) {
    if contradiction_ns(stamps).is_none() {
        return (std::iter::once(0..stamps.len()).collect(), Vec::new());
    }
    let late = from_the_front(stamps);
    let early = from_the_back(stamps);
    let starts = || std::iter::once(0).chain(late.iter().map(|(cut, _)| *cut));
    let ends = early.iter().copied().chain([stamps.len()]);
    let certain = starts().zip(ends).map(|(start, end)| start..end.max(start)).collect();
    let steps = late.iter().zip(&early).map(|((late, excess_ns), early)| Step {
        before: early.checked_sub(1),
        after: *late,
        excess_ns: *excess_ns,
    });
    (certain, steps.collect())
}

/// The latest places of the cuts: each the first stamp that does not fit with the ones before it,
/// and by how much it does not.
fn from_the_front(stamps: &[Stamp]) -> Vec<(usize, u64)> {
    let mut cuts = Vec::new();
    let mut start = 0;
    while start < stamps.len() {
        let fits = |count| contradiction_ns(&stamps[start..start + count]).is_none();
        let count = longest(stamps.len() - start, fits);
        let piece = start;
        start += count;
        if start < stamps.len() {
            let excess_ns = contradiction_ns(&stamps[piece..=start]).unwrap_or(0);
            cuts.push((start, excess_ns));
        }
    }
    cuts
}

/// The earliest places of the cuts, in order.
fn from_the_back(stamps: &[Stamp]) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut end = stamps.len();
    while end > 0 {
        let fits = |count| contradiction_ns(&stamps[end - count..end]).is_none();
        end -= longest(end, fits);
        if end > 0 {
            cuts.push(end);
        }
    }
    cuts.reverse();
    cuts
}

/// The largest count up to `count_max` that fits, of which 1 always does: no count fits that is
/// larger than one that does not.
fn longest(count_max: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut good, mut bad) = (1, count_max + 1);
    while good + 1 < bad {
        // Doubling first, so that a short piece does not cost as much as all that is left.
        let middle = good.saturating_mul(2).min(good + (bad - good) / 2);
        if fits(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}
