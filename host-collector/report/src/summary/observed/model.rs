//! What a summary has of observed requests.

use crate::summary::causes::Cause;
use crate::summary::io::{IoClass, WorstIo};
use crate::summary::members::Members;
use crate::summary::model::{AttributionName, ChainSpan, Class, LatencyNs, UnattributableBy};
use crate::summary::totals::{ByClass, PartTotals, sum};
use crate::summary::what_if::WhatIf;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vslice_core::join::{NoPhase, Phase};
use vslice_core::units::VcpuId;
use vslice_spec::quantity::counted;
use vslice_wire::{BlockOperation, ObservedFlags};

/// Rows of [`Observed::operations`] for each guest at most.
pub const OPERATIONS_MAX: usize = 24;

/// Rows of [`ObservedOperation::processes`] at most.
pub const PROCESSES_MAX: usize = 8;

/// Entries of [`ObservedOperation::worst`] at most.
pub const WORST_MAX: usize = 3;

/// Block requests that agents observed in their guests, whoever made them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// The place in `operations` of the one that matters most, see [`ObservedOperation::matters_ns`]; `None` if
    /// no request has a latency.
    pub answer: Option<usize>,
    /// What was observed in each guest.
    pub guests: Vec<ObservedGuest>,
    /// The requests, by VM, device and operation: first those that somebody waits for, and of these those that
    /// matter most.
    pub operations: Vec<ObservedOperation>,
}

/// What was observed in one guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ObservedGuest {
    /// The VM.
    pub vm: String,
    /// Why nothing of it was looked at, as a sentence without its full stop; `None` if something was.
    pub unobserved: Option<String>,
    /// Its requests that were recorded.
    pub count: u64,
    /// Requests that took less than this many microseconds were not sent; 0: all were.
    pub slower_than_us: u64,
    /// How many were not sent for that reason.
    pub faster: u64,
    /// Recorded requests that are in no row of `operations`, as the guest has more devices than are told apart.
    pub beyond: u64,
    /// Events of the guest's kernel that were not recorded.
    pub lost_events: u64,
    /// In how many intervals.
    pub lost_intervals: u64,
    /// Its disks.
    pub devices: Vec<ObservedDisk>,
    /// What observing cost it; `None` if it did not say so.
    pub cost: Option<ObservedCost>,
    /// What it said when observing ended; `None` if it did not come to that.
    pub end: Option<ObservedEnd>,
    /// How far the stamps of vslice's own reader and those of the same requests in the guest's kernel agree;
    /// `None` if it had no reader.
    pub reader: Option<ReaderCheck>,
}

/// What is known of requests that are not among those recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObservedEnd {
    /// Requests that were under way when observing ended.
    pub under_way_count: u64,
    /// The same by device and operation: first those that somebody waits for, and of these those with the oldest;
    /// at most [`OPERATIONS_MAX`].
    pub under_way: Vec<UnderWay>,
    /// Requests that were under way when observing began.
    pub earlier: u64,
    /// Requests that are no block I/O: commands of SCSI and NVMe, for instance.
    pub passthrough: u64,
    /// Events that came too late to be told apart; what they may have been of is lost.
    pub late_events: u64,
    /// Events that the guest's kernel hid from its agent; `None` if the agent did not look, as older ones.
    pub hidden: Option<ObservedHidden>,
}

/// Events of block requests that a guest's kernel counted and recorded nothing of, nor told that it lost them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObservedHidden {
    /// That a request was asked for.
    pub queued: u64,
    /// That the driver got one.
    pub issued: u64,
    /// That one, or a part of it, was done.
    pub completed: u64,
    /// That one was sent on, refused or given back.
    pub others: u64,
    /// Whether that is all; else it is as many at least.
    pub is_exact: bool,
}

impl ObservedHidden {
    /// All of them.
    #[must_use]
    pub fn events(&self) -> u64 {
        sum([self.queued, self.issued, self.completed, self.others])
    }

