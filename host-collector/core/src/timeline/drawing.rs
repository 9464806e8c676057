//! Timelines as drawings: a test draws one, has it turned into events, and reads it back.
//!
//! ```text
//! ===pppp=====_____wwww=======??
//! ```
//! One character is [`UNIT_NS`]: `=` running, `p` preemption wait, `_` blocked, `w` wakeup delay,
//! `?` unknown. The thread is on [`HOME`]; while it is off, [`Tid::IDLE`] runs there.

use super::*;
use crate::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
use crate::units::{HostNs, PcpuId, Tid};

/// The length of one character.
pub(super) const UNIT_NS: u64 = 10;
/// The thread that is drawn.
pub(super) const DRAWN: Tid = Tid(100);
/// Its pCPU.
pub(super) const HOME: PcpuId = PcpuId(1);
/// Who wakes it.
pub(super) const WAKER: Tid = Tid(7);

pub(super) fn switch(
    time_ns: u64,
    pcpu: PcpuId,
    prev: Tid,
    state: PrevState,
    next: Tid,
) -> HostEvent {
    let kind = HostEventKind::Switch(Switch::new(prev, state, next));
    HostEvent { time: HostNs(time_ns), pcpu, kind }
}

pub(super) fn waking(time_ns: u64, tid: Tid, target: PcpuId) -> HostEvent {
    let kind = HostEventKind::Waking { tid, target, waker: WAKER };
    HostEvent { time: HostNs(time_ns), pcpu: PcpuId(0), kind }
}

pub(super) fn lost(time_ns: u64, until_ns: u64) -> HostEvent {
    let kind = HostEventKind::Lost { until: HostNs(until_ns), count: 1 };
    HostEvent { time: HostNs(time_ns), pcpu: PcpuId(0), kind }
}

fn switch_in(time_ns: u64) -> HostEvent {
    switch(time_ns, HOME, Tid::IDLE, PrevState::Runnable, DRAWN)
}

fn switch_out(time_ns: u64, state: PrevState) -> HostEvent {
    switch(time_ns, HOME, DRAWN, state, Tid::IDLE)
}

/// The events that a drawing stands for.
///
/// Where the kernel has no single event from one state to the next, the thread passes through the
/// states between in no time: from `p` to `_` it comes on and goes to sleep at one moment.
pub(super) fn events(drawing: &str) -> Vec<HostEvent> {
    let states: Vec<char> = drawing.chars().collect();
    let mut events = Vec::new();
    let mut before = '?';
    let mut start = 0;
    for run in states.chunk_by(|left, right| left == right) {
        let time_ns = start as u64 * UNIT_NS;
        start += run.len();
        let end_ns = start as u64 * UNIT_NS;
        match (before, run[0]) {
            ('?', '?') => {}
            (_, '?') => events.push(lost(time_ns, end_ns)),
            ('_', 'w') => events.push(waking(time_ns, DRAWN, HOME)),
            (from, to) => {
                if matches!(from, 'p' | 'w' | '_') || to == '=' {
                    events.push(switch_in(time_ns));
                }
                match to {
                    'p' => events.push(switch_out(time_ns, PrevState::Runnable)),
                    '_' => events.push(switch_out(time_ns, PrevState::Sleep)),
                    'w' => {
                        events.push(switch_out(time_ns, PrevState::DiskSleep));
                        events.push(waking(time_ns, DRAWN, HOME));
                    }
                    _ => {}
                }
            }
        }
        before = run[0];
    }
    events
}

/// Draws the spans of one thread, and checks that they follow each other without a gap.
pub(super) fn draw(spans: &[Span]) -> String {
    let mut drawing = String::new();
    for pair in spans.windows(2) {
        assert_eq!(pair[0].end, pair[1].start, "a gap or an overlap between {pair:#?}");
    }
    for span in spans {
        assert!(span.length_ns() > 0 && span.length_ns().is_multiple_of(UNIT_NS), "{span:?}");
        let character = match span.state {
            ThreadState::Running { .. } => '=',
            ThreadState::PreemptWait { .. } => 'p',
            ThreadState::Blocked { .. } => '_',
            ThreadState::WakeupDelay { .. } => 'w',
            ThreadState::Unknown { .. } => '?',
        };
        drawing.extend((0..span.length_ns() / UNIT_NS).map(|_| character));
    }
    drawing
}

