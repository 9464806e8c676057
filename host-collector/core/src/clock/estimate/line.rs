//! One constant rate and offset, as far as some stamps tell them.

use super::band::{Band, COORDINATE_MAX, Line, Point};
use super::{Exchange, Mapped};
use crate::units::{GuestTicks, HostNs};

/// Which side of an exchange a stamp bounds the line from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The guest received: not before the host had sent.
    Floor,
    /// The guest answered: not after the host received.
    Ceiling,
}

/// Half of an exchange: one reading of the guest's clock, and what it bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) side: Side,
    pub(super) guest: GuestTicks,
    pub(super) host: HostNs,
    /// The host had not sent before the guest's clock was read ...
    pub(super) not_before: HostNs,
    /// ... and had the answer when it had been read.
    pub(super) not_after: HostNs,
}

/// The stamps of exchanges, each floor before its ceiling.
pub(super) fn stamps(exchanges: &[Exchange]) -> Vec<Stamp> {
    let halves = |exchange: &Exchange| {
        let (not_before, not_after) = (exchange.host_sent, exchange.host_received);
        let half = |side, guest, host| Stamp { side, guest, host, not_before, not_after };
        [
            half(Side::Floor, exchange.guest_received, exchange.host_sent),
            half(Side::Ceiling, exchange.guest_sent, exchange.host_received),
        ]
    };
    exchanges.iter().flat_map(halves).collect()
}

/// The earliest stamps on both clocks, from which all coordinates count, and the latest ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    pub(super) guest_first: GuestTicks,
    pub(super) guest_last: GuestTicks,
    pub(super) host_first: HostNs,
    pub(super) host_last: HostNs,
}

impl Anchor {
    pub(super) fn of(stamps: &[Stamp]) -> Option<Anchor> {
        Some(Anchor {
            guest_first: stamps.iter().map(|stamp| stamp.guest).min()?,
            guest_last: stamps.iter().map(|stamp| stamp.guest).max()?,
            host_first: stamps.iter().map(|stamp| stamp.host).min()?,
            host_last: stamps.iter().map(|stamp| stamp.host).max()?,
        })
    }

    pub(super) fn guest_span_ticks(&self) -> u64 {
        self.guest_last.0.saturating_sub(self.guest_first.0)
    }

    pub(super) fn host_span_ns(&self) -> u64 {
        self.host_last.since_ns(self.host_first)
    }

    /// Whether the arithmetic holds the stamps.
    pub(super) fn is_within_limits(&self) -> bool {
        // One less than the most, for the units by which the inequalities are widened.
        i128::from(self.guest_span_ticks().max(self.host_span_ns())) < COORDINATE_MAX
    }

    pub(super) fn x(&self, guest: GuestTicks) -> i128 {
        i128::from(guest.0) - i128::from(self.guest_first.0)
    }

    fn y(&self, host: HostNs) -> i128 {
        i128::from(host.0) - i128::from(self.host_first.0)
    }

    fn host(&self, y: i128) -> HostNs {
        HostNs(saturated(y + i128::from(self.host_first.0)))
    }

    /// What the stamps say, as points: floors and ceilings.
    pub(super) fn points(&self, stamps: &[Stamp]) -> (Vec<Point>, Vec<Point>) {
        let (mut floors, mut ceilings) = (Vec::new(), Vec::new());
        for stamp in stamps {
            let (x, y) = (self.x(stamp.guest), self.y(stamp.host));
            match stamp.side {
                // h(guest_received + 1) >= host_sent
                Side::Floor => floors.push(Point { x: x + 1, y }),
                // h(guest_sent) <= host_received + 1
                Side::Ceiling => ceilings.push(Point { x, y: y + 1 }),
            }
        }
        (floors, ceilings)
    }
}

/// The nearest `u64`.
pub(super) fn saturated(value: i128) -> u64 {
    u64::try_from(value.max(0)).unwrap_or(u64::MAX)
}

/// By how much these stamps contradict one constant rate and offset, in nanoseconds; `None` if they
/// do not. Stamps that no run can have contradict everything.
pub(super) fn contradiction_ns(stamps: &[Stamp]) -> Option<u64> {
    let anchor = Anchor::of(stamps)?;
    if !anchor.is_within_limits() {
        return Some(anchor.host_span_ns());
    }
    let runs_backwards = |pair: &[Stamp]| {
        let is_one_exchange = pair[0].side == Side::Floor && pair[1].side == Side::Ceiling;
        is_one_exchange && pair[1].guest < pair[0].guest
    };
    let (floors, ceilings) = anchor.points(stamps);
    let excess = Band::excess(floors, ceilings).map(saturated);
    if stamps.windows(2).any(runs_backwards) { Some(excess.unwrap_or(0)) } else { excess }
}

