//! Adds up the requests of one device and operation.

use super::model::{ObservedOperation, ObservedSpan, WORST_MAX, WorstObserved, flag_names};
use super::process::{ProcessTally, Tasks};
use crate::summary::classes::Classes;
use crate::summary::clock::offset_ns;
use crate::summary::collect::chain_span;
use crate::summary::io::WorstIo;
use crate::summary::latency::{LatencyTally, Slower};
use crate::summary::model::UnattributableBy;
use crate::summary::names::{Directory, VmIndex};
use crate::summary::totals::PartTotals;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use vslice_core::join::{Attribution, Breakdown, Link, Unplaced};
use vslice_core::timeline::ThreadState;
use vslice_core::units::{HostNs, PcpuId, VcpuId};
use vslice_trace::observation::ObservedOthersRecord;
use vslice_wire::{BlockOperation, ObservedFlags, ObservedRequest};

/// What tells the requests of one row from those of another, within a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) device: u16,
    pub(super) operation: BlockOperation,
    pub(super) is_sync: bool,
}

impl Key {
    pub(super) fn of(request: &ObservedRequest) -> Key {
        let ObservedRequest { device, operation, .. } = *request;
        Key { device, operation, is_sync: request.is_sync() }
    }

    pub(super) fn of_others(others: &ObservedOthersRecord) -> Key {
        let ObservedOthersRecord { device, operation, is_sync, .. } = *others;
        Key { device, operation, is_sync }
    }
}

/// The requests of one device and operation.
#[derive(Debug)]
pub(super) struct OperationTally {
    latencies: LatencyTally,
    processes: ProcessTally,
    count: u64,
    bytes: u64,
    errors: u64,
    merged: u64,
    requeued: u64,
    no_queue_time: u64,
    unattributable_by: UnattributableBy,
    bound_ns: Option<u64>,
    /// The vCPUs that had to do with them.
    vcpus: BTreeSet<VcpuId>,
    /// The slowest first.
    worst: Vec<(ObservedRequest, Breakdown)>,
}

/// vCPUs of one operation that are told apart; no guest has more.
const VCPUS_MAX: usize = 1024;

impl OperationTally {
    pub(super) fn new() -> OperationTally {
        OperationTally {
            latencies: LatencyTally::one_of_many(),
            processes: ProcessTally::new(),
            count: 0,
            bytes: 0,
            errors: 0,
            merged: 0,
            requeued: 0,
            no_queue_time: 0,
            unattributable_by: UnattributableBy::default(),
            bound_ns: None,
            vcpus: BTreeSet::new(),
            worst: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        vm: VmIndex,
        request: &ObservedRequest,
        breakdown: &Breakdown,
        process: (String, Option<u32>),
        vcpu_of: &dyn Fn(&Breakdown, PcpuId) -> VcpuId,
    ) {
        self.count(request);
        self.bound_ns = self.bound_ns.max(Some(breakdown.bounds.worst_ns()));
        let latency_ns = breakdown.latency_ns();
        let by = &mut self.unattributable_by;
        match breakdown.attribution {
            Attribution::Attributed => {}
            Attribution::Lost => by.lost += 1,
            Attribution::Moved => by.moved += 1,
            Attribution::Steered => by.steered += 1,
            Attribution::NotRecorded => by.not_recorded += 1,
            Attribution::Ambiguous => by.ambiguous += 1,
            Attribution::Forgotten => by.forgotten += 1,
        }
        if breakdown.attribution == Attribution::Attributed {
            self.latencies.record_attributed(latency_ns, &breakdown.parts);
            self.latencies.add_io_and_clock(breakdown);
            self.latencies.add_waits(vm, breakdown, |pcpu| vcpu_of(breakdown, pcpu));
            self.latencies.add_what_if(vm, breakdown);
        } else {
            self.latencies.record_unattributable(latency_ns);
        }
        let vcpus = [request.vcpu_queued, request.vcpu_issued, request.vcpu_completed].map(VcpuId);
        if self.vcpus.len() < VCPUS_MAX {
            self.vcpus.extend(vcpus);
        }
        let bucket = self.latencies.bucket_of(latency_ns);
        self.processes.add(process, request, breakdown, bucket);
        self.keep_if_slow(request, breakdown);
    }

    /// One whose end may be another's, so that it has no latency.
    pub(super) fn may_have_anothers_end(&mut self, request: &ObservedRequest) {
        self.count(request);
        self.unattributable_by.hidden += 1;
    }

    pub(super) fn unplaced(&mut self, request: &ObservedRequest, why: Unplaced) {
        self.count(request);
        match why {
            Unplaced::NoClock => self.unattributable_by.no_clock += 1,
            Unplaced::ClockStepped => self.unattributable_by.clock_stepped += 1,
            Unplaced::ClockAmbiguous => self.unattributable_by.clock_ambiguous += 1,
        }
    }

    fn count(&mut self, request: &ObservedRequest) {
        let is = |flag| u64::from(request.flags.contains(flag));
        self.count += 1;
        self.bytes = self.bytes.saturating_add(request.bytes.into());
        self.errors += u64::from(request.result < 0);
        self.merged += is(ObservedFlags::MERGED);
        self.requeued += is(ObservedFlags::REQUEUED);
        self.no_queue_time += is(ObservedFlags::NO_QUEUE_TIME);
    }

    fn keep_if_slow(&mut self, request: &ObservedRequest, breakdown: &Breakdown) {
        let rank = |request: &ObservedRequest, breakdown: &Breakdown| {
            (Reverse(breakdown.latency_ns()), request.queued, request.sector)
        };
        let own_rank = rank(request, breakdown);
        let place = self.worst.partition_point(|(of, split)| rank(of, split) < own_rank);
        if place < WORST_MAX {
            self.worst.insert(place, (*request, breakdown.clone()));
            self.worst.truncate(WORST_MAX);
        }
    }

    /// Its row. `faster` are those of its requests that were not sent.
    pub(super) fn row(
        &self,
        key: Key,
        device: String,
        faster: Option<&ObservedOthersRecord>,
        of: &OfGuest<'_>,
    ) -> ObservedOperation {
        let (faster_count, faster_ns) = faster.map_or((0, 0), |of| (of.count, of.total_ns));
        let latency_ns = self.latencies.latency_ns(faster_count);
        let slower = [Slower::All, Slower::Than(latency_ns.p99), Slower::Than(latency_ns.p999)];
        let classes = Classes::of(&self.latencies, &latency_ns, of.directory);
        let has_tail = classes.classes.p99.count + classes.classes.p99.unattributable > 0;
        let (processes, other_processes) = self.processes.rows(slower, has_tail, of.has_faster);
        ObservedOperation {
            vm: of.directory.vm_name(of.vm),
            device,
            operation: key.operation.into(),
            is_sync: key.is_sync,
            count: self.count,
            faster: faster_count,
            faster_ns,
            bytes: self.bytes.saturating_add(faster.map_or(0, |of| of.bytes)),
            errors: self.errors,
            merged: self.merged,
            requeued: self.requeued,
            no_queue_time: self.no_queue_time,
            unattributable_by: self.unattributable_by,
            vcpus: self.vcpus.iter().copied().collect(),
            bound_ns: self.bound_ns,
            matters_ns: self.latencies.slowest_hundredth_ns(faster_count),
            latency_ns,
            parts: classes.parts,
            clock_error_ns: classes.clock_error_ns,
            classes: classes.classes,
            io: classes.io,
            causes: classes.causes,
            what_if: self.latencies.what_if(faster_count, of.directory),
            processes,
            other_processes,
            worst: self.worst.iter().map(|(of_guest, split)| of.worst(of_guest, split)).collect(),
        }
    }
}

/// A guest, for its rows.
pub(in crate::summary) struct OfGuest<'a> {
    pub(in crate::summary) vm: VmIndex,
    pub(in crate::summary) start: HostNs,
    pub(in crate::summary) tasks: &'a Tasks,
    pub(in crate::summary) directory: &'a Directory<'a>,
    /// Whether any of its requests were not sent.
    pub(in crate::summary) has_faster: bool,
}