    /// What they are: `13 completions and 1 issue`; `None` if there are none.
    #[must_use]
    pub fn named(&self) -> Option<String> {
        let all = [
            (self.completed, "completion"),
            (self.issued, "issue"),
            (self.queued, "submission"),
            (self.others, "other event"),
        ];
        let there = all.into_iter().filter(|(number, _)| *number > 0);
        let named: Vec<String> = there.map(|(number, what)| counted(number, what)).collect();
        let (last, before) = named.split_last()?;
        let at_least = if self.is_exact { "" } else { "at least " };
        Some(match before {
            [] => format!("{at_least}{last}"),
            _ => format!("{at_least}{} and {last}", before.join(", ")),
        })
    }
}

/// Requests of one device and operation that were under way when observing ended, and the oldest of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// The guest's name for the device.
    pub device: String,
    /// What they do.
    pub operation: Operation,
    /// Whether somebody waits for them.
    pub is_sync: bool,
    /// How many there were.
    pub count: u64,
    /// Who asked for the oldest.
    pub process: String,
    /// Its process id in the guest.
    pub pid: Option<u32>,
    /// The first of its sectors of 512 bytes.
    pub sector: u64,
    /// Its length.
    pub bytes: u64,
    /// How long before the end it was queued, by the guest's clock.
    pub age_ns: u64,
    /// How far it was.
    pub state: UnderWayState,
    /// When it was handed to the disk's driver, in nanoseconds since it was queued.
    pub issued_ns: Option<u64>,
    /// Whether its end may be among the events that the guest's kernel hid.
    pub may_have_ended: bool,
    /// Whether it is older than any like it that was completed took, and than 10 ms, and cannot have ended.
    pub is_stalled: bool,
}

/// How far a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnderWayState {
    /// It waited in the guest's own queue.
    GuestQueue,
    /// The disk's driver had it.
    Issued,
    /// It was a flush, or a write that has a flush before it, of which no event says so.
    Unknown,
}

/// A disk whose requests were observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedDisk {
    /// The guest's name for it.
    pub name: String,
    /// Its size in bytes, if the guest could read that.
    pub size_bytes: Option<u64>,
    /// The I/O scheduler of its queue, if the guest could read that.
    pub io_scheduler: Option<String>,
    /// How many hardware queues it has, if the guest could read that.
    pub hardware_queues: Option<u16>,
    /// On which vCPU the guest completes its requests: on the one that took the interrupt (`interrupted`), on that or the one
    /// that asked for the request (`interrupted_or_queued`), on the latter (`queued`), or `unknown`.
    pub completion_vcpu: String,
    /// The host's disk that it is on.
    pub host_disk: Option<String>,
    /// Why that is unknown, as a sentence without its full stop.
    pub host_disk_unknown: Option<String>,
}

/// What observing cost a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCost {
    /// The agent's time on vCPUs. What the guest's kernel took to record is not in it.
    pub cpu_ns: u64,
    /// The same for each request, sent or not; `None` if there was none.
    pub cpu_ns_per_request: Option<u64>,
    /// Events that the guest's kernel recorded.
    pub events: u64,
    /// What one reading of the guest's clock took, at best.
    pub clock_read_ns: u64,
}

/// Requests of vslice's own reader, held against the observed ones of the same sectors. A request of the
/// reader contains that of the kernel: it begins before, and ends after it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReaderCheck {
    /// Why nothing could be held against anything, as a sentence without its full stop.
    pub unchecked: Option<String>,
    /// Requests of the reader that one observed request was found for.
    pub matched: u64,
    /// Of them, those that do not contain it, by more than the clock error.
    pub violations: u64,
    /// By how many nanoseconds more at worst.
    pub worst_ns: u64,
    /// Requests of the reader that none was found for.
    pub unmatched: u64,
    /// From submission by the reader to queueing in the kernel; less than nothing, which the clock error
    /// allows, counts as 0.
    pub before_ns: LatencyNs,
    /// From completion in the kernel to the reader's seeing it.
    pub after_ns: LatencyNs,
}

/// An operation, as summaries write it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It makes durable what was written.
    Flush,
    /// It gives sectors back.
    Discard,
    /// Anything else.
    Other,
}

impl From<BlockOperation> for Operation {
    fn from(operation: BlockOperation) -> Operation {
        match operation {
            BlockOperation::Read => Operation::Read,
            BlockOperation::Write => Operation::Write,
            BlockOperation::Flush => Operation::Flush,
            BlockOperation::Discard => Operation::Discard,
            BlockOperation::Other => Operation::Other,
        }
    }
}

