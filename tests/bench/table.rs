//! The result for people.

use crate::processes::Window;
use crate::rounds::{IDLE_THREADS, Results, Row};
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
    let Results { rounds, window, places, load, nothing, .. } = results;
    writeln!(
        text,
        "What recording one context switch costs, in ns by the clock: the median of {rounds} rounds, \
         each\nagainst the windows of {window:?} around it. Quiet: in the slice at the lower quartile \
         of each window.\n"
    )?;
    writeln!(
        text,
        "{:<38}{:>7} {:>15} {:>7} {:>6} {:>11} {:>9} {:>7}",
        "", "quiet", "[95 %]", "mean", "limit", "recorded", "lost", "steal"
    )?;
    for row in &results.rows {
        write_row(text, row)?;
    }
    let all = |of: fn(&Window) -> f64| middle(nothing.iter().map(of));
    if let (Some(quiet), Some(mean)) =
        (all(Window::quiet_ns_per_switch), all(Window::wall_ns_per_switch))
    {
        let [slowest, fastest] = extremes(nothing);
        writeln!(
            text,
            "\nnothing: {:.0} ns a switch in quiet slices, {:.0} ns ({:.0} a second) on the whole; \
             windows from {fastest:.0} to {slowest:.0} ns",
            quiet.median,
            mean.median,
            1e9 / mean.median,
        )?;
    }
    writeln!(text, "two threads over pipes on {}; readers on {}", places.measured, places.others)?;
    writeln!(text, "load average {} at the start, {} at the end", load[0], load[1])?;
    writeln!(
        text,
        "vslice also watches a sleeping VM of {IDLE_THREADS} threads, half of them vCPUs"
    )
}

fn extremes(windows: &[Window]) -> [f64; 2] {
    let values = || windows.iter().map(Window::wall_ns_per_switch);
    [values().fold(0.0, f64::max), values().fold(f64::INFINITY, f64::min)]
}

fn write_row(text: &mut String, row: &Row) -> std::fmt::Result {
    if let Err(reason) = &row.measured {
        return writeln!(text, "{:<38}not measured: {reason}", row.rival);
    }
    let (Some(quiet), Some(mean)) = (row.quiet_ns(), row.wall_ns()) else { return Ok(()) };
    let Middle { median, interval: (low, high) } = quiet;
    let limit = row.rival.limit_ns().map_or_else(String::new, |limit| format!("{limit:.0}"));
    let recorded = row.recorded();
    let share = recorded.switches_count * 100 / row.switches_count().max(1);
    let steal = row.steal_permille();
    writeln!(
        text,
        "{:<38}{median:>7.0} {:>15} {:>7.0} {limit:>6} {:>9} % {:>9} {:>5}.{} %",
        row.rival,
        format!("[{low:.0}, {high:.0}]"),
        mean.median,
        share,
        recorded.lost_count,
        steal / 10,
        steal % 10
    )
}
