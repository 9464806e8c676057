//! The tables as engines read them: DuckDB and Spark answer the questions of docs/fleet.md, over sixteen drawn runs of
//! eight hosts, as `vslice report` does of each run; and a row of a later version loads beside the others.
//!
//! The engines are in the environment that `tests/readers` makes; without one its test is ignored, and says so.

mod hosts;

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use vslice_core::join::Breakdown;
use vslice_core::task::VmIndex;
use vslice_fleet::FleetTables;
use vslice_fleet::schema::{Column, Kind, Table};
use vslice_fleet::table::{Cell, TableWriter};
use vslice_report::analyse::observer::Observer;
use vslice_report::analyse::{SummaryObserver, analyse_with};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = ["duckdb", "spark"].map(|engine| {
        let name = format!("{engine}_answers_as_the_summaries_do");
        match python(engine) {
            Ok(python) => Trial::test(name, move || answers(engine, &python)),
            Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
        }
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn python(engine: &str) -> Result<PathBuf, String> {
    let directory = std::env::var_os("VSLICE_READERS").map(PathBuf::from);
    let directory = directory.ok_or("VSLICE_READERS is not set, see make test")?;
    let python = directory.join("bin/python3");
    let module = if engine == "spark" { "pyspark" } else { engine };
    let found = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    let is_there = found.is_ok_and(|output| output.status.success());
    is_there.then_some(python).ok_or_else(|| format!("{} has no {module}", directory.display()))
}

/// The latencies as the analysis tells them, which the summary has only as a histogram.
#[derive(Default)]
struct Latencies(Vec<u64>);

impl Observer for Latencies {
    fn request(&mut self, _: VmIndex, breakdown: &Breakdown) {
        self.0.push(breakdown.latency_ns());
    }
}

/// Writes all runs into the tables; what their summaries say.
fn fleet(folder: &Path, runs: &Path) -> Result<serde_json::Value, Failed> {
    let mut told = Vec::new();
    for run in hosts::runs(runs) {
        let mut tables = FleetTables::new(folder, run.dir.path());
        let (mut summary, mut latencies) = (SummaryObserver::default(), Latencies::default());
        analyse_with(run.dir.path(), &mut [&mut summary, &mut latencies, &mut tables])?;
        let summary = summary.into_summary().ok_or("no end")?;
        let written = tables.finish(&summary)?;
        told.push(serde_json::json!({
            "host": run.host, "day": run.day, "kernel": run.kernel, "qemu": run.qemu,
            "run": written.run, "latencies_ns": latencies.0, "summary": summary,
        }));
    }
    Ok(serde_json::json!({ "runs": told }))
}

/// A run that a later version wrote, whose hosts have racks.
fn later_version(folder: &Path) -> Result<(), Failed> {
    let mut table = Table::runs();
    let cells = table.columns.iter().map(|column| match column.name.as_str() {
        "run" => Cell::Text("later-1"),
        "status" => Cell::Text("complete"),
        _ => Cell::None,
    });
    let mut cells: Vec<Cell<'_>> = cells.collect();
    cells.push(Cell::Text("r7"));
    table.columns.push(Column { name: "rack".to_owned(), kind: Kind::Text });
    let folder = folder.join("runs/host=kvm9/day=2027-01-01");
    let mut writer = TableWriter::create(&table, folder, "later-1")?;
    writer.push(&cells)?;
    Ok(writer.close()?.commit()?)
}

fn answers(engine: &str, python: &Path) -> Result<(), Failed> {
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path().join("fleet");
    let told = fleet(&folder, &scratch.path().join("runs"))?;
    later_version(&folder)?;
    let expected = scratch.path().join("expected.json");
    std::fs::write(&expected, serde_json::to_vec(&told)?)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_fleet.py");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/fleet.md");
    let output = Command::new(python)
        .args([script, engine])
        .arg(&folder)
        .arg(page)
        .arg(&expected)
        .current_dir(scratch.path())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let [said, error] =
        [output.stdout, output.stderr].map(|of| String::from_utf8_lossy(&of).into_owned());
    Err(format!("{said}\n{error}").into())
}
