//! The clock map, estimated from exchanges. Pure: samples in, map out.
//!
//! # What is known
//! The guest's clock and the host's run at a constant ratio, with a constant offset: the host time
//! of a guest time g is a line, h(g). Neither number is known. Causality alone bounds them: a ping
//! is not received before it was sent, nor an answer.
//!
//! ```text
//!   host    sent |------------------------------------| received
//!                 \                                  /
//!                  \ ping                      pong /
//!                   v                              /
//!   guest            | received             sent |
//!
//!                h(guest_received) >= host_sent
//!                h(guest_sent)     <= host_received
//! ```
//!
//! No delay is assumed to be symmetric, or typical, or bounded. Many exchanges over a long time
//! leave little room for a line, because each delay that happens to be short pins the line from
//! one side. See `band` for the geometry.
//!
//! # What is chosen
//! *One* line serves the whole run, as long as one fits, so that a difference of two mapped times
//! is exact up to the error of the rate alone: a map that followed the samples piece by piece would
//! add their jitter to every latency. It is the middle between the steepest feasible line and the
//! shallowest one, which makes the largest bound over the run the smallest possible:
//!
//! ```text
//!   host |                                 /  ..' highest feasible
//!        |..                            /..'/
//!        |   '''..                  ..:'  /    the bound at g is the larger one of
//!        |        ''':--.......-:''   /         the distances from the chosen line to the
//!        |       ..:'   chosen  '':-/..         highest and to the lowest feasible value
//!        |  ..:' /                /    '''..
//!        |.'   /                             lowest feasible
//!        +--------------------------------------- guest
//! ```
//!
//! The bound is no estimate and has no confidence level: if the clocks are two lines, the truth is
//! within it. Both lines that enclose it are convex, so that within the window the bound is largest
//! at one of its ends.
//!
//! # Steps
//! A clock that is written to, a guest that is suspended or moved, a rate that changes: then no
//! line fits, and the map is cut into as few pieces as the exchanges allow, see `pieces`. Times
//! that may have been read between two pieces have no host time, see `owners`.
//!
//! # Arithmetic
//! All of it is in integers, relative to the first exchange, and every bound is rounded outwards.
//! A stamp is a clock reading that was cut to whole units, so that the event came within the unit
//! after it; each inequality is widened by the one unit that this may cost.

mod band;
mod line;
mod outermost;
mod owners;
mod pieces;

use crate::units::{GuestTicks, HostNs};
use line::{Anchor, LineMap, Stamp};
pub use outermost::Outermost;
use owners::{GuestRange, Owners};
use pieces::Step;
use std::ops::Range;

/// One round trip between the collector and a guest's vCPU: four stamps on two clocks.
///
/// Causality alone says that the guest's `guest_received` was not before `host_sent`, and its
/// `guest_sent` not after `host_received`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// The host time just before the collector sent the ping.
    pub host_sent: HostNs,
    /// The guest time just after the guest received the ping.
    pub guest_received: GuestTicks,
    /// The guest time just before the guest sent the answer.
    pub guest_sent: GuestTicks,
    /// The host time just after the collector received the answer.
    pub host_received: HostNs,
}

/// A guest time on the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// The estimate: close to the middle of what causality allows.
    pub at: HostNs,
    /// The true time is within this many nanoseconds of `at`, on either side.
    pub bound_ns: u64,
    /// The piece of the map that it lies on, counted from 0: all times on one piece have the same error.
    pub piece: usize,
}

/// Two guest times on the host's clock, on one piece of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedLength {
    /// The first.
    pub from: Mapped,
    /// The second.
    pub to: Mapped,
    /// The length between them is wrong by at most this many nanoseconds. That is much less than the bounds,
    /// because both ends have the same error.
    pub error_ns: u64,
}

/// Why a guest time has no host time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmapped {
    /// It lies between two pieces of the map, where the clock stepped.
    BetweenPieces,
    /// The clock may have read it more than once: it was set back.
    Ambiguous,
    /// Of a length: the clock stepped between its ends.
    AcrossCut,
}

