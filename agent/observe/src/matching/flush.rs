//! The flushes of one disk, as linux's block/blk-flush.c makes them.
//!
//! A flush that somebody asks for is never issued. It waits, with all others and with the writes that
//! want one before or after their data, for a request of the queue itself, whose letters are `FF`. When
//! that completes, `flush_end_io` ends on the same vCPU, with interrupts off, each flush that waited for
//! it. Each hardware queue has one such request, and only one of each is under way at a time.
//!
//! No end of a flush says whose it is. It is that of one who asked before the last flush of a queue was
//! issued, of whatever queue. So once as many have ended as are open of these, each of them has; if
//! fewer have, each may be the one.
//!
//! That holds as long as all that are under way were seen to be asked for. After a loss one may not have
//! been: its end is taken for another's, whose end is taken for a third's, and so on. No count rules that
//! out, as each may have been asked for just before a flush of the queue was issued that was not for it.
//! Time does: what is under way waits for a flush of a queue, or for a write of a sequence, that is with
//! the driver or goes there soon. If neither is to be seen for a while, nothing is under way.

use super::Limits;
use std::collections::VecDeque;
use vslice_wire::GuestTicks;

/// Flushes of the queue that are remembered once they are done.
const DONE_MAX: usize = 16;

/// Flushes of the queue in flight that are known of at once, of a disk whose hardware queues are not: a
/// hardware queue has one.
const IN_FLIGHT_MAX: usize = 1024;

/// Sectors at which flushes end that are known of at once: a logical volume has one on each disk that it is on.
const SECTORS_MAX: usize = 256;

/// vCPUs of which is remembered what they flushed last.
const BATCHES_MAX: usize = 1024;

/// What one disk's queue flushes before a flush that is open yet was missed: with all its hardware
/// queues it needs fewer for all that wait.
pub(super) const FLUSHES_MAX: u64 = 256;

/// How many times as long as the longest that was seen of its disk a flush may take that was not.
const LONGEST_FACTOR: u64 = 2;

/// A flush of the queue may be issued although data of a sequence are under way once others have waited
/// for it for 5 seconds (linux: `FLUSH_PENDING_TIMEOUT`, counted in jiffies).
const PENDING_TICKS: u64 = 4_000_000_000;

/// A flush of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueFlush {
    pub(super) issued: GuestTicks,
    pub(super) vcpu_issued: u16,
    /// When, and by which vCPU, the last was issued that it may be taken for.
    pub(super) latest: (GuestTicks, u16),
    /// Another was under way meanwhile, so that it may be taken for that.
    pub(super) is_mixed: bool,
    /// Something ended with it, so that the next may have been issued before all that it served went on.
    has_ended: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flushes {
    in_flight: Vec<QueueFlush>,
    /// What has completed, or may have.
    done: VecDeque<QueueFlush>,
    /// What completed last on each vCPU, with what it has ended so far; `None` if its beginning was
    /// not seen.
    batches: Vec<Batch>,
    /// How many flushes of the queue have completed.
    pub(super) done_count: u64,
    /// How many hardware queues the disk has; 0 if that is not known.
    pub(super) hardware_queues: u16,
    /// Until when flushes may have been asked for that are not open here, if any may be under way yet,
    /// and `done_count` then.
    unseen: Option<(GuestTicks, u64)>,
    /// When a flush, or a write with one, was last seen to go on.
    touched: GuestTicks,
    /// When the last flush of the queue was issued.
    last_issued: GuestTicks,
    /// How long the driver had one of the queue at least, of those that were seen whole: the longest of them.
    longest_ticks: u64,
    /// Events were lost, and not only those before observing began.
    has_lost: bool,
    /// Where flushes were seen to be asked for, beside sector 0: they end there.
    sectors: Vec<u64>,
}

/// What one flush of the queue has ended.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) vcpu: u16,
    pub(super) flush: Option<QueueFlush>,
    pub(super) ended: Vec<super::Ended>,
    /// Not all have ended that may have: whom it served is not certain.
    pub(super) is_doubtful: bool,
}

impl Flushes {
    /// Of a disk of which nothing was seen up to `until`.
    pub(super) fn unseen(until: GuestTicks, hardware_queues: u16) -> Flushes {
        Flushes {
            hardware_queues,
            in_flight: Vec::new(),
            done: VecDeque::new(),
            batches: Vec::new(),
            done_count: 0,
            unseen: Some((until, 0)),
            touched: until,
            last_issued: GuestTicks(0),
            longest_ticks: 0,
            has_lost: until > GuestTicks(0),
            sectors: Vec::new(),
        }
    }

