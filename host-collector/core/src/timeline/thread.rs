//! The state machine of one watched thread.
//!
//! ```text
//!                        switch-in
//!      .-----------------------------------------.
//!      |                 switch-in               |
//!      |      .--------------------------.       |
//!      v      v                          |       |
//!     Running ----- switch-out R ----> Preempted |
//!      ^   `------- switch-out S, D -> Asleep ---+
//!      |                                 | waking
//!      `---------- switch-in --------- Woken
//! ```
//!
//! # A waking that comes before the sleep that it ends
//!
//! `try_to_wake_up` (`kernel/sched/core.c`, Linux 6.18) records `sched_waking` as soon as it has
//! seen, under `pi_lock`, that the thread's state is a sleeping one. The thread sets that state
//! itself, well before `__schedule` takes it off its pCPU and records `sched_switch`. So a waking
//! may be recorded while the thread is still seen running, and then either
//!
//! - the waker comes first (the thread is `current`, or `ttwu_runnable` finds it queued under the
//!   runqueue's lock): the state becomes RUNNING and the thread runs on. If it is seen to leave in
//!   a sleeping state later, then that is another sleep, which a waking *of its own* will end; or
//! - `__schedule` comes first: it takes the thread off in the sleeping state that it had read, and
//!   the waker then queues it again (after waiting for `on_cpu`). The waking is already recorded,
//!   before the switch-out, and *no other one follows*: the thread was runnable all the time that
//!   it was off.
//!
//! At the switch-out the two look the same. What comes next tells them apart, for a sleep is ended
//! by exactly one recorded waking (a second waker finds a state that does not match and records
//! nothing): a waking means the first, a switch-in without one means the second. So the thread is
//! `Asleep` with a `raced_waker` until then, and only its next event decides. Where none comes,
//! the time is unknown.
//!
//! Seen on Linux 6.18 with 2 pCPUs under load: of 150 697 sleeps 77 were ended by a waking recorded
//! up to 9 us before the switch-out, 3 more wakings of a running thread were not followed by a sleep
//! that they ended, and no sleep had two.
//!
//! In kernels before about 6.15 (until `try_to_block_task` handed the changed state back) a thread
//! that `__schedule` finds with a signal pending stays runnable but is reported in its sleeping
//! state, without a waking; it shows as `Blocked` without a `waker`.

use super::antagonist::Wait;
use super::contradiction::ContradictionKind;
use super::exits::{Exit, OpenExits};
use super::halt_poll::HeldBack;
use super::last_seen::is_realtime;
use super::lock::LockWait;
use super::reason::Reason;
use super::span::{DeviceAddress, RunMode, Sleep, Span, ThreadState, UnknownCause, Who};
use crate::host_event::{KvmEvent, PrevState, StackId};
use crate::units::{HostNs, PcpuId, Tid};

/// `KVM_EXIT_IO` and `KVM_EXIT_MMIO`, include/uapi/linux/kvm.h.
const EXIT_IO: u32 = 2;
const EXIT_MMIO: u32 = 6;

/// Waits for locks within one request of the VMM that are held back for its port; there are one or
/// two, unless the kernel never tells the port.
const LOCK_WAITS_MAX: usize = 16;

/// What a thread is doing, as far as its last event tells.
#[derive(Debug, Clone, Copy)]
enum State {
    Unknown(UnknownCause),
    Running { pcpu: PcpuId },
    Preempted { pcpu: PcpuId, reason: Reason, stack: Option<StackId>, lock: Option<u64> },
    Asleep { pcpu: PcpuId, sleep: Sleep, raced_waker: Option<Tid> },
    Woken { pcpu: PcpuId },
}

