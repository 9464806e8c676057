//! Placements on a host that cost its guests latency.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use vslice_core::units::PcpuId;
use vslice_host::cgroup::VcpuQuota;
use vslice_host::vm::{UNSEEN_VCPUS_ADVICE, Vm, VmThread};
use vslice_spec::quantity::duration;
use vslice_trace::quota::Quota;

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
    },
}

/// A vCPU of some VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct VcpuOfVm {
    /// The VM's label.
    pub vm: String,
    /// `vCPU1`.
    pub vcpu: String,
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
            PlacementWarning::SharedPcpu { vcpus, .. } | PlacementWarning::Quota { vcpus, .. } => {
                vcpus.iter().any(|vcpu| vcpu.vm == label)
            }
            PlacementWarning::IothreadOnVcpu { vm, vcpu, .. } => vm == label || vcpu.vm == label,
            PlacementWarning::Stopped { vm, .. } | PlacementWarning::UnknownVcpus { vm } => {
                vm == label
            }
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
            PlacementWarning::Quota { group, vcpus, quota_us, period_us, throttled_count } => {
                let (who, they) = limited(vcpus);
                let [quota, period] =
                    [quota_us, period_us].map(|us| duration(us.saturating_mul(1000)));
                write!(
                    formatter,
                    "{} limits {who} to {quota} of CPU time per {period}: when that is used up, {they} \
                    until the next period",
                    group.display()
                )?;
                match throttled_count {
                    Some(1) => write!(formatter, ", as in 1 period so far"),
                    Some(count @ 2..) => write!(formatter, ", as in {count} periods so far"),
                    _ => Ok(()),
                }
            }
            PlacementWarning::Stopped { what, .. } => formatter.write_str(what),
            PlacementWarning::UnknownVcpus { vm } => write!(
                formatter,
                "cannot tell which threads of {vm} run its vCPUs: {UNSEEN_VCPUS_ADVICE}"
            ),
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

/// All warnings for a host with these pCPUs.
pub(super) fn all(pcpus: &[PcpuId], vms: &[Vm]) -> Vec<PlacementWarning> {
    let mut warnings = Vec::new();
    let vcpus = vms.iter().flat_map(Vm::vcpus).count();
    if vcpus > pcpus.len() && !pcpus.is_empty() {
        warnings.push(PlacementWarning::Overcommit { vcpus, pcpus: pcpus.len() });
    }
    let pinned = pinned(vms);
    let shared = pinned.iter().filter(|(_, vcpus)| vcpus.len() > 1);
    warnings.extend(
        shared.map(|(pcpu, vcpus)| PlacementWarning::SharedPcpu {
            pcpu: *pcpu,
            vcpus: vcpus.clone(),
        }),
    );
    for vm in vms {
        let iothreads = vm.threads.iter().filter(|thread| thread.iothread.is_some());
        warnings.extend(iothreads.filter_map(|thread| on_vcpu(vm, thread, &pinned)));
    }
    warnings.extend(quotas(vms));
    warnings.extend(vms.iter().filter_map(|vm| {
        Some(PlacementWarning::Stopped { vm: vm.label(), what: vm.stopped_notice()? })
    }));
    let unknown = vms.iter().filter(|vm| vm.vcpus().next().is_none());
    warnings.extend(unknown.map(|vm| PlacementWarning::UnknownVcpus { vm: vm.label() }));
    warnings
}

/// The vCPUs that can run on one pCPU only, by that pCPU.
fn pinned(vms: &[Vm]) -> BTreeMap<PcpuId, Vec<VcpuOfVm>> {
    let mut pinned: BTreeMap<PcpuId, Vec<VcpuOfVm>> = BTreeMap::new();
    for vm in vms {
        for thread in vm.vcpus() {
            if let (Some(vcpu), [pcpu]) = (thread.vcpu, &thread.affinity[..]) {
                let vcpu = VcpuOfVm { vm: vm.label(), vcpu: vcpu.to_string() };
                pinned.entry(*pcpu).or_default().push(vcpu);
            }
        }
    }
    pinned
}

