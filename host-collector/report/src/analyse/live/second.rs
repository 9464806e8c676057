//! What a second of a recording comes to: the one value that the terminal, the lines of JSON and the metrics are made
//! of. `schema.md` beside this file lists every key, and a test holds the two together.

use crate::summary::OffReason;
use crate::summary::group::GroupKind;
use serde::Serialize;
use vslice_core::timeline::UnknownCause;
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};

/// The schema of a line.
pub const SCHEMA: &str = "vslice.top/1";

/// Groups of antagonists that a VM's second tells apart; the others are added up.
pub const GROUPS_MAX: usize = 16;

/// One second, or what was left of one when the recording ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Second {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Which one it is, counted from 0.
    pub number: u64,
    /// When it was told, on the host's clock of the day: nanoseconds since 1970; `None` if that was not read.
    pub realtime_ns: Option<u64>,
    /// When it began, on the clock of the host's records.
    pub start_ns: HostNs,
    /// How long it was.
    pub length_ns: u64,
    /// The VMs, in the order in which they were asked for.
    pub vms: Vec<VmSecond>,
    /// What was lost of it.
    pub losses: Losses,
    /// What it cost.
    pub cost: OwnCost,
    /// What a hypervisor below this host kept of its pCPUs' time, all added up; `None` if the kernel does not say.
    pub stolen_ns: Option<u64>,
}

/// What is known to be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Losses {
    /// Records for which the kernel had no room.
    pub lost_events: u64,
    /// Events that vslice left out, as it had not done with those before.
    pub left_out_events: u64,
    /// Events that came after later ones had been taken, and count from then.
    pub late_events: u64,
    /// Seconds before this one that nobody took, and that were let go.
    pub dropped_seconds: u64,
}

/// How events can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// The kernel had no room.
    Lost,
    /// vslice left them out.
    LeftOut,
    /// They are not missing, but came late.
    Late,
}

impl Losses {
    /// The events by how they are missing.
    #[must_use]
    pub fn kinds(&self) -> [(LossKind, u64); 3] {
        [
            (LossKind::Lost, self.lost_events),
            (LossKind::LeftOut, self.left_out_events),
            (LossKind::Late, self.late_events),
        ]
    }
}

/// What vslice itself took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct OwnCost {
    /// CPU time of this vslice; `None` if that was not read.
    pub cpu_ns: Option<u64>,
    /// Events that were recorded.
    pub events: u64,
}

/// A second of one VM.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VmSecond {
    /// Its name in a run directory.
    pub name: String,
    /// Its vCPUs.
    pub vcpus: Vec<VcpuSecond>,
    /// Who ran while its vCPUs waited for a pCPU, by groups, the longest first, at most [`GROUPS_MAX`].
    pub antagonists: Vec<GroupSecond>,
    /// For how long more groups ran, or threads that are not told apart.
    pub others_ns: u64,
    /// For how long nobody ran there.
    pub idle_ns: u64,
    /// For how long it is not known who did. These three and what the groups ran is for how long its vCPUs waited.
    pub unseen_ns: u64,
    /// For how long KVM polled for the VM's halted vCPUs, by its own count; `None` if that was not read.
    pub halt_poll_ns: Option<u64>,
    /// The host's I/O for its disks, by disk and operation.
    pub host_io: Vec<HostIoSecond>,
    /// The block requests of its guest as the guest saw them; `None` if it is not observed.
    pub observed: Option<ObservedSecond>,
}

/// A second of one vCPU. Its parts add up to the second's length, exactly.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VcpuSecond {
    /// Which one.
    pub vcpu: VcpuId,
    /// Its thread.
    pub tid: Tid,
    /// On a pCPU.
    pub running_ns: u64,
    /// Runnable, without a pCPU.
    pub waiting_ns: u64,
    /// Asleep.
    pub asleep_ns: u64,
    /// Kept off, as its control group had used up a quota.
    pub throttled_ns: u64,
    /// Not known.
    pub unknown_ns: u64,
    /// `running_ns` by whose code ran; `None` where entries into the guest and exits from it are not recorded.
    pub modes: Option<Modes>,
    /// `waiting_ns` by why it had lost its pCPU, the longest first.
    pub waiting_by: Vec<ReasonNs>,
    /// `asleep_ns` by what it slept for, the longest first.
    pub asleep_by: Vec<ReasonNs>,
    /// `unknown_ns` by why it is not known.
    pub unknown_by: Vec<UnknownNs>,
    /// The longest wait for a pCPU that ended in this second or goes on.
    pub worst_wait: Option<WorstWait>,
    /// Sleeps on locks of its VMM that ended in this second.
    pub lock_waits: LockWaits,
    /// What KVM adds to the steal time that the guest may read: the kernel's own count of its thread's run delay.
    /// `None` if that was not read.
    pub steal_ns: Option<u64>,
}

