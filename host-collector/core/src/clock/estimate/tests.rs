//! Laws of the clock map, against a synthetic truth in exact rational arithmetic.

use super::band::{Band, Line, NoBand, Point};
use super::*;
use proptest::prelude::*;

fn exchange(host_sent: u64, received: u64, sent: u64, host_received: u64) -> Exchange {
    Exchange {
        host_sent: HostNs(host_sent),
        guest_received: GuestTicks(received),
        guest_sent: GuestTicks(sent),
        host_received: HostNs(host_received),
    }
}

/// Two clocks: at guest tick `guest_zero` the host reads `host_zero_ns`, and `ticks` guest ticks
/// last `nanoseconds`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) guest_zero: u64,
    pub(super) host_zero_ns: u64,
    pub(super) ticks: u64,
    pub(super) nanoseconds: u64,
}

impl Clocks {
    /// What the guest's clock reads at a moment, in nanoseconds since zero: cut to a tick.
    pub(super) fn guest(&self, since_zero_ns: u64) -> GuestTicks {
        let ticks =
            u128::from(since_zero_ns) * u128::from(self.ticks) / u128::from(self.nanoseconds);
        GuestTicks(self.guest_zero + u64::try_from(ticks).unwrap())
    }

    /// The host times of all moments at which the guest's clock reads `guest`, widened to integers.
    fn host_range(&self, guest: GuestTicks) -> (i128, i128) {
        let (ticks, nanoseconds) = (i128::from(self.ticks), i128::from(self.nanoseconds));
        let since = i128::from(guest.0) - i128::from(self.guest_zero);
        let zero = i128::from(self.host_zero_ns);
        let first = (since * nanoseconds).div_euclid(ticks);
        let last = -(-(since + 1) * nanoseconds).div_euclid(ticks);
        (zero + first, zero + last)
    }

    pub(super) fn exchange(
        &self,
        sent_ns: u64,
        ping_ns: u64,
        think_ns: u64,
        pong_ns: u64,
    ) -> Exchange {
        let received_ns = sent_ns + ping_ns;
        let answered_ns = received_ns + think_ns;
        Exchange {
            host_sent: HostNs(self.host_zero_ns + sent_ns),
            guest_received: self.guest(received_ns),
            guest_sent: self.guest(answered_ns),
            host_received: HostNs(self.host_zero_ns + answered_ns + pong_ns),
        }
    }
}

/// 0.5 to 4 ticks in a nanosecond, up to 100 ppm off, any offset.
pub(super) fn clocks() -> impl Strategy<Value = Clocks> {
    let nominal =
        prop::sample::select(vec![500_000_u64, 1_000_000, 2_100_000, 3_000_000, 4_000_000]);
    (nominal, -100..=100_i64, 0..1_000_000_000_000_000_u64, 0..1_000_000_000_000_000_u64).prop_map(
        |(nominal, drift_ppm, guest_zero, host_zero_ns)| Clocks {
            guest_zero,
            host_zero_ns,
            ticks: nominal
                .checked_add_signed(nominal.cast_signed() / 1_000_000 * drift_ppm)
                .unwrap(),
            nanoseconds: 1_000_000,
        },
    )
}

/// Pause before it, then ping, thinking and pong, in nanoseconds: mostly short, sometimes long.
pub(super) type Delays = (u64, u64, u64, u64);

pub(super) fn delays() -> impl Strategy<Value = Delays> {
    let delay = || prop_oneof![4 => 0..2_000_u64, 3 => 0..400_000_u64, 1 => 0..20_000_000_u64];
    (1_000_000..500_000_000_u64, delay(), delay(), delay())
}

pub(super) fn exchanges(clocks: Clocks, delays: &[Delays]) -> Vec<Exchange> {
    let mut now_ns = 0;
    let mut exchanges = Vec::new();
    for (pause_ns, ping_ns, think_ns, pong_ns) in delays {
        now_ns += pause_ns;
        exchanges.push(clocks.exchange(now_ns, *ping_ns, *think_ns, *pong_ns));
        now_ns += ping_ns + think_ns + pong_ns;
    }
    exchanges
}

