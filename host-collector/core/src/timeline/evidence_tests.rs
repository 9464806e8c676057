//! Events with evidence beyond the scheduler's own, from events to reasons: locks, devices, and in
//! whose code a thread ran.

use super::drawing::{HOME, waking};
use super::*;
use crate::host_event::{HostEvent, HostEventKind, KvmEvent, PrevState, StackId, Switch};
use crate::units::{HostNs, Tid};

const VCPU: Tid = Tid(100);
const MAIN_LOOP: Tid = Tid(99);
const BQL: u64 = 0x55a8_e2e7_eb40;
const OTHER_LOCK: u64 = 0x55a8_e2e7_ffff;
/// `KVM_EXIT_IO` and `KVM_EXIT_MMIO`.
const IO: KvmEvent = KvmEvent::UserspaceExit { reason: 2, errno: 0 };
const MMIO: KvmEvent = KvmEvent::UserspaceExit { reason: 6, errno: 0 };

fn event(time_ns: u64, kind: HostEventKind) -> HostEvent {
    HostEvent { time: HostNs(time_ns), pcpu: HOME, kind }
}

fn comes(time_ns: u64, tid: Tid) -> HostEvent {
    event(time_ns, HostEventKind::Switch(Switch::new(Tid::IDLE, PrevState::Runnable, tid)))
}

/// Goes to sleep in `pthread_mutex_lock`.
fn locks(time_ns: u64, tid: Tid, address: u64) -> HostEvent {
    let (stack, call_args) = (Some(StackId(0)), Some([address, 0x80, 2]));
    let switch = Switch { stack, call_args, ..Switch::new(tid, PrevState::Sleep, Tid::IDLE) };
    event(time_ns, HostEventKind::Switch(switch))
}

fn wakes(time_ns: u64, waker: Tid, tid: Tid) -> HostEvent {
    event(time_ns, HostEventKind::Waking { tid, target: HOME, waker })
}

fn kvm(time_ns: u64, event_of_kvm: KvmEvent) -> HostEvent {
    event(time_ns, HostEventKind::Kvm { tid: VCPU, event: event_of_kvm })
}

/// A QEMU whose big lock is known to be at [`BQL`].
fn known() -> LockFacts {
    LockFacts { vmm: Vmm::Qemu, mode: Some(GuestMode::Kvm), bql: Some(BQL), ..LockFacts::default() }
}

fn timeline(facts: LockFacts) -> Timeline {
    let watched = [
        Watched::from(VCPU),
        Watched { user: LockUser::MainLoop, ..Watched::from(MAIN_LOOP) },
        Watched { user: LockUser::Other, ..Watched::from(Tid(98)) },
    ];
    let stacks = StackTable::from(vec![vec!["futex_do_wait".to_owned(), "do_futex".to_owned()]]);
    Timeline::new(watched, stacks).with_lock_facts(vec![facts]).starting_at(HostNs(0))
}

fn run(facts: LockFacts, events: &[HostEvent]) -> (Vec<Span>, Vec<LockWait>) {
    let mut timeline = timeline(facts);
    let (mut spans, mut waits) = (Vec::new(), Vec::new());
    for event in events {
        timeline.push(event, &mut |span| spans.push(span));
        waits.extend(timeline.take_lock_waits());
    }
    timeline.finish(HostNs(1000), &mut |span| spans.push(span));
    waits.extend(timeline.take_lock_waits());
    (spans, waits)
}

fn of_vcpu(spans: &[Span]) -> Vec<(u64, ThreadState)> {
    let own = spans.iter().filter(|span| span.tid == VCPU);
    own.map(|span| (span.start.0, span.state)).collect()
}

#[test]
fn a_wait_for_the_big_lock_is_proven_by_its_address() {
    for (address, reason) in [(BQL, Reason::Bql), (OTHER_LOCK, Reason::QemuLock)] {
        let events = [comes(0, VCPU), locks(10, VCPU, address), wakes(30, MAIN_LOOP, VCPU)];
        let (spans, waits) = run(known(), &events);
        let wait = LockWait {
            tid: VCPU,
            start: HostNs(10),
            end: HostNs(30),
            reason,
            address: Some(address),
            released_by: MAIN_LOOP,
            held_ns: None,
            device: None,
        };
        assert_eq!(waits, [wait]);
        let sleep = Sleep {
            stack: Some(StackId(0)),
            waker: Some(MAIN_LOOP),
            lock: Some(address),
            ..Sleep::new(reason)
        };
        assert_eq!(of_vcpu(&spans)[1], (10, ThreadState::Blocked(sleep)));
    }
}

/// Woken while it was on its way to sleep: it left for the lock, but waited for a pCPU only.
#[test]
fn a_wait_that_was_over_before_it_began_is_one_of_no_length() {
    let events = [comes(0, VCPU), wakes(9, MAIN_LOOP, VCPU), locks(10, VCPU, BQL), comes(30, VCPU)];
    let (spans, waits) = run(known(), &events);
    let [wait] = waits[..] else { panic!("{waits:?}") };
    assert_eq!((wait.start, wait.end, wait.reason), (HostNs(10), HostNs(10), Reason::Bql));
    assert_eq!(wait.released_by, MAIN_LOOP);
    let ThreadState::WakeupDelay { raced: Some(sleep), .. } = of_vcpu(&spans)[1].1 else {
        panic!("{spans:?}")
    };
    assert_eq!((sleep.reason, sleep.lock), (Reason::Bql, Some(BQL)));
}

