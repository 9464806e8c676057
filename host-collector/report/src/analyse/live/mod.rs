//! A recording that goes on, second by second: the same timelines and host's views as a report's, by the same code,
//! fed as events come.
//!
//! ```text
//! batches of each pCPU --> merge --> host_pass --> timeline, host view --> tally --> Second
//! ```
//!
//! Pure: whoever brings the events brings the readings of the kernel's counters as well, and the time. Its memory does
//! not grow with how long it goes on.
//!
//! # What a second is
//! It is over when all events before its end have come. A span that goes on then counts up to it, and from there in the
//! next second, so that the parts of each vCPU add up to the second exactly; of what only a later event decides the
//! time is unknown. What had been counted is not told again: where a later event shows more of it, as that KVM had
//! polled before a sleep, that shows in a report.
//!
//! # What a report knows more
//! Quotas that were used up, where no stack proves it; QEMU's big lock by the behaviour of all threads; VMs and command
//! lines that came meanwhile. These are known at the end.

#[cfg(any(test, feature = "example"))]
pub mod example;
mod io_tally;
mod latency;
mod merge;
mod observed;
pub mod second;
mod tally;
mod vcpu_tally;
mod waited_for;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;

pub use latency::{LATENCY_BOUNDS_NS, LatencyTally};
pub use merge::LeftOut;
pub use observed::ObservedTally;
pub use second::{LossKind, Second};
pub use vcpu_tally::Unseen;

use super::chosen::Chosen;
use super::host_pass::HostPass;
use super::observer::MeasuredWindow;
use super::observers::Observers;
use super::{threads, timeline_facts};
use crate::summary::names::Directory;
use crate::summary::{Names, OffReason, VmThreads};
use crate::who::VmNames;
use merge::LiveMerge;
use second::{
    GROUPS_MAX, GroupSecond, LockWaits, Losses, ObservedSecond, OwnCost, ReasonNs, Runner, SCHEMA,
    UnknownNs, VcpuSecond, VmSecond, WorstLockWait, WorstWait,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tally::{SecondTally, VmTally};
use vcpu_tally::VcpuTally;
use vslice_core::control_groups::ControlGroups;
use vslice_core::host_event::HostEvent;
use vslice_core::task::{Task, VmIndex};
use vslice_core::text::harmless;
use vslice_core::timeline::{StackTable, Timeline};
use vslice_core::units::{HostNs, Tid, VcpuId};
use vslice_trace::manifest::{Manifest, may_use_kvm};
use vslice_trace::thread::HostThread;
use waited_for::WaitedFor;

/// How long a second is, in nanoseconds.
pub const SECOND_NS: u64 = 1_000_000_000;

/// I/Os that are done for so long are told with what is known of them.
const IO_KNOWN_WITHIN_NS: u64 = 100_000_000;

/// What the kernel had counted when a second ended; and what guests told until then.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    /// When it was read, on the clock of the day.
    pub realtime_ns: Option<u64>,
    /// For how long each vCPU's thread was ever runnable without a pCPU.
    pub run_delay_ns: HashMap<Tid, u64>,
    /// Of vCPUs' threads that have not come onto a pCPU since the recording began, what they did.
    pub unseen: HashMap<Tid, Unseen>,
    /// For how long KVM has polled for each VM's halted vCPUs.
    pub halt_poll_ns: Vec<Option<u64>>,
    /// What a hypervisor below this host has kept.
    pub stolen_ns: Option<u64>,
    /// CPU time of this process.
    pub cpu_ns: Option<u64>,
    /// Observed requests that came from each VM since the last reading; `None` of those that are not observed.
    pub observed: Vec<Option<ObservedSecond>>,
}

/// The analysis of a recording that goes on.
#[derive(Debug)]
pub struct LiveAnalysis {
    manifest: Manifest,
    vms: Vec<VmThreads>,
    names: VmNames,
    /// All of it.
    chosen: Chosen,
    timeline: Timeline,
    host: HostPass,
    merge: LiveMerge,
    tally: SecondTally,
    number: u64,
    start: HostNs,
    before: Reading,
}

