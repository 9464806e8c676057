//! Which part of a run a summary tells of.

use super::laws::Laws;
use super::model::Summary;
use serde::{Deserialize, Serialize};
use vslice_core::text::harmless;
use vslice_core::units::VcpuId;
use vslice_spec::quantity::{count, counted, duration};

/// A part of a run, and what of the run is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selection {
    /// Where it begins, since the measured window did.
    pub since_ns: u64,
    /// Where it ends, likewise.
    pub until_ns: u64,
    /// The length of the measured window, of which this is a part.
    pub of_ns: u64,
    /// The VMs; empty: all.
    pub vms: Vec<String>,
    /// The vCPUs of these VMs; empty: all.
    pub vcpus: Vec<VcpuId>,
    /// Requests and the host's I/Os took at least this long; `None`: all are there.
    pub slower_than_ns: Option<u64>,
    /// What of the run is not in it.
    pub left_out: LeftOut,
}

/// What of a run is not in a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeftOut {
    /// Requests of the guests' readers.
    pub reader: LeftOutBy,
    /// Observed requests.
    pub observed: LeftOutBy,
    /// I/Os of the VMs on the host's disks.
    pub host_io: u64,
    /// Exits of vCPUs.
    pub exits: u64,
}

/// Requests that are not in a part, each counted by the first of these that is true of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeftOutBy {
    /// Of other VMs.
    pub other_vms: u64,
    /// Of other vCPUs: queued, issued and completed on none of the chosen.
    pub other_vcpus: u64,
    /// Without a place on the host's clock, so that it is not known when they began or how long they took.
    pub unplaced: u64,
    /// That began before the stretch, or after it.
    pub outside: u64,
    /// That took less time.
    pub faster: u64,
}

impl LeftOutBy {
    /// How many.
    #[must_use]
    pub fn total(&self) -> u64 {
        let LeftOutBy { other_vms, other_vcpus, unplaced, outside, faster } = *self;
        [other_vms, other_vcpus, unplaced, outside, faster]
            .iter()
            .fold(0, |sum: u64, count| sum.saturating_add(*count))
    }
}

impl Selection {
    /// Whether requests are left out of its stretch of time, so that there is no rate of them.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        !self.vcpus.is_empty() || self.slower_than_ns.is_some()
    }

    /// What it is a part of, and which: `part of the run: 12 s to 14 s of 60.0 s, VM web1, requests slower than 5 ms`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let names = self.vms.iter().map(|name| harmless(name)).collect::<Vec<_>>().join(", ");
        let vms = (!self.vms.is_empty())
            .then(|| format!("{} {names}", if self.vms.len() == 1 { "VM" } else { "VMs" }));
        let vcpus = self.vcpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let vcpus = (!self.vcpus.is_empty()).then_some(vcpus);
        let slow = self.slower_than_ns.map(|ns| format!("requests slower than {}", moment(ns)));
        let pieces: Vec<String> =
            [Some(self.time()), vms, vcpus, slow].into_iter().flatten().collect();
        format!("part of the run: {}", pieces.join(", "))
    }

    fn time(&self) -> String {
        let whole = duration(self.of_ns);
        match (self.since_ns, self.until_ns < self.of_ns) {
            (0, false) => format!("all of its {whole}"),
            (0, true) => format!("its first {} of {whole}", moment(self.until_ns)),
            (since_ns, false) => format!("{} to its end at {whole}", moment(since_ns)),
            (since_ns, true) => {
                format!("{} to {} of {whole}", moment(since_ns), moment(self.until_ns))
            }
        }
    }

    /// How much of the run is not in it, as a sentence without its full stop.
    #[must_use]
    pub fn left_out_sentence(&self) -> String {
        let LeftOut { reader, observed, host_io, .. } = self.left_out;
        let all = [
            (reader.total(), "request"),
            (observed.total(), "observed request"),
            (host_io, "host I/O"),
        ];
        let some = all.into_iter().filter(|(number, _)| *number > 0);
        let some: Vec<String> = some.map(|(number, what)| counted(number, what)).collect();
        let mut text = match some.as_slice() {
            [] => "no request is left out".to_owned(),
            some => format!("left out: {}", some.join(", ")),
        };
        let unplaced = reader.unplaced.saturating_add(observed.unplaced);
        if unplaced > 0 {
            text.push_str(&format!(
                "; {} of them without a place on the host's clock, so that it is not known whether they belong here",
                count(unplaced)
            ));
        }
        if self.slower_than_ns.is_some() {
            text.push_str("; percentiles are those of the slower requests alone");
        }
        text
    }
}

impl Laws {
    /// What is told of a part is of that part.
    pub(super) fn selection(&mut self, summary: &Summary) {
        let Some(selection) = &summary.facts.selection else { return };
        let Selection { since_ns, until_ns, of_ns, vms, vcpus, slower_than_ns, .. } = selection;
        self.at_most("selection.until_ns", *until_ns, "the run's length", *of_ns);
        let length_ns = until_ns.saturating_sub(*since_ns);
        self.equal("measured_ns", summary.facts.measured_ns, "the part's length is", length_ns);
        let least_ns = slower_than_ns.unwrap_or(0);
        let operations = summary.observed.iter().flat_map(|observed| &observed.operations);
        let fastest = operations.map(|row| row.latency_ns).chain([summary.latency_ns]);
        for fastest_ns in fastest.filter_map(|of| of.min) {
            let told = "the latency of the fastest request";
            self.at_most("selection.slower_than_ns", least_ns, told, fastest_ns);
        }
        let has_vm = |name: &str| vms.is_empty() || vms.iter().any(|vm| vm == name);
        let has_vcpu = |vcpu| vcpus.is_empty() || vcpus.contains(&vcpu);
        for row in &summary.vcpus {
            if !has_vm(&row.vm) || !has_vcpu(row.vcpu) {
                self.violations.push(format!("{} {} is not of this part", row.vm, row.vcpu));
            }
        }
        let operations = summary.observed.iter().flat_map(|observed| &observed.operations);
        let observed = operations.flat_map(|row| row.worst.iter().map(|of| (&row.vm, of.start_ns)));
        let readers = summary.worst.iter().map(|of| (&of.vm, of.start_ns));
        for (vm, start_ns) in readers.chain(observed) {
            let start_ns = i128::from(start_ns);
            let is_early = *since_ns > 0 && start_ns < i128::from(*since_ns);
            let is_late = until_ns < of_ns && start_ns >= i128::from(*until_ns);
            if !has_vm(vm) || is_early || is_late {
                self.violations.push(format!("a request of {vm} at {start_ns} is of another part"));
            }
        }
    }
}

/// A time as it is asked for, exactly: `12 s`, `1.5 s`, `200 ms`.
#[must_use]
pub fn moment(ns: u64) -> String {
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    let unit = units.into_iter().find(|(_, unit_ns)| ns >= *unit_ns);
    let (unit, unit_ns) = unit.unwrap_or(if ns == 0 { units[0] } else { ("ns", 1) });
    let (whole, rest) = (ns / unit_ns, ns % unit_ns);
    if rest == 0 {
        return format!("{whole} {unit}");
    }
    let digits = unit_ns.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{} {unit}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_exactly_as_it_is_asked_for() {
        for (ns, text) in [
            (0, "0 s"),
            (7, "7 ns"),
            (1_500, "1.5 us"),
            (200_000_000, "200 ms"),
            (200_000_001, "200.000001 ms"),
            (1_500_000_000, "1.5 s"),
            (12_000_000_000, "12 s"),
            (60_000_000_001, "60.000000001 s"),
        ] {
            assert_eq!(moment(ns), text);
        }
    }
}