/// A step of the guest's clock, or a change of its rate: the map is in two pieces there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The step was no earlier than this ...
    pub after: HostNs,
    /// ... and no later than this.
    pub before: HostNs,
    /// The size of the step in nanoseconds of the host's clock, at least; 0 if only the rate may have
    /// changed.
    pub step_ns: u64,
}

/// Turns the times of one vCPU into host times.
#[derive(Debug, Clone)]
pub struct ClockMap {
    /// The pieces that have a map, in order of time; at least one.
    pieces: Vec<LineMap>,
    owners: Owners,
    cuts: Vec<Cut>,
    exchange_count: usize,
}

/// Why there is no map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// A rate needs two points in time.
    #[error("a clock map needs at least 2 exchanges, but there are {count}")]
    TooFew {
        /// How many exchanges there are.
        count: usize,
    },
    /// The exchanges lie within one round trip of each other, so that any rate would fit; or they
    /// contradict each other wherever they do not.
    #[error(
        "the exchanges span {guest_span_ticks} guest ticks and {host_span_ns} ns and contradict each other \
         {cut_count} times: between two contradictions they are too close together to tell the rate"
    )]
    TooClose {
        /// From the earliest to the latest guest stamp.
        guest_span_ticks: u64,
        /// From the earliest to the latest host stamp.
        host_span_ns: u64,
        /// How often they contradict each other.
        cut_count: usize,
    },
}

/// A piece that has a map.
struct Piece {
    line: LineMap,
    /// The stamps that are certainly its own.
    certain: Range<usize>,
    /// Which one it is of all pieces, those without a map among them.
    number: usize,
}

impl ClockMap {
    /// The map of one vCPU from exchanges with it, in any order.
    ///
    /// Exchanges at both ends of the run matter most: they fix the rate. For n of them it takes
    /// O(n (log n)^2), whatever they say.
    ///
    /// # Errors
    /// See [`ClockError`]: too few, or too close together.
    pub fn estimate(exchanges: &[Exchange]) -> Result<ClockMap, ClockError> {
        let count = exchanges.len();
        if count < 2 {
            return Err(ClockError::TooFew { count });
        }
        let mut exchanges = exchanges.to_vec();
        exchanges.sort_by_key(|exchange| (exchange.host_sent, exchange.host_received));
        let stamps = line::stamps(&exchanges);
        let (certain, steps) = pieces::pieces(&stamps);
        let of_piece = |(number, certain): (usize, Range<usize>)| {
            let line = LineMap::of(&stamps[certain.clone()])?;
            Some(Piece { line, certain, number })
        };
        let pieces: Vec<Option<Piece>> = certain.into_iter().enumerate().map(of_piece).collect();
        let cuts = steps.iter().enumerate().map(|(number, step)| {
            let line = |number: usize| pieces[number].as_ref().map(|piece| &piece.line);
            cut(&stamps, step, line(number), line(number + 1))
        });
        let cuts: Vec<Cut> = cuts.collect();
        let pieces: Vec<Piece> = pieces.into_iter().flatten().collect();
        if pieces.is_empty() {
            let anchor = Anchor::of(&stamps);
            return Err(ClockError::TooClose {
                guest_span_ticks: anchor.map_or(0, |anchor| anchor.guest_span_ticks()),
                host_span_ns: anchor.map_or(0, |anchor| anchor.host_span_ns()),
                cut_count: cuts.len(),
            });
        }
        let owners = Owners::of(&readings(&stamps, &pieces, cuts.len()));
        let pieces = pieces.into_iter().map(|piece| piece.line).collect();
        Ok(ClockMap { pieces, owners, cuts, exchange_count: count })
    }

