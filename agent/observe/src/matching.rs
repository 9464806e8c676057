//! From the events of the block layer to requests. Pure.
//!
//! What somebody asks for is a bio, and what a driver gets is a request: several bios, or a part of
//! one. No tracepoint says which bios a request has, nor which request is completed, other than by
//! sectors. So bios are kept by their sectors until a request that has these is issued, and requests by
//! theirs until these are completed, as linux's block/blk-mq.c and block/blk-merge.c make them.
//!
//! What cannot be matched for sure is marked or not told. What is not told is a loss with its interval;
//! but requests that were under way when observing began are only counted.
//!
//! ```text
//! table     what is open, by sector and by age
//! asking    bios
//! issuing   requests, and `cover`, which bios they were made of
//! flush     the flushes of the queue, and `flushing`, whom they serve
//! told      what comes out
//! under_way what is open at the end
//! ```

mod asking;
mod cover;
mod flush;
mod flushing;
mod issuing;
mod table;
mod told;
mod under_way;

use crate::event::{BlockTrace, BlockTraceKind};
use flush::Flushes;
use std::collections::VecDeque;
use table::{Nature, Open, Place, Stage, Table};
use told::Told;
use vslice_wire::{
    BlockOperation, Dropped, GuestTicks, OBSERVED_DEVICES_MAX, ObservedFlags, ObservedOthers,
    ObservedRequest,
};

/// The task of a request whose bio was not seen.
pub const UNKNOWN_TASK: u32 = u32::MAX;

/// Requests in flight that are looked at for one that overlaps, and bios that begin where another has its sectors.
const OVERLAP_MAX: usize = 256;

/// What one disk completes while something is open before that may be given up: no queue keeps a
/// request behind so many others for longer than [`Limits::stale_ticks`].
const OVERTAKEN_MIN: u64 = 4096;

/// Bios that begin before another that are looked at for one that reaches there. Only bios that overlap make
/// it more than one.
const ALIKE_MAX: usize = 8;

/// Completions without a request that are remembered, for requests that are issued only then: on
/// vCPUs whose clocks differ an effect may seem to be before its cause; and as many ends that may come.
const EARLY_MAX: usize = 16;

/// What is marked of a bio, or of a request that was given back, is so of what it becomes a part of.
const MARKS: [ObservedFlags; 5] = [
    ObservedFlags::MERGED,
    ObservedFlags::REQUEUED,
    ObservedFlags::AMBIGUOUS,
    ObservedFlags::OVERLAPPED,
    ObservedFlags::NO_QUEUE_TIME,
];

/// Losses that have not begun that are kept: more begin at once.
const GAPS_MAX: usize = 1024;

/// How much before its cause an effect may seem to be.
const EARLY_TICKS: u64 = 1_000_000;

/// What is kept at most, and what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bios and requests that are open at once; beyond it the oldest is lost.
    pub open_max: usize,
    /// What took less time than this, from queued to completed, is only counted.
    pub slower_than_ticks: u64,
    /// What is open for longer, while thousands that came later were completed, is lost.
    pub stale_ticks: u64,
    /// So long after a loss nothing is under way any more that was issued before its end; longer if a flush
    /// of the same disk was seen to take longer. See [`Limits::default`].
    pub driver_ticks: u64,
    /// So long the kernel needs to bring a flush that was asked for to its queue, and a flush of the
    /// queue, or the data behind one, to the driver.
    pub quiet_ticks: u64,
}

impl Default for Limits {
    /// All requests are sent, and what is open needs less than 3 MiB.
    ///
    /// How long a flush takes has no bound that is of use: the kernel gives up on one after 60 s (linux:
    /// drivers/scsi/sd.h, `SD_TIMEOUT` times `SD_FLUSH_TIMEOUT_MULTIPLIER`), after 30 s
    /// (drivers/nvme/host/core.c, `nvme_io_timeout`), or never (drivers/block/virtio_blk.c sets no timeout). So
    /// `driver_ticks` and `quiet_ticks` are choices, between flushes that are taken for others and flushes of
    /// which it is not said which they are. They are 2.6 and 4 times the longest that the labs have
    /// seen, which print it (`load_flushes_of_`): with the driver 77 ms, as the vCPU that was to take
    /// the interrupt was off; handed over after 7.4 ms, as a kworker does it, which waits for its CPU.
    ///
    /// docs/observing.md says what is wrong of a flush that takes longer and was not seen to begin.
    fn default() -> Limits {
        Limits {
            open_max: 16_384,
            slower_than_ticks: 0,
            stale_ticks: 60_000_000_000,
            driver_ticks: 200_000_000,
            quiet_ticks: 30_000_000,
        }
    }
}

