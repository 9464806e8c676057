//! Comparison of the runs of two conditions: `vslice compare`.
//!
//! Each side is one run directory, or a directory of run directories: the repeats of one condition. The
//! answer comes first ([`answer`]): what changed, why, and who caused it. Everything here is pure except
//! [`load()`], which reads the run directories.

pub mod answer;
pub mod because;
pub mod fingerprint;
pub mod load;
pub mod metrics;
pub mod spread;
pub mod statistics;
pub mod text;
pub mod vcpus;
pub mod verdict;
pub mod words;

pub use load::{CompareError, load};

use answer::Answer;
use because::SlowRequests;
use fingerprint::{Condition, differences};
use metrics::{Metric, Reader, Unit};
use serde::Serialize;
use spread::Spread;
use statistics::{Interval, RESAMPLES_COUNT, RankTest, SEED, SIGNIFICANCE, Scale, least_p, mean};
use vcpus::{VcpuFigures, VcpuRecord};
use verdict::{Claim, Difference, Verdict};

/// The schema of the JSON; `schema.md` beside this file lists every key.
pub const SCHEMA: &str = "vslice.comparison/2";

/// One side as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// Where it is.
    pub path: String,
    /// Its runs, in order of their names.
    pub runs: Vec<Run>,
    /// Its run directories that are not compared.
    pub left_out: Vec<LeftOut>,
}

/// What is compared of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its directory.
    pub path: String,
    /// The vCPUs that read; only the first one is compared.
    pub readers: Vec<Reader>,
    /// A value for each metric that it has.
    pub values: Vec<(Metric, f64)>,
    /// What its slow requests waited for; `None` if that is unknown.
    pub slow: Option<SlowRequests>,
    /// Its vCPUs, if every switch was recorded.
    pub vcpus: Vec<VcpuFigures>,
    /// Where the timeslices of the reader's vCPU lie; `None` if they are not known.
    pub timeslices: Option<Spread>,
    /// Under which conditions it was made.
    pub conditions: Vec<Condition>,
    /// Whether an iothread serves the reader's disk; `None` if the plan does not tell.
    pub has_iothread: Option<bool>,
    /// Scheduler events that the kernel dropped.
    pub lost_count: u64,
    /// Whether agents observed the guests' own block requests, which are not compared.
    pub is_observed: bool,
}

/// A run that is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its directory.
    pub path: String,
    /// Why not, as a sentence without its full stop.
    pub reason: String,
}

/// The outcome: what `--json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What changed from A to B, why, and who caused it.
    pub answer: Answer,
    /// The verdict on the original experiment's claim; `None` unless each run of A is known to serve the
    /// reader's disk from the main loop, and each run of B from an iothread.
    pub claim: Option<Claim>,
    /// Whether A and B are known to differ only in the disk's iothreads.
    pub is_comparable: bool,
    /// One side.
    pub a: SideRecord,
    /// The other.
    pub b: SideRecord,
    /// Every metric that some run has; shares only of parts that occur in some run.
    pub metrics: Vec<MetricRecord>,
    /// The vCPUs that both sides have.
    pub vcpus: Vec<VcpuRecord>,
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
    /// Why A and B should not be compared, or what to know about them; sentences without full stops.
    pub warnings: Vec<String>,
}

/// The runs of one side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SideRecord {
    /// Where it is.
    pub path: String,
    /// Directories of the runs that are compared.
    pub runs: Vec<String>,
    /// Where the timeslices of the reader's vCPU lie, for each run that has them.
    pub timeslices: Vec<SpreadRecord>,
    /// The runs that are not compared.
    pub left_out: Vec<LeftOut>,
}

/// Where the timeslices of the reader's vCPU lie in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SpreadRecord {
    /// The place of the run in [`SideRecord::runs`].
    pub run: usize,
    /// Its timeslices.
    #[serde(flatten)]
    pub spread: Spread,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricRecord {
    /// Its name, see [`Metric::key`].
    pub metric: String,
    /// Its numbers.
    #[serde(flatten)]
    pub compared: Compared,
    #[serde(skip)]
    kind: Metric,
}

/// The numbers of one figure, of both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// What `mean` and `values` count.
    pub unit: Unit,
    /// What `effect` and `interval` are.
    pub scale: Scale,
    /// Of A.
    pub a: Sample,
    /// Of B.
    pub b: Sample,
    /// B compared with A; infinite (`null` in JSON) if the mean of A is 0, `None` if a side has no values.
    pub effect: Option<f64>,
    /// Its 95 % interval; `None` if a side has a single run.
    pub interval: Option<Interval>,
    /// The rank test.
    pub rank_test: Option<RankTest>,
    /// In words.
    pub verdict: Verdict,
}

impl Compared {
    /// Of runs at these places.
    fn new(unit: Unit, of: Difference, [runs_a, runs_b]: [Vec<usize>; 2]) -> Compared {
        let sample = |values: Vec<f64>, runs| Sample { mean: mean(&values), values, runs };
        Compared {
            unit,
            scale: of.scale,
            a: sample(of.a, runs_a),
            b: sample(of.b, runs_b),
            effect: of.effect,
            interval: of.interval,
            rank_test: of.rank_test,
            verdict: of.verdict,
        }
    }
}

/// One metric of one side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The mean over the runs; `None` if no run has the metric.
    pub mean: Option<f64>,
    /// The value of each run that has the metric, in the order of the runs.
    pub values: Vec<f64>,
    /// The place of each of these runs in [`SideRecord::runs`].
    pub runs: Vec<usize>,
}

/// How the intervals were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bootstrap {
    /// [`RESAMPLES_COUNT`].
    pub resamples: usize,
    /// [`SEED`].
    pub seed: u64,
}

