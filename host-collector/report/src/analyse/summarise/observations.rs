//! What a run's manifest says of what agents observed, before any of their requests is read.

use crate::analyse::chosen::Chosen;
use crate::summary::VmIndex;
use crate::summary::observed::{Observation, ReadPlaces};
use std::collections::BTreeMap;
use vslice_trace::manifest::{Manifest, VmRecord};
use vslice_wire::NOT_OBSERVED;

/// That of each guest that observed.
pub(super) fn of(manifest: &Manifest, chosen: &Chosen) -> BTreeMap<VmIndex, Observation> {
    let vms = manifest.vms.iter().enumerate();
    let observed = vms.filter_map(|(index, vm)| Some((VmIndex(index), of_vm(vm)?)));
    let told = observed.filter(|(index, _)| chosen.has_vm(*index));
    told.map(|(index, of)| (index, if chosen.picks_requests() { of_part(of) } else { of }))
        .collect()
}

/// What is known of some of its requests: what the agent counted over all of the run is not of them, and the
/// counterpart of a reader's request may be no chosen.
fn of_part(mut of: Observation) -> Observation {
    of.record.others.clear();
    of.record.lost_count = 0;
    if let Some(cost) = &mut of.record.cost {
        cost.lost_count = 0;
    }
    Observation { reader: None, ..of }
}

fn of_vm(vm: &VmRecord) -> Option<Observation> {
    let record = vm.observation.clone()?;
    let host_disks = vm.disks.iter().map(|disk| {
        let whole = disk.whole_disk.as_ref().filter(|_| disk.missing.is_none());
        whole.map(|whole| whole.name.clone())
    });
    let notices = vm.guest.iter().flat_map(|guest| &guest.notices);
    let why = notices.filter_map(|text| text.strip_prefix(NOT_OBSERVED)?.strip_prefix(": "));
    Some(Observation {
        unobserved: why.map(str::to_owned).next(),
        record,
        host_disks: host_disks.collect(),
        reader: vm.reader_vcpu.is_some().then(|| places(vm)),
    })
}

fn places(vm: &VmRecord) -> ReadPlaces {
    let block_bytes = vm.block_bytes.filter(|bytes| *bytes > 0);
    match (&vm.disk, block_bytes) {
        (Some(disk), Some(block_bytes)) if disk.size_bytes > 0 => ReadPlaces::Known {
            pattern: disk.pattern,
            block_bytes,
            size_bytes: disk.size_bytes,
            offset_bytes: disk.offset_bytes,
        },
        _ => ReadPlaces::Unknown(String::from(
            "where the reader's requests lie on the guest's disk is not known",
        )),
    }
}
