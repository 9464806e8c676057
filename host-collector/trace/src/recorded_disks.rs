//! The disks of a run's VMs whose I/O is recorded, and as the join needs them.

use crate::image::ImageRecord;
use crate::manifest::{Manifest, VmRecord};
use crate::observation::{ObservationRecord, ObservedDeviceRecord, ObservedOthersRecord};
use std::collections::BTreeSet;
use vslice_core::join::{Coverage, HostAccess, Image, ObservedDisk, Target};
use vslice_wire::{BlockOperation, CompletionVcpu};

/// The steps of an I/O without which no phase is known.
const STEPS: [&str; 2] = ["block/block_bio_queue", "block/block_rq_complete"];

/// The disks whose I/O is to be recorded, each once.
#[must_use]
pub fn devices(vms: &[VmRecord]) -> Vec<u32> {
    let read = vms.iter().filter_map(|vm| vm.disk.as_ref()?.whole_disk.as_ref());
    let all = vms.iter().flat_map(|vm| &vm.disks).filter_map(|disk| disk.whole_disk.as_ref());
    read.chain(all).map(|disk| disk.device).collect::<BTreeSet<u32>>().into_iter().collect()
}

/// Marks disks as unrecorded if this kernel turned out to lack a tracepoint for their I/O.
pub fn mark_unrecorded(manifest: &mut Manifest, tracepoints_missing: &[&str]) {
    let Some(step) = tracepoints_missing.iter().find(|name| STEPS.contains(name)) else { return };
    for vm in &mut manifest.vms {
        let read = vm.disk.iter_mut().map(|disk| &mut disk.missing);
        for missing in read.chain(vm.disks.iter_mut().map(|disk| &mut disk.missing)) {
            missing.get_or_insert_with(|| format!("this kernel has no tracepoint {step}"));
        }
    }
}

/// The disk as the join needs it; `None` where its I/O was not recorded.
#[must_use]
pub fn target(vm: &VmRecord) -> Option<Target> {
    let disk = vm.disk.as_ref().filter(|disk| disk.missing.is_none())?;
    Some(Target {
        access: access(disk.is_direct),
        pattern: disk.pattern,
        block_bytes: vm.block_bytes.filter(|bytes| *bytes > 0)?,
        size_bytes: disk.size_bytes,
        offset_bytes: disk.offset_bytes,
        extents: disk.extents_missing.is_none().then(|| disk.extents.clone()),
    })
}

/// Of what is not known, nothing is taken for granted that only direct I/O keeps to.
fn access(is_direct: Option<bool>) -> HostAccess {
    if is_direct == Some(true) { HostAccess::Direct } else { HostAccess::Cached }
}

/// On which vCPU the guest completes requests of its disks, by their numbers.
pub fn completions(vm: &VmRecord) -> impl Iterator<Item = (u16, CompletionVcpu)> {
    let devices = vm.observation.iter().flat_map(|observation| &observation.devices);
    devices.map(|device| (device.number, device.completion_vcpu))
}

/// The disks whose requests were observed in the guest, as the join needs them; those are left out whose I/O
/// on the host was not recorded.
#[must_use]
pub fn observed(vm: &VmRecord) -> Vec<ObservedDisk> {
    let Some(observation) = &vm.observation else { return Vec::new() };
    let disk = |device: &ObservedDeviceRecord| {
        let place = device.disk?;
        let disk = vm.disks.get(place).filter(|disk| disk.missing.is_none())?;
        let host_device = disk.whole_disk.as_ref()?.device;
        let may_be_there = |other: &ImageRecord| {
            other.whole_disk.as_ref().is_none_or(|whole| whole.device == host_device)
        };
        let mut others = (0..).zip(&vm.disks).filter(|(other, _)| *other != place);
        let is_alone = vm.disks_missing.is_none() && !others.any(|(_, other)| may_be_there(other));
        let coverage = match is_alone {
            _ if observation.slower_than_us > 0 => Coverage::Slow,
            true => Coverage::All,
            false => Coverage::Disk,
        };
        // Of a disk whose discards were not told it is not known where its bytes are by now.
        let is_settled = observation.slower_than_us == 0 || tells_all_moves(observation, device);
        let is_mapped = is_settled && disk.extents_missing.is_none();
        let extents = is_mapped.then(|| disk.extents.clone());
        let image = Image { access: access(disk.is_direct), extents };
        let descriptors = own_descriptors(vm, place);
        Some(ObservedDisk { number: device.number, host_device, image, coverage, descriptors })
    };
    observation.devices.iter().filter_map(disk).collect()
}

/// The numbers by which the VMM has this disk's file open, if it is no other disk's file as well.
fn own_descriptors(vm: &VmRecord, place: usize) -> Vec<u32> {
    let others = || (0..).zip(&vm.disks).filter(|(other, _)| *other != place);
    let is_others = |number: &u32| others().any(|(_, disk)| disk.descriptors.contains(number));
    vm.disks[place].descriptors.iter().copied().filter(|number| !is_others(number)).collect()
}

