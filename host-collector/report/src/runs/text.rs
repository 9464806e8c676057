//! The runs of a folder as a page. Pure.

use super::{Figures, Outcome, Run, Runs};
use crate::summary::Style;
use crate::summary::text::page::{Page, Table, Tone, shorten};
use vslice_core::calendar::DayTime;
use vslice_spec::quantity::{bytes, count, counted, known_duration, percent};

/// Columns of a path that are printed; the JSON has it whole.
const PATH_COLUMNS_MAX: usize = 60;

/// Columns of a reason that are printed.
const REASON_COLUMNS_MAX: usize = 120;

/// A row for each run. The plan is in the name that a run is given, unless somebody wants another: only the
/// JSON has it.
#[must_use]
pub fn render(runs: &Runs, style: Style) -> String {
    let mut page = Page::new(style);
    let folder = shorten(&runs.folder, PATH_COLUMNS_MAX);
    page.title(&folder, &counted(runs.runs.len() as u64, "run"));
    let mut table = Table::new("n l r l rrr l");
    let head = ["", "written (UTC)", "size", "VMs", "requests", "p50", "p99", "first cause"];
    table.row(Tone::Dim, head);
    for run in &runs.runs {
        row(&mut table, run);
    }
    page.table(&table);
    if let Some(reason) = &runs.incomplete {
        let reason = shorten(reason, REASON_COLUMNS_MAX);
        page.paragraph("  ", &format!("There may be more: {reason}."), Tone::Alarm);
    }
    page.into_text()
}

fn row(table: &mut Table, run: &Run) {
    let path = shorten(&run.path, PATH_COLUMNS_MAX);
    let written = run.written_s.map_or_else(|| "-".to_owned(), utc);
    let (tone, figures, note) = match &run.outcome {
        Outcome::Complete(figures) => (Tone::Plain, Some(figures), first_cause(figures)),
        Outcome::Partial { reason, figures } => {
            let reason = shorten(reason, REASON_COLUMNS_MAX);
            (Tone::Alarm, Some(figures), format!("PARTIAL: {reason}; {}", first_cause(figures)))
        }
        Outcome::Unreadable { reason } => {
            (Tone::Alarm, None, format!("no report: {}", shorten(reason, REASON_COLUMNS_MAX)))
        }
    };
    let shown = |show: fn(&Figures) -> String| figures.map_or_else(|| "-".to_owned(), show);
    let cells = [
        path,
        written,
        run.bytes.map_or_else(|| "-".to_owned(), bytes),
        shown(|figures| shorten(&figures.vms.join(", "), PATH_COLUMNS_MAX)),
        shown(|figures| count(figures.requests)),
        shown(|figures| known_duration(figures.p50_ns)),
        shown(|figures| known_duration(figures.p99_ns)),
        note,
    ];
    table.row(tone, cells);
}

fn first_cause(figures: &Figures) -> String {
    let shown = |label: &str, share| format!("{} {label}", percent(share));
    let cause = figures.first_cause.as_ref();
    cause.map_or_else(|| "-".to_owned(), |cause| shown(&cause.label, cause.share))
}

/// `2026-11-29 16:13`.
fn utc(seconds: u64) -> String {
    let time = DayTime::of_unix_s(i64::try_from(seconds).unwrap_or(i64::MAX), 0).to_string();
    // Without its seconds.
    time[..time.len() - 3].to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::example::{WRITTEN_S, folder, listed};
    use super::*;
    use vslice_core::text::columns;

    fn wide(runs: &Runs) -> String {
        render(runs, Style { width: 400, ..Style::PLAIN })
    }

    #[test]
    fn a_run_is_a_row_with_what_it_came_to() {
        let (runs, _) = listed(folder().path());
        let page = wide(&runs);
        let rows: Vec<&str> = page.lines().skip(2).collect();
        assert!(rows[0].trim_start().starts_with("demo-1 "), "{page}");
        assert!(rows[0].contains("2026-11-29 16:13"), "{page}");
        assert!(rows[0].contains("2,000  334 us  4.55 ms  65.6 % preemption wait"), "{page}");
        assert!(rows[1].contains("PARTIAL: interrupted; 65.6 %"), "{page}");
        assert!(rows[2].contains("no report: ") && rows[2].contains("run.json"), "{page}");
        assert_eq!(rows.len(), 4, "{page}");
    }

    #[test]
    fn the_name_of_a_run_is_whole_and_in_one_line() {
        let (mut runs, _) = listed(folder().path());
        let name = "iothread-1795471866/virtio-blk-iothread/12";
        runs.runs[0].path = name.to_owned();
        for width in [60, 80, 100] {
            let page = render(&runs, Style { width, ..Style::PLAIN });
            assert!(page.contains(&format!("  {name}  ")), "{width}: {page}");
        }
    }

    #[test]
    fn long_and_hostile_names_stay_within_the_page() {
        let (mut runs, _) = listed(folder().path());
        runs.incomplete = Some("x".repeat(5000));
        runs.runs[0].path = format!("\x1b[2J{}", "x".repeat(5000));
        if let Outcome::Complete(figures) = &mut runs.runs[0].outcome {
            figures.vms = vec!["\r\n\u{202e}vm".to_owned(); 500];
        }
        for width in [60, 80, 100, 400] {
            let page = render(&runs, Style { width, ..Style::PLAIN });
            assert!(page.lines().skip(1).all(|line| columns(line) <= width), "{width}: {page}");
            let is_harmless = |letter: char| letter == '\n' || !letter.is_control();
            assert!(page.chars().all(|letter| is_harmless(letter) && letter != '\u{202e}'));
            assert!(page.len() < 8000, "{}", page.len());
        }
        assert!(wide(&runs).contains("There may be more: xxx"));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_709_251_200, "2024-03-01 00:00"),
            (WRITTEN_S, "2026-11-29 16:13"),
        ] {
            assert_eq!(utc(seconds), text, "{seconds}");
        }
    }
}
