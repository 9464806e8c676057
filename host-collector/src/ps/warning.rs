//! Placements on a host that cost its guests latency.

mod find;
mod quota;

use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use vslice_core::units::PcpuId;
use vslice_host::vm::Vm;
use vslice_spec::quantity::{bytes, counted, duration};

pub(super) use find::{all, labels};

/// Something about a placement that costs latency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum PlacementWarning {
    /// There are more vCPUs than pCPUs, so vCPUs wait for each other.
    Overcommit {
        /// vCPUs of all VMs.
        vcpus: usize,
        /// pCPUs that are online.
        pcpus: usize,
    },
    /// Several vCPUs are pinned to the same single pCPU.
    SharedPcpu {
        /// The pCPU.
        pcpu: PcpuId,
        /// The vCPUs that are pinned to it.
        vcpus: Vec<VcpuOfVm>,
    },
    /// An iothread can only run on pCPUs to which vCPUs are pinned: each request that it serves takes the
    /// pCPU from the vCPU, or waits for it.
    IothreadOnVcpu {
        /// The VM of the iothread.
        vm: String,
        /// The iothread.
        iothread: String,
        /// The pCPU.
        pcpu: PcpuId,
        /// The vCPU that is pinned there.
        vcpu: VcpuOfVm,
    },
    /// A thread that works for a VM can only run on pCPUs to which vCPUs are pinned: a vhost thread, KVM's timer,
    /// the server of a device.
    HelperOnVcpu {
        /// The VM that it works for.
        vm: String,
        /// The name of the thread.
        helper: String,
        /// The pCPU.
        pcpu: PcpuId,
        /// The vCPU that is pinned there.
        vcpu: VcpuOfVm,
    },
    /// vCPUs of different VMs are pinned to threads of the same core (SMT).
    SharedCore {
        /// The pairs, each with its pCPUs.
        pairs: Vec<[PinnedVcpu; 2]>,
    },
    /// Iothreads serve no device.
    IdleIothreads {
        /// The VM.
        vm: String,
        /// The iothreads.
        iothreads: Vec<String>,
    },
    /// Most of a VM's memory is on other NUMA nodes than its vCPUs.
    RemoteMemory {
        /// The VM.
        vm: String,
        /// The node of its vCPUs.
        node: u32,
        /// What is on other nodes.
        remote_bytes: u64,
        /// All of it.
        total_bytes: u64,
    },
    /// KVM polls when a vCPU halts, at the cost of a quota.
    HaltPolling {
        /// For how long, at most.
        halt_poll_ns: u64,
        /// The group whose quota it uses up.
        group: PathBuf,
        /// The vCPUs that it limits.
        vcpus: Vec<VcpuOfVm>,
    },
    /// A control group's CPU quota is less than its vCPUs could use.
    Quota {
        /// The group's directory.
        group: PathBuf,
        /// The vCPUs in the group and below it.
        vcpus: Vec<VcpuOfVm>,
        /// The quota, in microseconds per period.
        quota_us: u64,
        /// The period, in microseconds.
        period_us: u64,
        /// The number of periods since the group was created in which the quota was used up; `None` if
        /// the kernel does not count them.
        throttled_count: Option<u64>,
    },
    /// A VMM's process is stopped.
    Stopped {
        /// The VM.
        vm: String,
        /// The notice about it, as a sentence.
        what: String,
    },
    /// The threads that run the vCPUs cannot be identified.
    UnknownVcpus {
        /// The VM.
        vm: String,
        /// What to do.
        #[serde(skip)]
        advice: &'static str,
    },
}

/// A VM, and what to call it where there may be others.
struct Seen<'a> {
    vm: &'a Vm,
    label: String,
}

/// A vCPU of some VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct VcpuOfVm {
    /// The VM's label.
    pub vm: String,
    /// `vCPU1`.
    pub vcpu: String,
}

/// A vCPU that is pinned to one pCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PinnedVcpu {
    /// The vCPU.
    pub vcpu: VcpuOfVm,
    /// The pCPU.
    pub pcpu: PcpuId,
}

impl fmt::Display for PinnedVcpu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} on {}", self.vcpu, self.pcpu)
    }
}

impl fmt::Display for VcpuOfVm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.vm, self.vcpu)
    }
}

impl PlacementWarning {
    /// Whether the warning is about the VM with this label.
    #[must_use]
    pub(crate) fn concerns(&self, label: &str) -> bool {
        match self {
            PlacementWarning::Overcommit { .. } => true,
            PlacementWarning::SharedPcpu { vcpus, .. }
            | PlacementWarning::Quota { vcpus, .. }
            | PlacementWarning::HaltPolling { vcpus, .. } => {
                vcpus.iter().any(|vcpu| vcpu.vm == label)
            }
            PlacementWarning::SharedCore { pairs } => {
                pairs.iter().flatten().any(|pinned| pinned.vcpu.vm == label)
            }
            PlacementWarning::IothreadOnVcpu { vm, vcpu, .. }
            | PlacementWarning::HelperOnVcpu { vm, vcpu, .. } => vm == label || vcpu.vm == label,
            PlacementWarning::Stopped { vm, .. }
            | PlacementWarning::UnknownVcpus { vm, .. }
            | PlacementWarning::IdleIothreads { vm, .. }
            | PlacementWarning::RemoteMemory { vm, .. } => vm == label,
        }
    }
}

