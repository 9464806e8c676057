//! The summary of a run as a value: what `summary.json` holds and what every renderer reads.
//!
//! The schema is [`SCHEMA`]; `schema.md` beside this file lists every key, and a test keeps the two
//! together. Keys may be added within a version; renaming or removing one, or changing what it
//! means, makes a new version. Times are whole nanoseconds. The few ratios are rounded to four
//! decimals, so that they read the same on every machine and survive a round trip through JSON.
//!
//! # What the classes are
//!
//! `parts` and `classes` look at three sets of requests: `all`, those above the 99th percentile
//! (`p99`) and those above the 99.9th (`p999`). A percentile is known only at the end of a run, and
//! the memory of a run is bounded, so requests are not kept: their parts are summed per bucket of
//! latency, and the buckets are those of the HDR histogram that gives the percentiles (log-linear,
//! three significant digits). A percentile of that histogram is the upper edge of a bucket, so
//! "slower than `threshold_ns`" is a union of whole buckets and its sums are exact: what is rounded
//! is where the line is drawn (up to 0.1 % above the percentile), never what lies behind it.
//!
//! Percentiles are taken over every recorded request that could be placed on the host's clock; sums of parts
//! only over requests that could be attributed. `classes.*.unattributable` says how many were left out.

mod vcpu;

pub use vcpu::{ExitKind, Exits, LockWaits, OffCpu, StackTotal, Timeslices, Vcpu};

use super::advice::Advice;
use super::big_lock::BigLock;
use super::causes::Cause;
use super::clock::Clock;
use super::evidence::{Sampled, ScheduledVcpu};
use super::group::ClassAntagonistGroup;
use super::host_io::HostIo;
use super::io::{Io, WorstIo};
pub use super::members::Members;
use super::observed::Observed;
use super::reason::OffReason;
use super::selection::Selection;
use super::service::{Engagement, ServiceThread, engagement};
use super::totals::{ByClass, PartTotals};
pub use super::unattributable::UnattributableBy;
use super::warning::Warning;
use super::what_if::WhatIf;
use serde::{Deserialize, Serialize};
use vslice_core::join::{Attribution, NoPhase, Part};
use vslice_core::units::{PcpuId, Tid, VcpuId};
use vslice_trace::evidence::{Evidence, EvidenceLevel, GroupEvidence};

/// The value of [`Summary::schema`].
pub const SCHEMA: &str = "vslice.summary/3";

/// Requests in [`Summary::worst`] at most.
pub const WORST_MAX: usize = 5;

/// Antagonists in any list of the summary at most, the longest first; the lists of the classes have the
/// longest of each class, and so up to three times as many.
pub const ANTAGONISTS_MAX: usize = 8;

/// Characters of [`Antagonist::command`] at most.
pub const COMMAND_CHARS_MAX: usize = 160;

/// Stacks in [`Summary::stacks`] for each reason at most, the longest first.
pub const STACKS_PER_REASON_MAX: usize = 5;

/// Entries of [`Summary::lock_waits`] at most.
pub const LOCK_WAITS_MAX: usize = 16;

/// Reasons in [`Summary::exits`] for each vCPU and kind at most; what is beyond is one row more.
pub const EXITS_MAX: usize = 32;

/// Frames of a stack in [`ChainSpan::stack`] at most, the innermost first.
pub const CHAIN_FRAMES_MAX: usize = 6;

