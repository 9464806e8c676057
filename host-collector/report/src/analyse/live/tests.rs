//! Drawn events to seconds.

use super::*;
use crate::analyse::drawn::{BQL, VM1_LOOP, VM1_VCPU1, manifest};
use vslice_core::host_event::{BlockEvent, BlockStep, HostEventKind, PrevState, StackId, Switch};
use vslice_core::timeline::{Reason, UnknownCause};
use vslice_core::units::PcpuId;
use vslice_trace::manifest::Window;
use vslice_wire::BlockOperation;

const PCPU: PcpuId = PcpuId(1);
/// A task of the host.
const CC: Tid = Tid(300);
const START: HostNs = HostNs(5_000_000_000);

fn at(ms: u64) -> HostNs {
    HostNs(START.0 + ms * 1_000_000)
}

fn live() -> LiveAnalysis {
    let mut manifest = manifest();
    manifest.window = Some(Window { start_ns: START, end_ns: None });
    let census = [serde_json::from_value(serde_json::json!({
        "tid": 300, "pid": 300, "comm": "cc", "is_kernel": false, "is_vslice": false, "command": null
    }))
    .expect("a thread of the host")];
    let mut live = LiveAnalysis::new(manifest, &census, Reading::default());
    live.stack(vec!["futex_wait_queue".to_owned(), "futex_wait".to_owned()]);
    live
}

fn event(ms: u64, kind: HostEventKind) -> HostEvent {
    HostEvent { time: at(ms), pcpu: PCPU, kind }
}

fn switch(ms: u64, prev: Tid, prev_state: PrevState, next: Tid) -> HostEvent {
    // Whoever sleeps does so for the big lock.
    let stack = (prev_state == PrevState::Sleep).then_some(StackId(0));
    let call_args = stack.map(|_| [BQL, 0x80, 2]);
    let switch = Switch { stack, call_args, ..Switch::new(prev, prev_state, next) };
    event(ms, HostEventKind::Switch(switch))
}

fn waking(ms: u64, tid: Tid) -> HostEvent {
    event(ms, HostEventKind::Waking { tid, target: PCPU, waker: VM1_LOOP })
}

fn seconds(live: &mut LiveAnalysis, events: Vec<HostEvent>, until_ms: u64) -> Vec<Second> {
    live.push(events, at(until_ms));
    let mut seconds = Vec::new();
    while live.advance() {
        seconds.push(live.close(&Reading::default()));
    }
    seconds
}

const RUNS: PrevState = PrevState::Runnable;

/// ```text
/// ms        0        200    700         1000       1300    1500  1700       2000
/// vm1 vCPU1 | unseen | runs | waits for cc         | sleeps | woken | runs
/// ```
fn drawn() -> Vec<HostEvent> {
    vec![
        switch(200, Tid::IDLE, RUNS, VM1_VCPU1),
        switch(700, VM1_VCPU1, RUNS, CC),
        switch(1300, CC, RUNS, VM1_VCPU1),
        switch(1300, VM1_VCPU1, PrevState::Sleep, CC),
        waking(1500, VM1_VCPU1),
        switch(1700, CC, RUNS, VM1_VCPU1),
    ]
}

fn ms(ns: u64) -> u64 {
    ns / 1_000_000
}

#[test]
fn a_wait_that_goes_on_counts_up_to_the_seconds_end_and_from_there() {
    let seconds = seconds(&mut live(), drawn(), 2_000);
    let parts = |place: usize| {
        let vcpu = &seconds[place].vms[0].vcpus[0];
        assert_eq!(vcpu.total_ns(), SECOND_NS);
        [vcpu.running_ns, vcpu.waiting_ns, vcpu.asleep_ns, vcpu.throttled_ns, vcpu.unknown_ns]
            .map(ms)
    };
    assert_eq!(seconds.len(), 2);
    assert_eq!(parts(0), [500, 300, 0, 0, 200]);
    assert_eq!(parts(1), [300, 500, 200, 0, 0]);
    let vcpu = &seconds[0].vms[0].vcpus[0];
    let unseen = UnknownNs { cause: UnknownCause::NotYetSeen, ns: 200_000_000 };
    assert_eq!(vcpu.unknown_by, [unseen]);
    let asleep = &seconds[1].vms[0].vcpus[0].asleep_by;
    assert_eq!(asleep[0].reason, OffReason::Left(Reason::Bql));
    assert!(seconds[0].vms[1].vcpus[0].unknown_ns == SECOND_NS, "no event tells of it");
}

