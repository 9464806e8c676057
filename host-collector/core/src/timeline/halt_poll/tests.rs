//! Timelines with halts, from events to modes.

use super::super::drawing::{HOME, waking};
use super::super::*;
use crate::host_event::{HostEvent, HostEventKind, KvmEvent, PrevState, StackId, Switch};
use crate::units::{HostNs, Tid};
use proptest::prelude::*;

const VCPU: Tid = Tid(100);
const US: u64 = 1_000;
/// `KVM_ISA_VMX`, and the reason of a `hlt`.
const HLT: KvmEvent = KvmEvent::GuestExit { isa: 1, reason: 12 };

fn event(us: u64, kind: HostEventKind) -> HostEvent {
    HostEvent { time: HostNs(us * US), pcpu: HOME, kind }
}

fn comes(us: u64) -> HostEvent {
    event(us, HostEventKind::Switch(Switch::new(Tid::IDLE, PrevState::Runnable, VCPU)))
}

/// Sleeps, as its guest is halted.
fn halts(us: u64) -> HostEvent {
    let stack = Some(StackId(0));
    let switch = Switch { stack, ..Switch::new(VCPU, PrevState::Sleep, Tid::IDLE) };
    event(us, HostEventKind::Switch(switch))
}

fn kvm(us: u64, event_of_kvm: KvmEvent) -> HostEvent {
    event(us, HostEventKind::Kvm { tid: VCPU, event: event_of_kvm })
}

fn halt_end(us: u64, halted_us: u64, has_slept: bool) -> HostEvent {
    kvm(us, KvmEvent::HaltEnd { halted_ns: halted_us * US, has_slept })
}

fn spans(events: &[HostEvent]) -> Vec<Span> {
    let stacks = StackTable::from(vec![vec!["kvm_vcpu_block".to_owned()]]);
    let mut timeline = Timeline::new([VCPU], stacks).starting_at(HostNs(0));
    let mut spans = Vec::new();
    for event in events {
        timeline.push(event, &mut |span| spans.push(span));
    }
    timeline.finish(HostNs(1_000 * US), &mut |span| spans.push(span));
    spans
}

/// Where the spans begin, in microseconds, and the modes of those on a pCPU.
fn modes(events: &[HostEvent]) -> Vec<(u64, Option<RunMode>)> {
    let mode = |span: &Span| match span.state {
        ThreadState::Running { mode, .. } => Some(mode),
        _ => None,
    };
    spans(events).iter().map(|span| (span.start.0 / US, mode(span))).collect()
}

#[test]
fn a_halt_that_ends_while_kvm_polls_is_polling_since_it_began() {
    let events = [
        comes(0),
        kvm(10, KvmEvent::GuestEntry),
        kvm(100, HLT),
        halt_end(180, 70, false),
        kvm(185, KvmEvent::GuestEntry),
    ];
    let expected = [
        (0, Some(RunMode::Unsplit)),
        (10, Some(RunMode::Guest)),
        (100, Some(RunMode::Kvm)),
        (110, Some(RunMode::HaltPoll)),
        (180, Some(RunMode::Kvm)),
        (185, Some(RunMode::Guest)),
    ];
    assert_eq!(modes(&events), expected);
    // Where no exits are seen (kvm_pvm with code of 16 bits) the rest is not split.
    let unsplit = [events[0].clone(), events[3].clone()];
    let expected = [
        (0, Some(RunMode::Unsplit)),
        (110, Some(RunMode::HaltPoll)),
        (180, Some(RunMode::Unsplit)),
    ];
    assert_eq!(modes(&unsplit), expected);
}

/// Two halts; that KVM tells of them is known from the first one only.
#[test]
fn what_kvm_polled_before_it_slept_is_told_by_the_end_of_the_sleep() {
    let events = [
        comes(0),
        halt_end(20, 5, false),
        kvm(30, KvmEvent::GuestEntry),
        kvm(100, HLT),
        halts(160),
        waking(300 * US, VCPU, HOME),
        comes(305),
        halt_end(310, 205, true),
        kvm(312, KvmEvent::GuestEntry),
    ];
    let expected = [
        (0, Some(RunMode::Unsplit)),
        (15, Some(RunMode::HaltPoll)),
        (20, Some(RunMode::Unsplit)),
        (30, Some(RunMode::Guest)),
        (100, Some(RunMode::Kvm)),
        // As the clocks may drift by 100 ns in 205 us.
        (105, Some(RunMode::HaltPoll)),
        (160, None),
        (300, None),
        (305, Some(RunMode::Kvm)),
        (312, Some(RunMode::Guest)),
    ];
    assert_eq!(modes(&events), expected);
}