/// The first and the last stamp of a map in one piece.
fn window(map: &ClockMap) -> (GuestTicks, GuestTicks) {
    let anchor = &map.pieces[0].anchor;
    (anchor.guest_first, anchor.guest_last)
}

/// Of a map in one piece, which maps every time.
fn to_host(map: &ClockMap, guest: GuestTicks) -> Mapped {
    assert_eq!(map.pieces.len(), 1);
    map.to_host(guest).unwrap()
}

/// Guest times all over the window and somewhat beyond it.
fn probes(map: &ClockMap) -> impl Iterator<Item = GuestTicks> {
    let (first, last) = window(map);
    let span = last.0 - first.0;
    let start = first.0.saturating_sub(span / 4);
    (0..=150).map(move |step| GuestTicks(start + span / 100 * step))
}

/// The least and the largest feasible value at `x`, the slow way: at a corner of the set of
/// feasible lines two points are touched, so that trying the lines through all pairs is enough.
/// None where no line through two points is feasible.
fn extremes_by_force(floors: &[Point], ceilings: &[Point], x: i128) -> Option<(i128, i128)> {
    let all: Vec<Point> = floors.iter().chain(ceilings).copied().collect();
    let pairs = all.iter().flat_map(|from| all.iter().map(move |to| Line { from: *from, to: *to }));
    // y - from.y <= dy / dx * (x - from.x), multiplied out
    let rise = |line: &Line, x: i128| line.dy() * (x - line.from.x);
    let lift = |line: &Line, point: &Point| (point.y - line.from.y) * line.dx();
    let lines: Vec<Line> = pairs
        .filter(|line| line.dx() > 0)
        .filter(|line| floors.iter().all(|floor| lift(line, floor) <= rise(line, floor.x)))
        .filter(|line| ceilings.iter().all(|ceiling| lift(line, ceiling) >= rise(line, ceiling.x)))
        .collect();
    let least = lines.iter().map(|line| line.floor_at(x)).min()?;
    let largest = lines.iter().map(|line| line.ceil_at(x)).max()?;
    Some((least, largest))
}

#[test]
fn a_worked_example() {
    // A guest at 2 ticks a nanosecond that stood at 1000 when the host stood at 500_000, with
    // delays of 10 ns each way, read at the start and after 1 ms:
    //
    //   | host sent | guest received | guest sent | host received |
    //   |   500_000 |          1_020 |      1_020 |       500_020 |
    //   | 1_500_000 |      2_001_020 |  2_001_020 |     1_500_020 |
    let map = ClockMap::estimate(&[
        exchange(500_000, 1_020, 1_020, 500_020),
        exchange(1_500_000, 2_001_020, 2_001_020, 1_500_020),
    ])
    .unwrap();
    assert_eq!(window(&map), (GuestTicks(1_020), GuestTicks(2_001_020)));
    // The truth is 500_010; half of the round trip of 20 ns, and 2 ns for the cut stamps.
    assert_eq!(
        to_host(&map, GuestTicks(1_020)),
        Mapped { at: HostNs(500_010), bound_ns: 12, piece: 0 }
    );
    assert_eq!(to_host(&map, GuestTicks(2_001_020)).at, HostNs(1_500_010));
    assert_eq!(map.bound_ns(), 12);
    // Halfway between them the lines cannot diverge; a whole run later they can.
    assert!(to_host(&map, GuestTicks(4_001_020)).bound_ns >= 30);
}

#[test]
fn one_exchange_or_none_tells_no_rate() {
    let one = exchange(0, 10, 20, 30);
    assert_eq!(ClockMap::estimate(&[]).unwrap_err(), ClockError::TooFew { count: 0 });
    assert_eq!(ClockMap::estimate(&[one]).unwrap_err(), ClockError::TooFew { count: 1 });
    // Two pings under way at once: the second may have overtaken the first by any rate.
    let overlapping = [exchange(0, 10, 10, 1_000), exchange(500, 20, 20, 1_500)];
    assert_eq!(
        ClockMap::estimate(&overlapping).unwrap_err(),
        ClockError::TooClose { guest_span_ticks: 10, host_span_ns: 1_500, cut_count: 0 }
    );
    let twice = ClockMap::estimate(&[one, one]).unwrap_err();
    assert_eq!(
        twice,
        ClockError::TooClose { guest_span_ticks: 10, host_span_ns: 30, cut_count: 0 }
    );
}

