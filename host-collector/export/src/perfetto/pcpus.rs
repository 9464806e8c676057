//! The lanes of the pCPUs, from which Perfetto also makes the states of threads.
//!
//! A reader takes whoever came on with one switch to leave with the next. Where that is not so, because records were
//! lost or because not every switch of a pCPU is recorded, a thread of its own stands for whoever ran there: it is called
//! *not recorded*.

use super::bundle::{Bundle, Change, Woken};
use super::schema;
use super::trace::{Trace, shown};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, Switch};
use vslice_core::timeline::Tasks;
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_report::analyse::watched_pcpus;
use vslice_report::who::VmNames;
use vslice_trace::manifest::Manifest;

/// The priority of threads whose own was not recorded: no thread has it.
pub(super) const PRIORITY_NOT_RECORDED: i64 = 1_000;

/// Perfetto refuses a trace with a pCPU of this number (perfetto: `ftrace_tokenizer.cc`, `kMaxCpuCount`).
const PCPUS_MAX: u32 = 1_024;

/// The process of those that are not recorded; its threads are the numbers after it. No thread of Linux has such a
/// number (linux: include/linux/threads.h, `PID_MAX_LIMIT`).
const NOT_RECORDED: u32 = 2_000_000_000;
const NOT_RECORDED_NAME: &str = "not recorded";

/// A state that no thread leaves in: the reader shows none (perfetto: `task_state.cc`).
const STATE_UNKNOWN: i64 = 0x200;

/// The state in which one that is not recorded leaves: it is no longer there.
const STATE_GONE: i64 = 0x10;

/// `CLONE_THREAD` (linux: include/uapi/linux/sched.h).
const CLONE_THREAD: u64 = 0x1_0000;

/// Threads of which it is kept that their process was told; then all is told anew.
const TOLD_MAX: usize = 1 << 16;

/// What ran on each pCPU.
#[derive(Debug, Default)]
pub(super) struct Pcpus {
    lanes: BTreeMap<PcpuId, Lane>,
    /// Those of which every switch is recorded.
    watched: HashSet<PcpuId>,
    /// Threads whose every switch is recorded, wherever they are.
    followed: HashSet<Tid>,
    /// Threads and processes whose process and name were told.
    told: HashSet<Tid>,
    /// Events of pCPUs that a trace has no room for.
    pub(super) left_out_count: u64,
}

#[derive(Debug, Default)]
struct Lane {
    bundle: Bundle,
    /// Whom a reader takes to be there; `None` before the first switch.
    occupant: Option<Tid>,
    /// When the last switch was.
    last: HostNs,
}

/// Where an event happened, and what is known of those that it names.
#[derive(Debug, Clone, Copy)]
struct Scene<'a> {
    time: HostNs,
    pcpu: PcpuId,
    tasks: &'a Tasks,
    names: &'a VmNames,
}

impl Pcpus {
    pub(super) fn of(manifest: &Manifest) -> Pcpus {
        let threads = manifest.vms.iter().flat_map(|vm| &vm.threads).map(|thread| thread.tid);
        let followed: HashSet<Tid> = threads.collect();
        let told = followed.iter().copied().chain(manifest.vms.iter().map(|vm| vm.pid));
        let told = told.chain([Tid::IDLE]).collect();
        Pcpus { watched: watched_pcpus(manifest), followed, told, ..Pcpus::default() }
    }

    /// Who is there, as far as that was recorded.
    pub(super) fn occupant(&self, pcpu: PcpuId) -> Option<Tid> {
        let occupant = self.lanes.get(&pcpu).and_then(|lane| lane.occupant);
        occupant.filter(|occupant| *occupant != not_recorded(pcpu))
    }

