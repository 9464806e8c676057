//! The band that all feasible lines lie in: exact integer geometry.
//!
//! Points are `(x, y)` with x in guest ticks and y in host nanoseconds, both counted from an anchor.
//! A line is feasible if it lies on or above every *floor* point and on or below every *ceiling*
//! point. Only the upper hull of the floors and the lower hull of the ceilings matter:
//!
//! ```text
//!   y                                    c              c  ceiling: the line passes below
//!   |                     c          .:'                f  floor: the line passes above
//!   |          c  _____..---'''''''                     :  steepest and shallowest feasible
//!   |   c ---'''            f                              line; all others lie between
//!   |   ..:---'''   f  f         f                         them, or touch a hull between
//!   | f                                                    their points of contact
//!   +----------------------------------------- x
//! ```
//!
//! The steepest feasible line touches a floor at its left and a ceiling at its right, the
//! shallowest a ceiling at its left and a floor at its right. At a given x the lowest feasible
//! line is
//!
//! ```text
//!   the steepest,     up to its floor contact,
//!   the hull of the floors,  from there to the floor contact of the shallowest,
//!   the shallowest,   from there on
//! ```
//!
//! and the highest is its mirror image. So the band is as wide as can be at the ends, and both of
//! its edges are convex when seen from inside.

use std::cmp::Ordering;

/// The largest coordinate: differences stay below 2^61, products of two below 2^122, so that
/// nothing here can overflow an `i128`.
pub(super) const COORDINATE_MAX: i128 = 1 << 60;

/// A point; both coordinates within `0..=COORDINATE_MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) x: i128,
    pub(super) y: i128,
}

/// The line through two points; `to.x > from.x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) from: Point,
    pub(super) to: Point,
}

impl Line {
    pub(super) fn dx(&self) -> i128 {
        self.to.x - self.from.x
    }

    pub(super) fn dy(&self) -> i128 {
        self.to.y - self.from.y
    }

    /// The largest integer that is not above the line at `x`, for |x| up to 2^65.
    pub(super) fn floor_at(&self, x: i128) -> i128 {
        // y = from.y + dy * (x - from.x) / dx
        self.from.y + (self.dy() * (x - self.from.x)).div_euclid(self.dx())
    }

    /// The smallest integer that is not below the line at `x`, for |x| up to 2^65.
    pub(super) fn ceil_at(&self, x: i128) -> i128 {
        self.from.y - (-self.dy() * (x - self.from.x)).div_euclid(self.dx())
    }

    /// The integer that is nearest to the line at `x`, for |x| up to 2^60.
    pub(super) fn round_at(&self, x: i128) -> i128 {
        self.from.y + (2 * self.dy() * (x - self.from.x) + self.dx()).div_euclid(2 * self.dx())
    }

    /// Compares the slopes of two lines: dy/dx with dx > 0, multiplied out.
    fn cmp_slope(&self, other: &Line) -> Ordering {
        (self.dy() * other.dx()).cmp(&(other.dy() * self.dx()))
    }
}

/// Where floors and ceilings contradict each other: at `x` every line that satisfies the other
/// points is off by `excess` (rounded up).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) x: i128,
    pub(super) excess: i128,
}

/// Why there is no band.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoBand {
    /// No line is feasible.
    Conflict(Conflict),
    /// The points do not keep feasible lines from being upright, level or falling: they are too
    /// close together.
    TooClose,
}

/// One edge of the band: line pieces from left to right, the first and the last without end.
#[derive(Debug, Clone)]
struct Edge {
    pieces: Vec<Line>,
    /// Where each piece but the last gives way to the next.
    joints: Vec<i128>,
}

impl Edge {
    fn piece(&self, x: i128) -> &Line {
        &self.pieces[self.joints.partition_point(|joint| *joint < x)]
    }
}

/// All feasible lines.
#[derive(Debug, Clone)]
pub(super) struct Band {
    pub(super) steepest: Line,
    pub(super) shallowest: Line,
    lowest: Edge,
    highest: Edge,
}

