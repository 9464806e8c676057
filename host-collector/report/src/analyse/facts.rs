//! What a manifest knows beside the events, as the timelines need it.

use crate::summary::Warning;
use crate::summary::evidence::ScheduledVcpu;
use crate::summary::quota::QuotaUse;
use serde::Deserialize;
use vslice_core::timeline::{GuestMode, LockFacts, LockUser, StackTable, Timeline, Vmm, Watched};
use vslice_core::units::VcpuId;
use vslice_trace::manifest::{Manifest, NO_EXITS_UNDER_TCG, VmRecord};
use vslice_trace::quota::{GroupRecord, Throttling};
use vslice_trace::thread::{ThreadRecord, ThreadRole};
use vslice_trace::vmm::{self, Accelerator};

/// The timelines of all threads of the VMs: those of other threads than vCPUs tell for how long
/// locks were held.
pub(super) fn timeline(manifest: &Manifest, stacks: StackTable) -> Timeline {
    let threads = manifest.vms.iter().enumerate().flat_map(|(vm, record)| {
        record.threads.iter().map(move |thread| Watched {
            tid: thread.tid,
            vm,
            user: user(thread),
            is_throttled: is_throttled(record, thread),
        })
    });
    let slice = manifest.environment.as_ref().and_then(|host| host.slice.as_ref());
    Timeline::new(threads, stacks)
        .knowing((0..manifest.vms.len()).map(|place| lock_facts(manifest, place)).collect())
        .with_slice(slice.map(|slice| slice.shortest_ns()))
}

/// Why there are no exits, where the plan asks for them and there are none.
pub(super) fn no_exits(manifest: &Manifest, has_exits: bool) -> Option<Warning> {
    if has_exits || !manifest.asked_for_exits() {
        return None;
    }
    let mut known = (0..manifest.vms.len()).map(|place| manifest.accelerator_of(place));
    let text = match known.all(|accelerator| accelerator == Some(Accelerator::Tcg)) {
        true => NO_EXITS_UNDER_TCG,
        false => {
            "exits were asked for, but none was recorded: this host's KVM has not traced any (no \
             kvm_exit and kvm_entry in its tracefs, or a backend that does not use them)"
        }
    };
    Some(Warning::Notice { text: text.to_owned() })
}

/// What runs the VM at this place.
fn mode(manifest: &Manifest, place: usize) -> Option<GuestMode> {
    match manifest.accelerator_of(place)? {
        Accelerator::Kvm => Some(GuestMode::Kvm),
        Accelerator::Tcg => Some(GuestMode::Tcg),
        _ => None,
    }
}

/// What a thread is in its VMM.
pub(super) fn user(thread: &ThreadRecord) -> LockUser {
    match thread.role {
        _ if thread.vcpu.is_some() => LockUser::Vcpu,
        ThreadRole::MainLoop => LockUser::MainLoop,
        _ => LockUser::Other,
    }
}

/// What is known of the locks of the VMM at this place in the manifest.
pub(super) fn lock_facts(manifest: &Manifest, place: usize) -> LockFacts {
    let vm = &manifest.vms[place];
    let vmm = match vmm(manifest, place) {
        Some(vmm::Vmm::Qemu) => Vmm::Qemu,
        Some(vmm::Vmm::Firecracker | vmm::Vmm::CloudHypervisor | vmm::Vmm::Crosvm) => Vmm::Rust,
        Some(vmm::Vmm::Other) | None => Vmm::Unknown,
    };
    LockFacts {
        vmm,
        mode: mode(manifest, place),
        bql: vm.lock.bql.as_ref().map(|bql| bql.address),
        exe_data: vm.lock.exe_data.map(|data| (data.start, data.end)),
    }
}

/// What runs a VM. Older manifests say it only of VMs that were attached to, in what stands for their
/// plan; all others had been started by vslice, which starts QEMU.
fn vmm(manifest: &Manifest, place: usize) -> Option<vmm::Vmm> {
    let told_by_plan = || match manifest.plan.get("attached") {
        None => Some(vmm::Vmm::Qemu),
        Some(vms) => vmm::Vmm::deserialize(vms.get(place)?.get("vmm")?).ok(),
    };
    manifest.vms[place].vmm.or_else(told_by_plan)
}

/// Whether a quota of a vCPU's thread was used up in the measured window.
pub(super) fn is_throttled(vm: &VmRecord, thread: &ThreadRecord) -> bool {
    thread.vcpu.is_some_and(|vcpu| quota_use(vm, vcpu).is_some())
}

