//! What would help, and what would not.

use super::front::lines;
use super::page::{Page, Tone, shorten};
use super::{NAME_CHARS_MAX, Style, asked, what_if};
use crate::summary::advice::{Advice, AdviceRow, Gain};
use crate::summary::model::Summary;
use vslice_spec::quantity::duration;

/// Lines on the first page with the heading and the blank line before it, at 100 columns.
const LINES_MAX: usize = 9;

/// Rows there.
const ROWS_MAX: usize = 2;

/// Lines of a row there, without its command, and of what would not help.
const ROW_LINES_MAX: usize = 2;

/// What if and the first of the advice, in so many lines: where there are few, first what would not help goes, then
/// what if.
pub(super) fn beside_what_if(
    page: &mut Page,
    summary: &Summary,
    told: Option<&what_if::Told<'_>>,
    (room, style): (usize, Style),
) {
    let of_what_if = if told.is_some() { lines(what_if::LINES_MIN, style) } else { 0 };
    let mut advice = Page::new(style);
    for kept in [of_what_if, 0] {
        if advice.lines_count() == 0 {
            let room = room.saturating_sub(kept).min(lines(LINES_MAX, style));
            advice.fitting(room, ROWS_MAX + 1, |page, rows| short(page, summary, rows, style));
        }
    }
    let room = room.saturating_sub(advice.lines_count()).min(lines(what_if::LINES_MAX, style));
    if let Some(told) = told {
        page.fitting(room, what_if::ROWS_MAX, |page, rows| what_if::short(page, told, rows));
    }
    page.append(advice);
}

/// How many causes the first page lists: fewer beside advice, which is made of the first.
pub(super) fn causes_max(summary: &Summary) -> usize {
    if has_any(&summary.advice) { asked::CAUSES_MAX - 2 } else { asked::CAUSES_MAX }
}

fn has_any(advice: &Advice) -> bool {
    !advice.rows.is_empty() || !advice.would_not_help.is_empty()
}

/// Of one thing the first row alone, of more also what would not help.
fn short(page: &mut Page, summary: &Summary, things: usize, style: Style) {
    let advice = &summary.advice;
    if !has_any(advice) {
        return;
    }
    let rows_max = things.saturating_sub(1).max(1);
    let has_vain = things > 1 || advice.rows.is_empty();
    let lines_max = lines(ROW_LINES_MAX, style);
    heading(page, advice);
    for (place, row) in advice.rows.iter().take(rows_max).enumerate() {
        page.short_paragraph(&lead(place), &sentence(row), Tone::Plain, lines_max);
        command(page, row);
    }
    if let Some(text) = would_not_help(advice).filter(|_| has_vain) {
        page.short_paragraph("  ", &text, Tone::Dim, lines_max);
    }
}

/// All of them.
pub(super) fn full(page: &mut Page, summary: &Summary) {
    let advice = &summary.advice;
    heading(page, advice);
    for (place, row) in advice.rows.iter().enumerate() {
        page.paragraph(&lead(place), &sentence(row), Tone::Plain);
        command(page, row);
        if let Some(why) = &row.no_command_because {
            page.paragraph(BELOW_LEAD, &format!("no command, because {why}"), Tone::Dim);
        }
    }
    if let Some(why) = &advice.none_because {
        page.paragraph("  ", &format!("none, because {why}"), Tone::Plain);
    }
    if let Some(text) = would_not_help(advice) {
        page.paragraph("  ", &text, Tone::Dim);
    }
}

fn heading(page: &mut Page, advice: &Advice) {
    let of = advice
        .of
        .as_ref()
        .map_or_else(String::new, |of| format!("{}: ", shorten(of, NAME_CHARS_MAX)));
    page.heading(
        "Advice",
        &format!("{of}by the figures of this run alone; gains are bounds, as above"),
    );
}

fn lead(place: usize) -> String {
    format!("  {}. ", place + 1)
}

/// As wide as a lead.
const BELOW_LEAD: &str = "     ";

fn sentence(row: &AdviceRow) -> String {
    let Gain { percentile, measured_ns, told_ns, .. } = row.gain;
    let (percentile, left) = (percentile.label(), duration(measured_ns - told_ns));
    format!(
        "{} ({percentile} {} to {left} at best): {}.",
        row.action,
        duration(measured_ns),
        row.because
    )
}

fn command(page: &mut Page, row: &AdviceRow) {
    if let Some(command) = &row.command {
        page.paragraph(BELOW_LEAD, command, Tone::Strong);
    }
}

fn would_not_help(advice: &Advice) -> Option<String> {
    let rows = advice.would_not_help.iter();
    let rows: Vec<String> =
        rows.map(|row| format!("{} ({})", row.remedy.label(), row.because)).collect();
    (!rows.is_empty()).then(|| format!("would not help: {}", rows.join("; ")))
}