/// What of a run is known without looking at spans and requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The name of the plan.
    pub plan: String,
    /// Whether the run completed.
    pub status: RunStatus,
    /// What ran the guests.
    pub accelerator: Accelerator,
    /// Where it ran.
    pub environment: Environment,
    /// Length of the measured window on the host's clock, or of the stretch of it that this is about.
    pub measured_ns: u64,
    /// Which part of the run this is about; `None`: all of it.
    #[serde(default)]
    pub selection: Option<Selection>,
    /// Every hog that the plan asked for.
    pub hogs: Vec<Hog>,
    /// What the VMMs' threads that run no vCPU did for the vCPUs; those that did nothing are left out.
    #[serde(default)]
    pub service: Vec<ServiceThread>,
    /// How QEMU's big lock is known in each VM of a QEMU.
    #[serde(default)]
    pub big_locks: Vec<BigLock>,
    /// What the numbers rest on. Requests have parts, and vCPUs have timeslices and reasons, only if the run
    /// was recorded.
    pub evidence: Evidence,
    /// How the control groups of antagonists are known.
    pub control_groups: GroupEvidence,
    /// What the vCPUs were seen to do, if the run was sampled.
    pub sampled: Option<Sampled>,
    /// What the scheduler counted of each vCPU's thread, if the run was not recorded.
    pub scheduled: Vec<ScheduledVcpu>,
    /// How far the pCPUs were busy on which every switch was recorded.
    #[serde(default)]
    pub pcpus: Vec<PcpuUse>,
    /// What the kernel dropped while it recorded.
    pub lost: Lost,
    /// The VMs' I/O as the host alone saw it.
    #[serde(default)]
    pub host_io: HostIo,
    /// What the collector itself took.
    pub cost: Cost,
    /// What the reader should know before trusting the report.
    pub warnings: Vec<Warning>,
}

impl RunFacts {
    /// How long the whole run was measured.
    #[must_use]
    pub fn whole_ns(&self) -> u64 {
        self.selection.as_ref().map_or(self.measured_ns, |selection| selection.of_ns)
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: String,
    /// What is known of it without looking at spans and requests.
    #[serde(flatten)]
    pub facts: RunFacts,
    /// Counts of requests.
    pub requests: Requests,
    /// The requests' latencies.
    pub latency_ns: LatencyNs,
    /// Where their time went: total nanoseconds by part, over the attributed requests of each
    /// class. The parts of a class add up to its `classes.*.latency_ns`.
    pub parts: ByClass<PartTotals>,
    /// By how much each part of `parts` may be off because of clock errors: the sum of the requests' own
    /// errors.
    pub clock_error_ns: ByClass<PartTotals>,
    /// What the classes of `parts` are, and who ran while their requests waited.
    pub classes: ByClass<Class>,
    /// The I/O phases of the requests.
    pub io: Io,
    /// What the requests waited for, over parts and phases, the longest first. The causes of a class add up
    /// to its `classes.*.latency_ns`.
    pub causes: ByClass<Vec<Cause>>,
    /// What the percentiles would be without a cause; `None` if no request could be attributed to causes.
    #[serde(default)]
    pub what_if: Option<WhatIf>,
    /// What would help by the figures of this run, and what would not.
    #[serde(default)]
    pub advice: Advice,
    /// How each vCPU's thread was scheduled.
    pub vcpus: Vec<Vcpu>,
    /// The vCPU threads' waits for locks of their VMMs, the longest total first, at most [`LOCK_WAITS_MAX`].
    pub lock_waits: Vec<LockWaits>,
    /// Exits by vCPU and reason, the longest total first; empty where they were not recorded.
    pub exits: Vec<Exits>,
    /// The kernel stacks with which vCPU threads left their pCPUs, at most [`STACKS_PER_REASON_MAX`] for each
    /// reason.
    pub stacks: Vec<StackTotal>,
    /// The slowest requests, the slowest first; at most [`WORST_MAX`].
    pub worst: Vec<WorstRequest>,
    /// Block requests that agents observed in the guests; `None` if nobody observed.
    #[serde(default)]
    pub observed: Option<Observed>,
    /// How guest times became host times.
    pub clock: Clock,
}

impl Summary {
    /// How far iothreads served this VM's disk; `None` if no request was made or wakeups were not recorded.
    #[must_use]
    pub fn engagement_of(&self, vm: &str) -> Option<Engagement> {
        let is_known =
            self.facts.evidence.level == EvidenceLevel::Recorded && self.requests.count > 0;
        is_known.then(|| engagement(&self.facts.service, vm))
    }
}

/// Whether a run completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RunStatus {
    /// It did all that the plan asked for.
    Complete,
    /// It ended early; what was recorded until then is here.
    Partial {
        /// Why it ended.
        reason: String,
    },
}

