//! Records for a while, and says each time that a vCPU thread left its pCPU, and why vslice thinks
//! that it did.

use crate::rig::inject::Episode;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId};
use vslice_core::timeline::{Reason, Span, StackTable, ThreadState, Timeline};
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_record::perf::{
    EventSink, RecordError, RecordPlan, RecordTotals, Recorder, SinkError, SymbolError, Symbols,
};

/// Events that are kept at most; a scenario has some hundred thousand.
const EVENTS_MAX: usize = 8 << 20;

/// Why nothing was observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// See [`RecordError`].
    #[error(transparent)]
    Record(#[from] RecordError),
    /// See [`SymbolError`].
    #[error(transparent)]
    Symbols(#[from] SymbolError),
    /// More happened than is kept.
    #[error("more than {EVENTS_MAX} events were recorded")]
    TooMuch,
}

/// One time that a vCPU thread left its pCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// When.
    pub time: HostNs,
    /// When it came on again, or was last seen off.
    pub until: HostNs,
    /// In which state it left.
    pub state: PrevState,
    /// Who came on.
    pub next: Tid,
    /// For how long it had been on; `None` if its coming was not recorded.
    pub ran_ns: Option<u64>,
    /// The reason that vslice concluded.
    pub reason: Reason,
    /// The lock that vslice concluded it slept on.
    pub lock: Option<u64>,
    /// The kernel stack with which it left.
    pub stack: Option<StackId>,
}

impl Departure {
    /// For how long it was off.
    #[must_use]
    pub fn off_ns(&self) -> u64 {
        self.until.since_ns(self.time)
    }
}

/// A stack with which a thread left for a reason that no rule knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnknownStack {
    /// How often.
    pub count: u64,
    /// Whether the thread was still runnable.
    pub is_runnable: bool,
    /// Its frames, the innermost first; none if it was not recorded.
    pub frames: Vec<String>,
}

/// What was recorded in a window.
#[derive(Debug)]
pub struct Observed {
    events: Vec<HostEvent>,
    stacks: StackTable,
    /// The window.
    pub start: HostNs,
    /// Its end.
    pub end: HostNs,
    /// Records that the kernel dropped.
    pub lost_count: u64,
}

/// Takes everything into memory.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Vec<HostEvent>>>);

impl EventSink for Memory {
    fn batch(&mut self, _pcpu: PcpuId, events: &[HostEvent]) -> Result<(), SinkError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + events.len() > EVENTS_MAX {
            return Err(ObserveError::TooMuch.into());
        }
        kept.extend_from_slice(events);
        Ok(())
    }
}

/// Records as `plan` says while `during` goes on.
///
/// # Errors
/// [`ObserveError`], or the one of `during`.
pub fn observe<T, E: From<ObserveError>>(
    plan: &RecordPlan,
    during: impl FnOnce() -> Result<T, E>,
) -> Result<(Observed, T), E> {
    let memory = Memory::default();
    let recorder = Recorder::start(plan, memory.clone()).map_err(ObserveError::from)?;
    let result = during()?;
    let totals = recorder.stop().map_err(ObserveError::from)?;
    let observed = observed(totals, &memory)?;
    Ok((observed, result))
}

fn observed(totals: RecordTotals, memory: &Memory) -> Result<Observed, ObserveError> {
    if let Some(error) = totals.ended_early {
        return Err(error.into());
    }
    let symbols = Symbols::load()?;
    let mut stacks = StackTable::default();
    for (_, frames) in totals.stacks.iter() {
        stacks.push(symbols.frame_names(frames));
    }
    let mut events = std::mem::take(&mut *memory.0.lock().unwrap_or_else(PoisonError::into_inner));
    events.sort_by_key(|event| event.time);
    let lost_count = totals.counters.lost_count;
    Ok(Observed { events, stacks, start: totals.started, end: totals.stopped, lost_count })
}

impl Observed {
    /// The stacks with which threads left, for a timeline.
    #[must_use]
    pub fn stacks(&self) -> StackTable {
        self.stacks.clone()
    }

    /// All that was recorded, in order of time.
    #[must_use]
    pub fn events(&self) -> &[HostEvent] {
        &self.events
    }

    /// When the first record was made.
    #[must_use]
    pub fn begun(&self) -> HostNs {
        self.events.first().map_or(self.start, |event| event.time.min(self.start))
    }

