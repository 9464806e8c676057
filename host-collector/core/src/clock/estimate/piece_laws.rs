//! Laws of maps that are cut, against clocks that step at known times.

use super::tests::{Clocks, clocks};
use super::*;
use proptest::prelude::*;

/// A guest's clock that is set to another time, and perhaps another rate, now and then.
#[derive(Debug, Clone)]
struct Stepping {
    /// From a time on, in nanoseconds since the start of all.
    clocks: Vec<(u64, Clocks)>,
}

impl Stepping {
    fn place_at(&self, at_ns: u64) -> usize {
        self.clocks.partition_point(|(from_ns, _)| *from_ns <= at_ns).saturating_sub(1)
    }

    fn guest(&self, at_ns: u64) -> GuestTicks {
        self.clocks[self.place_at(at_ns)].1.guest(at_ns)
    }

    fn host(&self, at_ns: u64) -> HostNs {
        HostNs(self.clocks[0].1.host_zero_ns + at_ns)
    }

    fn exchange(&self, sent_ns: u64, ping_ns: u64, think_ns: u64, pong_ns: u64) -> Exchange {
        let received_ns = sent_ns + ping_ns;
        let answered_ns = received_ns + think_ns;
        Exchange {
            host_sent: self.host(sent_ns),
            guest_received: self.guest(received_ns),
            guest_sent: self.guest(answered_ns),
            host_received: self.host(answered_ns + pong_ns),
        }
    }
}

/// Exchanges between two steps, apart by as much as in a run; and how far the clock is then set, in
/// milliseconds, and by how many ppm its rate changes.
type Segment = (Vec<(u64, u64, u64, u64)>, i64, i64);

fn part(exchanges_min: usize) -> impl Strategy<Value = Segment> {
    let delay = || prop_oneof![3 => 0..3_000_u64, 2 => 0..200_000_u64];
    let exchange = (20_000_000..120_000_000_u64, delay(), 0..2_000_u64, delay());
    let step_ms = prop_oneof![-900..-5_i64, 5..900_i64, -90_000..-5_000_i64];
    let drift_ppm = prop_oneof![3 => Just(0), 1 => -100..=100_i64];
    (prop::collection::vec(exchange, exchanges_min..30), step_ms, drift_ppm)
}

/// The exchanges, and the clock. Steps come within the pause before the next exchange.
fn run(clocks: Clocks, parts: &[Segment], in_pause: u64) -> (Vec<Exchange>, Stepping) {
    // Far enough from 0 that it can be set back some times.
    let mut current = Clocks { guest_zero: clocks.guest_zero + (1 << 50), ..clocks };
    let mut stepping = Stepping { clocks: vec![(0, current)] };
    let (mut now_ns, mut exchanges) = (0, Vec::new());
    for (place, (delays, step_ms, drift_ppm)) in parts.iter().enumerate() {
        if place > 0 {
            // Somewhere in the pause that follows, which is at least 20 ms.
            let at_ns = now_ns + in_pause % 20_000_000;
            let ticks = current.ticks.cast_signed();
            let shift = i128::from(step_ms * 1_000_000) * i128::from(ticks) / 1_000_000;
            let rate = ticks + ticks / 1_000_000 * drift_ppm;
            // It goes on from where it was, shifted: what the change of rate does before is undone.
            let undone = i128::from(at_ns) * i128::from(ticks - rate) / 1_000_000;
            let zero = i128::from(current.guest_zero) + shift + undone;
            let guest_zero = u64::try_from(zero).unwrap();
            current = Clocks { guest_zero, ticks: u64::try_from(rate).unwrap(), ..current };
            stepping.clocks.push((at_ns, current));
        }
        for (pause_ns, ping_ns, think_ns, pong_ns) in delays {
            now_ns += pause_ns;
            exchanges.push(stepping.exchange(now_ns, *ping_ns, *think_ns, *pong_ns));
            now_ns += ping_ns + think_ns + pong_ns;
        }
    }
    (exchanges, stepping)
}