/// The spans that the events of one drawn thread give.
pub(super) fn spans_of(events: &[HostEvent], length: usize) -> (Vec<Span>, Contradictions) {
    let mut spans = Vec::new();
    let mut timeline = Timeline::new([DRAWN], StackTable::default()).starting_at(HostNs(0));
    for event in events {
        timeline.push(event, &mut |span| spans.push(span));
    }
    timeline.finish(HostNs(length as u64 * UNIT_NS), &mut |span| spans.push(span));
    assert!(spans.iter().all(|span| span.tid == DRAWN));
    (spans, timeline.contradictions().clone())
}

fn state_at(spans: &[Span], unit: u64) -> ThreadState {
    let at = HostNs(unit * UNIT_NS);
    spans.iter().find(|span| span.start <= at && at < span.end).expect("the spans tile").state
}

fn round_trip(drawing: &str) {
    let events = events(drawing);
    let (spans, contradictions) = spans_of(&events, drawing.len());
    assert_eq!(draw(&spans), drawing, "{events:#?}");
    assert_eq!(contradictions.count(), 0, "{contradictions:?}");
}

#[test]
fn drawings_come_back() {
    for drawing in [
        "===pppp=====_____wwww=======??",
        "??===",
        "?",
        "=",
        "____=",
        "wwww==",
        "pppp==",
        "?_?p?w?=?",
        "=p_w=w_p=",
    ] {
        round_trip(drawing);
    }
}

#[test]
fn the_first_span_starts_with_the_first_event() {
    let mut spans = Vec::new();
    let mut timeline = Timeline::new([DRAWN], StackTable::default());
    timeline.push(&waking(500, Tid(3), HOME), &mut |span| spans.push(span));
    timeline.push(&switch_in(530), &mut |span| spans.push(span));
    timeline.finish(HostNs(560), &mut |span| spans.push(span));
    assert_eq!(spans[0].start, HostNs(500));
    assert_eq!(draw(&spans), "???===");
}

#[test]
fn an_explicit_start_cuts_what_came_before() {
    let mut spans = Vec::new();
    let mut timeline = Timeline::new([DRAWN], StackTable::default()).starting_at(HostNs(50));
    timeline.push(&switch_in(20), &mut |span| spans.push(span));
    timeline.push(&switch_out(70, PrevState::Sleep), &mut |span| spans.push(span));
    timeline.finish(HostNs(100), &mut |span| spans.push(span));
    assert_eq!(spans[0].start, HostNs(50));
    assert_eq!(draw(&spans), "==___");
}

#[test]
fn nothing_recorded_gives_unknown_from_the_explicit_start() {
    assert_eq!(draw(&spans_of(&[], 4).0), "????");
    let mut timeline = Timeline::new([DRAWN], StackTable::default());
    timeline.finish(HostNs(100), &mut |span| panic!("{span:?} without a start"));
}

#[test]
fn who_woke_it_and_why_it_slept_are_kept() {
    let mut table = StackTable::default();
    table.push(vec!["kvm_vcpu_block".to_owned()]);
    let mut timeline = Timeline::new([DRAWN], table).starting_at(HostNs(0));
    let mut spans = Vec::new();
    let stack = Some(crate::host_event::StackId(0));
    timeline.push(&switch_in(0), &mut |span| spans.push(span));
    let mut sleep = switch_out(10, PrevState::Sleep);
    if let HostEventKind::Switch(switch) = &mut sleep.kind {
        switch.stack = stack;
    }
    timeline.push(&sleep, &mut |span| spans.push(span));
    timeline.push(&waking(20, DRAWN, PcpuId(3)), &mut |span| spans.push(span));
    timeline.finish(HostNs(30), &mut |span| spans.push(span));
    let slept = Sleep { stack, waker: Some(WAKER), ..Sleep::new(Reason::Halt) };
    assert_eq!(spans[1].state, ThreadState::Blocked(slept));
    assert_eq!(spans[2].state, ThreadState::WakeupDelay { pcpu: PcpuId(3), raced: None });
}