impl OfGuest<'_> {
    /// One of its slowest requests.
    pub(in crate::summary) fn worst(
        &self,
        request: &ObservedRequest,
        breakdown: &Breakdown,
    ) -> WorstObserved {
        let (process, pid) = self.tasks.of_number(request.task);
        let span = |link: &Link| ObservedSpan {
            vcpu: self.directory.vcpu_of(self.vm, link.span.tid),
            span: chain_span(breakdown.start, link, self.vm, self.directory),
        };
        WorstObserved {
            process,
            pid,
            sector: request.sector,
            bytes: request.bytes.into(),
            flags: flag_names(request.flags),
            start_ns: offset_ns(breakdown.start, self.start),
            latency_ns: breakdown.latency_ns(),
            issued_ns: breakdown.issued.map(|issued| issued.since_ns(breakdown.start)),
            result: request.result,
            vcpu_queued: breakdown.vcpus.queued,
            vcpu_issued: breakdown.vcpus.issued,
            vcpu_completed: VcpuId(request.vcpu_completed),
            vcpu_interrupted: breakdown.vcpus.completed,
            clock_bound_ns: breakdown.bounds.worst_ns(),
            attribution: breakdown.attribution.into(),
            parts: PartTotals::from(&breakdown.parts),
            io: WorstIo::of(breakdown),
            io_unknown: breakdown.io.err(),
            chain: breakdown.chain.links().iter().map(span).collect(),
            chain_cut_count: breakdown.chain.cut_count,
        }
    }
}

/// The vCPU whose thread waited longest for this pCPU in a request, of those of which `vcpu_of` knows; else the
/// one that the request as a whole is told of.
pub(super) fn waiter(
    breakdown: &Breakdown,
    pcpu: PcpuId,
    vcpu_of: impl Fn(vslice_core::units::Tid) -> Option<VcpuId>,
) -> VcpuId {
    let mut waited: Vec<(VcpuId, u64)> = Vec::new();
    for span in breakdown.chain.spans() {
        let is_wait = matches!(
            span.state,
            ThreadState::PreemptWait { pcpu: of, .. } | ThreadState::WakeupDelay { pcpu: of, .. } if of == pcpu
        );
        if let Some(vcpu) = vcpu_of(span.tid).filter(|_| is_wait) {
            match waited.iter_mut().find(|(of, _)| *of == vcpu) {
                Some((_, waited_ns)) => *waited_ns += span.length_ns(),
                None => waited.push((vcpu, span.length_ns())),
            }
        }
    }
    let longest = waited.into_iter().max_by_key(|(_, waited_ns)| *waited_ns);
    longest.map_or(breakdown.vcpu, |(vcpu, _)| vcpu)
}
