//! The timelines of all watched threads, from the merged events of all pCPUs.

use super::classify::{Evidence, Preemption};
use super::contradiction::{Contradiction, ContradictionKind, Contradictions};
use super::exits::Exit;
use super::futex::{FutexCall, FutexWait, LockFacts};
use super::last_seen::LastSeen;
use super::lock::{LockUser, LockUsers, LockWait};
use super::span::{Span, ThreadState, UnknownCause, Who};
use super::stack::{Mark, Marks, StackTable};
use super::tasks::Tasks;
use super::thread::{SwitchOut, Thread, Waker};
use crate::control_groups::ControlGroups;
use crate::host_event::{HostEvent, HostEventKind, KvmEvent, Switch};
use crate::units::{HostNs, PcpuId, Tid};
use rustc_hash::FxHashMap;

/// Turns scheduling events into a gapless timeline for each watched thread.
///
/// Streaming: the spans of a thread go out in order as they end, and nothing is kept of an event
/// but the open state of each thread, the occupant of each pCPU and the antagonists of each wait.
///
/// # Input
/// The events of all pCPUs, merged in order of `time`. An event that is older than one before it is
/// taken to have happened at the time of that one, so that spans never overlap. So a loss must come
/// in order of its *start*: what went out before it cannot be taken back.
///
/// # Loss
/// A loss on *any* pCPU makes *every* watched thread unknown from its start, until the thread's own
/// next switch after its end: a thread may have been woken by, or may have moved to, the pCPU whose
/// records are lost, and what it did there would be laid to its last known state. A switch-out
/// after the loss tells that the thread had been running, but not since when, so the time before it
/// stays unknown.
///
/// # Antagonists
/// While a thread is runnable but off, every nanosecond is credited to whoever ran on the pCPU that
/// it was taken from or last ran on before it was woken ([`Who::Idle`] if nobody did), under the name
/// that it had then: who takes another name gets the time until then under the old one. The occupant is
/// known from the switch that brought it or from the switch that took it away; where the two disagree a record is
/// missing, and the time is credited to nobody. A thread that then comes on elsewhere keeps the
/// credits of where it waited: when it was moved is not recorded.
#[derive(Debug, Default)]
pub struct Timeline {
    stacks: StackTable,
    tasks: Tasks,
    threads: Vec<Thread>,
    /// What each of `threads` is, in the same order.
    watched: Vec<Watched>,
    index_by_tid: FxHashMap<Tid, usize>,
    vms: Vec<LockFacts>,
    /// Who waits for the locks of each VM.
    lock_users: Vec<LockUsers>,
    slice_ns: Option<u64>,
    preemption: Option<Preemption>,
    last_seen: LastSeen,
    lock_waits: Vec<LockWait>,
    exits: Vec<Exit>,
    pcpus: FxHashMap<PcpuId, Pcpu>,
    /// The latest time seen, or the explicit start.
    now: Option<HostNs>,
    /// The end of the latest loss so far.
    lost_until: HostNs,
    contradictions: Contradictions,
}

const FUTEX: Marks = Marks::of(&[Mark::FutexSleep]);

/// What is known of one pCPU.
#[derive(Debug, Default)]
struct Pcpu {
    /// Who runs there, where that is known.
    occupant: Option<Tid>,
    /// The end of the latest loss there.
    lost_until: HostNs,
    /// The watched threads that wait for it, as indices.
    waiting: Vec<usize>,
}

/// A thread to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// The thread.
    pub tid: Tid,
    /// Its VM, as an index into the [`LockFacts`] that are known.
    pub vm: usize,
    /// Its role in its VMM, as far as locks are concerned.
    pub user: LockUser,
    /// Whether its control group has a quota and was seen to use it up.
    pub is_throttled: bool,
}

/// A vCPU's thread of the only VM.
impl From<Tid> for Watched {
    fn from(tid: Tid) -> Watched {
        Watched { tid, vm: 0, user: LockUser::Vcpu, is_throttled: false }
    }
}

/// A switch, when it happened and where.
#[derive(Debug, Clone, Copy)]
struct Switched {
    time: HostNs,
    pcpu: PcpuId,
    switch: Switch,
}

impl Timeline {
    /// Watches these threads; their timelines start with the first event.
    ///
    /// The idle task is not one thread but one for each pCPU: it cannot be watched.
    pub fn new(
        watched: impl IntoIterator<Item = impl Into<Watched>>,
        stacks: StackTable,
    ) -> Timeline {
        let mut timeline = Timeline { stacks, ..Timeline::default() };
        watched.into_iter().for_each(|thread| timeline.watch(thread));
        timeline
    }

