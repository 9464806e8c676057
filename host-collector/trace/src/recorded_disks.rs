//! The disks of a run's VMs whose I/O is recorded, and as the join needs them.

use crate::manifest::{Manifest, VmRecord};
use std::collections::BTreeSet;
use vslice_core::join::{HostAccess, Target};

/// The steps of an I/O without which no phase is known.
const STEPS: [&str; 2] = ["block/block_bio_queue", "block/block_rq_complete"];

/// The disks whose I/O is to be recorded, each once.
#[must_use]
pub fn devices(vms: &[VmRecord]) -> Vec<u32> {
    let disks = vms.iter().filter_map(|vm| Some(vm.disk.as_ref()?.whole_disk.as_ref()?.device));
    disks.collect::<BTreeSet<u32>>().into_iter().collect()
}

/// Marks disks as unrecorded if this kernel turned out to lack a tracepoint for their I/O.
pub fn mark_unrecorded(manifest: &mut Manifest, tracepoints_missing: &[&str]) {
    let Some(step) = tracepoints_missing.iter().find(|name| STEPS.contains(name)) else { return };
    for disk in manifest.vms.iter_mut().filter_map(|vm| vm.disk.as_mut()) {
        disk.missing.get_or_insert_with(|| format!("this kernel has no tracepoint {step}"));
    }
}

/// The disk as the join needs it; `None` where its I/O was not recorded.
#[must_use]
pub fn target(vm: &VmRecord) -> Option<Target> {
    let disk = vm.disk.as_ref().filter(|disk| disk.missing.is_none())?;
    Some(Target {
        // Of what is not known, nothing is taken for granted that only direct reads keep to.
        access: if disk.is_direct == Some(true) { HostAccess::Direct } else { HostAccess::Cached },
        pattern: disk.pattern,
        block_bytes: vm.block_bytes.filter(|bytes| *bytes > 0)?,
        size_bytes: disk.size_bytes,
        offset_bytes: disk.offset_bytes,
        extents: disk.extents_missing.is_none().then(|| disk.extents.clone()),
    })
}
