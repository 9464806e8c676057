//! The disks of a command line: a frontend that the guest sees, and what it is made of.

use super::properties::Properties;
use serde::Serialize;
use std::collections::BTreeMap;

/// Nodes under a disk that are looked at: filters and backing files may stand above each other.
const DEPTH_MAX: usize = 16;

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Disk {
    /// The id of its device, if it has one.
    pub id: Option<String>,
    /// What the guest sees: `virtio-blk`, `virtio-scsi`, `ide`, `ahci`, `nvme`, or QEMU's name of it.
    pub bus: String,
    /// The file or the block device that it lies on.
    pub path: Option<String>,
    /// The format of that: `raw`, `qcow2`, ...; `None` if QEMU has to find it out by itself.
    pub format: Option<String>,
    /// Whether QEMU goes past the host's page cache, as `cache=none` does.
    pub is_direct: bool,
    /// `threads`, `native` or `io_uring`; `threads` is QEMU's default.
    pub aio: String,
    /// The iothreads that serve it. None is no dataplane: the main loop serves it, or, with
    /// `ioeventfd=off`, the vCPU itself.
    pub iothreads: Vec<String>,
    /// Whether a virtio device was told not to use an eventfd as its doorbell.
    pub is_kicked_by_exit: bool,
}

/// The controllers that disks may be behind, by their ids.
pub(super) struct Controllers<'a> {
    by_id: BTreeMap<&'a str, &'a Properties>,
    is_q35: bool,
}

impl<'a> Controllers<'a> {
    pub(super) fn new(devices: &'a [Properties], is_q35: bool) -> Controllers<'a> {
        let by_id = devices.iter().filter_map(|device| Some((device.get("id")?, device)));
        Controllers { by_id: by_id.collect(), is_q35 }
    }

    /// The controller of a bus such as `scsi0.0`.
    fn of(&self, device: &Properties) -> Option<&'a Properties> {
        let (id, _) = device.get("bus")?.rsplit_once('.')?;
        self.by_id.get(id).copied()
    }

    /// The only one of a kind, behind which QEMU puts disks that name no bus.
    fn first(&self, kind: &str) -> Option<&'a Properties> {
        let mut all = self.by_id.values();
        all.find(|device| device.get("driver").is_some_and(|driver| driver.starts_with(kind)))
            .copied()
    }
}

/// What lies behind the frontends.
pub(super) struct BlockDevices {
    nodes: BTreeMap<String, Properties>,
}

impl BlockDevices {
    pub(super) fn new(
        nodes: impl Iterator<Item = Properties>,
        drives: &[Properties],
    ) -> BlockDevices {
        let named = |node: Properties| Some((node.get("node-name")?.to_owned(), node));
        let drives =
            drives.iter().filter_map(|drive| Some((drive.get("id")?.to_owned(), drive.clone())));
        BlockDevices { nodes: nodes.filter_map(named).chain(drives).collect() }
    }

    /// Fills in what is known of the node with this name and those below it.
    fn describe(&self, name: &str, disk: &mut Disk) {
        let mut next = self.nodes.get(name);
        let is_blockdev = next.is_some_and(|node| node.get("node-name").is_some());
        for _ in 0..DEPTH_MAX {
            let Some(node) = next else { break };
            next = describe(node, disk).and_then(|name| self.nodes.get(&name));
        }
        // Only for a `-drive` does QEMU look for a format that nobody told it.
        if is_blockdev && disk.path.is_some() {
            disk.format.get_or_insert_with(|| RAW.to_owned());
        }
    }
}

