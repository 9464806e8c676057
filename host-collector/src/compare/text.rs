//! A comparison as a page of text.

use super::statistics::{EXACT_RUNS_MAX, RankMethod, RankTest};
use super::verdict::{ClaimVerdict, Verdict, show_effect, show_interval};
use super::{Comparison, MetricRecord, Sample, SideRecord, margins, spread};
use crate::report::Style;
use crate::report::text::page::{Page, Table, Tone, shorten};
use crate::report::text::units::{count, counted};

/// Characters of a path that are printed; the JSON has it whole.
const PATH_CHARS_MAX: usize = 60;

/// The comparison as text; what of its names a terminal could obey is made harmless.
#[must_use]
pub fn render(comparison: &Comparison, style: Style) -> String {
    let mut page = Page::new(style);
    let name = |side: &SideRecord| {
        let path = shorten(&side.path, PATH_CHARS_MAX);
        format!("{path} ({})", counted(side.runs.len() as u64, "run"))
    };
    let title =
        format!("vslice compare: A {} against B {}", name(&comparison.a), name(&comparison.b));
    page.paragraph("", &title, Tone::Strong);
    page.blank();
    let tone = match comparison.claim.verdict {
        ClaimVerdict::Holds | ClaimVerdict::NoContentionFound | ClaimVerdict::NotAsked => {
            Tone::Strong
        }
        ClaimVerdict::DoesNotHold | ClaimVerdict::NotDecided => Tone::Alarm,
    };
    page.paragraph("", &comparison.claim.sentence, tone);
    page.blank();
    spread::draw(&mut page, &comparison.a.timeslices, &comparison.b.timeslices);
    metrics(&mut page, &comparison.metrics);
    page.blank();
    notes(&mut page, comparison);
    for (side, record) in [("A", &comparison.a), ("B", &comparison.b)] {
        for run in &record.left_out {
            let text = format!("{} of {side} is left out: {}", run.path, run.reason);
            page.paragraph("note: ", &text, Tone::Plain);
        }
    }
    for warning in &comparison.warnings {
        page.paragraph("warning: ", warning, Tone::Alarm);
    }
    page.into_text()
}

fn metrics(page: &mut Page, metrics: &[MetricRecord]) {
    if metrics.is_empty() {
        let text = "no run tells of anything that is compared: none has a reader, or any request";
        return page.paragraph("", text, Tone::Alarm);
    }
    let mut table = Table::new("lrrrlrl");
    let head = ["", "mean of A", "mean of B", "B to A", "95 % interval", "p", "verdict"];
    table.row(Tone::Dim, head);
    for record in metrics {
        let tone = match record.verdict {
            Verdict::Lower | Verdict::Higher => Tone::Strong,
            Verdict::NoDifference { .. } | Verdict::NotDecided { .. } => Tone::Plain,
        };
        let show =
            |sample: &Sample| sample.mean.map_or("-".to_owned(), |mean| record.unit.show(mean));
        let scale = record.scale;
        let dash = || "-".to_owned();
        table.row(
            tone,
            [
                record.kind.label(),
                show(&record.a),
                show(&record.b),
                record.effect.map_or_else(dash, |effect| show_effect(scale, effect)),
                record.interval.map_or_else(dash, |interval| show_interval(scale, interval)),
                record.rank_test.map_or_else(dash, |test| show_p(test.p)),
                record.verdict.to_string(),
            ],
        );
    }
    page.table(&table);
}

/// Three decimals; what is not nothing never reads as nothing.
fn show_p(p: f64) -> String {
    if p < 0.0005 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

fn notes(page: &mut Page, comparison: &Comparison) {
    let resamples = count(comparison.bootstrap.resamples as u64);
    let is_normal =
        |test: Option<RankTest>| test.is_some_and(|test| test.method == RankMethod::Normal);
    let method = if comparison.metrics.iter().any(|record| is_normal(record.rank_test)) {
        format!("by the normal approximation, as there are more than {EXACT_RUNS_MAX} runs")
    } else {
        "exact, ties included".to_owned()
    };
    let text = format!(
        "means and intervals are over runs, not requests: percentile bootstrap, {resamples} resamples; p: \
         Mann-Whitney, two-sided, {method}, of each metric by itself; {}",
        margins()
    );
    page.paragraph("note: ", &text, Tone::Dim);
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
