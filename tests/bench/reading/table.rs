//! The result, for people and for programs.

use super::rounds::{Pair, Results, Row};
use super::task::Task;
use crate::statistics::Middle;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The whole text.
pub(crate) fn of(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, results);
    text
}

fn write(text: &mut String, results: &Results) -> std::fmt::Result {
    let Results { rounds, window, places, target, load, rows } = results;
    writeln!(
        text,
        "The guest's reader beside fio: medians of {rounds} rounds of {window:?} each, one right after \
         the other.\nRatio: how many times as fast as fio, round by round. fio keeps no record of a \
         request, but in the first\nrow, where it is what its log of latencies adds to a request; \
         vslice keeps one of each.\n"
    )?;
    writeln!(
        text,
        "{:<38}{:>9} {:>9} {:>7} {:>15} {:>7} {:>9} {:>13}",
        "", "vslice", "fio", "ratio", "[95 %]", "goal", "recorded", "CPU"
    )?;
    for row in rows {
        write_row(text, row)?;
    }
    writeln!(
        text,
        "\n{}, 4 KiB with O_DIRECT, random places, read on {}; records taken on {}",
        target.display(),
        places.measured,
        places.others
    )?;
    writeln!(text, "load average {} at the start, {} at the end", load[0], load[1])
}

fn write_row(text: &mut String, row: &Row) -> std::fmt::Result {
    if let Err(reason) = &row.measured {
        return writeln!(text, "{:<38}not measured: {reason}", row.task);
    }
    let (Some(vslice), Some(fio), Some(ratio), Some(cpu)) =
        (row.vslice(), row.fio(), row.ratio(), row.processor_ns())
    else {
        return Ok(());
    };
    let [own, of_fio] = cpu.map(|middle| middle.median);
    let Middle { median, interval: (low, high) } = ratio;
    let recorded = row.recorded_permille();
    let places = if row.task == Task::Record { 1 } else { 0 };
    writeln!(
        text,
        "{:<38}{:>9.places$} {:>9.places$} {median:>7.2} {:>15} {:>7} {:>5}.{} % {:>13}",
        row.task,
        vslice.median,
        fio.median,
        format!("[{low:.2}, {high:.2}]"),
        row.task.goal(),
        recorded / 10,
        recorded % 10,
        format!("{own:.0}, {of_fio:.0}"),
    )
}

/// Every pair and what follows from them.
pub(crate) fn json_of(results: &Results) -> Value {
    json!({
        "rounds": results.rounds,
        "window_ns": u64::try_from(results.window.as_nanos()).unwrap_or(u64::MAX),
        "measured_pcpu": results.places.measured.0,
        "others_pcpu": results.places.others.0,
        "target": results.target.to_string_lossy(),
        "load_before": results.load[0],
        "load_after": results.load[1],
        "rows": results.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn row(row: &Row) -> Value {
    let pairs = match &row.measured {
        Ok(pairs) => pairs,
        Err(reason) => return json!({"task": row.task.to_string(), "missing": reason}),
    };
    json!({
        "task": row.task.to_string(),
        "goal": row.task.goal(),
        "vslice": row.vslice().map(crate::json::middle),
        "fio": row.fio().map(crate::json::middle),
        "ratio": row.ratio().map(crate::json::middle),
        "processor_ns": row.processor_ns().map(|both| both.map(crate::json::middle)),
        "recorded_permille": row.recorded_permille(),
        "pairs": pairs.iter().map(pair).collect::<Vec<_>>(),
    })
}

fn pair(pair: &Pair) -> Value {
    json!({
        "vslice": pair.vslice.value,
        "fio": pair.fio,
        "vslice_processor_ns": pair.vslice.processor_ns,
        "fio_processor_ns": pair.fio_processor_ns,
    })
}
