//! The events of the guest's block layer, from its kernel: perf's rings, and what sysfs and procfs say of
//! disks and tasks.
//!
//! ```text
//! formats    tracepoints and their fields                                 (pure)
//! filters    which devices' events the kernel is asked for                (pure)
//! rings      the events and the ring of each vCPU
//! hidden     what these counted and did not record                        (pure)
//! devices    disks by the kernel's numbers
//! disks      what sysfs says of them
//! tasks      who asks, by numbers that requests have
//! titles     what processes call themselves
//! ```

mod completions;
mod devices;
mod disks;
mod filters;
mod formats;
mod hidden;
mod rings;
mod sysfs;
mod tasks;
mod titles;

use crate::ObserveError;
use crate::clock::{nanos, now};
use crate::event::{BlockTrace, BlockTraceKind};
use crate::matching::UNKNOWN_TASK;
use devices::{Devices, Scanned};
use disks::Sources;
use filters::Wanted;
use formats::{Formats, TraceFormat, Tracepoint};
use nix::mount::MsFlags;
use rings::{Plan, Sample, VcpuRing};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;
use std::vec::Drain;
use tasks::Tasks;
use titles::Titles;
use vslice_perf::attr::LostCount;
use vslice_perf::filter::Numbers;
use vslice_perf::private_mount::PrivateMount;
use vslice_perf::{Tracefs, online, sys};
use vslice_wire::{Dropped, GuestTicks, ObservedDevice, ObservedHidden, ObservedTask};

/// An event is handed on only so long after its stamp: a vCPU that is taken away between an event's stamp
/// and its place in the ring has it there only when it is back.
const HELD_BACK: Duration = Duration::from_millis(200);

/// Events that are held back at most; beyond that the oldest are handed on.
const HELD_MAX: usize = 8 * 1024;

/// sysfs is looked at so often without being asked: a disk's size or scheduler may change, a partition's
/// number may be another's.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);

/// See the module. It is dropped with all that was opened.
#[derive(Debug)]
pub struct Source {
    formats: Formats,
    lost: LostCount,
    page_bytes: usize,
    rings: Vec<VcpuRing>,
    /// The vCPUs that were online and had no ring at the last look, and when that was.
    dark: BTreeSet<u16>,
    looked: GuestTicks,
    wanted: Wanted,
    devices: Devices,
    tasks: Tasks,
    /// Perf events that are open.
    opened: usize,
    /// From here on every event was enabled.
    began: GuestTicks,
    held: Vec<BlockTrace>,
    /// Events of devices that sysfs was not looked at for yet, by the kernel's number.
    strange: Vec<(u32, BlockTrace)>,
    /// Losses that some event may still come before.
    held_losses: Vec<Dropped>,
    batch: Vec<u8>,
    /// Intervals of which not all events are known.
    unseen: Vec<Dropped>,
    /// When sysfs was looked at, and is again.
    scanned: GuestTicks,
    next_scan: GuestTicks,
    told: Vec<ObservedDevice>,
    notices: Vec<String>,
    events_count: u64,
    /// Known after the last pass.
    hidden: ObservedHidden,
}

/// What a pass over the rings brought.
#[derive(Debug)]
pub struct Pass<'a> {
    /// What found no room, in order of its beginning. All events before that are in this pass, or were in
    /// one before.
    pub lost: Vec<Dropped>,
    /// In order of time.
    pub events: Drain<'a, BlockTrace>,
    /// All events up to here have been handed on.
    pub until: GuestTicks,
}

