//! Single requests and threads, in the words that the text has for them, for other forms of a run.

use super::group::GroupKind;
use super::model::{AttributionName, ChainSpan, Relation, WorstRequest};
use super::names::{Directory, NamedGroup, Names, VmIndex, VmThreads};
use super::observed::model::Operation;
use super::observed::{Observation, OfGuest, Tasks};
use super::text::{
    io_marks, observed_heading, read_heading, span_sentence, told_observed, unattributable,
};
use super::{collect, observed};
use std::collections::BTreeMap;
use vslice_core::join::{Breakdown, GuestRequest};
use vslice_core::task::Task;
use vslice_core::units::{HostNs, VcpuId};
use vslice_trace::observation::ObservationRecord;
use vslice_wire::{ObservedRequest, Request};

/// What the agent's own reader is called among the guest's processes.
pub const READER: &str = "vslice's reader";

/// Knows the names of a run's threads, stacks, disks and guests' processes.
#[derive(Debug)]
pub struct Teller {
    /// When the run was first measured.
    start: HostNs,
    names: Names,
    vms: Vec<VmThreads>,
    observed: BTreeMap<VmIndex, (ObservationRecord, Tasks)>,
}

/// A request as it is told of.
#[derive(Debug, Clone, PartialEq)]
pub struct ToldRequest {
    /// The line that it has on the page.
    pub heading: String,
    /// Who made it in the guest.
    pub process: String,
    /// Its process id there, if that is known.
    pub pid: Option<u32>,
    /// When it began, since the measured window did; negative if that was before.
    pub start_ns: i64,
    /// Whether its parts can be trusted.
    pub attribution: AttributionName,
    /// Why they cannot, in words; empty if they can.
    pub unattributable: &'static str,
    /// What the vCPUs' threads did, in order of time.
    pub spans: Vec<ToldSpan>,
    /// How many spans are left out at the end.
    pub cut_count: u64,
    /// What else happened, and when since it began.
    pub marks: Vec<(u64, String)>,
}

/// What a vCPU's thread did for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct ToldSpan {
    /// The vCPU; `None` if it is of none.
    pub vcpu: Option<VcpuId>,
    /// What is known of it.
    pub span: ChainSpan,
    /// The same in words.
    pub label: String,
}

/// A thread of the host as it is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldThread {
    /// `vm2 vCPU1`, `cc1`.
    pub name: String,
    /// How it relates to the VM that it is told to.
    pub kind: Relation,
    /// Its VM or control group, if it has one that is known.
    pub group: Option<String>,
}

impl Teller {
    /// Of a run whose measured window starts at `start`.
    #[must_use]
    pub fn new(
        start: HostNs,
        names: Names,
        vms: Vec<VmThreads>,
        observations: BTreeMap<VmIndex, Observation>,
    ) -> Teller {
        let guest = |(vm, of): (VmIndex, Observation)| {
            let tasks = Tasks::of(&of.record.tasks);
            (vm, (of.record, tasks))
        };
        let observed = observations.into_iter().map(guest).collect();
        Teller { start, names, vms, observed }
    }

    /// The name of a VM.
    #[must_use]
    pub fn vm_name(&self, vm: VmIndex) -> String {
        self.directory().vm_name(vm)
    }

    /// What a guest calls the disk that observed requests give this number.
    #[must_use]
    pub fn device_name(&self, vm: VmIndex, number: u16) -> String {
        let none = ObservationRecord::default();
        let record = self.observed.get(&vm).map_or(&none, |(record, _)| record);
        observed::device_name(record, number)
    }

    /// Who a thread is to a VM.
    #[must_use]
    pub fn thread(&self, task: &Task, to: VmIndex) -> ToldThread {
        let directory = self.directory();
        let thread = directory.task(task, to);
        let group = match directory.group(task, to) {
            NamedGroup { kind: GroupKind::KernelThread | GroupKind::Unknown, .. } => None,
            NamedGroup { name, .. } => Some(name),
        };
        ToldThread { name: thread.name, kind: thread.kind, group }
    }

    /// A request of a VM.
    #[must_use]
    pub fn request(&self, vm: VmIndex, breakdown: &Breakdown) -> ToldRequest {
        match &breakdown.request {
            GuestRequest::Read(request) => self.read(vm, request, breakdown),
            GuestRequest::Observed(request) => self.observed(vm, request, breakdown),
        }
    }

    fn read(&self, vm: VmIndex, request: &Request, breakdown: &Breakdown) -> ToldRequest {
        let row = collect::worst(self.start, vm, (request, breakdown), &self.directory());
        let heading = read_heading(&row);
        let marks = io_marks(row.io);
        let WorstRequest { chain, chain_cut_count, start_ns, attribution, vcpu, .. } = row;
        let span =
            |span: ChainSpan| ToldSpan { vcpu: Some(vcpu), label: span_sentence(&span), span };
        ToldRequest {
            heading,
            process: READER.to_owned(),
            pid: None,
            start_ns,
            attribution,
            unattributable: unattributable(attribution),
            spans: chain.into_iter().map(span).collect(),
            cut_count: chain_cut_count,
            marks,
        }
    }

    fn observed(
        &self,
        vm: VmIndex,
        request: &ObservedRequest,
        breakdown: &Breakdown,
    ) -> ToldRequest {
        let directory = self.directory();
        let none = Tasks::default();
        let tasks = self.observed.get(&vm).map_or(&none, |(_, tasks)| tasks);
        let of = OfGuest { vm, start: self.start, tasks, directory: &directory, has_faster: false };
        let row = of.worst(request, breakdown);
        let (vm_name, device) = (directory.vm_name(vm), self.device_name(vm, request.device));
        let label = Operation::from(request.operation).label(request.is_sync());
        let told = told_observed(&row);
        let (marks, cut_count) = (told.marks, told.cut_count);
        let spans = row.chain.iter().map(|of| ToldSpan {
            vcpu: of.vcpu,
            label: span_sentence(&of.span),
            span: of.span.clone(),
        });
        ToldRequest {
            heading: observed_heading([&vm_name, &device, label], &row),
            process: row.process.clone(),
            pid: row.pid,
            start_ns: row.start_ns,
            attribution: row.attribution,
            unattributable: unattributable(row.attribution),
            spans: spans.collect(),
            cut_count,
            marks,
        }
    }

    fn directory(&self) -> Directory<'_> {
        Directory::new(&self.names, &self.vms)
    }
}