/// One watched thread, and the span of it that is still open.
#[derive(Debug)]
pub(super) struct Thread {
    tid: Tid,
    /// The start of the open span.
    since: HostNs,
    state: State,
    /// Who woke it while it was not known to be off a pCPU.
    raced_waker: Option<Tid>,
    /// Who runs where it waits; of use only while it waits.
    wait: Wait,
    /// When it last came onto a pCPU.
    on_since: HostNs,
    /// Whether it came as a real-time or deadline task.
    is_realtime: bool,
    /// In whose code it runs, or ran when it was last on a pCPU.
    mode: RunMode,
    exits: OpenExits,
    held_back: HeldBack,
    device: Device,
    /// The lock that it last slept on.
    acquired: Option<Acquired>,
    /// Waits for locks that are over and not taken yet.
    lock_waits: Vec<LockWait>,
}

/// A lock that a thread slept on, and has got by the time that it runs again.
#[derive(Debug, Clone, Copy)]
struct Acquired {
    address: u64,
    /// `None` while it sleeps or waits for a pCPU.
    since: Option<HostNs>,
}

/// Which device a vCPU's thread serves.
///
/// The kernel tells a write, or an access to memory, before it asks the VMM; a read from a port
/// only when the VMM has given it the value (`complete_emulator_pio_in`, arch/x86/kvm/x86.c). A
/// write that KVM serves by itself is told as well, without anybody being asked. So which port the
/// VMM is asked for is certain only from what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Device {
    /// The VMM was asked for something else, or nothing is known.
    None,
    /// The guest touched it, and the VMM has not been asked yet.
    Touched(DeviceAddress),
    /// The VMM was asked to serve this address of memory.
    Memory(u64),
    /// The VMM was asked to serve a port: the one that the guest wrote to last, unless the kernel
    /// says next that the guest has read from another.
    Port(Option<u16>),
}

/// A switch-out of a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct SwitchOut {
    pub(super) time: HostNs,
    pub(super) pcpu: PcpuId,
    pub(super) prev_state: PrevState,
    pub(super) reason: Reason,
    pub(super) stack: Option<StackId>,
    /// The lock that it sleeps on.
    pub(super) lock: Option<u64>,
}

/// Who wakes a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waker {
    pub(super) tid: Tid,
    /// The lock that it got last, and when.
    pub(super) acquired: Option<(u64, HostNs)>,
}

impl Thread {
    pub(super) fn new(tid: Tid, since: HostNs) -> Thread {
        Thread {
            tid,
            since,
            state: State::Unknown(UnknownCause::NotYetSeen),
            raced_waker: None,
            wait: Wait::default(),
            on_since: since,
            is_realtime: false,
            mode: RunMode::Unsplit,
            exits: OpenExits::default(),
            held_back: HeldBack::default(),
            device: Device::None,
            acquired: None,
            lock_waits: Vec::new(),
        }
    }

    pub(super) fn tid(&self) -> Tid {
        self.tid
    }

    /// The lock that it got last after it had slept on it, and when.
    pub(super) fn acquired(&self) -> Option<(u64, HostNs)> {
        let acquired = self.acquired?;
        Some((acquired.address, acquired.since?))
    }

    /// The lock that it sleeps on.
    pub(super) fn sleeps_on(&self) -> Option<u64> {
        match self.state {
            State::Asleep { sleep, .. } => sleep.lock,
            _ => None,
        }
    }

    /// It wakes a thread that waits for a lock, so it has released the lock; whether it takes the lock again
    /// without waiting is not seen.
    pub(super) fn lets_go_of(&mut self, lock: u64) {
        if self.acquired.is_some_and(|acquired| acquired.address == lock) {
            self.acquired = None;
        }
    }

    /// For how long it has been on its pCPU; 0 if it is not known to be on one.
    pub(super) fn ran_ns(&self, now: HostNs) -> u64 {
        match self.state {
            State::Running { .. } => now.since_ns(self.on_since),
            _ => 0,
        }
    }

