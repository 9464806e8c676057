//! The disks of a command line: a frontend that the guest sees, and what it is made of.

use super::properties::Properties;
use crate::disk::{Aio, Bus, Cache, DirectSource, Disk, DiskBus, Storage};
use std::collections::BTreeMap;

/// Nodes under a disk that are looked at: filters and backing files may stand above each other.
const DEPTH_MAX: usize = 16;

/// The controllers that disks may be behind.
pub(super) struct Controllers<'a> {
    devices: &'a [Properties],
    is_q35: bool,
}

impl<'a> Controllers<'a> {
    pub(super) fn new(devices: &'a [Properties], is_q35: bool) -> Controllers<'a> {
        Controllers { devices, is_q35 }
    }

    /// The controller of a bus such as `scsi0.0`.
    fn of(&self, device: &Properties) -> Option<&'a Properties> {
        let (id, _) = device.get("bus")?.rsplit_once('.')?;
        self.devices.iter().find(|device| device.get("id") == Some(id))
    }

    /// The first of a kind, with an id or without, behind which QEMU puts disks that name no bus.
    fn first(&self, kind: &str) -> Option<&'a Properties> {
        let is_of_kind = |driver: &str| driver.starts_with(kind);
        self.devices.iter().find(|device| device.get("driver").is_some_and(is_of_kind))
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
            Some(Level {
                node,
                origin: *origin,
                prefix: String::new(),
                inherited: CacheWords::default(),
            })
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
        if is_blockdev && disk.path().is_some() {
            disk.format.get_or_insert_with(|| RAW.to_owned());
        }
    }
}

/// One node: a `-drive` or `-blockdev`, or one that is defined within it, by keys with a prefix.
struct Level<'a> {
    node: &'a Properties,
    origin: Origin,
    prefix: String,
    /// What the node in which this one is defined says of its cache.
    inherited: CacheWords,
}

/// What a node is told of its cache.
#[derive(Debug, Clone, Copy, Default)]
struct CacheWords {
    is_direct: Option<bool>,
    ignores_flushes: Option<bool>,
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
        disk.aio = self.get("aio").and_then(Aio::of_name).or(disk.aio);
        disk.format = disk.format.take().or_else(|| self.format());
        let direct = self.cache();
        disk.has_write_cache = disk.has_write_cache.or(self.write_cache());
        let file = self.get("file");
        let path = self.get("filename").or(file.filter(|_| self.is_drive()));
        if let Some(path) = path {
            disk.storage = Storage::file(path);
        }
        if self.node.has_below(&self.key("file")) {
            let (node, origin, prefix) = (self.node, self.origin, self.key("file."));
            return Below::Inline(Level { node, origin, prefix, inherited: direct });
        }
        if let (None, Some(name)) = (path, file) {
            return Below::Reference(name.to_owned());
        }
        // What the file is opened with is what the lowest node says.
        if disk.path().is_some() {
            disk.is_direct = direct.is_direct;
            disk.is_direct_from = direct.is_direct.map(|_| DirectSource::CommandLine);
            disk.ignores_flushes = direct.ignores_flushes;
        }
        Below::Nothing
    }

    /// What this node, or the one that it is defined in, is told of its cache. A
    /// `-drive`'s `cache` is short for it and gives way to it (qemu: blockdev.c, `blockdev_init`); a
    /// node that is defined within another one inherits it, one that is referred to by name does not
    /// (block.c, `bdrv_inherited_options`).
    fn cache(&self) -> CacheWords {
        let short = self.get("cache").filter(|_| self.is_drive()).and_then(Cache::of_name);
        let flags = short.map(Cache::flags);
        let told = |key, short: Option<bool>, inherited: Option<bool>| {
            self.node.switch(&self.key(key)).or(short).or(inherited)
        };
        CacheWords {
            is_direct: told(
                "cache.direct",
                flags.map(|flags| flags.is_direct),
                self.inherited.is_direct,
            ),
            ignores_flushes: told(
                "cache.no-flush",
                flags.map(|flags| flags.ignores_flushes),
                self.inherited.ignores_flushes,
            ),
        }
    }

    /// Whether the guest sees a write cache by the word of a `-drive`.
    fn write_cache(&self) -> Option<bool> {
        let short = self.get("cache").filter(|_| self.is_drive()).and_then(Cache::of_name);
        short.map(|cache| cache.flags().has_write_cache)
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
        _ if driver.starts_with("virtio-blk") => (Bus::Known(DiskBus::VirtioBlk), Some(device)),
        _ if driver.starts_with("scsi-") => match behind("virtio-scsi") {
            Some(controller) => (Bus::Known(DiskBus::VirtioScsi), Some(controller)),
            None => (Bus::Other("scsi".to_owned()), None),
        },
        "ide-hd" | "ide-cd"
            if controllers.is_q35 || behind("ahci").is_some() || behind("ich9-ahci").is_some() =>
        {
            (Bus::Known(DiskBus::Ahci), None)
        }
        "ide-hd" | "ide-cd" => (Bus::Known(DiskBus::Ide), None),
        "nvme" => (Bus::Known(DiskBus::Nvme), None),
        _ => (Bus::Other(driver.to_owned()), None),
    };
    let mut disk = Disk { id: device.get("id").map(str::to_owned), ..Disk::new(bus) };
    disk.has_write_cache = device.switch("write-cache");
    if let Some(server) = server {
        let is_iothread = |key: &str| key == "iothread" || key.ends_with(".iothread");
        disk.iothreads = server.all(is_iothread).map(str::to_owned).collect();
        disk.ioeventfd = server.switch("ioeventfd");
        let queues = server.get("num-queues").or_else(|| server.get("num_queues"));
        disk.queues = queues.and_then(|queues| queues.parse().ok());
        disk.msix = server.get("vectors").map(|vectors| vectors != "0");
    }
    blocks.describe(drive, &mut disk);
    Some(disk)
}

/// The disk that a `-drive` makes by itself; `None` if it is for a `-device`, or is no disk.
pub(super) fn of_drive(drive: &Properties, is_q35: bool) -> Option<Disk> {
    let bus = match drive.get("if").unwrap_or("ide") {
        "none" | "pflash" | "floppy" | "mtd" | "sd" => return None,
        "virtio" => Bus::Known(DiskBus::VirtioBlk),
        "ide" if is_q35 => Bus::Known(DiskBus::Ahci),
        "ide" => Bus::Known(DiskBus::Ide),
        other => Bus::Other(other.to_owned()),
    };
    let id = drive.get("id").map(str::to_owned);
    let mut disk = Disk { id, ..Disk::new(bus) };
    let mut next = Below::Inline(Level {
        node: drive,
        origin: Origin::Drive,
        prefix: String::new(),
        inherited: CacheWords::default(),
    });
    for _ in 0..DEPTH_MAX {
        let Below::Inline(level) = next else { break };
        next = level.describe(&mut disk);
    }
    Some(disk)
}
