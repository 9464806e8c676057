//! A comparison's figures in words, the same for every page.

use super::statistics::{EXACT_RUNS_MAX, RankMethod, RankTest};
use super::vcpus::{VcpuMetric, VcpuMetricRecord};
use super::verdict::{MARGIN_RELATIVE, MARGIN_SHARE, show_effect, show_interval};
use super::{Compared, Comparison, MetricRecord};
use serde::Serialize;
use vslice_spec::quantity::count;

/// One figure of both sides; `None` where it is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Words {
    /// B compared with A.
    pub effect: Option<String>,
    /// Its 95 % interval.
    pub interval: Option<String>,
    /// How likely chance alone is.
    pub p: Option<String>,
    /// The verdict.
    pub verdict: String,
}

impl Compared {
    /// Its figures in words.
    #[must_use]
    pub fn words(&self) -> Words {
        Words {
            effect: self.effect.map(|effect| show_effect(self.scale, effect)),
            interval: self.interval.map(|interval| show_interval(self.scale, interval)),
            p: self.rank_test.map(|test| show_p(test.p)),
            verdict: self.verdict.to_string(),
        }
    }
}

impl MetricRecord {
    /// What the metric is called.
    #[must_use]
    pub fn label(&self) -> String {
        self.kind.label()
    }
}

impl VcpuMetricRecord {
    /// What the figure is called; `shorten` is asked what to call who ran.
    #[must_use]
    pub fn label(&self, shorten: impl Fn(&str) -> String) -> String {
        match &self.kind {
            VcpuMetric::RunDelay => "run delay".to_owned(),
            VcpuMetric::Off(reason) => reason.label().to_owned(),
            VcpuMetric::Ran(name) => format!("while {} ran", shorten(name)),
        }
    }

    /// Of A and of B: what it is at least, if that is all that is known.
    #[must_use]
    pub fn at_least(&self) -> [Option<f64>; 2] {
        let means = [self.compared.a.mean, self.compared.b.mean];
        [0, 1].map(|side| {
            Some(self.least[side]).filter(|least| means[side].is_none() && *least > 0.0)
        })
    }
}

impl Comparison {
    /// How the intervals and verdicts were made.
    #[must_use]
    pub fn method(&self) -> String {
        let resamples = count(self.bootstrap.resamples as u64);
        let is_normal =
            |test: Option<RankTest>| test.is_some_and(|test| test.method == RankMethod::Normal);
        let method = if self.metrics.iter().any(|record| is_normal(record.compared.rank_test)) {
            format!("normal approximation, because there are more than {EXACT_RUNS_MAX} runs")
        } else {
            "exact, ties included".to_owned()
        };
        format!(
            "means and intervals are over runs, not requests (percentile bootstrap, {resamples} resamples); p \
             is from a two-sided Mann-Whitney test of each metric by itself ({method}); {}",
            margins()
        )
    }
}

/// What counts as no difference.
fn margins() -> String {
    format!(
        "a change within {:.0} % ({:.0} point for shares) counts as no difference",
        MARGIN_RELATIVE * 100.0,
        MARGIN_SHARE * 100.0
    )
}

/// Three decimals; what is not nothing never reads as nothing.
fn show_p(p: f64) -> String {
    if p < 0.0005 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_p_is_not_nothing() {
        assert_eq!(show_p(0.00049), "<0.001");
        assert_eq!(show_p(0.002_164), "0.002");
    }
}