    /// Moves the waits for locks to `taken` of which no more will become known.
    pub(super) fn take_lock_waits(&mut self, taken: &mut Vec<LockWait>) {
        let is_held_back = matches!(self.device, Device::Port(_));
        if !is_held_back || self.lock_waits.len() >= LOCK_WAITS_MAX {
            taken.append(&mut self.lock_waits);
        }
    }

    /// Moves the exits to `taken` that are over.
    pub(super) fn take_exits(&mut self, taken: &mut Vec<Exit>) {
        self.exits.take(taken);
    }

    /// The pCPU whose occupants keep the thread waiting, or would if it turns out to be runnable.
    pub(super) fn waits_on(&self) -> Option<PcpuId> {
        match self.state {
            State::Preempted { pcpu, .. }
            | State::Woken { pcpu }
            | State::Asleep { pcpu, raced_waker: Some(_), .. } => Some(pcpu),
            State::Asleep { .. } | State::Running { .. } | State::Unknown(_) => None,
        }
    }

    /// What it does, and since when; `None` while only its next event tells.
    pub(super) fn open(&self) -> Option<(HostNs, ThreadState)> {
        let is_undecided = matches!(self.state, State::Asleep { raced_waker: Some(_), .. });
        (!is_undecided).then(|| (self.since, self.observed()))
    }

    /// Its spans that have not gone out, up to `until`: those that are held back, and what it does now. Until then
    /// `occupant` has the pCPU that it waits for.
    pub(super) fn so_far(&self, until: HostNs, occupant: Option<Who>) -> Vec<Span> {
        let mut spans = self.held_back.spans().to_vec();
        if until > self.since {
            let undecided = ThreadState::Unknown { cause: UnknownCause::NotYetSeen };
            let (start, state) = self.open().unwrap_or((self.since, undecided));
            let waits = state.waits_for().is_some();
            let occupant = occupant.filter(|who| who.tid() != Some(self.tid));
            let antagonists = if waits { self.wait.so_far(occupant, until) } else { Vec::new() };
            spans.push(Span { tid: self.tid, start, end: until, state, antagonists });
        }
        spans
    }

    /// The pCPU that the thread is on, where that is known.
    pub(super) fn runs_on(&self) -> Option<PcpuId> {
        match self.state {
            State::Running { pcpu } => Some(pcpu),
            _ => None,
        }
    }

    /// Credits the time since the last credit to whoever ran where the thread waits.
    pub(super) fn credit(&mut self, who: Option<Who>, until: HostNs) {
        self.wait.credit(who.filter(|who| who.tid() != Some(self.tid)), until);
    }

    /// Takes note of the priority with which it comes onto a pCPU.
    pub(super) fn comes_with(&mut self, priority: Option<i16>) {
        self.is_realtime = priority.is_some_and(is_realtime);
    }

    /// Whether it came onto its pCPU as a real-time or deadline task.
    pub(super) fn is_realtime(&self) -> bool {
        self.is_realtime
    }

    /// The thread comes onto `pcpu`.
    pub(super) fn switch_in(
        &mut self,
        time: HostNs,
        pcpu: PcpuId,
        sink: &mut impl FnMut(Span),
    ) -> Option<ContradictionKind> {
        // Where it was woken for another pCPU than it comes onto, the scheduler had chosen this one after
        // `sched_waking` (`select_task_rq`), or took it over later: whoever ran there is not known to have
        // been in its way.
        let has_moved = match self.state {
            State::Woken { pcpu: target }
            | State::Asleep { pcpu: target, raced_waker: Some(_), .. } => target != pcpu,
            _ => false,
        };
        if has_moved {
            self.wait.restart(time);
        }
        let mut contradiction = None;
        let ended = match self.state {
            State::Unknown(UnknownCause::Ended) => return None,
            State::Running { pcpu: running_on } => {
                contradiction =
                    Some(ContradictionKind::SwitchedInTwice { running_on, switched_in_on: pcpu });
                ThreadState::Unknown { cause: UnknownCause::Lost }
            }
            State::Asleep { pcpu: left, sleep, raced_waker: Some(waker) } => {
                let waker = Waker { tid: waker, acquired: None };
                self.lock_waits.extend(self.lock_wait_of(&sleep, self.since, waker));
                let raced = Some(Sleep { waker: Some(waker.tid), ..sleep });
                ThreadState::WakeupDelay { pcpu: left, raced }
            }
            _ => self.observed(),
        };
        self.change(time, ended, State::Running { pcpu }, sink);
        self.on_since = time;
        if let Some(Acquired { since, .. }) = &mut self.acquired {
            since.get_or_insert(time);
        }
        contradiction
    }