impl Source {
    /// Opens everything, and enables nothing. `disks` are the names of those that are wanted; empty: all.
    ///
    /// # Errors
    /// Why the guest cannot be observed.
    pub fn open(disks: &[String]) -> Result<Source, ObserveError> {
        let sources = Sources { block: "/sys/block".into(), diskstats: "/proc/diskstats".into() };
        let mut devices = Devices::new(sources, disks);
        let scanned = devices.scan();
        if devices.is_empty() {
            let (there, notices) = (devices.there(), scanned.notices);
            return Err(ObserveError::NoDisk { there, notices });
        }
        let mut notices = missing_disks(&devices);
        let formats = formats_of(&Tracefs::find().map_err(tracefs_error)?, &mut notices)?;
        let guest = |doing| move |source| ObserveError::Guest { doing, source };
        let vcpus = vcpus().map_err(guest("list the vCPUs"))?;
        let page_bytes = online::page_bytes().map_err(guest("ask for the page size"))?;
        let titles = Titles::start().map_err(guest("start a thread"))?;
        let wanted = match devices.only() {
            Some(numbers) => Wanted::Only(numbers),
            None => Wanted::AllBut(devices.virtual_majors()),
        };
        let mut source = Source {
            lost: LostCount::ask(vcpus.first().copied().unwrap_or(0).into()),
            page_bytes,
            notices,
            ..Source::of(formats, wanted, devices, Tasks::new(titles))
        };
        source.tell(scanned);
        source.open_rings(&vcpus)?;
        Ok(source)
    }

    /// Of which nothing is open.
    fn of(formats: Formats, wanted: Wanted, devices: Devices, tasks: Tasks) -> Source {
        Source {
            formats,
            lost: LostCount::InRingOnly,
            page_bytes: 0,
            rings: Vec::new(),
            dark: BTreeSet::new(),
            looked: GuestTicks(0),
            wanted,
            devices,
            tasks,
            opened: 0,
            began: GuestTicks(u64::MAX),
            held: Vec::new(),
            strange: Vec::new(),
            held_losses: Vec::new(),
            batch: Vec::new(),
            unseen: Vec::new(),
            scanned: now(),
            next_scan: later(now(), SCAN_INTERVAL),
            told: Vec::new(),
            notices: Vec::new(),
            events_count: 0,
            hidden: ObservedHidden::default(),
        }
    }

    fn open_rings(&mut self, vcpus: &BTreeSet<u16>) -> Result<(), ObserveError> {
        let ring_bytes = rings::ring_bytes(vcpus.len(), self.page_bytes);
        let plan = Plan {
            formats: &self.formats,
            wanted: &self.wanted,
            lost: self.lost,
            page_bytes: self.page_bytes,
            ring_bytes,
        };
        let per_vcpu = self
            .formats
            .iter()
            .map(|format| self.wanted.filters(format.tracepoint.condition()).len());
        rings::make_room_for((per_vcpu.sum::<usize>() + 1) * vcpus.len());
        for vcpu in vcpus {
            self.rings.push(VcpuRing::open(&plan, *vcpu, &mut self.opened)?);
        }
        Ok(())
    }

