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
use super::span::{BlockReason, Span, ThreadState, UnknownCause};
use crate::host_event::{PrevState, StackId};
use crate::units::{HostNs, PcpuId, Tid};

/// What a thread is doing, as far as its last event tells.
#[derive(Debug, Clone, Copy)]
enum State {
    Unknown(UnknownCause),
    Running { pcpu: PcpuId },
    Preempted { pcpu: PcpuId, stack: Option<StackId> },
    Asleep { pcpu: PcpuId, reason: BlockReason, stack: Option<StackId>, raced_waker: Option<Tid> },
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
}

/// A switch-out of a thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct SwitchOut {
    pub(super) time: HostNs,
    pub(super) pcpu: PcpuId,
    pub(super) prev_state: PrevState,
    pub(super) reason: BlockReason,
    pub(super) stack: Option<StackId>,
}

impl Thread {
    pub(super) fn new(tid: Tid, since: HostNs) -> Thread {
        let state = State::Unknown(UnknownCause::NotYetSeen);
        Thread { tid, since, state, raced_waker: None, wait: Wait::default() }
    }

    pub(super) fn tid(&self) -> Tid {
        self.tid
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

    /// The pCPU that the thread is on, where that is known.
    pub(super) fn runs_on(&self) -> Option<PcpuId> {
        match self.state {
            State::Running { pcpu } => Some(pcpu),
            _ => None,
        }
    }

    /// Credits the time since the last credit to whoever ran where the thread waits.
    pub(super) fn credit(&mut self, who: Option<Tid>, until: HostNs) {
        self.wait.credit(who.filter(|who| *who != self.tid), until);
    }

    /// The thread comes onto `pcpu`.
    pub(super) fn switch_in(
        &mut self,
        time: HostNs,
        pcpu: PcpuId,
        sink: &mut impl FnMut(Span),
    ) -> Option<ContradictionKind> {
        let mut contradiction = None;
        let ended = match self.state {
            State::Unknown(UnknownCause::Ended) => return None,
            State::Running { pcpu: running_on } => {
                contradiction =
                    Some(ContradictionKind::SwitchedInTwice { running_on, switched_in_on: pcpu });
                ThreadState::Unknown { cause: UnknownCause::Lost }
            }
            State::Asleep { pcpu: left, raced_waker: Some(_), .. } => {
                ThreadState::WakeupDelay { pcpu: left }
            }
            state => observed(state),
        };
        self.change(time, ended, State::Running { pcpu }, sink);
        contradiction
    }

    /// The thread leaves `event.pcpu`.
    pub(super) fn switch_out(
        &mut self,
        event: SwitchOut,
        sink: &mut impl FnMut(Span),
    ) -> Option<ContradictionKind> {
        let SwitchOut { time, pcpu, prev_state, reason, stack } = event;
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
            state => observed(state),
        };
        let next = match prev_state {
            PrevState::Runnable | PrevState::RunnablePreempted => State::Preempted { pcpu, stack },
            PrevState::Dead => State::Unknown(UnknownCause::Ended),
            PrevState::Sleep | PrevState::DiskSleep | PrevState::Stopped | PrevState::Other(_) => {
                State::Asleep { pcpu, reason, stack, raced_waker: self.raced_waker }
            }
        };
        self.change(time, ended, next, sink);
        contradiction
    }

    /// `waker` wakes the thread, which last ran on `target`.
    pub(super) fn waking(
        &mut self,
        time: HostNs,
        target: PcpuId,
        waker: Tid,
        sink: &mut impl FnMut(Span),
    ) {
        match self.state {
            State::Asleep { reason, stack, .. } => {
                let blocked = ThreadState::Blocked { reason, stack, waker: Some(waker) };
                self.change(time, blocked, State::Woken { pcpu: target }, sink);
            }
            State::Running { .. }
            | State::Unknown(UnknownCause::NotYetSeen | UnknownCause::Lost) => {
                self.raced_waker = Some(waker);
            }
            // It is on a runqueue: it had set a sleeping state and was preempted before it could
            // sleep, and the waker has only to change that state back (`ttwu_runnable`).
            State::Preempted { .. } | State::Woken { .. } => {}
            State::Unknown(UnknownCause::Ended) => {}
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
        let ended = if undecided { ThreadState::Unknown { cause } } else { observed(self.state) };
        self.change(time, ended, State::Unknown(cause), sink);
    }

    /// Somebody else was seen leaving the pCPU that the thread was thought to run on: it must have
    /// left at some moment since, and nothing is known until its next switch.
    pub(super) fn displaced(&mut self, time: HostNs, sink: &mut impl FnMut(Span)) {
        let ended = ThreadState::Unknown { cause: UnknownCause::Lost };
        self.change(time, ended, State::Unknown(UnknownCause::Lost), sink);
    }

    /// The recording ends: closes the open span and leaves the state as it is.
    pub(super) fn finish(&mut self, time: HostNs, sink: &mut impl FnMut(Span)) {
        let undecided = matches!(self.state, State::Asleep { raced_waker: Some(_), .. });
        let ended = if undecided {
            ThreadState::Unknown { cause: UnknownCause::NotYetSeen }
        } else {
            observed(self.state)
        };
        self.change(time, ended, self.state, sink);
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
        let waited =
            matches!(ended, ThreadState::PreemptWait { .. } | ThreadState::WakeupDelay { .. });
        let time = time.max(self.since);
        if time > self.since {
            let antagonists = if waited { self.wait.take() } else { Vec::new() };
            sink(Span { tid: self.tid, start: self.since, end: time, state: ended, antagonists });
        }
        self.since = time;
        self.state = next;
        self.raced_waker = None;
        self.wait.restart(time);
    }
}

/// The state of a span that ended as it was to be expected.
fn observed(state: State) -> ThreadState {
    match state {
        State::Unknown(cause) => ThreadState::Unknown { cause },
        State::Running { pcpu } => ThreadState::Running { pcpu },
        State::Preempted { pcpu, stack } => ThreadState::PreemptWait { pcpu, stack },
        State::Asleep { reason, stack, .. } => ThreadState::Blocked { reason, stack, waker: None },
        State::Woken { pcpu } => ThreadState::WakeupDelay { pcpu },
    }
}