    /// The thread leaves `event.pcpu`.
    pub(super) fn switch_out(
        &mut self,
        event: SwitchOut,
        sink: &mut impl FnMut(Span),
    ) -> Option<ContradictionKind> {
        let SwitchOut { time, pcpu, prev_state, reason, stack, lock } = event;
        let mut contradiction = None;
        let ended = match self.state {
            State::Unknown(UnknownCause::Ended) => return None,
            State::Running { pcpu: running_on } if running_on != pcpu => {
                contradiction = Some(ContradictionKind::SwitchedOutElsewhere {
                    running_on,
                    switched_out_on: pcpu,
                });
                ThreadState::Unknown { cause: UnknownCause::Lost }
            }
            State::Preempted { .. } | State::Asleep { .. } | State::Woken { .. } => {
                contradiction = Some(ContradictionKind::SwitchedOutTwice { switched_out_on: pcpu });
                ThreadState::Unknown { cause: UnknownCause::Lost }
            }
            _ => self.observed(),
        };
        let next = match prev_state {
            PrevState::Runnable | PrevState::RunnablePreempted => {
                State::Preempted { pcpu, reason, stack, lock }
            }
            PrevState::Dead => State::Unknown(UnknownCause::Ended),
            PrevState::Sleep | PrevState::DiskSleep | PrevState::Stopped | PrevState::Other(_) => {
                let sleep = Sleep { reason, stack, waker: None, lock, device: self.served() };
                State::Asleep { pcpu, sleep, raced_waker: self.raced_waker }
            }
        };
        self.held_back.let_go(sink);
        let is_halt = matches!(next, State::Asleep { .. }) && reason == Reason::Halt;
        if is_halt && contradiction.is_none() {
            self.change_to_halt(time, ended, next, sink);
        } else {
            self.change(time, ended, next, sink);
        }
        if let Some(address) = lock {
            self.acquired = Some(Acquired { address, since: None });
        }
        contradiction
    }

    /// `waker` wakes the thread, which last ran on `target`.
    pub(super) fn waking(
        &mut self,
        time: HostNs,
        target: PcpuId,
        waker: Waker,
        sink: &mut impl FnMut(Span),
    ) {
        match self.state {
            State::Asleep { sleep, .. } => {
                self.lock_waits.extend(self.lock_wait_of(&sleep, time, waker));
                let blocked = ThreadState::Blocked(Sleep { waker: Some(waker.tid), ..sleep });
                self.change(time, blocked, State::Woken { pcpu: target }, sink);
            }
            State::Running { .. }
            | State::Unknown(UnknownCause::NotYetSeen | UnknownCause::Lost) => {
                self.raced_waker = Some(waker.tid);
            }
            // It is on a runqueue: it had set a sleeping state and was preempted before it could
            // sleep, and the waker has only to change that state back (`ttwu_runnable`).
            State::Preempted { .. } | State::Woken { .. } => {}
            State::Unknown(UnknownCause::Ended | UnknownCause::UnknownThread) => {}
        }
    }