/// The vCPUs that one control group limits.
struct Limited<'a> {
    by: &'a VcpuQuota,
    vcpus: Vec<VcpuOfVm>,
    /// The pCPUs on which they may run; `None` if that is unknown for one of them.
    pcpus: Option<BTreeSet<PcpuId>>,
}

/// Warnings of the quotas that vCPUs can use up when all of them are busy. The quota that libvirt writes
/// for "one whole pCPU" is not one of them.
fn quotas(vms: &[Vm]) -> impl Iterator<Item = PlacementWarning> {
    let mut groups: BTreeMap<&Path, Limited<'_>> = BTreeMap::new();
    for vm in vms {
        for by in vm.quotas.iter().flatten() {
            let new = || Limited { by, vcpus: Vec::new(), pcpus: Some(BTreeSet::new()) };
            let limited = groups.entry(&by.group).or_insert_with(new);
            for thread in vm.vcpus() {
                let Some(vcpu) = thread.vcpu.filter(|vcpu| by.vcpus.contains(vcpu)) else {
                    continue;
                };
                limited.vcpus.push(VcpuOfVm { vm: vm.label(), vcpu: vcpu.to_string() });
                match (&mut limited.pcpus, &thread.affinity[..]) {
                    (pcpus, []) => *pcpus = None,
                    (Some(pcpus), some) => pcpus.extend(some),
                    (None, _) => {}
                }
            }
        }
    }
    groups.into_iter().filter_map(|(group, Limited { by, vcpus, pcpus })| {
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
    })
}