    /// The same disk's, of which nothing was seen up to `until`.
    pub(super) fn unseen_again(&mut self, until: GuestTicks) -> Flushes {
        let sectors = std::mem::take(&mut self.sectors);
        let longest_ticks = self.longest_ticks;
        Flushes { sectors, longest_ticks, ..Flushes::unseen(until, self.hardware_queues) }
    }

    /// From now on one may be under way that is not open here.
    pub(super) fn miss(&mut self, now: GuestTicks) {
        self.unseen = Some((now, self.done_count));
        self.touch(now);
    }

    /// Whether all flushes under way are open here.
    pub(super) fn are_all_seen(&self) -> bool {
        self.unseen.is_none()
    }

    /// A flush was asked for that ends at this sector: where a target of the device mapper begins, that sent
    /// it on; else at 0.
    pub(super) fn end_at(&mut self, sector: u64) {
        if !self.may_end_at(sector) && self.sectors.len() < SECTORS_MAX {
            self.sectors.push(sector);
        }
    }

    /// Whether a flush may end at this sector.
    pub(super) fn may_end_at(&self, sector: u64) -> bool {
        sector == 0 || self.sectors.contains(&sector)
    }

    /// Something of a flush or of a write with one happened.
    pub(super) fn touch(&mut self, now: GuestTicks) {
        self.touched = self.touched.max(now);
    }

    /// Whether one that was not seen to be asked for would have been seen to go on meanwhile, if none is open.
    pub(super) fn is_quiet(&self, now: GuestTicks, limits: &Limits) -> bool {
        let driver_ticks = self.driver_ticks(limits);
        let is_over = |(until, _): (GuestTicks, u64)| now.0 >= until.0.saturating_add(driver_ticks);
        // Of several queues the end of one that was not seen may have been taken for that of the last.
        let is_last_over = !self.has_lost
            || self.last_issued == GuestTicks(0)
            || self.hardware_queues == 1
            || is_over((self.last_issued, 0));
        is_last_over && self.unseen.is_some_and(is_over) && self.is_still(now, limits.quiet_ticks)
    }

    /// So long a flush may be with the driver: what was seen of this disk's says how long at least.
    pub(super) fn driver_ticks(&self, limits: &Limits) -> u64 {
        limits.driver_ticks.max(self.longest_ticks.saturating_mul(LONGEST_FACTOR))
    }

    /// Whether nothing of a flush was seen for so long, and none of the queue is with the driver.
    pub(super) fn is_still(&self, now: GuestTicks, for_ticks: u64) -> bool {
        self.in_flight.is_empty() && now.0.saturating_sub(self.touched.0) >= for_ticks
    }

    /// None that was not seen to be asked for is under way.
    pub(super) fn all_are_seen(&mut self) {
        self.unseen = None;
    }

    pub(super) fn issue(&mut self, issued: GuestTicks, vcpu_issued: u16) {
        self.touch(issued);
        self.last_issued = issued;
        let most = match usize::from(self.hardware_queues) {
            0 => IN_FLIGHT_MAX,
            queues => queues.min(IN_FLIGHT_MAX),
        };
        if self.in_flight.len() >= most {
            // The end of one was missed, and what ended with it.
            let missed = self.in_flight.remove(0);
            self.remember(QueueFlush { has_ended: true, ..missed });
            self.miss(issued);
        }
        let latest = (issued, vcpu_issued);
        let is_mixed = !self.in_flight.is_empty();
        for flush in &mut self.in_flight {
            flush.is_mixed = true;
            flush.latest = latest;
        }
        let has_ended = false;
        self.in_flight.push(QueueFlush { issued, vcpu_issued, latest, is_mixed, has_ended });
    }

    /// The driver gave one back.
    pub(super) fn requeue(&mut self, now: GuestTicks, vcpu: u16) {
        self.touch(now);
        if let Some(place) = self.on(vcpu) {
            let flush = self.in_flight.remove(place);
            // Another may have been given back instead, and this one be done.
            if flush.is_mixed {
                self.remember(flush);
            }
        }
    }

