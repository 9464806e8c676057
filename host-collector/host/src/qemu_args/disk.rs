//! The disks of a command line: a frontend that the guest sees, and what it is made of.

use super::SocketPlace;
use super::block::Blocks;
use super::machine::Machine;
use super::properties::Properties;
use crate::disk::{Bus, Disk, DiskBus, Storage};
use std::collections::BTreeMap;

/// A `-device`, with the place at which QEMU makes it: those in JSON come after all others (qemu: system/vl.c,
/// `qemu_create_cli_devices`).
pub(super) struct Device {
    pub(super) properties: Properties,
    pub(super) place: (bool, usize),
}

/// What disks are read from.
pub(super) struct Frontends<'a> {
    pub(super) devices: &'a [Device],
    pub(super) machine: &'a Machine,
    pub(super) blocks: &'a Blocks,
    pub(super) chardevs: &'a BTreeMap<String, SocketPlace>,
}

/// What a disk is behind, as far as that is told.
enum Behind<'a> {
    One(&'a Properties),
    /// One of several that differ.
    Any(usize),
    /// None that the command line has.
    None,
}

/// Controllers of SCSI disks, by the beginnings of their names.
const SCSI: [&str; 16] = [
    "virtio-scsi",
    "lsi",
    "megasas",
    "mptsas",
    "pvscsi",
    "am53c974",
    "dc390",
    "esp",
    "sysbus-esp",
    "spapr-vscsi",
    "usb-uas",
    "usb-bot",
    "ncr710",
    "lasi-ncr710",
    "ufs",
    "vscsi",
];

/// Controllers of IDE and SATA disks.
const IDE: [&str; 8] = [
    "ahci",
    "ich9-ahci",
    "sysbus-ahci",
    "piix3-ide",
    "piix4-ide",
    "cmd646-ide",
    "via-ide",
    "isa-ide",
];

fn driver(device: &Properties) -> &str {
    device.get("driver").unwrap_or_default()
}

fn is_any(kinds: &[&str]) -> impl Fn(&Properties) -> bool {
    move |device| kinds.iter().any(|kind| driver(device).starts_with(kind))
}

/// The iothreads of a virtio device.
fn iothreads(device: &Properties) -> Vec<String> {
    let mapped =
        (0..).map_while(|place: u32| device.get(&format!("iothread-vq-mapping.{place}.iothread")));
    let one = device.get("iothread").or_else(|| device.get("x-iothread"));
    one.into_iter().chain(mapped).map(str::to_owned).collect()
}

impl<'a> Frontends<'a> {
    /// The disk that a `-device` is; `None` if it is something else.
    pub(super) fn of_device(&self, device: &'a Device) -> Option<Disk> {
        let Device { properties, .. } = device;
        let driver = driver(properties);
        let drive = properties.get("drive").filter(|drive| !drive.is_empty());
        let mut disk = Disk::new(Bus::Other(driver.to_owned()));
        disk.id = properties.get("id").map(str::to_owned);
        disk.is_cdrom = matches!(driver, "ide-cd" | "scsi-cd");
        disk.has_write_cache = properties.switch("write-cache");
        disk.serial = serial(properties);
        disk.pci_address = pci_address(device);
        let is = |prefix: &str| driver.starts_with(prefix);
        if is("virtio-blk") {
            disk.bus = Bus::Known(DiskBus::VirtioBlk);
            served_by(&mut disk, properties);
        } else if is("vhost-user-blk") || is("vhost-user-scsi") {
            disk.bus = Bus::Other(
                if is("vhost-user-blk") { "vhost-user-blk" } else { "vhost-user-scsi" }.to_owned(),
            );
            let chardev = properties.get("chardev").and_then(|id| self.chardevs.get(id));
            let socket = chardev.cloned().and_then(SocketPlace::into_path);
            disk.storage = Storage::VhostUser { socket };
            served_by(&mut disk, properties);
            return Some(disk);
        } else if is("vhost-scsi") {
            disk.bus = Bus::Other("vhost-scsi".to_owned());
            let device = properties.get("wwpn").unwrap_or("the kernel's SCSI target").to_owned();
            disk.storage = Storage::Vhost { device };
            return Some(disk);
        } else if matches!(
            driver,
            "scsi-hd" | "scsi-cd" | "scsi-block" | "scsi-generic" | "scsi-disk"
        ) {
            self.behind_scsi(&mut disk, device);
        } else if matches!(driver, "ide-hd" | "ide-cd" | "ide-cf" | "ide-drive") {
            disk.bus = self.behind_ide(device);
        } else if matches!(driver, "nvme" | "nvme-ns") {
            disk.bus = Bus::Known(DiskBus::Nvme);
            drive?;
        } else if driver != "floppy" {
            drive?;
        }
        match drive {
            Some(drive) => self.blocks.describe(drive, &mut disk),
            None => disk.storage = Storage::Empty,
        }
        passes_commands(&mut disk, driver);
        Some(disk)
    }

