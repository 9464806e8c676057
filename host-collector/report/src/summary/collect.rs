//! Adds up a run, one span and one request at a time.

use super::advice::{Advice, Setup};
use super::classes::Classes;
use super::clock::{Clock, ClockMethod, ClockTally, ClocksApart, VcpuClock, offset_ns};
use super::exits::ExitTally;
use super::io::{HiddenTask, Io, IoDisk, WorstIo};
use super::latency::LatencyTally;
use super::locks::LockTally;
use super::model::{
    ANTAGONISTS_MAX, Antagonist, CHAIN_FRAMES_MAX, ChainSpan, ModeSplit, Requests, RunFacts,
    SCHEMA, STACKS_PER_REASON_MAX, StackTotal, Summary, Vcpu, WORST_MAX, WhyUnknown, WorstRequest,
};
use super::names::{Directory, Names, VmIndex, VmThreads};
use super::observed::{Observation, ObservedTally};
use super::reason::OffReason;
use super::timeslice::VcpuTally;
use super::totals::PartTotals;
use super::warn::warnings;
use super::warning::Warning;
use super::{antagonists, laws};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use vslice_core::host_event::StackId;
use vslice_core::join::{self, Attribution, Breakdown, GuestRequest, Link, Part, Unplaced};
use vslice_core::timeline::{Exit, LockWait, Reason, Sleep, Span, ThreadState, UnknownCause};
use vslice_core::units::{HostNs, Tid, VcpuId};
use vslice_wire::{Dropped, Request};

/// Distinct stacks that are told apart; the host's kernel has some hundreds of places to sleep in.
const STACKS_MAX: usize = 4096;

/// What of a run is known without looking at spans and requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// What goes into the summary as it is.
    pub run: RunFacts,
    /// The clock map of each vCPU that has one.
    pub clocks: Vec<VcpuClock>,
    /// Guests of which two vCPUs cannot have the same clock.
    pub clocks_apart: Vec<ClocksApart>,
    /// The disk of each VM that reads one.
    pub disks: Vec<IoDisk>,
    /// Tasks that the host's kernel hides from tracing.
    pub hidden: Vec<HiddenTask>,
    /// What commands for this host and its VMs have to name.
    pub setup: Setup,
}

/// Adds up a run. Its memory depends on the number of vCPUs and on how far latencies spread, not on
/// the number of spans or requests.
#[derive(Debug)]
pub struct SummaryBuilder {
    start: HostNs,
    vms: Vec<VmThreads>,
    vcpu_of_tid: FxHashMap<Tid, usize>,
    /// The threads of vCPUs that get no row.
    untold: FxHashSet<Tid>,
    /// In the order of the VMs and their vCPUs.
    vcpus: Vec<(VmIndex, VcpuId, Tid, VcpuTally)>,
    stacks: BTreeMap<(OffReason, StackKey), (u64, u64)>,
    lock_waits: LockTally,
    exits: ExitTally,
    latencies: LatencyTally,
    requests: Requests,
    first_submitted: Option<HostNs>,
    last_completed: HostNs,
    clock: ClockTally,
    observed: ObservedTally,
    /// The slowest first.
    worst: Vec<(VmIndex, Request, Breakdown)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StackKey {
    Recorded(StackId),
    NotRecorded,
    BeyondLimit,
}

impl SummaryBuilder {
    /// A run whose measured window starts at `start`.
    #[must_use]
    pub fn new(start: HostNs, vms: Vec<VmThreads>) -> Self {
        let mut vcpu_of_tid = FxHashMap::default();
        let mut vcpus = Vec::new();
        for (index, vm) in vms.iter().enumerate() {
            for (vcpu, tid) in &vm.vcpus {
                vcpu_of_tid.insert(*tid, vcpus.len());
                vcpus.push((VmIndex(index), *vcpu, *tid, VcpuTally::new()));
            }
        }
        SummaryBuilder {
            start,
            vms,
            vcpu_of_tid,
            untold: FxHashSet::default(),
            vcpus,
            stacks: BTreeMap::new(),
            lock_waits: LockTally::default(),
            exits: ExitTally::default(),
            latencies: LatencyTally::new(),
            requests: Requests::default(),
            first_submitted: None,
            last_completed: HostNs(0),
            clock: ClockTally::default(),
            observed: ObservedTally::default(),
            worst: Vec::with_capacity(WORST_MAX + 1),
        }
    }