#[test]
fn a_waking_recorded_before_the_sleep_that_it_ends() {
    // "===wwww=": woken at 2, off at 3, on again at 7, and no other waking.
    let events =
        [switch_in(0), waking(20, DRAWN, HOME), switch_out(30, PrevState::Sleep), switch_in(70)];
    let (spans, _) = spans_of(&events, 8);
    assert_eq!(draw(&spans), "===wwww=");
    assert_eq!(spans[1].antagonists, [Antagonist::new(Who::of_tid(Tid::IDLE), 40)]);
    let raced = Some(Sleep { waker: Some(WAKER), ..Sleep::new(Reason::Unknown) });
    assert_eq!(spans[1].state, ThreadState::WakeupDelay { pcpu: HOME, raced });
}

#[test]
fn a_waking_that_the_running_thread_absorbed_does_not_count_for_its_next_sleep() {
    // The sleep has a waking of its own, so the first one had only changed the state back.
    let events = [
        switch_in(0),
        waking(20, DRAWN, HOME),
        switch_out(30, PrevState::Sleep),
        waking(50, DRAWN, HOME),
        switch_in(70),
    ];
    let (spans, _) = spans_of(&events, 8);
    assert_eq!(draw(&spans), "===__ww=");
    assert!(spans[1].antagonists.is_empty(), "nobody is in the way of a sleeping thread");
    assert_eq!(spans[2].antagonists, [Antagonist::new(Who::of_tid(Tid::IDLE), 20)]);
}

#[test]
fn a_waking_is_not_remembered_across_a_preemption() {
    let events = [
        switch_in(0),
        waking(10, DRAWN, HOME),
        switch_out(20, PrevState::RunnablePreempted),
        waking(25, DRAWN, HOME),
        switch_in(30),
        switch_out(40, PrevState::Sleep),
        switch_in(60),
    ];
    assert_eq!(draw(&spans_of(&events, 8).0), "==p=__==");
}

#[test]
fn a_race_that_nothing_decides_is_unknown() {
    let race = [switch_in(0), waking(10, DRAWN, HOME), switch_out(20, PrevState::Sleep)];
    let (spans, _) = spans_of(&race, 5);
    assert_eq!(draw(&spans), "==???");
    let mut then_loss = race.to_vec();
    then_loss.push(lost(40, 50));
    assert_eq!(draw(&spans_of(&then_loss, 6).0), "==????");
}

#[test]
fn after_a_loss_only_a_switch_of_its_own_tells() {
    let cause = |cause| ThreadState::Unknown { cause };
    // Wakings, and switches within the loss, are not believed.
    let events = [
        switch_in(0),
        lost(20, 50),
        switch_out(30, PrevState::Sleep),
        waking(60, DRAWN, HOME),
        switch_out(70, PrevState::Runnable),
    ];
    let (spans, contradictions) = spans_of(&events, 9);
    assert_eq!(draw(&spans), "==?????pp");
    assert_eq!(state_at(&spans, 3), cause(UnknownCause::Lost));
    assert_eq!(contradictions.count(), 0);
}