    /// The disk that a `-drive` makes by itself; `None` if it is for a `-device`, or is no disk.
    pub(super) fn of_drive(&self, drive: &Properties, globals: &[Properties]) -> Option<Disk> {
        let is_named = |device: &Device| {
            device.properties.get("drive").is_some_and(|name| drive.get("id") == Some(name))
        };
        if self.devices.iter().any(is_named) {
            return None;
        }
        let interface = drive.get("if").or(self.machine.interface());
        let bus = match interface {
            // Flash holds firmware.
            Some("none" | "pflash") => return None,
            Some("virtio") => Bus::Known(DiskBus::VirtioBlk),
            Some("ide") => self
                .machine
                .ide()
                .map_or_else(|| Bus::Other("ide".to_owned()), |(bus, _)| Bus::Known(bus)),
            Some(other) => Bus::Other(other.to_owned()),
            None => Bus::Other("unknown bus (the machine's choice)".to_owned()),
        };
        let mut disk = Disk::new(bus);
        disk.id = drive.get("id").map(str::to_owned);
        disk.serial = serial(drive);
        if interface == Some("virtio") {
            let mut device = Properties::parse("virtio-blk-pci", "driver");
            add_globals(&mut device, globals);
            served_by(&mut disk, &device);
        }
        self.blocks.describe_drive(drive, &mut disk);
        Some(disk)
    }

    fn behind_scsi(&self, disk: &mut Disk, device: &Device) {
        match self.controller(device, &SCSI, "scsi") {
            Behind::One(controller) if driver(controller).starts_with("virtio-scsi") => {
                disk.bus = Bus::Known(DiskBus::VirtioScsi);
                served_by(disk, controller);
            }
            Behind::One(controller) => disk.bus = Bus::Other(driver(controller).to_owned()),
            Behind::Any(count) => {
                disk.bus = Bus::Other("scsi".to_owned());
                disk.iothreads_missing =
                    Some(format!("it names no bus, and there are {count} controllers"));
            }
            Behind::None => disk.bus = Bus::Other("scsi".to_owned()),
        }
    }

    fn behind_ide(&self, device: &Device) -> Bus {
        let built_in = self.machine.ide();
        let number = |bus: &str| bus.strip_prefix("ide.")?.parse::<usize>().ok();
        if let (Some(bus), Some((kind, count))) =
            (device.properties.get("bus").and_then(number), built_in)
            && bus < count
        {
            return Bus::Known(kind);
        }
        match self.controller(device, &IDE, "ide") {
            Behind::One(controller) if driver(controller).contains("ahci") => {
                Bus::Known(DiskBus::Ahci)
            }
            Behind::One(_) => Bus::Known(DiskBus::Ide),
            Behind::Any(_) => Bus::Other("ide or ahci".to_owned()),
            Behind::None => {
                built_in.map_or_else(|| Bus::Other("ide".to_owned()), |(bus, _)| Bus::Known(bus))
            }
        }
    }

