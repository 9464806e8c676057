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

/// By how much each part of a request may be off.
pub(super) fn clock_error(history: &History, placed: &Placed) -> ClockError {
    let known = |placed: &Placed| {
        let (bound_ns, length_error_ns) = (placed.bound_ns, placed.length_error_ns);
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
    let mut error = ClockError { parts: PartsNs::default(), can_move: placed.bound_ns > 0 };
    let most_ns = placed.bound_ns.saturating_add(placed.length_error_ns);
    Part::ALL.into_iter().for_each(|part| error.parts.add(part, most_ns));
    error
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