    /// Guests in which agents observed, and what is known of that before their requests are told.
    #[must_use]
    pub fn with_observations(mut self, observations: BTreeMap<VmIndex, Observation>) -> Self {
        let vcpus = self.vcpus.iter().map(|(_, vcpu, tid, _)| (*tid, *vcpu)).collect();
        self.observed = ObservedTally::new(observations, vcpus);
        self
    }

    /// Leaves the vCPUs of these threads out, of which no span is told.
    #[must_use]
    pub fn without_rows_of(self, untold: FxHashSet<Tid>) -> Self {
        SummaryBuilder { untold, ..self }
    }

    /// Takes a span that overlaps the measured window. The spans of one thread come in order of
    /// time; those of threads that are not vCPUs are passed over.
    pub fn span(&mut self, span: &Span) {
        let Some(index) = self.vcpu_of_tid.get(&span.tid) else { return };
        self.vcpus[*index].3.span(span);
        let stack = match span.state {
            ThreadState::Blocked(Sleep { stack, .. }) | ThreadState::PreemptWait { stack, .. } => {
                stack
            }
            ThreadState::Running { .. }
            | ThreadState::WakeupDelay { .. }
            | ThreadState::Unknown { .. } => return,
        };
        let Some(reason) = OffReason::of(&span.state) else { return };
        let mut key = (reason, stack.map_or(StackKey::NotRecorded, StackKey::Recorded));
        if self.stacks.len() >= STACKS_MAX && !self.stacks.contains_key(&key) {
            key = (reason, StackKey::BeyondLimit);
        }
        let (count, total_ns) = self.stacks.entry(key).or_insert((0, 0));
        *count += 1;
        *total_ns = total_ns.saturating_add(span.length_ns());
    }

    /// Takes a wait for a lock; those of threads that are not vCPUs are passed over.
    pub fn lock_wait(&mut self, wait: &LockWait) {
        if let Some(index) = self.vcpu_of_tid.get(&wait.tid) {
            let (vm, vcpu, ..) = &self.vcpus[*index];
            self.lock_waits.add(*vm, *vcpu, wait);
        }
    }

    /// Takes an exit; those of threads that are not vCPUs are passed over.
    pub fn exit(&mut self, exit: &Exit) {
        if let Some(index) = self.vcpu_of_tid.get(&exit.tid) {
            let (vm, vcpu, ..) = &self.vcpus[*index];
            self.exits.add(*vm, *vcpu, exit);
        }
    }

    /// Takes a request of a VM: one of its reader, or one that was observed in it.
    pub fn breakdown(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        self.observed.request(vm, breakdown);
        self.clock.add(breakdown);
        let Some(request) = breakdown.request.read() else { return };
        self.count_request(vm, request, breakdown);
        let latency_ns = breakdown.latency_ns();
        if breakdown.attribution == Attribution::Attributed {
            self.latencies.record_attributed(latency_ns, &breakdown.parts);
            self.latencies.add_io_and_clock(breakdown);
            self.latencies.add_waits(vm, breakdown, |_| breakdown.vcpu);
            self.latencies.add_what_if(vm, breakdown);
        } else {
            self.latencies.record_unattributable(latency_ns);
        }
        self.keep_if_slow(vm, request, breakdown);
    }

    /// Takes a request of a VM that has no place on the host's clock.
    pub fn unplaced(&mut self, vm: VmIndex, request: &GuestRequest, why: Unplaced) {
        let request = match request {
            GuestRequest::Read(request) => request,
            GuestRequest::Observed(request) => return self.observed.unplaced(vm, request, why),
        };
        let by = &mut self.requests.unattributable_by;
        match why {
            Unplaced::NoClock => by.no_clock += 1,
            Unplaced::ClockStepped => by.clock_stepped += 1,
            Unplaced::ClockAmbiguous => by.clock_ambiguous += 1,
        }
        self.count_result(vm, request);
    }

    /// Takes what an agent that observes could not record.
    pub fn lost_observed(&mut self, vm: VmIndex, lost: &Dropped) {
        self.observed.lost(vm, lost);
    }