/// The main loop gets the lock at 22, while the vCPU waits, and lets go at 30.
#[test]
fn how_long_a_lock_was_held_is_told_where_it_is_certain() {
    let handed_over = [
        comes(0, VCPU),
        locks(10, VCPU, BQL),
        locks(12, MAIN_LOOP, BQL),
        wakes(20, Tid(7), MAIN_LOOP),
        comes(22, MAIN_LOOP),
        wakes(30, MAIN_LOOP, VCPU),
    ];
    let (_, waits) = run(known(), &handed_over);
    let held: Vec<_> = waits.iter().map(|wait| (wait.tid, wait.held_ns)).collect();
    assert_eq!(held, [(MAIN_LOOP, None), (VCPU, Some(8))]);

    // Got before the vCPU went to sleep: it may have let go, and got it again, in between.
    let earlier = [
        locks(2, MAIN_LOOP, BQL),
        wakes(4, Tid(7), MAIN_LOOP),
        comes(5, MAIN_LOOP),
        locks(10, VCPU, BQL),
        wakes(30, MAIN_LOOP, VCPU),
    ];
    let (_, waits) = run(known(), &earlier);
    assert_eq!(waits.last().map(|wait| (wait.tid, wait.held_ns)), Some((VCPU, None)));

    // Let go of for another one, and got again without having to wait.
    let third = Tid(98);
    let shared = [
        comes(0, VCPU),
        locks(10, VCPU, BQL),
        locks(12, MAIN_LOOP, BQL),
        locks(14, third, BQL),
        wakes(20, Tid(7), MAIN_LOOP),
        comes(22, MAIN_LOOP),
        wakes(24, MAIN_LOOP, third),
        wakes(30, MAIN_LOOP, VCPU),
    ];
    let (_, waits) = run(known(), &shared);
    let held: Vec<_> = waits.iter().map(|wait| (wait.tid, wait.held_ns)).collect();
    assert_eq!(held, [(MAIN_LOOP, None), (third, Some(2)), (VCPU, None)]);

    // Got another lock.
    let mut other = handed_over;
    other[2] = locks(12, MAIN_LOOP, OTHER_LOCK);
    let (_, waits) = run(known(), &other);
    assert_eq!(waits.last().map(|wait| (wait.tid, wait.held_ns)), Some((VCPU, None)));
}

#[test]
fn an_unknown_lock_is_inferred_only_from_those_who_share_it() {
    let facts = LockFacts { bql: None, exe_data: Some((BQL, BQL + 64)), ..known() };
    let events = [
        comes(0, VCPU),
        locks(10, VCPU, BQL),
        wakes(20, MAIN_LOOP, VCPU),
        comes(21, VCPU),
        locks(30, MAIN_LOOP, BQL),
        wakes(40, VCPU, MAIN_LOOP),
        locks(50, VCPU, BQL),
        wakes(60, MAIN_LOOP, VCPU),
        comes(61, VCPU),
        locks(70, VCPU, OTHER_LOCK),
        wakes(80, MAIN_LOOP, VCPU),
    ];
    let (_, waits) = run(facts, &events);
    let reasons: Vec<_> = waits.iter().map(|wait| (wait.start.0, wait.reason)).collect();
    let expected = [
        (10, Reason::QemuLock),
        (30, Reason::BqlInferred),
        (50, Reason::BqlInferred),
        (70, Reason::QemuLock),
    ];
    assert_eq!(reasons, expected);
}

/// From the first wait on: it is found before the spans are made.
#[test]
fn a_lock_that_is_found_by_behaviour_is_told_from_one_that_is_inferred() {
    let facts = LockFacts {
        bql: None,
        bql_by_behaviour: Some(BQL),
        exe_data: Some((BQL, OTHER_LOCK + 1)),
        ..known()
    };
    let events = [
        comes(0, VCPU),
        locks(10, VCPU, BQL),
        wakes(20, MAIN_LOOP, VCPU),
        comes(21, VCPU),
        locks(30, VCPU, OTHER_LOCK),
        wakes(40, MAIN_LOOP, VCPU),
        locks(50, MAIN_LOOP, OTHER_LOCK),
        wakes(60, VCPU, MAIN_LOOP),
    ];
    let (_, waits) = run(facts, &events);
    let reasons: Vec<_> = waits.iter().map(|wait| (wait.start.0, wait.reason)).collect();
    let expected =
        [(10, Reason::BqlFoundByBehaviour), (30, Reason::QemuLock), (50, Reason::QemuLock)];
    assert_eq!(reasons, expected);
}