    /// Enables all events. What happened on one vCPU while another was not enabled yet is left out.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enable(&mut self) -> Result<(), ObserveError> {
        self.rings.iter_mut().try_for_each(VcpuRing::enable)?;
        self.began = now();
        self.rings.iter_mut().for_each(|ring| ring.begin(self.began));
        Ok(())
    }

    /// Disables all events; what is in the rings stays there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn disable(&mut self) -> Result<(), ObserveError> {
        self.look_at_vcpus(now());
        self.rings.iter().try_for_each(VcpuRing::disable)
    }

    /// Empties the rings, and hands on what is old enough that nothing can come before it.
    ///
    /// # Errors
    /// When a ring holds what no kernel writes. Observing is over then.
    pub fn pass(&mut self) -> Result<Pass<'_>, ObserveError> {
        // Read before the rings are: the causes of an event up to then are in this pass, or were in one
        // before.
        let now = now();
        let mut losses = self.drain()?;
        self.look(now);
        losses.append(&mut self.unseen);
        losses.append(&mut self.held_losses);
        self.held.sort_by_key(|event| event.time);
        let until = GuestTicks(now.0.saturating_sub(nanos(HELD_BACK)));
        let old = self.held.partition_point(|event| event.time <= until);
        let count = old.max(self.held.len().saturating_sub(HELD_MAX));
        let last = count.checked_sub(1).and_then(|last| self.held.get(last));
        let until = last.map_or(until, |last| last.time.max(until).min(now));
        losses.sort_by_key(|lost| lost.first);
        self.held_losses = losses.split_off(losses.partition_point(|lost| lost.first <= until));
        Ok(Pass { lost: losses, events: self.held.drain(..count), until })
    }

    /// The last pass, after [`Source::disable`]: nothing is held back.
    ///
    /// # Errors
    /// As [`Source::pass`].
    pub fn last_pass(&mut self) -> Result<Pass<'_>, ObserveError> {
        let now = now();
        let mut lost = self.drain()?;
        if hidden::is_any(self.read_hidden()) {
            // What is written yet is not hidden.
            if !sys::wait_for_writers() {
                thread::sleep(HELD_BACK);
            }
            lost.append(&mut self.drain()?);
        }
        self.hidden = self.read_hidden();
        if !self.strange.is_empty() {
            let scanned = self.devices.scan();
            self.tell(scanned);
            self.place_strange();
        }
        lost.append(&mut self.unseen);
        lost.append(&mut self.held_losses);
        for ring in &mut self.rings {
            lost.extend(ring.lost_at_the_end());
        }
        lost.sort_by_key(|lost| lost.first);
        self.held.sort_by_key(|event| event.time);
        Ok(Pass { lost, events: self.held.drain(..), until: now })
    }

    /// To be asked when the rings have been emptied after they were disabled.
    fn read_hidden(&self) -> ObservedHidden {
        hidden::together(self.rings.iter().map(VcpuRing::hidden))
    }

    fn drain(&mut self) -> Result<Vec<Dropped>, ObserveError> {
        let mut rings = std::mem::take(&mut self.rings);
        let mut batch = std::mem::take(&mut self.batch);
        let mut lost = Vec::new();
        let drained = rings.iter_mut().try_for_each(|ring| {
            let vcpu = ring.vcpu;
            let take = |sample: Sample<'_>| {
                self.take(vcpu, sample);
                self.formats.tracepoint_of(sample.raw)
            };
            lost.extend(ring.drain(&mut batch, take)?);
            Ok(())
        });
        (self.rings, self.batch) = (rings, batch);
        drained.map(|()| lost)
    }

    fn take(&mut self, vcpu: u16, sample: Sample<'_>) {
        self.events_count += 1;
        if sample.time < self.began {
            return;
        }
        let Some(said) = self.formats.read(sample.raw) else { return };
        let device = self.devices.number_of(said.dev);
        if device.is_none() && !self.devices.deserves_a_look(said.dev) {
            return;
        }
        let task = match said.kind {
            BlockTraceKind::Queue => {
                self.tasks.number(sample.pid, sample.tid, said.comm.unwrap_or_default())
            }
            BlockTraceKind::Remap { .. } => self.tasks.number_unnamed(sample.pid, sample.tid),
            _ => UNKNOWN_TASK,
        };
        let of_this_disk =
            |(dev, _): &(u32, u64)| device.is_some() && self.devices.number_of(*dev) == device;
        let kind = match said.old.filter(of_this_disk) {
            Some((_, sector)) => BlockTraceKind::Remap { from: Some(sector) },
            None => said.kind,
        };
        let event = BlockTrace {
            time: sample.time,
            vcpu,
            device: device.unwrap_or_default(),
            task,
            thread: sample.tid,
            kind,
            sector: said.sector,
            sectors: said.sectors,
            rwbs: said.rwbs,
        };
        if device.is_some() {
            self.hold(said.dev, event);
        } else {
            self.strange.push((said.dev, event));
        }
    }

    /// What a disk sends to its path is what was asked of the disk, and is not asked for once more.
    fn hold(&mut self, dev: u32, event: BlockTrace) {
        let is_remap = matches!(event.kind, BlockTraceKind::Remap { .. });
        if !is_remap || !self.devices.is_path(dev) {
            self.held.push(event);
        }
    }

    /// Looks at sysfs, if it is time to or there were events of a device that is not known: it may have come a
    /// moment ago. Not while the rings are being emptied, as events are opened on them.
    fn look(&mut self, now: GuestTicks) {
        let is_time = now >= self.next_scan;
        if is_time {
            self.devices.forget_strangers();
            self.look_at_vcpus(now);
            self.next_scan = later(now, SCAN_INTERVAL);
        }
        if is_time || !self.strange.is_empty() {
            self.scan(now);
            self.place_strange();
        }
    }

    fn scan(&mut self, now: GuestTicks) {
        let mut scanned = self.devices.scan();
        let new_numbers = std::mem::take(&mut scanned.new_numbers);
        let has_new_disk = scanned.has_new_disk;
        self.tell(scanned);
        if matches!(self.wanted, Wanted::Only(_)) && !new_numbers.is_empty() {
            if let Err(error) = self.open_more(new_numbers) {
                let why = format!("a disk or partition that came later is not observed: {error}");
                self.notices.push(why);
            }
            if has_new_disk {
                // What it did until then, filters left out.
                self.is_unseen(self.scanned, self::now());
            }
        }
        self.scanned = now;
    }

    fn tell(&mut self, scanned: Scanned) {
        self.told.extend(scanned.told);
        self.notices.extend(left_out(&scanned.left_out));
        self.notices.extend(scanned.notices);
    }

    fn place_strange(&mut self) {
        for (dev, event) in std::mem::take(&mut self.strange) {
            match self.devices.number_of(dev) {
                Some(device) => self.hold(dev, BlockTrace { device, ..event }),
                None => self.devices.is_strange(dev),
            }
        }
    }

    /// Events are opened on the vCPUs that there are in the beginning, and end with each that goes offline, also
    /// where it comes back.
    fn look_at_vcpus(&mut self, now: GuestTicks) {
        if self.began == GuestTicks(u64::MAX) {
            return;
        }
        let Ok(online) = vcpus() else { return };
        let live = self.rings.iter_mut().filter_map(VcpuRing::live_vcpu).collect();
        self.leave_in_the_dark(&online - &live, now);
    }

    /// These vCPUs have done since the last look what is not known.
    fn leave_in_the_dark(&mut self, dark: BTreeSet<u16>, now: GuestTicks) {
        self.notices.extend(newcomers(&self.dark, &dark));
        if !dark.is_empty() {
            self.is_unseen(self.looked, now);
        }
        (self.dark, self.looked) = (dark, now);
    }

    fn is_unseen(&mut self, since: GuestTicks, until: GuestTicks) {
        let first = since.max(self.began).min(until);
        self.unseen.push(Dropped { count: 1, first, last: until });
    }

    /// Filters leave out what came later.
    fn open_more(&mut self, numbers: Numbers) -> Result<(), ObserveError> {
        let wanted = Wanted::Only(numbers);
        let plan = Plan {
            formats: &self.formats,
            wanted: &wanted,
            lost: self.lost,
            page_bytes: self.page_bytes,
            ring_bytes: 0,
        };
        self.rings.iter_mut().try_for_each(|ring| ring.open_more(&plan, &mut self.opened))
    }

    /// Disks that are to be told, each before its first request.
    pub fn take_devices(&mut self) -> Vec<ObservedDevice> {
        std::mem::take(&mut self.told)
    }

    /// What whoever reads the report has to know: sentences.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// A request of this task is about to be told: the task, if it has to be told before. `now` is any
    /// clock's.
    pub fn task(&mut self, number: u32, now: Duration) -> Option<ObservedTask> {
        self.tasks.tell(number, now)
    }

    /// Tasks of which more is known than was told.
    pub fn take_titled(&mut self) -> Vec<ObservedTask> {
        self.tasks.titled()
    }

    /// Whether no title that was asked for is yet to come.
    #[must_use]
    pub fn are_titled(&self) -> bool {
        self.tasks.are_titled()
    }

    /// What to wait for, for a ring that is about to be full.
    pub fn poll_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(VcpuRing::poll_fd)
    }

    /// Events that the kernel recorded.
    #[must_use]
    pub fn events_count(&self) -> u64 {
        self.events_count
    }

    /// Events that it had no room for.
    #[must_use]
    pub fn lost_count(&self) -> u64 {
        self.rings.iter().map(VcpuRing::lost_count).fold(0, u64::saturating_add)
    }

    /// Events that it counted and neither recorded nor told as lost, known after the last pass.
    #[must_use]
    pub fn hidden(&self) -> ObservedHidden {
        self.hidden
    }

    /// What threads beside the caller's used of the vCPUs.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        self.tasks.cpu_ns()
    }
}