impl Operation {
    /// What one that somebody waits for, or nobody, is called on a page: `sync write`.
    #[must_use]
    pub fn label(self, is_sync: bool) -> &'static str {
        match (self, is_sync) {
            (Operation::Read, _) => "read",
            (Operation::Write, true) => "sync write",
            (Operation::Write, false) => "write-back",
            (Operation::Flush, _) => "flush",
            (Operation::Discard, _) => "discard",
            (Operation::Other, true) => "other, sync",
            (Operation::Other, false) => "other",
        }
    }

    /// Several of them in a sentence.
    #[must_use]
    pub fn plural(self, is_sync: bool) -> &'static str {
        match (self, is_sync) {
            (Operation::Read, _) => "reads",
            (Operation::Write, true) => "sync writes",
            (Operation::Write, false) => "write-backs",
            (Operation::Flush, _) => "flushes",
            (Operation::Discard, _) => "discards",
            (Operation::Other, _) => "other requests",
        }
    }
}

/// The requests of one device and operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedOperation {
    /// The VM.
    pub vm: String,
    /// The guest's name for the device.
    pub device: String,
    /// What they do.
    pub operation: Operation,
    /// Whether somebody waits for them, as the kernel tells it: reads, flushes, and what is marked so.
    pub is_sync: bool,
    /// Requests that were recorded.
    pub count: u64,
    /// Those that were not sent, as they were faster than asked for.
    pub faster: u64,
    /// How long these took together, by the guest's clock.
    pub faster_ns: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Recorded requests that failed.
    pub errors: u64,
    /// Those that the guest's kernel made of several, maybe of several processes'.
    pub merged: u64,
    /// Those that their driver gave back and got again.
    pub requeued: u64,
    /// Those of which it was not seen when they were queued: they have no guest queue.
    pub no_queue_time: u64,
    /// Recorded requests that could not be attributed to causes, by reason.
    pub unattributable_by: UnattributableBy,
    /// The vCPUs that queued, issued or completed any of them.
    pub vcpus: Vec<VcpuId>,
    /// By how many nanoseconds their times may be off on the host's clock, at most; `None` if none has any.
    pub bound_ns: Option<u64>,
    /// What the answer goes by: how long the slowest hundredth of all of them took together, at least one; of
    /// those that were sent, if these are fewer.
    pub matters_ns: u64,
    /// Their latencies from queued to completed, those that were not sent included. What these leave unknown is
    /// `None`.
    pub latency_ns: LatencyNs,
    /// Where their time went, as in a summary's own `parts`.
    pub parts: ByClass<PartTotals>,
    /// As in a summary.
    pub clock_error_ns: ByClass<PartTotals>,
    /// As in a summary. `wait_ns` is only of phases in which a request may have waited for the vCPU. A class
    /// whose threshold is unknown is empty.
    pub classes: ByClass<Class>,
    /// As in a summary's `io.classes`.
    pub io: ByClass<IoClass>,
    /// As in a summary.
    pub causes: ByClass<Vec<Cause>>,
    /// As in a summary.
    #[serde(default)]
    pub what_if: Option<WhatIf>,
    /// Who made them: those that suffered most of what the answer goes by, at most [`PROCESSES_MAX`].
    pub processes: Vec<ObservedProcess>,
    /// Those of all other processes.
    pub other_processes: ByClass<ProcessTotals>,
    /// The slowest of them, at most [`WORST_MAX`].
    pub worst: Vec<WorstObserved>,
}

/// The requests of one operation of all processes of one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedProcess {
    /// What the processes call themselves, `postgres: checkpointer`; else the thread's name, `fio`.
    pub name: String,
    /// The process id in the guest of the one that made the slowest of them.
    pub pid: Option<u32>,
    /// How many processes of this name made some.
    pub processes: Members,
    /// Recorded requests.
    pub count: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Those of them that the guest's kernel made of several: some may be other processes'.
    pub merged: u64,
    /// Their latencies; where some were not sent, only `max` is known.
    pub latency_ns: LatencyNs,
    /// What those that could be attributed come to, by the classes of the operation.
    pub classes: ByClass<ProcessTotals>,
}