impl Band {
    /// The band between these floors and ceilings, each at least one, in any order.
    pub(super) fn between(floors: Vec<Point>, ceilings: Vec<Point>) -> Result<Band, NoBand> {
        let floors = hull(floors, Ordering::Greater);
        let ceilings = hull(ceilings, Ordering::Less);
        if let Some(conflict) = conflict(&floors, &ceilings) {
            return Err(NoBand::Conflict(conflict));
        }
        let (floor_of_steepest, ceiling_of_steepest) =
            extreme(&floors, &ceilings, Ordering::Less).ok_or(NoBand::TooClose)?;
        let (ceiling_of_shallowest, floor_of_shallowest) =
            extreme(&ceilings, &floors, Ordering::Greater).ok_or(NoBand::TooClose)?;
        let steepest = Line { from: floors[floor_of_steepest], to: ceilings[ceiling_of_steepest] };
        let shallowest =
            Line { from: ceilings[ceiling_of_shallowest], to: floors[floor_of_shallowest] };
        if shallowest.dy() <= 0 {
            return Err(NoBand::TooClose);
        }
        let lowest = edge(steepest, &floors, floor_of_steepest, floor_of_shallowest, shallowest);
        let highest =
            edge(shallowest, &ceilings, ceiling_of_shallowest, ceiling_of_steepest, steepest);
        Ok(Band { steepest, shallowest, lowest, highest })
    }

    /// By how much these floors and ceilings contradict each other: with so much more room between
    /// them there is a line that does not fall. `None` if there is one as it is.
    ///
    /// Costs what sorting the points costs.
    pub(super) fn excess(floors: Vec<Point>, ceilings: Vec<Point>) -> Option<i128> {
        let fall = fall(&floors, &ceilings);
        let conflict = conflict(&hull(floors, Ordering::Greater), &hull(ceilings, Ordering::Less));
        let excess = conflict.map_or(0, |conflict| conflict.excess).max(fall);
        (excess > 0).then_some(excess)
    }

    /// Between the first and the last of these places both edges are made of the lines between
    /// neighbouring ones.
    pub(super) fn joints(&self) -> impl Iterator<Item = i128> {
        self.lowest.joints.iter().chain(&self.highest.joints).copied()
    }

    /// What the lowest feasible line has at `x`, rounded down.
    pub(super) fn lowest_at(&self, x: i128) -> i128 {
        self.lowest.piece(x).floor_at(x)
    }

    /// What the highest feasible line has at `x`, rounded up.
    pub(super) fn highest_at(&self, x: i128) -> i128 {
        self.highest.piece(x).ceil_at(x)
    }
}

/// The hull of points on one side, left to right: with `Greater` the upper hull, with `Less` the
/// lower one. (Andrew's monotone chain, in exact arithmetic.)
pub(super) fn hull(mut points: Vec<Point>, side: Ordering) -> Vec<Point> {
    points.sort_unstable_by(|one, other| {
        let outermost_first = one.y.cmp(&other.y);
        let outermost_first =
            if side == Ordering::Greater { outermost_first.reverse() } else { outermost_first };
        one.x.cmp(&other.x).then(outermost_first)
    });
    points.dedup_by_key(|point| point.x);
    let mut hull: Vec<Point> = Vec::new();
    for point in points {
        while let [.., before, last] = hull[..]
            // `last` is on the hull only if the chain turns there to the inside.
            && (Line { from: before, to: last }).cmp_slope(&Line { from: last, to: point }) != side
        {
            hull.pop();
        }
        hull.push(point);
    }
    hull
}

/// Where the hull of the floors rises furthest above the hull of the ceilings, if it does.
///
/// A line between the hulls exists exactly if it does not, wherever both are defined (they are
/// convex); and the difference is largest at a corner of one of them.
fn conflict(floors: &[Point], ceilings: &[Point]) -> Option<Conflict> {
    let above_ceiling = floors.iter().filter_map(|floor| {
        let excess = floor.y - on_hull(ceilings, floor.x)?.floor_at(floor.x);
        Some(Conflict { x: floor.x, excess })
    });
    let below_floor = ceilings.iter().filter_map(|ceiling| {
        let excess = on_hull(floors, ceiling.x)?.ceil_at(ceiling.x) - ceiling.y;
        Some(Conflict { x: ceiling.x, excess })
    });
    above_ceiling
        .chain(below_floor)
        .filter(|conflict| conflict.excess > 0)
        .max_by_key(|conflict| conflict.excess)
}