    /// The departures of one thread in the window, as vslice sees them.
    #[must_use]
    pub fn departures(&self, vcpu: Tid, mut timeline: Timeline) -> Vec<Departure> {
        let mut departures = Vec::new();
        let mut left: Option<SwitchOut> = None;
        let mut came: Option<HostNs> = None;
        for event in &self.events {
            if let HostEventKind::Switch(switch) = &event.kind {
                if switch.prev == vcpu {
                    let ran_ns = came.take().map(|came| event.time.since_ns(came));
                    let (state, next) = (switch.prev_state, switch.next);
                    left = Some(SwitchOut { time: event.time, state, next, ran_ns });
                }
                if switch.next == vcpu {
                    came = Some(event.time);
                }
            }
            timeline.push(event, &mut |span| take(&span, vcpu, left, &mut departures));
        }
        timeline.finish(self.end, &mut |span| take(&span, vcpu, left, &mut departures));
        departures
    }

    /// For how long a pCPU was had by other threads than `own` in a window.
    #[must_use]
    pub fn taken_ns(&self, pcpu: PcpuId, own: &HashSet<Tid>, window: Episode) -> u64 {
        let mut since: Option<(HostNs, Tid)> = None;
        let mut taken_ns = 0;
        let had = |(from, tid): (HostNs, Tid), until: HostNs| {
            let is_own = tid == Tid::IDLE || own.contains(&tid);
            if is_own { 0 } else { until.min(window.end).since_ns(from.max(window.start)) }
        };
        for event in self.events.iter().filter(|event| event.pcpu == pcpu) {
            if let HostEventKind::Switch(switch) = &event.kind {
                taken_ns += since.map_or(0, |since| had(since, event.time));
                since = Some((event.time, switch.next));
            }
        }
        taken_ns + since.map_or(0, |since| had(since, self.end))
    }

    /// How much of an interval lies in losses, of whatever pCPU.
    #[must_use]
    pub fn lost_ns(&self, start: HostNs, end: HostNs) -> u64 {
        let mut covered = start;
        let mut lost_ns = 0;
        for event in &self.events {
            if let HostEventKind::Lost { until, .. } = event.kind {
                let (from, until) = (event.time.max(covered), until.min(end));
                lost_ns += until.since_ns(from);
                covered = covered.max(until);
            }
        }
        lost_ns
    }

    /// The stacks of departures that no rule knows, the most frequent first.
    #[must_use]
    pub fn unknown_stacks(&self, departures: &[Departure]) -> Vec<UnknownStack> {
        let unknown = departures.iter().filter(|departure| departure.reason == Reason::Unknown);
        let mut counts: BTreeMap<(Option<StackId>, bool), u64> = BTreeMap::new();
        for departure in unknown {
            *counts.entry((departure.stack, departure.state.is_runnable())).or_default() += 1;
        }
        let mut stacks: Vec<UnknownStack> = counts
            .into_iter()
            .map(|((stack, is_runnable), count)| UnknownStack {
                count,
                is_runnable,
                frames: stack.map_or(&[][..], |stack| self.stacks.frames(stack)).to_vec(),
            })
            .collect();
        stacks.sort_by_key(|stack| std::cmp::Reverse(stack.count));
        stacks
    }
}

/// The thread's last switch: when it left, how, to whom, after how long.
#[derive(Debug, Clone, Copy)]
struct SwitchOut {
    time: HostNs,
    state: PrevState,
    next: Tid,
    ran_ns: Option<u64>,
}

/// A span off the pCPU begins a departure, or goes on with one.
fn take(span: &Span, vcpu: Tid, left: Option<SwitchOut>, departures: &mut Vec<Departure>) {
    if span.tid != vcpu {
        return;
    }
    let (reason, lock, stack) = match span.state {
        ThreadState::PreemptWait { reason, lock, stack, .. } => (reason, lock, stack),
        ThreadState::Blocked(sleep) => (sleep.reason, sleep.lock, sleep.stack),
        ThreadState::WakeupDelay { raced: Some(sleep), .. } => {
            (sleep.reason, sleep.lock, sleep.stack)
        }
        ThreadState::WakeupDelay { raced: None, .. } => {
            if let Some(last) = departures.last_mut()
                && last.until == span.start
            {
                last.until = span.end;
            }
            return;
        }
        ThreadState::Running { .. } | ThreadState::Unknown { .. } => return,
    };
    // The switch that began the span is the thread's last one: it has been off since.
    if let Some(left) = left.filter(|left| left.time == span.start) {
        let SwitchOut { time, state, next, ran_ns } = left;
        departures.push(Departure {
            time,
            until: span.end,
            state,
            next,
            ran_ns,
            reason,
            lock,
            stack,
        });
    }
}
