//! The VMs' processes and threads, and under each thread a lane of what kept it off its pCPU.

use super::delays::{self, Delay, Delays};
use super::pcpus::Pcpus;
use super::state;
use super::trace::{Flow, Note, Place, Slice, Trace, Track, Value};
use std::collections::HashMap;
use std::io::Write;
use vslice_core::host_event::{HostEvent, HostEventKind, StackId};
use vslice_core::timeline::{Exit, ExitReason, LockWait, RunMode, Span, Tasks, ThreadState};
use vslice_core::units::Tid;
use vslice_report::analyse::observer::Run;
use vslice_report::summary::OffReason;
use vslice_report::who::VmNames;
use vslice_trace::StackNames;
use vslice_trace::manifest::VmRecord;

/// The lanes of the VMs' threads.
#[derive(Debug, Default)]
pub(super) struct Threads {
    /// For each VM, the track of its process.
    pub(super) processes: Vec<Track>,
    /// The VMs' threads: the process's number unless its own is known, and what it is called.
    described: Vec<Described>,
    lanes: HashMap<Tid, Lane>,
    stacks: HashMap<StackId, String>,
    /// Who last woke each of the VMs' threads, and what that one was called.
    wakers: HashMap<Tid, (Tid, String)>,
    delays: Delays,
}

#[derive(Debug)]
struct Described {
    tid: Tid,
    pid: Tid,
    /// What it is in its VMM.
    role: String,
    /// The same, with its VM.
    name: String,
}

/// The tracks of a thread; most threads need only the first.
#[derive(Debug)]
struct Lane {
    thread: Track,
    described: Described,
    reasons: Track,
    lock_waits: Option<Track>,
    wakes: Option<Track>,
    keeps_waiting: Option<Track>,
    guest_exits: Option<Track>,
    vmm_exits: Option<Track>,
}

impl Threads {
    pub(super) fn start<W: Write>(run: &Run<'_>, trace: &mut Trace<W>) -> Threads {
        let process = |vm: &VmRecord| {
            let place = Place::Process { pid: vm.pid.0, name: &vm.name };
            trace.track(place, "", 0)
        };
        let vms = &run.manifest.vms;
        let processes = vms.iter().map(process).collect();
        let threads = vms.iter().flat_map(|vm| vm.threads.iter().map(move |of| (vm, of)));
        let described = threads.map(|(vm, of)| Described {
            tid: of.tid,
            pid: vm.pid,
            role: of.role.to_string(),
            name: format!("{} {}", vm.name, of.role),
        });
        let described = described.collect();
        let frames = |stack: &StackNames| (StackId(stack.id), stack.frames.join(" < "));
        let stacks = run.stacks.iter().map(frames).collect();
        Threads { processes, described, stacks, ..Threads::default() }
    }

    /// The tracks of threads, once it is known of which processes they are.
    pub(super) fn describe<W: Write>(&mut self, tasks: &Tasks, trace: &mut Trace<W>) {
        for described in std::mem::take(&mut self.described) {
            let Described { tid, pid, role, .. } = &described;
            let (tid, pid) = (*tid, tasks.process_of(*tid).unwrap_or(*pid));
            let place = Place::Thread { pid: pid.0, tid: tid.0, name: role };
            let thread = trace.track(place, "", 0);
            let name = format!("{role}: off its pCPU, why");
            let reasons = trace.described_track(Place::Below(thread), &name, 0, DESCRIPTION);
            let lane = Lane {
                thread,
                described,
                reasons,
                lock_waits: None,
                wakes: None,
                keeps_waiting: None,
                guest_exits: None,
                vmm_exits: None,
            };
            self.lanes.insert(tid, lane);
        }
    }

    /// The next event, before `pcpus` has seen it.
    pub(super) fn event<W: Write>(
        &mut self,
        event: &HostEvent,
        tasks: &Tasks,
        names: &VmNames,
        pcpus: &Pcpus,
        trace: &mut Trace<W>,
    ) {
        if !self.described.is_empty() {
            self.describe(tasks, trace);
        }
        let since = event.time;
        let delay = |pcpu, tid| Delay { since, pcpu, tid, name: names.tid(tid, tasks) };
        match event.kind {
            HostEventKind::Waking { tid, waker, target } if self.lanes.contains_key(&tid) => {
                self.wakers.insert(tid, (waker, names.tid(waker, tasks)));
                let by = pcpus.occupant(target).map(|by| delay(target, by));
                self.delays.begins(tid, by);
            }
            HostEventKind::Switch(switch) if self.lanes.contains_key(&switch.prev) => {
                let by = delay(event.pcpu, switch.next);
                self.delays.begins(switch.prev, Some(by));
            }
            _ => {}
        }
    }

    /// What a thread did for a while, if it was not on a pCPU or polled there for an idle guest.
    pub(super) fn span<W: Write>(&mut self, span: &Span, names: &VmNames, trace: &mut Trace<W>) {
        if let ThreadState::Running { mode, .. } = span.state
            && mode != RunMode::HaltPoll
        {
            return;
        }
        let ends = self.arrow(span, trace);
        let Some(lane) = self.lanes.get(&span.tid) else { return };
        let notes = self.notes(span, names);
        let name = state::name(&span.state);
        let category = state::category(&span.state);
        let slice = Slice { name: &name, category, notes: &notes, ends, ..Slice::default() };
        trace.slice(lane.reasons, [span.start, span.end], &slice);
    }

