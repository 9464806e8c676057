//! What a run's hogs say of its clocks.

use super::absences::Absences;
use super::clocks::GuestClocks;
use super::gaps::{self, Gaps};
use super::hog_word::HogWord;
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
        let mut words: HashMap<Tid, (usize, VcpuId, HogWord)> = HashMap::new();
        for (place, row) in clocks.rows.iter().enumerate() {
            let vcpu = row.vcpu;
            let thread = vm.threads.iter().find(|thread| thread.vcpu == Some(vcpu));
            let (Some(thread), Some(map)) = (thread, clocks.clocks.get(vcpu)) else { continue };
            if told_by.contains(&vcpu) {
                let gaps = Gaps::new(gaps::told_by(self.run, name, vcpu)?, map.clone());
                let word = HogWord::new(gaps, u64::from(HOG_GAP_US) * 1_000);
                words.insert(thread.tid, (place, vcpu, word));
            }
        }
        if words.is_empty() {
            return Ok(());
        }
        let mut absences = Absences::of(words.keys().copied());
        for event in EventMerge::open(self.run)? {
            if let Some((tid, absence)) = absences.push(&event?)
                && let Some((_, _, word)) = words.get_mut(&tid)
            {
                word.push(absence);
            }
        }
        for (place, vcpu, word) in words.into_values() {
            clocks.rows[place].hog_check = word.check;
            clocks.narrow(place, vcpu, trips, &word.stays.exchanges);
        }
        Ok(())
    }
}
