//! How flushes end, and writes that have flushes before or after their data.

use super::flush::{Batch, FLUSHES_MAX, QueueFlush};
use super::table::{Nature, Open, Place, Stage};
use super::{EARLY_MAX, Ended, Matching, OVERLAP_MAX};
use crate::event::BlockTrace;
use vslice_wire::{BlockOperation, ObservedFlags};

const AMBIGUOUS: ObservedFlags = ObservedFlags::AMBIGUOUS;

impl Matching {
    /// Before somebody asks for a flush, or for a write with one: if nothing of this kind was under way
    /// for a while, none is that was not seen to be asked for.
    pub(super) fn ask_for_flush(&mut self, event: &BlockTrace) {
        let limits = self.limits;
        let is_quiet = self.disk(event.device).flushes.is_quiet(event.time, &limits);
        let is_none_open = self.table.oldest_flush(event.device).is_none();
        if is_quiet && is_none_open && !self.has_flushed_write(event.device) {
            self.disk(event.device).flushes.all_are_seen();
        }
        self.disk(event.device).flushes.touch(event.time);
    }

    /// Whether a write is open that has a flush before or after it, or may have one.
    fn has_flushed_write(&self, device: u16) -> bool {
        let any = |stage, is_one: fn(&Open) -> bool| {
            self.table.of_device(stage, device).any(|(_, open)| is_one(open))
        };
        let has_flush = |open: &Open| wants_flush(open.flags);
        any(Stage::Finishing, |_| true)
            || any(Stage::Waiting, has_flush)
            || any(Stage::InFlight, |open| matches!(open.nature, Nature::Sequenced | Nature::Ghost))
    }

    /// Loses the flushes that were missed: so many of the queue have completed since, or none goes on.
    pub(super) fn lose_missed_flushes(&mut self, device: u16) {
        let flushes = &self.disks[usize::from(device)].flushes;
        let done_count = flushes.done_count;
        let Some(oldest) = self.table.oldest_flush(device) else { return };
        let is_over = flushes.is_still(self.now, flushes.driver_ticks(&self.limits))
            && !flushes.are_all_seen()
            && !self.has_flushed_write(device);
        let is_missed =
            |open: &Open| is_over || done_count.saturating_sub(open.flushed) >= FLUSHES_MAX;
        let mut next = Some(oldest);
        while let Some(place) = next.filter(|place| is_missed(self.table.get(*place))) {
            let open = self.table.remove(place);
            self.lose_one(&open);
            next = self.table.oldest_flush(device);
        }
    }

    /// `open` is over and nothing will be known of it: if a flush is after it, or if it is one itself, its
    /// end is another's.
    pub(super) fn miss_flush(&mut self, open: &Open) {
        let now = self.now;
        let flushes = &mut self.disk(open.device).flushes;
        match open.operation {
            // An end of the sequence of a write there looks like that of a flush.
            BlockOperation::Write | BlockOperation::Flush if flushes.may_end_at(open.origin) => {
                flushes.miss(now);
            }
            BlockOperation::Write => flushes.touch(now),
            _ => {}
        }
    }

    /// The data of a write are done, and what is left is the end of its sequence, which tells it from
    /// others only by its sector.
    pub(super) fn finish(&mut self, mut open: Open) {
        let same = self.table.first_at(Stage::Finishing, open.device, open.start, |_| true);
        if let Some(place) = same {
            self.table.mark(place, AMBIGUOUS);
        }
        if same.is_some() || self.unclear_ends.iter().any(|other| share_sectors(other, &open)) {
            open.flags = open.flags.with(AMBIGUOUS);
        }
        let now = self.now;
        self.disk(open.device).flushes.touch(now);
        self.table.put_back(Stage::Finishing, open);
    }

    /// What is told of this write may be another's that has a flush after it.
    pub(super) fn may_end_later(&mut self, open: &Open) {
        let is_unclear = open.flags.contains(AMBIGUOUS) && open.flags.contains(ObservedFlags::SYNC);
        if open.operation == BlockOperation::Write && is_unclear {
            self.miss_flush(open);
            let finishing = self.table.of_device(Stage::Finishing, open.device).take(OVERLAP_MAX);
            let others = finishing.filter(|(_, other)| share_sectors(other, open));
            let others: Vec<Place> = others.map(|(place, _)| place).collect();
            others.into_iter().for_each(|place| self.table.mark(place, AMBIGUOUS));
            if self.unclear_ends.len() == EARLY_MAX {
                self.unclear_ends.pop_front();
            }
            self.unclear_ends.push_back(*open);
        }
    }

