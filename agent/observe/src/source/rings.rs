//! The events and the ring of each vCPU: opening, enabling, reading.

use super::filters::Wanted;
use super::formats::{Formats, TraceFormat, Tracepoint};
use super::hidden::{Records, RingLosses};
use crate::ObserveError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use perf_event_open_sys::bindings::{
    PERF_COUNT_SW_DUMMY, PERF_FORMAT_TOTAL_TIME_ENABLED, PERF_RECORD_LOST, PERF_RECORD_SAMPLE,
    PERF_SAMPLE_RAW, PERF_SAMPLE_TID, PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT, perf_event_attr,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;
use vslice_perf::attr::{LostCount, stamped, wake_at_a_quarter};
use vslice_perf::bytes::{u32_at, u64_at};
use vslice_perf::record::{RawRecord, RawRecords};
use vslice_perf::{Ring, sys};
use vslice_wire::{Dropped, GuestTicks, ObservedHidden};

/// Memory of all rings together, as far as each has a page, and of one at most. A request has some 256 bytes of events.
const RINGS_BYTES: usize = 3 << 19;
const RING_BYTES_MAX: usize = 512 << 10;

/// A record of these tracepoints has no more: their longest field is a command of SCSI's.
const RECORD_BYTES_MAX: usize = 512;

/// Two ticks of a kernel that has the longest, CONFIG_HZ_100.
const TICKS: Duration = Duration::from_millis(20);

/// Descriptors that the rest of the agent may need.
const OTHER_FILES: u64 = 64;

/// One occurrence of a tracepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample<'a> {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) time: GuestTicks,
    /// The tracepoint's own data, see `formats`.
    pub(super) raw: &'a [u8],
}

/// One record of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record<'a> {
    Sample(Sample<'a>),
    Lost { time: GuestTicks, count: u64 },
    Other,
}

/// How all rings are opened.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) formats: &'a Formats,
    pub(super) wanted: &'a Wanted,
    pub(super) lost: LostCount,
    pub(super) page_bytes: usize,
    pub(super) ring_bytes: usize,
}

/// The size of each ring, on so many vCPUs: a power of two of pages.
pub(super) fn ring_bytes(vcpus_count: usize, page_bytes: usize) -> usize {
    let share = (RINGS_BYTES / vcpus_count.max(1)).min(RING_BYTES_MAX) / page_bytes;
    // The largest power of two that is not above it.
    (1_usize << share.max(1).ilog2()) * page_bytes
}

/// Raises the soft limit of open files to the hard one where so many events need it. Where that is
/// refused, or not enough, opening says so.
pub(super) fn make_room_for(events_count: usize) {
    let needed = (events_count as u64).saturating_add(OTHER_FILES);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < needed
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard);
    }
}

/// One vCPU's ring and the events that write into it.
#[derive(Debug)]
pub(super) struct VcpuRing {
    pub(super) vcpu: u16,
    ring: Ring,
    /// Leads the group of the first events and owns the ring.
    leader: OwnedFd,
    events: Vec<(Tracepoint, OwnedFd)>,
    records: Records,
    lost: LostCount,
    /// The time of the last record; at first, when observing began.
    latest: GuestTicks,
    /// Whether it was so when that was last asked.
    is_live: bool,
    pub(super) fill: Fill,
    /// Losses that the ring itself has told, and those that were told to others.
    recorded_lost_count: u64,
    told_lost_count: u64,
}

impl VcpuRing {
    /// Opens all events of a vCPU, disabled. `opened` counts those of all vCPUs.
    pub(super) fn open(
        plan: &Plan<'_>,
        vcpu: u16,
        opened: &mut usize,
    ) -> Result<VcpuRing, ObserveError> {
        let leader = sys::open(leader(plan), vcpu.into(), None)
            .map_err(|error| open_error(error, vcpu, *opened))?;
        *opened += 1;
        let ring = Ring::map(&leader, plan.page_bytes, plan.ring_bytes)
            .map_err(|error| map_error(error, vcpu, plan.ring_bytes))?;
        let mut ring = VcpuRing {
            vcpu,
            ring,
            leader,
            events: Vec::new(),
            records: Records::default(),
            lost: plan.lost,
            latest: GuestTicks(0),
            is_live: true,
            fill: Fill::of(plan.ring_bytes),
            recorded_lost_count: 0,
            told_lost_count: 0,
        };
        for format in plan.formats.iter() {
            for filter in plan.wanted.filters(format.tracepoint.condition()) {
                let group = Some(ring.leader.as_fd());
                let event = ring.event(format, filter.as_deref(), group, opened)?;
                ring.events.push((format.tracepoint, event));
            }
        }
        Ok(ring)
    }

    /// Opens the events of disks or partitions that came later, and enables them.
    pub(super) fn open_more(
        &mut self,
        plan: &Plan<'_>,
        opened: &mut usize,
    ) -> Result<(), ObserveError> {
        for format in plan.formats.iter() {
            for filter in plan.wanted.filters(format.tracepoint.condition()) {
                let event = self.event(format, filter.as_deref(), None, opened)?;
                sys::enable(event.as_fd()).map_err(refused("enable an event", self.vcpu))?;
                self.events.push((format.tracepoint, event));
            }
        }
        Ok(())
    }

