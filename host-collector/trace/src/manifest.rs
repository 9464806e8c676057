//! `run.json`: everything about a run that is not a stream of events.

use crate::date::DateSample;
use crate::disk::DiskRecord;
use crate::evidence::{Evidence, GroupEvidence};
use crate::host::{FrequencyRecord, HostFacts};
use crate::image::ImageRecord;
use crate::lock::LockRecord;
use crate::memory_map::MemoryMap;
use crate::observation::ObservationRecord;
use crate::quota::GroupRecord;
use crate::thread::{HelperRecord, ThreadRecord};
use crate::vmm::{Accelerator, DomainRecord, Vmm};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use vslice_core::clock::host_time::HostTimeSample;
use vslice_core::clock::tsc::{TscRelation, TscSample};
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};

/// The schema of `run.json`; a reader refuses any other.
pub const SCHEMA: &str = "vslice.run/2";

/// The notice of a run whose plan asks for exits although its guests have none.
pub const NO_EXITS_UNDER_TCG: &str = "exits were asked for, but guests under TCG have none: QEMU \
                                      translates their code, so the hardware never exits from it";

/// What is said of an accelerator that could not be seen.
const UNKNOWN_ACCELERATOR: &str = "an unknown accelerator";

/// The manifest of one run directory. It is written when recording starts and again at its end, so
/// that a run whose collector was killed says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// How far the run came.
    pub status: Status,
    /// The plan as it was run, with overrides applied.
    pub plan: serde_json::Value,
    /// The plan's name.
    pub plan_name: String,
    /// What ran the guests, in words; only in runs before each VM had its own.
    #[serde(default, rename = "accelerator", skip_serializing_if = "Option::is_none")]
    pub accelerator_before: Option<String>,
    /// What vslice launches the guests under; `None` if it found them running, and in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator_chosen: Option<Accelerator>,
    /// Why the guests run under this accelerator.
    pub accelerator_reason: String,
    /// How the guests' agents were reached.
    pub vsock_way: String,
    /// The host; `None` if the run did not note it.
    #[serde(default)]
    pub environment: Option<HostFacts>,
    /// The few lines about the host that a report shows.
    pub environment_lines: Vec<String>,
    /// The collector's own process.
    pub collector_pid: Tid,
    /// The versions and checksums of the guest image; of attached VMs, those that their guests have, by
    /// the VMs' names.
    pub image: serde_json::Value,
    /// The measured window: of a load from its start to its end, otherwise as long as was recorded.
    pub window: Option<Window>,
    /// The host's date when the measured window began, and when it ended; empty in older runs, and the first alone
    /// if the collector was killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dates: Vec<DateSample>,
    /// The guests.
    pub vms: Vec<VmRecord>,
    /// The VMs of this host that were not recorded, as far as they were seen.
    #[serde(default)]
    pub other_vms: Vec<OtherVmRecord>,
    /// How the control groups of the host's threads are known; `None` in older runs, where they are not.
    #[serde(default)]
    pub group_evidence: Option<GroupEvidence>,
    /// Whether every exit was to be recorded; older runs have it in their plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exits_asked: Option<bool>,
    /// The pCPUs on which every switch is recorded; in older runs those that threads are pinned to.
    #[serde(default)]
    pub pcpus: Vec<PcpuId>,
    /// The evidence that the run's statements rest on.
    #[serde(default)]
    pub evidence: Evidence,
    /// The result of sampling, if the run was sampled and completed.
    #[serde(default)]
    pub sampling: Option<SamplingRecord>,
    /// The cost of recording.
    pub cost: Cost,
    /// The host's TSC beside its clock, if KVM relates a guest's TSC to it.
    #[serde(default)]
    pub host_tsc: Vec<TscSample>,
    /// Steal time in nanoseconds that a hypervisor under this host took in the window, summed over pCPUs;
    /// `None` if the kernel does not report it or the window has not ended.
    #[serde(default)]
    pub stolen_ns: Option<u64>,
    /// The pCPUs' frequencies.
    #[serde(default)]
    pub frequency: FrequencyRecord,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Status {
    /// It is being recorded, or its collector was killed.
    Recording,
    /// It reached its planned end.
    Complete,
    /// It ended early.
    Partial {
        /// What happened, as a sentence.
        why: String,
    },
}

/// The interval that a report covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When the workloads were told to start.
    pub start_ns: HostNs,
    /// When every reader had ended or the run was stopped; `None` if the collector was killed.
    pub end_ns: Option<HostNs>,
}

