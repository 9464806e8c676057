//! What a manifest knows beside the events, as the timelines need it.

use crate::summary::quota::QuotaUse;
use serde::Deserialize;
use vslice_core::timeline::classify::Preemption;
use vslice_core::timeline::{
    FoundLock, GuestMode, LockFacts, LockSearch, LockUser, StackTable, Timeline, Vmm, Watched,
};
use vslice_core::units::VcpuId;
use vslice_trace::host::HostFacts;
use vslice_trace::manifest::{Manifest, VmRecord};
use vslice_trace::quota::GroupRecord;
use vslice_trace::thread::{ThreadRecord, ThreadRole};
use vslice_trace::vmm::{self, Accelerator};

/// The timelines of all threads of the VMs: those of other threads than vCPUs tell for how long
/// locks were held.
pub(super) fn timeline(
    manifest: &Manifest,
    stacks: StackTable,
    shown: &[Option<FoundLock>],
) -> Timeline {
    let host = manifest.environment.as_ref();
    let slice = host.and_then(|host| host.slice.as_ref());
    let facts = (0..manifest.vms.len()).map(|place| {
        let bql_by_behaviour = match shown.get(place) {
            Some(Some(FoundLock::Found(lock))) => Some(lock.address),
            _ => None,
        };
        LockFacts { bql_by_behaviour, ..lock_facts(manifest, place) }
    });
    Timeline::new(watched(manifest), stacks)
        .with_lock_facts(facts.collect())
        .with_slice(slice.map(|slice| slice.shortest_ns()))
        .with_preemption(host.and_then(preemption))
}

/// When a woken thread preempts. A kernel that does so only where the other one gives way may take as long
/// as that stays in the kernel: of it nothing is said.
fn preemption(host: &HostFacts) -> Option<Preemption> {
    match (host.conditions.as_ref()?.preemption.as_deref()?, host.tick_hz) {
        ("lazy", Some(hz)) => {
            let tick_ns = 1_000_000_000_u64.checked_div(hz.into())?;
            Some(Preemption::AtTick { tick_ns })
        }
        ("full", _) => Some(Preemption::AtOnce),
        _ => None,
    }
}

/// Looks in a recording for the big locks that QEMUs' code did not tell.
pub(super) fn lock_search(manifest: &Manifest, stacks: StackTable) -> LockSearch {
    let facts = (0..manifest.vms.len()).map(|place| lock_facts(manifest, place));
    LockSearch::new(watched(manifest), stacks, facts)
}

fn watched(manifest: &Manifest) -> impl Iterator<Item = Watched> {
    manifest.vms.iter().enumerate().flat_map(|(vm, record)| {
        record.threads.iter().map(move |thread| Watched {
            tid: thread.tid,
            vm,
            user: user(thread),
            is_throttled: is_throttled(record, thread),
        })
    })
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
        Some(vmm::Vmm::Kvmtool | vmm::Vmm::Other) | None => Vmm::Unknown,
    };
    LockFacts {
        vmm,
        mode: mode(manifest, place),
        bql: vm.lock.bql.as_ref().map(|bql| bql.address),
        bql_by_behaviour: None,
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

#[cfg(test)]
mod tests {
    use super::super::drawn::{BQL, VM1_VCPU1, host_at, manifest};
    use super::*;
    use serde_json::json;
    use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
    use vslice_core::timeline::{Reason, ThreadState};
    use vslice_core::units::{PcpuId, Tid};

    /// Why vm1's vCPU1 sleeps in a call of futex(2) with these arguments.
    fn reason_in_futex(manifest: &Manifest, args: [u64; 3]) -> Reason {
        let mut stacks = StackTable::default();
        stacks.push(vec!["futex_wait_queue".to_owned(), "futex_wait".to_owned()]);
        let mut timeline = timeline(manifest, stacks, &[]);
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
    fn how_a_host_preempts_is_what_its_kernel_says() {
        let of = |conditions: serde_json::Value, tick_hz: serde_json::Value| {
            let host = json!({ "conditions": conditions, "tick_hz": tick_hz });
            preemption(&serde_json::from_value(host).expect("facts of a host"))
        };
        let model = |model: &str| json!({ "preemption": model, "mitigations": {} });
        let lazy = Some(Preemption::AtTick { tick_ns: 4_000_000 });
        assert_eq!(of(model("lazy"), json!(250)), lazy);
        assert_eq!(of(model("full"), json!(null)), Some(Preemption::AtOnce));
        for silent in [model("voluntary"), model("none"), model("rt"), json!(null)] {
            assert_eq!(of(silent, json!(250)), None);
        }
        for tick_hz in [json!(null), json!(0)] {
            assert_eq!(of(model("lazy"), tick_hz), None);
        }
    }

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
}
