//! The matching by its laws, on what a simulated block layer does.

use super::flush::FLUSHES_MAX;
use super::simulated::{DRIVER_TICKS, Habits, QUIET_TICKS, Simulation, TARGET_SECTOR, Truth};
use super::*;
use proptest::prelude::*;

fn habits() -> impl Strategy<Value = Habits> {
    (1_usize..=2, any::<bool>()).prop_map(|(hardware_queues, has_fua)| Habits {
        hardware_queues,
        has_fua,
        has_same: false,
        has_slow_flushes: false,
        is_prompt: false,
    })
}

/// Whether `request` is this one, with its times.
fn is_it(request: &ObservedRequest, truth: &Truth, has_losses: bool) -> bool {
    let flag = |flag| request.flags.contains(flag);
    // Flushes that end with one of the queue end one after the other, and which first is not known.
    let is_flush = request.operation == BlockOperation::Flush;
    let has_queue_time = !flag(ObservedFlags::NO_QUEUE_TIME);
    let end = request.sector + u64::from(request.bytes) / 512;
    let queued = ((request.queued.0, request.vcpu_queued), request.task);
    let is_asked = (queued == (truth.queued, truth.task)
        || has_losses && truth.sent_on.contains(&queued))
        && request.sector == truth.sector
        && flag(ObservedFlags::MERGED) == truth.is_merged
        && flag(ObservedFlags::REQUEUED) == truth.is_requeued;
    (request.device, request.operation, end) == (truth.device, truth.operation, truth.end)
        && (request.issued.0, request.vcpu_issued) == truth.issued
        && (is_flush || (request.completed.0, request.vcpu_completed) == truth.completed)
        && (if has_queue_time { is_asked } else { request.queued == request.issued })
        // What was done of it unseen may have failed.
        && (request.result == truth.result || request.sector > truth.sector)
}

fn is_sure(request: &ObservedRequest) -> bool {
    !request.flags.contains(ObservedFlags::AMBIGUOUS)
}

fn matching(habits: Habits) -> Matching {
    let (driver_ticks, quiet_ticks) =
        if habits.is_prompt { (DRIVER_TICKS, QUIET_TICKS) } else { (u64::MAX, u64::MAX) };
    let mut matching = Matching::new(Limits { driver_ticks, quiet_ticks, ..Limits::default() });
    for device in 0..2 {
        let hardware_queues = u16::try_from(habits.hardware_queues).unwrap();
        matching.set_hardware_queues(device, hardware_queues);
        // Of a logical volume of which no flush was ever seen to be asked for, it is not known where they end.
        matching.disk(device).flushes.end_at(TARGET_SECTOR);
        // Where nothing has a bound, it begins when all is seen.
        for _ in 0..if habits.is_prompt { 0 } else { FLUSHES_MAX } {
            for kind in [BlockTraceKind::Issue, BlockTraceKind::Complete { result: 0 }] {
                matching.take(&BlockTrace {
                    time: GuestTicks(1),
                    vcpu: 0,
                    device,
                    task: 0,
                    thread: 0,
                    kind,
                    sector: 0,
                    sectors: 0,
                    rwbs: crate::Rwbs::of_letters(b"FF"),
                });
            }
        }
    }
    matching
}

/// Gives all events in passes of so many, and checks what is settled.
fn all(habits: Habits, simulation: &Simulation, pass: usize) -> (Matching, Vec<ObservedRequest>) {
    let mut matching = matching(habits);
    let mut told = Vec::new();
    let mut settled = GuestTicks(0);
    for events in simulation.events.chunks(pass) {
        events.iter().for_each(|event| matching.take(event));
        matching.pass(events[events.len() - 1].time);
        let requests = matching.take_requests();
        assert!(requests.iter().all(|request| request.queued >= settled), "settled at {settled:?}");
        assert!(requests.is_sorted_by_key(|request| request.completed));
        assert!(matching.settled() >= settled);
        settled = matching.settled();
        told.extend(requests);
    }
    (matching, told)
}

/// Gives all events but those of every second vCPU that are lost: from which on, and how many of all.
fn with_losses(
    habits: Habits,
    simulation: &Simulation,
    gaps: &[(usize, usize)],
) -> (Vec<ObservedRequest>, Vec<Dropped>, GuestTicks) {
    let mut matching = matching(habits);
    let (mut told, mut lost) = (Vec::new(), Vec::new());
    let mut gaps = gaps.to_vec();
    gaps.sort_unstable();
    for (index, event) in simulation.events.iter().enumerate() {
        for (first, length) in &gaps {
            if *first == index {
                let last = simulation.events.len().min(first + length) - 1;
                let last = simulation.events[last].time;
                matching.lose(Dropped { count: 1, first: event.time, last });
            }
        }
        // One vCPU's ring had no room, the others' had.
        let is_lost = gaps.iter().any(|(first, length)| {
            (*first..first + length).contains(&index) && event.vcpu % 2 == 0
        });
        if !is_lost {
            matching.take(event);
        }
        if index % 16 == 0 {
            matching.pass(event.time);
            told.extend(matching.take_requests());
            lost.extend(matching.take_lost());
        }
    }
    matching.pass(simulation.events[simulation.events.len() - 1].time);
    told.extend(matching.take_requests());
    lost.extend(matching.take_lost());
    (told, lost, matching.settled())
}