/// One guest of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Its name in the run directory, which is that in the plan if it was launched.
    pub name: String,
    /// What runs it; `None` in older runs.
    #[serde(default)]
    pub vmm: Option<Vmm>,
    /// What executes its instructions; `None` if that could not be seen, and in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Accelerator>,
    /// The domain that it is; `None` if libvirt does not manage it, and in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainRecord>,
    /// The pid of its VMM, which is also the tid of the main loop.
    pub pid: Tid,
    /// The process that serves its vsock device, if there is one.
    pub device_pid: Option<Tid>,
    /// Those that work for it outside of its VMM's process.
    #[serde(default)]
    pub helpers: Vec<HelperRecord>,
    /// The size of its reader's requests in bytes; `None` if it has no reader.
    pub block_bytes: Option<u32>,
    /// The threads of its VMM just before the window.
    pub threads: Vec<ThreadRecord>,
    /// The reader's vCPU, if it has one.
    pub reader_vcpu: Option<VcpuId>,
    /// The vCPUs that have a hog by the plan.
    pub hogs: Vec<VcpuId>,
    /// What the guest reported about itself; `None` if it never connected.
    pub guest: Option<GuestRecord>,
    /// Where QEMU's big lock is, which proves that a futex wait was for it.
    #[serde(default)]
    pub lock: LockRecord,
    /// The names of its devices by address; empty if unknown.
    #[serde(default)]
    pub memory_map: MemoryMap,
    /// Why the devices are unknown, as a sentence without its full stop; `None` if they are known.
    #[serde(default)]
    pub memory_map_missing: Option<String>,
    /// The disk that its reader reads, if it has one.
    #[serde(default)]
    pub disk: Option<DiskRecord>,
    /// All its disks; empty if it has none, or if `disks_missing` says why they are unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<ImageRecord>,
    /// Why its disks are unknown, as a sentence without its full stop; `None` if they are known, and in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disks_missing: Option<String>,
    /// vCPUs whose threads slept from the first moment of the window to the last, so that no event tells of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asleep_vcpus: Vec<VcpuId>,
    /// What an agent observed of its guest's block requests; `None` if it was not asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<ObservationRecord>,
    /// The control groups whose quotas limit its vCPU threads, ancestors included.
    #[serde(default)]
    pub groups: Vec<GroupRecord>,
    /// Why the groups are unknown, as a sentence without its full stop; `None` if they are known.
    #[serde(default)]
    pub groups_missing: Option<String>,
    /// What KVM reports about its vCPUs' TSCs.
    #[serde(default)]
    pub tsc: TscRecord,
    /// Which vCPU is which in KVM's events of interrupts.
    #[serde(default)]
    pub interrupts: InterruptRecord,
}

/// The numbers by which KVM's events of interrupts name a VM's vCPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InterruptRecord {
    /// Each vCPU whose number is known.
    pub vcpus: Vec<KvmVcpu>,
    /// Why none is known, as a sentence without its full stop; `None` if some are, and in runs that recorded no
    /// interrupts.
    pub missing: Option<String>,
}

/// A vCPU as KVM calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmVcpu {
    /// KVM's number of it, which is its APIC id.
    pub number: u32,
    /// The thread that runs it.
    pub tid: Tid,
}

/// A VM that ran on the host beside those that were recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherVmRecord {
    /// Its name, as `vslice ps` shows it.
    pub name: String,
    /// What runs it.
    pub vmm: Vmm,
    /// The domain that it is; `None` if libvirt does not manage it, and in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainRecord>,
    /// The pid of its VMM.
    pub pid: Tid,
    /// From when on this process is known to be that VM; 0 if it was when recording began.
    pub since_ns: HostNs,
    /// The threads of its VMM at that time.
    pub threads: Vec<ThreadRecord>,
    /// Those that work for it outside of its VMM's process.
    #[serde(default)]
    pub helpers: Vec<HelperRecord>,
}

/// How the TSCs of a guest's vCPUs relate to the host's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TscRecord {
    /// Each vCPU whose relation is known.
    pub vcpus: Vec<VcpuTsc>,
    /// Why no relation is known, as a sentence without its full stop.
    pub missing: Option<String>,
}

/// The same of one vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuTsc {
    /// The vCPU.
    pub vcpu: VcpuId,
    /// The readings in order of time; there are several if the guest wrote to the TSC.
    pub readings: Vec<TscReading>,
}