#[test]
fn on_its_way_to_sleep_it_does_not_poll() {
    let events = [
        comes(0),
        halt_end(1, 1, false),
        halts(160),
        waking(300 * US, VCPU, HOME),
        comes(305),
        halt_end(310, 159, true),
    ];
    assert!(modes(&events)[1..].iter().all(|(_, mode)| *mode != Some(RunMode::HaltPoll)));
}

#[test]
fn between_two_sleeps_of_one_halt_it_does_not_poll() {
    let events = [
        comes(0),
        halt_end(1, 1, false),
        kvm(10, KvmEvent::GuestEntry),
        kvm(100, HLT),
        halts(130),
        waking(200 * US, VCPU, HOME),
        comes(205),
        halts(220),
        waking(300 * US, VCPU, HOME),
        comes(305),
        halt_end(310, 205, true),
    ];
    assert!(modes(&events)[1..].iter().all(|(_, mode)| *mode != Some(RunMode::HaltPoll)));
}

#[test]
fn what_is_held_back_is_never_lost() {
    let begun = [comes(0), halt_end(1, 1, false), halts(160)];
    let back = [waking(300 * US, VCPU, HOME), comes(305)];
    let lost = HostEventKind::Lost { until: HostNs(600 * US), count: 3 };
    for rest in [
        vec![],
        vec![event(500, lost)],
        vec![event(500, HostEventKind::Exit { tid: VCPU })],
        vec![back[0].clone(), back[1].clone(), halts(400)],
        vec![back[0].clone(), back[1].clone(), kvm(310, KvmEvent::GuestEntry)],
    ] {
        let events = [&begun[..], &rest].concat();
        let spans = spans(&events);
        assert_eq!(spans.last().map(|span| span.end), Some(HostNs(1_000 * US)), "{rest:?}");
        assert_eq!((spans[1].start, spans[1].end), (HostNs(US), HostNs(160 * US)), "{rest:?}");
    }
}

fn an_event(us: u64, what: usize, halted_us: u64) -> HostEvent {
    match what {
        0 => comes(us),
        1 => halts(us),
        2 => waking(us * US, VCPU, HOME),
        3 => kvm(us, KvmEvent::GuestEntry),
        4 => kvm(us, HLT),
        5 => halt_end(us, halted_us, true),
        6 => halt_end(us, halted_us, false),
        _ => event(us, HostEventKind::Lost { until: HostNs((us + halted_us) * US), count: 1 }),
    }
}

proptest! {
    /// Whatever KVM says, also what contradicts the rest: the spans follow each other without a gap, and no
    /// time on a pCPU is lost.
    #[test]
    fn halts_take_no_time(
        deeds in prop::collection::vec((1..30_u64, 0..8_usize, 0..200_u64), 0..60)
    ) {
        let mut us = 0;
        let events: Vec<HostEvent> = deeds
            .iter()
            .map(|(passed, what, halted_us)| {
                us = (us + passed).min(900);
                an_event(us, *what, *halted_us)
            })
            .collect();
        let all = spans(&events);
        let mut until = HostNs(0);
        for span in &all {
            prop_assert_eq!(span.start, until);
            prop_assert!(span.end > span.start);
            until = span.end;
        }
        prop_assert_eq!(until, HostNs(1_000 * US));
        let is_halt = |event: &HostEvent| {
            matches!(event.kind, HostEventKind::Kvm { event: KvmEvent::HaltEnd { .. }, .. })
        };
        let untold: Vec<HostEvent> = events.into_iter().filter(|event| !is_halt(event)).collect();
        let on_pcpu_ns = |spans: &[Span]| -> u64 {
            let on = spans.iter().filter(|it| matches!(it.state, ThreadState::Running { .. }));
            on.map(Span::length_ns).sum()
        };
        // The end of a halt also proves that the thread was on its pCPU until then, where what follows
        // contradicts it.
        prop_assert!(on_pcpu_ns(&all) >= on_pcpu_ns(&spans(&untold)));
    }
}