impl Comparison {
    /// Compares two sides.
    #[must_use]
    pub fn new(a: Side, b: Side) -> Comparison {
        let difference = |metric: Metric| {
            (metric, Difference::new(metric.scale(), a.values(metric), b.values(metric)))
        };
        let all: Vec<(Metric, Difference)> = Metric::all().map(difference).collect();
        let mut warnings = incomparable(&a, &b);
        let is_comparable = warnings.is_empty();
        // The order is that of `Metric::all`, and these two are its first.
        let (cv, bql) = (&all[0].1, &all[1].1);
        let claim = is_asked(&a, &b).then(|| Claim::new(cv, bql, is_comparable));
        warnings.extend(cautions(&a, &b));
        let is_reported = |(metric, of): &(Metric, Difference)| match metric {
            Metric::Share(_) => of.is_there(),
            _ => !of.a.is_empty() || !of.b.is_empty(),
        };
        let vcpus = vcpus::compare(&a, &b);
        let of = |wanted| all.iter().find(|(metric, _)| *metric == wanted).map(|(_, of)| of);
        let others = [("p50", of(Metric::LatencyP50)), ("p99.9", of(Metric::LatencyP999))];
        let others: Vec<_> =
            others.into_iter().filter_map(|(name, of)| Some((name, of?))).collect();
        let answer = Answer::new(of(Metric::LatencyP99), &others, &a, &b, &vcpus);
        let record = |(kind, of): (Metric, Difference)| MetricRecord {
            metric: kind.key(),
            compared: Compared::new(kind.unit(), of, [a.runs_with(kind), b.runs_with(kind)]),
            kind,
        };
        let metrics = all.into_iter().filter(is_reported).map(record).collect();
        Comparison {
            schema: SCHEMA,
            answer,
            claim,
            is_comparable,
            a: a.into(),
            b: b.into(),
            metrics,
            vcpus,
            bootstrap: Bootstrap { resamples: RESAMPLES_COUNT, seed: SEED },
            warnings,
        }
    }

    /// Whether a side is a single run; then no difference can be decided.
    #[must_use]
    pub fn has_single_run(&self) -> bool {
        self.a.runs.len() == 1 || self.b.runs.len() == 1
    }
}

impl From<Side> for SideRecord {
    fn from(side: Side) -> SideRecord {
        let spread = |(run, of): (usize, &Run)| Some(SpreadRecord { run, spread: of.timeslices? });
        let timeslices = side.runs.iter().enumerate().filter_map(spread).collect();
        let runs = side.runs.into_iter().map(|run| run.path).collect();
        SideRecord { path: side.path, runs, timeslices, left_out: side.left_out }
    }
}

impl Run {
    fn value(&self, metric: Metric) -> Option<f64> {
        self.values.iter().find(|(of, _)| *of == metric).map(|(_, value)| *value)
    }
}

impl Side {
    /// The metric's values in the runs that have it.
    #[must_use]
    pub fn values(&self, metric: Metric) -> Vec<f64> {
        self.runs.iter().filter_map(|run| run.value(metric)).collect()
    }

    /// The places of these runs.
    #[must_use]
    pub fn runs_with(&self, metric: Metric) -> Vec<usize> {
        let is_there = |place: &usize| self.runs[*place].value(metric).is_some();
        (0..self.runs.len()).filter(is_there).collect()
    }
}

/// Whether the original experiment's claim is about these: each run of A is known to have no iothread, and
/// each of B to have one.
fn is_asked(a: &Side, b: &Side) -> bool {
    let is = |side: &Side, wanted| side.runs.iter().all(|run| run.has_iothread == Some(wanted));
    is(a, false) && is(b, true)
}

/// Why whatever is found may have another reason than the disk.
fn incomparable(a: &Side, b: &Side) -> Vec<String> {
    let conditions = |side: &Side| -> Vec<Vec<Condition>> {
        side.runs.iter().map(|run| run.conditions.clone()).collect()
    };
    let mut warnings = differences(&conditions(a), &conditions(b));
    if let Some(run) = a.runs.iter().find(|run| b.runs.iter().any(|other| other.path == run.path)) {
        warnings.push(format!("{} is on both sides", run.path));
    }
    warnings
}

/// What to know of the numbers.
fn cautions(a: &Side, b: &Side) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, side) in [("A", a), ("B", b)] {
        for run in side.runs.iter().filter(|run| run.readers.len() > 1) {
            let reader = &run.readers[0];
            warnings.push(format!(
                "{} of {name} has {} readers; only {} {} is compared, and BQL waits per request count the \
                 requests of all of them",
                run.path,
                run.readers.len(),
                reader.vm,
                reader.vcpu
            ));
        }
        let observed = side.runs.iter().filter(|run| run.is_observed).count();
        if observed > 0 {
            warnings.push(format!(
                "the guests' own block requests, which {observed} of the runs of {name} observed, are not \
                 compared: vslice report has them"
            ));
        }
        for run in side.runs.iter().filter(|run| run.lost_count > 0) {
            warnings.push(format!(
                "{} of {name} lost {} scheduler events: its timeslices and waits are only those that were seen",
                run.path, run.lost_count
            ));
        }
    }
    let (count_a, count_b) = (a.runs.len(), b.runs.len());
    let chance = least_p(count_a, count_b);
    if count_a > 1 && count_b > 1 && chance > SIGNIFICANCE {
        warnings.push(format!(
            "with {count_a} runs against {count_b}, chance alone separates the sides completely in {:.0} % \
             of cases, so nothing is decided; that takes at least 4 on each side",
            chance * 100.0
        ));
    }
    warnings
}

#[cfg(any(test, feature = "example"))]
pub mod example;
#[cfg(test)]
mod schema_tests;