/// What was seen and not told, and is no loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests that were under way when observing began.
    pub under_way: u64,
    /// Requests that are no block I/O: commands of SCSI and NVMe, for instance.
    pub passthrough: u64,
    /// Events that came after later ones had been handled.
    pub late: u64,
}

/// A flush that a flush of the queue has ended.
#[derive(Debug)]
struct Ended {
    open: Open,
    completed: GuestTicks,
    vcpu_completed: u16,
}

/// What is known of one disk.
#[derive(Debug)]
struct Disk {
    flushes: Flushes,
    completed_count: u64,
    /// An upper bound of the length of what is in flight.
    longest_sectors: u64,
    in_flight_count: usize,
}

/// See the module.
///
/// Events are given to [`Matching::take`] in passes, each pass in order of time, and each pass later
/// than the one before. A loss has to be told before the events that are later than its beginning, and after
/// all others: events up to its end that come after it are taken for incomplete, and dropped.
#[derive(Debug)]
pub struct Matching {
    limits: Limits,
    table: Table,
    disks: Vec<Disk>,
    told: Told,
    counts: Counts,
    /// The time of the last event or pass.
    now: GuestTicks,
    /// The end of the last pass.
    passed: GuestTicks,
    began: Option<GuestTicks>,
    /// What is not later than this may be incomplete: events were lost until then.
    blind_until: Option<GuestTicks>,
    /// Losses that have not begun yet, the last one first.
    gaps: Vec<Dropped>,
    early: VecDeque<BlockTrace>,
    /// Writes that may have been others of some of their sectors with a flush, whose end is yet to come then.
    unclear_ends: VecDeque<Open>,
    pieces: Vec<Place>,
}

impl Matching {
    /// Of which nothing is known yet.
    #[must_use]
    pub fn new(limits: Limits) -> Matching {
        let disk = || Disk {
            flushes: Flushes::unseen(GuestTicks(0), 0),
            completed_count: 0,
            longest_sectors: 0,
            in_flight_count: 0,
        };
        Matching {
            limits,
            table: Table::default(),
            disks: (0..OBSERVED_DEVICES_MAX).map(|_| disk()).collect(),
            told: Told::new(limits.slower_than_ticks),
            counts: Counts::default(),
            now: GuestTicks(0),
            passed: GuestTicks(0),
            began: None,
            blind_until: None,
            gaps: Vec::new(),
            early: VecDeque::new(),
            unclear_ends: VecDeque::new(),
            pieces: Vec::new(),
        }
    }

    /// A disk was found that has so many hardware queues; what it did before was not seen. Of one that is
    /// not known to have one only, it is less often certain which flush served whom.
    pub fn set_hardware_queues(&mut self, device: u16, hardware_queues: u16) {
        if let Some(disk) = self.disks.get_mut(usize::from(device)) {
            disk.flushes.hardware_queues = hardware_queues;
            disk.flushes.miss(self.now);
        }
    }

    /// From `now` on events are recorded; if this is not said, from the first one on. What was under way
    /// then may be so yet.
    pub fn begin(&mut self, now: GuestTicks) {
        if self.began.is_none() {
            self.began = Some(now);
            let unseen_until = self.blind_until.unwrap_or(now);
            self.disks.iter_mut().for_each(|disk| disk.flushes.miss(unseen_until));
        }
    }