#[test]
fn an_ended_thread_stays_ended() {
    let exit = |time_ns| HostEvent {
        time: HostNs(time_ns),
        pcpu: HOME,
        kind: HostEventKind::Exit { tid: DRAWN },
    };
    let ended = ThreadState::Unknown { cause: UnknownCause::Ended };
    // A later thread may be given the same id; it is not the one that is watched.
    let events = [switch_in(0), exit(20), switch_out(30, PrevState::Dead), switch_in(50)];
    let (spans, contradictions) = spans_of(&events, 7);
    assert_eq!(draw(&spans), "==?????");
    assert_eq!(state_at(&spans, 6), ended);
    assert_eq!(contradictions.count(), 0);

    let (spans, _) = spans_of(&[switch_in(0), switch_out(30, PrevState::Dead), lost(40, 50)], 7);
    assert_eq!(draw(&spans), "===????");
    assert_eq!(state_at(&spans, 6), ended);
}

#[test]
fn contradictions_are_unknown_and_say_what_was_observed() {
    let elsewhere = PcpuId(4);
    for (drawing, events, kind, sentence) in [
        (
            "???==",
            vec![switch_in(0), switch(30, elsewhere, Tid(5), PrevState::Runnable, DRAWN)],
            ContradictionKind::SwitchedInTwice { running_on: HOME, switched_in_on: elsewhere },
            "at 30 ns thread 100 was switched in on pCPU4 while it was running on pCPU1",
        ),
        (
            "=??pp",
            vec![
                switch_in(0),
                switch_out(10, PrevState::Sleep),
                switch(30, elsewhere, DRAWN, PrevState::Runnable, Tid(5)),
            ],
            ContradictionKind::SwitchedOutTwice { switched_out_on: elsewhere },
            "at 30 ns thread 100 was switched out on pCPU4 while it was not running",
        ),
        (
            "???__",
            vec![switch_in(0), switch(30, elsewhere, DRAWN, PrevState::Sleep, Tid(5))],
            ContradictionKind::SwitchedOutElsewhere {
                running_on: HOME,
                switched_out_on: elsewhere,
            },
            "at 30 ns thread 100 was switched out on pCPU4 while it was running on pCPU1",
        ),
        (
            "?????",
            vec![switch_in(0), switch(30, HOME, Tid(5), PrevState::Runnable, Tid(6))],
            ContradictionKind::Displaced { running_on: HOME, by: Tid(5) },
            "at 30 ns thread 5 was switched out on pCPU1, where thread 100 was running",
        ),
    ] {
        let (spans, contradictions) = spans_of(&events, 5);
        assert_eq!(draw(&spans), drawing, "{sentence}");
        let expected = Contradiction { time: HostNs(30), tid: DRAWN, kind };
        assert_eq!(contradictions.first(), [expected]);
        assert_eq!(contradictions.count(), 1);
        assert_eq!(expected.to_string(), sentence);
    }
}

#[test]
fn antagonists_are_who_ran_there_and_nobody_else() {
    let (hog, kworker) = (Tid(200), Tid(30));
    let events = [
        switch(0, HOME, hog, PrevState::Runnable, DRAWN),
        switch(10, HOME, DRAWN, PrevState::Runnable, kworker),
        switch(15, HOME, kworker, PrevState::Sleep, hog),
        // On another pCPU: of no concern.
        switch(20, PcpuId(9), Tid(1), PrevState::Sleep, Tid(2)),
        switch(40, HOME, hog, PrevState::Sleep, Tid::IDLE),
        switch(45, HOME, Tid::IDLE, PrevState::Runnable, kworker),
        switch(50, HOME, kworker, PrevState::Sleep, DRAWN),
    ];
    let (spans, _) = spans_of(&events, 6);
    assert_eq!(draw(&spans), "=pppp=");
    assert_eq!(
        spans[1].antagonists,
        [
            Antagonist::new(Who::of_tid(hog), 25),
            Antagonist::new(Who::of_tid(kworker), 10),
            Antagonist::new(Who::of_tid(Tid::IDLE), 5),
        ]
    );
}

