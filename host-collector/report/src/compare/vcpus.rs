//! What is compared of each vCPU, in runs with requests and in runs without any, as a plain `vslice attach`
//! makes them. Pure.

use super::metrics::Unit;
use super::statistics::Scale;
use super::verdict::Difference;
use super::{Compared, Run, Side};
use crate::summary::OffReason;
use crate::summary::model::{Summary, Vcpu};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use vslice_core::units::VcpuId;
use vslice_trace::evidence::EvidenceLevel;

/// A reason or an antagonist of a vCPU is listed if it reaches this on a side, in nanoseconds per second: 0.1
/// % of the vCPU's time, as [`super::verdict::CONTENTION_SHARE`].
pub const REPORTED_NS_PER_S_MIN: f64 = 1e6;

/// How many antagonists of a vCPU are listed at most.
pub const ANTAGONISTS_TOLD_MAX: usize = 4;

/// One vCPU of one run. All figures are nanoseconds per second of the vCPU's observed time.
#[derive(Debug, Clone, PartialEq)]
pub struct VcpuFigures {
    /// Its VM.
    pub vm: String,
    /// Which of its vCPUs.
    pub vcpu: VcpuId,
    /// How long it waited for a pCPU.
    pub run_delay: f64,
    /// How long it was off its pCPU, by reason; every reason is there.
    pub off: Vec<(OffReason, f64)>,
    /// Who ran while it waited, by name; those that the summary lists.
    pub ran: Vec<(String, f64)>,
    /// The longest that anyone can have run beyond what is listed.
    pub unlisted_max: f64,
}

impl VcpuFigures {
    /// The figures of every vCPU of a run; empty if switches were not recorded or nothing was observed.
    #[must_use]
    pub fn all(summary: &Summary) -> Vec<VcpuFigures> {
        let is_recorded = summary.facts.evidence.level == EvidenceLevel::Recorded;
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

    /// One figure; `None` if it is not listed.
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
    /// What everybody whom a run lists ran at least, the mean over the runs of A and of B.
    #[serde(skip)]
    pub(super) ran: BTreeMap<String, [f64; 2]>,
    /// The most that anybody can have run beyond that, the mean over the runs of A and of B.
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
    /// What it is at least, the mean over the runs of A and of B: nothing where a run does not tell.
    #[serde(skip)]
    pub(super) least: [f64; 2],
}

/// A vCPU of a run, with the place of the run on its side.
type Figures<'a> = (usize, &'a VcpuFigures);

/// One figure of one side.
struct OfSide {
    /// Of each run that tells.
    values: Vec<f64>,
    /// The places of these runs.
    runs: Vec<usize>,
    /// The mean over all runs, those that do not tell having nothing of it.
    least: f64,
    /// Whether each run tells. The others do not stand for those that do not: whoever is not listed ran
    /// less than those who are.
    is_whole: bool,
}

impl OfSide {
    fn new(side: &[Figures<'_>], metric: &VcpuMetric) -> OfSide {
        let told = side.iter().filter_map(|(run, of)| Some((*run, of.get(metric)?)));
        let (runs, values): (Vec<usize>, Vec<f64>) = told.unzip();
        let least = values.iter().sum::<f64>() / side.len().max(1) as f64;
        OfSide { is_whole: values.len() == side.len(), values, runs, least }
    }
}

impl VcpuMetricRecord {
    fn new(kind: VcpuMetric, a: &[Figures<'_>], b: &[Figures<'_>]) -> VcpuMetricRecord {
        let (a, b) = (OfSide::new(a, &kind), OfSide::new(b, &kind));
        let compared = |of: &OfSide| if of.is_whole { of.values.clone() } else { Vec::new() };
        let difference = Difference::new(Scale::Relative, compared(&a), compared(&b));
        let (metric, name) = match &kind {
            VcpuMetric::RunDelay => ("run_delay", None),
            VcpuMetric::Off(reason) => ("off_cpu", Some(reason.name().to_owned())),
            VcpuMetric::Ran(name) => ("antagonist", Some(name.clone())),
        };
        let mut compared = Compared::new(Unit::NanosecondsPerSecond, difference, [a.runs, b.runs]);
        let least = [a.least, b.least];
        (compared.a.values, compared.b.values) = (a.values, b.values);
        VcpuMetricRecord { metric, name, compared, kind, least }
    }

    /// What it is at least on the side that has more of it.
    fn most(&self) -> f64 {
        self.least[0].max(self.least[1])
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
        let unlisted = |side: &[Figures<'_>]| {
            side.iter().map(|(_, of)| of.unlisted_max / side.len() as f64).sum()
        };
        records.push(VcpuRecord {
            vm: vcpu.vm.clone(),
            vcpu: vcpu.vcpu,
            metrics: metrics(&of_a, &of_b),
            ran: ran(&of_a, &of_b),
            unlisted_max: [unlisted(&of_a), unlisted(&of_b)],
        });
    }
    records
}

fn vms(side: &Side) -> BTreeSet<&str> {
    side.runs.iter().flat_map(|run| &run.vcpus).map(|vcpu| vcpu.vm.as_str()).collect()
}

fn figures<'a>(side: &'a Side, vm: &str, vcpu: VcpuId) -> Vec<Figures<'a>> {
    let of_run = |(place, run): (usize, &'a Run)| run.vcpus.iter().map(move |of| (place, of));
    let all = side.runs.iter().enumerate().flat_map(of_run);
    all.filter(|(_, of)| of.vm == vm && of.vcpu == vcpu).collect()
}

/// Whom a run lists, and what he ran at least.
fn ran(a: &[Figures<'_>], b: &[Figures<'_>]) -> BTreeMap<String, [f64; 2]> {
    let mut ran: BTreeMap<String, [f64; 2]> = BTreeMap::new();
    for (at, side) in [a, b].into_iter().enumerate() {
        for (name, figure) in side.iter().flat_map(|(_, of)| &of.ran) {
            ran.entry(name.clone()).or_default()[at] += figure / side.len() as f64;
        }
    }
    ran
}

fn metrics(a: &[Figures<'_>], b: &[Figures<'_>]) -> Vec<VcpuMetricRecord> {
    let record = |kind: VcpuMetric| VcpuMetricRecord::new(kind, a, b);
    let is_reported = |row: &VcpuMetricRecord| row.most() >= REPORTED_NS_PER_S_MIN;
    let off = OffReason::all().map(VcpuMetric::Off).map(record).filter(is_reported);
    let names: BTreeSet<&str> =
        a.iter().chain(b).flat_map(|(_, of)| &of.ran).map(|(name, _)| name.as_str()).collect();
    let ran = names.into_iter().map(|name| record(VcpuMetric::Ran(name.to_owned())));
    let mut ran: Vec<VcpuMetricRecord> = ran.filter(is_reported).collect();
    ran.sort_by(|one, other| other.most().total_cmp(&one.most()));
    ran.truncate(ANTAGONISTS_TOLD_MAX);
    [record(VcpuMetric::RunDelay)].into_iter().chain(off).chain(ran).collect()
}

#[cfg(test)]
#[path = "vcpus_tests.rs"]
mod tests;