/// What attributed requests of a process come to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessTotals {
    /// How many.
    pub count: u64,
    /// Their total latency.
    pub latency_ns: u64,
    /// The same by phase.
    pub phases_ns: BTreeMap<Phase, u64>,
    /// Their I/O inactivity.
    pub inactivity_ns: u64,
    /// For how long of it they waited for a pCPU.
    pub wait_ns: u64,
}

/// One of the slowest requests of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstObserved {
    /// Who made it.
    pub process: String,
    /// Its process id in the guest.
    pub pid: Option<u32>,
    /// The first of its sectors of 512 bytes.
    pub sector: u64,
    /// Its length.
    pub bytes: u64,
    /// What else the guest's kernel said of it: `sync`, `meta`, `fua`, `preflush`, `read_ahead`, `merged`, `requeued`,
    /// `ambiguous`, `overlapped`, `no_queue_time`.
    pub flags: Vec<String>,
    /// When it was queued, since the start of the measured window; negative if it was before.
    pub start_ns: i64,
    /// How long it took.
    pub latency_ns: u64,
    /// When it was handed to the disk's driver, in nanoseconds since it was queued.
    pub issued_ns: Option<u64>,
    /// 0, or the negated errno.
    pub result: i32,
    /// The vCPU that queued it: over it the guest queue was laid.
    pub vcpu_queued: VcpuId,
    /// The vCPU that issued it: over it everything was laid until the host's I/O was done.
    pub vcpu_issued: VcpuId,
    /// The vCPU that completed it.
    pub vcpu_completed: VcpuId,
    /// The vCPU that took its interrupt: over it everything was laid once the host's I/O was done; `None` if it is
    /// not known.
    pub vcpu_interrupted: Option<VcpuId>,
    /// By how many nanoseconds its times may be off on the host's clock.
    pub clock_bound_ns: u64,
    /// Whether the parts can be trusted.
    pub attribution: AttributionName,
    /// Its latency by part.
    pub parts: PartTotals,
    /// When the host had its I/O.
    pub io: Option<WorstIo>,
    /// Why that is unknown; `None` if it is known.
    pub io_unknown: Option<NoPhase>,
    /// What the vCPUs' threads did meanwhile, in order of time.
    pub chain: Vec<ObservedSpan>,
    /// How many spans are left out at the end of the chain.
    pub chain_cut_count: u64,
}

/// One span of a [`WorstObserved`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservedSpan {
    /// The vCPU whose thread it is of; `None` if it is of none.
    pub vcpu: Option<VcpuId>,
    /// As in a summary's `worst`.
    #[serde(flatten)]
    pub span: ChainSpan,
}

/// The names of flags, in the order in which they are told.
const FLAGS: [(ObservedFlags, &str); 10] = [
    (ObservedFlags::SYNC, "sync"),
    (ObservedFlags::META, "meta"),
    (ObservedFlags::FUA, "fua"),
    (ObservedFlags::PREFLUSH, "preflush"),
    (ObservedFlags::READ_AHEAD, "read_ahead"),
    (ObservedFlags::MERGED, "merged"),
    (ObservedFlags::REQUEUED, "requeued"),
    (ObservedFlags::AMBIGUOUS, "ambiguous"),
    (ObservedFlags::OVERLAPPED, "overlapped"),
    (ObservedFlags::NO_QUEUE_TIME, "no_queue_time"),
];

/// Those of a request that have a name.
pub(super) fn flag_names(flags: ObservedFlags) -> Vec<String> {
    let set = FLAGS.into_iter().filter(|(flag, _)| flags.contains(*flag));
    set.map(|(_, name)| name.to_owned()).collect()
}

impl ObservedOperation {
    /// What it is called on a page: `sync write`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.operation.label(self.is_sync)
    }

    /// Several of them in a sentence.
    #[must_use]
    pub fn plural(&self) -> &'static str {
        self.operation.plural(self.is_sync)
    }

    /// Requests whose latencies are known.
    #[must_use]
    pub fn placed(&self) -> u64 {
        self.classes.all.count.saturating_add(self.classes.all.unattributable)
    }

    /// Whether the answer is about the requests above the 99th percentile; else about all that were recorded.
    #[must_use]
    pub fn has_tail(&self) -> bool {
        self.classes.p99.count.saturating_add(self.classes.p99.unattributable) > 0
    }
}