    fn event(
        &self,
        format: &TraceFormat,
        filter: Option<&str>,
        group: Option<BorrowedFd<'_>>,
        opened: &mut usize,
    ) -> Result<OwnedFd, ObserveError> {
        let mut attr = tracepoint(format.id, self.lost);
        attr.set_disabled(u64::from(group.is_none()));
        let event = sys::open(attr, self.vcpu.into(), group)
            .map_err(|error| open_error(error, self.vcpu, *opened))?;
        if let Some(filter) = filter {
            let set = sys::set_filter(event.as_fd(), filter);
            set.map_err(refused("filter a tracepoint", self.vcpu))?;
        }
        let joined = sys::set_output(event.as_fd(), self.leader.as_fd());
        joined.map_err(refused("share a ring buffer", self.vcpu))?;
        *opened += 1;
        Ok(event)
    }

    /// Enables all events at one instant.
    pub(super) fn enable(&mut self) -> Result<(), ObserveError> {
        sys::enable(self.leader.as_fd()).map_err(refused("enable events", self.vcpu))
    }

    /// From now on it is complete.
    pub(super) fn begin(&mut self, now: GuestTicks) {
        self.latest = now;
    }

    /// Disables all events at one instant; those that came later, each for itself.
    pub(super) fn disable(&self) -> Result<(), ObserveError> {
        let all = [&self.leader].into_iter().chain(self.events.iter().map(|(_, event)| event));
        let mut disabled = all.map(|event| sys::disable(event.as_fd()));
        disabled.try_for_each(|result| result).map_err(refused("disable events", self.vcpu))
    }

    /// What `poll(2)` waits for.
    pub(super) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.leader.as_fd()
    }

    /// Hands all records to `take`, which says whose each is; what was lost comes back. `batch` is memory that is used
    /// again.
    pub(super) fn drain(
        &mut self,
        batch: &mut Vec<u8>,
        mut take: impl FnMut(Sample<'_>) -> Option<Tracepoint>,
    ) -> Result<Vec<Dropped>, ObserveError> {
        let vcpu = self.vcpu;
        let corrupt = |source| ObserveError::CorruptRing { vcpu, source };
        batch.clear();
        self.ring.drain(batch).map_err(corrupt)?;
        let mut lost = Vec::new();
        for (place, record) in RawRecords::new(batch).enumerate() {
            let record = record.map_err(corrupt)?;
            match parse(&record).ok_or_else(|| corrupt(record.is_short()))? {
                Record::Sample(sample) => {
                    self.latest = self.latest.max(sample.time);
                    self.records.add(take(sample));
                }
                Record::Lost { time, count } => {
                    self.recorded_lost_count = self.recorded_lost_count.saturating_add(count);
                    // The first event that finds room writes it. If that is the first one since a full
                    // ring was emptied, what was lost was before that.
                    let full_until = self.fill.full_until.filter(|_| place == 0);
                    let last = full_until.map_or(time, |until| until.min(time));
                    let first = self.latest.min(last);
                    lost.extend(self.untold(self.recorded_lost_count, first, last));
                    self.latest = self.latest.max(time);
                }
                Record::Other => {}
            }
        }
        self.fill.emptied(batch.len(), crate::clock::now());
        // It says so itself only with its next event.
        if self.fill.full_until.is_some() {
            lost.extend(self.counted_as_lost());
        }
        Ok(lost)
    }

    /// What the kernel has counted as lost and the ring has not told; nothing where it does not count. To be
    /// asked when the ring has been emptied: it was full after its last record.
    fn counted_as_lost(&mut self) -> Option<Dropped> {
        if self.lost == LostCount::InRingOnly {
            return None;
        }
        let lost = self.events.iter().map(|(_, event)| sys::lost_of(event));
        let count = lost.fold(0, u64::saturating_add);
        let first = self.latest;
        self.untold(count, first, crate::clock::now().max(first))
    }

    /// The same when no event will come any more. Where the kernel does not count, a ring that may have been full
    /// has lost some.
    pub(super) fn lost_at_the_end(&mut self) -> Option<Dropped> {
        match self.lost {
            LostCount::Readable => self.counted_as_lost(),
            LostCount::InRingOnly => {
                let last = self.fill.full_until.take()?;
                self.untold(self.told_lost_count.saturating_add(1), self.latest.min(last), last)
            }
        }
    }

    /// What its events have counted and it has had no record of. To be asked when they are disabled, and it has been
    /// emptied since, and before `lost_at_the_end`.
    pub(super) fn hidden(&self) -> ObservedHidden {
        let counts = self.events.iter().map(|(of, event)| (*of, sys::count_of(event)));
        let may_be_more = self.fill.full_until.is_some();
        let losses = RingLosses { count: self.recorded_lost_count, may_be_more };
        self.records.hidden(counts, losses)
    }

    /// The vCPU, if its events are recorded: not after it has gone offline, even if it is back. To be asked while
    /// they are enabled.
    pub(super) fn live_vcpu(&mut self) -> Option<u16> {
        self.is_live = self.is_live && self.is_counting();
        self.is_live.then_some(self.vcpu)
    }

    /// Whether the time that its leader has been enabled goes on.
    fn is_counting(&self) -> bool {
        let enabled_ns = || sys::enabled_ns_of(&self.leader).unwrap_or(0);
        let before = enabled_ns();
        enabled_ns() > before || {
            // Without a clock the kernel counts its ticks.
            thread::sleep(TICKS);
            enabled_ns() > before
        }
    }

    fn untold(&mut self, count: u64, first: GuestTicks, last: GuestTicks) -> Option<Dropped> {
        let untold = count.checked_sub(self.told_lost_count).filter(|untold| *untold > 0)?;
        self.told_lost_count = count;
        Some(Dropped { count: untold, first, last })
    }

    /// What was told to be lost.
    pub(super) fn lost_count(&self) -> u64 {
        self.told_lost_count
    }
}