impl LiveAnalysis {
    /// Of a recording with this manifest, as it is when its window opens; of these threads of the host, and what the
    /// kernel had counted then.
    #[must_use]
    pub fn new(manifest: Manifest, census: &[HostThread], before: Reading) -> LiveAnalysis {
        let start = MeasuredWindow::of(&manifest).start;
        let timeline = timeline_facts::timeline(&manifest, StackTable::default(), &[]);
        let tasks = threads::tasks(&manifest, census, ControlGroups::default());
        LiveAnalysis {
            vms: vm_threads(&manifest),
            names: VmNames::of(&manifest),
            chosen: Chosen::whole(MeasuredWindow::of(&manifest)),
            timeline: timeline.with_tasks(tasks),
            host: HostPass::new(&manifest),
            merge: LiveMerge::default(),
            tally: SecondTally::new(&manifest, start),
            number: 0,
            start,
            before,
            manifest,
        }
    }

    /// The names of the kernel's functions on the next stack, innermost first, before the first event that has it.
    pub fn stack(&mut self, frames: Vec<String>) {
        self.timeline.stacks_mut().push(frames);
    }

    /// Where a control group is; `None` if it was gone before it was named.
    pub fn group(&mut self, number: u64, path: Option<&str>) {
        let groups = self.timeline.groups_mut();
        match path {
            Some(path) => groups.is_at(number, &harmless(path)),
            None => groups.is_gone(number),
        }
    }

    /// Takes events; those of one pCPU are in order. With these, all have come that happened before `all_came_until`.
    pub fn push(&mut self, events: Vec<HostEvent>, all_came_until: HostNs) {
        self.merge.push(events, all_came_until);
    }

    /// Some events were not handed on: what happened meanwhile is unknown.
    pub fn left_out(&mut self, left_out: LeftOut) {
        self.merge.left_out(left_out);
    }

    /// When the second that is under way ends.
    #[must_use]
    pub fn second_end(&self) -> HostNs {
        HostNs(self.start.0.saturating_add(SECOND_NS))
    }

    /// Goes on with the second that is under way, and says whether it is over.
    pub fn advance(&mut self) -> bool {
        self.take_before(self.second_end());
        self.merge.all_came_until() >= self.second_end()
    }

    /// Whether all events until then have come.
    #[must_use]
    pub fn has_all_until(&self, time: HostNs) -> bool {
        self.merge.all_came_until() >= time
    }

    /// Ends the second that is over, with what was read at its end.
    pub fn close(&mut self, reading: &Reading) -> Second {
        self.close_at(self.second_end(), reading)
    }

    /// The recording has ended, then: what was left of the last second.
    pub fn end(&mut self, at: HostNs, reading: &Reading) -> Option<Second> {
        let at = at.min(self.second_end());
        self.merge.push(Vec::new(), at);
        self.take_before(at);
        (at > self.start).then(|| self.close_at(at, reading))
    }

    fn take_before(&mut self, until: HostNs) {
        let events = self.merge.take_before(until);
        let observers = &mut [&mut self.tally as _];
        let mut observers = Observers::new(observers, self.chosen.clone());
        for event in &events {
            self.host.event(event, &mut self.timeline, &mut observers);
        }
    }

    fn close_at(&mut self, end: HostNs, reading: &Reading) -> Second {
        let done_before = HostNs(end.0.saturating_sub(IO_KNOWN_WITHIN_NS));
        self.host.tell_ios(
            done_before,
            &mut Observers::new(&mut [&mut self.tally as _], self.chosen.clone()),
        );
        for (_, tid, vcpu) in self.tally.vms.iter_mut().flat_map(|vm| &mut vm.vcpus) {
            for span in self.timeline.so_far(*tid, end) {
                vcpu.open(&span, end);
            }
            vcpu.close(end, reading.unseen.get(tid).copied());
        }
        let (late_events, left_out_events) = self.merge.take_counts();
        let lost_events = self.tally.lost_count;
        let length_ns = end.since_ns(self.start);
        let cpu_ns = since(reading.cpu_ns, self.before.cpu_ns);
        let second = Second {
            schema: SCHEMA,
            number: self.number,
            realtime_ns: reading.realtime_ns,
            start_ns: self.start,
            length_ns,
            vms: self.vms_of_second(reading),
            losses: Losses { lost_events, left_out_events, late_events, dropped_seconds: 0 },
            cost: OwnCost { cpu_ns, events: self.tally.events_count },
            stolen_ns: since(reading.stolen_ns, self.before.stolen_ns),
        };
        self.before = reading.clone();
        self.number += 1;
        self.start = end;
        self.tally.turn();
        second
    }

    fn vms_of_second(&self, reading: &Reading) -> Vec<VmSecond> {
        let names = Names {
            groups: self.timeline.tasks().groups().clone(),
            other_vms: self.manifest.other_vms.iter().map(|vm| vm.name.clone()).collect(),
            ..Names::default()
        };
        let directory = Directory::new(&names, &self.vms);
        let vms = self.tally.vms.iter().enumerate();
        vms.map(|(place, tally)| self.vm(place, tally, reading, &directory)).collect()
    }