#[test]
fn the_worst_wait_is_told_from_its_start_with_who_ran() {
    let seconds = seconds(&mut live(), drawn(), 2_000);
    let worst = |place: usize| seconds[place].vms[0].vcpus[0].worst_wait.clone().expect("one");
    let by = |ran_ms: u64| Some(Runner { name: "cc".to_owned(), ran_ns: ran_ms * 1_000_000 });
    let first = worst(0);
    assert_eq!((ms(first.length_ns), first.goes_on, first.pcpu), (300, true, PCPU));
    assert_eq!(first.by, by(300));
    let second = worst(1);
    assert_eq!((ms(second.length_ns), second.goes_on, second.by.clone()), (600, false, by(600)));
}

#[test]
fn antagonists_of_a_second_are_those_of_its_part_of_the_waits() {
    let seconds = seconds(&mut live(), drawn(), 2_000);
    for (second, ran_ms) in seconds.iter().zip([300, 500]) {
        let vm = &second.vms[0];
        let groups: Vec<_> =
            vm.antagonists.iter().map(|group| (&*group.name, ms(group.ran_ns))).collect();
        assert_eq!(groups, [("cc", ran_ms)]);
        assert_eq!([vm.others_ns, vm.idle_ns, vm.unseen_ns], [0; 3]);
    }
}

#[test]
fn who_ran_in_an_earlier_second_of_a_wait_is_not_in_this_one() {
    let other = Tid(301);
    let events = vec![
        switch(200, Tid::IDLE, RUNS, VM1_VCPU1),
        switch(700, VM1_VCPU1, RUNS, CC),
        switch(1000, CC, RUNS, other),
        switch(1300, other, RUNS, VM1_VCPU1),
    ];
    let seconds = seconds(&mut live(), events, 2_000);
    let ran = |place: usize| {
        let groups = &seconds[place].vms[0].antagonists;
        groups.iter().map(|group| (&*group.name, ms(group.ran_ns))).collect::<Vec<_>>()
    };
    assert_eq!((ran(0), ran(1)), (vec![("cc", 300)], vec![("tid 301", 300)]));
}

#[test]
fn a_lock_wait_counts_where_it_ends_with_who_let_go() {
    let seconds = seconds(&mut live(), drawn(), 2_000);
    assert_eq!(seconds[0].vms[0].vcpus[0].lock_waits, LockWaits::default());
    let waits = &seconds[1].vms[0].vcpus[0].lock_waits;
    let worst = waits.worst.as_ref().expect("one");
    assert_eq!((waits.count, ms(waits.total_ns), ms(worst.length_ns)), (1, 200, 200));
    assert_eq!(
        (worst.reason, &*worst.released_by),
        (OffReason::Left(Reason::Bql), "vm1 main loop")
    );
}

#[test]
fn who_kept_its_pcpu_or_slept_without_an_event_is_known_by_the_kernels_counts() {
    for (unseen, parts) in [(Unseen::Kept, [1_000, 0, 0]), (Unseen::Asleep, [0, 1_000, 0])] {
        let mut live = live();
        live.push(Vec::new(), at(1_000));
        assert!(live.advance());
        let unseen = HashMap::from([(VM1_VCPU1, unseen)]);
        let second = live.close(&Reading { unseen, ..Reading::default() });
        let vcpu = &second.vms[0].vcpus[0];
        assert_eq!([vcpu.running_ns, vcpu.asleep_ns, vcpu.unknown_ns].map(ms), parts);
    }
}

#[test]
fn whether_a_sleep_was_one_that_only_the_next_event_tells_is_unknown_until_then() {
    let raced = vec![
        switch(100, Tid::IDLE, RUNS, VM1_VCPU1),
        waking(800, VM1_VCPU1),
        switch(900, VM1_VCPU1, PrevState::Sleep, CC),
        switch(1100, CC, RUNS, VM1_VCPU1),
    ];
    let seconds = seconds(&mut live(), raced, 2_000);
    let vcpus = seconds.iter().map(|second| &second.vms[0].vcpus[0]);
    let parts: Vec<_> =
        vcpus.map(|vcpu| [vcpu.running_ns, vcpu.waiting_ns, vcpu.unknown_ns].map(ms)).collect();
    assert_eq!(parts, [[800, 0, 200], [900, 100, 0]]);
}

