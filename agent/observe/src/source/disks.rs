//! What sysfs says of the disks that there are.

use super::completions::Vcpus;
use super::sysfs::{directories, text};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use vslice_perf::filter::Numbers;
use vslice_wire::{CompletionVcpu, NAME_BYTES_MAX, ObservedDevice};

/// Bytes of a serial number's page: a header, and what follows it (SPC's page 0x80).
const SERIAL_PAGE_HEADER_BYTES: usize = 4;

/// Names of disks that one disk's notice has at most.
const NAMES_MAX: usize = 8;

/// Where the kernel tells of disks.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    /// `/sys/block`.
    pub(super) block: PathBuf,
    /// `/proc/diskstats`, which has the numbers of hidden disks too: sysfs has not (linux: `add_disk_fwnode` in
    /// block/genhd.c).
    pub(super) diskstats: PathBuf,
}

/// A disk.
#[derive(Debug)]
pub(super) struct Disk {
    /// Its number is yet to be given.
    pub(super) device: ObservedDevice,
    /// Its number, and those of its partitions and of its paths.
    pub(super) numbers: Numbers,
    /// Those of its paths.
    pub(super) paths: Numbers,
    pub(super) queue: Queue,
}

/// What becomes of the bios that a disk gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Queue {
    /// Requests of its own, or of its paths.
    Requests {
        /// Multipath devices that send requests to it which have no bios.
        multipath: Vec<String>,
    },
    /// They are handed on to these disks, if to any.
    HandedOn(Vec<String>),
    /// Requests of these paths, of which the kernel tells no numbers.
    Unnumbered(Vec<String>),
}

impl Disk {
    /// What whoever reads the report has to know of it, if it is observed or was to be.
    pub(super) fn notice(&self) -> Option<String> {
        let name = &self.device.name;
        match &self.queue {
            Queue::Requests { multipath } if multipath.is_empty() => None,
            Queue::Requests { multipath } => Some(format!(
                "{name} is a path of {}, which sends it requests of its own making: who asked for them is not known, \
                 and those that somebody waits for are lost; observe that instead (--devices)",
                multipath.join(", ")
            )),
            Queue::HandedOn(below) if below.is_empty() => Some(format!(
                "{name} is not observed: its driver does without requests, as those of disks in memory do"
            )),
            Queue::HandedOn(below) => Some(format!(
                "{name} is not observed: it makes no requests, and hands what is asked of it to {}; observe these",
                below.join(", ")
            )),
            Queue::Unnumbered(paths) => Some(format!(
                "{name} is not observed: its requests are those of its paths ({}), whose numbers this kernel does not \
                 tell; boot it with nvme_core.multipath=N, or with Linux 6.1 or later",
                paths.join(", ")
            )),
        }
    }
}

/// A disk that nobody can open: a path of another one.
#[derive(Debug)]
struct Hidden {
    name: String,
    place: PathBuf,
}

/// Those that are wanted, by their names. What is hidden is a part of what it is a path of.
pub(super) fn all(
    sources: &Sources,
    is_wanted: impl Fn(&str, bool) -> bool,
) -> BTreeMap<String, Disk> {
    let (hidden, shown): (Vec<_>, Vec<_>) =
        directories(&sources.block).partition(|(_, place)| is_hidden(place));
    let mut paths: BTreeMap<String, Vec<Hidden>> = BTreeMap::new();
    for (name, place) in hidden {
        if let Some(head) = head_of(&name) {
            paths.entry(head).or_default().push(Hidden { name, place });
        }
    }
    let stats = (!paths.is_empty()).then(|| fs::read_to_string(&sources.diskstats).ok()).flatten();
    let stats = stats.unwrap_or_default();
    let sysfs = sources.block.parent().unwrap_or(&sources.block);
    let vcpus = Vcpus::at(&sysfs.join("devices/system/cpu"));
    let disk = |(name, place): (String, PathBuf)| {
        let has_device = has_device(&place);
        is_wanted(&name, has_device).then_some(())?;
        let paths = paths.get(&name).map(Vec::as_slice).unwrap_or_default();
        let disk = disk(&sources.block, &name, &place, paths, &stats, &vcpus)?;
        Some((name, disk))
    };
    shown.into_iter().filter_map(disk).collect()
}

