//! What a manifest knows beside the events, as the timelines need it.

use crate::report::Warning;
use crate::run::NO_EXITS_UNDER_TCG;
use crate::run::manifest::{Manifest, ThreadRecord, VmRecord};
use crate::timeline::{GuestMode, LockFacts, LockUser, StackTable, Timeline, Vmm, Watched};
use crate::units::VcpuId;
use crate::vmm::cgroup::Throttling;
use crate::vmm::host::HostFacts;

/// The timelines of all threads of the VMs: those of other threads than vCPUs tell for how long
/// locks were held.
pub(super) fn timeline(manifest: &Manifest, stacks: StackTable) -> Timeline {
    let mode = mode(manifest);
    let threads = manifest.vms.iter().enumerate().flat_map(|(vm, record)| {
        record.threads.iter().map(move |thread| Watched {
            tid: thread.tid,
            vm,
            user: user(thread),
            is_throttled: is_throttled(record, thread),
        })
    });
    let host = serde_json::from_value::<HostFacts>(manifest.environment.clone()).ok();
    let slice = host.and_then(|host| host.slice);
    Timeline::new(threads, stacks)
        .knowing(manifest.vms.iter().map(|vm| lock_facts(vm, mode)).collect())
        .with_slice(slice.map(|slice| slice.shortest_ns()))
}

/// Why there are no exits, where the plan asks for them and there are none.
pub(super) fn no_exits(manifest: &Manifest, has_exits: bool) -> Option<Warning> {
    if has_exits || manifest.plan.get("exits") != Some(&serde_json::Value::Bool(true)) {
        return None;
    }
    let text = match manifest.accelerator.as_str() {
        "tcg" => NO_EXITS_UNDER_TCG,
        _ => {
            "exits were asked for, but none was recorded: this host's KVM has not traced any (no \
             kvm_exit and kvm_entry in its tracefs, or a backend that does not use them)"
        }
    };
    Some(Warning::Notice { text: text.to_owned() })
}

/// What runs the guests.
pub(super) fn mode(manifest: &Manifest) -> Option<GuestMode> {
    match manifest.accelerator.as_str() {
        "kvm" => Some(GuestMode::Kvm),
        "tcg" => Some(GuestMode::Tcg),
        _ => None,
    }
}

/// What a thread is in its VMM.
pub(super) fn user(thread: &ThreadRecord) -> LockUser {
    match thread.role.as_str() {
        _ if thread.vcpu.is_some() => LockUser::Vcpu,
        "main loop" => LockUser::MainLoop,
        _ => LockUser::Other,
    }
}

/// What is known of the locks of one VMM.
pub(super) fn lock_facts(vm: &VmRecord, mode: Option<GuestMode>) -> LockFacts {
    LockFacts {
        vmm: Vmm::Qemu,
        mode,
        bql: vm.lock.bql.as_ref().map(|bql| bql.address),
        exe_data: vm.lock.exe_data.map(|data| (data.start, data.end)),
    }
}

/// Whether a quota of a vCPU's thread was used up in the measured window.
pub(super) fn is_throttled(vm: &VmRecord, thread: &ThreadRecord) -> bool {
    let of_thread = |vcpus: &[VcpuId]| thread.vcpu.is_some_and(|vcpu| vcpus.contains(&vcpu));
    vm.groups.iter().any(|group| of_thread(&group.vcpus) && group.throttled().is_some())
}

/// Above this share of the host's pCPUs' time, what a hypervisor below it kept is warned of.
const STOLEN_SHARE_MAX: f64 = 0.01;

/// That the host is a guest itself, whose hypervisor kept some of the time that was measured, or does not
/// say so: it is in every number, and in none of the reasons.
pub(super) fn stolen(manifest: &Manifest) -> Option<Warning> {
    let window = manifest.window?;
    let host = serde_json::from_value::<HostFacts>(manifest.environment.clone()).ok()?;
    let pcpus_count = host.pcpus_online?.count();
    let measured_ns = window.end_ns?.since_ns(window.start_ns) as f64 * pcpus_count as f64;
    let share = manifest.stolen_ns.map(|stolen_ns| stolen_ns as f64 / measured_ns);
    // It may have begun to say so in this very window.
    let is_told = host.conditions.is_steal_told || manifest.stolen_ns.is_some_and(|ns| ns > 0);
    if let Some(hypervisor) = host.conditions.hypervisor.filter(|_| !is_told) {
        return Some(Warning::Notice {
            text: format!(
                "this host is a guest itself ({hypervisor}), whose hypervisor has never said that it kept \
                 any of the pCPUs' time: where its own CPUs have more to do than they can, the times here \
                 mean nothing"
            ),
        });
    }
    let share = share?;
    (share > STOLEN_SHARE_MAX).then(|| Warning::Notice {
        text: format!(
            "this host is a guest itself, and its hypervisor kept {:.1} % of its pCPUs' time: that is in \
             all latencies, and no reason tells of it",
            share * 100.0
        ),
    })
}

/// What the quotas of a VM's vCPU threads did, if they were used up.
pub(super) fn throttled(vm: &VmRecord) -> Option<Warning> {
    let groups = vm.groups.iter().filter_map(|group| Some((group, group.throttled()?)));
    let groups: Vec<_> = groups.collect();
    let (most, _) = groups.iter().max_by_key(|(_, throttled)| throttled.throttled_count)?;
    let sum = |of: fn(&Throttling) -> u64| -> u64 {
        groups.iter().fold(0, |sum, (_, throttled)| sum.saturating_add(of(throttled)))
    };
    let ns = |us: u64| us.saturating_mul(1000);
    Some(Warning::Throttled {
        vm: vm.name.clone(),
        count: sum(|throttled| throttled.throttled_count),
        throttled_ns: sum(|throttled| throttled.throttled_ns),
        group: most.path.clone(),
        quota_ns: most.quota.map(|quota| ns(quota.quota_us)),
        period_ns: most.quota.map(|quota| ns(quota.period_us)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::manifest;
    use super::*;

    #[test]
    fn time_that_a_hypervisor_kept_is_told_from_one_in_a_hundred_on() {
        let mut manifest = manifest();
        manifest.environment = serde_json::json!({ "pcpus_online": "0-1" });
        assert_eq!(stolen(&manifest), None, "the kernel does not say");
        // The window has 1.1 ms, on two pCPUs.
        manifest.stolen_ns = Some(22_000);
        assert_eq!(stolen(&manifest), None);
        manifest.stolen_ns = Some(220_000);
        let warning = stolen(&manifest).expect("a tenth").to_string();
        assert!(warning.contains("kept 10.0 % of its pCPUs' time"), "{warning}");
        let silent = serde_json::json!({ "hypervisor": "QEMU", "mitigations": {} });
        manifest.environment["conditions"] = silent;
        let warning = stolen(&manifest).expect("a tenth").to_string();
        assert!(warning.contains("kept 10.0 % of its pCPUs' time"), "{warning}");
        manifest.stolen_ns = Some(0);
        let warning = stolen(&manifest).expect("it may keep anything").to_string();
        assert!(
            warning.contains("a guest itself (QEMU), whose hypervisor has never said"),
            "{warning}"
        );
        manifest.window = None;
        assert_eq!(stolen(&manifest), None);
    }
}
