//! What comes out of the matching.

use super::table::Open;
use vslice_wire::{
    BlockOperation, Dropped, GuestTicks, OBSERVED_DEVICES_MAX, ObservedOthers, ObservedRequest,
};

/// Losses that are kept apart in one pass; those beyond are one with the last.
pub(super) const LOST_MAX: usize = 64;

/// What is to be sent.
#[derive(Debug)]
pub(super) struct Told {
    slower_than_ticks: u64,
    pub(super) requests: Vec<ObservedRequest>,
    others: Vec<ObservedOthers>,
    pub(super) lost: Vec<Dropped>,
}

impl Told {
    pub(super) fn new(slower_than_ticks: u64) -> Told {
        Told { slower_than_ticks, requests: Vec::new(), others: Vec::new(), lost: Vec::new() }
    }

    /// `open` was done at `completed`, on this vCPU.
    pub(super) fn request(&mut self, open: &Open, completed: GuestTicks, vcpu_completed: u16) {
        let request = ObservedRequest {
            device: open.device,
            operation: open.operation,
            flags: open.flags,
            sector: sector_of(open),
            bytes: bytes_of(open),
            queued: open.queued,
            issued: open.issued,
            completed,
            vcpu_queued: open.vcpu_queued,
            vcpu_issued: open.vcpu_issued,
            vcpu_completed,
            task: open.task,
            result: open.result,
        };
        let ticks = completed.0.saturating_sub(request.queued.0);
        if ticks >= self.slower_than_ticks {
            self.requests.push(request);
        } else {
            self.count(&request, ticks);
        }
    }

    fn count(&mut self, request: &ObservedRequest, ticks: u64) {
        let (device, operation, is_sync) = (request.device, request.operation, request.is_sync());
        let is_same = |others: &&mut ObservedOthers| {
            (others.device, others.operation, others.is_sync) == (device, operation, is_sync)
        };
        let bytes = u64::from(request.bytes);
        match self.others.iter_mut().find(is_same) {
            Some(others) => {
                others.count += 1;
                others.bytes = others.bytes.saturating_add(bytes);
                others.total_ticks = others.total_ticks.saturating_add(ticks);
            }
            // The caller bounds the disks, so that there are 320 of these at most.
            None => self.others.push(ObservedOthers {
                device,
                operation,
                is_sync,
                count: 1,
                bytes,
                total_ticks: ticks,
            }),
        }
    }

    pub(super) fn others(&self) -> &[ObservedOthers] {
        &self.others
    }

    pub(super) fn lose(&mut self, lost: Dropped) {
        let is_full = self.lost.len() >= LOST_MAX;
        match self.lost.last_mut() {
            Some(last) if is_full || touch(last, &lost) => {
                last.count = last.count.saturating_add(lost.count);
                last.first = last.first.min(lost.first);
                last.last = last.last.max(lost.last);
            }
            _ => self.lost.push(lost),
        }
    }
}

/// The first of its sectors; a flush has none.
pub(super) fn sector_of(open: &Open) -> u64 {
    if open.operation == BlockOperation::Flush { 0 } else { open.origin }
}

/// The length of all of it, done or not.
pub(super) fn bytes_of(open: &Open) -> u32 {
    let bytes = open.end.saturating_sub(open.origin).saturating_mul(512);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn touch(left: &Dropped, right: &Dropped) -> bool {
    left.first <= right.last && right.first <= left.last
}

const _: () = assert!(
    OBSERVED_DEVICES_MAX * BlockOperation::ALL.len() * 2 <= vslice_wire::OBSERVED_OTHERS_MAX
);