/// The names and numbers of all that can be opened, and whether a device is behind them.
pub(super) fn shown(sources: &Sources) -> impl Iterator<Item = (String, Option<u32>, bool)> {
    let shown = directories(&sources.block).filter(|(_, place)| !is_hidden(place));
    shown.map(|(name, place)| {
        let number = number_at(&place).map(|(major, minor)| dev_of(major, minor));
        (name, number, has_device(&place))
    })
}

/// The number as the kernel's events have it.
pub(super) fn dev_of(major: u32, minor: u32) -> u32 {
    major << 20 | minor & 0xf_ffff
}

fn disk(
    block: &Path,
    name: &str,
    place: &Path,
    paths: &[Hidden],
    stats: &str,
    vcpus: &Vcpus,
) -> Option<Disk> {
    let (major, minor) = number_at(place)?;
    let mut numbers = Numbers::from([dev_of(major, minor)]);
    for (_, part) in directories(place).filter(|(_, part)| part.join("partition").exists()) {
        numbers.extend(number_at(&part).map(|(major, minor)| dev_of(major, minor)));
    }
    let path_numbers: Numbers =
        paths.iter().filter_map(|path| number_in(stats, &path.name)).collect();
    numbers.extend(&path_numbers);
    let ways = Ways::of(place, paths, vcpus);
    let sectors: u64 = text(&place.join("size")).and_then(|size| size.parse().ok()).unwrap_or(0);
    let device = ObservedDevice {
        number: 0,
        name: cut(name),
        major,
        minor,
        size_bytes: sectors.saturating_mul(512),
        serial: cut(&serial(place).unwrap_or_default()),
        address: cut(&ways.address),
        io_scheduler: cut(&ways.io_scheduler),
        hardware_queues: ways.hardware_queues,
        completion_vcpu: ways.completion_vcpu,
    };
    let queue = if path_numbers.len() < paths.len() {
        Queue::Unnumbered(paths.iter().take(NAMES_MAX).map(|path| path.name.clone()).collect())
    } else if paths.is_empty() && does_without_requests(place) {
        Queue::HandedOn(below(place))
    } else {
        Queue::Requests { multipath: multipath(block, place) }
    };
    Some(Disk { device, numbers, paths: path_numbers, queue })
}

/// Where a disk's requests go: to its own queues, or to those of its paths.
#[derive(Debug)]
struct Ways {
    address: String,
    io_scheduler: String,
    hardware_queues: u16,
    completion_vcpu: CompletionVcpu,
}

impl Ways {
    /// What paths do not have in common is not known of the disk.
    fn of(place: &Path, paths: &[Hidden], vcpus: &Vcpus) -> Ways {
        let places: Vec<&Path> = match paths {
            [] => vec![place],
            paths => paths.iter().map(|path| path.place.as_path()).collect(),
        };
        let functions: Vec<Option<PathBuf>> = places.iter().map(|own| pci_function(own)).collect();
        let address = |function: &Option<PathBuf>| function.as_deref().and_then(name_of);
        let queues = places.iter().map(|own| directories(&own.join("mq")).count()).sum::<usize>();
        let completing = places
            .iter()
            .zip(&functions)
            .map(|(own, function)| vcpus.completing(own, function.as_deref()));
        Ways {
            address: in_common(functions.iter().map(address)).flatten().unwrap_or_default(),
            io_scheduler: in_common(places.iter().map(|own| io_scheduler(own)))
                .flatten()
                .unwrap_or_default(),
            hardware_queues: u16::try_from(queues).unwrap_or(u16::MAX),
            completion_vcpu: in_common(completing).unwrap_or(CompletionVcpu::Unknown),
        }
    }
}

fn in_common<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// A disk whose driver takes bios: no `mq`, as all disks with requests have it since Linux 5.0, and nothing to
/// choose a scheduler from, as those before it with one queue have it (linux 4.18: `elv_iosched_show` in
/// block/elevator.c).
fn does_without_requests(place: &Path) -> bool {
    let has_choice = text(&place.join("queue/scheduler")).is_some_and(|all| all.contains('['));
    place.join("queue").exists() && !place.join("mq").exists() && !has_choice
}

