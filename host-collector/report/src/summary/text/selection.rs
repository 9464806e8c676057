//! Which part of a run a page is about, before all else on it.

use super::page::{Page, Tone};
use crate::summary::model::Summary;

/// What is told and how much of the run is left out, in so many lines each.
pub(super) fn head(page: &mut Page, summary: &Summary, lines_max: usize) {
    let Some(selection) = &summary.facts.selection else { return };
    page.short_paragraph("", &selection.sentence(), Tone::Strong, lines_max);
    page.short_paragraph("  ", &selection.left_out_sentence(), Tone::Plain, lines_max);
}

/// Behind figures that are of the whole run, on a page about a part of it.
pub(super) fn of_whole_run(summary: &Summary) -> &'static str {
    if summary.facts.selection.is_some() { " (of the whole run)" } else { "" }
}

/// What was lost, on a page about a part of a run.
pub(super) fn in_this_part(summary: &Summary, losses: String) -> String {
    if summary.facts.selection.is_some() { format!("in this part: {losses}") } else { losses }
}