    /// A guest time on the host's clock, for guest times from the first exchange on. Beyond the
    /// last one, and for a map in one piece also before the first one, the bound grows with the
    /// distance.
    ///
    /// On one piece, later guest times never map to earlier host times. Host times before 0 and
    /// beyond `u64` are cut to these.
    ///
    /// # Errors
    /// See [`Unmapped`]. A map in one piece has none.
    pub fn to_host(&self, guest: GuestTicks) -> Result<Mapped, Unmapped> {
        let piece = self.owners.piece(guest)?;
        Ok(self.pieces[piece].to_host(guest, piece))
    }

    /// Two guest times on the host's clock.
    ///
    /// # Errors
    /// See [`Unmapped`]: one of them has no host time, or they lie on different pieces.
    pub fn length_to_host(
        &self,
        from: GuestTicks,
        to: GuestTicks,
    ) -> Result<MappedLength, Unmapped> {
        let mapped = (self.to_host(from)?, self.to_host(to)?);
        if mapped.0.piece != mapped.1.piece {
            return Err(Unmapped::AcrossCut);
        }
        let error_ns = self.pieces[mapped.0.piece].length_error_ns(from, to);
        Ok(MappedLength { from: mapped.0, to: mapped.1, error_ns })
    }

    /// By how many nanoseconds an exchange that is not part of the map contradicts it, beyond the map's
    /// bounds; 0 if it does not.
    ///
    /// # Errors
    /// See [`Unmapped`].
    pub fn beyond_ns(&self, exchange: &Exchange) -> Result<u64, Unmapped> {
        let received = self.to_host(exchange.guest_received)?;
        let sent = self.to_host(exchange.guest_sent)?;
        // The ping was received after it was sent, the answer sent before it was received; a stamp is
        // cut to the unit that it lies in.
        let latest_ns = received.at.0.saturating_add(received.bound_ns);
        let earliest_ns = sent.at.0.saturating_sub(sent.bound_ns);
        let early_ns = exchange.host_sent.0.saturating_sub(latest_ns.saturating_add(1));
        let late_ns = earliest_ns.saturating_sub(exchange.host_received.0.saturating_add(1));
        Ok(early_ns.max(late_ns))
    }

    /// The largest bound of any guest time between the stamps of a piece.
    #[must_use]
    pub fn bound_ns(&self) -> u64 {
        self.pieces.iter().map(LineMap::bound_ns).max().unwrap_or(0)
    }

    /// Where the clock stepped, in order of time.
    #[must_use]
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// How many exchanges the map was made from.
    #[must_use]
    pub fn exchange_count(&self) -> usize {
        self.exchange_count
    }

    /// The largest distance between two vCPUs' clocks in nanoseconds, at least: what lies between their
    /// bounds at the same guest time. 0 if they may be one clock.
    ///
    /// Compares pieces that share host time, or the only pieces. It also tells whether two maps of the same
    /// clock, made in different ways, contradict each other.
    #[must_use]
    pub fn apart_ns(&self, other: &ClockMap) -> u64 {
        let (mut one, mut two) = (self.pieces.iter().peekable(), other.pieces.iter().peekable());
        let are_whole = self.cuts.is_empty() && other.cuts.is_empty();
        let mut apart_ns = 0;
        while let (Some(left), Some(right)) = (one.peek(), two.peek()) {
            let (left_last, right_last) = (left.anchor.host_last, right.anchor.host_last);
            let share_time =
                left.anchor.host_first <= right_last && right.anchor.host_first <= left_last;
            if share_time || are_whole {
                apart_ns = apart_ns.max(left.apart_ns(right));
            }
            if left_last <= right_last {
                one.next()
            } else {
                two.next()
            };
        }
        apart_ns
    }
}