    /// Sets what is known of the VMs' locks; without it no lock can be named.
    #[must_use]
    pub fn with_lock_facts(mut self, vms: Vec<LockFacts>) -> Timeline {
        self.vms = vms;
        self
    }

    /// Sets the host's threads; without them, antagonists have only recorded names.
    #[must_use]
    pub fn with_tasks(mut self, tasks: Tasks) -> Timeline {
        self.tasks = tasks;
        self
    }

    /// Sets the shortest timeslice in nanoseconds, in whole ticks, that the scheduler gives to a thread for
    /// whose pCPU others wait.
    #[must_use]
    pub fn with_slice(mut self, slice_ns: Option<u64>) -> Timeline {
        self.slice_ns = slice_ns;
        self
    }

    /// Sets when a woken thread that shall preempt another one comes on.
    #[must_use]
    pub fn with_preemption(mut self, preemption: Option<Preemption>) -> Timeline {
        self.preemption = preemption;
        self
    }

    /// Starts every timeline at `start`; earlier events only determine the states at `start`.
    #[must_use]
    pub fn starting_at(mut self, start: HostNs) -> Timeline {
        self.begin(start);
        self
    }

    /// Watches one more thread, from the latest event on.
    pub fn watch(&mut self, watched: impl Into<Watched>) {
        let watched = watched.into();
        let tid = watched.tid;
        if tid == Tid::IDLE || self.index_by_tid.contains_key(&tid) {
            return;
        }
        self.index_by_tid.insert(tid, self.threads.len());
        self.threads.push(Thread::new(tid, self.now.unwrap_or_default()));
        self.watched.push(watched);
    }

    /// The waits for locks that have become known since this was last asked; they are kept until
    /// then. In order of the time at which they became known, which is not quite that of their ends.
    pub fn take_lock_waits(&mut self) -> Vec<LockWait> {
        std::mem::take(&mut self.lock_waits)
    }

    /// The exits that are over since this was last asked, in order of their ends; they are kept until
    /// then. None where entries into the guest and exits from it are not recorded.
    pub fn take_exits(&mut self) -> Vec<Exit> {
        std::mem::take(&mut self.exits)
    }

    /// The kernel stacks that events refer to; a live recording adds to them as it goes.
    pub fn stacks_mut(&mut self) -> &mut StackTable {
        &mut self.stacks
    }

    /// The kernel stacks that events refer to.
    #[must_use]
    pub fn stacks(&self) -> &StackTable {
        &self.stacks
    }

    /// The host's threads as they are called now.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The control groups of the host's threads; a live recording learns of more as it goes.
    pub fn groups_mut(&mut self) -> &mut ControlGroups {
        self.tasks.groups_mut()
    }

    /// Whether this thread is watched.
    #[must_use]
    pub fn watches(&self, tid: Tid) -> bool {
        self.index_by_tid.contains_key(&tid)
    }

    /// What a watched thread does since when, as far as the events until now tell; `None` while only the next one
    /// does. The span that it becomes may be split once the guest's entries and exits around it are known.
    #[must_use]
    pub fn open(&self, tid: Tid) -> Option<(HostNs, ThreadState)> {
        self.threads[*self.index_by_tid.get(&tid)?].open()
    }

    /// The spans of a watched thread that have not gone out, as they are if they end at `until`, which is no earlier
    /// than the latest event: what goes on, and what is held back until more is known of it. Those that go out later
    /// tell the same time again, and may tell more of it.
    pub fn so_far(&mut self, tid: Tid, until: HostNs) -> Vec<Span> {
        let known = self.index_by_tid.get(&tid).map(|index| &self.threads[*index]).zip(self.now);
        let Some((thread, now)) = known else { return Vec::new() };
        let pcpu = thread.waits_on().and_then(|id| self.pcpus.get(&id));
        let occupant = pcpu.and_then(|pcpu| pcpu.occupant).map(|tid| who(&mut self.tasks, tid));
        thread.so_far(until.max(now), occupant)
    }

    /// What was observed that cannot be right.
    #[must_use]
    pub fn contradictions(&self) -> &Contradictions {
        &self.contradictions
    }

