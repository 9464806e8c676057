//! The goals, for people, for programs, and for a document.

use super::goal::Row;
use super::rounds::Results;
use crate::statistics::middle;
use anyhow::Context;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// The whole text.
pub(crate) fn of(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, results);
    text
}

fn write(text: &mut String, results: &Results) -> std::fmt::Result {
    let has_parent = results.rows.iter().any(|row| !row.parent.is_empty());
    let older = |head: &str, width| match has_parent {
        true => format!(" {head:>width$}"),
        false => String::new(),
    };
    writeln!(
        text,
        "{:<39}{:>8}{}{:>10} {:>19}  {:<23}{:>9}{:>7} {:>15}",
        "",
        "goal",
        older("before", 9) + &older("gain", 6),
        "now",
        "[95 %]",
        "beside",
        "",
        "ratio",
        "[95 %]"
    )?;
    for row in &results.rows {
        writeln!(text, "{}", line(row, has_parent).trim_end())?;
    }
    writeln!(
        text,
        "\nmedians of {} rounds, of {} recordings where something is recorded; ratio and gain: how many \
         times better, pair\nby pair; * is a goal that is not met. The run that is analysed has {} events \
         and {} requests.",
        results.rounds, results.recordings, results.events_count, results.requests_count
    )?;
    if has_parent {
        let commit = results.older_commit.as_deref().unwrap_or("an unknown commit");
        writeln!(text, "before: {commit}, which recorded the same load by itself")?;
    }
    writeln!(text, "{}", machine())?;
    writeln!(text, "load average {} at the start, {} at the end", results.load[0], results.load[1])
}

fn line(row: &Row, has_parent: bool) -> String {
    let places = row.places;
    let number = |values: &[f64]| {
        let middle = middle(values.iter().copied());
        middle.map_or_else(|| "-".to_owned(), |middle| format!("{:.places$}", middle.median))
    };
    let mut line = format!("{:<39}{:>8}", row.name, row.goal_text());
    if has_parent {
        let gain = row.gain().map_or_else(|| "-".to_owned(), |gain| format!("{:.1}", gain.median));
        let _ = write!(line, " {:>9} {gain:>6}", number(&row.parent));
    }
    let Some(now) = middle(row.now.iter().copied()) else {
        let reason = row.missing.as_deref().unwrap_or("nothing was measured");
        return format!("{line}  not measured: {reason}");
    };
    let mark = if row.is_met() == Some(false) { "*" } else { "" };
    let interval = format!("[{:.places$}, {:.places$}]", now.interval.0, now.interval.1);
    let _ = write!(line, "{:>10} {interval:>19}", format!("{mark}{:.places$}", now.median));
    if let (Some(rival), Some(ratio)) = (&row.rival, row.ratio()) {
        let interval = format!("[{:.2}, {:.2}]", ratio.interval.0, ratio.interval.1);
        let (name, of_rival) = (rival.name, number(&rival.values));
        let _ = write!(line, "  {name:<23}{of_rival:>9}{:>7.2} {interval:>15}", ratio.median);
    }
    line
}

/// What was measured on: the processor, its number, the kernel, the commit.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model));
    let pcpus = processors.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .filter(|said| !said.is_empty())
    };
    let commit = said("git", &["describe", "--always", "--dirty"]);
    format!(
        "{}, {pcpus} pCPUs, Linux {}, commit {}, {}",
        model.unwrap_or("an unknown processor"),
        kernel.trim(),
        commit.as_deref().unwrap_or("unknown"),
        said("date", &["+%F"]).as_deref().unwrap_or("an unknown day")
    )
}

/// Every value and what follows from them.
pub(crate) fn json_of(results: &Results) -> Value {
    json!({
        "rounds": results.rounds,
        "recordings": results.recordings,
        "events_count": results.events_count,
        "requests_count": results.requests_count,
        "older_commit": results.older_commit,
        "machine": machine(),
        "load_before": results.load[0],
        "load_after": results.load[1],
        "rows": results.rows.iter().map(json_of_row).collect::<Vec<_>>(),
    })
}

fn json_of_row(row: &Row) -> Value {
    let of = |values: &[f64]| middle(values.iter().copied()).map(crate::json::middle);
    json!({
        "name": row.name,
        "goal": row.goal_text(),
        "is_met": row.is_met(),
        "missing": row.missing.as_ref().filter(|_| row.now.is_empty()),
        "parent": of(&row.parent),
        "now": of(&row.now),
        "gain": row.gain().map(crate::json::middle),
        "rival": row.rival.as_ref().map(|rival| json!({
            "name": rival.name, "value": of(&rival.values), "values": rival.values,
        })),
        "ratio": row.ratio().map(crate::json::middle),
        "parent_values": row.parent,
        "values": row.now,
    })
}

/// The comments between which a document has the table.
const MARKS: [&str; 2] = ["<!-- written by `make bench-goals` -->", "<!-- until here -->"];

/// The document with this table in place of the one that it has.
pub(crate) fn inserted(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some(format!("{before}{}\n\n```\n{}\n```\n\n{}{after}", MARKS[0], table.trim_end(), MARKS[1]))
}

/// Writes the table into a document.
pub(crate) fn write_into(path: &Path, table: &str) -> anyhow::Result<()> {
    let document =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let written = inserted(&document, table)
        .with_context(|| format!("{} has no comments {MARKS:?}", path.display()))?;
    Ok(std::fs::write(path, written)?)
}
