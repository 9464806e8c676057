//! What the page is drawn from, as it is embedded in it. Unknown is `null`.

use super::Command;
use serde::Serialize;
use vslice_report::compare::metrics::{Metric, Unit};
use vslice_report::compare::statistics::Interval;
use vslice_report::compare::words::Words;
use vslice_report::compare::{Comparison, LeftOut, SpreadRecord};

/// The value of [`Data::schema`].
pub(super) const SCHEMA: &str = "vslice.comparison_page/1";

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Data<'a> {
    pub(super) schema: &'static str,
    pub(super) command: Command,
    pub(super) title: &'a str,
    pub(super) sentence: String,
    pub(super) partial: Option<&'a str>,
    pub(super) metrics: Vec<MetricRow>,
    pub(super) conditions: Vec<ConditionRow<'a>>,
    pub(super) pairs: Vec<PairRow<'a>>,
    /// How the runs were made, what differs first.
    pub(super) environment: Vec<EnvironmentRow>,
    pub(super) text: &'a str,
}

/// What is compared.
#[derive(Debug, Serialize)]
pub(super) struct MetricRow {
    pub(super) metric: String,
    pub(super) label: String,
    pub(super) unit: Unit,
}

impl MetricRow {
    pub(super) fn of(metric: Metric) -> MetricRow {
        MetricRow { metric: metric.key(), label: metric.label(), unit: metric.unit() }
    }
}

/// A condition. Places of runs are those in `runs`.
#[derive(Debug, Serialize)]
pub(super) struct ConditionRow<'a> {
    pub(super) name: &'a str,
    pub(super) state: &'a str,
    pub(super) path: Option<&'a str>,
    /// Directories of the runs that count.
    pub(super) runs: Vec<&'a str>,
    pub(super) left_out: &'a [LeftOut],
    /// One for each of [`Data::metrics`]; empty if no run counts.
    pub(super) figures: Vec<Figure>,
    pub(super) timeslices: Vec<SpreadRecord>,
}

/// A metric of a condition.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) mean: Option<f64>,
    /// The 95 % interval of the mean, which the text of an experiment has.
    pub(super) interval: Option<Interval>,
    pub(super) values: Vec<f64>,
    /// The run of each value.
    pub(super) runs: Vec<usize>,
}

/// Two conditions, by their places.
#[derive(Debug, Serialize)]
pub(super) struct PairRow<'a> {
    pub(super) a: usize,
    pub(super) b: usize,
    pub(super) comparison: &'a Comparison,
    /// Of each of its metrics.
    pub(super) words: Vec<Words>,
    /// Of each figure of each of its vCPUs.
    pub(super) vcpu_words: Vec<Vec<VcpuWords>>,
    /// How its intervals were made, if there are any.
    pub(super) method: Option<String>,
    /// What `vslice compare` prints of it.
    pub(super) text: String,
}

/// A figure of a vCPU in words.
#[derive(Debug, Serialize)]
pub(super) struct VcpuWords {
    pub(super) label: String,
    /// Of A and of B, where no more than that is known.
    pub(super) at_least: [Option<f64>; 2],
    #[serde(flatten)]
    pub(super) words: Words,
}

/// How the runs of each condition were made, in one respect.
#[derive(Debug, Serialize)]
pub(super) struct EnvironmentRow {
    pub(super) name: String,
    pub(super) differs: bool,
    pub(super) values: Vec<Vec<String>>,
}