/// The relation that was read for a vCPU at each sample of the host's TSC from `from` to `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TscReading {
    /// Just before the first of these samples.
    pub from: HostNs,
    /// Just after the last one.
    pub until: HostNs,
    /// What was read.
    pub relation: TscRelation,
}

/// What a guest reported, and how its workload ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// The guest kernel's release.
    pub kernel_release: String,
    /// The agent's version.
    pub agent_version: String,
    /// All vCPUs that the guest had online had numbers below this.
    pub vcpu_count: u16,
    /// Whether the guest's CPUID calls its TSC invariant.
    pub tsc_invariant: bool,
    /// The clock that stamped the requests; `None` if the guest was never ready.
    pub clock: Option<GuestClock>,
    /// The device or file that the reader read.
    pub target: String,
    /// The guest's I/O scheduler for it, if the guest could tell.
    #[serde(default)]
    pub io_scheduler: Option<String>,
    /// The guest kernel's own clock source, such as `kvm-clock`, if the guest could tell.
    #[serde(default)]
    pub clock_source: Option<String>,
    /// How many requests were recorded.
    pub requests_count: u64,
    /// How many requests the guest made but did not record.
    pub dropped_count: u64,
    /// The last counter value that each hog reported.
    pub hogs: Vec<HogRecord>,
    /// Notices of the guest, without control characters.
    pub notices: Vec<String>,
    /// The host's clock as the guest read it through KVM.
    #[serde(default)]
    pub host_times: Vec<HostTimeSample>,
    /// How its workload ended; `None` if that is unknown.
    pub ended: Option<GuestEnd>,
}

/// The clock with which a guest stamps requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestClock {
    /// The time stamp counter.
    Tsc,
    /// `CLOCK_MONOTONIC_RAW`.
    MonotonicRaw,
}

/// How a guest's workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestEnd {
    /// It did everything that its plan asks for.
    Completed,
    /// It was told to stop, as every guest without a reader is.
    Stopped,
    /// It could not go on; its notices say why.
    Failed,
}

/// The last counter value that a hog reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HogRecord {
    /// The vCPU that it was pinned to.
    pub vcpu: VcpuId,
    /// The value of the hog's loop counter.
    pub count: u64,
}

/// The result of sampling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplingRecord {
    /// How many rounds of looks were made, or of reads of totals if the run recorded only totals.
    pub rounds_count: u64,
    /// How many looks were made at all threads together.
    pub looks_count: u64,
    /// How long sampling went on, in nanoseconds.
    pub elapsed_ns: u64,
    /// CPU time of the sampling thread, in nanoseconds.
    pub own_ns: u64,
}

/// The cost of recording on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Host events recorded.
    pub events_count: u64,
    /// Records that the kernel dropped.
    pub lost_count: u64,
    /// CPU time of all threads of the collector in the measured window, in nanoseconds.
    pub cpu_ns: u64,
    /// How long its threads were runnable but not on a pCPU, summed, in nanoseconds.
    #[serde(default)]
    pub run_delay_ns: u64,
    /// How many threads of the VMs were born during the run and could not be watched on every pCPU.
    pub uncovered_threads_count: u64,
    /// How many switches had a kernel stack that did not fit in the table of stacks.
    #[serde(default)]
    pub stacks_refused_count: u64,
    /// How many host threads did not fit in the censuses.
    #[serde(default)]
    pub threads_left_out_count: u64,
    /// How many processes' command lines did not fit in the censuses.
    #[serde(default)]
    pub commands_left_out_count: u64,
    /// How many bytes the kernel wrote into the rings.
    pub ring_bytes: u64,
    /// The size of the streams in the run directory, in bytes.
    pub written_bytes: u64,
}

impl Manifest {
    /// A run that has begun and of which nothing is known yet but its collector's process.
    #[must_use]
    pub fn begun(collector_pid: Tid) -> Manifest {
        Manifest {
            schema: SCHEMA.to_owned(),
            status: Status::Recording,
            plan: serde_json::Value::Null,
            plan_name: String::new(),
            accelerator_before: None,
            accelerator_chosen: None,
            accelerator_reason: String::new(),
            vsock_way: String::new(),
            environment: None,
            environment_lines: Vec::new(),
            collector_pid,
            image: serde_json::Value::Null,
            window: None,
            dates: Vec::new(),
            vms: Vec::new(),
            other_vms: Vec::new(),
            group_evidence: None,
            exits_asked: None,
            pcpus: Vec::new(),
            evidence: Evidence::default(),
            sampling: None,
            cost: Cost::default(),
            host_tsc: Vec::new(),
            stolen_ns: None,
            frequency: FrequencyRecord::default(),
        }
    }

