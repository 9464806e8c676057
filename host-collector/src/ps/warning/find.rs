//! Which placements cost latency. Pure.

use super::super::surroundings::{Surroundings, vcpus_pcpus};
use super::quota::{halt_polling, quotas};
use super::{PinnedVcpu, PlacementWarning, Seen, VcpuOfVm};
use std::collections::{BTreeMap, BTreeSet};
use vslice_core::units::PcpuId;
use vslice_host::helper::{Helper, HelperRole};
use vslice_host::vm::{Vm, VmThread};
use vslice_trace::thread::ThreadRole;

/// What to call these VMs: by name, and by process where several have that name.
#[must_use]
pub(in crate::ps) fn labels(vms: &[Vm]) -> Vec<String> {
    let label = |vm: &Vm| {
        let label = vm.label();
        let is_unique = vms.iter().filter(|other| other.label() == label).count() == 1;
        if is_unique { label } else { format!("{label} (process {})", vm.pid) }
    };
    vms.iter().map(label).collect()
}

/// All warnings for a host.
pub(in crate::ps) fn all(host: &Surroundings, vms: &[Vm]) -> Vec<PlacementWarning> {
    let seen = labels(vms).into_iter().zip(vms).map(|(label, vm)| Seen { vm, label });
    let vms: &[Seen<'_>] = &seen.collect::<Vec<_>>();
    let mut warnings = Vec::new();
    let (vcpus, pcpus) = (vms.iter().flat_map(|seen| seen.vm.vcpus()).count(), host.pcpus.len());
    if vcpus > pcpus && pcpus > 0 {
        warnings.push(PlacementWarning::Overcommit { vcpus, pcpus });
    }
    let pinned = pinned(host, vms);
    let shared = pinned.iter().filter(|(_, vcpus)| vcpus.len() > 1);
    warnings.extend(
        shared.map(|(pcpu, vcpus)| PlacementWarning::SharedPcpu {
            pcpu: *pcpu,
            vcpus: vcpus.clone(),
        }),
    );
    warnings.extend(shared_cores(host, &pinned));
    for seen in vms {
        warnings.extend(iothreads_on_vcpus(seen, &pinned));
        warnings.extend(helpers_on_vcpus(seen, &pinned));
        let iothreads = seen.vm.idle_iothreads.clone();
        warnings.extend(
            (!iothreads.is_empty())
                .then(|| PlacementWarning::IdleIothreads { vm: seen.label.clone(), iothreads }),
        );
        warnings.extend(remote_memory(host, seen));
    }
    let quotas = quotas(vms);
    let polling = halt_polling(host.halt_poll_ns, vms, &quotas);
    warnings.extend(quotas.into_iter().chain(polling));
    warnings.extend(vms.iter().filter_map(|Seen { vm, label }| {
        Some(PlacementWarning::Stopped { vm: label.clone(), what: vm.stopped_notice()? })
    }));
    let unknown = vms.iter().filter(|seen| seen.vm.vcpus().next().is_none());
    warnings.extend(unknown.map(|Seen { vm, label }| PlacementWarning::UnknownVcpus {
        vm: label.clone(),
        advice: vm.unseen_vcpus_advice(),
    }));
    warnings
}

/// The vCPUs that can run on one pCPU only, by that pCPU. Where there is but one, nobody has pinned them.
type Pinned = BTreeMap<PcpuId, Vec<VcpuOfVm>>;

fn pinned(host: &Surroundings, vms: &[Seen<'_>]) -> Pinned {
    let mut pinned = Pinned::new();
    for Seen { vm, label } in vms.iter().filter(|_| host.pcpus.len() != 1) {
        for thread in vm.vcpus() {
            if let (Some(vcpu), [pcpu]) = (thread.vcpu, &thread.affinity[..]) {
                let vcpu = VcpuOfVm { vm: label.clone(), vcpu: vcpu.to_string() };
                pinned.entry(*pcpu).or_default().push(vcpu);
            }
        }
    }
    pinned
}

/// The first of these pCPUs, and a vCPU that is pinned there, if each of them has one.
fn occupied(
    affinity: impl IntoIterator<Item = PcpuId>,
    pinned: &Pinned,
) -> Option<(PcpuId, VcpuOfVm)> {
    let allowed: BTreeSet<PcpuId> = affinity.into_iter().collect();
    let pcpu = *allowed.first()?;
    let vcpu = pinned.get(&pcpu)?.first()?.clone();
    allowed.iter().all(|pcpu| pinned.contains_key(pcpu)).then_some((pcpu, vcpu))
}

fn iothreads_on_vcpus(seen: &Seen<'_>, pinned: &Pinned) -> Vec<PlacementWarning> {
    let warning = |thread: &VmThread| {
        let iothread = thread.iothread.clone()?;
        let (pcpu, vcpu) = occupied(thread.affinity.iter().copied(), pinned)?;
        let vm = seen.label.clone();
        Some(PlacementWarning::IothreadOnVcpu { vm, iothread, pcpu, vcpu })
    };
    seen.vm.threads.iter().filter_map(warning).collect()
}

/// The kernel's threads for vhost, and the helpers that a guest waits for. Of a process that has a thread which may run
/// elsewhere it is not known which of its threads serves the device.
fn helpers_on_vcpus(seen: &Seen<'_>, pinned: &Pinned) -> Vec<PlacementWarning> {
    let is_vhost = |thread: &&VmThread| thread.role == ThreadRole::Vhost;
    let vhosts = seen
        .vm
        .threads
        .iter()
        .filter(is_vhost)
        .map(|thread| (thread.comm.clone(), occupied(thread.affinity.iter().copied(), pinned)));
    let helpers = seen.vm.helpers.iter().filter(|helper| is_waited_for(helper.role));
    let helpers = helpers.map(|helper| (helper.comm.clone(), confined(helper, pinned)));
    let warning = |(helper, found): (String, Option<(PcpuId, VcpuOfVm)>)| {
        let (pcpu, vcpu) = found?;
        Some(PlacementWarning::HelperOnVcpu { vm: seen.label.clone(), helper, pcpu, vcpu })
    };
    vhosts.chain(helpers).filter_map(warning).collect()
}

/// Pages are recovered once in minutes, and a TPM is used when a guest starts.
fn is_waited_for(role: HelperRole) -> bool {
    match role {
        HelperRole::Timer
        | HelperRole::Disk
        | HelperRole::FileSystem
        | HelperRole::Network
        | HelperRole::Device => true,
        HelperRole::PageRecovery | HelperRole::Tpm => false,
    }
}

/// Where a helper is, if each of its threads can only run where vCPUs are pinned.
fn confined(helper: &Helper, pinned: &Pinned) -> Option<(PcpuId, VcpuOfVm)> {
    if helper.threads.iter().any(|thread| thread.affinity.is_empty()) {
        return None;
    }
    occupied(helper.threads.iter().flat_map(|thread| thread.affinity.iter().copied()), pinned)
}

/// The pairs of vCPUs of different VMs that are pinned to one core, a warning for each two VMs. Two vCPUs of one VM
/// are often put there on purpose.
fn shared_cores(host: &Surroundings, pinned: &Pinned) -> Vec<PlacementWarning> {
    let mut by_vms: BTreeMap<[&str; 2], Vec<[PinnedVcpu; 2]>> = BTreeMap::new();
    for (pcpu, vcpus) in pinned {
        let siblings = host.topology.siblings.get(pcpu).into_iter().flatten();
        for sibling in siblings.filter(|sibling| *sibling > pcpu) {
            for (one, other) in vcpus
                .iter()
                .flat_map(|one| {
                    pinned.get(sibling).into_iter().flatten().map(move |two| (one, two))
                })
                .filter(|(one, other)| one.vm != other.vm)
            {
                let mut vms = [one.vm.as_str(), other.vm.as_str()];
                vms.sort_unstable();
                let pair = [(one, pcpu), (other, sibling)]
                    .map(|(vcpu, pcpu)| PinnedVcpu { vcpu: vcpu.clone(), pcpu: *pcpu });
                by_vms.entry(vms).or_default().push(pair);
            }
        }
    }
    by_vms.into_values().map(|pairs| PlacementWarning::SharedCore { pairs }).collect()
}

/// Less than this is no guest's memory, but what a VMM needs for itself.
const MEMORY_BYTES_MIN: u64 = 128 << 20;

/// The warning of a VM whose vCPUs are all on one node, and more than half of whose memory is not.
fn remote_memory(host: &Surroundings, seen: &Seen<'_>) -> Option<PlacementWarning> {
    let node = host.topology.only_node_of(&vcpus_pcpus(seen.vm))?;
    let memory = host.memory.get(&seen.vm.pid)?;
    let total_bytes: u64 = memory.values().sum();
    let remote_bytes = total_bytes - memory.get(&node).copied().unwrap_or(0);
    let is_remote = total_bytes >= MEMORY_BYTES_MIN && remote_bytes > total_bytes / 2;
    let vm = seen.label.clone();
    is_remote.then_some(PlacementWarning::RemoteMemory { vm, node, remote_bytes, total_bytes })
}
