//! What is printed instead of numbers if some of them must be wrong.

use super::page::{Page, Tone};
use crate::summary::laws;
use crate::summary::model::Summary;
use crate::summary::verdict::verdict;
use vslice_spec::quantity::count;

const INCONSISTENT: &str = "INCONSISTENT: ";

const CONTRADICTS: &str = "this report contradicts itself, so do not trust any of it. This is a bug in vslice: please \
                           report it, with the run directory.";

/// What a page says first: the answer, or that there is none to be trusted. The names in it come from guests and hosts:
/// whoever prints it must sanitise it.
#[must_use]
pub fn first_words(summary: &Summary) -> String {
    match laws::check(summary) {
        Ok(()) => verdict(summary),
        Err(_) => format!("{INCONSISTENT}{CONTRADICTS}"),
    }
}

/// Prints that a summary contradicts itself, and how, with at most so many laws and so many lines for each.
/// Returns `false` and prints nothing if it does not.
pub(super) fn contradiction(
    page: &mut Page,
    summary: &Summary,
    (laws_max, lines_max): (usize, usize),
) -> bool {
    let Err(inconsistent) = laws::check(summary) else { return false };
    page.paragraph(INCONSISTENT, CONTRADICTS, Tone::Alarm);
    let violations = &inconsistent.violations;
    for violation in violations.iter().take(laws_max) {
        page.short_paragraph("  ", violation, Tone::Plain, lines_max);
    }
    let more = violations.len().saturating_sub(laws_max);
    if more > 0 {
        let text = format!("and {} more: --full shows them all", count(more as u64));
        page.paragraph("  ", &text, Tone::Plain);
    }
    true
}
