//! Observed requests that came within a second.

use super::LatencyTally;
use super::second::{ObservedOperation, ObservedSecond};
use std::collections::BTreeMap;
use vslice_trace::observation::operation_name;
use vslice_wire::BlockOperation;

/// Those of each VM, until they are taken.
#[derive(Debug)]
pub struct ObservedTally(Vec<Option<BTreeMap<&'static str, LatencyTally>>>);

impl ObservedTally {
    /// Of so many VMs, whose guests are observed or are not.
    #[must_use]
    pub fn new(vms_count: usize, is_observed: bool) -> ObservedTally {
        ObservedTally((0..vms_count).map(|_| is_observed.then(BTreeMap::new)).collect())
    }

    /// Adds latencies in nanoseconds of the VM at this place.
    pub fn add(&mut self, vm: usize, latencies: &[(BlockOperation, u64)]) {
        let Some(Some(tally)) = self.0.get_mut(vm) else { return };
        for (operation, ns) in latencies {
            tally.entry(operation_name(*operation)).or_default().add(*ns);
        }
    }

    /// What has come since this was last asked.
    pub fn take(&mut self) -> Vec<Option<ObservedSecond>> {
        let second = |tally: &mut Option<BTreeMap<&'static str, LatencyTally>>| {
            let operations = std::mem::take(tally.as_mut()?).into_iter();
            let operations = operations
                .map(|(operation, tally)| ObservedOperation { operation, latency: tally.second() });
            Some(ObservedSecond { operations: operations.collect() })
        };
        self.0.iter_mut().map(second).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_once_and_only_those_of_guests_that_are_observed() {
        let mut tally = ObservedTally::new(2, true);
        tally.add(1, &[(BlockOperation::Read, 5), (BlockOperation::Read, 7)]);
        tally.add(9, &[(BlockOperation::Read, 5)]);
        let taken = tally.take();
        assert_eq!(taken[0], Some(ObservedSecond::default()));
        let reads = &taken[1].as_ref().unwrap().operations[0];
        assert_eq!((reads.operation, reads.latency.count, reads.latency.total_ns), ("read", 2, 12));
        assert_eq!(tally.take()[1], Some(ObservedSecond::default()));
        assert_eq!(ObservedTally::new(1, false).take(), [None]);
    }
}
