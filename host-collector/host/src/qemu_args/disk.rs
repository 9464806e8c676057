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
    /// Whether QEMU goes past the host's page cache, as `cache=none` does; `None` if nobody says so.
    pub is_direct: Option<bool>,
    /// Who says so.
    pub is_direct_from: Option<DirectSource>,
    /// `threads`, `native` or `io_uring`; `threads` is QEMU's default.
    pub aio: String,
    /// The iothreads that serve it. None is no dataplane: the main loop serves it, or, with
    /// `ioeventfd=off`, the vCPU itself.
    pub iothreads: Vec<String>,
    /// Whether a virtio device was told not to use an eventfd as its doorbell.
    pub is_kicked_by_exit: bool,
}

/// By what it is known whether a disk's file is read past the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectSource {
    /// The kernel has it open so.
    OpenFile,
    /// QEMU was started with it so, which a running QEMU may have changed.
    CommandLine,
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
    nodes: BTreeMap<String, (Origin, Properties)>,
}

/// By which option something came to be: their keys mean different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Drive,
    Blockdev,
}

impl BlockDevices {
    pub(super) fn new(
        nodes: impl Iterator<Item = Properties>,
        drives: &[Properties],
    ) -> BlockDevices {
        let node =
            |node: Properties| Some((node.get("node-name")?.to_owned(), (Origin::Blockdev, node)));
        let drive = |drive: &Properties| {
            Some((drive.get("id")?.to_owned(), (Origin::Drive, drive.clone())))
        };
        let drives = drives.iter().filter_map(drive);
        BlockDevices { nodes: nodes.filter_map(node).chain(drives).collect() }
    }

    /// Fills in what is known of the node with this name and those below it.
    fn describe(&self, name: &str, disk: &mut Disk) {
        let level = |name: &str| {
            let (origin, node) = self.nodes.get(name)?;
            Some(Level { node, origin: *origin, prefix: String::new(), inherited: None })
        };
        let mut next = level(name);
        let is_blockdev = next.as_ref().is_some_and(|level| level.origin == Origin::Blockdev);
        for _ in 0..DEPTH_MAX {
            let Some(this) = next else { break };
            next = match this.describe(disk) {
                Below::Inline(level) => Some(level),
                Below::Reference(name) => level(&name),
                Below::Nothing => None,
            };
        }
        // Only for a `-drive` does QEMU look for a format that nobody told it.
        if is_blockdev && disk.path.is_some() {
            disk.format.get_or_insert_with(|| RAW.to_owned());
        }
    }
}

/// One node: a `-drive` or `-blockdev`, or one that is defined within it, by keys with a prefix.
struct Level<'a> {
    node: &'a Properties,
    origin: Origin,
    prefix: String,
    /// What the node in which this one is defined says of `cache.direct`.
    inherited: Option<bool>,
}

/// What is below a node.
enum Below<'a> {
    /// One that is defined in it.
    Inline(Level<'a>),
    /// One that has this name.
    Reference(String),
    /// Nothing that is known.
    Nothing,
}

impl<'a> Level<'a> {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.node.get(&self.key(key))
    }

    fn is_drive(&self) -> bool {
        self.origin == Origin::Drive && self.prefix.is_empty()
    }

    /// Takes what this node says.
    fn describe(self, disk: &mut Disk) -> Below<'a> {
        if let Some(aio) = self.get("aio") {
            disk.aio = aio.to_owned();
        }
        disk.format = disk.format.take().or_else(|| self.format());
        let direct = self.direct();
        let file = self.get("file");
        let path = self.get("filename").or(file.filter(|_| self.is_drive()));
        disk.path = path.map(str::to_owned).or(disk.path.take());
        if self.node.has_below(&self.key("file")) {
            let (node, origin, prefix) = (self.node, self.origin, self.key("file."));
            return Below::Inline(Level { node, origin, prefix, inherited: direct });
        }
        if let (None, Some(name)) = (path, file) {
            return Below::Reference(name.to_owned());
        }
        // What the file is opened with is what the lowest node says.
        if disk.path.is_some() {
            disk.is_direct = direct;
            disk.is_direct_from = direct.map(|_| DirectSource::CommandLine);
        }
        Below::Nothing
    }

    /// Whether this node, or the one that it is defined in, is told to go past the page cache. A
    /// `-drive`'s `cache` is short for it and gives way to it (qemu: blockdev.c, `blockdev_init`); a
    /// node that is defined within another one inherits it, one that is referred to by name does not
    /// (block.c, `bdrv_inherited_options`).
    fn direct(&self) -> Option<bool> {
        let short = self.get("cache").filter(|_| self.is_drive()).and_then(|cache| match cache {
            "none" | "off" | "directsync" => Some(true),
            "writeback" | "writethrough" | "unsafe" => Some(false),
            _ => None,
        });
        self.node.switch(&self.key("cache.direct")).or(short).or(self.inherited)
    }

    /// The format that this node brings. A raw one that shows a part of its file only is no plain raw.
    fn format(&self) -> Option<String> {
        let is_part = self.get("offset").is_some() || self.get("size").is_some();
        match self.get("format").or_else(|| self.get("driver"))? {
            // QEMU puts a qcow2 of its own over it, for what the guest writes.
            format if self.node.is_on(&self.key("snapshot")) => {
                Some(format!("{format} under a snapshot"))
            }
            RAW if is_part => Some("raw with an offset".to_owned()),
            format if NO_FORMATS.contains(&format) => None,
            format => Some(format.to_owned()),
        }
    }
}

const RAW: &str = "raw";

/// Nodes that hand on what is below them as it is: access to storage, and filters
/// (`BlockdevDriver` of qemu/qapi/block-core.json).
const NO_FORMATS: [&str; 7] =
    ["file", "host_device", "throttle", "copy-on-read", "compress", "preallocate", "io_uring"];

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

    /// Takes the kernel's word of how its file is open, if it has one.
    pub fn note_open(&mut self, is_direct: Option<bool>) {
        if is_direct.is_some() {
            (self.is_direct, self.is_direct_from) = (is_direct, Some(DirectSource::OpenFile));
        }
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
        let mut next = Below::Inline(Level {
            node: drive,
            origin: Origin::Drive,
            prefix: String::new(),
            inherited: None,
        });
        for _ in 0..DEPTH_MAX {
            let Below::Inline(level) = next else { break };
            next = level.describe(&mut disk);
        }
        Some(disk)
    }
}