/// Each of `told` without a mark is one of `truths`, and none is told twice.
fn check_told(told: &[ObservedRequest], truths: &[Truth], has_losses: bool) -> Vec<Truth> {
    let mut left = truths.to_vec();
    for request in told.iter().filter(|request| is_sure(request)) {
        let place = left.iter().position(|truth| is_it(request, truth, has_losses));
        let near = || {
            truths
                .iter()
                .filter(|truth| truth.completed.0 == request.completed.0)
                .collect::<Vec<_>>()
        };
        let place = place.unwrap_or_else(|| panic!("{request:?} is none; near: {:?}", near()));
        left.swap_remove(place);
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_told_once_with_its_times(
        habits in habits(),
        seed in any::<u64>(),
        steps in 1_usize..400,
        pass in 1_usize..300,
    ) {
        let simulation = Simulation::run(habits, seed, steps);
        let (mut matching, told) = all(habits, &simulation, pass);
        prop_assert_eq!(told.len(), simulation.truths.len());
        prop_assert_eq!(matching.open_count(), 0);
        prop_assert_eq!(matching.take_lost(), []);
        prop_assert_eq!(matching.counts(), Counts::default());
        check_told(&told, &simulation.truths, false);
    }

    #[test]
    fn what_is_not_marked_is_right(
        habits in habits(),
        has_same in any::<bool>(),
        seed in any::<u64>(),
        steps in 1_usize..400,
        pass in 1_usize..300,
    ) {
        let habits = Habits { has_same, has_slow_flushes: true, ..habits };
        let simulation = Simulation::run(habits, seed, steps);
        let (_, told) = all(habits, &simulation, pass);
        prop_assert!(has_same || told.len() <= simulation.truths.len());
        check_told(&told, &simulation.truths, false);
    }

    #[test]
    fn losses_make_fewer_and_none_wrong_and_cover_what_is_missing(
        habits in habits(),
        has_slow_flushes in any::<bool>(),
        seed in any::<u64>(),
        steps in 100_usize..1500,
        at in prop::collection::vec((0_usize..900, 1_usize..30), 1..4),
    ) {
        let habits = Habits { has_slow_flushes, is_prompt: true, ..habits };
        let simulation = Simulation::run(habits, seed, steps);
        let (told, lost, settled) = with_losses(habits, &simulation, &at);
        let left = check_told(&told, &simulation.truths, true);
        let is_marked = |truth: &Truth| {
            told.iter().any(|request| request.queued.0 == truth.queued.0)
        };
        let is_settled = |truth: &Truth| truth.queued.0 < settled.0;
        for truth in left.iter().filter(|truth| is_settled(truth) && !is_marked(truth)) {
            let is_covered = lost.iter().any(|lost| {
                lost.first.0 <= truth.completed.0 && truth.queued.0 <= lost.last.0
            });
            prop_assert!(is_covered, "{truth:?} is missing, and no loss covers it: {lost:?}");
        }
    }

    /// A kernel that records nothing while a vCPU is idle hides completions, and no loss says so.
    #[test]
    fn hidden_completions_make_none_wrong_that_rests_on_no_others(
        habits in habits(),
        has_same in any::<bool>(),
        has_slow_flushes in any::<bool>(),
        seed in any::<u64>(),
        steps in 1_usize..400,
        pass in 1_usize..300,
        hidden in prop::collection::vec(0..1_500_usize, 0..12),
        idle in 0..5_u16,
    ) {
        let habits = Habits { has_same, has_slow_flushes, ..habits };
        let mut simulation = Simulation::run(habits, seed, steps);
        let mut place = 0;
        simulation.events.retain(|event| {
            place += 1;
            let is_end = matches!(event.kind, BlockTraceKind::Complete { .. });
            !(is_end && (hidden.contains(&place) || event.vcpu == idle && place > 40))
        });
        let (_, mut told) = all(habits, &simulation, pass);
        told.retain(|request| !request.rests_on_others());
        prop_assert!(told.iter().all(is_sure), "one that cannot be told from others rests on them");
        check_told(&told, &simulation.truths, false);
    }

    #[test]
    fn whatever_a_guest_says_needs_no_more_than_the_limit(
        events in prop::collection::vec(
            (0_u64..24, 0_u16..3, 0_u16..3, 0_u8..6, 0_usize..9, 0_u64..40, 0_u32..40),
            1..400,
        ),
        ends in any::<[u64; 2]>(),
    ) {
        let mut matching = Matching::new(Limits { open_max: 16, ..Limits::default() });
        let mut time = 0_u64;
        for (step, vcpu, device, kind, letters, sector, sectors) in events {
            // Now and then it is over already.
            time = if step == 23 { time.saturating_sub(20) } else { time + step % 4 };
            let letters = ["R", "W", "WS", "D", "N", "F", "FF", "FWFS", ""][letters];
            matching.take(&BlockTrace {
                time: GuestTicks(time),
                vcpu,
                device,
                task: 0,
                thread: 0,
                kind: match kind {
                    0 => BlockTraceKind::Queue,
                    1 => BlockTraceKind::Remap { from: (sectors % 2 == 0).then_some(ends[1]) },
                    2 => BlockTraceKind::Refused,
                    3 => BlockTraceKind::Issue,
                    4 => BlockTraceKind::Requeue,
                    _ => BlockTraceKind::Complete { result: -1 },
                },
                sector: if sector == 39 { ends[0] } else { sector },
                sectors: if sectors == 39 { u32::MAX } else { sectors },
                rwbs: crate::Rwbs::of_letters(letters.as_bytes()),
            });
            if sector == 38 {
                matching.pass(GuestTicks(time));
            }
            if sector == 37 && sectors < 4 {
                let (first, last) = (GuestTicks(time), GuestTicks(time + ends[1] % 4));
                matching.lose(Dropped { count: 1, first, last });
            }
            prop_assert_eq!(matching.beyond_limits(), [] as [&str; 0]);
        }
        matching.pass(GuestTicks(u64::MAX));
    }
}