    /// The next event. One of a disk beyond [`OBSERVED_DEVICES_MAX`] is none of ours.
    pub fn take(&mut self, event: &BlockTrace) {
        if usize::from(event.device) >= self.disks.len() {
            return;
        }
        self.begin_gaps(event.time);
        if self.blind_until.is_some_and(|until| event.time <= until) {
            return;
        }
        if event.time < self.now {
            self.late(event);
            return;
        }
        self.now = event.time;
        self.begin(event.time);
        match (event.kind, event.rwbs.operation) {
            (BlockTraceKind::Queue | BlockTraceKind::Remap { .. }, _) => self.queue(event),
            (BlockTraceKind::Refused, _) => self.refuse(event),
            (BlockTraceKind::Issue, BlockOperation::Flush) => {
                self.disk(event.device).flushes.issue(event.time, event.vcpu);
            }
            (BlockTraceKind::Issue, _) => self.issue(event),
            (BlockTraceKind::Requeue, BlockOperation::Flush) => {
                self.disk(event.device).flushes.requeue(event.time, event.vcpu);
            }
            (BlockTraceKind::Requeue, _) => self.requeue(event),
            (BlockTraceKind::Complete { .. }, BlockOperation::Flush) => {
                self.doubt_batches(event.device, None);
                let flushes = &mut self.disk(event.device).flushes;
                if let Some(mut before) = flushes.complete(event.time, event.vcpu) {
                    self.end_batch(&mut before);
                }
            }
            (BlockTraceKind::Complete { result }, BlockOperation::Write) if event.sectors == 0 => {
                self.end_of_sequence(event, result);
            }
            (BlockTraceKind::Complete { result }, _) => self.complete(event, result),
        }
    }

    /// Events were lost, or will be: events before its beginning may still be given, later ones not yet.
    pub fn lose(&mut self, lost: Dropped) {
        if lost.first <= self.now || self.gaps.len() == GAPS_MAX {
            self.gap(lost);
        } else {
            self.gaps.push(lost);
            self.gaps.sort_by_key(|lost| std::cmp::Reverse(lost.first));
        }
    }

    /// Begins the gaps that begin by `time`.
    fn begin_gaps(&mut self, time: GuestTicks) {
        while self.gaps.last().is_some_and(|lost| lost.first <= time) {
            let lost = self.gaps.pop();
            lost.into_iter().for_each(|lost| self.gap(lost));
        }
    }

    /// All that is open may have had some of the events that were lost.
    fn gap(&mut self, lost: Dropped) {
        let first = self.table.oldest().map_or(lost.first, |open| open.queued.min(lost.first));
        self.end_batches();
        while let Some(place) = self.table.oldest_place() {
            self.table.remove(place);
        }
        let blind_until = self.blind_until.map_or(lost.last, |until| until.max(lost.last));
        for disk in &mut self.disks {
            disk.flushes = disk.flushes.unseen_again(blind_until);
            disk.in_flight_count = 0;
        }
        self.early.clear();
        self.unclear_ends.clear();
        self.blind_until = Some(blind_until);
        self.told.lose(Dropped { count: lost.count, first, last: lost.last });
    }

    /// All events up to `until` were given: what can be told by now is in the lists.
    pub fn pass(&mut self, until: GuestTicks) {
        self.begin_gaps(until);
        self.end_batches();
        self.now = self.now.max(until);
        self.passed = self.passed.max(until);
        let devices = 0..u16::try_from(self.disks.len()).unwrap_or(u16::MAX);
        devices.for_each(|device| self.lose_missed_flushes(device));
        while self.table.oldest().is_some_and(|oldest| self.is_stale(oldest)) {
            self.lose_oldest();
        }
        self.told.requests.sort_by_key(|request| request.completed);
    }

    /// The requests that were completed since this was last asked, in order of completion.
    pub fn take_requests(&mut self) -> Vec<ObservedRequest> {
        std::mem::take(&mut self.told.requests)
    }