fn later(time: GuestTicks, by: Duration) -> GuestTicks {
    GuestTicks(time.0.saturating_add(nanos(by)))
}

fn vcpus() -> io::Result<BTreeSet<u16>> {
    let numbers = online::cpus()?.into_iter().map(u16::try_from);
    numbers.collect::<Result<_, _>>().map_err(io::Error::other)
}

/// That vCPUs came online whose events are not known.
fn newcomers(before: &BTreeSet<u16>, dark: &BTreeSet<u16>) -> Option<String> {
    let new: Vec<String> = dark.difference(before).map(u16::to_string).collect();
    (!new.is_empty()).then(|| {
        format!(
            "vCPU {} came online while requests were observed: what it does with them is not known; observe anew",
            new.join(", ")
        )
    })
}

fn formats_of(tracefs: &Tracefs, notices: &mut Vec<String>) -> Result<Formats, ObserveError> {
    let mut formats = Vec::new();
    for tracepoint in Tracepoint::ALL {
        let name = tracepoint.name();
        match tracefs.format(name) {
            Ok(text) => {
                let bad = |what| ObserveError::BadFormat { name, what };
                formats.push(TraceFormat::parse(tracepoint, &text).map_err(bad)?);
            }
            Err(error) => match tracepoint.goes_without() {
                Some(costs) if error.kind() == io::ErrorKind::NotFound => {
                    notices.push(format!("the guest's kernel has no tracepoint {name}: {costs}"));
                }
                _ => return Err(format_error(name, error)),
            },
        }
    }
    Ok(Formats::new(formats))
}

