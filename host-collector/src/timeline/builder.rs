//! The timelines of all watched threads, from the merged events of all pCPUs.

use super::classify::StackTable;
use super::contradiction::{Contradiction, ContradictionKind, Contradictions};
use super::span::{Span, UnknownCause};
use super::thread::{SwitchOut, Thread};
use crate::host_event::{HostEvent, HostEventKind, PrevState, StackId};
use crate::units::{HostNs, PcpuId, Tid};
use std::collections::HashMap;

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
/// it was taken from or woken for ([`Tid::IDLE`] if nobody did). The occupant is known from the
/// switch that brought it or from the switch that took it away; where the two disagree a record is
/// missing, and the time is credited to nobody. A thread that then comes on elsewhere keeps the
/// credits of where it waited: when it was moved is not recorded.
#[derive(Debug, Default)]
pub struct Timeline {
    stacks: StackTable,
    threads: Vec<Thread>,
    index_by_tid: HashMap<Tid, usize>,
    pcpus: HashMap<PcpuId, Pcpu>,
    /// The latest time seen, or the explicit start.
    now: Option<HostNs>,
    /// The end of the latest loss so far.
    lost_until: HostNs,
    contradictions: Contradictions,
}

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

/// The payload of [`HostEventKind::Switch`].
struct Switch {
    time: HostNs,
    pcpu: PcpuId,
    prev: Tid,
    prev_state: PrevState,
    next: Tid,
    stack: Option<StackId>,
}

impl Timeline {
    /// Watches these threads; their timelines start with the first event.
    ///
    /// The idle task is not one thread but one for each pCPU: it cannot be watched.
    pub fn new(watched: impl IntoIterator<Item = Tid>, stacks: StackTable) -> Timeline {
        let mut timeline = Timeline { stacks, ..Timeline::default() };
        watched.into_iter().for_each(|tid| timeline.watch(tid));
        timeline
    }

    /// Starts every timeline at `start` instead; earlier events only tell the states at `start`.
    #[must_use]
    pub fn starting_at(mut self, start: HostNs) -> Timeline {
        self.begin(start);
        self
    }

    /// Watches one more thread, from the latest event on.
    pub fn watch(&mut self, tid: Tid) {
        if tid == Tid::IDLE || self.index_by_tid.contains_key(&tid) {
            return;
        }
        self.index_by_tid.insert(tid, self.threads.len());
        self.threads.push(Thread::new(tid, self.now.unwrap_or_default()));
    }

    /// The kernel stacks that events refer to; a live recording adds to them as it goes.
    pub fn stacks_mut(&mut self) -> &mut StackTable {
        &mut self.stacks
    }

    /// What was observed that cannot be right.
    #[must_use]
    pub fn contradictions(&self) -> &Contradictions {
        &self.contradictions
    }

    /// Takes the next event; the spans that it ends go to `sink`.
    pub fn push(&mut self, event: &HostEvent, sink: &mut impl FnMut(Span)) {
        let time = self.begin(event.time);
        match event.kind {
            HostEventKind::Switch { prev, prev_state, next, stack } => {
                let switch = Switch { time, pcpu: event.pcpu, prev, prev_state, next, stack };
                self.switch(&switch, sink);
            }
            HostEventKind::Waking { tid, target, waker } => {
                if let Some(&index) = self.index_by_tid.get(&tid) {
                    self.update(index, time, |thread| thread.waking(time, target, waker, sink));
                }
            }
            HostEventKind::Exit { tid } => {
                if let Some(&index) = self.index_by_tid.get(&tid) {
                    self.update(index, time, |thread| {
                        thread.forget(time, UnknownCause::Ended, sink);
                    });
                }
            }
            HostEventKind::Lost { until, .. } => self.lost(time, event.pcpu, until, sink),
            HostEventKind::Comm { .. } | HostEventKind::Fork { .. } => {}
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

    fn switch(&mut self, switch: &Switch, sink: &mut impl FnMut(Span)) {
        let &Switch { time, pcpu, prev, prev_state, next, stack } = switch;
        self.occupy(switch, sink);
        if time < self.lost_until {
            // Whatever this says of a watched thread, a lost record may already have undone it.
            return;
        }
        if let Some(&index) = self.index_by_tid.get(&prev) {
            let reason = self.stacks.reason(stack);
            let event = SwitchOut { time, pcpu, prev_state, reason, stack };
            let observed = self.update(index, time, |thread| thread.switch_out(event, sink));
            self.observe(index, time, observed);
        }
        if let Some(&index) = self.index_by_tid.get(&next) {
            let observed = self.update(index, time, |thread| thread.switch_in(time, pcpu, sink));
            self.observe(index, time, observed);
        }
    }

    /// Changes the occupant of a pCPU, and credits the one who leaves with the time that the
    /// threads that wait there have waited for it.
    fn occupy(&mut self, switch: &Switch, sink: &mut impl FnMut(Span)) {
        let &Switch { time, pcpu: id, prev, next, .. } = switch;
        let pcpu = self.pcpus.entry(id).or_default();
        let missed = pcpu.occupant.filter(|occupant| *occupant != prev);
        let ran = if missed.is_some() { None } else { Some(prev) };
        for &index in &pcpu.waiting {
            self.threads[index].credit(ran, time);
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
            thread.credit(pcpu.occupant, time);
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
