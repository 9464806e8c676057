//! Exits that are drawn, and their laws on random ones.

use super::*;
use crate::host_event::{HostEvent, HostEventKind, PrevState};
use crate::timeline::drawing::{DRAWN, HOME, UNIT_NS, lost, switch, waking};
use crate::timeline::{DeviceAddress, HardwareExit, Span, StackTable, Timeline, UserspaceExit};
use proptest::prelude::*;

const HLT: KvmEvent = KvmEvent::GuestExit { isa: 2, reason: 0x78 };
const IO: KvmEvent = KvmEvent::UserspaceExit { reason: 2, errno: 0 };

fn kvm(unit: u64, event: KvmEvent) -> HostEvent {
    let kind = HostEventKind::Kvm { tid: DRAWN, event };
    HostEvent { time: HostNs(unit * UNIT_NS), pcpu: HOME, kind }
}

fn on(unit: u64) -> HostEvent {
    switch(unit * UNIT_NS, HOME, Tid::IDLE, PrevState::Runnable, DRAWN)
}

fn off(unit: u64, state: PrevState) -> HostEvent {
    switch(unit * UNIT_NS, HOME, DRAWN, state, Tid::IDLE)
}

fn run(events: &[HostEvent], end_unit: u64) -> (Vec<Span>, Vec<Exit>) {
    let (mut spans, mut exits) = (Vec::new(), Vec::new());
    let mut timeline = Timeline::new([DRAWN], StackTable::default()).starting_at(HostNs(0));
    for event in events {
        timeline.push(event, &mut |span| spans.push(span));
        exits.extend(timeline.take_exits());
    }
    timeline.finish(HostNs(end_unit * UNIT_NS), &mut |span| spans.push(span));
    exits.extend(timeline.take_exits());
    (spans, exits)
}

/// Reason, first and last unit, and the units in KVM, in the VMM and off.
fn drawn(exits: &[Exit]) -> Vec<(String, [u64; 5])> {
    let units = |exit: &Exit| {
        let ExitTime { kvm_ns, vmm_ns, off_ns } = exit.time;
        [exit.start.0, exit.end.0, kvm_ns, vmm_ns, off_ns].map(|ns| ns / UNIT_NS)
    };
    exits.iter().map(|exit| (exit.reason.to_string(), units(exit))).collect()
}

#[test]
fn an_exit_lasts_until_the_next_entry_wherever_it_is_spent() {
    // "gggkkvvv__wwvvgg": I/O that the VMM sleeps for.
    let events = [
        on(0),
        kvm(0, KvmEvent::GuestEntry),
        kvm(3, KvmEvent::GuestExit { isa: 1, reason: 30 }),
        kvm(5, IO),
        off(8, PrevState::Sleep),
        waking(10 * UNIT_NS, DRAWN, HOME),
        on(12),
        kvm(14, KvmEvent::GuestEntry),
    ];
    let (_, exits) = run(&events, 16);
    let expected = [
        ("IO_INSTRUCTION".to_owned(), [3, 14, 2, 5, 4]),
        ("KVM_EXIT_IO".to_owned(), [5, 14, 0, 5, 4]),
    ];
    assert_eq!(drawn(&exits), expected);
}

#[test]
fn each_return_to_the_vmm_is_an_exit_of_its_own() {
    let restart = KvmEvent::UserspaceExit { reason: 2, errno: -4 };
    let events = [
        on(0),
        kvm(0, KvmEvent::GuestEntry),
        kvm(1, HLT),
        kvm(2, IO),
        kvm(5, restart),
        kvm(7, KvmEvent::GuestEntry),
    ];
    let expected = [
        ("KVM_EXIT_IO".to_owned(), [2, 5, 0, 3, 0]),
        ("hlt".to_owned(), [1, 7, 1, 5, 0]),
        ("restart (EINTR)".to_owned(), [5, 7, 0, 2, 0]),
    ];
    assert_eq!(drawn(&run(&events, 9).1), expected);
}

#[test]
fn what_is_not_known_whole_is_not_counted() {
    let entry = |unit| kvm(unit, KvmEvent::GuestEntry);
    for (what, events) in [
        ("a loss within", vec![on(0), entry(0), kvm(1, HLT), lost(20, 30), on(4), entry(5)]),
        ("no entry before the next exit", vec![on(0), entry(0), kvm(1, HLT), kvm(3, HLT)]),
        ("not over at the end", vec![on(0), entry(0), kvm(1, HLT), kvm(2, IO)]),
        ("entries are not recorded", vec![on(0), kvm(1, IO), kvm(2, IO)]),
    ] {
        assert_eq!(drawn(&run(&events, 9).1), [], "{what}");
    }
}

#[test]
fn a_sleep_is_for_the_device_that_the_vmm_was_asked_to_serve() {
    let access = kvm(1, KvmEvent::Memory { address: 0xfe00_3004 });
    let asked = kvm(3, KvmEvent::UserspaceExit { reason: 6, errno: 0 });
    let kick = kvm(3, KvmEvent::UserspaceExit { reason: 6, errno: -4 });
    for (what, event, expected) in [
        ("asked", asked, Some(DeviceAddress::Memory(0xfe00_3004))),
        ("kicked, with a reason that is left from before", kick, None),
    ] {
        let events = [on(0), access.clone(), event.clone(), off(4, PrevState::Sleep)];
        let device_of = |events: &[HostEvent]| match run(events, 9).0.last().unwrap().state {
            ThreadState::Blocked(sleep) => sleep.device,
            other => panic!("{other:?}"),
        };
        assert_eq!(device_of(&events), expected, "{what}");
        // What KVM served itself before the guest ran on is not what the VMM is asked for.
        let entry = kvm(2, KvmEvent::GuestEntry);
        let events = [on(0), access.clone(), entry, event, off(4, PrevState::Sleep)];
        assert_eq!(device_of(&events), None, "{what}, after an entry");
    }
}

