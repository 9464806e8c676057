//! `--html` of `vslice compare` and `vslice experiment`: conditions side by side as one page.
//!
//! `comparison_page/model.rs` says what the page is drawn from. It goes into the page as JSON, where nothing of it is
//! markup.

mod model;

use self::model::{ConditionRow, Data, Figure, MetricRow, PairRow, SCHEMA, VcpuWords};
use crate::html::Kind;
use std::io::Write;
use vslice_core::text::harmless;
use vslice_report::compare::fingerprint::side_by_side;
use vslice_report::compare::metrics::Metric;
use vslice_report::compare::statistics::{RESAMPLES_COUNT, mean, mean_interval};
use vslice_report::compare::text::render;
use vslice_report::compare::verdict::ClaimVerdict;
use vslice_report::compare::{Comparison, Side, SpreadRecord};
use vslice_report::summary::Style;

const KIND: Kind = Kind {
    as_text: "the command without `--html`",
    style: include_str!("comparison_page/comparison.css"),
    script: concat!(
        include_str!("comparison_page/panel.js"),
        include_str!("comparison_page/timeslices.js"),
        include_str!("comparison_page/tables.js"),
        include_str!("comparison_page/comparison.js"),
    ),
};

/// Conditions of the runs' environment that a page has.
const ENVIRONMENT_MAX: usize = 400;

/// Letters of one such condition.
const ENVIRONMENT_CHARS_MAX: usize = 200;

/// What a page is of.
#[derive(Debug)]
pub struct ComparisonPage<'a> {
    /// The command that it is of.
    pub command: Command,
    /// What it is called.
    pub title: String,
    /// Why it is not the whole, as a sentence.
    pub partial: Option<String>,
    /// The conditions; A and B of `vslice compare`.
    pub conditions: Vec<Condition<'a>>,
    /// Which of them are compared with each other.
    pub pairs: Vec<Pair<'a>>,
    /// The same as text.
    pub text: String,
}

/// Whose page it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// `vslice compare`.
    Compare,
    /// `vslice experiment`.
    Experiment,
}

/// A condition and its runs.
#[derive(Debug, Clone)]
pub struct Condition<'a> {
    /// What it is called.
    pub name: String,
    /// What became of its runs, or why there are none.
    pub state: String,
    /// The runs that count, and those that do not; `None` if no run counts.
    pub side: Option<&'a Side>,
}

/// Two conditions, by their places, and what they differ in.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The place of A.
    pub a: usize,
    /// The place of B.
    pub b: usize,
    /// B against A.
    pub comparison: &'a Comparison,
}

impl<'a> ComparisonPage<'a> {
    /// The page of `vslice compare`.
    #[must_use]
    pub fn of_two(a: &'a Side, b: &'a Side, comparison: &'a Comparison) -> ComparisonPage<'a> {
        let condition = |side: &'a Side| Condition {
            name: harmless(&side.path),
            state: runs(side.runs.len()),
            side: Some(side),
        };
        ComparisonPage {
            command: Command::Compare,
            title: format!("A {} against B {}", harmless(&a.path), harmless(&b.path)),
            partial: None,
            conditions: vec![condition(a), condition(b)],
            pairs: vec![Pair { a: 0, b: 1, comparison }],
            text: render(comparison, Style::PLAIN),
        }
    }

