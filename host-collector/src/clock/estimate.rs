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
//! *One* line serves the whole run, so that a difference of two mapped times is exact up to the
//! error of the rate alone: a map that followed the samples piece by piece would add their jitter
//! to every latency. It is the middle between the steepest feasible line and the shallowest one,
//! which makes the largest bound over the run the smallest possible:
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
//! # Arithmetic
//! All of it is in integers, relative to the first exchange, and every bound is rounded outwards.
//! A stamp is a clock reading that was cut to whole units, so that the event came within the unit
//! after it; each inequality is widened by the one unit that this may cost.

mod band;

use crate::units::{GuestTicks, HostNs};
use band::{Band, COORDINATE_MAX, Line, NoBand, Point};

/// One round trip between the collector and a guest's vCPU: four stamps on two clocks.
///
/// Causality alone says that the guest's `guest_received` was not before `host_sent`, and its
/// `guest_sent` not after `host_received`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// When the collector was about to send.
    pub host_sent: HostNs,
    /// When the guest had received.
    pub guest_received: GuestTicks,
    /// When the guest was about to answer.
    pub guest_sent: GuestTicks,
    /// When the collector had the answer.
    pub host_received: HostNs,
}

/// A guest time on the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// The estimate: close to the middle of what causality allows.
    pub at: HostNs,
    /// The true time is within this many nanoseconds of `at`, on either side.
    pub bound_ns: u64,
}

/// Turns the times of one vCPU into host times.
#[derive(Debug, Clone)]
pub struct ClockMap {
    anchor: Anchor,
    band: Band,
    /// The chosen line, through integer points at both ends of the window.
    chosen: Line,
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
    /// One exchange contradicts itself: a clock ran backwards while it was under way.
    #[error(
        "exchange {index} ran backwards: sent at {} ns and answered at {} ns by the host's clock, \
         received at {} and answered at {} ticks by the guest's",
        .exchange.host_sent.0, .exchange.host_received.0,
        .exchange.guest_received.0, .exchange.guest_sent.0
    )]
    Backwards {
        /// Its place among the exchanges, from 0.
        index: usize,
        /// The exchange.
        exchange: Exchange,
    },
    /// The stamps are further apart than any run can be.
    #[error(
        "the exchanges span {guest_span_ticks} guest ticks and {host_span_ns} ns, more than 2^60"
    )]
    TooFarApart {
        /// From the earliest to the latest guest stamp.
        guest_span_ticks: u64,
        /// From the earliest to the latest host stamp.
        host_span_ns: u64,
    },
    /// The exchanges lie within one round trip of each other: any rate would fit.
    #[error(
        "the exchanges span only {guest_span_ticks} guest ticks and {host_span_ns} ns, too close \
         together for their round trips to tell the rate"
    )]
    TooClose {
        /// From the earliest to the latest guest stamp.
        guest_span_ticks: u64,
        /// From the earliest to the latest host stamp.
        host_span_ns: u64,
    },
    /// No constant rate and offset fit: a clock stepped, or its rate changed.
    #[error(
        "no constant rate and offset fit the exchanges: near guest time {} they contradict each \
         other by {violation_ns} ns (a clock stepped, or its rate changed)",
        .near.0
    )]
    NoLine {
        /// How far any line that obeys the other exchanges is off there, in nanoseconds; a step
        /// of the clock is at least this large.
        violation_ns: u64,
        /// Where the contradiction is largest.
        near: GuestTicks,
    },
}

/// The earliest stamps on both clocks, from which all coordinates count, and the latest ones.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    guest_first: GuestTicks,
    guest_last: GuestTicks,
    host_first: HostNs,
    host_last: HostNs,
}

impl Anchor {
    fn of(exchanges: &[Exchange]) -> Option<Anchor> {
        Some(Anchor {
            guest_first: exchanges.iter().map(|exchange| exchange.guest_received).min()?,
            guest_last: exchanges.iter().map(|exchange| exchange.guest_sent).max()?,
            host_first: exchanges.iter().map(|exchange| exchange.host_sent).min()?,
            host_last: exchanges.iter().map(|exchange| exchange.host_received).max()?,
        })
    }

    fn guest_span_ticks(&self) -> u64 {
        self.guest_last.0.saturating_sub(self.guest_first.0)
    }

    fn host_span_ns(&self) -> u64 {
        self.host_last.since_ns(self.host_first)
    }

    fn x(&self, guest: GuestTicks) -> i128 {
        i128::from(guest.0) - i128::from(self.guest_first.0)
    }

    fn y(&self, host: HostNs) -> i128 {
        i128::from(host.0) - i128::from(self.host_first.0)
    }