/// One thing that a vCPU's thread does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Enter,
    Leave(u32),
    Return(i32),
    Sleep { units: u64 },
    GiveWay { units: u64 },
    Pass { units: u64 },
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        Just(Deed::Enter),
        (0..4_u32).prop_map(Deed::Leave),
        prop::sample::select(vec![0, -4]).prop_map(Deed::Return),
        (1..4_u64).prop_map(|units| Deed::Sleep { units }),
        (1..4_u64).prop_map(|units| Deed::GiveWay { units }),
        (1..4_u64).prop_map(|units| Deed::Pass { units }),
    ];
    prop::collection::vec(deed, 0..80)
}

/// The events of these deeds, and a diary of every unit: `=` not split, guest, KVM, VMM, off.
fn play(deeds: &[Deed]) -> (Vec<HostEvent>, String) {
    let (mut events, mut diary, mut mode) = (vec![on(0)], String::new(), '=');
    for deed in deeds {
        let now = diary.len() as u64;
        let mut note = |what: char, units| diary.extend((0..units).map(|_| what));
        match *deed {
            Deed::Enter => {
                events.push(kvm(now, KvmEvent::GuestEntry));
                mode = 'g';
            }
            Deed::Leave(reason) => {
                events.push(kvm(now, KvmEvent::GuestExit { isa: 2, reason }));
                mode = 'k';
            }
            Deed::Return(errno) => {
                events.push(kvm(now, KvmEvent::UserspaceExit { reason: 2, errno }));
                mode = if mode == '=' { '=' } else { 'v' };
            }
            Deed::Sleep { units } => {
                events.push(off(now, PrevState::Sleep));
                events.push(waking((now + units) * UNIT_NS, DRAWN, HOME));
                events.push(on(now + units));
                note('o', units);
            }
            Deed::GiveWay { units } => {
                events.extend([off(now, PrevState::Runnable), on(now + units)]);
                note('o', units);
            }
            Deed::Pass { units } => note(mode, units),
        }
    }
    (events, diary)
}

fn count(text: &str, what: char) -> u64 {
    text.chars().filter(|character| *character == what).count() as u64
}

fn running_ns(spans: &[Span], wanted: impl Fn(RunMode) -> bool) -> u64 {
    let is_wanted =
        |span: &&Span| matches!(span.state, ThreadState::Running { mode, .. } if wanted(mode));
    spans.iter().filter(is_wanted).map(Span::length_ns).sum()
}

proptest! {
    #[test]
    fn guest_kvm_and_vmm_are_the_time_on_a_pcpu(deeds in deeds()) {
        let (events, diary) = play(&deeds);
        let end = diary.len() as u64;
        let (spans, _) = run(&events, end);
        let unsplit: Vec<HostEvent> = events
            .iter()
            .filter(|event| !matches!(event.kind, HostEventKind::Kvm { .. }))
            .cloned()
            .collect();
        prop_assert_eq!(running_ns(&spans, |_| true), running_ns(&run(&unsplit, end).0, |_| true));
        for (mode, letter) in
            [(RunMode::Unsplit, '='), (RunMode::Guest, 'g'), (RunMode::Kvm, 'k'), (RunMode::Vmm, 'v')]
        {
            prop_assert_eq!(running_ns(&spans, |of| of == mode), count(&diary, letter) * UNIT_NS);
        }
    }

    #[test]
    fn the_time_of_an_exit_is_what_the_diary_says(deeds in deeds()) {
        let (events, diary) = play(&deeds);
        let (_, exits) = run(&events, diary.len() as u64);
        for exit in exits {
            let unit = |at: HostNs| usize::try_from(at.0 / UNIT_NS).unwrap();
            let within = &diary[unit(exit.start)..unit(exit.end)];
            prop_assert_eq!(exit.time.total_ns(), exit.end.since_ns(exit.start));
            prop_assert_eq!(exit.time.kvm_ns, count(within, 'k') * UNIT_NS);
            prop_assert_eq!(exit.time.vmm_ns, count(within, 'v') * UNIT_NS);
            prop_assert_eq!(exit.time.off_ns, count(within, 'o') * UNIT_NS);
        }
    }

    #[test]
    fn every_exit_that_sees_its_entry_is_counted(deeds in deeds()) {
        let (events, _) = play(&deeds);
        let (mut expected, mut open) = (Vec::new(), None);
        for deed in &deeds {
            match *deed {
                Deed::Leave(reason) => open = Some(reason),
                Deed::Enter => expected.extend(open.take().map(|reason| HardwareExit::new(2, reason))),
                _ => {}
            }
        }
        let (_, exits) = run(&events, 1_000);
        let hardware = exits.iter().filter_map(|exit| match exit.reason {
            ExitReason::Hardware(reason) => Some(reason),
            ExitReason::Userspace(UserspaceExit::Reason(_) | UserspaceExit::Restart) => None,
            ExitReason::Userspace(other) => panic!("{other}"),
        });
        prop_assert_eq!(hardware.collect::<Vec<_>>(), expected);
    }
}
