//! What the driver gets.

use super::cover::{Covered, cover};
use super::table::{Nature, Open, Place, Stage};
use super::{EARLY_TICKS, MARKS, Matching, OVERLAP_MAX, UNKNOWN_TASK};
use crate::event::BlockTrace;
use vslice_wire::{BlockOperation, ObservedFlags};

impl Matching {
    /// The driver got a request.
    pub(super) fn issue(&mut self, event: &BlockTrace) {
        let mut pieces = std::mem::take(&mut self.pieces);
        let covered = cover(&self.table, event, &mut pieces);
        if event.rwbs.operation == BlockOperation::Discard && covered != Covered::Whole {
            self.mark_discards(event.device);
        }
        let is_passthrough = event.rwbs.operation == BlockOperation::Other && event.sectors == 0;
        if covered == Covered::Nothing && is_passthrough {
            self.counts.passthrough += 1;
        } else {
            let end = event.sector.saturating_add(event.sectors.into());
            let mut request = match covered {
                Covered::Nothing => self.unseen(event, end),
                Covered::Whole | Covered::Part => self.assemble(event, end, &pieces),
            };
            if covered == Covered::Part {
                request.nature = Nature::Ghost;
            }
            self.fly(event, request);
        }
        self.pieces = pieces;
    }

    /// Of a discard some bios were not seen, so that any other that waits may be one of its ranges.
    fn mark_discards(&mut self, device: u16) {
        let waiting = self.table.of_device(Stage::Waiting, device);
        let discards = waiting.filter(|(_, open)| open.operation == BlockOperation::Discard);
        let discards: Vec<Place> = discards.map(|(place, _)| place).collect();
        discards.into_iter().for_each(|place| self.table.mark(place, ObservedFlags::AMBIGUOUS));
    }

    /// A request of which no bio was seen. A write that somebody waits for may have flushes before and
    /// after it, of which only the bio would say, so that nothing is known of its end.
    pub(super) fn unseen(&self, event: &BlockTrace, end: u64) -> Open {
        let flags = event.rwbs.flags;
        let may_be_sequenced =
            event.rwbs.operation == BlockOperation::Write && flags.contains(ObservedFlags::SYNC);
        Open {
            task: UNKNOWN_TASK,
            thread: 0,
            flags: flags.with(ObservedFlags::NO_QUEUE_TIME),
            nature: if may_be_sequenced { Nature::Ghost } else { Nature::Plain },
            ..self.asked(event, event.sector, end)
        }
    }

    /// Takes the bios of a request, and leaves what of them is another's.
    pub(super) fn assemble(&mut self, event: &BlockTrace, end: u64, pieces: &[Place]) -> Open {
        let mut request: Option<Open> = None;
        let mut from = event.sector;
        let is_ghost = |place: &Place| self.table.get(*place).nature == Nature::Ghost;
        let has_ghost = pieces.iter().any(is_ghost);
        for place in pieces {
            let mut piece = self.table.remove(*place);
            // Of several ranges none but the first begins where the request does.
            if event.rwbs.operation == BlockOperation::Discard && pieces.len() > 1 {
                let is_first = piece.start == event.sector;
                piece.origin = if is_first { piece.origin } else { event.sector };
            } else {
                // What the piece before has as well is left of this one.
                self.leave(&piece, from, end);
                piece.origin = if piece.start < from { from } else { piece.origin };
                from = piece.end;
            }
            let kept = MARKS.into_iter().filter(|mark| piece.flags.contains(*mark));
            let marks = kept.fold(ObservedFlags::default(), ObservedFlags::with);
            request = Some(match request {
                None => piece,
                Some(before) => {
                    let first = if piece.queued < before.queued { piece } else { before };
                    let flags = before.flags.with(marks).with(ObservedFlags::MERGED);
                    let origin = before.origin.min(piece.origin);
                    Open { flags, origin, ..first }
                }
            });
        }
        let piece = request.unwrap_or_else(|| self.unseen(event, end));
        let is_data = event.sectors > 0;
        let wants_flush = piece.flags.contains(ObservedFlags::PREFLUSH)
            || (piece.flags.contains(ObservedFlags::FUA)
                && !event.rwbs.flags.contains(ObservedFlags::FUA));
        let is_sequenced = is_data && wants_flush;
        let mut request = Open {
            flags: piece.flags.with(event.rwbs.flags),
            origin: piece.origin.min(event.sector),
            start: event.sector,
            end,
            issued: event.time,
            vcpu_issued: event.vcpu,
            nature: match is_sequenced {
                _ if has_ghost => Nature::Ghost,
                true => Nature::Sequenced,
                false => Nature::Plain,
            },
            ..piece
        };
        if piece.flags.contains(ObservedFlags::NO_QUEUE_TIME) {
            request.task = UNKNOWN_TASK;
            request.queued = request.issued;
            request.vcpu_queued = request.vcpu_issued;
        }
        if is_sequenced && piece.flags.contains(ObservedFlags::PREFLUSH) {
            if piece.flags.contains(ObservedFlags::REQUEUED) {
                request.issued = piece.issued;
                request.vcpu_issued = piece.vcpu_issued;
            } else {
                self.after_flush(&mut request, event);
            }
        }
        request
    }

    /// What of a bio is before and after the request.
    pub(super) fn leave(&mut self, piece: &Open, start: u64, end: u64) {
        if piece.start < start {
            self.table.put_back(Stage::Waiting, Open { end: start, ..*piece });
        }
        if piece.end > end {
            self.table.add(Stage::Waiting, Open { origin: end, start: end, ..*piece });
        }
    }

    /// Puts a request among those in flight.
    pub(super) fn fly(&mut self, event: &BlockTrace, mut request: Open) {
        let disk = self.disk(event.device);
        if disk.in_flight_count == 0 {
            disk.longest_sectors = 0;
        }
        disk.longest_sectors = disk.longest_sectors.max(request.end - request.start);
        let reach = request.start.saturating_sub(disk.longest_sectors);
        let in_flight =
            self.table.beginning_before(Stage::InFlight, event.device, request.end.max(1));
        let overlapping = in_flight
            .take(OVERLAP_MAX)
            .take_while(|(_, other)| other.start >= reach)
            .filter(|(_, other)| other.end > request.start);
        let overlapping: Vec<(Place, ObservedFlags)> = overlapping
            .map(|(place, other)| {
                // Where one is completed in parts, the rest of it may be as the other is.
                let is_same = other.operation == request.operation;
                let also = if is_same { ObservedFlags::AMBIGUOUS } else { ObservedFlags(0) };
                (place, ObservedFlags::OVERLAPPED.with(also))
            })
            .collect();
        for (place, marks) in overlapping {
            request.flags = request.flags.with(marks);
            self.table.mark(place, marks);
        }
        if self.seemed_complete(event) {
            self.lose_one(&request);
            return;
        }
        self.disk(event.device).in_flight_count += 1;
        self.add(Stage::InFlight, request);
    }

    /// Whether a completion of this request seems to have been just before its issue.
    pub(super) fn seemed_complete(&mut self, event: &BlockTrace) -> bool {
        while self.early.front().is_some_and(|of| event.time.0 - of.time.0 > EARLY_TICKS) {
            self.early.pop_front();
        }
        let is_its = |of: &BlockTrace| {
            (of.device, of.sector, of.rwbs.operation)
                == (event.device, event.sector, event.rwbs.operation)
        };
        let place = self.early.iter().position(is_its);
        place.is_some_and(|place| self.early.remove(place).is_some())
    }
}