/// What ran the guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// `kvm` or `tcg`.
    pub name: String,
    /// Why this one.
    pub reason: String,
}

/// Where a run was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The few lines that a page shows.
    pub lines: Vec<String>,
    /// The environment in full, as recorded.
    pub details: serde_json::Value,
}

/// Counts of requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Requests {
    /// Requests recorded, attributed or not.
    pub count: u64,
    /// Requests that the guests made but could not record; they count only in `iops`.
    pub dropped: u64,
    /// In how many intervals they were dropped.
    pub dropped_intervals: u64,
    /// Recorded requests whose latency cannot be attributed to causes.
    pub unattributable: u64,
    /// The same by reason; adds up to `unattributable`.
    pub unattributable_by: UnattributableBy,
    /// Recorded requests that ended with an error.
    pub errors: u64,
    /// Recorded requests that read fewer bytes than they asked for.
    pub short: u64,
    /// Bytes that the recorded requests read.
    pub bytes: u64,
    /// From the first submission to the last completion, over requests that could be placed on the host's
    /// clock; `None` if there are none.
    pub elapsed_ns: Option<u64>,
    /// Requests (those placed on the host's clock, and dropped ones) per second of `elapsed_ns`; `None` if
    /// that is 0 or unknown.
    pub iops: Option<f64>,
}

/// Latencies in nanoseconds of all recorded requests that could be placed on the host's clock; all `None` if
/// there are none. `min`, `mean` (rounded) and `max` are exact, the percentiles are upper edges of buckets
/// that are at most 0.1 % wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LatencyNs {
    /// The shortest.
    pub min: Option<u64>,
    /// The arithmetic mean.
    pub mean: Option<u64>,
    /// The median.
    pub p50: Option<u64>,
    /// The 90th percentile.
    pub p90: Option<u64>,
    /// The 99th percentile.
    pub p99: Option<u64>,
    /// The 99.9th percentile.
    pub p999: Option<u64>,
    /// The 99.99th percentile.
    pub p9999: Option<u64>,
    /// The longest.
    pub max: Option<u64>,
}

/// A class of requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Class {
    /// The class holds the requests slower than this; `None` for the class of all.
    pub threshold_ns: Option<u64>,
    /// Attributed requests in the class: those that `parts` sums.
    pub count: u64,
    /// Requests in the class that `parts` leaves out.
    pub unattributable: u64,
    /// Total latency of the `count` requests.
    pub latency_ns: u64,
    /// How many of the `count` requests have time that could belong to other parts, within the clock error.
    pub clock_uncertain: u64,
    /// How long they waited for a pCPU: `preempt_wait` plus `wakeup_delay`.
    pub wait_ns: u64,
    /// Who ran there meanwhile, the longest first. Every class has the same rows: the [`ANTAGONISTS_MAX`]
    /// longest of each class.
    pub antagonists: Vec<ClassAntagonist>,
    /// How long threads that are not listed ran, in nanoseconds.
    pub others_ns: u64,
    /// The same by groups: VMs, control groups, and names where there is neither. Every class has the same rows.
    #[serde(default)]
    pub antagonist_groups: Vec<ClassAntagonistGroup>,
    /// How long groups that are not listed ran, in nanoseconds.
    #[serde(default)]
    pub other_groups_ns: u64,
    /// How long the pCPU was idle, in nanoseconds.
    pub idle_ns: u64,
    /// The part of `wait_ns` for which it is unknown who ran.
    pub unseen_ns: u64,
}

/// Who ran on a pCPU while requests of a class waited for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassAntagonist {
    /// The VM that waited.
    pub victim_vm: String,
    /// The vCPU of that VM that waited.
    pub victim_vcpu: VcpuId,
    /// The pCPU that it waited for.
    pub pcpu: PcpuId,
    /// Who ran there, for how long, and the share of the class's `wait_ns`.
    #[serde(flatten)]
    pub antagonist: Antagonist,
}