/// A clock that runs at one rate from one offset.
#[derive(Debug, Clone)]
pub(super) struct LineMap {
    pub(super) anchor: Anchor,
    pub(super) band: Band,
    /// The chosen line, through integer points at both ends of the window.
    chosen: Line,
}

impl LineMap {
    /// `None` if the stamps contradict each other, or are too few or too close to tell the rate.
    pub(super) fn of(stamps: &[Stamp]) -> Option<LineMap> {
        let anchor = Anchor::of(stamps).filter(Anchor::is_within_limits)?;
        let (floors, ceilings) = anchor.points(stamps);
        if floors.is_empty() || ceilings.is_empty() {
            return None;
        }
        let band = Band::between(floors, ceilings).ok()?;
        let end = |x: i128| Point {
            x,
            // y = (steepest(x) + shallowest(x)) / 2
            y: (band.steepest.round_at(x) + band.shallowest.round_at(x)).div_euclid(2),
        };
        let chosen = Line { from: end(0), to: end(anchor.x(anchor.guest_last)) };
        Some(LineMap { anchor, band, chosen })
    }

    pub(super) fn to_host(&self, guest: GuestTicks, piece: usize) -> Mapped {
        let x = self.anchor.x(guest);
        let at = self.chosen.floor_at(x);
        // The clock read `guest` from h(guest) until h(guest + 1).
        let above = self.band.highest_at(x + 1) - at;
        let below = at - self.band.lowest_at(x);
        Mapped { at: self.anchor.host(at), bound_ns: saturated(above.max(below)), piece }
    }

    /// The largest bound of any guest time between the first and the last stamp.
    pub(super) fn bound_ns(&self) -> u64 {
        let bound_ns = |guest| self.to_host(guest, 0).bound_ns;
        bound_ns(self.anchor.guest_first).max(bound_ns(self.anchor.guest_last))
    }

    /// How far the length between two mapped times may be off: by the error of the rate, and by the
    /// units to which both are cut. Whatever the offset is, it is the same for both.
    pub(super) fn length_error_ns(&self, from: GuestTicks, to: GuestTicks) -> u64 {
        let (from_x, to_x) = (self.anchor.x(from), self.anchor.x(to.max(from)));
        let chosen = self.chosen.floor_at(to_x) - self.chosen.floor_at(from_x);
        let rise = |line: &Line, ticks: i128| line.ceil_at(line.from.x + ticks) - line.from.y;
        let fall = |line: &Line, ticks: i128| line.floor_at(line.from.x + ticks) - line.from.y;
        let longest = rise(&self.band.steepest, to_x - from_x + 1);
        let shortest = fall(&self.band.shallowest, (to_x - from_x - 1).max(0));
        saturated((longest - chosen).max(chosen - shortest))
    }

    /// How many ticks a host time of this length may have, at the most.
    pub(super) fn ticks_max(&self, length_ns: u64) -> i128 {
        let (dx, dy) = (self.band.shallowest.dx(), self.band.shallowest.dy());
        // A step up for the remainder, and one for each end that may be cut.
        i128::from(length_ns) * dx / dy.max(1) + 3
    }

    /// By how much this line is later on the host than another at the same guest time, at least;
    /// negative if it is earlier, 0 if it may be either.
    pub(super) fn later_ns(&self, other: &LineMap, guest: GuestTicks) -> i128 {
        let after = self.lowest_host(guest) - other.highest_host(guest);
        let before = other.lowest_host(guest) - self.highest_host(guest);
        if after > 0 { after } else { (-before).min(0) }
    }

    /// How far two lines are apart at the guest time where they are furthest, at least. Looks
    /// between their common first and last guest times.
    ///
    /// The lowest feasible line is concave, the highest convex, so that what is between one's
    /// lowest and the other's highest is largest at a joint of one of them, or at an end.
    pub(super) fn apart_ns(&self, other: &LineMap) -> u64 {
        let (one, two) = (&self.anchor, &other.anchor);
        let first = one.guest_first.max(two.guest_first);
        let last = one.guest_last.min(two.guest_last);
        let (first, last) = (first.min(last), first.max(last));
        let joints = [self, other].into_iter().flat_map(|line| {
            let zero = i128::from(line.anchor.guest_first.0);
            line.band.joints().map(move |joint| GuestTicks(saturated(zero + joint)))
        });
        let within = joints.filter(|joint| (first..=last).contains(joint));
        let apart = within.chain([first, last]).map(|guest| self.later_ns(other, guest).abs());
        saturated(apart.max().unwrap_or(0))
    }

    fn lowest_host(&self, guest: GuestTicks) -> i128 {
        self.band.lowest_at(self.anchor.x(guest)) + i128::from(self.anchor.host_first.0)
    }

    fn highest_host(&self, guest: GuestTicks) -> i128 {
        self.band.highest_at(self.anchor.x(guest)) + i128::from(self.anchor.host_first.0)
    }
}
