//! What is printed instead of numbers if some of them must be wrong.

use super::page::{Page, Tone};
use crate::summary::laws;
use crate::summary::model::Summary;
use vslice_spec::quantity::count;

/// Prints that a summary contradicts itself, and how, with at most so many laws and so many lines for each.
/// Returns `false` and prints nothing if it does not.
pub(super) fn contradiction(
    page: &mut Page,
    summary: &Summary,
    (laws_max, lines_max): (usize, usize),
) -> bool {
    let Err(inconsistent) = laws::check(summary) else { return false };
    let text = "this report contradicts itself, so do not trust any of it. This is a bug in vslice: please \
                report it, with the run directory.";
    page.paragraph("INCONSISTENT: ", text, Tone::Alarm);
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