    fn vm(
        &self,
        place: usize,
        tally: &VmTally,
        reading: &Reading,
        directory: &Directory<'_>,
    ) -> VmSecond {
        let mut waited_for = WaitedFor::default();
        tally.vcpus.iter().for_each(|(_, _, vcpu)| waited_for.merge(&vcpu.waited_for));
        let (groups, [others_ns, idle_ns, unseen_ns]) = waited_for.groups(GROUPS_MAX);
        let group = |(task, ran_ns): (&Arc<Task>, u64)| {
            let group = directory.group(task, VmIndex(place));
            GroupSecond { kind: group.kind, name: harmless(&group.name), ran_ns }
        };
        let exits = self.manifest.exits_asked == Some(true) && may_use_kvm(&self.manifest.vms);
        let halt_poll = |reading: &Reading| reading.halt_poll_ns.get(place).copied().flatten();
        let vcpu = |(vcpu, tid, tally): &(VcpuId, Tid, VcpuTally)| {
            let steal_ns = since(
                reading.run_delay_ns.get(tid).copied(),
                self.before.run_delay_ns.get(tid).copied(),
            );
            let modes = exits.then_some(tally.modes);
            VcpuSecond { modes, steal_ns, ..self.vcpu((*vcpu, *tid), tally) }
        };
        VmSecond {
            name: harmless(&self.manifest.vms[place].name),
            vcpus: tally.vcpus.iter().map(vcpu).collect(),
            antagonists: groups.into_iter().map(group).collect(),
            others_ns,
            idle_ns,
            unseen_ns,
            halt_poll_ns: since(halt_poll(reading), halt_poll(&self.before)),
            host_io: tally.io.rows(&self.manifest.vms[place]),
            observed: reading.observed.get(place).cloned().flatten(),
        }
    }

    /// What spans tell of a vCPU.
    fn vcpu(&self, (vcpu, tid): (VcpuId, Tid), tally: &VcpuTally) -> VcpuSecond {
        let tasks = self.timeline.tasks();
        let worst_wait = tally.worst_wait.as_ref().map(|wait| WorstWait {
            length_ns: wait.length_ns,
            goes_on: wait.goes_on,
            reason: wait.reason,
            pcpu: wait.pcpu,
            by: wait.by.as_ref().map(|ran| Runner {
                name: harmless(&self.names.antagonist(&ran.who)),
                ran_ns: ran.ran_ns,
            }),
        });
        let worst = tally.worst_lock_wait.as_ref().map(|wait| WorstLockWait {
            length_ns: wait.end.since_ns(wait.start),
            reason: OffReason::Left(wait.reason),
            released_by: harmless(&self.names.tid(wait.released_by, tasks)),
        });
        let (count, total_ns) = (tally.lock_waits_count, tally.lock_waits_ns);
        VcpuSecond {
            vcpu,
            tid,
            running_ns: tally.running_ns(),
            waiting_ns: tally.waiting.values().sum(),
            asleep_ns: tally.asleep.values().sum(),
            throttled_ns: tally.throttled_ns,
            unknown_ns: tally.unknown.values().sum(),
            modes: None,
            waiting_by: longest_first(&tally.waiting),
            asleep_by: longest_first(&tally.asleep),
            unknown_by: tally
                .unknown
                .iter()
                .map(|(cause, ns)| UnknownNs { cause: *cause, ns: *ns })
                .collect(),
            worst_wait,
            lock_waits: LockWaits { count, total_ns, worst },
            steal_ns: None,
        }
    }
}

fn longest_first(by: &BTreeMap<OffReason, u64>) -> Vec<ReasonNs> {
    let mut rows: Vec<ReasonNs> =
        by.iter().map(|(reason, ns)| ReasonNs { reason: *reason, ns: *ns }).collect();
    rows.sort_by_key(|row| Reverse(row.ns));
    rows
}

/// What a counter has counted, if it was read twice.
fn since(now: Option<u64>, before: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
}

fn vm_threads(manifest: &Manifest) -> Vec<VmThreads> {
    let of = |vm: &vslice_trace::manifest::VmRecord| VmThreads {
        name: vm.name.clone(),
        block_bytes: vm.block_bytes,
        vcpus: vm.threads.iter().filter_map(|thread| Some((thread.vcpu?, thread.tid))).collect(),
        quotas: BTreeMap::new(),
    };
    manifest.vms.iter().map(of).collect()
}