#[test]
fn who_takes_another_name_ran_under_both() {
    let shell = Tid(200);
    let named = |time_ns, comm: &str| {
        let kind = HostEventKind::Comm { tid: shell, comm: comm.to_owned() };
        HostEvent { time: HostNs(time_ns), pcpu: HOME, kind }
    };
    let events = [
        named(0, "bash"),
        switch(0, HOME, shell, PrevState::Runnable, DRAWN),
        switch(10, HOME, DRAWN, PrevState::Runnable, shell),
        named(15, "true"),
        switch(50, HOME, shell, PrevState::Dead, DRAWN),
        // Only what comes later is known under the later name.
        named(60, "gone"),
    ];
    let (spans, _) = spans_of(&events, 7);
    assert_eq!(draw(&spans), "=pppp==");
    let ran: Vec<_> = spans[1]
        .antagonists
        .iter()
        .map(|ran| match &ran.who {
            Who::Thread(task) => (task.name.as_str(), task.tid, ran.ran_ns),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ran, [("true", shell, 35), ("bash", shell, 5)]);
}

/// Whoever runs meanwhile does not keep it from its pCPU.
#[test]
fn a_thread_whose_quota_is_used_up_has_no_antagonists() {
    let neighbour = Tid(200);
    let table = StackTable::from(vec![vec!["throttle_cfs_rq_work".to_owned()]]);
    let mut throttled = switch(10, HOME, DRAWN, PrevState::Runnable, neighbour);
    if let HostEventKind::Switch(switch) = &mut throttled.kind {
        switch.stack = Some(StackId(0));
    }
    let mut timeline = Timeline::new([DRAWN], table).starting_at(HostNs(0));
    let mut spans = Vec::new();
    let events = [switch_in(0), throttled, switch(60, HOME, neighbour, PrevState::Sleep, DRAWN)];
    events.iter().for_each(|event| timeline.push(event, &mut |span| spans.push(span)));
    let ThreadState::PreemptWait { reason, .. } = spans[1].state else { panic!("{:?}", spans[1]) };
    assert_eq!((reason, spans[1].length_ns()), (Reason::Throttle, 50));
    assert!(spans[1].antagonists.is_empty());
}

/// The scheduler chose the pCPU after `sched_waking` had told another.
#[test]
fn nobody_is_blamed_on_a_pcpu_that_a_woken_thread_did_not_come_onto() {
    let hog = Tid(200);
    let came_onto = |pcpu| {
        let events = [
            switch_in(0),
            switch(10, HOME, DRAWN, PrevState::Sleep, hog),
            waking(20, DRAWN, HOME),
            switch(40, pcpu, hog, PrevState::Sleep, DRAWN),
        ];
        let (spans, _) = spans_of(&events, 5);
        assert_eq!(draw(&spans), "=_ww=");
        spans[2].antagonists.clone()
    };
    assert_eq!(came_onto(HOME), [Antagonist::new(Who::of_tid(hog), 20)]);
    assert_eq!(came_onto(PcpuId(9)), []);
}

/// It has no timeslice: its kind has used up its share of the pCPU, and whoever runs meanwhile is not in its
/// way.
#[test]
fn a_real_time_thread_that_gives_way_to_a_fair_one_has_used_up_its_share() {
    let hog = Tid(200);
    let of = |priority| {
        let frames = ["schedule", "irqentry_exit_to_user_mode", "asm_sysvec_apic_timer_interrupt"];
        let table = StackTable::from(vec![frames.map(str::to_owned).to_vec()]);
        let mut events = [
            switch(0, HOME, hog, PrevState::Runnable, DRAWN),
            switch(10, HOME, DRAWN, PrevState::Runnable, hog),
            switch(60, HOME, hog, PrevState::Runnable, DRAWN),
        ];
        for (event, priority) in events.iter_mut().zip([priority, 120, priority]) {
            if let HostEventKind::Switch(switch) = &mut event.kind {
                (switch.next_priority, switch.stack) = (Some(priority), Some(StackId(0)));
            }
        }
        let mut timeline = Timeline::new([DRAWN], table).starting_at(HostNs(0));
        let mut spans = Vec::new();
        events.iter().for_each(|event| timeline.push(event, &mut |span| spans.push(span)));
        let wait = spans.iter().find_map(|span| match span.state {
            ThreadState::PreemptWait { reason, .. } => Some((reason, span.antagonists.len())),
            _ => None,
        });
        wait.expect("it gave way")
    };
    assert_eq!(of(59), (Reason::Throttle, 0));
    assert_eq!(of(120), (Reason::Timeslice, 1));
}

#[test]
fn a_thread_that_comes_on_elsewhere_keeps_the_credits_of_where_it_waited() {
    let hog = Tid(200);
    let events = [
        switch(0, HOME, hog, PrevState::Runnable, DRAWN),
        switch(10, HOME, DRAWN, PrevState::Runnable, hog),
        switch(40, PcpuId(9), Tid(1), PrevState::Sleep, DRAWN),
    ];
    let (spans, _) = spans_of(&events, 6);
    assert_eq!(draw(&spans), "=ppp==");
    assert_eq!(spans[1].antagonists, [Antagonist::new(Who::of_tid(hog), 30)]);
    assert_eq!(spans[2].state, ThreadState::Running { pcpu: PcpuId(9), mode: RunMode::Unsplit });
}

#[test]
fn a_missing_switch_of_the_pcpu_leaves_its_time_to_nobody() {
    let hog = Tid(200);
    let events = [
        switch(0, HOME, hog, PrevState::Runnable, DRAWN),
        switch(10, HOME, DRAWN, PrevState::Runnable, hog),
        // Who came on between is not known, nor when.
        switch(40, HOME, Tid(5), PrevState::Runnable, hog),
        switch(60, HOME, hog, PrevState::Runnable, DRAWN),
    ];
    let (spans, _) = spans_of(&events, 7);
    assert_eq!(draw(&spans), "=ppppp=");
    assert_eq!(spans[1].antagonists, [Antagonist::new(Who::of_tid(hog), 20)]);
}

#[test]
fn who_ran_before_a_loss_gets_no_credit_after_it() {
    let (hog, kworker, elsewhere) = (Tid(200), Tid(30), PcpuId(0));
    let before = switch(0, HOME, Tid(1), PrevState::Sleep, hog);
    let loss = HostEvent { pcpu: HOME, ..lost(10, 40) };
    // A switch that was still recorded within the loss tells no more than the one before it.
    let within = switch(20, HOME, hog, PrevState::Sleep, Tid(3));
    let after = [
        switch(50, elsewhere, DRAWN, PrevState::Sleep, Tid::IDLE),
        waking(60, DRAWN, HOME),
        // The first that is seen of the pCPU again: whoever leaves had been there since the loss.
        switch(80, HOME, kworker, PrevState::Sleep, DRAWN),
    ];
    for recorded in [vec![before.clone(), loss.clone()], vec![before, loss, within]] {
        let events = [&recorded[..], &after[..]].concat();
        let (spans, _) = spans_of(&events, 9);
        assert_eq!(draw(&spans), "?????_ww=");
        let wait = spans.iter().find(|span| matches!(span.state, ThreadState::WakeupDelay { .. }));
        assert_eq!(wait.unwrap().antagonists, [Antagonist::new(Who::of_tid(kworker), 20)]);
    }
}

#[test]
fn nobody_is_in_his_own_way() {
    // The loss hides that the thread left HOME; the next switch there is missing too.
    let events = [
        switch_in(0),
        lost(10, 20),
        switch(30, PcpuId(4), DRAWN, PrevState::Sleep, Tid::IDLE),
        waking(40, DRAWN, HOME),
        switch(60, PcpuId(4), Tid::IDLE, PrevState::Runnable, DRAWN),
    ];
    let (spans, _) = spans_of(&events, 7);
    assert_eq!(draw(&spans), "=??_ww=");
    assert!(spans.iter().all(|span| span.antagonists.is_empty()));
}
