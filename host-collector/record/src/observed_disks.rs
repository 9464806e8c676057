//! Which disk of the VM each disk is that a guest observed: by what must be so, never by likelihood. What is
//! not certain has the reason.

use vslice_trace::image::ImageRecord;
use vslice_trace::observation::{ObservationRecord, ObservedDeviceRecord};

/// What a guest sees of a longer serial number, on virtio (linux: include/uapi/linux/virtio_blk.h,
/// `VIRTIO_BLK_ID_BYTES`), and of IDE and NVMe as well.
const SERIAL_BYTES_MAX: usize = 20;

/// A kind of disk in Linux.
struct Kind {
    /// How its names begin.
    prefix: &'static str,
    /// The buses of QEMU on which it may be, and any that is not named here.
    buses: &'static [&'static str],
    /// Whether it is behind a PCI function wherever it is the VM's: one that is not comes over the guest's
    /// network.
    is_on_pci: bool,
    /// Whether its names go on with a letter for each disk, from `a`, in the order in which they came.
    is_lettered: bool,
}

const SCSI: &[&str] = &["virtio-scsi", "scsi", "ide", "ahci", "sata", "usb"];

/// Those that a VM may have from its VMM. A loop device or one of the device-mapper is none.
const KINDS: [Kind; 5] = [
    Kind {
        prefix: "vd",
        buses: &["virtio-blk", "vhost-user-blk"],
        is_on_pci: false,
        is_lettered: true,
    },
    Kind { prefix: "nvme", buses: &["nvme"], is_on_pci: true, is_lettered: false },
    Kind { prefix: "sd", buses: SCSI, is_on_pci: true, is_lettered: true },
    Kind { prefix: "sr", buses: SCSI, is_on_pci: true, is_lettered: false },
    Kind { prefix: "xvd", buses: &[], is_on_pci: false, is_lettered: false },
];

impl Kind {
    fn of(name: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| name.starts_with(kind.prefix))
    }

    /// How many disks of this kind there must have been when the guest gave one this name; 0 if it does not
    /// say (linux 6.1: drivers/scsi/sd.c, `sd_format_disk_name`: after `sdz` comes `sdaa`).
    fn count_at(&self, name: &str) -> usize {
        let letters = name.strip_prefix(self.prefix).unwrap_or("").bytes();
        if !self.is_lettered
            || letters.len() > 3
            || !letters.clone().all(|of| of.is_ascii_lowercase())
        {
            return 0;
        }
        letters.fold(0, |count, letter| count * 26 + usize::from(letter - b'a') + 1)
    }

    /// Whether Linux would give a disk on that bus such a name. A bus that is not known may be any.
    fn may_be_on(&self, bus: &str) -> bool {
        let is_known = KINDS.iter().any(|kind| kind.buses.contains(&bus));
        !is_known || self.buses.contains(&bus)
    }
}

/// Notes of each observed disk which of the VM's it is; `missing` is why those are not known.
pub(crate) fn place(
    observation: &mut ObservationRecord,
    disks: &[ImageRecord],
    missing: Option<&str>,
) {
    let found: Vec<Result<usize, String>> = observation
        .devices
        .iter()
        .map(|device| match missing {
            Some(reason) => Err(reason.to_owned()),
            None => the_one(device, &observation.devices, disks),
        })
        .collect();
    for (device, of) in observation.devices.iter_mut().zip(&found) {
        let claims = found.iter().filter(|other| other.is_ok() && *other == of).count();
        match of {
            Ok(_) if claims > 1 => {
                let reason =
                    format!("the guest sees {claims} disks that may be the same of the VM's");
                device.disk_missing = Some(reason);
            }
            Ok(place) => device.disk = Some(*place),
            Err(reason) => device.disk_missing = Some(reason.clone()),
        }
    }
}