#[test]
fn what_was_lost_is_unknown_and_counted() {
    let mut live = live();
    live.push(drawn(), at(600));
    assert!(!live.advance());
    live.left_out(LeftOut { from: at(800), until: at(900), count: 7 });
    live.push(vec![event(950, HostEventKind::Lost { until: at(960), count: 3 })], at(1_000));
    assert!(live.advance());
    let second = live.close(&Reading::default());
    assert_eq!((second.losses.left_out_events, second.losses.lost_events), (7, 3));
    let vcpu = &second.vms[0].vcpus[0];
    let lost = UnknownNs { cause: UnknownCause::Lost, ns: 200_000_000 };
    assert!(vcpu.unknown_by.contains(&lost), "{:?}", vcpu.unknown_by);
    assert_eq!(vcpu.total_ns(), SECOND_NS);
}

#[test]
fn counters_are_told_by_what_they_have_counted_meanwhile() {
    let reading = |delay_ns, poll_ns, cpu_ns| Reading {
        run_delay_ns: HashMap::from([(VM1_VCPU1, delay_ns)]),
        halt_poll_ns: vec![Some(poll_ns), None],
        cpu_ns: Some(cpu_ns),
        ..Reading::default()
    };
    let mut live = live();
    live.push(Vec::new(), at(2_000));
    assert!(live.advance());
    let first = live.close(&reading(50, 7, 100));
    assert_eq!((first.vms[0].vcpus[0].steal_ns, first.cost.cpu_ns), (None, None), "read once");
    assert!(live.advance());
    let second = live.close(&reading(80, 9, 300));
    assert_eq!((second.vms[0].vcpus[0].steal_ns, second.vms[0].halt_poll_ns), (Some(30), Some(2)));
    assert_eq!((second.vms[1].vcpus[0].steal_ns, second.vms[1].halt_poll_ns), (None, None));
    assert_eq!(second.cost.cpu_ns, Some(200));
}

#[test]
fn what_is_left_of_a_second_when_the_recording_ends_is_told() {
    let mut live = live();
    live.push(drawn(), at(1_400));
    assert!(live.advance());
    live.close(&Reading::default());
    assert!(!live.advance());
    let last = live.end(at(1_400), &Reading::default()).expect("some is left");
    assert_eq!((last.number, ms(last.length_ns)), (1, 400));
    assert_eq!(last.vms[0].vcpus[0].total_ns(), last.length_ns);
    assert_eq!(live.end(at(1_400), &Reading::default()), None);
}

#[test]
fn the_hosts_io_is_told_within_a_tenth_of_a_second_of_its_end() {
    let mut manifest = manifest();
    manifest.window = Some(Window { start_ns: START, end_ns: None });
    manifest.vms[0].disks = vec![
        serde_json::from_value(serde_json::json!({
            "label": "disk", "bus": "virtio-blk", "size_bytes": null, "is_direct": true,
            "whole_disk": { "name": "sda", "device": 8 << 20, "first_sector": 0 }, "missing": null,
            "extents": [], "extents_missing": "not looked for"
        }))
        .expect("a disk"),
    ];
    let mut live = LiveAnalysis::new(manifest, &[], Reading::default());
    let block = |ms, step, sector| {
        let operation = Some(BlockOperation::Read);
        let (tid, device, sectors) = (VM1_LOOP, 8 << 20, 8);
        event(
            ms,
            HostEventKind::Block(BlockEvent { step, tid, device, sector, sectors, operation }),
        )
    };
    let events = vec![
        block(100, BlockStep::Submitted, 0),
        block(110, BlockStep::Completed, 0),
        block(940, BlockStep::Submitted, 80),
        block(960, BlockStep::Completed, 80),
    ];
    let seconds = seconds(&mut live, events, 2_000);
    let row = |place: usize| &seconds[place].vms[0].host_io[0];
    assert_eq!((row(0).operation, row(0).device.as_deref()), ("read", Some("sda")));
    assert_eq!((row(0).latency.count, ms(row(0).latency.total_ns)), (1, 10));
    assert_eq!((row(1).latency.count, ms(row(1).latency.total_ns)), (1, 20), "in the next");
}

/// A thread's name is anybody's text.
#[test]
fn nothing_that_a_terminal_obeys_gets_into_a_second() {
    let comm = "\u{1b}[2J\u{202e}\u{9b}x".to_owned();
    let mut events = drawn();
    events.insert(0, event(100, HostEventKind::Comm { tid: CC, comm }));
    let seconds = seconds(&mut live(), events, 2_000);
    let json = serde_json::to_string(&seconds).expect("JSON");
    assert!(json.contains("?[2J??x") && !json.contains("\\u"), "{json}");
    assert!(json.chars().all(|letter| !letter.is_control() && letter != '\u{202e}'));
}
