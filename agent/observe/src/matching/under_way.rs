//! What is open when nothing more is observed.

use super::Matching;
use super::table::{Open, Stage};
use super::told::{bytes_of, sector_of};
use vslice_wire::{
    BlockOperation, GuestTicks, OBSERVED_DEVICES_MAX, OBSERVED_UNDER_WAY_MAX, ObservedFlags,
    ObservedIssue, ObservedUnderWay,
};

impl Matching {
    /// What was queued by `at` and is neither told nor lost yet, by disk, operation, and whether somebody waits;
    /// of each the one that was queued first.
    #[must_use]
    pub fn under_way(&self, at: GuestTicks) -> Vec<ObservedUnderWay> {
        let mut rows: Vec<ObservedUnderWay> = Vec::new();
        for (stage, open) in self.table.by_age().take_while(|(_, open)| open.queued <= at) {
            let key = (open.device, open.operation, open.operation.is_sync(open.flags));
            match rows.iter_mut().find(|row| (row.device, row.operation, row.is_sync) == key) {
                Some(row) => row.count += 1,
                None => rows.push(first_of(stage, open)),
            }
        }
        rows
    }
}

fn first_of(stage: Stage, open: &Open) -> ObservedUnderWay {
    // The data of a write wait for the flush before it, of which the driver may have the queue's.
    let waits_for_flush = open.flags.contains(ObservedFlags::PREFLUSH)
        && !open.flags.contains(ObservedFlags::REQUEUED);
    ObservedUnderWay {
        device: open.device,
        operation: open.operation,
        is_sync: open.operation.is_sync(open.flags),
        count: 1,
        sector: sector_of(open),
        bytes: bytes_of(open),
        task: open.task,
        queued: open.queued,
        issue: match stage {
            Stage::Flush => ObservedIssue::Unknown,
            Stage::Waiting if waits_for_flush => ObservedIssue::Unknown,
            Stage::Waiting => ObservedIssue::NotYet,
            Stage::InFlight | Stage::Finishing => ObservedIssue::At(open.issued),
        },
    }
}

// `Matching` keeps no more disks than these.
const _: () =
    assert!(OBSERVED_DEVICES_MAX * BlockOperation::ALL.len() * 2 <= OBSERVED_UNDER_WAY_MAX);
