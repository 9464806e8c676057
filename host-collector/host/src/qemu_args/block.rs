//! QEMU's block graph, as far as a command line has it: from the node or drive that a disk names down to where its
//! data are.

use super::properties::Properties;
use super::protocol::{self, Kind};
use crate::disk::{Aio, Cache, DirectSource, Disk, Storage};
use std::collections::BTreeMap;

/// Nodes under a disk that are looked at: filters may stand above each other.
const DEPTH_MAX: usize = 16;

const RAW: &str = "raw";

/// What has a name in the graph.
pub(super) struct Blocks {
    named: BTreeMap<String, Level>,
}

/// By which option something came to be: their keys mean different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Drive,
    Node,
}

/// One node: a `-drive`, a `-blockdev`, or one that is defined within another.
#[derive(Debug, Clone)]
pub(super) struct Level {
    properties: Properties,
    origin: Origin,
    /// The file name of a drive, whose protocol its prefix tells.
    filename: Option<String>,
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
enum Below {
    /// One that is defined in it.
    Inline(Level),
    /// One that has this name.
    Reference(String),
    /// Where the data are.
    Data,
    /// Nothing that is known.
    Nothing,
}

impl Blocks {
    pub(super) fn new(nodes: impl Iterator<Item = Properties>, drives: &[Properties]) -> Blocks {
        let mut named = BTreeMap::new();
        for node in nodes {
            let root = Level::of_node(node);
            for prefix in root.properties.prefixes_of("node-name") {
                let level = root.descend(&prefix);
                let name = level.properties.get("node-name").unwrap_or_default().to_owned();
                named.insert(name, level);
            }
        }
        for drive in drives {
            let level = Level::of_drive(drive.clone());
            for key in ["id", "node-name"] {
                let name = level.properties.get(key).map(str::to_owned);
                name.map(|name| named.insert(name, level.clone()));
            }
        }
        Blocks { named }
    }

    /// Fills in what is known of the node or drive with this name and those below it.
    pub(super) fn describe(&self, name: &str, disk: &mut Disk) {
        match self.named.get(name) {
            Some(level) => self.walk(level.clone(), disk),
            None => disk.storage = not_there(name),
        }
    }

    /// Fills in what is known of a drive and what is below it.
    pub(super) fn describe_drive(&self, drive: &Properties, disk: &mut Disk) {
        self.walk(Level::of_drive(drive.clone()), disk);
    }

    fn walk(&self, level: Level, disk: &mut Disk) {
        self.follow(level, disk);
        // What is above a file's node may be told of its aio; without a file there is none.
        if disk.path().is_none() {
            (disk.aio, disk.is_direct, disk.is_direct_from) = (None, None, None);
        }
    }

    fn follow(&self, mut level: Level, disk: &mut Disk) {
        // Only for a `-drive` does QEMU look for a format that nobody told it.
        let is_drive = level.origin == Origin::Drive;
        disk.is_cdrom |= is_drive && level.properties.get("media") == Some("cdrom");
        for _ in 0..DEPTH_MAX {
            level = match level.describe(disk) {
                Below::Inline(level) => level,
                Below::Reference(name) => match self.named.get(&name) {
                    Some(level) => level.clone(),
                    None => {
                        disk.storage = not_there(&name);
                        return;
                    }
                },
                Below::Data => {
                    if !is_drive {
                        disk.format.get_or_insert_with(|| RAW.to_owned());
                    }
                    return;
                }
                Below::Nothing => return,
            };
        }
        let reason = format!("more than {DEPTH_MAX} nodes are above each other");
        disk.storage = Storage::Unknown { reason };
    }
}

fn not_there(name: &str) -> Storage {
    Storage::Unknown { reason: format!("{name} is not on the command line") }
}

impl Level {
    fn of_node(properties: Properties) -> Level {
        Level { properties, origin: Origin::Node, filename: None, inherited: CacheWords::default() }
    }

    fn of_drive(mut properties: Properties) -> Level {
        let filename = properties.take("file").filter(|file| !file.is_empty());
        if let Some(format) = properties.take("format") {
            properties.set("driver", &format);
        }
        let origin = Origin::Drive;
        let mut level = Level { properties, origin, filename, inherited: CacheWords::default() };
        level.open_json();
        level
    }

    /// A file name `json:{...}` is the node itself; what is told beside it comes first (qemu: block.c,
    /// `parse_json_protocol`).
    fn open_json(&mut self) {
        let Some(text) = self.filename.as_deref().and_then(|name| name.strip_prefix("json:"))
        else {
            return;
        };
        if let Some(json) = Properties::of_json(text) {
            self.properties.add_defaults(&json);
            self.filename = None;
        }
    }

    /// The node within this one whose keys have this prefix.
    fn descend(&self, prefix: &str) -> Level {
        let below = |level: &Level, key: &str| Level {
            properties: level.properties.below(key),
            origin: Origin::Node,
            filename: None,
            inherited: level.cache(),
        };
        let mut keys = prefix.split('.').filter(|key| !key.is_empty());
        let Some(first) = keys.next() else { return self.clone() };
        keys.fold(below(self, first), |level, key| below(&level, key))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.properties.get(key)
    }

    fn driver(&self) -> Option<&str> {
        self.get("driver")
    }

