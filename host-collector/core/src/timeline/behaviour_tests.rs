//! Drawn recordings of QEMUs whose code does not tell their big lock.

use super::*;
use crate::host_event::{KvmEvent, PrevState, StackId};
use crate::units::{HostNs, PcpuId};

const MAIN_LOOP: Tid = Tid(10);
const VCPU: Tid = Tid(11);
const IOTHREAD: Tid = Tid(12);
const OTHER_VMS_LOOP: Tid = Tid(20);
const OTHER_VMS_VCPU: Tid = Tid(21);
const DATA: (u64, u64) = (0x5500_0000, 0x5600_0000);
const BQL: u64 = 0x5512_3440;
const OTHER_MUTEX: u64 = 0x5512_9980;
/// That of a device: on the heap.
const HPETS_MUTEX: u64 = 0x7f00_1240;

/// A recording that is drawn step by step.
struct Drawing {
    search: LockSearch,
    time_ns: u64,
}

impl Drawing {
    fn of(facts: LockFacts) -> Drawing {
        let thread = |tid, vm, user| Watched { tid, vm, user, is_throttled: false };
        let watched = [
            thread(MAIN_LOOP, 0, LockUser::MainLoop),
            thread(VCPU, 0, LockUser::Vcpu),
            thread(IOTHREAD, 0, LockUser::Other),
            thread(OTHER_VMS_LOOP, 1, LockUser::MainLoop),
            thread(OTHER_VMS_VCPU, 1, LockUser::Vcpu),
        ];
        let stacks =
            [&["futex_do_wait", "do_futex"][..], &["poll_schedule_timeout", "do_sys_poll"]];
        let stacks = stacks.map(|frames| frames.iter().map(|&frame| frame.to_owned()).collect());
        let stacks = StackTable::from(stacks.to_vec());
        let rust = LockFacts { vmm: Vmm::Rust, ..facts };
        Drawing { search: LockSearch::new(watched, stacks, [facts, rust]), time_ns: 0 }
    }

    fn new() -> Drawing {
        Drawing::of(LockFacts { vmm: Vmm::Qemu, exe_data: Some(DATA), ..LockFacts::default() })
    }

    fn push(&mut self, kind: HostEventKind) {
        self.time_ns += 10;
        let (time, pcpu) = (HostNs(self.time_ns), PcpuId(0));
        self.search.push(&HostEvent { time, pcpu, kind });
    }

    fn sleeps(&mut self, tid: Tid, stack: u32, state: PrevState, call: [u64; 3]) {
        let switch = Switch {
            stack: Some(StackId(stack)),
            call_args: Some(call),
            ..Switch::new(tid, state, Tid::IDLE)
        };
        self.push(HostEventKind::Switch(switch));
    }

    /// A thread sleeps on a mutex, another wakes it, and it comes on.
    fn waits(&mut self, tid: Tid, mutex: u64, waker: Tid) {
        self.sleeps(tid, 0, PrevState::Sleep, [mutex, 0x80, 2]);
        self.push(HostEventKind::Waking { tid, target: PcpuId(0), waker });
        self.push(HostEventKind::Switch(Switch::new(Tid::IDLE, PrevState::Runnable, tid)));
    }

    /// vCPU and main loop wait for each other.
    fn contend(&mut self, mutex: u64, times: u64) {
        for _ in 0..times {
            self.waits(VCPU, mutex, MAIN_LOOP);
            self.waits(MAIN_LOOP, mutex, VCPU);
        }
    }

    fn found(&self) -> FoundLock {
        self.search.finish()[0].expect("it was looked for")
    }
}

#[test]
fn the_mutex_from_which_vcpus_and_main_loop_wake_each_other_is_the_big_lock() {
    let mut drawing = Drawing::new();
    drawing.contend(BQL, WAKINGS_MIN - 1);
    assert_eq!(drawing.found(), FoundLock::TooFew { wakings_count: WAKINGS_MIN - 1 });
    drawing.waits(VCPU, BQL, MAIN_LOOP);
    assert_eq!(drawing.found(), FoundLock::TooFew { wakings_count: WAKINGS_MIN - 1 });
    drawing.waits(MAIN_LOOP, BQL, VCPU);
    // Others take it too, and vCPUs take other mutexes.
    drawing.waits(VCPU, BQL, IOTHREAD);
    drawing.waits(VCPU, OTHER_MUTEX, IOTHREAD);
    let expected = LockBehaviour {
        address: BQL,
        vcpu_sleeps: WAKINGS_MIN + 1,
        main_loop_sleeps: WAKINGS_MIN,
        vcpus_woken_by_main_loop: WAKINGS_MIN,
        main_loop_woken_by_vcpus: WAKINGS_MIN,
    };
    assert_eq!(drawing.found(), FoundLock::Found(expected));
}