    /// Whether every exit was to be recorded.
    #[must_use]
    pub fn asked_for_exits(&self) -> bool {
        let by_plan = || self.plan.get("exits").and_then(serde_json::Value::as_bool);
        self.exits_asked.or_else(by_plan).unwrap_or(false)
    }

    /// What ran the VM at this place; `None` if that is not known.
    #[must_use]
    pub fn accelerator_of(&self, place: usize) -> Option<Accelerator> {
        let before = || Accelerator::of_name(self.accelerator_before.as_deref()?);
        self.vms.get(place)?.accelerator.or(self.accelerator_chosen).or_else(before)
    }

    /// What ran the guests, in words: `kvm`, `kvm and tcg`, `an unknown accelerator`.
    #[must_use]
    pub fn accelerators_label(&self) -> String {
        if let Some(before) = &self.accelerator_before {
            return before.clone();
        }
        let name = |vm: &VmRecord| vm.accelerator.map_or(UNKNOWN_ACCELERATOR, Accelerator::name);
        // A run that ended while its guests booted knows none of them.
        if self.vms.is_empty() {
            return self
                .accelerator_chosen
                .map_or(UNKNOWN_ACCELERATOR, Accelerator::name)
                .to_owned();
        }
        let names: BTreeSet<&str> = self.vms.iter().map(name).collect();
        names.into_iter().collect::<Vec<_>>().join(" and ")
    }
}

/// Whether KVM may run one of these VMs. Of one whose accelerator is not known KVM's events are recorded: there
/// are none if it is another.
#[must_use]
pub fn may_use_kvm(vms: &[VmRecord]) -> bool {
    vms.iter().any(|vm| vm.accelerator.is_none_or(|known| known == Accelerator::Kvm))
}

impl VmRecord {
    /// A VM of which nothing is known but its VMM and that one's threads.
    #[must_use]
    pub fn new(name: &str, vmm: Vmm, pid: Tid, threads: Vec<ThreadRecord>) -> VmRecord {
        VmRecord {
            name: name.to_owned(),
            vmm: Some(vmm),
            accelerator: None,
            domain: None,
            pid,
            device_pid: None,
            helpers: Vec::new(),
            block_bytes: None,
            threads,
            reader_vcpu: None,
            hogs: Vec::new(),
            guest: None,
            lock: LockRecord::default(),
            memory_map: MemoryMap::default(),
            memory_map_missing: None,
            disk: None,
            disks: Vec::new(),
            disks_missing: None,
            asleep_vcpus: Vec::new(),
            observation: None,
            groups: Vec::new(),
            groups_missing: None,
            tsc: TscRecord::default(),
            interrupts: InterruptRecord::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_of_an_older_run_has_no_disks_and_no_reason() {
        let vm = VmRecord::new("vm1", Vmm::Qemu, Tid(2), Vec::new());
        let json = serde_json::to_value(&vm).expect("plain");
        assert!(json.get("disks").is_none() && json.get("disks_missing").is_none(), "{json}");
        assert_eq!(serde_json::from_value::<VmRecord>(json).expect("read"), vm);
    }

    #[test]
    fn what_guests_run_under_is_known_before_they_run() {
        let chosen =
            |accelerator_chosen| Manifest { accelerator_chosen, ..Manifest::begun(Tid(1)) };
        assert_eq!(chosen(Some(Accelerator::Kvm)).accelerators_label(), "kvm");
        assert_eq!(chosen(None).accelerators_label(), "an unknown accelerator");
        let vm = |accelerator| VmRecord {
            accelerator,
            ..VmRecord::new("vm1", Vmm::Qemu, Tid(2), Vec::new())
        };
        let mut found = chosen(None);
        found.vms = vec![vm(Some(Accelerator::Tcg)), vm(Some(Accelerator::Kvm)), vm(None)];
        assert_eq!(found.accelerators_label(), "an unknown accelerator and kvm and tcg");
        assert_eq!(found.accelerator_of(0), Some(Accelerator::Tcg));
        assert_eq!(found.accelerator_of(2), None);
    }
}
