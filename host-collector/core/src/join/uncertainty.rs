//! What could change in a breakdown within the clock error.
//!
//! The ends of a request are off alike, as one line maps both: the request was at `[start + d, end
//! + d)` for some d within the bound. So its parts gain what the vCPU's thread did from `end` to
//! `end + d`, and lose what it did from `start` to `start + d`:
//!
//! ```text
//!            start                       end
//!   ==========|======pppppp====wwww=======|=====pppp      =  on a pCPU
//!             |--d->                      |--d->          p  preempted
//!              lost: 4 of =                gained: 4 of =            nothing changed
//!             |-----d----->               |-----d----->
//!              lost: 6 of =, 4 of p        gained: 5 of =, 4 of p, 1 unknown
//! ```
//!
//! How much of a part is gained and lost changes steadily from one edge of a state to the next, so
//! the most that a part can change by is found at an edge. The length of the request is off by a
//! little on its own: what is at its end by as much more or less.

use super::history::{History, PartsByDistance};
use super::part::{Part, PartsNs};
use super::placed::Placed;
use crate::units::HostNs;

/// By how much each part of a request may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockError {
    /// Nanoseconds, for each part.
    pub parts: PartsNs,
    /// Whether some part may be off by more than what the length is off by.
    pub can_move: bool,
}

/// An end of a piece of an observed request that lies over one vCPU's thread, or over one that is not known.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    /// What that thread did; `None` if it is not known which.
    pub(super) history: Option<&'a History>,
    /// When it is.
    pub(super) at: HostNs,
    /// By how many nanoseconds it may be off.
    pub(super) bound_ns: u64,
}

/// By how much each part of a request may be off whose ends are by several clocks, so that each of them may
/// be off on its own: where one is moved, its thread's piece gains or loses what the thread did there. That
/// is at most what the thread did within the end's bound, on either side.
pub(super) fn error_of_ends(ends: &[End<'_>]) -> ClockError {
    let (mut error, mut is_there) = (ClockError::default(), [false; Part::ALL.len()]);
    for end in ends.iter().filter(|end| end.bound_ns > 0) {
        let from = HostNs(end.at.0.saturating_sub(end.bound_ns));
        let Some(history) = end.history else {
            error.parts.add(Part::Unknown, end.bound_ns);
            is_there[Part::Unknown as usize] = true;
            continue;
        };
        let around = (!history.has_forgotten(from)).then(|| {
            let after = history.after(end.at, end.bound_ns)?;
            Some([after, history.before(end.at, end.bound_ns)?])
        });
        let Some(around) = around.flatten() else {
            return anything_within(ends.iter().map(|end| end.bound_ns));
        };
        let [after, before] = around.map(|side| parts_of(&side));
        for part in Part::ALL {
            let most_ns = after.get(part).max(before.get(part));
            error.parts.add(part, most_ns);
            is_there[part as usize] |= most_ns > 0;
        }
    }
    // All ends in one and the same state change how long the request is in it, and nothing else.
    error.can_move = is_there.into_iter().filter(|is_there| *is_there).count() > 1;
    error
}

fn parts_of(side: &PartsByDistance) -> PartsNs {
    let (mut parts, mut from_ns) = (PartsNs::default(), 0);
    for (until_ns, part) in side {
        parts.add(*part, until_ns.saturating_sub(from_ns));
        from_ns = *until_ns;
    }
    parts
}

/// Of a request of which it is not known what its threads did around its ends.
pub(super) fn anything_within(bounds_ns: impl Iterator<Item = u64>) -> ClockError {
    let most_ns = bounds_ns.fold(0, u64::saturating_add);
    let mut error = ClockError { parts: PartsNs::default(), can_move: most_ns > 0 };
    Part::ALL.into_iter().for_each(|part| error.parts.add(part, most_ns));
    error
}

/// By how much each part of a request may be off.
pub(super) fn clock_error(history: &History, placed: &Placed) -> ClockError {
    let known = |placed: &Placed| {
        let (bound_ns, length_error_ns) = (placed.bounds.worst_ns(), placed.length_error_ns);
        let from = HostNs(placed.start.0.saturating_sub(bound_ns));
        if history.has_forgotten(from) {
            return None;
        }
        let reach_ns = bound_ns.saturating_add(length_error_ns);
        let later = (history.after(placed.start, bound_ns)?, history.after(placed.end, reach_ns)?);
        let earlier =
            (history.before(placed.start, bound_ns)?, history.before(placed.end, reach_ns)?);
        let mut error = ClockError::default();
        for (at_start, at_end) in [&later, &earlier] {
            shift(at_start, at_end, bound_ns, &mut error.parts);
        }
        error.can_move = error.parts.total_ns() > 0;
        let at_end = later.1.iter().chain(&earlier.1).map(|(_, part)| *part);
        let mut is_there = [false; Part::ALL.len()];
        at_end.for_each(|part| is_there[part as usize] = true);
        for part in Part::ALL.into_iter().filter(|part| is_there[*part as usize]) {
            error.parts.add(part, length_error_ns);
        }
        Some(error)
    };
    known(placed).unwrap_or_else(|| anything(placed))
}

/// Of a request of which it is not known what the thread did around its ends: no part can gain or
/// lose more than all of the error.
pub(super) fn anything(placed: &Placed) -> ClockError {
    let bound_ns = placed.bounds.worst_ns();
    let error = anything_within([bound_ns, placed.length_error_ns].into_iter());
    ClockError { can_move: bound_ns > 0, ..error }
}

/// Moves both ends away, as far as `bound_ns`, and notes in `most` by how much each part changes at
/// most.
fn shift(at_start: &PartsByDistance, at_end: &PartsByDistance, bound_ns: u64, most: &mut PartsNs) {
    let mut change = [0_i128; Part::ALL.len()];
    let (mut start, mut end) = (at_start.iter().peekable(), at_end.iter().peekable());
    let mut at_ns = 0;
    while let (Some((start_until, lost)), Some((end_until, gained))) = (start.peek(), end.peek()) {
        let until_ns = *start_until.min(end_until).min(&bound_ns);
        let length = i128::from(until_ns.saturating_sub(at_ns));
        at_ns = until_ns;
        change[*gained as usize] += length;
        change[*lost as usize] -= length;
        for part in [*gained, *lost] {
            let changed_ns = u64::try_from(change[part as usize].abs()).unwrap_or(u64::MAX);
            most.add(part, changed_ns.saturating_sub(most.get(part)));
        }
        if at_ns >= bound_ns {
            return;
        }
        start.next_if(|(until, _)| *until <= at_ns);
        end.next_if(|(until, _)| *until <= at_ns);
    }
}