/// The warning of an iothread if all of its pCPUs have a vCPU pinned to them.
fn on_vcpu(
    vm: &Vm,
    thread: &VmThread,
    pinned: &BTreeMap<PcpuId, Vec<VcpuOfVm>>,
) -> Option<PlacementWarning> {
    let allowed: BTreeSet<PcpuId> = thread.affinity.iter().copied().collect();
    let pcpu = *allowed.first()?;
    let vcpu = pinned.get(&pcpu)?.first()?.clone();
    let is_all = allowed.iter().all(|pcpu| pinned.contains_key(pcpu));
    let iothread = thread.iothread.clone()?;
    is_all.then(|| PlacementWarning::IothreadOnVcpu { vm: vm.label(), iothread, pcpu, vcpu })
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::{thread, vm};
    use super::*;
    use vslice_core::units::VcpuId;
    use vslice_host::procfs::Stopper;

    fn pcpus(count: u32) -> Vec<PcpuId> {
        (0..count).map(PcpuId).collect()
    }

    fn texts(pcpus_count: u32, vms: &[Vm]) -> Vec<String> {
        all(&pcpus(pcpus_count), vms).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_warning_if_every_thread_has_its_own_pcpu() {
        let one = vm(
            "vm1",
            10,
            vec![thread(11, Some(0), None, &[1]), thread(12, None, Some("io0"), &[0])],
        );
        assert_eq!(texts(4, &[one]), [""; 0]);
    }

    #[test]
    fn two_vcpus_on_one_pcpu_and_more_vcpus_than_pcpus() {
        let one =
            vm("vm1", 10, vec![thread(11, Some(0), None, &[0]), thread(12, Some(1), None, &[1])]);
        let two = vm(
            "vm2",
            20,
            vec![thread(21, Some(0), None, &[0, 1]), thread(22, Some(1), None, &[1])],
        );
        assert_eq!(
            texts(2, &[one, two]),
            [
                "4 vCPUs share 2 pCPUs: when all of them are busy, they wait for each other",
                "vm1 vCPU1 and vm2 vCPU1 are pinned to the same pCPU, pCPU1",
            ]
        );
    }

    #[test]
    fn an_iothread_is_warned_of_only_if_it_can_run_nowhere_else() {
        let with = |affinity: &[u32]| {
            vm(
                "vm1",
                10,
                vec![
                    thread(11, Some(0), None, &[1]),
                    thread(12, Some(1), None, &[2]),
                    thread(13, None, Some("io0"), affinity),
                ],
            )
        };
        let warning = "iothread io0 of vm1 can only run on pCPU1, where vm1 vCPU0 is pinned: they \
            preempt each other or wait";
        assert_eq!(texts(4, &[with(&[1])]), [warning]);
        assert_eq!(texts(4, &[with(&[1, 2])]), [warning]);
        assert_eq!(texts(4, &[with(&[1, 3])]), [""; 0]);
        assert_eq!(texts(4, &[with(&[])]), [""; 0], "the kernel does not say");
    }

    fn with_quota(name: &str, group: &str, quota_us: u64, affinity: &[u32]) -> Vm {
        let by = VcpuQuota {
            group: group.into(),
            quota: Quota { quota_us, period_us: 100_000 },
            throttled_count: Some(37),
            vcpus: vec![VcpuId(0), VcpuId(1)],
        };
        let vcpus = vec![thread(11, Some(0), None, affinity), thread(12, Some(1), None, affinity)];
        Vm { quotas: Some(vec![by]), ..vm(name, 10, vcpus) }
    }

    #[test]
    fn a_quota_is_warned_of_if_its_vcpus_could_use_it_up() {
        let one =
            |quota_us, affinity: &[u32]| texts(8, &[with_quota("web", "/g", quota_us, affinity)]);
        assert_eq!(
            one(150_000, &[0, 1]),
            [
                "/g limits the 2 vCPUs of web together to 150 ms of CPU time per 100 ms: when that is \
                used up, they wait until the next period, as in 37 periods so far"
            ]
        );
        assert_eq!(one(200_000, &[0, 1]), [""; 0], "both can always run");
        let shared = with_quota("web", "/g", 100_000, &[0]);
        assert_eq!(quotas(&[shared]).count(), 0, "there is but one pCPU for both");
        assert_eq!(one(100_000, &[]).len(), 1, "where they may run is not known");
        let mut half = with_quota("web", "/g", 50_000, &[0, 1]);
        for by in half.quotas.iter_mut().flatten() {
            by.vcpus.truncate(1);
            by.throttled_count = Some(0);
        }
        let lone = "/g limits web vCPU0 to 50.0 ms of CPU time per 100 ms: when that is used up, it \
            waits until the next period";
        assert_eq!(texts(8, &[half]), [lone]);
        // A slice that holds two VMs is one group, and limits all four.
        let both = |quota_us| {
            let vms = ["db", "web"].map(|name| with_quota(name, "/slice", quota_us, &[0, 1, 2, 3]));
            texts(8, &vms)
        };
        assert_eq!(both(400_000), [""; 0]);
        let texts = both(300_000);
        assert_eq!(texts.len(), 1);
        assert!(
            texts[0].starts_with("/slice limits the 4 vCPUs of db and web together to"),
            "{texts:?}"
        );
    }

    #[test]
    fn a_stopped_process_is_warned_of() {
        let stopped = |stopper| {
            let threads = vec![thread(11, Some(0), None, &[1])];
            texts(4, &[Vm { stopper: Some(stopper), ..vm("vm1", 10, threads) }])
        };
        let notice = "vm1: its process 10 is stopped by a signal (SIGSTOP): none of it runs until it is sent \
                    SIGCONT";
        assert_eq!(stopped(Stopper::Signal), [notice]);
        assert!(stopped(Stopper::Debugger)[0].contains("by a debugger"));
    }

    #[test]
    fn unidentified_vcpu_threads_are_warned_of() {
        let texts = texts(4, &[vm("vm1", 10, vec![thread(10, None, None, &[0])])]);
        assert!(texts.len() == 1 && texts[0].contains("debug-threads=on"), "{texts:?}");
    }
}