    /// The controller whose bus a device names, `scsi0.0`, or the one that QEMU takes for a device without a bus:
    /// of those on one bus the last that it has made (qemu: system/qdev-monitor.c, `qbus_find_recursive`; hw/core/qdev.c,
    /// `bus_add_child`).
    fn controller(&self, device: &Device, kinds: &[&str], bus_name: &str) -> Behind<'a> {
        let is_controller = is_any(kinds);
        let all = || self.devices.iter().filter(|device| is_controller(&device.properties));
        if let Some(bus) = device.properties.get("bus") {
            let Some((id, number)) = bus.rsplit_once('.') else { return Behind::None };
            let named = all().find(|controller| controller.properties.get("id") == Some(id));
            if let Some(controller) = named {
                return Behind::One(&controller.properties);
            }
            // Buses of controllers without an id are numbered; several of IDE belong to one.
            let mut nameless: Vec<&Device> =
                all().filter(|controller| controller.properties.get("id").is_none()).collect();
            nameless.sort_by_key(|controller| controller.place);
            let number = number.parse::<usize>().ok().filter(|_| id == bus_name);
            return match (number, &nameless[..]) {
                (Some(_), [one]) => Behind::One(&one.properties),
                (Some(number), some) if bus_name == "scsi" => {
                    some.get(number).map_or(Behind::None, |one| Behind::One(&one.properties))
                }
                (Some(_), some) if !some.is_empty() => Behind::Any(some.len()),
                _ => Behind::None,
            };
        }
        let mut before: Vec<&Device> = all().filter(|other| other.place < device.place).collect();
        before.sort_by_key(|controller| controller.place);
        let Some(last) = before.last() else { return Behind::None };
        let parent = |controller: &Device| controller.properties.get("bus").map(str::to_owned);
        let server = |controller: &Device| {
            (driver(&controller.properties).to_owned(), iothreads(&controller.properties))
        };
        let is_one = before.iter().all(|other| parent(other) == parent(last))
            || before.iter().all(|other| server(other) == server(last));
        if is_one { Behind::One(&last.properties) } else { Behind::Any(before.len()) }
    }
}

fn serial(properties: &Properties) -> Option<String> {
    properties.get("serial").filter(|serial| !serial.is_empty()).map(str::to_owned)
}

/// The guest's address of a disk that is a PCI function of its own on the root bus: what lies behind a bridge
/// gets the number of its bus from the guest's firmware. A number in JSON is slot and function in one, in words
/// it is the slot alone, in hexadecimal (qemu: hw/core/qdev-properties-system.c, `set_pci_devfn`).
fn pci_address(device: &Device) -> Option<String> {
    let Device { properties, place: (is_json, _) } = device;
    let is_function = driver(properties).starts_with("nvme") && driver(properties) != "nvme-ns"
        || matches!(driver(properties), "virtio-blk" | "virtio-blk-pci")
        || driver(properties).starts_with("virtio-blk-pci-");
    let is_on_root = matches!(properties.get("bus"), None | Some("pci.0" | "pcie.0"));
    let address = properties.get("addr").filter(|_| is_function && is_on_root)?;
    if *is_json && address.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (slot, function) = address.split_once('.').unwrap_or((address, "0"));
    let hexadecimal = |text: &str| u8::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16);
    let (slot, function) = (hexadecimal(slot).ok()?, hexadecimal(function).ok()?);
    (slot < 32 && function < 8).then(|| format!("0000:00:{slot:02x}.{function}"))
}

/// Takes what the virtio device says that serves a disk: the disk itself, or the controller that it is behind.
fn served_by(disk: &mut Disk, server: &Properties) {
    disk.iothreads = iothreads(server);
    disk.ioeventfd = server.switch("ioeventfd");
    let queues = server.get("num-queues").or_else(|| server.get("num_queues"));
    disk.queues = queues.and_then(|queues| queues.parse().ok());
    disk.msix = server.get("vectors").map(|vectors| vectors != "0");
}

/// A guest's commands that are handed on to the device (SG_IO) pass the page cache and are `ioctl(2)`s of worker threads
/// (qemu: hw/scsi/scsi-generic.c; hw/scsi/scsi-disk.c, `scsi_block_dma_readv`).
fn passes_commands(disk: &mut Disk, driver: &str) {
    if matches!(driver, "scsi-block" | "scsi-generic") {
        disk.passes_commands = true;
        (disk.is_direct, disk.is_direct_from, disk.aio) = (None, None, None);
    }
}

/// Takes what `-global` says of a device where its own option does not.
pub(super) fn add_globals(device: &mut Properties, globals: &[Properties]) {
    let name = driver(device).to_owned();
    // A virtio device is several: it and its transport, by one of which it is named or by an alias.
    let family = ["virtio-blk", "virtio-scsi"].into_iter().find(|family| name.starts_with(family));
    let is_it = |of: &str| {
        of == name
            || family.is_some_and(|family| {
                let rest = of.strip_prefix(family).unwrap_or("none");
                matches!(rest, "" | "-device" | "-pci" | "-ccw" | "-common" | "-pci-base")
            })
            || of == "virtio-pci" && family.is_some()
    };
    // The last one counts.
    for global in globals.iter().rev() {
        let parts = (global.get("driver"), global.get("property"), global.get("value"));
        if let (Some(of), Some(property), Some(value)) = parts
            && is_it(of)
        {
            let mut default = Properties::default();
            default.set(property, value);
            device.add_defaults(&default);
        }
    }
}