    /// The beginning of the arrow to a wait, from whoever was on the pCPU then, if the wait is long enough.
    fn arrow<W: Write>(&mut self, span: &Span, trace: &mut Trace<W>) -> Option<Flow> {
        let by = self.delays.of(span)?.clone();
        let waits = self.lanes.get(&span.tid)?.described.name.clone();
        let track = match self.lanes.get_mut(&by.tid) {
            Some(Lane { thread, described, keeps_waiting, .. }) => {
                cause(keeps_waiting, *thread, described, "keeps others waiting", trace)
            }
            None => self.delays.track(by.pcpu, trace),
        };
        let flow = trace.new_flow();
        let notes = [delays::note(&waits)];
        let slice = Slice { begins: Some(flow), ..delays::slice(&by.name, &notes) };
        trace.instant(track, span.start, &slice);
        Some(flow)
    }

    /// A sleep on a lock, and an arrow from whoever ended it, where that is a thread of a VM.
    pub(super) fn lock_wait<W: Write>(&mut self, wait: &LockWait, trace: &mut Trace<W>) {
        let woken_by = self.waker(wait.tid, wait.released_by).to_owned();
        let notes = lock_notes(wait, &woken_by);
        let Some(lane) = self.lanes.get_mut(&wait.tid) else { return };
        let waits = lane.described.name.clone();
        let track = below(&mut lane.lock_waits, lane.thread, &lane.described, "lock waits", trace);
        let name = OffReason::Left(wait.reason).label();
        let slice = Slice { name, category: "lock", notes: &notes, ..Slice::default() };
        trace.begin(track, wait.start, &slice);
        if let Some(lane) = self.lanes.get_mut(&wait.released_by) {
            let (wakes, flow) = ("wakes who waits for a lock", trace.new_flow());
            let source = cause(&mut lane.wakes, lane.thread, &lane.described, wakes, trace);
            let notes = [Note::new("thread", Value::Word(&waits))];
            let wakes =
                Slice { name: "wakes", category: "lock", notes: &notes, ..Slice::default() };
            trace.instant(source, wait.end, &Slice { begins: Some(flow), ..wakes });
            let woken = Slice { name: "woken", category: "lock", ..Slice::default() };
            trace.instant(track, wait.end, &Slice { ends: Some(flow), ..woken });
        }
        trace.end(track, wait.end);
    }

    /// An exit. Userspace exits are within exits from the guest, and on a track of their own.
    pub(super) fn exit<W: Write>(&mut self, exit: &Exit, trace: &mut Trace<W>) {
        let Some(lane) = self.lanes.get_mut(&exit.tid) else { return };
        let (track, name) = match exit.reason {
            ExitReason::Hardware(_) => (&mut lane.guest_exits, "exits from the guest"),
            ExitReason::Userspace(_) => (&mut lane.vmm_exits, "exits to the VMM"),
        };
        let track = below(track, lane.thread, &lane.described, name, trace);
        let notes = [
            Note::new("kvm_ns", Value::Count(exit.time.kvm_ns)),
            Note::new("vmm_ns", Value::Count(exit.time.vmm_ns)),
            Note::new("off_ns", Value::Count(exit.time.off_ns)),
        ];
        let name = exit.reason.to_string();
        let slice = Slice { name: &name, category: "exit", notes: &notes, ..Slice::default() };
        trace.slice(track, [exit.start, exit.end], &slice);
    }

    /// What is known of a span.
    pub(super) fn notes<'a>(&'a self, span: &Span, names: &VmNames) -> Vec<super::trace::Note<'a>> {
        state::notes(span, names, |span| self.stack(span), |tid| self.waker(span.tid, tid))
    }

    /// What a thread is called that woke another one.
    fn waker(&self, woken: Tid, waker: Tid) -> &str {
        let last = self.wakers.get(&woken).filter(|(last, _)| *last == waker);
        last.map_or("another thread", |(_, name)| name)
    }

    fn stack(&self, span: &Span) -> Option<&str> {
        let stack = match &span.state {
            ThreadState::Blocked(sleep) => sleep.stack,
            ThreadState::PreemptWait { stack, .. } => *stack,
            ThreadState::WakeupDelay { .. }
            | ThreadState::Running { .. }
            | ThreadState::Unknown { .. } => None,
        };
        self.stacks.get(&stack?).map(String::as_str)
    }
}

/// A further track of a thread; the first time it is needed it is made.
fn below<W: Write>(
    track: &mut Option<Track>,
    thread: Track,
    described: &Described,
    name: &str,
    trace: &mut Trace<W>,
) -> Track {
    *track.get_or_insert_with(|| {
        trace.track(Place::Below(thread), &format!("{}: {name}", described.role), 0)
    })
}

/// The same for one on which arrows begin.
fn cause<W: Write>(
    track: &mut Option<Track>,
    thread: Track,
    described: &Described,
    name: &str,
    trace: &mut Trace<W>,
) -> Track {
    *track.get_or_insert_with(|| {
        trace.causes(Place::Below(thread), &format!("{}: {name}", described.role), 0)
    })
}

fn lock_notes<'a>(wait: &LockWait, woken_by: &'a str) -> Vec<Note<'a>> {
    let mut notes = vec![
        Note::new("reason", Value::Word(OffReason::Left(wait.reason).name())),
        Note::new("woken_by", Value::Word(woken_by)),
    ];
    notes.extend(wait.address.map(|address| Note::new("lock", Value::Address(address))));
    notes.extend(wait.held_ns.map(|held_ns| Note::new("held_ns", Value::Count(held_ns))));
    notes.extend(wait.device.map(state::device));
    notes
}

const DESCRIPTION: &str = "What kept the thread off its pCPU, as vslice proves it. While it runs the lane is \
                           empty, but for polling on behalf of an idle guest.";
