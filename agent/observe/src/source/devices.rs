//! The disks that are observed, by the numbers that the kernel's events have, their partitions' and paths'
//! too.

use super::disks::{self, Queue, Sources, dev_of};
use std::collections::{BTreeMap, BTreeSet};
use vslice_perf::filter::Numbers;
use vslice_wire::{OBSERVED_DEVICES_MAX, ObservedDevice};

/// Numbers of other devices that are remembered; beyond that none is looked for.
const STRANGERS_MAX: usize = 256;

/// Sentences about disks at most: as many come and go as somebody plugs.
const NOTICES_MAX: usize = 64;

/// The major number of whatever has no other: of NVMe's disks, of partitions beyond a disk's first 15
/// (linux: `BLOCK_EXT_MAJOR` in include/uapi/linux/major.h).
const BLOCK_EXT_MAJOR: u32 = 259;

/// The disks that are observed.
#[derive(Debug)]
pub(super) struct Devices {
    sources: Sources,
    /// Their names; empty: all with a device behind them.
    wanted: BTreeSet<String>,
    /// All that were ever seen, by their numbers.
    known: Vec<ObservedDevice>,
    /// Of a disk, partition or path, the number of the disk.
    by_dev: BTreeMap<u32, u16>,
    /// Those of these that are paths.
    paths: Numbers,
    /// What was looked for and is none of ours.
    strangers: BTreeSet<u32>,
    /// Disks that found no number any more.
    left_out: BTreeSet<String>,
    /// Disks whose requests are others'.
    without_requests: BTreeSet<String>,
    /// What was said of disks.
    said: BTreeSet<String>,
}

/// What one look at sysfs found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scanned {
    /// Disks that are new, or about which something is.
    pub(super) told: Vec<ObservedDevice>,
    /// Numbers of disks and partitions that no look before this one had found.
    pub(super) new_numbers: Numbers,
    /// Whether some of them are not of partitions, which no event has (linux: `bio_dev` in include/linux/bio.h).
    pub(super) has_new_disk: bool,
    /// Disks that are wanted, and that there is no number for.
    pub(super) left_out: Vec<String>,
    /// What no look before this one had found that has to be known: sentences.
    pub(super) notices: Vec<String>,
}

impl Devices {
    /// Of which none is known yet.
    pub(super) fn new(sources: Sources, wanted: &[String]) -> Devices {
        Devices {
            sources,
            wanted: wanted.iter().cloned().collect(),
            known: Vec::new(),
            by_dev: BTreeMap::new(),
            paths: Numbers::new(),
            strangers: BTreeSet::new(),
            left_out: BTreeSet::new(),
            without_requests: BTreeSet::new(),
            said: BTreeSet::new(),
        }
    }

    /// The number of the disk that a device of the kernel's is, or is a partition or path of.
    pub(super) fn number_of(&self, dev: u32) -> Option<u16> {
        self.by_dev.get(&dev).copied()
    }

    /// Whether a device of the kernel's is a path of a disk. What is sent to it was asked of the disk.
    pub(super) fn is_path(&self, dev: u32) -> bool {
        self.paths.contains(&dev)
    }

    /// Whether a device that is none of those known deserves a look at sysfs.
    pub(super) fn deserves_a_look(&self, dev: u32) -> bool {
        self.strangers.len() < STRANGERS_MAX && !self.strangers.contains(&dev)
    }

    /// A look has not found this one: none is taken for it until strangers are forgotten.
    pub(super) fn is_strange(&mut self, dev: u32) {
        if self.strangers.len() < STRANGERS_MAX {
            self.strangers.insert(dev);
        }
    }

    /// What a number means may change.
    pub(super) fn forget_strangers(&mut self) {
        self.strangers.clear();
    }

