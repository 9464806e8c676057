//! What is compared of each vCPU: of runs with requests, and of those without any, as a plain
//! `vslice attach` makes them. Pure.

use super::metrics::Unit;
use super::statistics::{Scale, mean};
use super::verdict::Difference;
use super::{Compared, Side};
use crate::report::OffReason;
use crate::report::evidence::EvidenceLevel;
use crate::report::model::{Summary, Vcpu};
use crate::units::VcpuId;
use serde::Serialize;
use std::collections::BTreeSet;

/// A reason, or somebody who ran, is told of a vCPU where it is at least this on a side: 0.1 % of the
/// vCPU's time, as [`super::verdict::CONTENTION_SHARE`].
pub const TOLD_NS_PER_S_MIN: f64 = 1e6;

/// Those who ran while a vCPU waited that are told of it.
pub const ANTAGONISTS_TOLD_MAX: usize = 4;

/// One vCPU of one run. All figures are nanoseconds in a second of the vCPU's observed time.
#[derive(Debug, Clone, PartialEq)]
pub struct VcpuFigures {
    /// Its VM.
    pub vm: String,
    /// Which of its vCPUs.
    pub vcpu: VcpuId,
    /// How long it waited for a pCPU.
    pub run_delay: f64,
    /// Why it was off its pCPU, and how long; every reason.
    pub off: Vec<(OffReason, f64)>,
    /// Who ran while it waited, by name; those that the summary lists.
    pub ran: Vec<(String, f64)>,
    /// The most that anybody can have run who is not among them.
    pub unlisted_max: f64,
}

impl VcpuFigures {
    /// Of every vCPU of a run; none where switches were not recorded, or nothing was observed.
    #[must_use]
    pub fn all(summary: &Summary) -> Vec<VcpuFigures> {
        let is_recorded = summary.evidence.level == EvidenceLevel::Recorded;
        let vcpus = summary.vcpus.iter().filter(|vcpu| is_recorded && vcpu.observed_ns > 0);
        vcpus.map(VcpuFigures::of).collect()
    }

    fn of(vcpu: &Vcpu) -> VcpuFigures {
        let rate = |length_ns: u64| length_ns as f64 * 1e9 / vcpu.observed_ns as f64;
        let mut ran: Vec<(String, f64)> = Vec::new();
        for row in &vcpu.antagonists {
            let name = &row.thread.name;
            match ran.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += rate(row.ran_ns),
                None => ran.push((name.clone(), rate(row.ran_ns))),
            }
        }
        VcpuFigures {
            vm: vcpu.vm.clone(),
            vcpu: vcpu.vcpu,
            run_delay: rate(vcpu.wait_ns),
            off: vcpu.off_cpu.iter().map(|off| (off.reason, rate(off.total_ns))).collect(),
            ran,
            unlisted_max: rate(vcpu.others_ns.saturating_add(vcpu.unseen_ns)),
        }
    }

    /// One figure; `None` where it is not told.
    #[must_use]
    pub fn get(&self, metric: &VcpuMetric) -> Option<f64> {
        match metric {
            VcpuMetric::RunDelay => Some(self.run_delay),
            VcpuMetric::Off(reason) => {
                self.off.iter().find(|(of, _)| of == reason).map(|(_, figure)| *figure)
            }
            VcpuMetric::Ran(name) => {
                let listed = self.ran.iter().find(|(of, _)| of == name).map(|(_, figure)| *figure);
                // Whoever is not listed where everybody is did not run.
                listed.or((self.unlisted_max == 0.0).then_some(0.0))
            }
        }
    }
}

/// What is compared of a vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VcpuMetric {
    /// How long it waited for a pCPU.
    RunDelay,
    /// How long it was off its pCPU for this reason.
    Off(OffReason),
    /// How long this one ran while it waited for a pCPU.
    Ran(String),
}

/// One vCPU of both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VcpuRecord {
    /// Its VM, as A calls it.
    pub vm: String,
    /// Which of its vCPUs.
    pub vcpu: VcpuId,
    /// Its figures: the run delay, then reasons, then who ran.
    pub metrics: Vec<VcpuMetricRecord>,
    /// The most that anybody can have run whom a run does not list, over the runs of A and of B.
    #[serde(skip)]
    pub(super) unlisted_max: [f64; 2],
}

