//! From what the analysis tells of the host's I/O to the summary.

use crate::analyse::chosen::Chosen;
use crate::summary::VmIndex;
use crate::summary::host_io::{HostIo, HostIoDisk, HostIoTally};
use vslice_core::task::{Task, ThreadKind};
use vslice_core::text::harmless;
use vslice_core::timeline::Who;
use vslice_trace::evidence::EvidenceLevel;
use vslice_trace::image::ImageRecord;
use vslice_trace::manifest::{Manifest, VmRecord};

pub(super) fn host_io(tally: HostIoTally, manifest: &Manifest, chosen: &Chosen) -> HostIo {
    let is_recorded = manifest.evidence.level == EvidenceLevel::Recorded;
    let vms = manifest.vms.iter().enumerate().filter(|(vm, _)| chosen.has_vm(VmIndex(*vm)));
    let why_not = match is_recorded {
        false => Some("the host's events were not recorded"),
        true => chosen.picks_vcpus().then_some("the host does not see of which vCPU an I/O is"),
    };
    let disks =
        vms.flat_map(|(vm, record)| {
            record.disks.iter().enumerate().map(move |(place, image)| {
                ((vm, Some(place)), host_io_disk(record, image, why_not))
            })
        });
    let vm_name = |vm: usize| match manifest.vms.get(vm) {
        Some(record) => record.name.clone(),
        None => String::new(),
    };
    tally.finish(disks.collect(), vm_name, |who| match who {
        Who::Idle => "nobody (idle)".to_owned(),
        Who::Others => "several threads".to_owned(),
        Who::Thread(task) => task_name(task, &vm_name),
    })
}

fn host_io_disk(record: &VmRecord, image: &ImageRecord, why_not: Option<&str>) -> HostIoDisk {
    let untold = || why_not.map(str::to_owned);
    HostIoDisk {
        vm: record.name.clone(),
        disk: Some(image.label.clone()),
        device: image.whole_disk.as_ref().map(|whole| whole.name.clone()),
        is_direct: image.is_direct,
        reason: image.missing.clone().or_else(untold),
        interrupts_missing: record.interrupts.missing.clone(),
        operations: Vec::new(),
    }
}

fn task_name(task: &Task, vm_name: &impl Fn(usize) -> String) -> String {
    let name = match task.kind {
        ThreadKind::Vcpu { vm, vcpu } => format!("{} {vcpu}", vm_name(vm.0)),
        ThreadKind::Vmm { vm } => format!("{} {}", vm_name(vm.0), task.name),
        ThreadKind::Collector => format!("vslice itself ({})", task.name),
        ThreadKind::OtherVslice { .. }
        | ThreadKind::Kernel
        | ThreadKind::Host
        | ThreadKind::Unknown => task.name.clone(),
    };
    harmless(&format!("{name} ({})", task.tid))
}