/// How far a line falls at least from a floor to a ceiling that is not left of it, if it must; else
/// not more than 0. (The steepest feasible line passes through one of each, so no other points can
/// force it to.)
fn fall(floors: &[Point], ceilings: &[Point]) -> i128 {
    let (mut floors, mut ceilings) = (floors.to_vec(), ceilings.to_vec());
    floors.sort_unstable();
    ceilings.sort_unstable();
    let mut floors = floors.into_iter().peekable();
    let (mut highest, mut fall) = (None, 0);
    for ceiling in ceilings {
        while let Some(floor) = floors.next_if(|floor| floor.x <= ceiling.x) {
            highest = highest.max(Some(floor.y));
        }
        fall = highest.map_or(fall, |highest| fall.max(highest - ceiling.y));
    }
    fall
}

/// The piece of a hull that spans `x`; none outside of the hull.
fn on_hull(hull: &[Point], x: i128) -> Option<Line> {
    let right = hull.partition_point(|point| point.x < x);
    let to = *hull.get(right)?;
    if to.x == x {
        // A level line through the corner itself: it is evaluated nowhere else.
        return Some(Line { from: to, to: Point { x: x + 1, y: to.y } });
    }
    let from = *hull.get(right.checked_sub(1)?)?;
    Some(Line { from, to })
}

/// The corners through which the extreme feasible line passes: one of `left`, one of `right`,
/// further right. With `Less` the slope is made as small as the points allow, with `Greater` as
/// large. None where no corner of `left` lies left of one of `right`.
///
/// Starts with the outermost corners and moves either inwards while that is better. Seen from a
/// corner outside of it, the slopes to the corners of a hull fall and then rise, so that the first
/// that is no better ends the search; and a corner that is moved inwards, to beyond the line, never
/// makes an outer partner better again. So no corner is looked at twice.
///
/// Where that comes to rest no point of `left` that lies left of the right corner is beyond the
/// line, and no point of `right` that lies right of the left one. A point beyond it on the other
/// stretch would leave no line feasible at all, and that was checked before. So the line is
/// feasible; and no feasible line can be more extreme than a line through one point of each kind.
fn extreme(left: &[Point], right: &[Point], better: Ordering) -> Option<(usize, usize)> {
    let is_better = |one: Line, other: Line| one.cmp_slope(&other) == better;
    let (mut from, mut to) = (0, right.len().checked_sub(1)?);
    if left.first()?.x >= right[to].x {
        return None;
    }
    loop {
        let line = Line { from: left[from], to: right[to] };
        let inner = left.get(from + 1).filter(|corner| corner.x < line.to.x);
        if inner.is_some_and(|corner| is_better(Line { from: *corner, ..line }, line)) {
            from += 1;
            continue;
        }
        let inner = to.checked_sub(1).map(|inner| right[inner]);
        let inner = inner.filter(|corner| corner.x > line.from.x);
        if inner.is_some_and(|corner| is_better(Line { to: corner, ..line }, line)) {
            to -= 1;
            continue;
        }
        return Some((from, to));
    }
}

/// Joins the extreme line at the left, the hull between the two contacts, and the extreme line at
/// the right.
fn edge(at_left: Line, hull: &[Point], first: usize, last: usize, at_right: Line) -> Edge {
    // With a single feasible line its contacts may come in either order.
    let contacts = &hull[first.min(last)..=first.max(last)];
    let mut pieces = vec![at_left];
    pieces.extend(contacts.windows(2).map(|pair| Line { from: pair[0], to: pair[1] }));
    pieces.push(at_right);
    Edge { pieces, joints: contacts.iter().map(|contact| contact.x).collect() }
}
