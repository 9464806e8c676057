//! What is printed instead of numbers of which some are wrong, and nobody knows which.

use super::page::{Page, Tone};
use crate::report::laws;
use crate::report::model::Summary;

/// Says that a summary contradicts itself, and how; `false` if it does not, and nothing is said.
pub(super) fn contradiction(page: &mut Page, summary: &Summary) -> bool {
    let Err(inconsistent) = laws::check(summary) else { return false };
    let text = "this report contradicts itself, so none of it is to be believed. That is a fault of vslice: \
                please report it, with the run directory.";
    page.paragraph("INCONSISTENT: ", text, Tone::Alarm);
    for violation in &inconsistent.violations {
        page.paragraph("  ", violation, Tone::Plain);
    }
    true
}