fn the_one(
    device: &ObservedDeviceRecord,
    all: &[ObservedDeviceRecord],
    disks: &[ImageRecord],
) -> Result<usize, String> {
    let of = |is_it: &dyn Fn(&ImageRecord) -> Option<bool>| -> Vec<usize> {
        (0..disks.len()).filter(|place| is_it(&disks[*place]) == Some(true)).collect()
    };
    for (what, same) in [
        ("serial number", of(&|disk| has_serial(device, disk))),
        ("PCI address", of(&|disk| has_address(device, disk))),
    ] {
        match same[..] {
            [] => {}
            [place] => return Ok(place),
            _ => return Err(format!("{} of the VM's disks have its {what}", same.len())),
        }
    }
    let kind =
        Kind::of(&device.name).ok_or_else(|| "no VMM's disk is called so in Linux".to_owned())?;
    if kind.is_on_pci && device.address.is_none() {
        return Err(
            "the guest sees it on no PCI bus: it may come over the guest's network".to_owned()
        );
    }
    let of_kind = disks.iter().filter(|disk| kind.may_be_on(&disk.bus)).count();
    // The guest need not have told of all, and one that was plugged in may have the name of one that left.
    let at_least = all.iter().map(|device| kind.count_at(&device.name)).max().unwrap_or(0);
    if of_kind > 0 && at_least > of_kind {
        return Err(format!(
            "the guest has had {at_least} such disks, and the VM's command line has {of_kind}: a serial number there \
             would tell"
        ));
    }
    let can_be = |disk: &ImageRecord| {
        let differs =
            has_serial(device, disk) == Some(false) || has_address(device, disk) == Some(false);
        !differs && kind.may_be_on(&disk.bus)
    };
    let mut sized = (0..disks.len()).filter(|place| can_be(&disks[*place])).peekable();
    if sized.peek().is_none() {
        return Err("no disk on the VM's command line can be it".to_owned());
    }
    let Some(wanted_bytes) = device.size_bytes else {
        return Err("the guest does not tell its size".to_owned());
    };
    let (known, unknown): (Vec<usize>, Vec<usize>) =
        sized.partition(|place| disks[*place].size_bytes.is_some());
    let same: Vec<usize> =
        known.into_iter().filter(|place| disks[*place].size_bytes == Some(wanted_bytes)).collect();
    match (&same[..], unknown.len()) {
        ([place], 0) => Ok(*place),
        ([], 0) => Err(format!("no disk on the VM's command line has its {wanted_bytes} bytes")),
        ([], 1) => Err(
            "the size of the only disk of the VM that it may be is unknown: a serial number on the command line \
             would tell"
                .to_owned(),
        ),
        (same, unknown) => Err(format!(
            "it may be any of {} disks of the VM: a serial number on the command line would tell",
            same.len() + unknown
        )),
    }
}

/// Whether it has the serial number that is told of the VM's disk; `None` if none is, or the guest sees none.
fn has_serial(device: &ObservedDeviceRecord, disk: &ImageRecord) -> Option<bool> {
    let (seen, told) = (device.serial.as_deref()?, disk.serial.as_deref()?);
    let cut = &told[..told.floor_char_boundary(SERIAL_BYTES_MAX)];
    Some(seen == told || seen == cut)
}