    fn guest(&self, x: i128) -> GuestTicks {
        GuestTicks(saturated(x + i128::from(self.guest_first.0)))
    }

    fn host(&self, y: i128) -> HostNs {
        HostNs(saturated(y + i128::from(self.host_first.0)))
    }
}

/// The nearest `u64`.
fn saturated(value: i128) -> u64 {
    u64::try_from(value.max(0)).unwrap_or(u64::MAX)
}

impl ClockMap {
    /// The map of one vCPU from exchanges with it, in any order.
    ///
    /// Exchanges at both ends of the run matter most: they fix the rate.
    ///
    /// # Errors
    /// See [`ClockError`]: too few, too close together, or contradicting each other.
    pub fn estimate(exchanges: &[Exchange]) -> Result<ClockMap, ClockError> {
        let count = exchanges.len();
        let anchor =
            Anchor::of(exchanges).filter(|_| count >= 2).ok_or(ClockError::TooFew { count })?;
        if let Some((index, exchange)) = exchanges.iter().enumerate().find(|(_, exchange)| {
            exchange.guest_sent < exchange.guest_received
                || exchange.host_received < exchange.host_sent
        }) {
            return Err(ClockError::Backwards { index, exchange: *exchange });
        }
        let (guest_span_ticks, host_span_ns) = (anchor.guest_span_ticks(), anchor.host_span_ns());
        // One less than the most, for the units by which the inequalities are widened.
        if i128::from(guest_span_ticks.max(host_span_ns)) >= COORDINATE_MAX {
            return Err(ClockError::TooFarApart { guest_span_ticks, host_span_ns });
        }
        // floor:    h(guest_received + 1) >= host_sent
        let floors = exchanges.iter().map(|exchange| Point {
            x: anchor.x(exchange.guest_received) + 1,
            y: anchor.y(exchange.host_sent),
        });
        // ceiling:  h(guest_sent) <= host_received + 1
        let ceilings = exchanges.iter().map(|exchange| Point {
            x: anchor.x(exchange.guest_sent),
            y: anchor.y(exchange.host_received) + 1,
        });
        let band = Band::between(floors.collect(), ceilings.collect()).map_err(|no| match no {
            NoBand::TooClose => ClockError::TooClose { guest_span_ticks, host_span_ns },
            NoBand::Conflict(conflict) => ClockError::NoLine {
                violation_ns: saturated(conflict.excess),
                near: anchor.guest(conflict.x),
            },
        })?;
        let end = |x: i128| Point {
            x,
            // y = (steepest(x) + shallowest(x)) / 2
            y: (band.steepest.round_at(x) + band.shallowest.round_at(x)).div_euclid(2),
        };
        let chosen = Line { from: end(0), to: end(anchor.x(anchor.guest_last)) };
        Ok(ClockMap { anchor, band, chosen, exchange_count: count })
    }

    /// A guest time on the host's clock, for any guest time: outside of [`ClockMap::window`] the
    /// bound grows with the distance.
    ///
    /// Later guest times never map to earlier host times. Host times before 0 and beyond `u64` are
    /// cut to these.
    #[must_use]
    pub fn to_host(&self, guest: GuestTicks) -> Mapped {
        let x = self.anchor.x(guest);
        let at = self.chosen.floor_at(x);
        // The clock read `guest` from h(guest) until h(guest + 1).
        let above = self.band.highest_at(x + 1) - at;
        let below = at - self.band.lowest_at(x);
        Mapped { at: self.anchor.host(at), bound_ns: saturated(above.max(below)) }
    }

    /// The largest bound of any guest time within [`ClockMap::window`].
    #[must_use]
    pub fn bound_ns(&self) -> u64 {
        let (first, last) = self.window();
        self.to_host(first).bound_ns.max(self.to_host(last).bound_ns)
    }

    /// The guest times between which the map was measured: the first and the last stamp.
    #[must_use]
    pub fn window(&self) -> (GuestTicks, GuestTicks) {
        (self.anchor.guest_first, self.anchor.guest_last)
    }

    /// The estimated length of one guest tick in nanoseconds of the host's clock.
    #[must_use]
    pub fn ns_per_tick(&self) -> f64 {
        ratio(&self.chosen)
    }

    /// Between which values the length of one guest tick in nanoseconds must lie.
    #[must_use]
    pub fn ns_per_tick_range(&self) -> (f64, f64) {
        (ratio(&self.band.shallowest), ratio(&self.band.steepest))
    }

    /// How many exchanges the map was made from.
    #[must_use]
    pub fn exchange_count(&self) -> usize {
        self.exchange_count
    }
}

/// The slope of a line, for people to read.
fn ratio(line: &Line) -> f64 {
    line.dy() as f64 / line.dx() as f64
}

#[cfg(test)]
mod tests;
