//! What is noted of each guest's disk just before a run is recorded, so that the host's I/O can be
//! given to the guest's requests. Nothing of it is needed for a run: what cannot be found becomes
//! the reason why.

use super::manifest::{DiskRecord, Manifest, VmRecord};
use crate::join::{HostAccess, Target};
use crate::lab::launch::Guest;
use crate::lab::plan::{Plan, VmPlan};
use crate::vmm::{extents, host};
use std::collections::BTreeSet;
use std::path::Path;

/// The steps of an I/O without which no phase is known.
const STEPS: [&str; 2] = ["block/block_bio_queue", "block/block_rq_complete"];

/// Notes the disk of each VM that has a reader. Not while requests are measured: it reads.
pub(super) fn note(vms: &mut [VmRecord], plan: &Plan, guests: &[Guest]) {
    for vm in vms {
        let image = guests.iter().find(|guest| guest.name() == vm.name).and_then(Guest::disk_image);
        let planned = plan.vms.iter().find(|planned| planned.name == vm.name);
        vm.disk = planned.zip(image).and_then(|(planned, image)| disk(planned, image));
    }
}

/// The disk of a VM that reads one.
fn disk(plan: &VmPlan, image: &Path) -> Option<DiskRecord> {
    let (disk, reader) = (plan.disk.as_ref()?, plan.reader.as_ref()?);
    let mut record = DiskRecord {
        is_direct: disk.cache.is_direct(),
        pattern: reader.pattern,
        size_bytes: disk.size_bytes,
        whole_disk: None,
        missing: None,
        extents: Vec::new(),
        extents_missing: None,
    };
    match host::whole_disk(image) {
        Ok(whole) => {
            match extents::extents(image, whole.first_sector) {
                Ok(extents) => record.extents = extents,
                Err(reason) => record.extents_missing = Some(reason),
            }
            record.whole_disk = Some(whole);
        }
        Err(reason) => record.missing = Some(reason),
    }
    Some(record)
}

/// The disks whose I/O is to be recorded, each once.
pub(super) fn devices(vms: &[VmRecord]) -> Vec<u32> {
    let disks = vms.iter().filter_map(|vm| Some(vm.disk.as_ref()?.whole_disk.as_ref()?.device));
    disks.collect::<BTreeSet<u32>>().into_iter().collect()
}

/// Takes back what this kernel could not record after all.
pub(super) fn take_back(manifest: &mut Manifest, tracepoints_missing: &[&str]) {
    let Some(step) = tracepoints_missing.iter().find(|name| STEPS.contains(name)) else { return };
    for disk in manifest.vms.iter_mut().filter_map(|vm| vm.disk.as_mut()) {
        disk.missing.get_or_insert_with(|| format!("this kernel has no tracepoint {step}"));
    }
}

/// The disk as the join needs it; `None` where its I/O was not recorded.
pub(super) fn target(vm: &VmRecord) -> Option<Target> {
    let disk = vm.disk.as_ref().filter(|disk| disk.missing.is_none())?;
    Some(Target {
        access: if disk.is_direct { HostAccess::Direct } else { HostAccess::Cached },
        pattern: disk.pattern,
        block_bytes: vm.block_bytes.filter(|bytes| *bytes > 0)?,
        size_bytes: disk.size_bytes,
        extents: disk.extents_missing.is_none().then(|| disk.extents.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In memory, where no device is.
    #[test]
    fn what_is_not_on_a_disk_has_a_reason_and_no_target() {
        let plan = Plan::load("demo").expect("built in");
        let record = disk(&plan.vms[0], Path::new("/proc/self/stat")).expect("vm1 reads");
        assert_eq!(record.whole_disk, None);
        let reason = record.missing.expect("a reason");
        assert!(reason.contains("not on one block device"), "{reason}");
        assert_eq!(disk(&plan.vms[1], Path::new("/proc/self/stat")), None, "vm2 has no disk");
    }

    #[test]
    fn the_disk_of_this_host_is_a_device_or_a_reason() {
        let plan = Plan::load("demo").expect("built in");
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("writable");
        let record = disk(&plan.vms[0], file.path()).expect("vm1 reads");
        assert_eq!(record.whole_disk.is_none(), record.missing.is_some(), "{record:?}");
    }
}
