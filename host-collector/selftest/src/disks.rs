//! How often a vCPU thread sleeps on the big lock on each kind of disk, counted twice at the same
//! time: by vslice, and from the kernel's own tracepoints in an instance of tracefs.

use super::SelftestError;
use super::injected_machine::{InjectedMachine, Recorded};
use super::setting::Setting;
use super::witness::Witness;
use crate::rig::frontend::Frontend;
use crate::rig::machine::READER;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use vslice_core::timeline::Reason;
use vslice_core::units::HostNs;
use vslice_report::compare::statistics::{Interval, RESAMPLES_COUNT, mean, mean_interval};

/// One kind of disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The share of the vCPU's pCPU that neither the guest nor the self-test had meanwhile.
    pub taken_share: f64,
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

    /// Sleeps on the big lock in 1,000 reads, by vslice; `None` without a read.
    fn rate(&self) -> Option<f64> {
        (self.reads_count > 0).then(|| self.recorded_count as f64 * 1e3 / self.reads_count as f64)
    }
}

impl Setting<'_> {
    /// Counts on one kind of disk.
    ///
    /// # Errors
    /// [`SelftestError`].
    pub fn count(&self, frontend: Frontend) -> Result<DiskCount, SelftestError> {
        let mut injected = InjectedMachine::start(self, READER, frontend)?;
        let witness = Witness::start(&injected.run.tids())?;
        let before = injected.machine.counter()?;
        let Recorded { observed, window, taken_share, .. } =
            injected.watch(self, || self.wait())?;
        let after = injected.machine.counter()?;
        let testimony = witness.finish()?;
        let (pid, vcpu) = (injected.machine.pid(), injected.machine.vcpu());
        let found_address = injected.run.bql();
        let shared_address = testimony.most_shared_mutex(pid, vcpu);
        let is_inside = |time: HostNs| time >= window.start && time <= window.end;
        let timeline = injected.run.timeline(observed.stacks())?;
        let departures = observed.departures(vcpu, timeline);
        let departures: Vec<_> = departures.iter().filter(|it| is_inside(it.time)).collect();
        // Where nobody else waited for it, the witness does not know the lock by what it is for.
        let address = shared_address.or(found_address);
        let witnessed = testimony.sleeps.iter().filter(|sleep| {
            sleep.tid == vcpu && is_inside(sleep.time) && Some(sleep.address) == address
        });
        // Who was woken before it could sleep is still runnable, and no sleep to the witness.
        let recorded =
            departures.iter().filter(|it| it.reason == Reason::Bql && !it.state.is_runnable());
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
            taken_share,
        })
    }
}

/// The counts as a table with a row for each disk; several counts on one disk are added up, and have an
/// interval.
#[must_use]
pub fn render_disks(counts: &[DiskCount]) -> String {
    let mut page = String::from(
        "Sleeps of the vCPU thread on QEMU's big lock while its guest reads\n\x20 disk                 \
                     by vslice  by tracefs   departures       reads per 1,000 reads",
    );
    let rows = rows(counts);
    let is_repeated = rows.iter().any(|row| row.len() > 1);
    page.push_str(if is_repeated { "            [95 %]\n" } else { "\n" });
    for row in rows {
        let sum = |of: fn(&DiskCount) -> u64| row.iter().map(|count| of(count)).sum::<u64>();
        let rates: Vec<f64> = row.iter().filter_map(|count| count.rate()).collect();
        let rate = mean(&rates).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
        let written = write!(
            page,
            "  {:<32}{:>11}{:>12}{:>13}{:>12}{rate:>15}",
            row[0].name,
            sum(|count| count.recorded_count),
            sum(|count| count.witnessed_count),
            sum(|count| count.departures_count),
            sum(|count| count.reads_count),
        );
        debug_assert!(written.is_ok());
        if let Some(Interval { low, high }) = mean_interval(&rates, RESAMPLES_COUNT) {
            page.push_str(&format!("{:>18}", format!("[{low:.1}, {high:.1}]")));
        }
        page.push_str(if row.iter().all(|count| count.agrees()) { "\n" } else { "  DIFFERS\n" });
    }
    page
}

/// The counts of each disk, in the order in which the disks were first counted.
fn rows(counts: &[DiskCount]) -> Vec<Vec<&DiskCount>> {
    let mut rows: Vec<Vec<&DiskCount>> = Vec::new();
    for count in counts {
        match rows.iter_mut().find(|row| row[0].name == count.name) {
            Some(row) => row.push(count),
            None => rows.push(vec![count]),
        }
    }
    rows
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
            taken_share: 0.0,
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

    #[test]
    fn several_counts_of_a_disk_are_one_row_with_an_interval() {
        let mut other = counts(7, 7);
        other.name = "nvme, TCG".to_owned();
        let page = render_disks(&[counts(1, 1), other.clone(), other, counts(3, 3)]);
        let rows: Vec<&str> = page.lines().skip(2).collect();
        assert!(page.contains("[95 %]") && rows.len() == 2, "{page}");
        // 100 and 300 of 1,000 reads: 200 between them.
        assert!(rows[0].starts_with("  ide, TCG ") && rows[0].contains(" 200.0 "), "{page}");
        assert!(rows[0].ends_with("[100.0, 300.0]"), "{page}");
        assert!(rows[1].ends_with("[700.0, 700.0]"), "{page}");
        let once = render_disks(&[counts(1, 1)]);
        assert!(once.contains(" 100.0\n") && !once.contains("[95 %]"), "{once}");
    }
}
