//! The spread of timeslices in each run, as numbers and as a picture.

use super::SpreadRecord;
use crate::summary::model::Timeslices;
use crate::summary::text::page::{Page, Tone};
use serde::Serialize;
use vslice_spec::quantity::{counted, duration};

/// Where most timeslices of the reader's vCPU lie in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The 10th percentile.
    pub p10_ns: u64,
    /// The median.
    pub p50_ns: u64,
    /// The 90th percentile.
    pub p90_ns: u64,
}

/// Places in a line of the picture.
const PLACES_COUNT: usize = 60;

/// Runs of one side that are drawn at most.
const RUNS_MAX: usize = 10;

impl Spread {
    /// From the timeslices of one vCPU; `None` if there are none.
    #[must_use]
    pub fn of(timeslices: &Timeslices) -> Option<Spread> {
        let Timeslices { p10_ns, p50_ns, p90_ns, .. } = *timeslices;
        Some(Spread { p10_ns: p10_ns?, p50_ns: p50_ns?, p90_ns: p90_ns? })
    }

    /// A line from one percentile to the other on this scale, the median in it as an `o`.
    fn line(self, scale: LogScale) -> String {
        let (first, median, last) =
            (scale.place(self.p10_ns), scale.place(self.p50_ns), scale.place(self.p90_ns));
        let letter = |place: usize| match place {
            place if place == median => 'o',
            place if (first..=last).contains(&place) => '-',
            _ => ' ',
        };
        (0..PLACES_COUNT).map(letter).collect()
    }
}

/// A scale on which equal ratios are equally far apart.
#[derive(Debug, Clone, Copy)]
struct LogScale {
    low_ns: u64,
    high_ns: u64,
}

impl LogScale {
    /// From the least to the most of all of them, and over a factor of two at least, so that what hardly
    /// differs does not look as if it did.
    fn over<'a>(spreads: impl Iterator<Item = &'a Spread> + Clone) -> Option<LogScale> {
        let low_ns = spreads.clone().map(|spread| spread.p10_ns).min()?.max(1);
        let high_ns = spreads.map(|spread| spread.p90_ns).max()?;
        Some(LogScale { low_ns, high_ns: high_ns.max(low_ns.saturating_mul(2)) })
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and the number of places"
    )]
    fn place(self, length_ns: u64) -> usize {
        let log = |length_ns: u64| (length_ns.max(1) as f64).ln();
        let share = (log(length_ns) - log(self.low_ns)) / (log(self.high_ns) - log(self.low_ns));
        (share.clamp(0.0, 1.0) * (PLACES_COUNT - 1) as f64).round() as usize
    }
}

/// Draws a line for each run, unless a side has none.
pub(super) fn draw(page: &mut Page, a: &[SpreadRecord], b: &[SpreadRecord]) {
    let all = a.iter().chain(b).map(|record| &record.spread);
    let Some(scale) = LogScale::over(all) else { return };
    if a.is_empty() || b.is_empty() {
        return;
    }
    let title = format!(
        "each run's p10 to p90, and its median (o); the scale is logarithmic, from {} to {}",
        duration(scale.low_ns),
        duration(scale.high_ns)
    );
    page.paragraph("Timeslices of the reader's vCPU  ", &title, Tone::Plain);
    for (name, spreads) in [("A", a), ("B", b)] {
        for SpreadRecord { spread, .. } in spreads.iter().take(RUNS_MAX) {
            page.line(&[
                (Tone::Strong, &format!("  {name}  ")),
                (Tone::Plain, &spread.line(scale)),
            ]);
        }
        if let Some(more) = spreads.len().checked_sub(RUNS_MAX).filter(|more| *more > 0) {
            let text = format!("  {name}  and {}", counted(more as u64, "more run"));
            page.line(&[(Tone::Dim, &text)]);
        }
    }
    page.blank();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Style;

    const STEADY: Spread = Spread { p10_ns: 4_000_000, p50_ns: 4_000_000, p90_ns: 4_000_000 };

    fn drawn(a: &[Spread], b: &[Spread]) -> String {
        let mut page = Page::new(Style::PLAIN);
        let records = |of: &[Spread]| -> Vec<SpreadRecord> {
            of.iter()
                .enumerate()
                .map(|(run, spread)| SpreadRecord { run, spread: *spread })
                .collect()
        };
        draw(&mut page, &records(a), &records(b));
        page.into_text()
    }

    #[test]
    fn what_is_steady_is_a_point_and_what_jitters_is_a_line() {
        let jitters = Spread { p10_ns: 1_000_000, p50_ns: 4_000_000, p90_ns: 16_000_000 };
        let page = drawn(&[jitters], &[STEADY]);
        let lines: Vec<&str> = page.lines().collect();
        let drawn_of = |name: &str| {
            lines.iter().find_map(|line| line.strip_prefix(&format!("  {name}  "))).expect("drawn")
        };
        let half = "-".repeat(PLACES_COUNT / 2 - 1);
        assert_eq!(drawn_of("A"), format!("{half}-o{half}"));
        assert_eq!(drawn_of("B"), format!("{}o", " ".repeat(PLACES_COUNT / 2)));
        assert!(page.contains("from 1.00 ms to 16.0 ms"), "{page}");
    }

    #[test]
    fn what_hardly_differs_is_drawn_close_together() {
        let close = Spread { p90_ns: 4_040_000, ..STEADY };
        assert!(drawn(&[close], &[STEADY]).contains("\n  A  o-\n  B  o\n"), "a hundredth");
        assert!(drawn(&[STEADY], &[STEADY]).contains("\n  A  o\n"), "no division by nothing");
    }

    #[test]
    fn a_side_without_any_is_no_picture_and_one_of_many_runs_is_cut_short() {
        assert_eq!(drawn(&[], &[STEADY]), "");
        assert_eq!(drawn(&[], &[]), "");
        let page = drawn(&[STEADY; 13], &[STEADY; 10]);
        assert!(page.contains("  A  and 3 more runs\n") && !page.contains("B  and"), "{page}");
    }

    #[test]
    fn percentiles_that_a_report_could_not_have_are_drawn_all_the_same() {
        let upside_down = Spread { p10_ns: u64::MAX, p50_ns: 0, p90_ns: 0 };
        let page = drawn(&[upside_down], &[STEADY]);
        assert!(page.contains("\n  A  o\n") && page.contains("\n  B  o\n"), "{page}");
    }
}