/// Who ran while somebody else waited: all threads of one name, kind and group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Antagonist {
    /// The one of them that ran longest without interruption, under the name that it had then.
    #[serde(flatten)]
    pub thread: NamedThread,
    /// The process of that one, where it is known.
    pub pid: Option<Tid>,
    /// The command line of that process if it could be read: at most [`COMMAND_CHARS_MAX`] characters,
    /// without control characters.
    pub command: Option<String>,
    /// The name of their group, which is a VM or a control group; `None` if they have neither or that is unknown.
    #[serde(default)]
    pub group: Option<String>,
    /// The path of that control group; `None` if it is none, or has only its number.
    #[serde(default)]
    pub group_path: Option<String>,
    /// How many threads they are; in the lists of the classes, over all requests.
    pub threads: Members,
    /// Of how many processes.
    pub processes: Members,
    /// How long they ran in nanoseconds, at least.
    pub ran_ns: u64,
    /// How much longer they may have run, because there was no room for their name at first: time that is
    /// counted among the others. 0 unless one wait had more than 32 names, one request more than 64, or the
    /// run more than vslice keeps.
    pub error_ns: u64,
    /// `ran_ns` as a share of the wait, in [0, 1].
    pub share: f64,
}

/// A host thread with a name for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedThread {
    /// The thread.
    pub tid: Tid,
    /// `vm2 vCPU1`, `vm1 main loop`, `kworker/1:1`, `idle`; `tid 4711` where no name is known.
    pub name: String,
    /// How it relates to the vCPU that it is listed with.
    pub kind: Relation,
}

/// How a thread relates to a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Nobody: the pCPU was idle.
    Idle,
    /// The thread of another VM's vCPU.
    OtherVmVcpu,
    /// Another thread of another VM's VMM.
    OtherVmThread,
    /// The thread of another vCPU of the same VM, or of this vCPU itself.
    OwnVmVcpu,
    /// Another thread of the same VM's VMM.
    OwnVmThread,
    /// A thread of this vslice.
    Collector,
    /// A thread of another vslice.
    OtherVslice,
    /// A thread of the host's kernel.
    KernelThread,
    /// Any other task of the host.
    HostTask,
    /// Its name was never recorded.
    Unknown,
}

/// One of the slowest requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstRequest {
    /// The VM that made it.
    pub vm: String,
    /// The vCPU that it was submitted on.
    pub vcpu: VcpuId,
    /// Its index in order of submission.
    pub index: u64,
    /// Its submission, since the start of the measured window; negative if it was made before.
    pub start_ns: i64,
    /// How long it took.
    pub latency_ns: u64,
    /// Bytes read, or the negated errno.
    pub result: i32,
    /// By how many nanoseconds its ends may be off on the host's clock.
    pub clock_bound_ns: u64,
    /// Whether the parts can be trusted.
    pub attribution: AttributionName,
    /// Its latency by part.
    pub parts: PartTotals,
    /// By how much each part may be off because of clock errors; 0 unless the request is attributed.
    pub clock_error_ns: PartTotals,
    /// When the host had its I/O.
    pub io: Option<WorstIo>,
    /// Why that is unknown; `None` if it is known.
    pub io_unknown: Option<NoPhase>,
    /// What the vCPU's thread did meanwhile, in order of time.
    pub chain: Vec<ChainSpan>,
    /// How many spans are left out at the end of the chain.
    pub chain_cut_count: u64,
}

/// [`Attribution`] as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributionName {
    /// All of it lies on a known timeline.
    Attributed,
    /// It overlaps an interval in which records were lost.
    Lost,
    /// Its thread moved between vCPUs meanwhile.
    Moved,
    /// Which vCPU it waited for is not known, as its completion may have been sent to another.
    Steered,
    /// It lies, at least in part, outside what was recorded on the host.
    NotRecorded,
    /// Its times and vCPUs may be those of another request.
    Ambiguous,
    /// More was under way, or happened meanwhile, than vslice keeps.
    Forgotten,
}