    /// The next event, and what the threads are called before it.
    pub(super) fn event<W: Write>(
        &mut self,
        event: &HostEvent,
        tasks: &Tasks,
        names: &VmNames,
        trace: &mut Trace<W>,
    ) {
        if !is_of_threads(&event.kind) {
            return;
        }
        if event.pcpu.0 >= PCPUS_MAX {
            self.left_out_count += 1;
            return;
        }
        let scene = Scene { time: event.time, pcpu: event.pcpu, tasks, names };
        match &event.kind {
            HostEventKind::Switch(switch) => self.switch(&scene, switch, trace),
            HostEventKind::Waking { tid, target, waker } => {
                self.tell(&scene, *tid, trace);
                let lane = self.lanes.entry(event.pcpu).or_default();
                let priority = PRIORITY_NOT_RECORDED;
                let woken = Woken { time: event.time, tid: *tid, target: *target, priority };
                let name = names.tid(*tid, tasks);
                if lane.occupant == Some(*waker) {
                    lane.bundle.waking(&woken, name);
                } else {
                    lane.bundle.whole_waking(&woken, &name, *waker);
                }
            }
            HostEventKind::Lost { .. } => self.lost(&scene, trace),
            HostEventKind::Comm { tid, comm } => {
                let is_process = tasks.process_of(*tid) == Some(*tid);
                if is_process && self.told.contains(tid) && !self.followed.contains(tid) {
                    tell_process(trace, event.time, *tid, comm, tasks);
                }
            }
            HostEventKind::Fork { pid, tid, parent_pid } => {
                self.told.remove(tid);
                let flags = if pid == tid { 0 } else { CLONE_THREAD };
                let name = names.tid(*parent_pid, tasks);
                let lane = self.lanes.entry(event.pcpu).or_default();
                lane.bundle.newborn(event.time, *parent_pid, *tid, &name, flags);
            }
            HostEventKind::Group { .. }
            | HostEventKind::Exit { .. }
            | HostEventKind::Kvm { .. }
            | HostEventKind::Block(_) => {}
        }
        let lane = self.lanes.entry(event.pcpu).or_default();
        if lane.bundle.is_full() {
            lane.write(event.pcpu, trace);
        }
    }

    /// All that is left; of a run that was cut off nobody knows who ran where until when.
    pub(super) fn finish<W: Write>(&mut self, is_torn: bool, trace: &mut Trace<W>) {
        for (pcpu, lane) in &mut self.lanes {
            if is_torn {
                lane.lose(*pcpu, lane.last);
            }
            lane.write(*pcpu, trace);
        }
    }

    fn switch<W: Write>(&mut self, scene: &Scene<'_>, switch: &Switch, trace: &mut Trace<W>) {
        let unseen = not_recorded(scene.pcpu);
        let is_watched = self.watched.contains(&scene.pcpu);
        let seen = |tid| if is_watched || self.followed.contains(&tid) { tid } else { unseen };
        let (prev, next) = (seen(switch.prev), seen(switch.next));
        self.tell(scene, prev, trace);
        self.tell(scene, next, trace);
        let lane = self.lanes.entry(scene.pcpu).or_default();
        let time = scene.time.max(lane.last);
        if lane.occupant.is_some_and(|occupant| occupant != prev) {
            // When the one left, and when the other came, is not known.
            lane.lose(scene.pcpu, lane.last);
            lane.come_on(time, prev, scene.name(prev));
        }
        if prev == next {
            return;
        }
        let prev_state = if prev == unseen { STATE_GONE } else { raw_state(switch.prev_state) };
        let next_priority = switch.next_priority.filter(|_| next != unseen);
        let next_priority = next_priority.map_or(PRIORITY_NOT_RECORDED, i64::from);
        let change = Change { time, prev, prev_state, next, next_priority };
        if lane.occupant.is_some() {
            lane.bundle.switch(&change, scene.name(next));
        } else {
            lane.bundle.whole_switch(&change, &scene.name(prev), &scene.name(next));
        }
        (lane.occupant, lane.last) = (Some(next), time);
    }

    /// Records were lost from here on.
    fn lost<W: Write>(&mut self, scene: &Scene<'_>, trace: &mut Trace<W>) {
        self.tell(scene, not_recorded(scene.pcpu), trace);
        let lane = self.lanes.entry(scene.pcpu).or_default();
        lane.lose(scene.pcpu, scene.time.max(lane.last));
        lane.write(scene.pcpu, trace);
        lane.bundle.is_after_loss = true;
    }

    /// Tells of which process a thread is.
    fn tell<W: Write>(&mut self, scene: &Scene<'_>, tid: Tid, trace: &mut Trace<W>) {
        if self.told.len() >= TOLD_MAX {
            self.told.retain(|tid| *tid == Tid::IDLE || self.followed.contains(tid));
        }
        if !self.told.insert(tid) {
            return;
        }
        let time = scene.time;
        if tid == not_recorded(scene.pcpu) {
            let process = Tid(NOT_RECORDED);
            tell_process(trace, time, process, NOT_RECORDED_NAME, scene.tasks);
            tell_thread(trace, time, [tid, process], Some(NOT_RECORDED_NAME));
        } else if let Some(process) = scene.tasks.process_of(tid) {
            if process == tid {
                tell_process(trace, time, tid, &scene.name(tid), scene.tasks);
            } else {
                self.tell(scene, process, trace);
                tell_thread(trace, time, [tid, process], None);
            }
        }
    }
}