/// The disks that it is made of, whole ones where it has a partition.
fn below(place: &Path) -> Vec<String> {
    let of = |(name, slave): (String, PathBuf)| {
        let whole = slave.join("partition").exists().then(|| fs::canonicalize(&slave).ok());
        let whole = whole.flatten().and_then(|slave| Some(slave.parent()?.file_name()?.to_owned()));
        whole.map_or(Some(name), |whole| whole.into_string().ok())
    };
    let names: BTreeSet<String> = directories(&place.join("slaves")).filter_map(of).collect();
    names.into_iter().take(NAMES_MAX).collect()
}

/// Multipath devices that are made of it, and have a queue of requests.
fn multipath(block: &Path, place: &Path) -> Vec<String> {
    let is_one = |(name, _): &(String, PathBuf)| {
        let holder = block.join(name);
        let uuid = text(&holder.join("dm/uuid")).unwrap_or_default();
        uuid.starts_with("mpath-") && holder.join("mq").exists()
    };
    let holders = directories(&place.join("holders")).filter(is_one).map(|(name, _)| name);
    let names: BTreeSet<String> = holders.collect();
    names.into_iter().take(NAMES_MAX).collect()
}

fn has_device(place: &Path) -> bool {
    place.join("device").exists()
}

fn is_hidden(place: &Path) -> bool {
    text(&place.join("hidden")).is_some_and(|hidden| hidden != "0")
}

/// `nvme0n2` of `nvme0c1n2`, which is its path by the controller 1 (linux: `nvme_alloc_ns` in
/// drivers/nvme/host/core.c).
pub(super) fn head_of(path: &str) -> Option<String> {
    let (subsystem, rest) = path.strip_prefix("nvme")?.split_once('c')?;
    let (controller, namespace) = rest.split_once('n')?;
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let are_numbers = [subsystem, controller, namespace].into_iter().all(is_number);
    are_numbers.then(|| format!("nvme{subsystem}n{namespace}"))
}

/// ` 259       1 nvme0c0n1 0 0 ...`. Before Linux 6.1 a hidden disk has the number 0:0 there.
fn number_in(stats: &str, name: &str) -> Option<u32> {
    stats.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (words.next()? == name && (major, minor) != (0, 0)).then(|| dev_of(major, minor))
    })
}

/// `254:0` in the file `dev`.
fn number_at(path: &Path) -> Option<(u32, u32)> {
    let dev = text(&path.join("dev"))?;
    let (major, minor) = dev.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// virtio-blk has it at the disk, NVMe at its device, SCSI in a page of its own.
fn serial(path: &Path) -> Option<String> {
    text(&path.join("serial")).or_else(|| text(&path.join("device/serial"))).or_else(|| {
        let page = fs::read(path.join("device/vpd_pg80")).ok()?;
        let serial = String::from_utf8_lossy(page.get(SERIAL_PAGE_HEADER_BYTES..)?).into_owned();
        let serial = serial.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0');
        Some(serial.to_owned()).filter(|serial| !serial.is_empty())
    })
}

/// The innermost PCI function on the way to the disk's device.
fn pci_function(path: &Path) -> Option<PathBuf> {
    let place = fs::canonicalize(path.join("device")).ok()?;
    let mut places = place.ancestors();
    places
        .find(|place| name_of(place).is_some_and(|name| is_pci_function(&name)))
        .map(Path::to_owned)
}

fn name_of(place: &Path) -> Option<String> {
    place.file_name()?.to_str().map(str::to_owned)
}

/// `0000:00:05.0`.
fn is_pci_function(name: &str) -> bool {
    let shape = name.bytes().map(|byte| if byte.is_ascii_hexdigit() { b'x' } else { byte });
    shape.eq(b"xxxx:xx:xx.x".iter().copied())
}

/// `mq-deadline kyber [none]`.
fn io_scheduler(path: &Path) -> Option<String> {
    let all = text(&path.join("queue/scheduler"))?;
    let chosen = all.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    Some(chosen.map_or(all.as_str(), |(chosen, _)| chosen).to_owned())
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}