/// One figure of a vCPU, of both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VcpuMetricRecord {
    /// `run_delay`, `off_cpu` or `antagonist`.
    pub metric: &'static str,
    /// The reason, or who ran; `None` for the run delay.
    pub name: Option<String>,
    /// The figures themselves.
    #[serde(flatten)]
    pub compared: Compared,
    #[serde(skip)]
    pub(super) kind: VcpuMetric,
}

impl VcpuMetricRecord {
    fn new(kind: VcpuMetric, difference: Difference) -> VcpuMetricRecord {
        let (metric, name) = match &kind {
            VcpuMetric::RunDelay => ("run_delay", None),
            VcpuMetric::Off(reason) => ("off_cpu", Some(reason.name().to_owned())),
            VcpuMetric::Ran(name) => ("antagonist", Some(name.clone())),
        };
        let compared = Compared::new(Unit::NanosecondsPerSecond, difference);
        VcpuMetricRecord { metric, name, compared, kind }
    }
}

/// Every vCPU that both sides have, in A's order. A VM is the same one if it has the same name, or if it
/// is the only one on either side.
#[must_use]
pub fn compare(a: &Side, b: &Side) -> Vec<VcpuRecord> {
    let names_a = vms(a);
    let names_b = vms(b);
    let counterpart = |vm: &str| match (names_a.len(), names_b.iter().next()) {
        (1, Some(only)) if names_b.len() == 1 => Some((*only).to_owned()),
        _ => names_b.get(vm).map(|name| (*name).to_owned()),
    };
    let mut seen = BTreeSet::new();
    let mut records = Vec::new();
    for vcpu in a.runs.iter().flat_map(|run| &run.vcpus) {
        let is_new = seen.insert((vcpu.vm.as_str(), vcpu.vcpu));
        let Some(vm_b) = counterpart(&vcpu.vm).filter(|_| is_new) else { continue };
        let of_a = figures(a, &vcpu.vm, vcpu.vcpu);
        let of_b = figures(b, &vm_b, vcpu.vcpu);
        if of_b.is_empty() {
            continue;
        }
        let unlisted =
            |of: &[&VcpuFigures]| of.iter().map(|of| of.unlisted_max).fold(0.0, f64::max);
        records.push(VcpuRecord {
            vm: vcpu.vm.clone(),
            vcpu: vcpu.vcpu,
            metrics: metrics(&of_a, &of_b),
            unlisted_max: [unlisted(&of_a), unlisted(&of_b)],
        });
    }
    records
}

fn vms(side: &Side) -> BTreeSet<&str> {
    side.runs.iter().flat_map(|run| &run.vcpus).map(|vcpu| vcpu.vm.as_str()).collect()
}

fn figures<'a>(side: &'a Side, vm: &str, vcpu: VcpuId) -> Vec<&'a VcpuFigures> {
    let all = side.runs.iter().flat_map(|run| &run.vcpus);
    all.filter(|of| of.vm == vm && of.vcpu == vcpu).collect()
}

fn metrics(a: &[&VcpuFigures], b: &[&VcpuFigures]) -> Vec<VcpuMetricRecord> {
    let difference = |metric: &VcpuMetric| {
        let values = |side: &[&VcpuFigures]| side.iter().filter_map(|of| of.get(metric)).collect();
        Difference::new(Scale::Relative, values(a), values(b))
    };
    let most = |of: &Difference| {
        let means = [mean(&of.a), mean(&of.b)];
        means.into_iter().flatten().fold(0.0, f64::max)
    };
    let is_told = |(_, of): &(VcpuMetric, Difference)| most(of) >= TOLD_NS_PER_S_MIN;
    let compared = |metric: VcpuMetric| {
        let of = difference(&metric);
        (metric, of)
    };
    let off = OffReason::all().map(VcpuMetric::Off).map(compared).filter(is_told);
    let names: BTreeSet<&str> =
        a.iter().chain(b).flat_map(|of| &of.ran).map(|(name, _)| name.as_str()).collect();
    let ran = names.into_iter().map(|name| compared(VcpuMetric::Ran(name.to_owned())));
    let mut ran: Vec<(VcpuMetric, Difference)> = ran.filter(is_told).collect();
    ran.sort_by(|(_, one), (_, other)| most(other).total_cmp(&most(one)));
    ran.truncate(ANTAGONISTS_TOLD_MAX);
    let all = [compared(VcpuMetric::RunDelay)].into_iter().chain(off).chain(ran);
    all.map(|(metric, of)| VcpuMetricRecord::new(metric, of)).collect()
}

#[cfg(test)]
#[path = "vcpus_tests.rs"]
mod tests;