    fn lock_wait_of(&self, sleep: &Sleep, end: HostNs, waker: Waker) -> Option<LockWait> {
        if !sleep.reason.is_lock() {
            return None;
        }
        let held = waker
            .acquired
            .filter(|(address, since)| sleep.lock == Some(*address) && *since >= self.since);
        Some(LockWait {
            tid: self.tid,
            start: self.since,
            end,
            reason: sleep.reason,
            address: sleep.lock,
            released_by: waker.tid,
            held_ns: held.map(|(_, since)| end.since_ns(since)),
            device: sleep.device,
        })
    }

    /// KVM did something for the thread, which is on a pCPU.
    pub(super) fn kvm(&mut self, time: HostNs, event: KvmEvent, sink: &mut impl FnMut(Span)) {
        match event {
            KvmEvent::HaltEnd { halted_ns, has_slept: true } => {
                self.held_back.slept(time, halted_ns, sink);
            }
            KvmEvent::HaltEnd { halted_ns, has_slept: false } => {
                self.held_back.polled(sink);
                self.polled(time, halted_ns, sink);
            }
            _ => self.held_back.let_go(sink),
        }
        let mode = match event {
            KvmEvent::GuestEntry => RunMode::Guest,
            KvmEvent::GuestExit { .. } => RunMode::Kvm,
            KvmEvent::UserspaceExit { .. } if self.mode != RunMode::Unsplit => RunMode::Vmm,
            _ => self.mode,
        };
        self.exits.pass(time, &self.observed());
        self.exits.event(self.tid, event, self.mode != RunMode::Unsplit);
        self.settle_port(event);
        self.device = device_after(event, self.device);
        if mode == self.mode {
            return;
        }
        if matches!(self.state, State::Running { .. }) {
            self.change(time, self.observed(), self.state, sink);
        }
        self.mode = mode;
    }

    /// Until `time` it has polled for so long for its halted guest.
    fn polled(&mut self, time: HostNs, halted_ns: u64, sink: &mut impl FnMut(Span)) {
        let State::Running { pcpu } = self.state else { return };
        let from = HostNs(time.0.saturating_sub(halted_ns)).max(self.since);
        self.change(from, self.observed(), self.state, sink);
        let polling = ThreadState::Running { pcpu, mode: RunMode::HaltPoll };
        self.change(time, polling, self.state, sink);
    }

    /// Waits for locks that were held back get the port that the VMM was asked for.
    fn settle_port(&mut self, next: KvmEvent) {
        let Device::Port(written) = self.device else { return };
        let port = match next {
            KvmEvent::PortRead { port } => Some(port),
            _ => written,
        };
        for wait in &mut self.lock_waits {
            wait.device = port.map(DeviceAddress::Port);
        }
    }

    /// The device that the VMM has been asked to serve, where that is certain already.
    fn served(&self) -> Option<DeviceAddress> {
        match self.device {
            Device::Memory(address) => Some(DeviceAddress::Memory(address)),
            _ => None,
        }
    }

    /// From `time` on nothing is known of the thread, for this cause.
    pub(super) fn forget(
        &mut self,
        time: HostNs,
        cause: UnknownCause,
        sink: &mut impl FnMut(Span),
    ) {
        if matches!(self.state, State::Unknown(UnknownCause::Ended)) {
            return;
        }
        let undecided = matches!(self.state, State::Asleep { raced_waker: Some(_), .. });
        let ended = if undecided { ThreadState::Unknown { cause } } else { self.observed() };
        self.change(time, ended, State::Unknown(cause), sink);
        self.held_back.let_go(sink);
        // What KVM did meanwhile is not known either, nor which locks changed hands.
        self.mode = RunMode::Unsplit;
        self.device = Device::None;
        self.acquired = None;
    }

    /// Somebody else was seen leaving the pCPU that the thread was thought to run on: it must have
    /// left at some moment since, and nothing is known until its next switch.
    pub(super) fn displaced(&mut self, time: HostNs, sink: &mut impl FnMut(Span)) {
        let ended = ThreadState::Unknown { cause: UnknownCause::Lost };
        self.change(time, ended, State::Unknown(UnknownCause::Lost), sink);
        self.held_back.let_go(sink);
    }