impl PlacementWarning {
    fn write_quota(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlacementWarning::Quota { group, vcpus, quota_us, period_us, throttled_count } = self
        else {
            return Ok(());
        };
        let (who, they) = limited(vcpus);
        let [quota, period] = [quota_us, period_us].map(|us| duration(us.saturating_mul(1000)));
        write!(
            formatter,
            "{} limits {who} to {quota} of CPU time per {period}: when that is used up, {they} until the next \
            period",
            group.display()
        )?;
        match throttled_count {
            Some(1) => write!(formatter, ", as in 1 period so far"),
            Some(count @ 2..) => write!(formatter, ", as in {count} periods so far"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for PlacementWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlacementWarning::Overcommit { vcpus, pcpus } => write!(
                formatter,
                "{vcpus} vCPUs share {pcpus} pCPUs: when all of them are busy, they wait for each other"
            ),
            PlacementWarning::SharedPcpu { pcpu, vcpus } => {
                let vcpus: Vec<String> = vcpus.iter().map(ToString::to_string).collect();
                write!(formatter, "{} are pinned to the same pCPU, {pcpu}", vcpus.join(" and "))
            }
            PlacementWarning::IothreadOnVcpu { vm, iothread, pcpu, vcpu } => write!(
                formatter,
                "iothread {iothread} of {vm} can only run on {pcpu}, where {vcpu} is pinned: they \
                preempt each other or wait"
            ),
            PlacementWarning::HelperOnVcpu { vm, helper, pcpu, vcpu } => write!(
                formatter,
                "{helper}, which works for {vm}, can only run on {pcpu}, where {vcpu} is pinned: they preempt each \
                other or wait"
            ),
            PlacementWarning::SharedCore { pairs } => shared_core(formatter, pairs),
            PlacementWarning::IdleIothreads { vm, iothreads } => idle(formatter, vm, iothreads),
            PlacementWarning::RemoteMemory { vm, node, remote_bytes, total_bytes } => write!(
                formatter,
                "the vCPUs of {vm} run on NUMA node {node}, but {} of its {} of memory are on other nodes: each \
                access goes over the link between them",
                bytes(*remote_bytes),
                bytes(*total_bytes)
            ),
            PlacementWarning::HaltPolling { halt_poll_ns, group, vcpus } => {
                let mut vms: Vec<&str> = vcpus.iter().map(|vcpu| vcpu.vm.as_str()).collect();
                vms.dedup();
                write!(
                    formatter,
                    "KVM may poll for up to {} each time a vCPU of {} halts (kvm.halt_poll_ns): the quota of {} is \
                    also used up by that",
                    duration(*halt_poll_ns),
                    vms.join(" or "),
                    group.display()
                )
            }
            PlacementWarning::Quota { .. } => self.write_quota(formatter),
            PlacementWarning::Stopped { what, .. } => formatter.write_str(what),
            PlacementWarning::UnknownVcpus { vm, advice } => {
                write!(formatter, "cannot tell which threads of {vm} run its vCPUs: {advice}")
            }
        }
    }
}

/// The vCPUs that a quota limits, in words that stay short for many vCPUs, and the verb for what they do
/// then.
fn limited(vcpus: &[VcpuOfVm]) -> (String, &'static str) {
    if let [one] = vcpus {
        return (one.to_string(), "it waits");
    }
    let mut vms: Vec<&str> = vcpus.iter().map(|vcpu| vcpu.vm.as_str()).collect();
    vms.dedup();
    (format!("the {} vCPUs of {} together", vcpus.len(), vms.join(" and ")), "they wait")
}

fn idle(formatter: &mut fmt::Formatter<'_>, vm: &str, iothreads: &[String]) -> fmt::Result {
    match iothreads {
        [one] => write!(
            formatter,
            "iothread {one} of {vm} seems to serve nothing: no device on the command line uses it, and it has hardly run"
        ),
        all => write!(
            formatter,
            "iothreads {} of {vm} seem to serve nothing: no device on the command line uses them, and they have hardly \
            run",
            all.join(" and ")
        ),
    }
}

/// Two vCPUs, or the first two of many.
fn shared_core(formatter: &mut fmt::Formatter<'_>, pairs: &[[PinnedVcpu; 2]]) -> fmt::Result {
    let Some([one, other]) = pairs.first() else { return Ok(()) };
    write!(formatter, "{one} and {other} are pinned to the two threads of one core")?;
    match pairs.len() - 1 {
        0 => {}
        more => write!(formatter, ", and {} of these VMs", counted(more as u64, "other pair"))?,
    }
    formatter.write_str(": each slows the other while both run")
}

#[cfg(test)]
mod tests;