    fn remember(&mut self, flush: QueueFlush) {
        if self.done.len() == DONE_MAX {
            self.done.pop_front();
        }
        self.done.push_back(flush);
    }

    /// One is done. What it ends follows; what the one before it on this vCPU has ended is returned.
    pub(super) fn complete(&mut self, now: GuestTicks, vcpu: u16) -> Option<Batch> {
        self.touch(now);
        self.done_count += 1;
        if self.unseen.is_some_and(|(_, count)| self.done_count - count >= FLUSHES_MAX) {
            self.unseen = None;
        }
        let flush = self.on(vcpu).map(|place| self.in_flight.remove(place));
        match flush {
            Some(flush) => {
                let ticks = now.0.saturating_sub(flush.latest.0.0);
                self.longest_ticks = self.longest_ticks.max(ticks);
                self.remember(flush);
            }
            None if self.are_all_seen() => self.miss(now),
            None => {}
        }
        let batch = Batch { vcpu, flush, ended: Vec::new(), is_doubtful: false };
        match self.batches.iter_mut().find(|batch| batch.vcpu == vcpu) {
            Some(before) => Some(std::mem::replace(before, batch)),
            None => {
                if self.batches.len() == BATCHES_MAX {
                    self.batches.remove(0);
                }
                self.batches.push(batch);
                None
            }
        }
    }

    /// The one in flight that a vCPU most likely speaks of: vCPUs have their own queues.
    fn on(&self, vcpu: u16) -> Option<usize> {
        let own = self.in_flight.iter().position(|flush| flush.vcpu_issued == vcpu);
        own.or(if self.in_flight.is_empty() { None } else { Some(0) })
    }

    /// What is being ended on this vCPU.
    pub(super) fn batch(&mut self, vcpu: u16) -> Option<&mut Batch> {
        self.batches.iter_mut().find(|batch| batch.vcpu == vcpu)
    }

    /// All that is being ended.
    pub(super) fn take_batches(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.batches)
    }

    /// What was taken.
    pub(super) fn put_back(&mut self, batches: Vec<Batch>) {
        self.batches = batches;
    }

    /// A flush has ended, or a write with one.
    pub(super) fn end(&mut self, now: GuestTicks) {
        self.touch(now);
        if let Some(flush) = self.done.back_mut() {
            flush.has_ended = true;
        }
    }

    /// The flush of the queue after which the data of a write that wants one before were issued, on this
    /// vCPU, and whether it is certain.
    ///
    /// If only one was issued since the write was asked for, it is that. One hardware queue issues no
    /// other until the data are done, so that it is its last one; but when something ends with a flush,
    /// the next one is issued before the data of what is behind that in the list are heeded.
    pub(super) fn before_data(
        &self,
        queued: GuestTicks,
        now: GuestTicks,
        vcpu: u16,
    ) -> Option<(QueueFlush, bool)> {
        // Of two under way at once either may have completed.
        let mixed = self.in_flight.iter().filter(|flush| flush.is_mixed);
        let all = self.done.iter().rev().chain(mixed).filter(|flush| flush.issued >= queued);
        let candidates: Vec<&QueueFlush> = all.collect();
        let last = **candidates.first()?;
        let is_forgotten = self.done.len() == DONE_MAX
            && self.done.front().is_some_and(|flush| flush.issued >= queued);
        let has_one_queue = self.hardware_queues == 1;
        if candidates.len() == 1 && !is_forgotten {
            // One that was not seen to be issued may have been taken for it.
            return Some((last, !last.is_mixed && (has_one_queue || self.are_all_seen())));
        }
        if has_one_queue {
            let is_late = now.0.saturating_sub(queued.0) >= PENDING_TICKS;
            let before = candidates.get(1);
            return Some((last, !is_late && before.is_some_and(|flush| !flush.has_ended)));
        }
        let own = candidates.iter().find(|flush| flush.vcpu_issued == vcpu);
        Some((own.map_or(last, |own| **own), false))
    }
}

#[cfg(test)]
impl Flushes {
    /// How much is kept, and how much may be.
    pub(super) fn lengths(&self) -> [(&'static str, usize, usize); 4] {
        [
            ("in flight", self.in_flight.len(), IN_FLIGHT_MAX),
            ("done", self.done.len(), DONE_MAX),
            ("batches", self.batches.len(), BATCHES_MAX),
            ("sectors", self.sectors.len(), SECTORS_MAX),
        ]
    }
}