    /// Takes a stretch of time in which a guest could not record `count` requests.
    pub fn dropped(&mut self, count: u64) {
        self.requests.dropped = self.requests.dropped.saturating_add(count);
        self.requests.dropped_intervals += 1;
    }

    fn count_request(&mut self, vm: VmIndex, request: &Request, breakdown: &Breakdown) {
        let requests = &mut self.requests;
        match breakdown.attribution {
            Attribution::Attributed => {}
            Attribution::Lost => requests.unattributable_by.lost += 1,
            Attribution::Moved => requests.unattributable_by.moved += 1,
            Attribution::Steered => requests.unattributable_by.steered += 1,
            Attribution::NotRecorded => requests.unattributable_by.not_recorded += 1,
            Attribution::Ambiguous => requests.unattributable_by.ambiguous += 1,
            Attribution::Forgotten => requests.unattributable_by.forgotten += 1,
        }
        self.count_result(vm, request);
        let first = self.first_submitted.map_or(breakdown.start, |at| at.min(breakdown.start));
        self.first_submitted = Some(first);
        self.last_completed = self.last_completed.max(breakdown.end);
    }

    fn count_result(&mut self, vm: VmIndex, request: &Request) {
        let requests = &mut self.requests;
        let block_bytes = self.vms.get(vm.0).and_then(|vm| vm.block_bytes).unwrap_or(0);
        match u32::try_from(request.result) {
            Err(_) => requests.errors += 1,
            Ok(bytes) => {
                requests.bytes = requests.bytes.saturating_add(u64::from(bytes));
                requests.short += u64::from(bytes < block_bytes);
            }
        }
    }

    fn keep_if_slow(&mut self, vm: VmIndex, request: &Request, breakdown: &Breakdown) {
        let rank = |vm: VmIndex, request: &Request, breakdown: &Breakdown| {
            (Reverse(breakdown.latency_ns()), vm, request.index)
        };
        let own_rank = rank(vm, request, breakdown);
        let position =
            self.worst.partition_point(|(vm, kept, split)| rank(*vm, kept, split) < own_rank);
        if position < WORST_MAX {
            self.worst.insert(position, (vm, *request, breakdown.clone()));
            self.worst.truncate(WORST_MAX);
        }
    }

    /// The summary of all that was taken.
    #[must_use]
    pub fn finish(mut self, facts: Facts, names: &Names) -> Summary {
        let directory = Directory::new(names, &self.vms);
        let latency_ns = self.latencies.latency_ns(0);
        let classes = Classes::of(&self.latencies, &latency_ns, &directory);
        let what_if = self.latencies.what_if(0, &directory);
        let observed = std::mem::take(&mut self.observed).finish(self.start, &directory);
        let setup = facts.setup;
        let mut summary = Summary {
            schema: SCHEMA.to_owned(),
            facts: facts.run,
            requests: self.requests(),
            latency_ns,
            classes: classes.classes,
            causes: classes.causes,
            what_if,
            advice: Advice::default(),
            io: Io { disks: facts.disks, classes: classes.io, hidden: facts.hidden },
            parts: classes.parts,
            clock_error_ns: classes.clock_error_ns,
            vcpus: self.vcpu_rows(&directory),
            lock_waits: self.lock_waits.rows(&directory),
            exits: self.exits.rows(&directory),
            stacks: self.stacks(&directory),
            worst: self
                .worst
                .iter()
                .map(|(vm, request, breakdown)| {
                    worst(self.start, *vm, (request, breakdown), &directory)
                })
                .collect(),
            observed,
            clock: Clock {
                method: ClockMethod::of(&facts.clocks),
                bound_ns: self.clock.bound_ns,
                check: self.clock.check,
                vcpus: facts.clocks,
                apart: facts.clocks_apart,
            },
        };
        // Nobody is to read in a VM that was attached to; and all may be in another part of the run.
        let selection = summary.facts.selection.as_ref();
        let is_elsewhere = selection.is_some_and(|of| of.left_out.reader.total() > 0);
        let is_to_read = !is_elsewhere && self.vms.iter().any(|vm| vm.block_bytes.is_some());
        put_warnings(&mut summary, is_to_read);
        summary.advice = Advice::of(&summary, &setup);
        debug_assert_eq!(laws::check(&summary), Ok(()), "of every summary");
        summary
    }

