//! What a reader sees of pCPUs of which not all is recorded.

use super::super::read::text;
use super::super::trace::Trace;
use super::*;
use vslice_report::analyse::drawn::{VM1_VCPU1, host_at, manifest, switch};
use vslice_report::who::VmNames;

/// Not pinned to.
const UNWATCHED: PcpuId = PcpuId(7);

fn event(us: u64, pcpu: u32, kind: HostEventKind) -> HostEvent {
    HostEvent { time: host_at(us), pcpu: PcpuId(pcpu), kind }
}

/// The last bundles of these events, one a line.
fn bundles(events: &[HostEvent]) -> Vec<String> {
    bundles_of(events, false).0
}

fn bundles_of(events: &[HostEvent], is_torn: bool) -> (Vec<String>, u64) {
    let manifest = manifest();
    let names = VmNames::of(&manifest);
    let mut pcpus = Pcpus::of(&manifest);
    let mut trace = Trace::new(Vec::new(), host_at(0));
    let tasks = Tasks::default();
    events.iter().for_each(|event| pcpus.event(event, &tasks, &names, &mut trace));
    pcpus.finish(is_torn, &mut trace);
    let told = text(&trace.finish().unwrap());
    let bundles = told.lines().filter(|line| line.contains("ftrace_events"));
    (bundles.map(str::to_owned).collect(), pcpus.left_out_count)
}

fn column(bundle: &str, name: &str) -> Vec<u64> {
    let (_, rest) = bundle.split_once(&format!("{name}: [")).unwrap_or(("", "]"));
    let (numbers, _) = rest.split_once(']').unwrap();
    numbers
        .split(", ")
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().unwrap())
        .collect()
}

/// Who comes on, after so many microseconds.
fn comes_on(bundle: &str) -> Vec<(u64, u64)> {
    let mut at = 0;
    let times = column(bundle, "switch_timestamp").into_iter().map(|delta| {
        at += delta;
        (at - host_at(0).0) / 1_000
    });
    times.zip(column(bundle, "switch_next_pid")).collect()
}

fn not_recorded_on(pcpu: u32) -> u64 {
    u64::from(not_recorded(PcpuId(pcpu)).0)
}

fn runs(us: u64, prev: u32, next: u32) -> HostEvent {
    switch(us, Tid(prev), PrevState::Runnable, Tid(next))
}

#[test]
fn the_first_switch_says_from_whom_it_is() {
    let told = bundles(&[runs(10, 3, 4), runs(20, 4, 5)]);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("prev_pid: 3") && told[0].contains("next_pid: 4"), "{told:?}");
    assert_eq!(comes_on(&told[0]), [(20, 5)]);
    assert_eq!(column(&told[0], "switch_next_prio"), [120]);
}

#[test]
fn where_a_record_is_missing_nobody_is_said_to_have_run() {
    let told = bundles(&[runs(10, 3, 4), runs(50, 6, 7), runs(60, 7, 6)]);
    let nobody = not_recorded_on(1);
    // Until when the one ran and since when the other did is not known.
    assert_eq!(comes_on(&told[0]), [(10, nobody), (50, 6), (50, 7), (60, 6)]);
    assert_eq!(column(&told[0], "switch_prev_state"), [0x200, 0x10, 0, 0]);
}

#[test]
fn after_a_loss_nobody_is_said_to_have_run() {
    let lost = event(30, 1, HostEventKind::Lost { until: host_at(40), count: 2 });
    let told = bundles(&[runs(10, 3, 4), lost, runs(50, 4, 7)]);
    assert_eq!(comes_on(&told[0]), [(30, not_recorded_on(1))]);
    assert!(!told[0].contains("lost_events"));
    assert!(told[1].contains("lost_events: 1"), "{told:?}");
    assert_eq!(comes_on(&told[1]), [(50, 4), (50, 7)]);
}

#[test]
fn on_a_pcpu_that_is_not_watched_only_threads_of_vms_are_told() {
    let vcpu = VM1_VCPU1.0;
    let elsewhere = |event: HostEvent| HostEvent { pcpu: UNWATCHED, ..event };
    let told = bundles(&[
        elsewhere(runs(10, 3, vcpu)),
        elsewhere(runs(20, vcpu, 4)),
        // In between others ran, of whom nothing was recorded.
        elsewhere(runs(30, 4, vcpu)),
        elsewhere(runs(40, vcpu, 0)),
        elsewhere(runs(50, 0, vcpu)),
    ]);
    let (vcpu, nobody) = (u64::from(vcpu), not_recorded_on(UNWATCHED.0));
    assert_eq!(comes_on(&told[0]), [(20, nobody), (30, vcpu), (40, nobody), (50, vcpu)]);
}

#[test]
fn a_waker_that_is_not_the_one_on_the_pcpu_is_told() {
    let waking = |us, waker| {
        event(us, 1, HostEventKind::Waking { tid: Tid(9), target: PcpuId(2), waker: Tid(waker) })
    };
    let told = bundles(&[waking(5, 3), runs(10, 3, 4), waking(15, 4), waking(16, 8)]);
    assert_eq!(column(&told[0], "waking_pid"), [9]);
    assert_eq!(column(&told[0], "waking_timestamp"), [host_at(15).0]);
    for waker in [3, 8] {
        assert!(told[0].contains(&format!("pid: {waker} sched_waking {{")), "{told:?}");
    }
}

#[test]
fn what_was_cut_off_does_not_go_on() {
    let events = [runs(10, 3, 4), runs(20, 4, 5)];
    let (told, _) = bundles_of(&events, true);
    assert_eq!(comes_on(&told[0]), [(20, 5), (20, not_recorded_on(1))]);
}

#[test]
fn a_pcpu_that_perfetto_has_no_room_for_is_counted() {
    let far = HostEvent { pcpu: PcpuId(1_024), ..runs(10, 3, 4) };
    let (told, left_out_count) = bundles_of(&[far, runs(10, 3, 4)], false);
    assert_eq!((told.len(), left_out_count), (1, 1));
}

#[test]
fn many_events_are_several_bundles_that_go_on_where_the_last_ended() {
    let turn = |turn: u32| runs(u64::from(turn), 3 + turn % 2, 4 - turn % 2);
    let told = bundles(&(0..9_000).map(turn).collect::<Vec<_>>());
    assert!(told.len() >= 4, "{}", told.len());
    let all: Vec<(u64, u64)> = told.iter().flat_map(|bundle| comes_on(bundle)).collect();
    let expected: Vec<(u64, u64)> = (1..9_000).map(|turn| (turn, 4 - turn % 2)).collect();
    assert_eq!(all, expected);
}