#[test]
fn stamps_of_a_lying_guest_cut_the_map_and_never_panic() {
    // Further apart than the arithmetic goes, and no rate on either side.
    let far = [exchange(0, 0, 1, 10), exchange(1_000, u64::MAX - 1, u64::MAX, 1_010)];
    let error = ClockMap::estimate(&far).unwrap_err();
    assert!(matches!(error, ClockError::TooClose { guest_span_ticks: u64::MAX, cut_count: 1, .. }));
    let map = ClockMap::estimate(&[exchange(5, 10, 11, 12), exchange(1_000, 1_010, 1_011, 1_020)])
        .unwrap();
    assert_eq!(to_host(&map, GuestTicks(0)).at.0, 0);
    assert!(to_host(&map, GuestTicks(u64::MAX)).bound_ns > 0);
}

#[test]
fn the_largest_offsets_that_are_allowed_do_not_overflow() {
    let span = (1 << 60) - 1;
    let late = u64::MAX - span;
    let map = ClockMap::estimate(&[
        exchange(late, late, late, late + 10),
        exchange(u64::MAX - 10, u64::MAX - 10, u64::MAX, u64::MAX),
    ])
    .unwrap();
    assert!(map.bound_ns() <= 24);
    assert!(to_host(&map, GuestTicks(0)).at <= to_host(&map, GuestTicks(u64::MAX)).at);
}

