//! The host's I/O of a second.

use super::latency::LatencyTally;
use super::second::HostIoSecond;
use std::collections::BTreeMap;
use vslice_core::host_view::ViewedIo;
use vslice_trace::manifest::VmRecord;
use vslice_trace::observation::operation_name;

/// The operation of an I/O of which it was not recorded.
const UNKNOWN: &str = "unknown";

/// Adds up the I/O of one VM, by disk and operation.
#[derive(Debug, Default)]
pub(super) struct IoTally(BTreeMap<(Option<usize>, &'static str), OperationTally>);

#[derive(Debug, Default)]
struct OperationTally {
    latencies: LatencyTally,
    no_end_count: u64,
    known_count: u64,
    least_ns: u64,
    most_ns: u64,
}

impl IoTally {
    pub(super) fn add(&mut self, disk: Option<usize>, io: &ViewedIo) {
        let operation = io.event.operation.map_or(UNKNOWN, operation_name);
        let tally = self.0.entry((disk, operation)).or_default();
        match io.latency_ns() {
            Some(ns) => tally.latencies.add(ns),
            None => tally.no_end_count += 1,
        }
        if let Ok(inactivity) = &io.inactivity {
            tally.known_count += 1;
            tally.least_ns = tally.least_ns.saturating_add(inactivity.least_ns);
            tally.most_ns = tally.most_ns.saturating_add(inactivity.most_ns);
        }
    }

    pub(super) fn rows(&self, vm: &VmRecord) -> Vec<HostIoSecond> {
        let device = |place: usize| Some(vm.disks.get(place)?.whole_disk.as_ref()?.name.clone());
        let row =
            |(&(disk, operation), tally): (&(Option<usize>, &'static str), &OperationTally)| {
                HostIoSecond {
                    disk,
                    device: disk.and_then(device),
                    operation,
                    latency: tally.latencies.second(),
                    no_end: tally.no_end_count,
                    inactivity_known: tally.known_count,
                    inactivity_least_ns: tally.least_ns,
                    inactivity_most_ns: tally.most_ns,
                }
            };
        self.0.iter().map(row).collect()
    }
}