    /// A flush is over, or a write for which a flush came before or after.
    pub(super) fn end_of_sequence(&mut self, event: &BlockTrace, result: i32) {
        self.disk(event.device).flushes.end(event.time);
        let finishing = self.table.first_at(Stage::Finishing, event.device, event.sector, |_| true);
        if let Some(place) = finishing {
            let mut open = self.table.remove(place);
            if open.result == 0 {
                open.result = result;
            }
            let are_all_seen = self.disk(event.device).flushes.are_all_seen();
            let may_be_flush = self.disk(event.device).flushes.may_end_at(event.sector);
            if may_be_flush && (self.mark_flushes(event) || !are_all_seen) {
                open.flags = open.flags.with(AMBIGUOUS);
            }
            self.told.request(&open, event.time, event.vcpu);
            return;
        }
        if !self.disk(event.device).flushes.may_end_at(event.sector) {
            let is_its = |open: &Open| (open.device, open.start) == (event.device, event.sector);
            self.unclear_ends.retain(|open| !is_its(open));
            return;
        }
        let flush = self.disk(event.device).flushes.batch(event.vcpu).map(|batch| batch.flush);
        match flush {
            Some(Some(flush)) => self.end_flush(event, result, flush),
            // It ends what was under way when observing began.
            Some(None) => {}
            None => self.end_flush_alone(event, result),
        }
    }

    /// Marks the flushes that are open and end here, of which any may be what was just taken for another's
    /// end.
    pub(super) fn mark_flushes(&mut self, event: &BlockTrace) -> bool {
        let open = self.table.flushes_at(event.device, event.sector);
        let open: Vec<Place> = open.map(|(place, _)| place).collect();
        for place in &open {
            self.table.mark(*place, AMBIGUOUS);
        }
        !open.is_empty()
    }

    /// A flush is over that the last flush of the queue on this vCPU has ended: of those that were asked
    /// for before that was issued, the first on its vCPU, or the first, as they are in its list.
    pub(super) fn end_flush(&mut self, event: &BlockTrace, result: i32, flush: QueueFlush) {
        self.doubt_batches(event.device, Some(event.vcpu));
        let open = self.table.flushes_at(event.device, event.sector);
        let mut served = open.take_while(|(_, open)| open.queued <= flush.latest.0);
        let first = served.next();
        let is_own = |open: &Open| open.vcpu_queued == flush.vcpu_issued;
        let own = first.filter(|(_, open)| is_own(open)).or_else(|| {
            // More are not looked at than a flush of many threads has.
            served.take(OVERLAP_MAX).find(|(_, open)| is_own(open))
        });
        let disk = &self.disks[usize::from(event.device)];
        let are_all_seen = disk.flushes.are_all_seen();
        let chosen = if disk.flushes.hardware_queues == 1 { first } else { own.or(first) };
        let Some(place) = chosen.map(|(place, _)| place) else {
            // It is one that was not seen, or not one of this flush of the queue.
            if are_all_seen {
                self.end_flush_alone(event, result);
            }
            return;
        };
        let is_after = self.table.get(place).queued > flush.issued;
        let own = (flush.issued, flush.vcpu_issued);
        let (issued, vcpu_issued) = if is_after { flush.latest } else { own };
        let mut open = Open { result, issued, vcpu_issued, ..self.table.remove(place) };
        if !are_all_seen {
            open.flags = open.flags.with(AMBIGUOUS);
        }
        if let Some(batch) = self.disk(event.device).flushes.batch(event.vcpu) {
            batch.ended.push(Ended { open, completed: event.time, vcpu_completed: event.vcpu });
        }
    }

    /// A flush is over without one of the queue on this vCPU: the disk has no write cache any more, or another vCPU had the last reference (linux: `flush_end_io`).
    pub(super) fn end_flush_alone(&mut self, event: &BlockTrace, result: i32) {
        self.mark_flushes(event);
        let oldest = self.table.flushes_at(event.device, event.sector).next();
        let Some(place) = oldest.map(|(place, _)| place) else {
            self.disk(event.device).flushes.miss(event.time);
            return;
        };
        let mut open = Open { result, issued: event.time, ..self.table.remove(place) };
        open.vcpu_issued = event.vcpu;
        self.after_flush(&mut open, event);
        self.told.request(&open, event.time, event.vcpu);
    }