/// Whether those requests of a disk that were only counted are known, and none of them gave sectors back.
fn tells_all_moves(observation: &ObservationRecord, device: &ObservedDeviceRecord) -> bool {
    let moves = |of: &ObservedOthersRecord| {
        matches!(of.operation, BlockOperation::Discard | BlockOperation::Other)
    };
    let own = |of: &&ObservedOthersRecord| of.device == device.number && of.count > 0;
    !observation.others.is_empty() && !observation.others.iter().filter(own).any(moves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::WholeDisk;
    use crate::vmm::Vmm;
    use vslice_core::units::Tid;

    fn image(device: u32) -> ImageRecord {
        ImageRecord {
            label: String::from("disk"),
            serial: None,
            pci_address: None,
            bus: String::from("virtio-blk"),
            iothreads: None,
            size_bytes: None,
            is_direct: Some(true),
            descriptors: Vec::new(),
            whole_disk: Some(WholeDisk { name: String::from("sda"), device, first_sector: 0 }),
            missing: None,
            extents: Vec::new(),
            extents_missing: None,
        }
    }

    fn device(number: u16, disk: Option<usize>) -> ObservedDeviceRecord {
        ObservedDeviceRecord {
            number,
            name: format!("vd{number}"),
            size_bytes: None,
            serial: None,
            address: None,
            io_scheduler: None,
            hardware_queues: None,
            completion_vcpu: CompletionVcpu::Interrupted,
            disk,
            disk_missing: None,
        }
    }

    fn vm(
        disks: Vec<ImageRecord>,
        devices: Vec<ObservedDeviceRecord>,
        slower_than_us: u64,
    ) -> VmRecord {
        let observation =
            ObservationRecord { devices, slower_than_us, ..ObservationRecord::default() };
        let vm = VmRecord::new("vm1", Vmm::Qemu, Tid(2), Vec::new());
        VmRecord { disks, observation: Some(observation), ..vm }
    }

    #[test]
    fn a_disk_is_covered_whose_requests_are_all_told_and_which_is_alone() {
        let of = |vm: &VmRecord| -> Vec<(u16, u32, Coverage)> {
            observed(vm).iter().map(|disk| (disk.number, disk.host_device, disk.coverage)).collect()
        };
        let both = || vec![device(7, Some(0)), device(8, Some(1))];
        let (here, there) = (image(11), image(22));
        let apart = vm(vec![here.clone(), there.clone()], both(), 0);
        assert_eq!(of(&apart), [(7, 11, Coverage::All), (8, 22, Coverage::All)]);
        let together = vm(vec![here.clone(), here.clone()], both(), 0);
        assert_eq!(of(&together), [(7, 11, Coverage::Disk), (8, 11, Coverage::Disk)]);
        // One that is not observed, and one of which nobody knows where it is.
        let one_is_observed = vm(vec![here.clone(), here.clone()], vec![device(7, Some(0))], 0);
        assert_eq!(of(&one_is_observed), [(7, 11, Coverage::Disk)]);
        let nowhere = ImageRecord { whole_disk: None, ..image(0) };
        let with_unknown = vm(vec![here.clone(), nowhere.clone()], both(), 0);
        assert_eq!(of(&with_unknown), [(7, 11, Coverage::Disk)]);
        let more = VmRecord { disks_missing: Some(String::from("no")), ..apart.clone() };
        assert!(of(&more).iter().all(|(.., coverage)| *coverage == Coverage::Disk));
        let slow = vm(vec![here.clone(), there], both(), 5);
        assert!(of(&slow).iter().all(|(.., coverage)| *coverage == Coverage::Slow));
        let not_recorded = ImageRecord { missing: Some(String::from("no")), ..here };
        assert!(of(&vm(vec![not_recorded], both(), 0)).is_empty());
        assert!(of(&vm(vec![], vec![device(7, Some(3)), device(8, None)], 0)).is_empty());
    }

    #[test]
    fn a_file_that_two_disks_have_is_none_of_them_alone() {
        let open = |descriptors| ImageRecord { descriptors, ..image(1) };
        let disks = vec![open(vec![14, 15]), open(vec![15, 16]), open(vec![])];
        let devices = (0..).map(|number| device(number, Some(number.into()))).take(3).collect();
        let of = observed(&vm(disks, devices, 0));
        let told: Vec<Vec<u32>> = of.into_iter().map(|disk| disk.descriptors).collect();
        assert_eq!(told, [vec![14], vec![16], vec![]]);
    }

    #[test]
    fn where_discards_were_only_counted_it_is_not_known_where_the_bytes_are() {
        let counted = |operation, number| ObservedOthersRecord {
            device: number,
            operation,
            is_sync: false,
            count: 3,
            bytes: 0,
            total_ns: 0,
        };
        let is_mapped = |slower_than_us, others| {
            let mut vm = vm(vec![image(1)], vec![device(7, Some(0))], slower_than_us);
            let observation = vm.observation.take();
            vm.observation = observation.map(|of| ObservationRecord { others, ..of });
            observed(&vm).remove(0).image.extents.is_some()
        };
        assert!(is_mapped(0, vec![]));
        assert!(is_mapped(5, vec![counted(BlockOperation::Read, 7)]));
        assert!(is_mapped(5, vec![counted(BlockOperation::Discard, 8)]), "another disk's");
        assert!(!is_mapped(5, vec![counted(BlockOperation::Discard, 7)]));
        assert!(!is_mapped(5, vec![counted(BlockOperation::Other, 7)]));
        assert!(!is_mapped(5, vec![]), "it was not told what was counted");
    }

    #[test]
    fn what_is_not_known_of_an_image_is_not_taken_for_granted() {
        let of = |image| observed(&vm(vec![image], vec![device(7, Some(0))], 0)).remove(0).image;
        assert_eq!(of(image(1)), Image { access: HostAccess::Direct, extents: Some(vec![]) });
        let unknown = ImageRecord {
            is_direct: None,
            extents_missing: Some(String::from("qcow2")),
            ..image(1)
        };
        assert_eq!(of(unknown), Image { access: HostAccess::Cached, extents: None });
    }
}
