//! What a run's hogs say of its clocks.

use super::absences::Absences;
use super::clocks::GuestClocks;
use super::hog_word::{HogTold, hog_check};
use super::stays::stays;
use super::{AnalyseError, Analysis, optional};
use crate::lab::plan::HOG_GAP_US;
use crate::run::manifest::VmRecord;
use crate::store::{ClockSample, EventMerge, HogGapItem, VmName, read_all};
use crate::units::{Tid, VcpuId};

impl Analysis<'_> {
    /// What the hogs say of the clocks of their vCPUs: whether they are right, and how much better they
    /// can be known.
    pub(super) fn read_hogs(
        &self,
        vm: &VmRecord,
        name: &VmName,
        samples: &[ClockSample],
        clocks: &mut GuestClocks,
    ) -> Result<(), AnalyseError> {
        // Runs of a vslice before this check have none.
        let read = read_all::<HogGapItem>(&self.run.hog_gaps_path(name)).map(|(gaps, _)| gaps);
        let gaps = optional(read)?;
        let tid_of = |vcpu| {
            let thread = vm.threads.iter().find(|thread| thread.vcpu == Some(vcpu));
            thread.map(|thread| thread.tid).filter(|_| gaps.iter().any(|gap| gap.vcpu == vcpu))
        };
        let hogs: Vec<(usize, VcpuId, Tid)> = (0..)
            .zip(&clocks.rows)
            .filter_map(|(place, row)| Some((place, row.vcpu, tid_of(row.vcpu)?)))
            .collect();
        let mut absences = Absences::of(hogs.iter().map(|(_, _, tid)| *tid));
        if !hogs.is_empty() {
            for event in EventMerge::open(self.run)? {
                absences.push(&event?);
            }
        }
        for (place, vcpu, tid) in hogs {
            let own: Vec<HogGapItem> =
                gaps.iter().filter(|gap| gap.vcpu == vcpu).copied().collect();
            let told = HogTold { gaps: &own, threshold_ns: u64::from(HOG_GAP_US) * 1_000 };
            let Some(map) = clocks.clocks.get(vcpu) else { continue };
            let absences = absences.take(tid);
            let (check, stays) = (hog_check(map, &told, &absences), stays(map, &told, &absences));
            clocks.rows[place].hog_check = check;
            clocks.narrow(place, vcpu, samples, &stays);
        }
        Ok(())
    }
}