/// What is known of a step between two pieces.
fn cut(stamps: &[Stamp], step: &Step, left: Option<&LineMap>, right: Option<&LineMap>) -> Cut {
    let after = step.before.and_then(|before| stamps.get(before)).map(|stamp| stamp.not_before);
    let before = stamps.get(step.after).map(|stamp| stamp.not_after);
    // Two units by which stamps are cut, and one for rounding.
    let mut step_ns = step.excess_ns.saturating_sub(3);
    if let (Some(left), Some(right)) = (left, right) {
        // What is between two lines is largest or smallest at an end of any stretch.
        let ends = [left.anchor.guest_last, right.anchor.guest_first];
        let [one, two] = ends.map(|guest| right.later_ns(left, guest));
        if one.signum() == two.signum() {
            step_ns = step_ns.max(line::saturated(one.abs().min(two.abs())));
        }
    }
    Cut { after: after.unwrap_or_default(), before: before.unwrap_or_default(), step_ns }
}

/// Every guest time.
const EVER: (i128, i128) = (0, u64::MAX as i128);

/// What the clock may have read, on each piece and between them.
fn readings(stamps: &[Stamp], pieces: &[Piece], cut_count: usize) -> Vec<GuestRange> {
    if cut_count == 0 {
        return vec![GuestRange { first: EVER.0, last: EVER.1, piece: Some(0) }];
    }
    let mut readings = Vec::new();
    for (piece, Piece { line, number, .. }) in pieces.iter().enumerate() {
        let (first, last) = ends(line);
        // The last piece goes on beyond its last stamp.
        let last = if *number == cut_count { EVER.1 } else { last };
        readings.push(GuestRange { first, last, piece: Some(piece) });
    }
    let lefts = std::iter::once(None).chain(pieces.iter().map(Some));
    let rights = pieces.iter().map(Some).chain([None]);
    for (left, right) in lefts.zip(rights) {
        let skipped_count = right.map_or(cut_count + 1, |piece| piece.number)
            - left.map_or(0, |piece| piece.number + 1);
        between(stamps, left, right, skipped_count, &mut readings);
    }
    readings
}

/// The guest times of a line's first and last stamp.
fn ends(line: &LineMap) -> (i128, i128) {
    (i128::from(line.anchor.guest_first.0), i128::from(line.anchor.guest_last.0))
}

/// What the clock may have read between two pieces that have a map, before the first one, or after
/// the last one, where so many pieces without a map were skipped.
fn between(
    stamps: &[Stamp],
    left: Option<&Piece>,
    right: Option<&Piece>,
    skipped_count: usize,
    readings: &mut Vec<GuestRange>,
) {
    if skipped_count == 0 && (left.is_none() || right.is_none()) {
        return;
    }
    let from = left.map_or(0, |piece| piece.certain.end);
    let until = right.map_or(stamps.len(), |piece| piece.certain.start);
    let left_edge = stamps.get(from.saturating_sub(1)).map_or(HostNs(0), |edge| edge.not_before);
    let right_edge = stamps.get(until).or(stamps.last()).map_or(HostNs(0), |edge| edge.not_after);
    let ticks = |piece: &Piece| piece.line.ticks_max(right_edge.since_ns(left_edge));
    let mut stray = |first, last| readings.push(GuestRange { first, last, piece: None });
    // Either line may have gone on until the clock stepped, or from there on.
    if let Some(piece) = left {
        let last = ends(&piece.line).1;
        stray(last + 1, last + ticks(piece));
    }
    if let Some(piece) = right {
        let first = ends(&piece.line).0;
        stray(first - ticks(piece), first - 1);
    }
    if skipped_count > 0 {
        // Steps in quick succession: the rates between them are not known, and taken for no more
        // than twice those around. What came after the last piece may have gone on for ever.
        let neighbours = [left, right].into_iter().flatten();
        let around = 2 * neighbours.map(ticks).max().unwrap_or(0);
        for stamp in stamps.get(from..until).unwrap_or(&[]) {
            let guest = i128::from(stamp.guest.0);
            stray(guest - around, if right.is_none() { EVER.1 } else { guest + around });
        }
    }
}

#[cfg(test)]
mod piece_laws;
#[cfg(test)]
mod tests;