/// Takes what one node or `-drive` says; returns the name of the node below it.
fn describe(node: &Properties, disk: &mut Disk) -> Option<String> {
    let cache = node.get("cache");
    disk.is_direct |= matches!(cache, Some("none" | "directsync"));
    disk.is_direct |= node.is_on("cache.direct") || node.is_on("file.cache.direct");
    if let Some(aio) = node.get("aio").or_else(|| node.get("file.aio")) {
        disk.aio = aio.to_owned();
    }
    disk.format = disk.format.take().or_else(|| format_of(node));
    let file = node.get("file");
    let is_drive = node.get("node-name").is_none();
    let path = node.get("filename").or_else(|| node.get("file.filename"));
    disk.path = path.or(file.filter(|_| is_drive)).map(str::to_owned).or(disk.path.take());
    file.filter(|_| !is_drive).map(str::to_owned)
}

const RAW: &str = "raw";

/// Nodes that hand on what is below them as it is: access to storage, and filters
/// (`BlockdevDriver` of qemu/qapi/block-core.json).
const NO_FORMATS: [&str; 7] =
    ["file", "host_device", "throttle", "copy-on-read", "compress", "preallocate", "io_uring"];

/// The format that one node or `-drive` brings. A raw one that shows a part of its file only is no
/// plain raw.
fn format_of(node: &Properties) -> Option<String> {
    let is_part = node.get("offset").is_some() || node.get("size").is_some();
    match node.get("format").or_else(|| node.get("driver"))? {
        // QEMU puts a qcow2 of its own over it, for what the guest writes.
        format if node.is_on("snapshot") => Some(format!("{format} under a snapshot")),
        RAW if is_part => Some("raw with an offset".to_owned()),
        format if NO_FORMATS.contains(&format) => None,
        format => Some(format.to_owned()),
    }
}

impl Disk {
    /// The disk that a `-device` is; `None` if it is something else.
    pub(super) fn of_device(
        device: &Properties,
        controllers: &Controllers<'_>,
        blocks: &BlockDevices,
    ) -> Option<Disk> {
        let (driver, drive) = (device.get("driver")?, device.get("drive")?);
        let controller = controllers.of(device);
        let behind = |kind: &str| {
            controller.or_else(|| controllers.first(kind)).filter(|controller| {
                controller.get("driver").is_some_and(|driver| driver.starts_with(kind))
            })
        };
        // Who serves it: the device itself, or the controller that it is behind.
        let (bus, server) = match driver {
            _ if driver.starts_with("virtio-blk") => ("virtio-blk", Some(device)),
            _ if driver.starts_with("scsi-") => match behind("virtio-scsi") {
                Some(controller) => ("virtio-scsi", Some(controller)),
                None => ("scsi", None),
            },
            "ide-hd" | "ide-cd" if controllers.is_q35 || behind("ahci").is_some() => ("ahci", None),
            "ide-hd" | "ide-cd" => ("ide", None),
            _ => (driver, None),
        };
        let mut disk = Disk {
            id: device.get("id").map(str::to_owned),
            bus: bus.to_owned(),
            aio: "threads".to_owned(),
            ..Disk::default()
        };
        if let Some(server) = server {
            let is_iothread = |key: &str| key == "iothread" || key.ends_with(".iothread");
            disk.iothreads = server.all(is_iothread).map(str::to_owned).collect();
            disk.is_kicked_by_exit =
                server.get("ioeventfd").is_some() && !server.is_on("ioeventfd");
        }
        blocks.describe(drive, &mut disk);
        Some(disk)
    }

    /// The disk that a `-drive` makes by itself; `None` if it is for a `-device`, or is no disk.
    pub(super) fn of_drive(drive: &Properties, is_q35: bool) -> Option<Disk> {
        let bus = match drive.get("if").unwrap_or("ide") {
            "none" | "pflash" | "floppy" | "mtd" | "sd" => return None,
            "virtio" => "virtio-blk",
            "ide" if is_q35 => "ahci",
            other => other,
        };
        let id = drive.get("id").map(str::to_owned);
        let mut disk =
            Disk { id, bus: bus.to_owned(), aio: "threads".to_owned(), ..Disk::default() };
        describe(drive, &mut disk);
        Some(disk)
    }
}
