//! How often a vCPU thread sleeps on the big lock on each kind of disk, counted twice at the same
//! time: by vslice, and from the kernel's own tracepoints in an instance of tracefs.

use super::SelftestError;
use super::machine::Stage;
use super::witness::Witness;
use crate::rig::frontend::Frontend;
use crate::rig::machine::READER;
use crate::timeline::Reason;
use crate::units::{HostNs, Tid};
use serde::Serialize;
use std::fmt::Write;

/// One kind of disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskCount {
    /// The disk and what ran the guest: `ide, KVM`.
    pub name: String,
    /// Sleeps on the big lock by vslice.
    pub recorded_count: u64,
    /// The same by the witness.
    pub witnessed_count: u64,
    /// How often the vCPU thread left its pCPU, whatever for.
    pub departures_count: u64,
    /// Time in the window of which vslice does not know what the thread did, because records were
    /// lost.
    pub lost_ns: u64,
    /// Reads that the guest finished in the window.
    pub reads_count: u64,
    /// What the witness could not keep.
    pub witness_lost_count: u64,
    /// The lock that vslice found in QEMU's code.
    pub found_address: Option<u64>,
    /// The lock that the main loop and the vCPU thread both waited for most, by the witness.
    pub shared_address: Option<u64>,
}

/// The share by which the two counts may differ.
pub const DIFFERENCE_MAX: f64 = 0.05;

/// Sleeps by which they may differ whatever the share: those at the edges of the window.
const EDGES_COUNT: u64 = 2;

impl DiskCount {
    /// Whether the two counts are the same, but for what [`DIFFERENCE_MAX`] allows.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let difference = self.recorded_count.abs_diff(self.witnessed_count);
        difference <= EDGES_COUNT
            || difference as f64 <= DIFFERENCE_MAX * self.witnessed_count as f64
    }
}

impl Stage<'_> {
    /// Counts on one kind of disk.
    ///
    /// # Errors
    /// [`SelftestError`].
    pub fn count(&self, frontend: Frontend) -> Result<DiskCount, SelftestError> {
        let mut subject = self.start(READER, frontend)?;
        let tids: Vec<Tid> = subject.watched.iter().map(|watched| watched.tid).collect();
        let witness = Witness::start(&tids)?;
        let before = subject.machine.counter()?;
        let (observed, window) = self.watch(&subject, || self.wait())?;
        let after = subject.machine.counter()?;
        let testimony = witness.finish()?;
        let (pid, vcpu) = (subject.machine.pid(), subject.machine.vcpu());
        let found_address = subject.facts.bql;
        let shared_address = testimony.most_shared_mutex(pid, vcpu);
        let is_inside = |time: HostNs| time >= window.start && time <= window.end;
        let departures =
            observed.departures(vcpu, &subject.watched, subject.facts, self.config.slice_ns);
        let departures: Vec<_> = departures.iter().filter(|it| is_inside(it.time)).collect();
        // Where nobody else waited for it, the witness does not know the lock by what it is for.
        let address = shared_address.or(found_address);
        let witnessed = testimony.sleeps.iter().filter(|sleep| {
            sleep.tid == vcpu && is_inside(sleep.time) && Some(sleep.address) == address
        });
        // Who was woken before it could sleep is still runnable, and no sleep to the witness.
        let recorded =
            departures.iter().filter(|it| it.said == Reason::Bql && !it.state.is_runnable());
        Ok(DiskCount {
            name: self.named(frontend.name()),
            recorded_count: recorded.count() as u64,
            witnessed_count: witnessed.count() as u64,
            departures_count: departures.len() as u64,
            lost_ns: observed.lost_ns(window.start, window.end),
            reads_count: after.wrapping_sub(before).into(),
            witness_lost_count: testimony.lost_count,
            found_address,
            shared_address,
        })
    }
}

/// The counts as a table.
#[must_use]
pub fn render_disks(counts: &[DiskCount]) -> String {
    let mut page = String::from(
        "Sleeps of the vCPU thread on QEMU's big lock while its guest reads\n\
         \x20 disk                              by vslice  by tracefs   departures       reads\n",
    );
    for count in counts {
        let mark = if count.agrees() { "" } else { "  DIFFERS" };
        let written = writeln!(
            page,
            "  {:<32}{:>11}{:>12}{:>13}{:>12}{mark}",
            count.name,
            count.recorded_count,
            count.witnessed_count,
            count.departures_count,
            count.reads_count
        );
        debug_assert!(written.is_ok());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(recorded_count: u64, witnessed_count: u64) -> DiskCount {
        DiskCount {
            name: "ide, TCG".to_owned(),
            recorded_count,
            witnessed_count,
            departures_count: 10,
            lost_ns: 0,
            reads_count: 10,
            witness_lost_count: 0,
            found_address: None,
            shared_address: None,
        }
    }

    #[test]
    fn counts_agree_within_five_percent_or_two() {
        for (recorded, witnessed, agrees) in
            [(0, 0, true), (2, 0, true), (3, 0, false), (105, 100, true), (94, 100, false)]
        {
            let counts = counts(recorded, witnessed);
            assert_eq!(counts.agrees(), agrees, "{recorded} of {witnessed}");
            assert_eq!(render_disks(&[counts]).contains("DIFFERS"), !agrees);
        }
    }
}