    /// What one ends may go on in the next pass.
    pub(super) fn end_batches(&mut self) {
        for index in 0..self.disks.len() {
            let mut batches = self.disks[index].flushes.take_batches();
            for batch in &mut batches {
                self.end_batch(batch);
            }
            self.disks[index].flushes.put_back(batches);
        }
    }

    /// Tells what a flush of the queue has ended.
    pub(super) fn end_batch(&mut self, batch: &mut Batch) {
        self.doubt(batch);
        // They end in the order in which they were asked for.
        let mut opens: Vec<Open> = batch.ended.iter().map(|ended| ended.open).collect();
        opens.sort_by_key(|open| open.id);
        for (mut open, ended) in opens.into_iter().zip(&batch.ended) {
            open.result = ended.open.result;
            if batch.is_doubtful || batch.flush.is_some_and(|flush| flush.is_mixed) {
                open.flags = open.flags.with(AMBIGUOUS);
            }
            self.told.request(&open, ended.completed, ended.vcpu_completed);
        }
        batch.ended.clear();
    }

    /// Before another flush of the queue ends flushes, on whichever vCPU but this one: they would not be
    /// seen to be open any more.
    pub(super) fn doubt_batches(&mut self, device: u16, but_on: Option<u16>) {
        let mut batches = self.disk(device).flushes.take_batches();
        let others = batches.iter_mut().filter(|batch| Some(batch.vcpu) != but_on);
        others.for_each(|batch| self.doubt(batch));
        self.disk(device).flushes.put_back(batches);
    }

    /// If flushes that were asked for before the last one of the queue was issued are still open, any of
    /// them may have ended instead of one that has.
    pub(super) fn doubt(&mut self, batch: &mut Batch) {
        let (Some(flush), Some(ended)) = (batch.flush, batch.ended.first()) else { return };
        let open = self.table.of_device(Stage::Flush, ended.open.device);
        let is_like = |open: &Open| batch.ended.iter().any(|of| of.open.origin == open.origin);
        let may_have_ended = open
            .take_while(|(_, open)| open.queued <= flush.latest.0)
            .filter(|(_, open)| is_like(open));
        let left: Vec<Place> = may_have_ended.map(|(place, _)| place).collect();
        batch.is_doubtful |= !left.is_empty();
        left.iter().for_each(|place| self.table.mark(*place, AMBIGUOUS));
    }

    /// A write with a flush before it was handed over with that: to wait for it is no time in the
    /// guest's queue.
    pub(super) fn after_flush(&mut self, open: &mut Open, event: &BlockTrace) {
        let flushes = &self.disk(open.device).flushes;
        let flush = flushes.before_data(open.queued, event.time, event.vcpu);
        if let Some((flush, _)) = flush {
            open.issued = flush.issued;
            open.vcpu_issued = flush.vcpu_issued;
        }
        if !flush.is_some_and(|(_, is_certain)| is_certain) {
            open.flags = open.flags.with(AMBIGUOUS);
        }
    }

    /// A write has failed with the flush before it, which is the last of the queue on this vCPU.
    pub(super) fn fail_with_flush(&mut self, open: &mut Open, event: &BlockTrace) {
        let flushes = &mut self.disk(open.device).flushes;
        flushes.end(event.time);
        let are_all_seen = flushes.are_all_seen();
        let flush = flushes.batch(event.vcpu).and_then(|batch| batch.flush);
        let certain = flush.filter(|flush| are_all_seen && !flush.is_mixed);
        match certain.filter(|flush| flush.issued >= open.queued) {
            Some(flush) => (open.issued, open.vcpu_issued) = (flush.issued, flush.vcpu_issued),
            None => {
                self.after_flush(open, event);
                open.flags = open.flags.with(AMBIGUOUS);
            }
        }
    }
}

/// Whether both have some sector, done or not.
fn share_sectors(left: &Open, right: &Open) -> bool {
    left.device == right.device && left.origin < right.end && right.origin < left.end
}

/// Whether it is a write that has a flush before it, or after it unless the disk does without.
pub(super) fn wants_flush(flags: ObservedFlags) -> bool {
    flags.contains(ObservedFlags::PREFLUSH) || flags.contains(ObservedFlags::FUA)
}