impl Lane {
    /// From here on it is not known who is there.
    fn lose(&mut self, pcpu: PcpuId, time: HostNs) {
        let next = not_recorded(pcpu);
        let Some(prev) = self.occupant.filter(|occupant| *occupant != next) else { return };
        let prev_state = if prev == Tid::IDLE { 0 } else { STATE_UNKNOWN };
        let next_priority = PRIORITY_NOT_RECORDED;
        let change = Change { time, prev, prev_state, next, next_priority };
        self.bundle.switch(&change, NOT_RECORDED_NAME.to_owned());
        (self.occupant, self.last) = (Some(next), time);
    }

    /// This one is there, since nobody knows when.
    fn come_on(&mut self, time: HostNs, next: Tid, name: String) {
        let Some(prev) = self.occupant.filter(|occupant| *occupant != next) else { return };
        let next_priority = PRIORITY_NOT_RECORDED;
        let change = Change { time, prev, prev_state: STATE_GONE, next, next_priority };
        self.bundle.switch(&change, name);
        (self.occupant, self.last) = (Some(next), time);
    }

    fn write<W: Write>(&mut self, pcpu: PcpuId, trace: &mut Trace<W>) {
        if self.bundle.is_empty() {
            return;
        }
        let bundle = std::mem::take(&mut self.bundle);
        trace.packet(None, |packet| {
            packet.message(schema::packet::FTRACE_EVENTS, |to| bundle.write(pcpu, to));
        });
    }
}

impl Scene<'_> {
    fn name(&self, tid: Tid) -> String {
        if tid == not_recorded(self.pcpu) {
            NOT_RECORDED_NAME.to_owned()
        } else {
            self.names.tid(tid, self.tasks)
        }
    }
}

fn not_recorded(pcpu: PcpuId) -> Tid {
    Tid(NOT_RECORDED + 1 + pcpu.0)
}

fn is_of_threads(kind: &HostEventKind) -> bool {
    match kind {
        HostEventKind::Switch(_)
        | HostEventKind::Waking { .. }
        | HostEventKind::Comm { .. }
        | HostEventKind::Fork { .. }
        | HostEventKind::Lost { .. } => true,
        HostEventKind::Group { .. }
        | HostEventKind::Exit { .. }
        | HostEventKind::Kvm { .. }
        | HostEventKind::Block(_) => false,
    }
}

/// The bits of `prev_state` since Linux 4.14 (include/trace/events/sched.h, `__trace_sched_switch_state`).
fn raw_state(state: PrevState) -> i64 {
    match state {
        PrevState::Runnable => 0,
        PrevState::RunnablePreempted => 0x100,
        PrevState::Sleep => 1,
        PrevState::DiskSleep => 2,
        PrevState::Stopped => 4,
        PrevState::Dead => 0x10,
        PrevState::Other(bits) => bits.into(),
    }
}

fn tell_process<W: Write>(trace: &mut Trace<W>, time: HostNs, pid: Tid, name: &str, tasks: &Tasks) {
    // Perfetto takes the children of kthreadd for the kernel's threads.
    let is_kernel = tasks.kernel_thread(pid).is_some() && pid != Tid(2);
    trace.packet(Some(time), |packet| {
        packet.message(schema::packet::PROCESS_TREE, |tree| {
            tree.message(schema::tree::PROCESSES, |process| {
                process.uint(schema::tree::PID, pid.0.into());
                if is_kernel {
                    process.uint(schema::tree::PPID, 2);
                }
                process.text(schema::tree::CMDLINE, &shown(name));
            });
        });
    });
}

fn tell_thread<W: Write>(
    trace: &mut Trace<W>,
    time: HostNs,
    [tid, process]: [Tid; 2],
    name: Option<&str>,
) {
    trace.packet(Some(time), |packet| {
        packet.message(schema::packet::PROCESS_TREE, |tree| {
            tree.message(schema::tree::THREADS, |thread| {
                thread.uint(schema::tree::TID, tid.0.into());
                thread.uint(schema::tree::TGID, process.0.into());
                if let Some(name) = name {
                    thread.text(schema::tree::NAME, &shown(name));
                }
            });
        });
    });
}

#[cfg(test)]
#[path = "pcpus_tests.rs"]
mod tests;