/// Whether a ring was so full that the next record may have found no room. The kernel says so only before the next
/// that finds some.
#[derive(Debug)]
pub(super) struct Fill {
    ring_bytes: usize,
    /// What was in it when it was last emptied.
    before_bytes: usize,
    /// When it was emptied, if it may have been full; until there are other records.
    full_until: Option<GuestTicks>,
}

impl Fill {
    fn of(ring_bytes: usize) -> Fill {
        Fill { ring_bytes, before_bytes: 0, full_until: None }
    }

    /// So much was taken out. What came while that was read, before its room was handed back, is taken out the next
    /// time, so that both had to find room at once.
    pub(super) fn emptied(&mut self, bytes: usize, now: GuestTicks) {
        if bytes > 0 {
            let held_bytes = self.before_bytes + bytes;
            self.full_until = (held_bytes + RECORD_BYTES_MAX > self.ring_bytes).then_some(now);
        }
        self.before_bytes = bytes;
    }
}

/// The event that owns a ring counts nothing, loses nothing, and says for how long it was enabled. It starts
/// disabled, and those grouped under it with it.
fn leader(plan: &Plan<'_>) -> perf_event_attr {
    let mut attr = stamped(plan.lost);
    attr.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED.into();
    attr.sample_type |= u64::from(PERF_SAMPLE_TID);
    attr.type_ = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_DUMMY.into();
    attr.set_disabled(1);
    wake_at_a_quarter(&mut attr, plan.ring_bytes);
    attr
}

/// Every occurrence of a tracepoint that its filter lets through. The vCPU is the ring's.
fn tracepoint(id: u16, lost: LostCount) -> perf_event_attr {
    let mut attr = stamped(lost);
    attr.type_ = PERF_TYPE_TRACEPOINT;
    attr.config = id.into();
    attr.sample_period = 1;
    attr.sample_type |= u64::from(PERF_SAMPLE_TID | PERF_SAMPLE_RAW);
    attr
}

/// A sample has pid u32, tid u32, time u64, raw size u32, raw; all others end with pid, tid and time.
/// `None` where it is too short.
fn parse<'a>(record: &RawRecord<'a>) -> Option<Record<'a>> {
    let body = record.body;
    Some(match record.kind {
        PERF_RECORD_SAMPLE => {
            let raw_bytes = usize::try_from(u32_at(body, 16)?).ok()?;
            Record::Sample(Sample {
                pid: u32_at(body, 0)?,
                tid: u32_at(body, 4)?,
                time: GuestTicks(u64_at(body, 8)?),
                raw: body.get(20..)?.get(..raw_bytes)?,
            })
        }
        PERF_RECORD_LOST => {
            let time = GuestTicks(u64_at(body, body.len().checked_sub(8)?)?);
            Record::Lost { time, count: u64_at(body, 8)? }
        }
        _ => Record::Other,
    })
}

fn refused(doing: &'static str, vcpu: u16) -> impl Fn(io::Error) -> ObserveError {
    move |source| ObserveError::Kernel { doing, vcpu, source }
}

fn open_error(source: io::Error, vcpu: u16, opened: usize) -> ObserveError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => super::not_permitted(),
        Some(libc::ENOSYS) => ObserveError::NoPerf,
        Some(libc::EMFILE | libc::ENFILE) => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            ObserveError::TooManyFiles { opened, limit }
        }
        _ => ObserveError::Kernel { doing: "open a perf event", vcpu, source },
    }
}

fn map_error(source: io::Error, vcpu: u16, ring_bytes: usize) -> ObserveError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::ENOMEM) => ObserveError::NoMemory { ring_bytes, vcpu },
        _ => ObserveError::Kernel { doing: "map a ring buffer", vcpu, source },
    }
}

#[cfg(test)]
#[path = "rings_tests.rs"]
mod tests;