proptest! {
    #[test]
    fn the_truth_is_within_the_bound(
        clocks in clocks(), delays in prop::collection::vec(delays(), 2..60),
    ) {
        check_truth(clocks, &delays)?;
    }

    #[test]
    fn an_exchange_lies_beyond_the_bounds_only_if_it_is_not_true(
        clocks in clocks(),
        delays in prop::collection::vec(delays(), 2..40),
        (sent_ns, ping_ns, pong_ns) in (0..10_000_000_000_u64, 0..1_000_u64, 0..1_000_u64),
        step_ns in 1..10_000_000_u64,
    ) {
        let map = ClockMap::estimate(&exchanges(clocks, &delays)).unwrap();
        let other = clocks.exchange(sent_ns, ping_ns, 0, pong_ns);
        prop_assert_eq!(map.beyond_ns(&other), Ok(0));
        // Half a microsecond is what this one leaves open, and a unit or two of each clock.
        let open_ns = 2 * to_host(&map, other.guest_sent).bound_ns + ping_ns + pong_ns + 6;
        for by_ns in [step_ns.cast_signed(), -step_ns.cast_signed()] {
            let moved = |time: HostNs| HostNs(time.0.saturating_add_signed(by_ns));
            let wrong = Exchange {
                host_sent: moved(other.host_sent),
                host_received: moved(other.host_received),
                ..other
            };
            let beyond_ns = map.beyond_ns(&wrong).unwrap();
            prop_assert!(beyond_ns <= step_ns && beyond_ns + open_ns >= step_ns, "{beyond_ns}");
        }
    }

    #[test]
    fn the_chosen_line_is_monotone_and_not_wider_than_the_window_says(
        clocks in clocks(), delays in prop::collection::vec(delays(), 2..40),
    ) {
        let exchanges = exchanges(clocks, &delays);
        let map = ClockMap::estimate(&exchanges).unwrap();
        let (first, last) = window(&map);
        let probes: Vec<GuestTicks> = probes(&map).collect();
        let at = |guest: GuestTicks| to_host(&map, guest).at;
        prop_assert!(probes.windows(2).all(|pair| at(pair[0]) <= at(pair[1])));
        for probe in probes.iter().filter(|probe| (first..=last).contains(probe)) {
            // Rounding outwards may cost a nanosecond where the bounds at the ends did not pay it.
            prop_assert!(to_host(&map, *probe).bound_ns <= map.bound_ns() + 1);
        }
        // Two clocks are never further apart than the worst of the first and the last exchange.
        let round_trip = |exchange: &Exchange| exchange.host_received.since_ns(exchange.host_sent);
        let ends = [&exchanges[0], &exchanges[exchanges.len() - 1]];
        let worst = ends.into_iter().map(round_trip).max().unwrap();
        prop_assert!(map.bound_ns() <= worst + 4, "{} > {worst}", map.bound_ns());
    }

    #[test]
    fn the_band_is_as_tight_as_causality_allows(
        stamps in prop::collection::vec((1..40_u64, 0..12_u64, 0..6_u64, 0..12_u64), 2..7),
        at in -20..120_i128,
    ) {
        // A tick is a nanosecond here, and the delays are long: many of these have odd hulls.
        let clocks = Clocks { guest_zero: 0, host_zero_ns: 0, ticks: 1, nanoseconds: 1 };
        let exchanges = exchanges(clocks, &stamps);
        let stamps = line::stamps(&exchanges);
        let (floors, ceilings) = Anchor::of(&stamps).unwrap().points(&stamps);
        if let Ok(map) = ClockMap::estimate(&exchanges) {
            let band = &map.pieces[0].band;
            let found = (band.lowest_at(at), band.highest_at(at));
            prop_assert_eq!(Some(found), extremes_by_force(&floors, &ceilings, at));
        }
    }

    /// Random points, most of which admit no line: the verdict is that of brute force.
    #[test]
    fn a_line_is_found_exactly_if_there_is_one(
        floors in prop::collection::vec((0..60_i128, 0..60_i128), 1..6),
        ceilings in prop::collection::vec((0..60_i128, 0..60_i128), 1..6),
        tilt in 0..4_i128,
        at in -20..120_i128,
    ) {
        let point = |lift: i128| move |(x, y): (i128, i128)| Point { x, y: y / 4 + lift + x * tilt };
        let floors: Vec<Point> = floors.into_iter().map(point(0)).collect();
        let ceilings: Vec<Point> = ceilings.into_iter().map(point(9)).collect();
        let by_force = extremes_by_force(&floors, &ceilings, at);
        match Band::between(floors.clone(), ceilings.clone()) {
            Ok(band) => {
                prop_assert_eq!(Some((band.lowest_at(at), band.highest_at(at))), by_force);
            }
            Err(NoBand::Conflict(conflict)) => {
                prop_assert_eq!(by_force, None);
                // It is the size of the contradiction: with so much more room there is a line
                // (which may be upright, or falling), and with less there is none.
                let lift = |by: i128| {
                    ceilings.iter().map(|point| Point { x: point.x, y: point.y + by }).collect()
                };
                let conflicts = |by: i128| {
                    let lifted = Band::between(floors.clone(), lift(by));
                    matches!(lifted, Err(NoBand::Conflict(_)))
                };
                prop_assert!(conflicts(conflict.excess - 1));
                prop_assert!(!conflicts(conflict.excess));
            }
            Err(NoBand::TooClose) => {
                let pairs = || floors.iter().flat_map(|floor| {
                    ceilings.iter().map(move |ceiling| (floor, ceiling))
                });
                let keeps_from_falling = pairs()
                    .any(|(floor, ceiling)| ceiling.x < floor.x && ceiling.y < floor.y);
                let keeps_from_upright = pairs().any(|(floor, ceiling)| floor.x < ceiling.x);
                prop_assert!(!(keeps_from_falling && keeps_from_upright));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_truth_is_within_the_bound_of_many_exchanges(
        clocks in clocks(), delays in prop::collection::vec(delays(), 1000..2000),
    ) {
        check_truth(clocks, &delays)?;
    }
}

fn check_truth(clocks: Clocks, delays: &[Delays]) -> Result<(), TestCaseError> {
    let map = ClockMap::estimate(&exchanges(clocks, delays)).unwrap();
    for probe in probes(&map) {
        let mapped = to_host(&map, probe);
        let (at, bound) = (i128::from(mapped.at.0), i128::from(mapped.bound_ns));
        let (first, last) = clocks.host_range(probe);
        // The range was widened to integers: undo that by a nanosecond at most.
        prop_assert!(
            at - bound <= first + 1 && last - 1 <= at + bound,
            "{probe:?}: {first}..{last} is not within {mapped:?}"
        );
    }
    Ok(())
}