    fn vcpu_rows(&self, directory: &Directory<'_>) -> Vec<Vcpu> {
        let told = self.vcpus.iter().filter(|(_, _, tid, _)| !self.untold.contains(tid));
        told.map(|vcpu| self.vcpu(vcpu, directory)).collect()
    }

    fn vcpu(&self, row: &(VmIndex, VcpuId, Tid, VcpuTally), directory: &Directory<'_>) -> Vcpu {
        let (vm, vcpu, ..) = row;
        let quota = self.vms.get(vm.0).and_then(|vm| vm.quotas.get(vcpu)).copied();
        Vcpu { quota, ..vcpu_row(row, directory) }
    }

    fn requests(&self) -> Requests {
        let by = self.requests.unattributable_by;
        let count = self.latencies.count() + by.unplaced();
        let first = self.first_submitted;
        let elapsed_ns = first.map(|submitted| self.last_completed.since_ns(submitted));
        // Those without a place on the host's clock may lie outside of that time.
        let made = self.latencies.count().saturating_add(self.requests.dropped);
        let iops = elapsed_ns.filter(|elapsed_ns| *elapsed_ns > 0);
        let iops = iops.map(|elapsed_ns| made as f64 * 1e9 / elapsed_ns as f64);
        Requests {
            count,
            unattributable: by.total(),
            elapsed_ns,
            // A tenth of a request in a second is more than a run can tell.
            iops: iops.map(|iops| (iops * 10.0).round() / 10.0),
            ..self.requests.clone()
        }
    }

