//! What a manifest knows beside the events, as the timelines need it.

use crate::run::manifest::{Manifest, ThreadRecord, VmRecord};
use crate::timeline::{
    GuestMode, LockFacts, LockUser, StackTable, Timeline, VmFacts, Vmm, Watched,
};
use crate::vmm::host::HostFacts;

/// The timelines of all threads of the VMs: those of other threads than vCPUs tell for how long
/// locks were held.
pub(super) fn timeline(manifest: &Manifest, stacks: StackTable) -> Timeline {
    let mode = mode(manifest);
    let threads = manifest.vms.iter().enumerate().flat_map(|(vm, record)| {
        record.threads.iter().map(move |thread| Watched { tid: thread.tid, vm, user: user(thread) })
    });
    let host = serde_json::from_value::<HostFacts>(manifest.environment.clone()).ok();
    let slice = host.and_then(|host| host.slice);
    Timeline::new(threads, stacks)
        .knowing(manifest.vms.iter().map(|vm| vm_facts(vm, mode)).collect())
        .with_slice(slice.map(|slice| slice.expected_ns))
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

/// What is known of one VMM.
pub(super) fn vm_facts(vm: &VmRecord, mode: Option<GuestMode>) -> VmFacts {
    let locks = LockFacts {
        vmm: Vmm::Qemu,
        mode,
        bql: vm.lock.bql.as_ref().map(|bql| bql.address),
        exe_data: vm.lock.exe_data.map(|data| (data.start, data.end)),
    };
    VmFacts { locks, is_throttled: false }
}