    /// What was lost since this was last asked: of events, and of requests that could not be told.
    pub fn take_lost(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.told.lost)
    }

    /// Those faster than asked for, from the beginning.
    #[must_use]
    pub fn others(&self) -> &[ObservedOthers] {
        self.told.others()
    }

    /// Every request that was queued before this was told, or is lost.
    #[must_use]
    pub fn settled(&self) -> GuestTicks {
        self.table.oldest().map_or(self.passed, |open| open.queued.min(self.passed))
    }

    /// See [`Counts`].
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many bios and requests are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.table.len()
    }

    fn disk(&mut self, device: u16) -> &mut Disk {
        &mut self.disks[usize::from(device)]
    }

    fn is_stale(&self, open: &Open) -> bool {
        let disk = &self.disks[usize::from(open.device)];
        let age_ticks = self.now.0.saturating_sub(open.queued.0);
        age_ticks > self.limits.stale_ticks && disk.completed_count - open.born >= OVERTAKEN_MIN
    }

    fn add(&mut self, stage: Stage, open: Open) {
        while self.table.len() >= self.limits.open_max {
            self.lose_oldest();
        }
        self.table.add(stage, open);
    }

    fn lose_oldest(&mut self) {
        let Some(place) = self.table.oldest_place() else { return };
        let open = self.remove(place);
        self.lose_one(&open);
    }

    fn lose_one(&mut self, open: &Open) {
        self.miss_flush(open);
        self.told.lose(Dropped { count: 1, first: open.queued, last: self.now });
    }

    /// The driver gave a request back: it waits again, and others may be merged into it.
    fn requeue(&mut self, event: &BlockTrace) {
        let Some(place) = self.in_flight(event) else { return };
        let open = self.remove(place);
        let nature = match open.nature {
            // It comes back like one of which no bio was seen.
            Nature::Ghost if !open.flags.contains(ObservedFlags::AMBIGUOUS) => {
                return self.end_ghost(&open);
            }
            Nature::Ghost => Nature::Ghost,
            _ => Nature::Plain,
        };
        let mut open = Open { flags: open.flags.with(ObservedFlags::REQUEUED), nature, ..open };
        self.mark_alike(&mut open);
        self.table.put_back(Stage::Waiting, open);
    }

    /// The request in flight that an event speaks of, which is no shorter: of several the one that is as
    /// long, and of those the first.
    fn in_flight(&self, event: &BlockTrace) -> Option<Place> {
        let all = self.table.beginning_at(Stage::InFlight, event.device, event.sector);
        let sectors = u64::from(event.sectors);
        let alike = all.filter(|(_, open)| {
            open.operation == event.rwbs.operation && open.end - open.start >= sectors
        });
        let is_other_length = |open: &Open| open.end - open.start != sectors;
        alike.min_by_key(|(_, open)| is_other_length(open)).map(|(place, _)| place)
    }

    fn remove(&mut self, place: Place) -> Open {
        let open = self.table.remove(place);
        if place.stage() == Stage::InFlight {
            self.disk(open.device).in_flight_count -= 1;
        }
        open
    }

    /// Sectors of a request are done, or the whole of one that has none.
    fn complete(&mut self, event: &BlockTrace, result: i32) {
        let Some(place) = self.in_flight(event) else {
            self.complete_unknown(event, result);
            return;
        };
        if self.table.get(place).flags.contains(ObservedFlags::AMBIGUOUS) {
            self.give_up_unclear(event, place);
        }
        let mut open = self.remove(place);
        if open.result == 0 {
            open.result = result;
        }
        if let Some(unissued) = self.unissued(event).filter(|_| result != 0) {
            // Either has failed.
            self.table.mark(unissued, ObservedFlags::AMBIGUOUS);
            open.flags = open.flags.with(ObservedFlags::AMBIGUOUS);
        }
        let done_to = event.sector.saturating_add(event.sectors.into());
        if done_to < open.end {
            open.start = done_to;
            self.disk(event.device).in_flight_count += 1;
            self.table.put_back(Stage::InFlight, open);
            return;
        }
        self.disk(event.device).completed_count += 1;
        match open.nature {
            Nature::Ghost => self.end_ghost(&open),
            Nature::Sequenced => self.finish(open),
            Nature::Plain | Nature::Remapped => {
                self.may_end_later(&open);
                self.told.request(&open, event.time, event.vcpu);
            }
        }
    }

    /// Makes ghosts of `place` and all like it, if it is not even likely which of them is completed: one that
    /// was not seen whole may be over, and a zone append is completed at another sector than it was issued.
    fn give_up_unclear(&mut self, event: &BlockTrace, place: Place) {
        let in_flight = self.table.beginning_at(Stage::InFlight, event.device, event.sector);
        let is_same = |other: &Open| is_alike(other, self.table.get(place));
        let same: Vec<Place> =
            in_flight.filter(|(_, other)| is_same(other)).map(|(place, _)| place).collect();
        let is_unclear = |place: &Place| {
            let open = self.table.get(*place);
            open.nature == Nature::Ghost || open.operation == BlockOperation::Other
        };
        if same.len() > 1 && same.iter().any(is_unclear) {
            same.into_iter().for_each(|place| self.table.give_up(place));
        }
    }

    /// Nothing that was issued is completed: a write whose flush before it has failed, or what was
    /// under way when observing began.
    fn complete_unknown(&mut self, event: &BlockTrace, result: i32) {
        if event.rwbs.operation == BlockOperation::Other && event.sectors == 0 {
            return;
        }
        if let Some(place) = self.unissued(event).filter(|_| result != 0) {
            let mut open = Open { result, ..self.table.remove(place) };
            open.issued = event.time;
            open.vcpu_issued = event.vcpu;
            if open.end - open.start != u64::from(event.sectors) {
                // It fails whole, and what was taken for a part of it was another's.
                open.flags = open.flags.with(ObservedFlags::AMBIGUOUS);
            }
            self.fail_with_flush(&mut open, event);
            self.told.request(&open, event.time, event.vcpu);
            return;
        }
        if event.rwbs.operation == BlockOperation::Write {
            self.disk(event.device).flushes.touch(event.time);
        }
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back(*event);
    }

    /// A write that wants a flush before it, and fails unissued if that fails.
    fn unissued(&self, event: &BlockTrace) -> Option<Place> {
        let is_its = |open: &Open| {
            open.operation == event.rwbs.operation && open.flags.contains(ObservedFlags::PREFLUSH)
        };
        self.table.first_at(Stage::Waiting, event.device, event.sector, is_its)
    }

    /// A request that was not seen whole is over.
    fn end_ghost(&mut self, open: &Open) {
        let began = self.began.unwrap_or(open.issued);
        let since_ticks = open.issued.0.saturating_sub(began.0);
        let is_old = self.blind_until.is_none() && since_ticks <= self.limits.stale_ticks;
        if is_old && !open.flags.contains(ObservedFlags::AMBIGUOUS) {
            self.miss_flush(open);
            self.counts.under_way += 1;
        } else {
            self.lose_one(open);
        }
    }

    /// An event before others that were handled already. What it would have changed is lost.
    fn late(&mut self, event: &BlockTrace) {
        self.counts.late += 1;
        let (device, end) = (event.device, event.sector.saturating_add(event.sectors.into()));
        let is_flush = event.sectors == 0;
        let mut gone = Vec::new();
        for stage in [Stage::Waiting, Stage::InFlight, Stage::Finishing] {
            let before =
                self.table.beginning_before(stage, device, end.max(event.sector.saturating_add(1)));
            let touched = before
                .take(OVERLAP_MAX)
                .filter(|(_, open)| open.end > event.sector || open.start == event.sector);
            gone.extend(touched.map(|(place, _)| place));
        }
        if is_flush {
            let flushes = self.table.of_device(Stage::Flush, device);
            gone.extend(flushes.map(|(place, _)| place));
            let now = self.now;
            self.disk(device).flushes = self.disk(device).flushes.unseen_again(now);
        }
        for place in gone {
            let open = self.remove(place);
            self.lose_one(&open);
        }
        self.told.lose(Dropped { count: 1, first: event.time, last: self.now });
    }
}

/// Whether both do the same to the same sectors.
fn is_alike(left: &Open, right: &Open) -> bool {
    (left.operation, left.start, left.end) == (right.operation, right.start, right.end)
}

#[cfg(test)]
mod drawing;
#[cfg(test)]
mod flush_tests;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod remap_tests;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