/// Whether it is at the address that is told of the VM's disk.
fn has_address(device: &ObservedDeviceRecord, disk: &ImageRecord) -> Option<bool> {
    Some(device.address.as_deref()? == disk.pci_address.as_deref()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_wire::CompletionVcpu;

    fn device(name: &str, gib: u64) -> ObservedDeviceRecord {
        ObservedDeviceRecord {
            number: 0,
            name: name.to_owned(),
            size_bytes: (gib > 0).then_some(gib << 30),
            serial: None,
            // Of no disk on the command line.
            address: (!name.starts_with("vd")).then(|| "0000:00:1f.2".to_owned()),
            io_scheduler: None,
            hardware_queues: None,
            completion_vcpu: CompletionVcpu::Unknown,
            disk: None,
            disk_missing: None,
        }
    }

    fn disk(bus: &str, gib: u64) -> ImageRecord {
        ImageRecord {
            label: format!("{bus} of {gib} GiB"),
            serial: None,
            pci_address: None,
            bus: bus.to_owned(),
            iothreads: None,
            size_bytes: (gib > 0).then_some(gib << 30),
            is_direct: Some(true),
            descriptors: Vec::new(),
            whole_disk: None,
            missing: None,
            extents: Vec::new(),
            extents_missing: None,
        }
    }

    fn placed(
        devices: Vec<ObservedDeviceRecord>,
        disks: &[ImageRecord],
    ) -> Vec<Result<usize, String>> {
        let mut observation = ObservationRecord { devices, ..ObservationRecord::default() };
        place(&mut observation, disks, None);
        let of = |device: &ObservedDeviceRecord| {
            assert_eq!(device.disk.is_some(), device.disk_missing.is_none(), "{device:?}");
            device.disk.ok_or(device.disk_missing.clone().unwrap_or_default())
        };
        observation.devices.iter().map(of).collect()
    }

    fn reason(device: ObservedDeviceRecord, disks: &[ImageRecord]) -> String {
        placed(vec![device], disks).remove(0).expect_err("not certain")
    }

    #[test]
    fn a_serial_number_tells_before_all_else_also_where_the_guest_sees_its_beginning() {
        let told = |serial: &str| Some(serial.to_owned());
        let long = "0123456789abcdef0123456789";
        let disks = [
            ImageRecord { serial: told("a"), ..disk("virtio-blk", 1) },
            ImageRecord { serial: told(long), ..disk("virtio-blk", 1) },
        ];
        let of = |serial: &str| ObservedDeviceRecord { serial: told(serial), ..device("vda", 1) };
        assert_eq!(placed(vec![of(&long[..20]), of("a")], &disks), [Ok(1), Ok(0)]);
        let twice = [disks[0].clone(), disks[0].clone()];
        assert_eq!(reason(of("a"), &twice), "2 of the VM's disks have its serial number");
        assert_eq!(reason(of("b"), &disks), "no disk on the VM's command line can be it");
        // QEMU makes serial numbers for IDE of which the command line says nothing.
        assert_eq!(placed(vec![of("QM00001")], &[disk("virtio-blk", 1)]), [Ok(0)]);
    }

    #[test]
    fn an_address_tells_else_and_one_that_differs_excludes() {
        let at = |slot: u8| Some(format!("0000:00:{slot:02x}.0"));
        let disks = [
            ImageRecord { pci_address: at(5), ..disk("virtio-blk", 1) },
            ImageRecord { pci_address: at(6), ..disk("virtio-blk", 1) },
            disk("virtio-blk", 1),
        ];
        let of = |slot| ObservedDeviceRecord { address: at(slot), ..device("vda", 1) };
        assert_eq!(placed(vec![of(6), of(5)], &disks), [Ok(1), Ok(0)]);
        assert_eq!(placed(vec![of(7)], &disks), [Ok(2)], "neither of those that have an address");
    }

    #[test]
    fn size_and_bus_tell_where_there_is_one_such_disk() {
        let disks = [disk("virtio-blk", 1), disk("virtio-blk", 2), disk("ahci", 1)];
        let all = vec![device("vda", 1), device("vdb", 2), device("sda", 1)];
        assert_eq!(placed(all, &disks), [Ok(0), Ok(1), Ok(2)]);
        assert!(
            reason(device("vdb", 3), &disks)
                .starts_with("no disk on the VM's command line has its")
        );
        assert_eq!(
            reason(device("nvme0n1", 1), &disks),
            "no disk on the VM's command line can be it"
        );
        assert_eq!(reason(device("vda", 0), &disks), "the guest does not tell its size");
        let alike = [disk("virtio-blk", 1), disk("virtio-blk", 1)];
        assert!(reason(device("vda", 1), &alike).starts_with("it may be any of 2 disks of the VM"));
        let unsized_ = [disk("virtio-blk", 1), disk("virtio-blk", 0)];
        assert!(
            reason(device("vda", 1), &unsized_).starts_with("it may be any of 2"),
            "may be both"
        );
        let snapshot = [disk("virtio-blk", 0), disk("ahci", 1)];
        assert!(
            reason(device("vda", 1), &snapshot)
                .starts_with("the size of the only disk of the VM that it may be is unknown")
        );
        assert_eq!(placed(vec![device("xvda", 1)], &[disk("xen", 1)]), [Ok(0)]);
    }

    /// Such as one over iSCSI, or a RAID of the guest's, of the same size by chance.
    #[test]
    fn a_disk_that_no_vmm_gave_is_none_of_the_vms() {
        let disks = [disk("virtio-scsi", 1)];
        assert_eq!(placed(vec![device("sda", 1)], &disks), [Ok(0)]);
        let remote = ObservedDeviceRecord { address: None, ..device("sda", 1) };
        assert!(reason(remote.clone(), &disks).contains("over the guest's network"));
        for name in ["dm-0", "md127", "loop0", "zram0", "nbd0", ""] {
            assert_eq!(
                reason(device(name, 1), &disks),
                "no VMM's disk is called so in Linux",
                "{name}"
            );
        }
        let serial = Some("a".to_owned());
        let told = [ImageRecord { serial: serial.clone(), ..disk("virtio-scsi", 1) }];
        let multipath = ObservedDeviceRecord { serial, ..device("dm-0", 1) };
        assert_eq!(placed(vec![multipath], &told), [Ok(0)]);
    }

    /// Only `--devices vdb` was observed, and `vdb` was plugged in after the VM's start.
    #[test]
    fn a_disk_whose_name_says_that_there_are_more_is_not_the_only_one() {
        let disks = [disk("virtio-blk", 1), disk("ahci", 1)];
        let told = reason(device("vdb", 1), &disks);
        assert!(told.starts_with("the guest has had 2 such disks"), "{told}");
        assert_eq!(placed(vec![device("vda", 1)], &disks), [Ok(0)]);
        let [vd, nvme] = [0, 1].map(|place| &KINDS[place]);
        let counts =
            ["vda", "vdz", "vdaa", "vdab", "vda1", "vd", "vdzzzz"].map(|name| vd.count_at(name));
        assert_eq!(counts, [1, 26, 27, 28, 0, 0, 0]);
        assert_eq!(nvme.count_at("nvme1n1"), 0);
    }

    #[test]
    fn one_disk_is_not_two_of_the_guests() {
        let found = placed(vec![device("vda", 1), device("vdb", 1)], &[disk("virtio-blk", 1)]);
        let is_unknown = |found: &Result<usize, String>| {
            found.as_ref().is_err_and(|reason| reason.starts_with("the guest has had 2 such disks"))
        };
        assert!(found.iter().all(is_unknown), "one was plugged in later: {found:?}");
        let both = vec![device("nvme0n1", 1), device("nvme1n1", 1)];
        let reason = "the guest sees 2 disks that may be the same of the VM's".to_owned();
        assert_eq!(placed(both, &[disk("nvme", 1)]), [Err(reason.clone()), Err(reason)]);
    }

    #[test]
    fn disks_that_nothing_tells_have_that_reason() {
        let devices = vec![device("vda", 1)];
        let mut observation = ObservationRecord { devices, ..ObservationRecord::default() };
        place(&mut observation, &[], Some("the disks of this VMM are unknown"));
        let said = observation.devices[0].disk_missing.as_deref();
        assert_eq!(said, Some("the disks of this VMM are unknown"));
    }
}
