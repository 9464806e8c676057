//! Waits for locks, added up by who let go and for which device.

use super::model::{LOCK_WAITS_MAX, LockWaits};
use super::names::{Directory, VmIndex};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use vslice_core::timeline::{DeviceAddress, LockWait, Reason};
use vslice_core::units::{Tid, VcpuId};

/// Waits that are told apart at most; beyond that the device is left out, and there are no more
/// than threads.
const KINDS_MAX: usize = 4096;

/// What waits have in common that are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    vm: VmIndex,
    vcpu: VcpuId,
    reason: Reason,
    released_by: Tid,
    device: Option<DeviceAddress>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Total {
    count: u64,
    total_ns: u64,
    max_ns: u64,
    held_count: u64,
    held_ns: u64,
}

/// The waits of all vCPUs.
#[derive(Debug, Default)]
pub(super) struct LockTally {
    totals: BTreeMap<Kind, Total>,
}

impl LockTally {
    pub(super) fn add(&mut self, vm: VmIndex, vcpu: VcpuId, wait: &LockWait) {
        let (reason, released_by) = (wait.reason, wait.released_by);
        let mut kind = Kind { vm, vcpu, reason, released_by, device: wait.device };
        if self.totals.len() >= KINDS_MAX && !self.totals.contains_key(&kind) {
            kind.device = None;
        }
        let total = self.totals.entry(kind).or_default();
        let length_ns = wait.end.since_ns(wait.start);
        total.count += 1;
        total.total_ns = total.total_ns.saturating_add(length_ns);
        total.max_ns = total.max_ns.max(length_ns);
        if let Some(held_ns) = wait.held_ns {
            total.held_count += 1;
            total.held_ns = total.held_ns.saturating_add(held_ns);
        }
    }

    /// The rows of the summary. Addresses of one device are one row.
    pub(super) fn rows(&self, directory: &Directory<'_>) -> Vec<LockWaits> {
        let mut rows: Vec<LockWaits> = Vec::new();
        for (kind, total) in &self.totals {
            let row = row(kind, total, directory);
            let is_same = |known: &&mut LockWaits| {
                (&known.vm, known.vcpu, known.reason, known.released_by.tid, &known.device)
                    == (&row.vm, row.vcpu, row.reason, row.released_by.tid, &row.device)
            };
            match rows.iter_mut().find(is_same) {
                Some(known) => merge(known, &row),
                None => rows.push(row),
            }
        }
        rows.sort_by_key(|row| Reverse(row.total_ns));
        rows.truncate(LOCK_WAITS_MAX);
        rows
    }
}

fn row(kind: &Kind, total: &Total, directory: &Directory<'_>) -> LockWaits {
    LockWaits {
        vm: directory.vm_name(kind.vm),
        vcpu: kind.vcpu,
        reason: kind.reason,
        released_by: directory.thread(kind.released_by, kind.vm),
        device: kind.device.map(|at| directory.device(kind.vm, at)),
        count: total.count,
        total_ns: total.total_ns,
        max_ns: total.max_ns,
        held_count: total.held_count,
        held_ns: total.held_ns,
    }
}

fn merge(known: &mut LockWaits, more: &LockWaits) {
    known.count += more.count;
    known.total_ns = known.total_ns.saturating_add(more.total_ns);
    known.max_ns = known.max_ns.max(more.max_ns);
    known.held_count += more.held_count;
    known.held_ns = known.held_ns.saturating_add(more.held_ns);
}