#[test]
fn a_drawn_step_cuts_the_map_where_it_is() {
    // One tick is a nanosecond. Set on by 1000 between 300 and 400; delays of 5.
    let read = |host, guest| Exchange {
        host_sent: HostNs(host),
        guest_received: GuestTicks(guest + 5),
        guest_sent: GuestTicks(guest + 5),
        host_received: HostNs(host + 10),
    };
    let before = [100, 200, 300].map(|at| read(at, at));
    let after = [400, 500, 600].map(|at| read(at, at + 1_000));
    let map = ClockMap::estimate(&[before, after].concat()).unwrap();
    let [cut] = map.cuts() else { panic!("{:?}", map.cuts()) };
    assert_eq!((cut.after, cut.before), (HostNs(300), HostNs(410)));
    assert!((900..=1_000).contains(&cut.step_ns), "{cut:?}");
    for (guest, host, piece) in [(150, 150, 0), (305, 305, 0), (1_405, 405, 1), (1_550, 550, 1)] {
        let mapped = map.to_host(GuestTicks(guest)).unwrap();
        assert!(mapped.at.0.abs_diff(host) <= mapped.bound_ns, "{guest}: {mapped:?}");
        assert_eq!(mapped.piece, piece);
    }
    // Between the last stamp before and the first one after; and times that were never read.
    for guest in [306, 350, 1_000, 1_350, 1_404] {
        assert_eq!(map.to_host(GuestTicks(guest)), Err(Unmapped::BetweenPieces), "{guest}");
    }
    let (early, late) = (GuestTicks(150), GuestTicks(1_550));
    assert_eq!(map.length_to_host(early, late), Err(Unmapped::AcrossCut));
    assert_eq!(map.length_to_host(early, early).unwrap().from.piece, 0);
}

#[test]
fn times_that_are_read_twice_are_of_no_piece() {
    // Set back by 150 between 300 and 400: 205 to 305 are read twice, and more of them perhaps.
    let read = |host, guest| Exchange {
        host_sent: HostNs(host),
        guest_received: GuestTicks(guest + 5),
        guest_sent: GuestTicks(guest + 5),
        host_received: HostNs(host + 10),
    };
    let before = [100, 200, 300].map(|at| read(at, at));
    let after = [400, 500, 600].map(|at| read(at, at - 150));
    let map = ClockMap::estimate(&[before, after].concat()).unwrap();
    assert_eq!(map.cuts().len(), 1);
    assert_eq!(map.to_host(GuestTicks(110)).unwrap().piece, 0);
    assert_eq!(
        map.to_host(GuestTicks(140)),
        Err(Unmapped::Ambiguous),
        "after the step, before 400"
    );
    assert_eq!(map.to_host(GuestTicks(280)), Err(Unmapped::Ambiguous), "on both");
    assert_eq!(
        map.to_host(GuestTicks(350)),
        Err(Unmapped::Ambiguous),
        "before the step, after 300"
    );
    assert_eq!(map.to_host(GuestTicks(454)).unwrap().piece, 1);
}

#[test]
fn what_was_read_between_two_quick_steps_is_not_taken_for_what_it_looks_like() {
    // One tick is a nanosecond. Set back to 1500 at 2100, and far on before 2200.
    let read = |host: u64, guest: u64| Exchange {
        host_sent: HostNs(host),
        guest_received: GuestTicks(guest + 5),
        guest_sent: GuestTicks(guest + 5),
        host_received: HostNs(host + 10),
    };
    let before = (1..=20).map(|turn| read(turn * 100, turn * 100));
    let after = (22..=30).map(|turn| read(turn * 100, turn * 100 + 10_000));
    let exchanges: Vec<Exchange> = before.chain([read(2_100, 1_500)]).chain(after).collect();
    let map = ClockMap::estimate(&exchanges).unwrap();
    assert_eq!((map.cuts().len(), map.pieces.len()), (2, 2));
    for guest in [1_500, 1_550, 1_950] {
        assert_eq!(map.to_host(GuestTicks(guest)), Err(Unmapped::Ambiguous), "{guest}");
    }
    assert_eq!(map.to_host(GuestTicks(500)).unwrap().piece, 0);
    assert_eq!(map.to_host(GuestTicks(12_900)).unwrap().piece, 1);
}

