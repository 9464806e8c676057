//! What a run's hogs say of its clocks.

mod absences;
mod checker;
mod gaps;
mod stays;

use self::absences::Absences;
use self::checker::HogChecker;
use self::gaps::Gaps;
use super::clocks::GuestClocks;
use super::{AnalyseError, Analysis, optional};
use std::collections::{BTreeSet, HashMap};
use vslice_core::clock::RoundTrips;
use vslice_core::units::{Tid, VcpuId};
use vslice_spec::workload::HOG_GAP_US;
use vslice_trace::manifest::VmRecord;
use vslice_trace::{EventMerge, HogGapItem, StreamReader, VmName};

impl Analysis<'_> {
    /// What the hogs say of the clocks of their vCPUs: whether they are right, and how much better they
    /// can be known.
    pub(super) fn read_hogs(
        &self,
        vm: &VmRecord,
        name: &VmName,
        trips: &RoundTrips,
        clocks: &mut GuestClocks,
    ) -> Result<(), AnalyseError> {
        // Runs of a vslice before this check have none.
        let stream = StreamReader::<HogGapItem>::open(&self.run.hog_gaps_path(name));
        let Some(mut stream) = optional(stream.map(Some))? else { return Ok(()) };
        let mut told_by = BTreeSet::new();
        while let Some(block) = stream.next_block()? {
            told_by.extend(block.iter().map(|gap| gap.vcpu));
        }
        let mut hogs: HashMap<Tid, (usize, VcpuId, HogChecker)> = HashMap::new();
        for (place, row) in clocks.rows.iter().enumerate() {
            let vcpu = row.vcpu;
            let thread = vm.threads.iter().find(|thread| thread.vcpu == Some(vcpu));
            let (Some(thread), Some(map)) = (thread, clocks.clocks.get(vcpu)) else { continue };
            if told_by.contains(&vcpu) {
                let gaps = Gaps::new(gaps::told_by(self.run, name, vcpu)?, map.clone());
                let hog = HogChecker::new(gaps, u64::from(HOG_GAP_US) * 1_000);
                hogs.insert(thread.tid, (place, vcpu, hog));
            }
        }
        if hogs.is_empty() {
            return Ok(());
        }
        let mut absences = Absences::of(hogs.keys().copied());
        for event in EventMerge::open(self.run)? {
            if let Some((tid, absence)) = absences.push(&event?)
                && let Some((_, _, hog)) = hogs.get_mut(&tid)
            {
                hog.push(absence);
            }
        }
        for (place, vcpu, hog) in hogs.into_values() {
            clocks.rows[place].hog_check = hog.check;
            clocks.narrow(place, vcpu, trips, &hog.stays.exchanges);
        }
        Ok(())
    }
}