    /// Writes the page.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, page: &mut impl Write) -> std::io::Result<()> {
        page.write_all(KIND.page(&self.title, &serde_json::to_string(&self.data())?).as_bytes())
    }

    fn data(&self) -> Data<'_> {
        let metrics = self.metrics();
        Data {
            schema: SCHEMA,
            command: self.command,
            title: &self.title,
            sentence: self.sentence(),
            partial: self.partial.as_deref(),
            metrics: metrics.iter().map(|metric| MetricRow::of(*metric)).collect(),
            conditions: self.conditions.iter().map(|of| self.condition(of, &metrics)).collect(),
            pairs: self.pairs.iter().map(pair).collect(),
            environment: self.environment(),
            text: &self.text,
        }
    }

    /// Those that some run has; shares only of parts that occur in some run.
    fn metrics(&self) -> Vec<Metric> {
        let sides = || self.conditions.iter().filter_map(|of| of.side);
        let is_there = |metric: &Metric| {
            let mut values = sides().flat_map(|side| side.values(*metric));
            match metric {
                Metric::Share(_) => values.any(|value| value != 0.0),
                _ => values.next().is_some(),
            }
        };
        Metric::all().filter(is_there).collect()
    }

    fn condition<'b>(&self, of: &'b Condition<'_>, metrics: &[Metric]) -> ConditionRow<'b> {
        let figure = |side: &Side, metric: Metric| {
            let values = side.values(metric);
            // Of two sides the text has the interval of their difference, and no other.
            let interval = match self.command {
                Command::Compare => None,
                Command::Experiment => mean_interval(&values, RESAMPLES_COUNT),
            };
            Figure { mean: mean(&values), interval, runs: side.runs_with(metric), values }
        };
        let spreads = |side: &Side| -> Vec<SpreadRecord> {
            let of_run = |(run, of): (usize, &vslice_report::compare::Run)| {
                Some(SpreadRecord { run, spread: of.timeslices? })
            };
            side.runs.iter().enumerate().filter_map(of_run).collect()
        };
        ConditionRow {
            name: &of.name,
            state: &of.state,
            path: of.side.map(|side| side.path.as_str()),
            runs: of.side.map_or_else(Vec::new, |side| {
                side.runs.iter().map(|run| run.path.as_str()).collect()
            }),
            left_out: of.side.map_or(&[], |side| &side.left_out),
            figures: of.side.map_or_else(Vec::new, |side| {
                metrics.iter().map(|metric| figure(side, *metric)).collect()
            }),
            timeslices: of.side.map_or_else(Vec::new, spreads),
        }
    }

    /// The sentence that answers: of several pairs, how many have which verdict.
    fn sentence(&self) -> String {
        match &self.pairs[..] {
            [] => "No two conditions that differ only in the disk's iothread can be compared."
                .to_owned(),
            [only] => only.comparison.answer.sentence.clone(),
            pairs => tally(pairs),
        }
    }

    fn environment(&self) -> Vec<model::EnvironmentRow> {
        let conditions = |of: &Condition<'_>| -> Vec<_> {
            let runs = of.side.map_or(&[][..], |side| &side.runs);
            runs.iter().map(|run| run.conditions.clone()).collect()
        };
        let sides: Vec<Vec<_>> = self.conditions.iter().map(conditions).collect();
        let told: Vec<&[_]> = sides.iter().map(Vec::as_slice).collect();
        let cut =
            |text: &String| harmless(&text.chars().take(ENVIRONMENT_CHARS_MAX).collect::<String>());
        let rows = side_by_side(&told).into_iter().take(ENVIRONMENT_MAX);
        rows.map(|row| model::EnvironmentRow {
            name: cut(&row.name),
            differs: row.differs,
            values: row.values.iter().map(|of| of.iter().map(cut).collect()).collect(),
        })
        .collect()
    }
}

fn pair<'a>(of: &Pair<'a>) -> PairRow<'a> {
    let comparison = of.comparison;
    let vcpus = comparison.vcpus.iter().map(|vcpu| {
        let words = |row: &vslice_report::compare::vcpus::VcpuMetricRecord| VcpuWords {
            label: row.label(harmless),
            at_least: row.at_least(),
            words: row.compared.words(),
        };
        vcpu.metrics.iter().map(words).collect()
    });
    PairRow {
        a: of.a,
        b: of.b,
        comparison,
        words: comparison.metrics.iter().map(|record| record.compared.words()).collect(),
        vcpu_words: vcpus.collect(),
        method: (!comparison.has_single_run()).then(|| comparison.method()),
        text: render(comparison, Style::PLAIN),
    }
}

/// What became of the original experiment's claim in several pairs.
fn tally(pairs: &[Pair<'_>]) -> String {
    let count = |wanted: Option<ClaimVerdict>| {
        pairs
            .iter()
            .filter(|of| of.comparison.claim.as_ref().map(|claim| claim.verdict) == wanted)
            .count()
    };
    let told = [
        (Some(ClaimVerdict::Holds), "holds in"),
        (Some(ClaimVerdict::DoesNotHold), "does not hold in"),
        (
            Some(ClaimVerdict::NoContentionFound),
            "has nothing to improve, for lack of contention, in",
        ),
        (Some(ClaimVerdict::NotDecided), "is undecided in"),
        (None, "cannot be asked in"),
    ];
    let told = told.into_iter().filter_map(|(verdict, words)| match count(verdict) {
        0 => None,
        count => Some(format!("{words} {count}")),
    });
    let told: Vec<String> = told.collect();
    let told = match &told[..] {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        other => other.concat(),
    };
    format!(
        "The claim that an iothread makes the timeslices of the reader's vCPU steadier, as it waits less for QEMU's \
         big lock: of {} pairs of conditions without and with one, it {told}.",
        pairs.len()
    )
}

fn runs(count: usize) -> String {
    format!("{count} {}", if count == 1 { "run" } else { "runs" })
}

#[cfg(test)]
mod tests;