#[test]
fn a_clock_that_steps_all_the_time_has_no_map() {
    let wild: Vec<Exchange> = (0..2_000_u64)
        .map(|turn| Exchange {
            host_sent: HostNs(turn * 100),
            guest_received: GuestTicks(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            guest_sent: GuestTicks(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            host_received: HostNs(turn * 100 + 10),
        })
        .collect();
    // Two readings, one after the other, may be of any clock: what is left is little, and cut.
    if let Ok(map) = ClockMap::estimate(&wild) {
        assert!(map.cuts().len() > 400, "{}", map.cuts().len());
    }
}

#[test]
fn a_clock_that_is_set_back_is_no_clock_that_runs_backwards() {
    // A falling line fits the first two; with the third one nothing fits.
    let read = |host: u64, guest: u64| Exchange {
        host_sent: HostNs(host),
        guest_received: GuestTicks(guest),
        guest_sent: GuestTicks(guest),
        host_received: HostNs(host + 10),
    };
    let back = [read(500, 1_000), read(600, 990), read(700, 1_090)];
    let error = ClockMap::estimate(&back[..2]).unwrap_err();
    assert!(matches!(error, ClockError::TooClose { cut_count: 1, .. }), "{error}");
    let map = ClockMap::estimate(&back).unwrap();
    let [cut] = map.cuts() else { panic!("{:?}", map.cuts()) };
    assert_eq!((cut.after, cut.before), (HostNs(500), HostNs(610)));
    assert!((80..=110).contains(&cut.step_ns), "{cut:?}");
}

#[test]
fn guest_stamps_that_run_backwards_are_a_step() {
    let read = |host: u64, received: u64, sent: u64| Exchange {
        host_sent: HostNs(host),
        guest_received: GuestTicks(received),
        guest_sent: GuestTicks(sent),
        host_received: HostNs(host + 100),
    };
    // No line contradicts these stamps, each for itself.
    let exchanges = [
        read(1_000, 1_050, 1_050),
        read(2_000, 2_050, 2_050),
        read(3_000, 3_055, 3_045),
        read(4_000, 4_050, 4_050),
        read(5_000, 5_050, 5_050),
    ];
    let map = ClockMap::estimate(&exchanges).unwrap();
    let [cut] = map.cuts() else { panic!("{:?}", map.cuts()) };
    assert_eq!((cut.after, cut.before, cut.step_ns), (HostNs(3_000), HostNs(3_100), 0));
}

#[test]
fn a_day_of_hostile_stamps_is_cut_in_time() {
    let started = std::time::Instant::now();
    let count = 40_000_u64;
    // A curve on which every point is on the hull, then noise that fits nothing.
    for shape in [|turn: u64| turn * turn, |turn: u64| (turn * 7_919) % 65_536 * 40_000] {
        let exchanges: Vec<Exchange> = (0..count)
            .map(|turn| Exchange {
                host_sent: HostNs(turn * 100_000),
                guest_received: GuestTicks(shape(turn)),
                guest_sent: GuestTicks(shape(turn)),
                host_received: HostNs(turn * 100_000 + 50_000_000),
            })
            .collect();
        let _ = ClockMap::estimate(&exchanges);
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

proptest! {
    /// The truth is never outside of the interval, whatever is asked for between the exchanges: if
    /// the clock did not step more often than it must have.
    #[test]
    fn the_truth_is_within_the_bound_of_every_piece(
        clocks in clocks(),
        parts in prop::collection::vec(part(6), 1..5),
        in_pause in any::<u64>(),
        asked in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let (exchanges, stepping) = run(clocks, &parts, in_pause);
        let map = ClockMap::estimate(&exchanges).unwrap();
        prop_assert!(map.cuts().len() < parts.len(), "{} of {}", map.cuts().len(), parts.len());
        prop_assume!(map.cuts().len() + 1 == parts.len());
        for ((at_ns, _), cut) in stepping.clocks[1..].iter().zip(map.cuts()) {
            let at = stepping.host(*at_ns);
            prop_assert!(cut.after <= at && at <= cut.before, "{at:?} is not in {cut:?}");
        }
        let (first, last) = (exchanges[0], exchanges[exchanges.len() - 1]);
        let length_ns = usize::try_from(last.host_received.since_ns(first.host_received)).unwrap();
        let zero_ns = first.host_received.since_ns(stepping.host(0));
        let mut mapped_count = 0;
        for asked in asked {
            let at_ns = zero_ns + u64::try_from(asked.index(length_ns)).unwrap();
            if let Ok(mapped) = map.to_host(stepping.guest(at_ns)) {
                let off_ns = mapped.at.0.abs_diff(stepping.host(at_ns).0);
                // The map is of exact clocks; the one here is cut to ticks of up to 2 ns.
                prop_assert!(off_ns <= mapped.bound_ns + 2, "{at_ns}: off by {off_ns}, {mapped:?}");
                prop_assert_eq!(mapped.piece, stepping.place_at(at_ns));
                mapped_count += 1;
            }
        }
        if parts.len() == 1 {
            prop_assert_eq!(mapped_count, 60);
        }
    }

    /// Also where the clock stepped so often that some pieces have no map.
    #[test]
    fn the_truth_is_within_the_bound_around_pieces_without_a_map(
        clocks in clocks(),
        long in part(6),
        parts in prop::collection::vec(part(1), 1..5),
        in_pause in any::<u64>(),
        asked in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let parts = [vec![long], parts].concat();
        let (exchanges, stepping) = run(clocks, &parts, in_pause);
        let map = ClockMap::estimate(&exchanges).unwrap();
        prop_assume!(map.cuts().len() + 1 == parts.len());
        let zero_ns = exchanges[0].host_received.since_ns(stepping.host(0));
        let last_ns = exchanges[exchanges.len() - 1].host_received.since_ns(stepping.host(0));
        let length_ns = usize::try_from(last_ns - zero_ns).unwrap();
        for asked in asked {
            let at_ns = zero_ns + u64::try_from(asked.index(length_ns)).unwrap();
            if let Ok(mapped) = map.to_host(stepping.guest(at_ns)) {
                let off_ns = mapped.at.0.abs_diff(stepping.host(at_ns).0);
                prop_assert!(off_ns <= mapped.bound_ns + 2, "{at_ns}: off by {off_ns}, {mapped:?}");
            }
        }
    }

    /// A step is told to be no larger than it was, and it is told to be there.
    #[test]
    fn a_step_is_at_least_as_large_as_is_said(
        clocks in clocks(), parts in prop::collection::vec(part(6), 2..3), in_pause in any::<u64>(),
    ) {
        let still = |(delays, step_ms, _): &Segment| (delays.clone(), *step_ms, 0);
        let parts: Vec<Segment> = parts.iter().map(still).collect();
        let (exchanges, _) = run(clocks, &parts, in_pause);
        let map = ClockMap::estimate(&exchanges).unwrap();
        let step_ns = parts[1].1.unsigned_abs() * 1_000_000;
        let [cut] = map.cuts() else {
            return Err(TestCaseError::fail(format!("{:?}", map.cuts())));
        };
        // Ticks here come a million in so many nanoseconds.
        prop_assert!(cut.step_ns <= step_ns + 2, "{cut:?} of {step_ns}");
        prop_assert!(cut.step_ns >= step_ns / 2, "{cut:?} of {step_ns}");
    }

    /// A length between two mapped times is as exact as is said, whatever the ends are off by.
    #[test]
    fn a_length_is_within_its_error(
        clocks in clocks(), parts in prop::collection::vec(part(6), 1..2),
        asked in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 40),
    ) {
        let (exchanges, stepping) = run(clocks, &parts, 0);
        let map = ClockMap::estimate(&exchanges).unwrap();
        let last = exchanges[exchanges.len() - 1].host_received;
        let length_ns = usize::try_from(last.since_ns(stepping.host(0))).unwrap();
        for asked in asked {
            let mut at_ns = asked.map(|index| u64::try_from(index.index(length_ns)).unwrap());
            at_ns.sort_unstable();
            let [from, to] = at_ns.map(|at_ns| stepping.guest(at_ns));
            let length = map.length_to_host(from, to).unwrap();
            let mapped_ns = length.to.at.since_ns(length.from.at);
            let off_ns = mapped_ns.abs_diff(at_ns[1] - at_ns[0]);
            prop_assert!(off_ns <= length.error_ns, "{off_ns} of {length:?}");
            let both_ns = length.from.bound_ns + length.to.bound_ns;
            prop_assert!(length.error_ns <= both_ns + 8, "{length:?}");
        }
    }

    /// vCPUs whose clocks are one are not told apart; others are, and by no more than they are.
    #[test]
    fn clocks_are_told_apart_by_no_more_than_they_are(
        clocks in clocks(), one in part(6), two in part(6), apart_ms in 5..500_u64,
    ) {
        let map = |clocks, part: &Segment| {
            ClockMap::estimate(&run(clocks, std::slice::from_ref(part), 0).0).unwrap()
        };
        let same = [map(clocks, &one), map(clocks, &two)];
        prop_assert_eq!(same[0].apart_ns(&same[1]), 0);
        let shift = clocks.ticks * apart_ms;
        let other = map(Clocks { guest_zero: clocks.guest_zero + shift, ..clocks }, &two);
        let apart_ns = same[0].apart_ns(&other);
        prop_assert_eq!(other.apart_ns(&same[0]), apart_ns);
        prop_assert!(apart_ns <= apart_ms * 1_000_000 + 2, "{apart_ns} of {apart_ms} ms");
        prop_assert!(apart_ns >= apart_ms * 500_000, "{apart_ns} of {apart_ms} ms");
    }
}