/// What the quotas of a vCPU's thread did in the measured window; `None` if none was used up, or nobody
/// knows.
pub(super) fn quota_use(vm: &VmRecord, vcpu: VcpuId) -> Option<QuotaUse> {
    let groups = vm.groups.iter().filter(|group| group.vcpus.contains(&vcpu));
    let used = groups.filter_map(GroupRecord::throttled).map(|throttled| QuotaUse {
        used_up_count: throttled.throttled_count,
        kept_off_ns: throttled.throttled_ns,
    });
    used.reduce(|sum, used| QuotaUse {
        used_up_count: sum.used_up_count.saturating_add(used.used_up_count),
        kept_off_ns: sum.kept_off_ns.saturating_add(used.kept_off_ns),
    })
}

/// Above this share of the host's pCPUs' time, what a hypervisor below it kept is warned of.
const STOLEN_SHARE_MAX: f64 = 0.01;

/// That the host is a guest itself, whose hypervisor kept some of the time that was measured, or does not
/// say so: it is in every number, and in none of the reasons.
pub(super) fn stolen(manifest: &Manifest) -> Option<Warning> {
    let window = manifest.window?;
    let host = manifest.environment.as_ref()?;
    let conditions = host.conditions.as_ref();
    let pcpus_count = host.pcpus_online.as_ref()?.count();
    let measured_ns = window.end_ns?.since_ns(window.start_ns) as f64 * pcpus_count as f64;
    let stolen_ns = manifest.stolen_ns.filter(|_| measured_ns > 0.0);
    let share = stolen_ns.map(|stolen_ns| stolen_ns as f64 / measured_ns);
    // It may have begun to say so in this very window.
    let is_told = conditions.is_some_and(|conditions| conditions.is_steal_told)
        || manifest.stolen_ns.is_some_and(|ns| ns > 0);
    let hypervisor = conditions.and_then(|conditions| conditions.hypervisor.as_ref());
    if let Some(hypervisor) = hypervisor.filter(|_| !is_told) {
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

/// Above this share of a vCPU's time in the window, what its VM's quotas kept off is warned of.
const THROTTLED_SHARE_MAX: f64 = 0.01;

/// What the quotas of a VM's vCPU threads did, if they were used up for long enough to be felt.
pub(super) fn throttled(manifest: &Manifest, vm: &VmRecord) -> Option<Warning> {
    let groups = vm.groups.iter().filter_map(|group| Some((group, group.throttled()?)));
    let groups: Vec<_> = groups.collect();
    let (most, _) = groups.iter().max_by_key(|(_, throttled)| throttled.throttled_count)?;
    let sum = |of: fn(&Throttling) -> u64| -> u64 {
        groups.iter().fold(0, |sum, (_, throttled)| sum.saturating_add(of(throttled)))
    };
    let throttled_ns = sum(|throttled| throttled.throttled_ns);
    let window_ns =
        manifest.window.and_then(|window| Some(window.end_ns?.since_ns(window.start_ns)));
    // All of it may be of one vCPU. Of a window that has no end it is not known how much it is.
    let felt_ns = |window_ns: u64| THROTTLED_SHARE_MAX * window_ns as f64;
    if window_ns.is_some_and(|window_ns| throttled_ns as f64 <= felt_ns(window_ns)) {
        return None;
    }
    let ns = |us: u64| us.saturating_mul(1000);
    Some(Warning::Throttled {
        vm: vm.name.clone(),
        count: sum(|throttled| throttled.throttled_count),
        throttled_ns,
        group: most.path.clone(),
        quota_ns: most.quota.map(|quota| ns(quota.quota_us)),
        period_ns: most.quota.map(|quota| ns(quota.period_us)),
    })
}

/// Above this share of the VMs' threads, those that could not be watched are warned of.
const UNCOVERED_SHARE_MAX: f64 = 0.1;

/// That many of the VMs' threads were not watched. vCPUs are not among them: they are there from the start.
pub(super) fn uncovered(manifest: &Manifest) -> Option<Warning> {
    let count = manifest.cost.uncovered_threads_count;
    let known = manifest.vms.iter().map(|vm| vm.threads.len() as u64);
    let all = known.fold(count, u64::saturating_add);
    (count as f64 > UNCOVERED_SHARE_MAX * all as f64).then(|| Warning::Notice {
        text: format!(
            "{count} of {all} threads of the VMs were born during the run and could not be watched on every \
             pCPU: locks that they held and vCPUs that they woke may be missing"
        ),
    })
}

/// Above this share of the recorded events, switches whose stack was not kept are warned of.
const REFUSED_SHARE_MAX: f64 = 0.01;

/// That many sleeps have no reason, as there was no room for their stacks.
pub(super) fn stacks_refused(manifest: &Manifest) -> Option<Warning> {
    let cost = &manifest.cost;
    let share = cost.stacks_refused_count as f64 / cost.events_count.max(1) as f64;
    (share > REFUSED_SHARE_MAX).then(|| Warning::Notice {
        text: format!(
            "{} switches, {:.1} % of the recorded events, had too many different kernel stacks to keep: why \
             those threads left is unknown, and that time is in no reason",
            cost.stacks_refused_count,
            share.min(1.0) * 100.0
        ),
    })
}

/// Above this share of the events of the window, those that contradict others are warned of.
const CONTRADICTED_SHARE_MAX: f64 = 0.001;

/// That many scheduler events of the window contradict the ones before them.
pub(super) fn contradicted(count: u64, events_count: u64) -> Option<Warning> {
    let share = count as f64 / events_count.max(1) as f64;
    (share > CONTRADICTED_SHARE_MAX).then(|| Warning::Notice {
        text: format!(
            "{count} scheduler events, {:.1} % of them, contradict the ones before them: the time between is \
             unknown, and requests that touch it are not given to causes",
            share.min(1.0) * 100.0
        ),
    })
}

/// A window that has no length, or a negative one: then nothing was measured over it.
pub(super) fn no_window(manifest: &Manifest) -> Option<Warning> {
    let window = manifest.window?;
    let end_ns = window.end_ns.filter(|end_ns| *end_ns <= window.start_ns)?;
    let text = format!(
        "by its own record the measured window ended {} ns before it began: rates and shares of it are \
         not known",
        window.start_ns.since_ns(end_ns)
    );
    Some(Warning::Notice { text })
}

/// What the kernel counted of a thread while it was observed, if that is more than can be: a warning.
/// Each of the two readings may be as old as a tick.
pub(super) fn counted_too_much(vm: &str, row: &ScheduledVcpu) -> Option<Warning> {
    let counted_ns = row.on_pcpu_ns.saturating_add(row.run_delay_ns);
    let excess_ns = counted_ns.saturating_sub(row.observed_ns);
    (excess_ns > COUNTED_LATE_MAX_NS.max(row.observed_ns / 100)).then(|| {
        let text = format!(
            "the kernel counted {counted_ns} ns on a pCPU or waiting for one of {vm} {} in {} ns: its \
             totals contradict themselves, and nothing is made of them",
            row.vcpu, row.observed_ns
        );
        Warning::Notice { text }
    })
}

/// Two ticks at 100 Hz.
const COUNTED_LATE_MAX_NS: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::super::drawn::{BQL, VM1_VCPU1, host_at, manifest};
    use super::*;
    use serde_json::json;
    use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
    use vslice_core::timeline::{Reason, ThreadState};
    use vslice_core::units::{PcpuId, Tid};
    use vslice_trace::host::HostFacts;

    /// Why vm1's vCPU1 sleeps in a call of futex(2) with these arguments.
    fn reason_in_futex(manifest: &Manifest, args: [u64; 3]) -> Reason {
        let mut stacks = StackTable::default();
        stacks.push(vec!["futex_wait_queue".to_owned(), "futex_wait".to_owned()]);
        let mut timeline = timeline(manifest, stacks);
        let other = Tid(9);
        let came = Switch::new(other, PrevState::Runnable, VM1_VCPU1);
        let left = Switch {
            stack: Some(StackId(0)),
            call_args: Some(args),
            ..Switch::new(VM1_VCPU1, PrevState::Sleep, other)
        };
        let mut reason = None;
        let mut sink = |span: vslice_core::timeline::Span| {
            if let ThreadState::Blocked(sleep) = span.state {
                reason = Some(sleep.reason);
            }
        };
        for (us, switch) in [(10, came), (20, left)] {
            let kind = HostEventKind::Switch(switch);
            timeline.push(&HostEvent { time: host_at(us), pcpu: PcpuId(1), kind }, &mut sink);
        }
        timeline.finish(host_at(30), &mut sink);
        reason.expect("it slept")
    }

    /// A wait for a lock or a condition of Rust's standard library, and one for a glibc mutex.
    const STD: [u64; 3] = [0x7f00_1000, 0x89, 2];
    const MUTEX: [u64; 3] = [0x7f00_1000, 0x80, 2];

    #[test]
    fn locks_are_those_of_the_vmm_that_the_manifest_names() {
        let of = |vmm: vmm::Vmm, args| {
            let mut manifest = manifest();
            manifest.vms[0].vmm = Some(vmm);
            manifest.vms[0].lock.bql = None;
            // As it is stored and read.
            let stored = serde_json::to_string(&manifest).expect("JSON");
            reason_in_futex(&serde_json::from_str(&stored).expect("the same"), args)
        };
        for vmm in [vmm::Vmm::Firecracker, vmm::Vmm::CloudHypervisor, vmm::Vmm::Crosvm] {
            assert_eq!(of(vmm, STD), Reason::VmmLock, "{vmm:?}");
            // No rule of QEMU's holds, also not that a vCPU under KVM waits for the big lock.
            assert_eq!(of(vmm, MUTEX), Reason::Unknown, "{vmm:?}");
        }
        assert_eq!(of(vmm::Vmm::Qemu, STD), Reason::HaltUser);
        assert_eq!(of(vmm::Vmm::Qemu, MUTEX), Reason::QemuLock);
        for args in [STD, MUTEX] {
            assert_eq!(of(vmm::Vmm::Other, args), Reason::Unknown, "nobody knows its locks");
        }
    }

    #[test]
    fn the_vmm_of_an_older_manifest_is_what_was_attached_to_or_qemu() {
        let of = |plan: serde_json::Value| {
            let mut manifest = manifest();
            manifest.plan = plan;
            manifest.vms[0].vmm = None;
            manifest.vms[0].lock.bql = None;
            let mut stored = serde_json::to_value(&manifest).expect("JSON");
            let vm = stored["vms"][0].as_object_mut().expect("a VM");
            vm.remove("vmm");
            reason_in_futex(&serde_json::from_value(stored).expect("the same"), STD)
        };
        assert_eq!(of(json!({ "name": "demo" })), Reason::HaltUser, "vslice started a QEMU");
        assert_eq!(of(json!({ "attached": [{ "vmm": "qemu" }] })), Reason::HaltUser);
        assert_eq!(of(json!({ "attached": [{ "vmm": "cloud-hypervisor" }] })), Reason::VmmLock);
        assert_eq!(of(json!({ "attached": [{ "vmm": "bhyve" }] })), Reason::Unknown);
        assert_eq!(of(json!({ "attached": [] })), Reason::Unknown);
        let known = [BQL, 0x80, 2];
        assert_eq!(reason_in_futex(&manifest(), known), Reason::Bql);
    }

    fn host(json: serde_json::Value) -> Option<HostFacts> {
        Some(serde_json::from_value(json).expect("facts of a host"))
    }

    #[test]
    fn time_that_a_hypervisor_kept_is_told_from_one_in_a_hundred_on() {
        let mut manifest = manifest();
        manifest.environment = host(serde_json::json!({ "pcpus_online": "0-1" }));
        assert_eq!(stolen(&manifest), None, "the kernel does not say");
        // The window has 1.1 ms, on two pCPUs.
        manifest.stolen_ns = Some(22_000);
        assert_eq!(stolen(&manifest), None);
        manifest.stolen_ns = Some(22_001);
        let warning = stolen(&manifest).expect("more than a hundredth").to_string();
        assert!(warning.contains("kept 1.0 % of its pCPUs' time"), "{warning}");
        manifest.stolen_ns = Some(220_000);
        let warning = stolen(&manifest).expect("a tenth").to_string();
        assert!(warning.contains("kept 10.0 % of its pCPUs' time"), "{warning}");
        let silent = serde_json::json!({ "hypervisor": "QEMU", "mitigations": {} });
        manifest.environment =
            host(serde_json::json!({ "pcpus_online": "0-1", "conditions": silent }));
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

    /// Each of two readings may be a tick late, and in a long time the two clocks go apart.
    #[test]
    fn a_kernel_that_counted_more_than_there_was_is_not_believed() {
        let told = |observed_ns, counted_ns: u64| {
            let (vm, vcpu, tid) = ("vm1".to_owned(), VcpuId(1), Tid(7));
            let run_delay_ns = 1_000;
            let on_pcpu_ns = counted_ns - run_delay_ns;
            let (timeslices, timeslice_mean_ns) = (0, None);
            counted_too_much(
                "vm1",
                &ScheduledVcpu {
                    vm,
                    vcpu,
                    tid,
                    observed_ns,
                    on_pcpu_ns,
                    run_delay_ns,
                    timeslices,
                    timeslice_mean_ns,
                },
            )
        };
        assert_eq!(told(1_000_000_000, 1_020_000_000), None, "two ticks");
        assert_eq!(told(10_000_000_000, 10_100_000_000), None, "1 %");
        for (observed_ns, counted_ns) in
            [(1_000_000_000, 1_020_000_001), (10_000_000_000, 10_100_000_001)]
        {
            let warning = told(observed_ns, counted_ns).expect("more than that").to_string();
            let said = format!("{counted_ns} ns on a pCPU or waiting for one of vm1 vCPU1");
            assert!(warning.contains(&said), "{warning}");
        }
    }

    #[test]
    fn of_a_window_without_a_length_no_share_was_kept() {
        let mut manifest = manifest();
        manifest.environment = host(serde_json::json!({ "pcpus_online": "0-1" }));
        manifest.stolen_ns = Some(22_000);
        let window = manifest.window.as_mut().expect("drawn");
        window.end_ns = Some(window.start_ns);
        assert_eq!(stolen(&manifest), None);
    }
}
