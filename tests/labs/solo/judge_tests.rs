//! The judge itself, on drawn timelines: it needs no guest, and runs everywhere. Times are microseconds
//! as they are drawn.

use super::judge::{Agreement, Verdict, agreement};
use super::stolen::{Stretch, Testimony, testimony};
use super::truth::{Interval, Seen, distance};
use libtest_mimic::Failed;
use vslice_core::units::Tid;

type JudgeCase = (&'static str, fn() -> Result<(), Failed>);

pub(crate) const CASES: &[JudgeCase] = &[
    ("solo_judge_takes_a_right_guest", a_right_guest_passes),
    ("solo_judge_sees_gaps_that_the_guest_does_not", missed_gaps_fail),
    ("solo_judge_sees_gaps_that_nobody_made", invented_gaps_fail),
    ("solo_judge_knows_what_was_stolen", stolen_time_is_the_hosts),
    ("solo_judge_says_what_it_cannot_tell", a_theft_without_a_place_judges_nothing),
    ("solo_judge_sees_a_guest_that_is_late_or_early", late_and_early_guests_fail),
    ("solo_judge_sees_a_guest_that_is_late_at_times", guests_that_are_late_at_times_fail),
    (
        "solo_judge_lays_a_guest_over_a_host_whose_clock_is_off",
        a_distance_is_found_around_the_begin,
    ),
    ("solo_judge_needs_gaps", few_gaps_judge_nothing),
    ("solo_judge_reads_the_kernels_runtime", stolen_is_what_was_not_counted),
];

const US: u64 = 1_000;
const VCPU: Tid = Tid(7);

fn interval(start_us: u64, end_us: u64) -> Interval {
    Interval { start: start_us * US, end: end_us * US }
}

/// Gaps of 4 ms every 8 ms from 10 ms on.
fn host(count: u64) -> Vec<Interval> {
    (0..count)
        .map(|index| 10_000 + index * 8_000)
        .map(|from| interval(from, from + 4_000))
        .collect()
}

/// What a guest sees of it that goes on so many microseconds after its thread.
fn guest(host: &[Interval], late_us: i64) -> Vec<(Interval, bool)> {
    let late = |one: &Interval| Interval {
        start: one.start,
        end: one.end.saturating_add_signed(late_us * 1_000),
    };
    host.iter().map(|one| (late(one), true)).collect()
}

fn judge(truth: &[Interval], stolen: &[Stretch], gaps: Vec<(Interval, bool)>) -> Agreement {
    judge_by(truth, stolen, Vec::new(), gaps)
}

fn judge_by(
    truth: &[Interval],
    stolen: &[Stretch],
    interrupts: Vec<Interval>,
    gaps: Vec<(Interval, bool)>,
) -> Agreement {
    let seen = Seen { gaps, begun: 0, ended: 1 << 50, unsaid_up_to: 200 * US };
    let testimony = Testimony { stretches: stolen.to_vec(), interrupts };
    agreement(truth, &testimony, &seen, 0).expect("the clocks are one")
}

fn expect(agreement: &Agreement, expected: &Verdict) -> Result<(), Failed> {
    let verdict = agreement.verdict(200 * US);
    if verdict == *expected { Ok(()) } else { Err(format!("{verdict:?}: {agreement:#?}").into()) }
}

fn a_right_guest_passes() -> Result<(), Failed> {
    let host = host(200);
    expect(&judge(&host, &[], guest(&host, 0)), &Verdict::Right)?;
    let slow = judge(&host, &[], guest(&host, 350));
    expect(&slow, &Verdict::Right)?;
    check(
        slow.timeslice_p50_ns == (3_650 * US, 4_000 * US) && slow.way_back.p50_ns == 350_000,
        &slow,
    )
}

fn missed_gaps_fail() -> Result<(), Failed> {
    let host = host(200);
    let mut gaps = guest(&host, 300);
    for (_, is_host) in gaps.iter_mut().step_by(50) {
        *is_host = false;
    }
    let agreement = judge(&host, &[], gaps);
    check(agreement.seen_by_another_name == 4, &agreement)?;
    expect(&agreement, &Verdict::Wrong("the recall is below 0.99"))
}

/// One gap of 500 us in the middle of every tenth timeslice.
fn invented(host: &[Interval]) -> Vec<(Interval, bool)> {
    let mut gaps = guest(host, 0);
    let more = host.iter().step_by(10).map(|one| {
        let start = one.end + 2_000 * US;
        (Interval { start, end: start + 500 * US }, true)
    });
    gaps.extend(more);
    gaps.sort_by_key(|(gap, _)| gap.start);
    gaps
}

fn invented_gaps_fail() -> Result<(), Failed> {
    let host = host(200);
    expect(&judge(&host, &[], invented(&host)), &Verdict::Wrong("the precision is below 0.95"))
}

/// Of the whole of these timeslices, or of the two milliseconds around the gaps in them, so much was
/// stolen.
fn thefts(host: &[Interval], around_us: u64, stolen_us: u64) -> Vec<Stretch> {
    let of = |one: &Interval| {
        let middle = one.end + 2_250 * US;
        let when = Interval { start: middle - around_us * US, end: middle + around_us * US };
        Stretch { tid: VCPU, when, stolen_ns: stolen_us * US }
    };
    host.iter().step_by(10).map(of).collect()
}

fn stolen_time_is_the_hosts() -> Result<(), Failed> {
    let host = host(200);
    // In a stretch of 600 us of which 500 were stolen the gap cannot lie elsewhere.
    let agreement = judge(&host, &thefts(&host, 300, 500), invented(&host));
    check(agreement.stolen_gaps == 20 && agreement.timeslices == (179, 199), &agreement)?;
    expect(&agreement, &Verdict::Right)?;
    // The host's interrupts took 300 of the 500 us.
    let interrupt =
        |one: &Interval| Interval { start: one.end + 2_100 * US, end: one.end + 2_400 * US };
    let interrupts = host.iter().step_by(10).map(interrupt).collect();
    let agreement = judge_by(&host, &[], interrupts, invented(&host));
    check(agreement.stolen_gaps == 20 && agreement.precision == 1.0, &agreement)
}

fn a_theft_without_a_place_judges_nothing() -> Result<(), Failed> {
    let host = host(200);
    let agreement = judge(&host, &thefts(&host, 1_700, 500), invented(&host));
    check(agreement.guest_gaps_unjudged == 20 && agreement.guest_gaps == 200, &agreement)?;
    expect(&agreement, &Verdict::Right)?;
    // Too little was stolen for the gap, wherever it was.
    let agreement = judge(&host, &thefts(&host, 1_700, 200), invented(&host));
    expect(&agreement, &Verdict::Wrong("the precision is below 0.95"))?;
    // Something was stolen from two timeslices of three.
    let when = |one: &Interval| Interval { start: one.end, end: one.end + 4_000 * US };
    let theft = |one: &Interval| Stretch { tid: VCPU, when: when(one), stolen_ns: 300 * US };
    let stolen: Vec<Stretch> = host
        .iter()
        .enumerate()
        .filter(|(index, _)| index % 3 > 0)
        .map(|(_, one)| theft(one))
        .collect();
    match judge(&host, &stolen, guest(&host, 0)).verdict(200 * US) {
        Verdict::NotJudged(because) if because.starts_with("39 ms were stolen") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn late_and_early_guests_fail() -> Result<(), Failed> {
    let host = host(200);
    let late = judge(&host, &[], guest(&host, 1_100));
    expect(&late, &Verdict::Wrong("the guest saw late that it went on"))?;
    let early = judge(&host, &[], guest(&host, -150));
    expect(&early, &Verdict::Wrong("the guest went on before its thread did"))?;
    // A guest that loses sight of the vCPU half a millisecond before its thread leaves.
    let mut gaps = guest(&host, 0);
    for (gap, _) in &mut gaps {
        gap.start -= 500 * US;
    }
    expect(&judge(&host, &[], gaps), &Verdict::Wrong("the timeslices' p50 is off by a twentieth"))
}

/// Of a guest that sees every tenth gap end so much later than it did.
fn late_at_times(host: &[Interval], late_us: u64) -> Vec<(Interval, bool)> {
    let mut gaps = guest(host, 350);
    for (gap, _) in gaps.iter_mut().step_by(10) {
        gap.end += late_us * US;
    }
    gaps
}

fn guests_that_are_late_at_times_fail() -> Result<(), Failed> {
    // Such as leave room for being late: gaps of 4 ms every 40 ms.
    let host: Vec<Interval> =
        (0..200).map(|index| 10_000 + index * 40_000).map(|at| interval(at, at + 4_000)).collect();
    let late = judge(&host, &[], late_at_times(&host, 20_000));
    expect(&late, &Verdict::Wrong("the precision is below 0.95"))?;
    // In every eleventh gap there is more of the host's than of the guest's, and still it is too long.
    let late = judge(&host, &[], late_at_times(&host, 3_600));
    check(late.precision == 1.0 && late.recall == 1.0 && late.own.p90_ns == 3_950 * US, &late)?;
    expect(&late, &Verdict::Wrong("gaps are too long at the p90"))?;
    // What was stolen after the host's switch is not the guest's, where it lies for sure or may lie.
    let theft = |one: &Interval| Stretch {
        tid: VCPU,
        when: Interval { start: one.end, end: one.end + 3_600 * US },
        stolen_ns: 3_300 * US,
    };
    let thefts: Vec<Stretch> = host.iter().step_by(10).map(theft).collect();
    let stolen = judge(&host, &thefts, late_at_times(&host, 3_600));
    expect(&stolen, &Verdict::Right)?;
    // Others: where the host takes long, a guest may be late by as much and lose no precision.
    let host: Vec<Interval> =
        (0..200).map(|index| 10_000 + index * 90_000).map(|at| interval(at, at + 30_000)).collect();
    let late = judge(&host, &[], late_at_times(&host, 20_000));
    check(late.precision == 1.0 && late.recall == 1.0, &late)?;
    expect(&late, &Verdict::Wrong("gaps are too long at the mean"))?;
    expect(&judge(&host, &[], late_at_times(&host, 300)), &Verdict::Right)
}

/// The guest's TSC was 0 at 700 us, 300 us before QEMU was told to begin.
fn a_distance_is_found_around_the_begin() -> Result<(), Failed> {
    // No two of the gaps that follow each other are alike, as on a host where others run too.
    let host: Vec<Interval> = (0..200)
        .map(|index| (10_000 + index * 8_000, index * 37 % 101 * 20))
        .map(|(at, more)| interval(at + more, at + 4_000))
        .collect();
    let zero_ns = 700 * US;
    let on_guest = |(gap, is_host): (Interval, bool)| {
        (Interval { start: gap.start - zero_ns, end: gap.end - zero_ns }, is_host)
    };
    let gaps = guest(&host, 350).into_iter().map(on_guest).collect();
    let seen = Seen { gaps, begun: 0, ended: 1 << 50, unsaid_up_to: 200 * US };
    let found = distance(&host, &seen, (1_000 * US, 2_500 * US));
    if found == Some(i128::from(zero_ns)) { Ok(()) } else { Err(format!("{found:?}").into()) }
}

fn few_gaps_judge_nothing() -> Result<(), Failed> {
    let host = host(99);
    let agreement = judge(&host, &[], guest(&host, 0));
    expect(&agreement, &Verdict::NotJudged("99 gaps of the host are fewer than 100".to_owned()))
}

const TRACE: &str = "\
# tracer: nop
          <idle>-0       [001] d..2.   961.000000: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=CPU 1/TCG next_pid=7 next_prio=120
       CPU 1/TCG-7       [001] d.h2.   961.004000: sched_stat_runtime: comm=CPU 1/TCG pid=7 runtime=3990000 [ns]
       CPU 1/TCG-7       [001] d.h2.   961.020000: sched_stat_runtime: comm=CPU 1/TCG pid=7 runtime=400000 [ns]
       CPU 1/TCG-7       [001] d..2.   961.020005: sched_switch: prev_comm=CPU 1/TCG prev_pid=7 prev_prio=120 prev_state=R ==> next_comm=pid=9 runtime= next_pid=8 next_prio=120
     pid=9 runtime=-8    [001] d.h2.   961.020105: sched_stat_runtime: comm=pid=9 runtime= pid=8 runtime=100000 [ns]
       CPU 1/TCG-7       [001] d.h2.   961.020106: sched_stat_runtime: comm=CPU 1/TCG pid=7 runtime=1 [ns]
       CPU 1/TCG-7       [001] ..s2.   961.020110: softirq_entry: vec=1 [action=TIMER]
       CPU 1/TCG-7       [001] d.h2.   961.020120: irq_handler_entry: irq=26 name=virtio
       CPU 1/TCG-7       [001] d.h2.   961.020130: irq_handler_exit: irq=26 ret=handled
       CPU 1/TCG-7       [001] ..s2.   961.020190: softirq_exit: vec=1 [action=TIMER]
       CPU 1/TCG-7       [001] d.h2.   961.020200: irq_handler_entry: irq=26 name=virtio
       CPU 1/TCG-7       [001] d.h2.   961.020201: irq_handler_exit: irq=26 ret=handled
";

fn stolen_is_what_was_not_counted() -> Result<(), Failed> {
    let at = |us: u64| 961_000_000 + us;
    let stretch = |tid: u32, from: u64, to: u64, stolen_us: u64| Stretch {
        tid: Tid(tid),
        when: interval(at(from), at(to)),
        stolen_ns: stolen_us * US,
    };
    let expected =
        [stretch(7, 0, 4_000, 0), stretch(7, 4_000, 20_000, 15_600), stretch(8, 20_005, 20_105, 0)];
    let interrupts = vec![interval(at(20_110), at(20_190)), interval(at(20_200), at(20_201))];
    let expected = Testimony { stretches: expected.to_vec(), interrupts };
    let read = testimony(TRACE);
    if read == expected { Ok(()) } else { Err(format!("{read:#?}").into()) }
}

fn check(holds: bool, agreement: &Agreement) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{agreement:#?}").into()) }
}