    /// Takes the next event; the spans that it ends go to `sink`.
    pub fn push(&mut self, event: &HostEvent, sink: &mut impl FnMut(Span)) {
        let time = self.begin(event.time);
        if let Some(tid) = Tasks::changed_by(event) {
            self.settle(tid, time);
        }
        self.tasks.learn(event);
        match event.kind {
            HostEventKind::Switch(switch) => {
                self.switch(&Switched { time, pcpu: event.pcpu, switch }, sink);
            }
            HostEventKind::Waking { tid, target, waker } => {
                self.last_seen.woken(tid, time);
                if let Some(&index) = self.index_by_tid.get(&tid) {
                    let waker_index = self.index_by_tid.get(&waker);
                    let acquired = waker_index.and_then(|index| self.threads[*index].acquired());
                    let waker_thread = waker_index.copied();
                    let waker = Waker { tid: waker, acquired };
                    let lock = self.threads[index].sleeps_on();
                    self.update(index, time, |thread| thread.waking(time, target, waker, sink));
                    if let (Some(waker), Some(lock)) = (waker_thread, lock) {
                        self.threads[waker].lets_go_of(lock);
                    }
                    self.threads[index].take_lock_waits(&mut self.lock_waits);
                }
            }
            // Of the thread that interrupts a vCPU it tells nothing.
            HostEventKind::Kvm { event: KvmEvent::Interrupt { .. }, .. } => {}
            HostEventKind::Kvm { tid, event } => self.kvm(time, tid, event, sink),
            HostEventKind::Exit { tid } => {
                if let Some(&index) = self.index_by_tid.get(&tid) {
                    self.update(index, time, |thread| {
                        thread.forget(time, UnknownCause::Ended, sink);
                    });
                }
            }
            HostEventKind::Lost { until, .. } => self.lost(time, event.pcpu, until, sink),
            HostEventKind::Comm { .. }
            | HostEventKind::Group { .. }
            | HostEventKind::Fork { .. }
            | HostEventKind::Block(_) => {}
        }
    }

    /// The recording ends at `end`: every timeline is closed there.
    ///
    /// `end` is put off to the time of the last event if that is later. Without any event and
    /// without an explicit start there is nothing to close.
    pub fn finish(&mut self, end: HostNs, sink: &mut impl FnMut(Span)) {
        if self.now.is_none() {
            return;
        }
        let time = self.begin(end);
        for index in 0..self.threads.len() {
            self.update(index, time, |thread| thread.finish(time, sink));
            self.threads[index].take_lock_waits(&mut self.lock_waits);
        }
    }

    /// Moves the latest time on to `time` and returns it; the first time starts the timelines.
    fn begin(&mut self, time: HostNs) -> HostNs {
        if self.now.is_none() {
            for thread in &mut self.threads {
                *thread = Thread::new(thread.tid(), time);
            }
        }
        let now = self.now.map_or(time, |now| now.max(time));
        self.now = Some(now);
        now
    }

    fn switch(&mut self, switched: &Switched, sink: &mut impl FnMut(Span)) {
        let &Switched { time, pcpu, switch } = switched;
        let Switch { prev, next, .. } = switch;
        self.occupy(switched, sink);
        // Whatever a switch within a loss says of a watched thread, a lost record may already have
        // undone it.
        let is_believed = time >= self.lost_until;
        if is_believed && let Some(&index) = self.index_by_tid.get(&prev) {
            let event = self.switch_out(index, switched);
            let observed = self.update(index, time, |thread| thread.switch_out(event, sink));
            self.observe(index, time, observed);
        }
        self.last_seen.left(prev, time, pcpu, switch.prev_state.is_runnable());
        if is_believed && let Some(&index) = self.index_by_tid.get(&next) {
            let observed = self.update(index, time, |thread| thread.switch_in(time, pcpu, sink));
            self.threads[index].comes_with(switch.next_priority);
            self.observe(index, time, observed);
            self.threads[index].take_lock_waits(&mut self.lock_waits);
        }
    }

    /// Why a watched thread left.
    fn switch_out(&mut self, index: usize, switched: &Switched) -> SwitchOut {
        let &Switched { time, pcpu, switch } = switched;
        let Watched { vm, user, is_throttled, .. } = self.watched[index];
        let facts = self.vms.get(vm).copied().unwrap_or_default();
        let marks = self.stacks.marks(switch.stack);
        let is_futex = marks.is_some_and(|marks| marks.intersects(FUTEX));
        let call = switch.call_args.filter(|_| is_futex).map(FutexCall::new);
        let futex = call.map_or(FutexWait::Unknown, |call| call.wait(&facts));
        let is_mutex = matches!(
            futex,
            FutexWait::Bql
                | FutexWait::BqlFoundByBehaviour
                | FutexWait::StaticMutex
                | FutexWait::Mutex
        );
        let mutex = call.filter(|_| is_mutex).map(|call| call.address);
        let evidence = Evidence {
            state: switch.prev_state,
            marks,
            futex,
            is_shared: mutex.is_some_and(|address| self.lock_users(vm).wait(address, user)),
            vmm: facts.vmm,
            mode: facts.mode.filter(|_| user == LockUser::Vcpu),
            user,
            next: self.last_seen.next(switch.next, switch.next_priority, time, pcpu),
            ran_ns: self.threads[index].ran_ns(time),
            slice_ns: self.slice_ns,
            preemption: self.preemption,
            is_throttled_group: is_throttled,
            is_realtime: self.threads[index].is_realtime(),
        };
        let reason = evidence.reason();
        let lock = call.map(|call| call.address).filter(|_| reason.is_lock());
        let Switch { prev_state, stack, .. } = switch;
        SwitchOut { time, pcpu, prev_state, reason, stack, lock }
    }