    /// Takes what this node says.
    fn describe(mut self, disk: &mut Disk) -> Below {
        self.open_json();
        // Under a snapshot, what the guest writes goes to another file.
        let words = ["read-only", "readonly", "snapshot"];
        disk.is_read_only |= words.iter().any(|word| self.properties.is_on(word));
        disk.aio = self.get("aio").and_then(Aio::of_name).or(disk.aio);
        disk.has_write_cache = disk.has_write_cache.or(self.write_cache());
        let kind = self.driver().map(Kind::of);
        if disk.format.is_none() {
            disk.format = self.format(kind);
        }
        let child = match kind {
            Some(Kind::Filter(child)) => child,
            Some(Kind::Format) => "file",
            Some(Kind::File | Kind::Protocol) => return self.end(disk),
            Some(Kind::Untellable(reason)) => {
                disk.storage = Storage::Unknown { reason: reason.to_owned() };
                return Below::Nothing;
            }
            // A file that is told by its name alone, whose prefix tells the driver.
            None if self.origin == Origin::Node && !self.has_child("file") => {
                return self.end(disk);
            }
            None => "file",
        };
        let below = self.child(child);
        if matches!(below, Below::Nothing) {
            disk.storage = self.without_child();
        }
        if disk.storage == Storage::Empty {
            disk.format = None;
        }
        below
    }

    fn has_child(&self, key: &str) -> bool {
        self.properties.has_below(key) || self.get(key).is_some()
    }

    fn child(&self, key: &str) -> Below {
        let filename = self.filename.clone().or_else(|| self.get("filename").map(str::to_owned));
        let inline = |filename| Level { filename, ..self.descend(key) };
        if self.properties.has_below(key) {
            // `file=/x,file.locking=off` is one file.
            return Below::Inline(inline(filename.filter(|_| key == "file")));
        }
        match (self.get(key), filename) {
            (Some(name), _) => Below::Reference(name.to_owned()),
            (None, Some(name)) => Below::Inline(inline(Some(name))),
            (None, None) => Below::Nothing,
        }
    }

    fn without_child(&self) -> Storage {
        match (self.origin, self.driver()) {
            (Origin::Drive, _) => Storage::Empty,
            (Origin::Node, driver) => Storage::Unknown {
                reason: format!("the node of {} names no file", driver.unwrap_or("no driver")),
            },
        }
    }

    /// Takes where the data are, at the lowest node.
    fn end(&self, disk: &mut Disk) -> Below {
        let driver = self.driver();
        // A name may have its protocol before it, but for that of a node whose driver is told.
        let own = self.get("filename").filter(|_| driver.is_none());
        let filename = self.filename.as_deref().or(own);
        if let (None, Some(inner)) = (driver, filename.and_then(protocol::filtered)) {
            return Below::Inline(Level { filename: Some(inner.to_owned()), ..self.clone() });
        }
        disk.storage = protocol::storage(driver, filename, &self.properties);
        let flags = self.cache();
        disk.ignores_flushes = flags.ignores_flushes;
        if driver == Some("io_uring") {
            disk.aio = Some(Aio::IoUring);
        }
        if disk.path().is_some() {
            // What the file is opened with is what the lowest node says.
            disk.is_direct = flags.is_direct;
            disk.is_direct_from = flags.is_direct.map(|_| DirectSource::CommandLine);
        }
        Below::Data
    }

    /// What this node, or the one that it is defined in, is told of its cache. A
    /// `-drive`'s `cache` is short for it and gives way to it (qemu: blockdev.c, `blockdev_init`); a
    /// node that is defined within another one inherits it, one that is referred to by name does not
    /// (block.c, `bdrv_inherited_options`).
    fn cache(&self) -> CacheWords {
        let flags = self.cache_word().map(Cache::flags);
        let told = |key, short: Option<bool>, inherited: Option<bool>| {
            self.properties.switch(key).or(short).or(inherited)
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

    fn cache_word(&self) -> Option<Cache> {
        self.get("cache").filter(|_| self.origin == Origin::Drive).and_then(Cache::of_name)
    }

    /// Whether the guest sees a write cache by the word of a `-drive`.
    fn write_cache(&self) -> Option<bool> {
        let short = self.cache_word().map(|cache| cache.flags().has_write_cache);
        let told = self.properties.switch("cache.writeback");
        told.filter(|_| self.origin == Origin::Drive).or(short)
    }

    /// The format that this node brings. A raw one that shows a part of its file only is no plain raw.
    fn format(&self, kind: Option<Kind>) -> Option<String> {
        let is_drive = self.origin == Origin::Drive;
        let is_part = self.get("offset").is_some() || self.get("size").is_some();
        let format = match kind {
            Some(Kind::Format) if self.driver() == Some(RAW) && is_part => {
                Some("raw with an offset")
            }
            Some(Kind::Format) => self.driver(),
            // A drive that is told how to reach its data has no other format.
            Some(Kind::File | Kind::Protocol) if is_drive => Some(RAW),
            _ => None,
        };
        // QEMU puts a qcow2 of its own over it, for what the guest writes.
        if is_drive && self.properties.is_on("snapshot") {
            return Some(format!("{} under a snapshot", format.unwrap_or("unknown format")));
        }
        format.map(str::to_owned)
    }
}