    /// Looks at sysfs.
    pub(super) fn scan(&mut self) -> Scanned {
        let found = disks::all(&self.sources, |name, has_device| {
            if self.wanted.is_empty() { has_device } else { self.wanted.contains(name) }
        });
        let mut scanned = Scanned::default();
        let mut by_dev = BTreeMap::new();
        self.paths.clear();
        self.without_requests.clear();
        for (name, disk) in found {
            let notice = disk.notice().filter(|_| self.said.len() < NOTICES_MAX);
            scanned.notices.extend(notice.filter(|notice| self.said.insert(notice.clone())));
            if !matches!(disk.queue, Queue::Requests { .. }) {
                self.without_requests.insert(name);
                continue;
            }
            let Some(number) = self.number(&disk.device, &mut scanned) else {
                if self.left_out.insert(name.clone()) {
                    scanned.left_out.push(name);
                }
                continue;
            };
            let whole = dev_of(disk.device.major, disk.device.minor);
            let is_new = |dev: &u32| !self.by_dev.contains_key(dev);
            scanned.has_new_disk |= is_new(&whole) || disk.paths.iter().any(is_new);
            by_dev.extend(disk.numbers.into_iter().map(|dev| (dev, number)));
            self.paths.extend(disk.paths);
        }
        let is_new = |dev: &&u32| !self.by_dev.contains_key(*dev);
        scanned.new_numbers = by_dev.keys().filter(is_new).copied().collect();
        self.by_dev = by_dev;
        scanned
    }

    /// The number of a disk that was found; the same as before if it is the same disk.
    fn number(&mut self, disk: &ObservedDevice, scanned: &mut Scanned) -> Option<u16> {
        let is_same = |known: &&mut ObservedDevice| {
            known.name == disk.name && known.serial == disk.serial && known.address == disk.address
        };
        if let Some(known) = self.known.iter_mut().find(is_same) {
            let number = known.number;
            // What the requests had: a reader of vslice's own puts its disk's scheduler back when it ends.
            let io_scheduler = known.io_scheduler.clone();
            let disk = ObservedDevice { number, io_scheduler, ..disk.clone() };
            if *known != disk {
                scanned.told.push(disk.clone());
                *known = disk;
            }
            return Some(number);
        }
        let number = u16::try_from(self.known.len()).ok()?;
        (self.known.len() < OBSERVED_DEVICES_MAX).then_some(())?;
        let disk = ObservedDevice { number, ..disk.clone() };
        scanned.told.push(disk.clone());
        self.known.push(disk);
        Some(number)
    }

    /// Of the disks that are wanted by their names, those that were not found.
    pub(super) fn missing(&self) -> Vec<String> {
        let is_there = |name: &&String| {
            self.without_requests.contains(*name)
                || self.known.iter().any(|known| known.name == **name)
        };
        self.wanted.iter().filter(|name| !is_there(name)).cloned().collect()
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.by_dev.is_empty()
    }

    /// The names of all disks that this machine has a device behind.
    pub(super) fn there(&self) -> Vec<String> {
        let disks = disks::shown(&self.sources).filter(|(_, _, has_device)| *has_device);
        let mut names: Vec<String> = disks.map(|(name, ..)| name).collect();
        names.sort();
        names
    }

    /// The numbers of all disks and partitions that are observed, if only those are.
    pub(super) fn only(&self) -> Option<Numbers> {
        let is_all_there = !self.wanted.is_empty() && self.missing().is_empty();
        is_all_there.then(|| self.by_dev.keys().copied().collect())
    }

    /// The major numbers of which no disk is observed, now or later: those of drivers whose devices have
    /// no device behind them (loop, device-mapper, md, zram). Each bio of a file system on one of these
    /// would be two events.
    pub(super) fn virtual_majors(&self) -> BTreeSet<u32> {
        let mut majors = BTreeSet::new();
        let mut ours: BTreeSet<u32> = self.by_dev.keys().map(|dev| dev >> 20).collect();
        ours.insert(BLOCK_EXT_MAJOR);
        for (_, dev, has_device) in disks::shown(&self.sources) {
            let Some(dev) = dev else { continue };
            if has_device {
                ours.insert(dev >> 20);
            } else {
                majors.insert(dev >> 20);
            }
        }
        &majors - &ours
    }
}

#[cfg(test)]
#[path = "devices_tests.rs"]
pub(super) mod tests;