    fn lock_users(&mut self, vm: usize) -> &mut LockUsers {
        if self.lock_users.len() <= vm {
            self.lock_users.resize_with(vm + 1, LockUsers::default);
        }
        &mut self.lock_users[vm]
    }

    fn kvm(&mut self, time: HostNs, tid: Tid, event: KvmEvent, sink: &mut impl FnMut(Span)) {
        if time < self.lost_until {
            return;
        }
        if let Some(&index) = self.index_by_tid.get(&tid) {
            self.threads[index].kvm(time, event, sink);
            self.threads[index].take_exits(&mut self.exits);
            self.threads[index].take_lock_waits(&mut self.lock_waits);
        }
    }

    /// Changes the occupant of a pCPU, and credits the one who leaves with the time that the
    /// threads that wait there have waited for it.
    fn occupy(&mut self, switched: &Switched, sink: &mut impl FnMut(Span)) {
        let &Switched { time, pcpu: id, switch: Switch { prev, next, .. } } = switched;
        let pcpu = self.pcpus.entry(id).or_default();
        let missed = pcpu.occupant.filter(|occupant| *occupant != prev);
        if !pcpu.waiting.is_empty() {
            let ran = if missed.is_some() { None } else { Some(who(&mut self.tasks, prev)) };
            for &index in &pcpu.waiting {
                self.threads[index].credit(ran.clone(), time);
            }
        }
        pcpu.occupant = (time >= pcpu.lost_until).then_some(next);
        if let Some(&index) = missed.and_then(|missed| self.index_by_tid.get(&missed))
            && self.threads[index].runs_on() == Some(id)
        {
            self.update(index, time, |thread| thread.displaced(time, sink));
            let observed = ContradictionKind::Displaced { running_on: id, by: prev };
            self.observe(index, time, Some(observed));
        }
    }

    /// A thread is about to be called otherwise: what it has run until now it has run under its name of
    /// now.
    fn settle(&mut self, tid: Tid, time: HostNs) {
        let occupied = self.pcpus.values().filter(|pcpu| pcpu.occupant == Some(tid));
        for pcpu in occupied.filter(|pcpu| !pcpu.waiting.is_empty()) {
            let ran = who(&mut self.tasks, tid);
            for &index in &pcpu.waiting {
                self.threads[index].credit(Some(ran.clone()), time);
            }
        }
    }

    fn lost(&mut self, time: HostNs, id: PcpuId, until: HostNs, sink: &mut impl FnMut(Span)) {
        for index in 0..self.threads.len() {
            self.update(index, time, |thread| thread.forget(time, UnknownCause::Lost, sink));
        }
        self.lost_until = self.lost_until.max(until);
        let pcpu = self.pcpus.entry(id).or_default();
        pcpu.occupant = None;
        pcpu.lost_until = pcpu.lost_until.max(until);
    }

    /// Changes a thread: settles its credits before, and keeps track of where it waits after.
    fn update<T>(
        &mut self,
        index: usize,
        time: HostNs,
        change: impl FnOnce(&mut Thread) -> T,
    ) -> T {
        let thread = &mut self.threads[index];
        let before = thread.waits_on();
        if let Some(pcpu) = before.and_then(|id| self.pcpus.get(&id)) {
            let occupant = pcpu.occupant.map(|tid| who(&mut self.tasks, tid));
            thread.credit(occupant, time);
        }
        let result = change(thread);
        let after = thread.waits_on();
        if before != after {
            if let Some(pcpu) = before.and_then(|id| self.pcpus.get_mut(&id)) {
                pcpu.waiting.retain(|waiting| *waiting != index);
            }
            if let Some(id) = after {
                self.pcpus.entry(id).or_default().waiting.push(index);
            }
        }
        result
    }

    fn observe(&mut self, index: usize, time: HostNs, kind: Option<ContradictionKind>) {
        if let Some(kind) = kind {
            let tid = self.threads[index].tid();
            self.contradictions.push(Contradiction { time, tid, kind });
        }
    }
}

fn who(tasks: &mut Tasks, tid: Tid) -> Who {
    if tid == Tid::IDLE { Who::Idle } else { Who::Thread(tasks.get(tid)) }
}