#[test]
fn the_device_is_the_one_that_the_vmm_was_asked_for() {
    let sleep = |before: &[KvmEvent], after: &[KvmEvent]| {
        let mut events = vec![comes(0, VCPU)];
        events.extend((1..).zip(before).map(|(time_ns, event)| kvm(time_ns, *event)));
        events.extend([locks(10, VCPU, BQL), wakes(20, MAIN_LOOP, VCPU), comes(30, VCPU)]);
        events.extend((31..).zip(after).map(|(time_ns, event)| kvm(time_ns, *event)));
        let (spans, waits) = run(known(), &events);
        let slept = of_vcpu(&spans).into_iter().find_map(|(_, state)| match state {
            ThreadState::Blocked(sleep) => Some(sleep.device),
            _ => None,
        });
        assert_eq!(waits.len(), 1, "{before:?}");
        (slept.unwrap(), waits[0].device)
    };
    let (port, memory) = (DeviceAddress::Port(0x1f7), DeviceAddress::Memory(0xfe00_3004));
    let touched = KvmEvent::Memory { address: 0xfe00_3004 };
    let (wrote, read) = (KvmEvent::PortWrite { port: 0x1f7 }, KvmEvent::PortRead { port: 0x1f7 });
    assert_eq!(sleep(&[touched, MMIO], &[]), (Some(memory), Some(memory)));
    // Which port it is becomes certain too late for the span.
    assert_eq!(sleep(&[wrote, IO], &[touched]), (None, Some(port)));
    assert_eq!(sleep(&[IO], &[read]), (None, Some(port)));
    // A write that KVM served by itself, before a read that it did not.
    let timer = KvmEvent::PortWrite { port: 0x43 };
    assert_eq!(sleep(&[timer, IO], &[read]), (None, Some(port)));
    assert_eq!(sleep(&[IO], &[IO]), (None, None), "the kernel never told it");
    // A doorbell that KVM rang itself; then the VMM kicked the vCPU.
    let kicked = KvmEvent::UserspaceExit { reason: 10, errno: -4 };
    assert_eq!(sleep(&[touched, kicked], &[]), (None, None));
    assert_eq!(sleep(&[touched, IO], &[]).0, None, "memory is no port");
    // What was served before is over.
    assert_eq!(sleep(&[touched, MMIO, kicked], &[]), (None, None));
}

#[test]
fn waits_that_are_held_back_for_their_port_are_bounded() {
    let mut timeline = timeline(known());
    let mut push = |event: &HostEvent| {
        timeline.push(event, &mut |_| {});
        timeline.take_lock_waits().len() as u64
    };
    assert_eq!(push(&comes(0, VCPU)) + push(&kvm(1, IO)), 0);
    let mut taken = 0_u64;
    for round in 0..40 {
        let at_ns = 10 + round * 10;
        push(&locks(at_ns, VCPU, BQL));
        taken += push(&wakes(at_ns + 2, MAIN_LOOP, VCPU));
        push(&comes(at_ns + 4, VCPU));
        assert!(round + 1 - taken < 17, "{taken} of {round}");
    }
    assert!(taken < 40, "the last ones still wait for their port");
}

#[test]
fn in_whose_code_a_thread_ran_is_told_from_the_first_exit_on() {
    let exit = KvmEvent::GuestExit { isa: 2, reason: 0x7b };
    let leaves = |time_ns| {
        let switch = Switch::new(VCPU, PrevState::Runnable, Tid(5));
        event(time_ns, HostEventKind::Switch(switch))
    };
    let events = [
        comes(0, VCPU),
        kvm(5, IO), // Without exits nothing is told apart.
        kvm(10, KvmEvent::GuestEntry),
        kvm(20, exit),
        kvm(25, IO),
        kvm(40, KvmEvent::GuestEntry),
        kvm(50, exit),
        leaves(60),
        comes(70, VCPU),
        kvm(80, KvmEvent::GuestEntry),
    ];
    let (spans, _) = run(known(), &events);
    let modes: Vec<_> = of_vcpu(&spans)
        .into_iter()
        .map(|(start_ns, state)| match state {
            ThreadState::Running { mode, .. } => (start_ns, Some(mode)),
            _ => (start_ns, None),
        })
        .collect();
    let expected = [
        (0, Some(RunMode::Unsplit)),
        (10, Some(RunMode::Guest)),
        (20, Some(RunMode::Kvm)),
        (25, Some(RunMode::Vmm)),
        (40, Some(RunMode::Guest)),
        (50, Some(RunMode::Kvm)),
        (60, None),
        (70, Some(RunMode::Kvm)),
        (80, Some(RunMode::Guest)),
    ];
    assert_eq!(modes, expected);
}

#[test]
fn a_loss_forgets_in_whose_code_it_was() {
    let lost = HostEventKind::Lost { until: HostNs(30), count: 1 };
    let events = [
        comes(0, VCPU),
        kvm(10, KvmEvent::GuestEntry),
        event(20, lost),
        kvm(25, KvmEvent::GuestEntry),
        comes(40, VCPU),
        waking(45, Tid(3), HOME),
    ];
    let (spans, _) = run(known(), &events);
    let last = of_vcpu(&spans).pop().unwrap();
    assert_eq!(last, (40, ThreadState::Running { pcpu: HOME, mode: RunMode::Unsplit }));
}
