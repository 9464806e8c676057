//! What a summary has of a vCPU's thread: timeslices, why it was off its pCPU, locks, exits, stacks.

use super::{Antagonist, NamedThread};
use crate::summary::group::AntagonistGroup;
use crate::summary::quota::QuotaUse;
use crate::summary::reason::OffReason;
use serde::{Deserialize, Serialize};
use vslice_core::timeline::Reason;
use vslice_core::units::{Tid, VcpuId};

/// How the thread of one vCPU was scheduled in the measured window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vcpu {
    /// The VM's name.
    pub vm: String,
    /// The vCPU.
    pub vcpu: VcpuId,
    /// Its thread on the host.
    pub tid: Tid,
    /// How much of the window is covered by spans of any state, in nanoseconds.
    pub observed_ns: u64,
    /// How long the thread was on a pCPU, cut timeslices included.
    pub on_pcpu_ns: u64,
    /// For how much of that KVM polled for an idle guest; `None` where that was not recorded, or nothing of it
    /// was seen.
    #[serde(default)]
    pub halt_poll_ns: Option<u64>,
    /// Its timeslices.
    pub timeslices: Timeslices,
    /// Why it was off its pCPU; one entry for every reason, even if it is 0.
    pub off_cpu: Vec<OffCpu>,
    /// What its CPU quotas did; `None` if none was used up or that is unknown.
    #[serde(default)]
    pub quota: Option<QuotaUse>,
    /// How long it waited for a pCPU: `preempt_wait` plus `wakeup_delay`.
    pub wait_ns: u64,
    /// Who ran there meanwhile, the longest first, at most [`ANTAGONISTS_MAX`](super::ANTAGONISTS_MAX).
    pub antagonists: Vec<Antagonist>,
    /// How long threads that are not listed ran, in nanoseconds.
    pub others_ns: u64,
    /// The same by groups, at most [`ANTAGONISTS_MAX`](super::ANTAGONISTS_MAX).
    #[serde(default)]
    pub antagonist_groups: Vec<AntagonistGroup>,
    /// How long groups that are not listed ran, in nanoseconds.
    #[serde(default)]
    pub other_groups_ns: u64,
    /// How long the pCPU was idle, in nanoseconds.
    pub idle_ns: u64,
    /// The part of `wait_ns` for which it is unknown who ran.
    pub unseen_ns: u64,
}

/// The timeslices of one vCPU thread whose start and end were both seen, in nanoseconds. All `None` if there
/// are none. Percentiles are upper edges of buckets that are at most 0.1 % wide.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Timeslices {
    /// How many.
    pub count: u64,
    /// Their mean, rounded.
    pub mean_ns: Option<u64>,
    /// Coefficient of variation: sample standard deviation over mean. `None` for fewer than two
    /// timeslices, or a mean of 0.
    pub cv: Option<f64>,
    /// The 10th percentile.
    pub p10_ns: Option<u64>,
    /// The median.
    pub p50_ns: Option<u64>,
    /// The 90th percentile.
    pub p90_ns: Option<u64>,
    /// The 99th percentile.
    pub p99_ns: Option<u64>,
    /// The longest.
    pub max_ns: Option<u64>,
}

/// One reason for being off a pCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffCpu {
    /// The reason.
    pub reason: OffReason,
    /// How many spans.
    pub count: u64,
    /// Their total length.
    pub total_ns: u64,
    /// The longest of them.
    pub max_ns: Option<u64>,
}

/// The waits of one vCPU for one kind of lock, by the thread that released it and by device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LockWaits {
    /// The VM.
    pub vm: String,
    /// The vCPU that waited.
    pub vcpu: VcpuId,
    /// `bql`, `bql_found_by_behaviour`, `bql_inferred`, `qemu_lock` or `vmm_lock`.
    pub reason: Reason,
    /// The thread that released the lock.
    pub released_by: NamedThread,
    /// The device that the vCPU accessed and needed the lock for: its name if QEMU's memory map tells, else
    /// its address; `None` if it was not recorded.
    pub device: Option<String>,
    /// How many waits.
    pub count: u64,
    /// Their total length, from going to sleep to being woken.
    pub total_ns: u64,
    /// The longest of them.
    pub max_ns: u64,
    /// For how many waits it is certain how long the lock had been held.
    pub held_count: u64,
    /// How long the lock had been held, summed over those, in nanoseconds.
    pub held_ns: u64,
}

/// The exits of one vCPU for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exits {
    /// The VM.
    pub vm: String,
    /// The vCPU.
    pub vcpu: VcpuId,
    /// Where the exit leads from.
    pub kind: ExitKind,
    /// The kernel's name of the reason, or its number; `others` for those beyond [`EXITS_MAX`](super::EXITS_MAX).
    pub reason: String,
    /// How many exits after which the guest was entered again.
    pub count: u64,
    /// Their total length until then: the sum of `kvm_ns`, `vmm_ns` and `off_ns`.
    pub total_ns: u64,
    /// The longest of them.
    pub max_ns: u64,
    /// Their time on a pCPU in KVM.
    pub kvm_ns: u64,
    /// Their time on a pCPU in the VMM, including the way back through KVM.
    pub vmm_ns: u64,
    /// Their time off the pCPU.
    pub off_ns: u64,
}

/// Where an exit leads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitKind {
    /// Out of the guest, by a reason of the hardware.
    Hardware,
    /// Out of KVM to the VMM, within a hardware exit.
    Userspace,
}

/// One kernel stack with which vCPU threads left their pCPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackTotal {
    /// Why the threads left.
    pub reason: OffReason,
    /// How many.
    pub count: u64,
    /// Their total length.
    pub total_ns: u64,
    /// Symbols, innermost first; if there is no stack, one entry in parentheses says why.
    pub frames: Vec<String>,
}