impl From<Attribution> for AttributionName {
    fn from(attribution: Attribution) -> Self {
        match attribution {
            Attribution::Attributed => AttributionName::Attributed,
            Attribution::Lost => AttributionName::Lost,
            Attribution::Moved => AttributionName::Moved,
            Attribution::Steered => AttributionName::Steered,
            Attribution::NotRecorded => AttributionName::NotRecorded,
            Attribution::Ambiguous => AttributionName::Ambiguous,
            Attribution::Forgotten => AttributionName::Forgotten,
        }
    }
}

/// One span of a [`WorstRequest`]: what the host was doing to the vCPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChainSpan {
    /// When it begins, in nanoseconds since the request's submission.
    pub offset_ns: u64,
    /// Its length.
    pub length_ns: u64,
    /// The part that it counts towards; `on_pcpu` also for a timeslice for which `split` says more.
    pub part: Part,
    /// In whose code the thread was on its pCPU, if that was recorded.
    pub split: Option<ModeSplit>,
    /// Why the thread was off its pCPU, if it was.
    pub reason: Option<OffReason>,
    /// The lock that it slept on, as an address in the VMM.
    pub lock_address: Option<u64>,
    /// The device that the guest accessed, if that is why the VMM ran: its name or its address.
    pub device: Option<String>,
    /// The pCPU that the thread was on, was preempted on, or was woken for.
    pub pcpu: Option<PcpuId>,
    /// Who woke the thread, where it slept and the waking was seen.
    pub waker: Option<NamedThread>,
    /// Who ran while the thread waited, the longest first, at most [`ANTAGONISTS_MAX`].
    pub antagonists: Vec<Antagonist>,
    /// How long threads that are not listed ran, in nanoseconds.
    pub others_ns: u64,
    /// How long the pCPU was idle, in nanoseconds.
    pub idle_ns: u64,
    /// The kernel stack with which it left its pCPU, innermost frame first, at most [`CHAIN_FRAMES_MAX`]
    /// frames.
    pub stack: Vec<String>,
    /// Why the state is unknown, if `part` is `unknown`.
    pub why_unknown: Option<WhyUnknown>,
}

/// In whose code a thread was during a timeslice, in nanoseconds. For the rest of the timeslice's length that
/// was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeSplit {
    /// In the guest.
    pub guest_ns: u64,
    /// In KVM.
    pub kvm_ns: u64,
    /// In the VMM.
    pub vmm_ns: u64,
    /// In KVM, which polled for an idle guest.
    #[serde(default)]
    pub halt_poll_ns: u64,
    /// How often it exited from the guest within the timeslice.
    pub exits: u64,
}

/// Why a span is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyUnknown {
    /// Before the first event that tells of the thread.
    NotYetSeen,
    /// Records were lost.
    Lost,
    /// The thread had ended.
    Ended,
    /// It is not known which vCPU had to act.
    UnknownThread,
    /// The thread slept, but no stack was recorded.
    NoStack,
    /// The thread slept, and no rule matches its stack; the stack is kept.
    NoRule,
}

/// One hog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hog {
    /// The VM's name.
    pub vm: String,
    /// The vCPU that it is pinned to.
    pub vcpu: VcpuId,
    /// How far its loop counter advanced within the run.
    pub count: u64,
}

/// What the kernel dropped while it recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lost {
    /// Records dropped.
    pub records: u64,
    /// In how many intervals.
    pub intervals: u64,
    /// The part of the measured window in which events were lost on some pCPU, in nanoseconds.
    pub total_ns: u64,
}

/// How far a pCPU was busy in the measured window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcpuUse {
    /// The pCPU.
    pub pcpu: PcpuId,
    /// For how long it is known who was on it, in nanoseconds.
    pub seen_ns: u64,
    /// For how long of that nobody was.
    pub idle_ns: u64,
}

/// What the collector itself took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time of the collector's threads in the measured window.
    pub collector_cpu_ns: u64,
    /// How long these threads were runnable but not on a pCPU, summed, in nanoseconds.
    #[serde(default)]
    pub collector_run_delay_ns: u64,
    /// Host events recorded.
    pub events: u64,
    /// How many of them are events of KVM; most are exits and entries, if those were recorded.
    pub kvm_events: u64,
    /// Bytes written to the run directory.
    pub bytes: u64,
}