    fn stacks(&self, directory: &Directory<'_>) -> Vec<StackTotal> {
        let mut rows = Vec::new();
        for reason in OffReason::all() {
            let of_reason = self.stacks.iter().filter(|((of, _), _)| *of == reason);
            let mut of_reason: Vec<_> = of_reason.collect();
            of_reason.sort_by_key(|(key, (_, total_ns))| (Reverse(*total_ns), **key));
            for ((_, key), (count, total_ns)) in of_reason.into_iter().take(STACKS_PER_REASON_MAX) {
                let frames = frames(*key, directory);
                rows.push(StackTotal { reason, count: *count, total_ns: *total_ns, frames });
            }
        }
        rows
    }
}

/// Before what the run has to say itself, what its numbers say.
fn put_warnings(summary: &mut Summary, is_to_read: bool) {
    let mut derived = warnings(summary);
    if summary.requests.count == 0 && is_to_read {
        derived.insert(0, Warning::NoRequests);
    }
    summary.facts.warnings.splice(0..0, derived);
    summary.facts.warnings.sort_by_key(Warning::rank);
}

fn frames(key: StackKey, directory: &Directory<'_>) -> Vec<String> {
    match key {
        StackKey::Recorded(stack) => match directory.frames(Some(stack)) {
            [] => vec![format!("(stack {} has no symbols)", stack.0)],
            frames => frames.to_vec(),
        },
        StackKey::NotRecorded => vec!["(no stack recorded)".to_owned()],
        StackKey::BeyondLimit => vec!["(further stacks)".to_owned()],
    }
}

fn vcpu_row(
    (vm, vcpu, tid, tally): &(VmIndex, VcpuId, Tid, VcpuTally),
    directory: &Directory<'_>,
) -> Vcpu {
    let off_cpu = tally.off_cpu().to_vec();
    let (wait_ns, idle_ns) = (tally.wait_ns(), tally.idle_ns());
    let observed_ns =
        off_cpu.iter().fold(tally.on_pcpu_ns(), |sum_ns, row| sum_ns.saturating_add(row.total_ns));
    let told = tally.waits(ANTAGONISTS_MAX);
    let rows = told.names.iter().map(|figures| antagonists::row(figures, wait_ns, *vm, directory));
    let (antagonists, others_ns): (Vec<Antagonist>, u64) = (rows.collect(), told.others_ns);
    let group = |figures| antagonists::group_row(&told, figures, wait_ns, *vm, directory);
    let ran_ns = antagonists.iter().map(|row| row.ran_ns);
    Vcpu {
        vm: directory.vm_name(*vm),
        vcpu: *vcpu,
        tid: *tid,
        observed_ns,
        on_pcpu_ns: tally.on_pcpu_ns(),
        halt_poll_ns: tally.halt_poll_ns(),
        timeslices: tally.timeslices(),
        wait_ns,
        unseen_ns: antagonists::unseen_ns(wait_ns, ran_ns, [others_ns, idle_ns]),
        antagonists,
        others_ns,
        antagonist_groups: told.groups.iter().map(group).collect(),
        other_groups_ns: told.other_groups_ns,
        idle_ns,
        off_cpu,
        quota: None,
    }
}

pub(super) fn worst(
    start: HostNs,
    vm: VmIndex,
    (request, breakdown): (&Request, &Breakdown),
    directory: &Directory<'_>,
) -> WorstRequest {
    WorstRequest {
        vm: directory.vm_name(vm),
        vcpu: breakdown.vcpu,
        index: request.index,
        start_ns: offset_ns(breakdown.start, start),
        latency_ns: breakdown.latency_ns(),
        result: request.result,
        clock_bound_ns: breakdown.bounds.worst_ns(),
        attribution: breakdown.attribution.into(),
        parts: PartTotals::from(&breakdown.parts),
        clock_error_ns: PartTotals::from(&breakdown.clock_error.parts),
        io: WorstIo::of(breakdown),
        io_unknown: breakdown.io.err(),
        chain: breakdown
            .chain
            .links()
            .iter()
            .map(|link| chain_span(breakdown.start, link, vm, directory))
            .collect(),
        chain_cut_count: breakdown.chain.cut_count,
    }
}

pub(super) fn chain_span(
    submitted: HostNs,
    link: &Link,
    vm: VmIndex,
    directory: &Directory<'_>,
) -> ChainSpan {
    let span = &link.span;
    let (pcpu, sleep, stack) = match span.state {
        ThreadState::Running { pcpu, .. } | ThreadState::WakeupDelay { pcpu, .. } => {
            (Some(pcpu), None, None)
        }
        ThreadState::PreemptWait { pcpu, stack, .. } => (Some(pcpu), None, stack),
        ThreadState::Blocked(sleep) => (None, Some(sleep), sleep.stack),
        ThreadState::Unknown { .. } => (None, None, None),
    };
    let length_ns = span.length_ns();
    let frames = directory.frames(stack).iter().take(CHAIN_FRAMES_MAX);
    let waited = antagonists::of_wait(span, vm, directory);
    ChainSpan {
        offset_ns: span.start.since_ns(submitted),
        length_ns,
        part: Part::of(&span.state),
        split: stay_split(link.split),
        reason: OffReason::of(&span.state),
        lock_address: sleep.and_then(|sleep| sleep.lock),
        device: sleep.and_then(|sleep| sleep.device).map(|at| directory.device(vm, at)),
        pcpu,
        waker: sleep.and_then(|sleep| sleep.waker).map(|tid| directory.thread(tid, vm)),
        antagonists: waited.antagonists,
        others_ns: waited.others_ns,
        idle_ns: waited.idle_ns,
        stack: frames.cloned().collect(),
        why_unknown: why_unknown(&span.state),
    }
}

/// In whose code a stay on a pCPU was, where that was recorded.
fn stay_split(split: join::ModeSplit) -> Option<ModeSplit> {
    let join::ModeSplit { guest_ns, kvm_ns, vmm_ns, halt_poll_ns, exits_count } = split;
    let is_recorded = [guest_ns, kvm_ns, vmm_ns, halt_poll_ns].iter().any(|spent_ns| *spent_ns > 0);
    is_recorded.then_some(ModeSplit { guest_ns, kvm_ns, vmm_ns, halt_poll_ns, exits: exits_count })
}

fn why_unknown(state: &ThreadState) -> Option<WhyUnknown> {
    match state {
        ThreadState::Unknown { cause: UnknownCause::NotYetSeen } => Some(WhyUnknown::NotYetSeen),
        ThreadState::Unknown { cause: UnknownCause::Lost } => Some(WhyUnknown::Lost),
        ThreadState::Unknown { cause: UnknownCause::Ended } => Some(WhyUnknown::Ended),
        ThreadState::Unknown { cause: UnknownCause::UnknownThread } => {
            Some(WhyUnknown::UnknownThread)
        }
        ThreadState::Blocked(Sleep { reason: Reason::Unknown, stack, .. }) => {
            Some(if stack.is_some() { WhyUnknown::NoRule } else { WhyUnknown::NoStack })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
