//! CPU quotas that vCPUs can use up.

use super::{PlacementWarning, Seen, VcpuOfVm};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use vslice_core::units::PcpuId;
use vslice_host::cgroup::VcpuQuota;
use vslice_host::vm::Vm;
use vslice_trace::quota::Quota;
use vslice_trace::vmm::Accelerator;

/// The vCPUs that one control group limits.
struct Limited<'a> {
    by: &'a VcpuQuota,
    vcpus: Vec<VcpuOfVm>,
    /// The pCPUs on which they may run; `None` if that is unknown for one of them.
    pcpus: Option<BTreeSet<PcpuId>>,
}

/// Warnings of the quotas that vCPUs can use up when all of them are busy. The quota that libvirt writes
/// for "one whole pCPU" is not one of them.
pub(super) fn quotas(vms: &[Seen<'_>]) -> Vec<PlacementWarning> {
    let mut groups: BTreeMap<&Path, Limited<'_>> = BTreeMap::new();
    for Seen { vm, label } in vms {
        for by in vm.quotas.iter().flatten() {
            let new = || Limited { by, vcpus: Vec::new(), pcpus: Some(BTreeSet::new()) };
            let limited = groups.entry(&by.group).or_insert_with(new);
            for thread in vm.vcpus() {
                let Some(vcpu) = thread.vcpu.filter(|vcpu| by.vcpus.contains(vcpu)) else {
                    continue;
                };
                limited.vcpus.push(VcpuOfVm { vm: label.clone(), vcpu: vcpu.to_string() });
                match (&mut limited.pcpus, &thread.affinity[..]) {
                    (pcpus, []) => *pcpus = None,
                    (Some(pcpus), some) => pcpus.extend(some),
                    (None, _) => {}
                }
            }
        }
    }
    let warnings = groups.into_iter().filter_map(|(group, Limited { by, vcpus, pcpus })| {
        let pcpus_count = pcpus.map_or(usize::MAX, |pcpus| pcpus.len());
        let usable = u64::try_from(vcpus.len().min(pcpus_count)).unwrap_or(u64::MAX);
        let Quota { quota_us, period_us } = by.quota;
        (quota_us < period_us.saturating_mul(usable)).then(|| PlacementWarning::Quota {
            group: group.to_owned(),
            vcpus,
            quota_us,
            period_us,
            throttled_count: by.throttled_count,
        })
    });
    warnings.collect()
}

/// Warnings of the quotas that were used up and of which KVM's polling takes its part: it goes on while nothing
/// else wants the pCPU (linux: virt/kvm/kvm_main.c, `kvm_vcpu_can_poll`), and is CPU time of the vCPU's thread.
/// Where several vCPUs share a pCPU, it ends as soon as another one is runnable.
pub(super) fn halt_polling(
    halt_poll_ns: Option<u64>,
    vms: &[Seen<'_>],
    quotas: &[PlacementWarning],
) -> Vec<PlacementWarning> {
    let Some(halt_poll_ns) = halt_poll_ns.filter(|length_ns| *length_ns > 0) else {
        return Vec::new();
    };
    let is_of_kvm = |vcpu: &&VcpuOfVm| {
        let of_kvm = |vm: &Vm| vm.accelerator == Some(Accelerator::Kvm);
        vms.iter().any(|seen| seen.label == vcpu.vm && of_kvm(seen.vm))
    };
    let warning = |quota: &PlacementWarning| match quota {
        PlacementWarning::Quota { group, vcpus, throttled_count: Some(1..), .. } => {
            let vcpus: Vec<VcpuOfVm> = vcpus.iter().filter(is_of_kvm).cloned().collect();
            let group = group.clone();
            (!vcpus.is_empty()).then_some(PlacementWarning::HaltPolling {
                halt_poll_ns,
                group,
                vcpus,
            })
        }
        _ => None,
    };
    quotas.iter().filter_map(warning).collect()
}
