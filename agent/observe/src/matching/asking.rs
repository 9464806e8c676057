//! What somebody asks for.

use super::flushing::wants_flush;
use super::table::{Nature, Open, Place, Stage};
use super::{ALIKE_MAX, EARLY_TICKS, Matching, OVERLAP_MAX, UNKNOWN_TASK, is_alike};
use crate::event::{BlockTrace, BlockTraceKind};
use vslice_wire::{BlockOperation, ObservedFlags};

impl Matching {
    /// Somebody asked for it.
    pub(super) fn queue(&mut self, event: &BlockTrace) {
        let (stage, mut open) = self.bio(event);
        let is_flush = stage == Stage::Flush;
        if is_flush || wants_flush(open.flags) {
            self.ask_for_flush(event);
        }
        if let Some(place) = self.before_remap(stage, event, &open) {
            let before = self.table.remove(place);
            (open.queued, open.vcpu_queued) = (before.queued, before.vcpu_queued);
            (open.born, open.flushed) = (before.born, before.flushed);
            // If it is refused, whoever queues it here is told.
            if before.thread != open.thread {
                open.task = before.task;
            }
        } else if !is_flush && self.is_early(event) {
            return;
        }
        if is_flush {
            self.disk(event.device).flushes.end_at(open.origin);
            return self.add(Stage::Flush, open);
        }
        self.mark_alike(&mut open);
        self.add(Stage::Waiting, open);
    }

    /// Where the same bio is that was sent on until here: from a partition to its disk, to that from a disk of
    /// the device mapper, or to be queued here. That may be done by another, once its control group may.
    fn before_remap(&self, stage: Stage, event: &BlockTrace, open: &Open) -> Option<Place> {
        let is_queued = event.kind == BlockTraceKind::Queue;
        let from = match event.kind {
            BlockTraceKind::Remap { from } => from?,
            _ => event.sector,
        };
        let start = if stage == Stage::Flush { 0 } else { from };
        let length = open.end - open.start;
        let waiting = self.table.beginning_at(stage, event.device, start);
        let its = waiting.filter(|(_, other)| {
            other.nature == Nature::Remapped
                && other.operation == open.operation
                && other.end - other.start == length
                && other.origin == from
                && (is_queued || other.thread == open.thread)
        });
        its.min_by_key(|(_, other)| other.thread != open.thread).map(|(place, _)| place)
    }

    /// What an event says of a bio, and where it is kept.
    fn bio(&self, event: &BlockTrace) -> (Stage, Open) {
        let is_flush = event.sectors == 0
            && (event.rwbs.operation == BlockOperation::Flush
                || event.rwbs.flags.contains(ObservedFlags::PREFLUSH));
        if is_flush {
            let operation = BlockOperation::Flush;
            // One that the device mapper sends on has the sector where its target begins.
            let open = Open { operation, origin: event.sector, ..self.asked(event, 0, 0) };
            return (Stage::Flush, open);
        }
        let end = event.sector.saturating_add(event.sectors.into());
        (Stage::Waiting, self.asked(event, event.sector, end))
    }

    /// Marks `open`, and what waits and does the same to some of its sectors: they may be merged, and
    /// split, so that either may be a part of a request that only the other is a part of.
    pub(super) fn mark_alike(&mut self, open: &mut Open) {
        let before = |sector| self.table.beginning_before(Stage::Waiting, open.device, sector);
        let within = before(open.end).take_while(|(_, other)| other.start >= open.start);
        let alike = within
            .take(OVERLAP_MAX)
            .chain(before(open.start).take(ALIKE_MAX))
            .filter(|(_, other)| other.operation == open.operation && other.end > open.start);
        let alike: Vec<Place> = alike.map(|(place, _)| place).collect();
        for place in alike {
            self.table.mark(place, ObservedFlags::AMBIGUOUS);
            open.flags = open.flags.with(ObservedFlags::AMBIGUOUS);
        }
    }

    pub(super) fn asked(&self, event: &BlockTrace, start: u64, end: u64) -> Open {
        let is_remapped = matches!(event.kind, BlockTraceKind::Remap { .. });
        Open {
            device: event.device,
            operation: event.rwbs.operation,
            flags: event.rwbs.flags,
            origin: start,
            start,
            end,
            queued: event.time,
            vcpu_queued: event.vcpu,
            task: event.task,
            thread: event.thread,
            issued: event.time,
            vcpu_issued: event.vcpu,
            result: 0,
            nature: if is_remapped { Nature::Remapped } else { Nature::Plain },
            born: self.disks[usize::from(event.device)].completed_count,
            flushed: self.disks[usize::from(event.device)].flushes.done_count,
            id: 0,
        }
    }

    /// Whether the request of this bio seems to have been issued just before it was asked for.
    pub(super) fn is_early(&self, event: &BlockTrace) -> bool {
        let mut in_flight = self.table.beginning_at(Stage::InFlight, event.device, event.sector);
        in_flight.any(|(_, open)| {
            open.operation == event.rwbs.operation
                && open.task == UNKNOWN_TASK
                && event.time.0 - open.issued.0 < EARLY_TICKS
        })
    }

    /// It will not be issued, of which the thread that queued it is told at once. What the driver has
    /// failed is over by now, and whoever had the vCPU then is told of that.
    pub(super) fn refuse(&mut self, event: &BlockTrace) {
        let (stage, open) = self.bio(event);
        let waiting = self.table.beginning_at(stage, event.device, open.start);
        let its = waiting.filter(|(_, other)| {
            is_alike(other, &open) && (other.origin, other.thread) == (open.origin, open.thread)
        });
        if let Some(place) = its.last().map(|(place, _)| place) {
            self.table.remove(place);
        }
    }
}