    /// The recording ends: closes the open span and leaves the state as it is.
    pub(super) fn finish(&mut self, time: HostNs, sink: &mut impl FnMut(Span)) {
        let undecided = matches!(self.state, State::Asleep { raced_waker: Some(_), .. });
        let ended = if undecided {
            ThreadState::Unknown { cause: UnknownCause::NotYetSeen }
        } else {
            self.observed()
        };
        self.change(time, ended, self.state, sink);
        self.held_back.let_go(sink);
        self.device = Device::None;
    }

    /// Closes the open span as one of `ended` and opens the next one.
    ///
    /// A span of no length says nothing and is left out: two events of one moment.
    fn change(
        &mut self,
        time: HostNs,
        ended: ThreadState,
        next: State,
        sink: &mut impl FnMut(Span),
    ) {
        if let Some(span) = self.closed(time, ended, next) {
            self.held_back.pass(span, sink);
        }
    }

    /// The same where it goes to sleep as its guest is halted: it may have polled before.
    fn change_to_halt(
        &mut self,
        time: HostNs,
        ended: ThreadState,
        next: State,
        sink: &mut impl FnMut(Span),
    ) {
        if let Some(span) = self.closed(time, ended, next) {
            self.held_back.pass_last_of_stay(span, sink);
        }
    }

    fn closed(&mut self, time: HostNs, ended: ThreadState, next: State) -> Option<Span> {
        let waited = ended.waits_for().is_some();
        let time = time.max(self.since);
        self.exits.pass(time, &ended);
        let span = (time > self.since).then(|| {
            let antagonists = if waited { self.wait.take() } else { Vec::new() };
            Span { tid: self.tid, start: self.since, end: time, state: ended, antagonists }
        });
        self.since = time;
        self.state = next;
        self.raced_waker = None;
        self.wait.restart(time);
        span
    }

    /// The state of the open span if it ends as is to be expected.
    fn observed(&self) -> ThreadState {
        match self.state {
            State::Unknown(cause) => ThreadState::Unknown { cause },
            State::Running { pcpu } => ThreadState::Running { pcpu, mode: self.mode },
            State::Preempted { pcpu, reason, stack, lock } => {
                ThreadState::PreemptWait { pcpu, reason, stack, lock }
            }
            State::Asleep { sleep, .. } => ThreadState::Blocked(sleep),
            State::Woken { pcpu } => ThreadState::WakeupDelay { pcpu, raced: None },
        }
    }
}

fn device_after(event: KvmEvent, before: Device) -> Device {
    match (event, before) {
        // Whatever its reason says, the VMM was asked for nothing.
        (KvmEvent::UserspaceExit { errno: ..0, .. }, _) => Device::None,
        (KvmEvent::UserspaceExit { reason: EXIT_IO, .. }, Device::Touched(at)) => match at {
            DeviceAddress::Port(port) => Device::Port(Some(port)),
            DeviceAddress::Memory(_) => Device::Port(None),
        },
        (KvmEvent::UserspaceExit { reason: EXIT_IO, .. }, _) => Device::Port(None),
        (
            KvmEvent::UserspaceExit { reason: EXIT_MMIO, .. },
            Device::Touched(DeviceAddress::Memory(address)),
        ) => Device::Memory(address),
        // What KVM has served by itself, or the VMM, is over.
        (KvmEvent::UserspaceExit { .. } | KvmEvent::GuestEntry | KvmEvent::PortRead { .. }, _) => {
            Device::None
        }
        (KvmEvent::PortWrite { port }, _) => Device::Touched(DeviceAddress::Port(port)),
        (KvmEvent::Memory { address }, _) => Device::Touched(DeviceAddress::Memory(address)),
        (
            KvmEvent::GuestExit { .. } | KvmEvent::HaltEnd { .. } | KvmEvent::Interrupt { .. },
            device,
        ) => device,
    }
}