impl VcpuSecond {
    /// All its parts together.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        let parts = [self.running_ns, self.waiting_ns, self.asleep_ns, self.throttled_ns];
        parts.iter().sum::<u64>() + self.unknown_ns
    }
}

/// In whose code a thread ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Modes {
    /// In the guest.
    pub guest_ns: u64,
    /// In KVM.
    pub kvm_ns: u64,
    /// In KVM, polling for a guest that is halted. Polling before a sleep that was not over by the second's end
    /// counts in KVM.
    pub halt_poll_ns: u64,
    /// In the VMM.
    pub vmm_ns: u64,
    /// Before its first entry or exit.
    pub unsplit_ns: u64,
}

/// For how long it was off a pCPU for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReasonNs {
    /// The reason, as in a summary.
    pub reason: OffReason,
    /// For how long.
    pub ns: u64,
}

/// For how long nothing is known for one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UnknownNs {
    /// `not_yet_seen`, `lost`, `ended` or `unknown_thread`.
    #[serde(serialize_with = "cause_name")]
    pub cause: UnknownCause,
    /// For how long.
    pub ns: u64,
}

/// The name of a cause in JSON.
#[must_use]
pub fn unknown_name(cause: UnknownCause) -> &'static str {
    match cause {
        UnknownCause::NotYetSeen => "not_yet_seen",
        UnknownCause::Lost => "lost",
        UnknownCause::Ended => "ended",
        UnknownCause::UnknownThread => "unknown_thread",
    }
}

fn cause_name<S: serde::Serializer>(cause: &UnknownCause, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(unknown_name(*cause))
}

/// A wait for a pCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorstWait {
    /// Its length, from its start, which may lie in an earlier second; until the second's end if it goes on.
    pub length_ns: u64,
    /// Whether it goes on.
    pub goes_on: bool,
    /// Why the thread had lost its pCPU, or that it had been woken.
    pub reason: OffReason,
    /// The pCPU that it waited for.
    pub pcpu: PcpuId,
    /// Who ran there longest meanwhile; `None` if nobody did as far as is known.
    pub by: Option<Runner>,
}

/// Somebody who ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Runner {
    /// What it is called.
    pub name: String,
    /// For how long.
    pub ran_ns: u64,
}

/// Sleeps on locks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LockWaits {
    /// How many.
    pub count: u64,
    /// How long they were, added up, from their starts.
    pub total_ns: u64,
    /// The longest.
    pub worst: Option<WorstLockWait>,
}

/// A sleep on a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorstLockWait {
    /// How long it was.
    pub length_ns: u64,
    /// Which lock, as far as is known.
    pub reason: OffReason,
    /// Who let go of it.
    pub released_by: String,
}

/// A group of antagonists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupSecond {
    /// What its members have in common.
    pub kind: GroupKind,
    /// What it is called.
    pub name: String,
    /// For how long they ran while vCPUs of the VM waited.
    pub ran_ns: u64,
}

/// The host's I/O for one disk of a VM, of one operation, of which all was known in this second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostIoSecond {
    /// The disk's place among the VM's; `None` if it is not known which it is for.
    pub disk: Option<usize>,
    /// The host's disk.
    pub device: Option<String>,
    /// `read`, `write`, `flush`, `discard`, `other`, or `unknown`.
    pub operation: &'static str,
    /// How many ended, and from handed to the host to done.
    pub latency: LatencySecond,
    /// How many of which no end is known.
    pub no_end: u64,
    /// Of how many it is known for how long they were done and no vCPU there to take them.
    pub inactivity_known: u64,
    /// For how long those were, at least.
    pub inactivity_least_ns: u64,
    /// For how long, at most.
    pub inactivity_most_ns: u64,
}

/// Latencies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LatencySecond {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub total_ns: u64,
    /// The median; `None` where there are none.
    pub p50_ns: Option<u64>,
    /// The 99th percentile.
    pub p99_ns: Option<u64>,
    /// The longest.
    pub max_ns: Option<u64>,
    /// How many were no longer than each of [`super::LATENCY_BOUNDS_NS`].
    #[serde(skip)]
    pub within: [u64; super::LATENCY_BOUNDS_NS.len()],
}

/// Observed requests that came from a guest in this second.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ObservedSecond {
    /// By operation.
    pub operations: Vec<ObservedOperation>,
}

/// Those of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObservedOperation {
    /// `read`, `write`, `flush`, `discard` or `other`.
    pub operation: &'static str,
    /// From queued to completed, by the guest's clock.
    pub latency: LatencySecond,
}