fn missing_disks(devices: &Devices) -> Vec<String> {
    let missing = devices.missing();
    let sentence = || {
        let there = devices.there().join(", ");
        format!("the guest has no disk {} to be observed (it has {there})", missing.join(", "))
    };
    (!missing.is_empty()).then(sentence).into_iter().collect()
}

fn left_out(disks: &[String]) -> Option<String> {
    (!disks.is_empty()).then(|| {
        let max = vslice_wire::OBSERVED_DEVICES_MAX;
        format!(
            "the guest has more disks than the {max} that are observed: {} are not; --devices \
             chooses",
            disks.join(", ")
        )
    })
}

/// Root is refused only where the kernel is locked down, or where root is not all that it was.
fn not_permitted() -> ObserveError {
    if let Some(locked) = locked_down() {
        return locked;
    }
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    ObserveError::NotPermitted { paranoid: paranoid.ok().and_then(|text| text.trim().parse().ok()) }
}

/// That the kernel is locked down, where that is what keeps root from tracing. tracefs has no files then
/// (linux: `tracefs_create_file` in fs/tracefs/inode.c), so they are not refused but missing.
fn locked_down() -> Option<ObserveError> {
    let level = lockdown().filter(|level| forbids_tracing(level))?;
    nix::unistd::geteuid().is_root().then_some(ObserveError::LockedDown { level })
}

/// Tracing belongs to what `integrity` allows (linux: `enum lockdown_reason` in include/linux/security.h).
fn forbids_tracing(level: &str) -> bool {
    level == "confidentiality"
}

/// The level, if there is one; also where nobody has mounted securityfs.
fn lockdown() -> Option<String> {
    let mounted = fs::read_to_string("/sys/kernel/security/lockdown");
    let text = mounted.or_else(|_| {
        let own = PrivateMount::new("securityfs", MsFlags::MS_RDONLY)?;
        fs::read_to_string(own.path().join("lockdown"))
    });
    level_of(&text.ok()?)
}

/// `none integrity [confidentiality]`: the level, if there is one.
fn level_of(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    let (level, _) = rest.split_once(']')?;
    (level != "none").then(|| level.to_owned())
}

/// Whoever may not mount tracefs could not trace with it either.
fn tracefs_error(source: io::Error) -> ObserveError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => not_permitted(),
        _ => locked_down().unwrap_or(ObserveError::NoTracefs(source)),
    }
}

/// Only root may look into tracefs, unless somebody has changed its rights.
fn format_error(name: &'static str, source: io::Error) -> ObserveError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => not_permitted(),
        _ => locked_down().unwrap_or(ObserveError::NoTracepoint { name, source }),
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