#[test]
fn a_devices_own_mutex_is_not_mistaken_for_it() {
    let mut drawing = Drawing::new();
    drawing.contend(HPETS_MUTEX, 100 * WAKINGS_MIN);
    assert_eq!(drawing.found(), FoundLock::TooFew { wakings_count: 0 });
    drawing.contend(BQL, WAKINGS_MIN);
    assert!(matches!(drawing.found(), FoundLock::Found(LockBehaviour { address: BQL, .. })));
}

#[test]
fn two_mutexes_that_behave_so_are_not_told_apart() {
    let mut drawing = Drawing::new();
    drawing.contend(BQL, 100 * WAKINGS_MIN);
    drawing.contend(OTHER_MUTEX, 1);
    assert_eq!(drawing.found(), FoundLock::Ambiguous { mutexes_count: 2 });
}

/// A timer that is read without a lock has exits and no waits (QEMU from 10.2 on: the ACPI timer, HPET's
/// counter).
#[test]
fn devices_that_need_no_lock_show_none() {
    let mut drawing = Drawing::new();
    for _ in 0..100 {
        for event in [
            KvmEvent::UserspaceExit { reason: 2, errno: 0 },
            KvmEvent::PortRead { port: 0x608 },
            KvmEvent::UserspaceExit { reason: 6, errno: 0 },
            KvmEvent::Memory { address: 0xfed0_00f0 },
        ] {
            drawing.push(HostEventKind::Kvm { tid: VCPU, event });
        }
        drawing.sleeps(MAIN_LOOP, 1, PrevState::Sleep, [BQL, 0x80, 2]);
        drawing.push(HostEventKind::Waking { tid: MAIN_LOOP, target: PcpuId(0), waker: VCPU });
    }
    assert_eq!(drawing.found(), FoundLock::TooFew { wakings_count: 0 });
}

#[test]
fn wakings_in_one_direction_prove_nothing() {
    for (sleeper, waker) in [(VCPU, MAIN_LOOP), (MAIN_LOOP, VCPU)] {
        let mut drawing = Drawing::new();
        (0..100).for_each(|_| drawing.waits(sleeper, BQL, waker));
        assert_eq!(drawing.found(), FoundLock::TooFew { wakings_count: 0 });
    }
}

#[test]
fn only_sleeps_on_mutexes_that_end_by_their_own_vm_count() {
    let mut drawing = Drawing::new();
    for (tid, waker) in [(VCPU, MAIN_LOOP), (MAIN_LOOP, VCPU)].repeat(50) {
        let woken = || HostEventKind::Waking { tid, target: PcpuId(0), waker };
        // A condition; woken before it slept; not in futex(2), whatever the registers hold.
        drawing.sleeps(tid, 0, PrevState::Sleep, [BQL, 0x189, 2]);
        drawing.push(woken());
        drawing.sleeps(tid, 0, PrevState::Runnable, [BQL, 0x80, 2]);
        drawing.push(woken());
        drawing.sleeps(tid, 1, PrevState::Sleep, [BQL, 0x80, 2]);
        drawing.push(woken());
        // A loss, after which it may sleep on something else.
        drawing.sleeps(tid, 0, PrevState::Sleep, [BQL, 0x80, 2]);
        drawing.push(HostEventKind::Lost { until: HostNs(drawing.time_ns), count: 1 });
        drawing.push(woken());
        drawing.waits(tid, BQL, OTHER_VMS_LOOP);
        drawing.waits(tid, BQL, OTHER_VMS_VCPU);
        drawing.waits(tid, BQL, Tid(99));
    }
    assert_eq!(drawing.found(), FoundLock::TooFew { wakings_count: 0 });
}

#[test]
fn it_is_looked_for_only_where_it_is_not_known() {
    let facts = LockFacts { vmm: Vmm::Qemu, exe_data: Some(DATA), ..LockFacts::default() };
    let known = LockFacts { bql: Some(BQL), ..facts };
    let unmapped = LockFacts { exe_data: None, ..facts };
    for facts in [known, unmapped, LockFacts { vmm: Vmm::Unknown, ..facts }] {
        let mut drawing = Drawing::of(facts);
        drawing.contend(BQL, 2 * WAKINGS_MIN);
        assert!(!drawing.search.is_needed());
        assert_eq!(drawing.search.finish(), [None, None]);
    }
    assert!(Drawing::new().search.is_needed());
}
