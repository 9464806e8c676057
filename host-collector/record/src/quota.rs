//! The quotas of the vCPU threads' control groups: read once before the measured window and once
//! after it, and not within, so that reading takes nothing from what is measured.

use std::path::Path;
use vslice_host::cgroup::Hierarchy;
use vslice_trace::manifest::VmRecord;
use vslice_trace::quota::GroupRecord;

/// Notes the groups that limit each VM's vCPU threads. Nothing of it is needed for a run: what cannot
/// be found becomes the reason why.
pub fn note_start(vms: &mut [VmRecord]) {
    let hierarchy = Hierarchy::of_host();
    for vm in vms {
        let noted = hierarchy.as_ref().map_err(Clone::clone).and_then(|found| groups(found, vm));
        match noted {
            Ok(groups) => vm.groups = groups,
            Err(reason) => vm.groups_missing = Some(reason),
        }
    }
}

/// Notes what the quotas of the same groups have done since.
pub fn note_end(vms: &mut [VmRecord]) {
    let Ok(hierarchy) = Hierarchy::of_host() else { return };
    for group in vms.iter_mut().flat_map(|vm| &mut vm.groups) {
        group.after = hierarchy.throttling(Path::new(&group.path));
    }
}

fn groups(hierarchy: &Hierarchy, vm: &VmRecord) -> Result<Vec<GroupRecord>, String> {
    let mut records: Vec<GroupRecord> = Vec::new();
    for thread in &vm.threads {
        let Some(vcpu) = thread.vcpu else { continue };
        for group in hierarchy.groups_of(thread.tid)? {
            let path = group.display().to_string();
            if let Some(known) = records.iter_mut().find(|known| known.path == path) {
                known.vcpus.push(vcpu);
            } else if let Some(before) = hierarchy.throttling(&group) {
                let quota = hierarchy.quota(&group);
                records.push(GroupRecord { path, vcpus: vec![vcpu], quota, before, after: None });
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::units::{Tid, VcpuId};
    use vslice_trace::thread::{ThreadRecord, ThreadRole};
    use vslice_trace::vmm::Vmm;

    fn vm(tid: Tid) -> VmRecord {
        let thread = |vcpu: Option<u16>| ThreadRecord {
            tid,
            comm: String::from("qemu"),
            role: ThreadRole::Other,
            vcpu: vcpu.map(VcpuId),
            pinned: None,
            kept: None,
            scheduling: None,
        };
        VmRecord::new("vm1", Vmm::Qemu, tid, [None, Some(0), Some(1)].map(thread).into())
    }

    #[test]
    fn the_groups_of_this_process_are_found_or_a_reason_why_not() {
        let mut vms = [vm(Tid(std::process::id())), vm(Tid(u32::MAX))];
        note_start(&mut vms);
        note_end(&mut vms);
        let [own, gone] = &vms;
        for group in &own.groups {
            assert_eq!(group.vcpus, [VcpuId(0), VcpuId(1)], "each once, whichever thread");
            assert!(group.after >= Some(group.before), "{group:?}");
        }
        assert!(gone.groups.is_empty() && gone.groups_missing.is_some());
    }
}
