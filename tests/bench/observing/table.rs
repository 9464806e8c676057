//! The result for people.

use super::load::Window;
use super::rounds::{Results, Row};
use crate::statistics::{Middle, middle};
use std::fmt::Write as _;

/// The whole text.
pub(crate) fn of(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, results);
    text
}

fn write(text: &mut String, results: &Results) -> std::fmt::Result {
    let Results { rounds, window, places, device, nothing, rows } = results;
    writeln!(
        text,
        "What observing one block request costs, in ns: the median of {rounds} rounds, each against \
         the\nwindows of {window:?} around it. Longer: what a read takes longer, in the slice at the \
         lower quartile; mean: \
         on the whole.\nRecorder: the CPU time of who records. Idle: its us a second while nothing is \
         requested.\n"
    )?;
    writeln!(
        text,
        "{:<28}{:>7} {:>15} {:>7} {:>9} {:>7} {:>6} {:>6} {:>9} {:>6} {:>7}",
        "",
        "longer",
        "[95 %]",
        "mean",
        "recorder",
        "sum",
        "ratio",
        "idle",
        "recorded",
        "lost",
        "steal"
    )?;
    let least = rows.iter().find_map(Row::sum_ns).map(|sum| sum.median);
    for row in rows {
        write_row(text, row, least)?;
    }
    let all = |of: fn(&Window) -> f64| middle(nothing.iter().map(of));
    if let (Some(quiet), Some(mean)) =
        (all(|window| window.quiet_ns), all(Window::wall_ns_per_request))
    {
        writeln!(
            text,
            "\nnothing: {:.0} ns a read of 4 KiB in quiet slices, {:.0} ns ({:.0} a second) on the whole",
            quiet.median,
            mean.median,
            1e9 / mean.median
        )?;
    }
    writeln!(text, "{device}, read on {}; readers of rings on {}", places.measured, places.others)
}

fn write_row(text: &mut String, row: &Row, least: Option<f64>) -> std::fmt::Result {
    if let Err(reason) = &row.measured {
        return writeln!(text, "{:<28}not measured: {reason}", row.rival);
    }
    let (Some(quiet), Some(mean), Some(recorder), Some(sum), Some(idle)) =
        (row.quiet_ns(), row.wall_ns(), row.recorder_ns(), row.sum_ns(), row.idle_ns_per_s())
    else {
        return Ok(());
    };
    let Middle { median, interval: (low, high) } = quiet;
    let ratio = least.map_or_else(String::new, |least| format!("{:.2}", sum.median / least));
    let (recorded, steal) = (row.recorded_permille(), row.steal_permille());
    writeln!(
        text,
        "{:<28}{median:>7.0} {:>15} {:>7.0} {:>9.0} {:>7.0} {ratio:>6} {:>6.0} {:>5}.{} % {:>6} {:>3}.{} %",
        row.rival,
        format!("[{low:.0}, {high:.0}]"),
        mean.median,
        recorder.median,
        sum.median,
        idle.median / 1000.0,
        recorded / 10,
        recorded % 10,
        row.lost_count(),
        steal / 10,
        steal % 10
    )
}
