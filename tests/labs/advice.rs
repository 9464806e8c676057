//! Advice held against reality: what a run with an antagonist says the percentiles would be without it, and what they
//! are in a run without it, and in one in which it has another pCPU.
//!
//! Nothing is asserted of how close they are: the prediction is a bound of each request by itself, and the machine has
//! other things to do. Figures are printed, side by side; `VSLICE_ADVICE_REPEATS` says how often all is done.

use crate::Case;
use libtest_mimic::Failed;
use serde_json::Value;
use std::io::{self, Write as _};
use std::path::Path;
use vslice_tests::Lab;

pub(crate) const CASES: &[Case] =
    &[("what_advice_promises_is_held_against_a_run_without_the_antagonist", held_against_reality)];

/// The percentiles that are compared.
const PERCENTILES: [(&str, &str); 3] = [("p50", "p50"), ("p99", "p99"), ("p999", "p99.9")];

/// The plan `demo` with vm2's hog as it is told, and its vCPUs on these pCPUs.
fn plan(name: &str, hogs: &str, pcpus: &str) -> String {
    format!(
        r#"
name = "{name}"
collector_pcpu = 0
[[vm]]
name = "vm1"
vcpus = 2
vcpu_pcpus = [0, 1]
hogs = [1]
housekeeping_vcpu = 0
main_loop_pcpu = 0
iothread_pcpu = 0
worker_pcpu = 0
[vm.disk]
bus = "virtio-blk"
iothread = false
aio = "native"
cache = "none"
size = "64MiB"
guest_io_scheduler = "none"
[vm.reader]
vcpu = 1
pattern = "seq"
engine = "psync"
block = "4KiB"
total = "64MiB"
[[vm]]
name = "vm2"
vcpus = 2
vcpu_pcpus = [{pcpus}]
hogs = [{hogs}]
housekeeping_vcpu = 0
main_loop_pcpu = 0
iothread_pcpu = 0
worker_pcpu = 0
"#
    )
}

fn summary_of(lab: &Lab, dir: &Path, name: &str, text: &str) -> Result<Value, Failed> {
    let path = dir.join(format!("{name}.toml"));
    std::fs::write(&path, text)?;
    let run = lab.run(&[&path.to_string_lossy()])?;
    run.nothing_is_left()?;
    if run.code() != Some(0) {
        return Err(format!("{name}: exit code {:?}:\n{}", run.code(), run.said()).into());
    }
    let summary = run.summary()?;
    if summary["status"]["state"] != "complete" {
        return Err(format!("{name} is not complete: {:#}", summary["status"]).into());
    }
    Ok(summary)
}

/// What the run says of itself without vm2.
fn without_vm2(summary: &Value) -> Result<&Value, Failed> {
    let groups = summary["what_if"]["antagonist_groups"].as_array();
    let found = groups.into_iter().flatten().find(|row| row["name"] == "vm2");
    found.ok_or_else(|| format!("vm2 is no antagonist: {:#}", summary["what_if"]).into())
}

/// Each figure of the advice is the summary's, and a row against vm2 has a command for its thread, or says why not.
fn advice_rests_on(summary: &Value) -> Result<(), Failed> {
    let rows = summary["advice"]["rows"].as_array().ok_or("there is no list of advice")?;
    let vain = summary["advice"]["would_not_help"].as_array().ok_or("no list of what is vain")?;
    for figure in rows.iter().chain(vain).flat_map(|row| row["figures"].as_array()).flatten() {
        let field = figure["field"].as_str().ok_or("a figure has no field")?;
        if summary.pointer(field) != Some(&figure["value"]) {
            return Err(format!("{figure} is {:?}", summary.pointer(field)).into());
        }
    }
    let vcpus = summary["vcpus"].as_array();
    let hog = vcpus.into_iter().flatten().find(|row| row["vm"] == "vm2" && row["vcpu"] == 1);
    let tid = hog.map(|row| row["tid"].to_string()).ok_or("vm2's vCPU1 is not there")?;
    for row in rows.iter().filter(|row| row["against"] == "other_vm") {
        let is_of_vm2 = row["action"].as_str().is_some_and(|action| action.contains("vm2"));
        let command = row["command"].as_str();
        let is_for_it = command.is_none_or(|command| command.ends_with(&tid));
        if !is_of_vm2 || !is_for_it || command.is_some() == row["no_command_because"].is_string() {
            return Err(format!("{row:#}").into());
        }
    }
    Ok(())
}

fn milliseconds(value: &Value) -> String {
    value.as_u64().map_or("-".to_owned(), |ns| format!("{:.3}", ns as f64 / 1e6))
}

/// The table of one repeat, in milliseconds, and what there was to advise.
fn print(repeat: usize, [beside, without, apart]: &[Value; 3]) -> Result<(), Failed> {
    let predicted = without_vm2(beside)?;
    let mut out = io::stderr();
    writeln!(
        out,
        "\nrepeat {repeat}, ms      beside vm2  predicted without  (low to high)     measured without  vm2 on pCPU0"
    )?;
    for (key, name) in PERCENTILES {
        writeln!(
            out,
            "  {name:<18} {:>10}  {:>17}  {:>7} to {:<7}  {:>16}  {:>12}",
            milliseconds(&beside["latency_ns"][key]),
            milliseconds(&predicted["latency_ns"][key]),
            milliseconds(&predicted["low_ns"][key]),
            milliseconds(&predicted["high_ns"][key]),
            milliseconds(&without["latency_ns"][key]),
            milliseconds(&apart["latency_ns"][key]),
        )?;
    }
    let idle = |summary: &Value| {
        let rows = summary["pcpus"].as_array().cloned().unwrap_or_default();
        let of = |row: &Value| {
            let [idle, seen] = ["idle_ns", "seen_ns"].map(|key| row[key].as_f64().unwrap_or(0.0));
            format!("pCPU{} {:.0} %", row["pcpu"], 100.0 * idle / seen.max(1.0))
        };
        rows.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    for (name, summary) in [("beside vm2", beside), ("without", without), ("vm2 on pCPU0", apart)] {
        let iops = &summary["requests"]["iops"];
        writeln!(out, "  {name}: {iops} IOPS; idle: {}", idle(summary))?;
    }
    for row in beside["advice"]["rows"].as_array().into_iter().flatten() {
        let command = row["command"].as_str().or(row["no_command_because"].as_str());
        writeln!(out, "  advice: {}: {}", row["action"], command.unwrap_or_default())?;
    }
    Ok(())
}

fn held_against_reality(lab: &Lab) -> Result<(), Failed> {
    let repeats = std::env::var("VSLICE_ADVICE_REPEATS").ok().and_then(|text| text.parse().ok());
    let dir = tempfile::tempdir()?;
    for repeat in 1..=repeats.unwrap_or(1) {
        let conditions = [("beside", "1", "0, 1"), ("without", "", "0, 1"), ("apart", "1", "0, 0")];
        let summary =
            |(name, hogs, pcpus)| summary_of(lab, dir.path(), name, &plan(name, hogs, pcpus));
        let [beside, without, apart] = conditions.map(summary);
        let all = [beside?, without?, apart?];
        advice_rests_on(&all[0])?;
        print(repeat, &all)?;
    }
    Ok(())
}
