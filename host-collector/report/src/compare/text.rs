//! A comparison as a page of text.

use super::vcpus::VcpuRecord;
use super::verdict::{ClaimVerdict, Verdict};
use super::{Compared, Comparison, MetricRecord, Sample, SideRecord, spread};
use crate::summary::Style;
use crate::summary::text::page::{Page, Table, Tone, shorten};
use vslice_spec::quantity::counted;

/// Characters of a path that are printed; the JSON has it whole.
const PATH_CHARS_MAX: usize = 60;

/// Characters of the name of a VM or a thread.
const NAME_CHARS_MAX: usize = 40;

/// The comparison as text. Control characters in names are replaced, so that a terminal cannot be controlled.
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
    page.paragraph("", &comparison.answer.sentence, Tone::Strong);
    page.blank();
    if let Some(claim) = &comparison.claim {
        let tone = match claim.verdict {
            ClaimVerdict::Holds | ClaimVerdict::NoContentionFound => Tone::Plain,
            ClaimVerdict::DoesNotHold | ClaimVerdict::NotDecided => Tone::Alarm,
        };
        page.paragraph("", &claim.sentence, tone);
        page.blank();
    }
    spread::draw(&mut page, &comparison.a.timeslices, &comparison.b.timeslices);
    let is_decided = !comparison.has_single_run();
    metrics(&mut page, &comparison.metrics, is_decided);
    // What the requests waited for tells of their vCPU; where there are none, the vCPUs are all there is.
    if comparison.metrics.is_empty() {
        vcpus(&mut page, &comparison.vcpus, is_decided);
    }
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

/// The columns of a table of figures: the last three only where the repeats can decide something.
const COLUMNS: [&str; 6] = ["mean of A", "mean of B", "B to A", "95 % interval", "p", "verdict"];
const COLUMNS_OF_ONE_RUN: usize = 3;

/// The cells of one figure, in the order of [`COLUMNS`].
fn cells(compared: &Compared, is_decided: bool) -> Vec<String> {
    let show = |of: &Sample| of.mean.map_or("-".to_owned(), |mean| compared.unit.show(mean));
    let words = compared.words();
    let or_dash = |words: Option<String>| words.unwrap_or_else(|| "-".to_owned());
    let cells = [
        show(&compared.a),
        show(&compared.b),
        or_dash(words.effect),
        or_dash(words.interval),
        or_dash(words.p),
        words.verdict,
    ];
    cells.into_iter().take(columns(is_decided).len()).collect()
}

fn columns(is_decided: bool) -> &'static [&'static str] {
    if is_decided { &COLUMNS } else { &COLUMNS[..COLUMNS_OF_ONE_RUN] }
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Lower | Verdict::Higher => Tone::Strong,
        Verdict::NoDifference { .. } | Verdict::NotDecided { .. } => Tone::Plain,
    }
}

fn metrics(page: &mut Page, metrics: &[MetricRecord], is_decided: bool) {
    if metrics.is_empty() {
        return;
    }
    let mut table = Table::new("l rr rr r l");
    table.row(Tone::Dim, [""].iter().chain(columns(is_decided)).copied());
    for record in metrics {
        let compared = &record.compared;
        let cells = [record.label()].into_iter().chain(cells(compared, is_decided));
        table.row(tone(compared.verdict), cells);
    }
    page.table(&table);
}

fn vcpus(page: &mut Page, vcpus: &[VcpuRecord], is_decided: bool) {
    if vcpus.is_empty() {
        return;
    }
    let note = "time off its pCPU, and who ran there meanwhile, per second of its time";
    page.title("vCPUs", note);
    let mut table = Table::new("ll rr rr r l");
    table.row(Tone::Dim, ["", ""].iter().chain(columns(is_decided)).copied());
    for vcpu in vcpus {
        let mut name = format!("{} {}", shorten(&vcpu.vm, NAME_CHARS_MAX), vcpu.vcpu);
        for row in &vcpu.metrics {
            let what = row.label(|name| shorten(name, NAME_CHARS_MAX));
            let mut cells = cells(&row.compared, is_decided);
            // Some runs of the side tell it, and it is not known of the others.
            for (cell, least) in cells.iter_mut().zip(row.at_least()) {
                if let Some(least) = least {
                    *cell = format!("at least {}", row.compared.unit.show(least));
                }
            }
            let cells = [std::mem::take(&mut name), what].into_iter().chain(cells);
            table.row(tone(row.compared.verdict), cells);
        }
    }
    page.table(&table);
}

fn notes(page: &mut Page, comparison: &Comparison) {
    // The answer says what a single run leaves open, and the table has no column that would need words.
    if !comparison.has_single_run() {
        page.paragraph("note: ", &comparison.method(), Tone::Dim);
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
