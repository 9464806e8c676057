//! The demo's experiment in small, over every bus, and what its summary must hold.

use crate::Case;
use libtest_mimic::Failed;
use serde_json::Value;
use vslice_tests::{Lab, Run};

pub(crate) const CASES: &[Case] = &[
    ("virtio_blk_without_iothread", |lab| holds(lab, &["--iothread", "false"])),
    ("virtio_blk_with_iothread", |lab| holds(lab, &["--iothread", "true"])),
    ("virtio_scsi_with_iothread", |lab| {
        holds(lab, &["--bus", "virtio-scsi", "--iothread", "true"])
    }),
    ("ide", |lab| holds(lab, &["--bus", "ide"])),
    ("virtio_serial_with_io_uring", |lab| {
        holds(lab, &["--vsock", "virtio-serial", "--engine", "io_uring", "--depth", "4"])
    }),
    ("a_report_is_made_again_from_the_run_directory", reported_again),
];

/// 2,048 requests: enough for a tail above p99, few enough for a test.
const REQUESTS: u64 = 2048;
const TOTAL: &str = "8MiB";

fn run(lab: &Lab, arguments: &[&str]) -> Result<Run, Failed> {
    let run = lab.run(&[&["demo", "--total", TOTAL], arguments].concat())?;
    if run.code() != Some(0) {
        return Err(format!("exit code {:?}:\n{}", run.code(), run.said()).into());
    }
    run.nothing_is_left()?;
    Ok(run)
}

/// What the issue demands of every demo.
fn holds(lab: &Lab, arguments: &[&str]) -> Result<(), Failed> {
    let summary = run(lab, arguments)?.summary()?;
    let check = |what: &str, holds: bool| {
        if holds { Ok(()) } else { Err(Failed::from(format!("{what} in {summary:#}"))) }
    };
    check("the schema is vslice.summary/2", summary["schema"] == "vslice.summary/2")?;
    check("every request is there", summary["requests"]["count"] == REQUESTS)?;
    check("nothing was dropped", summary["requests"]["dropped"] == 0)?;
    check("no read failed", summary["requests"]["errors"] == 0)?;
    check("no record was lost", summary["lost"]["records"] == 0)?;
    // A kernel that traces nothing while certain tasks are current (see perf/assemble.rs) can make a
    // few requests unattributable without a record being lost.
    let unattributable = summary["requests"]["unattributable"].as_u64();
    check("99 % are attributed", unattributable.is_some_and(|count| count * 100 <= REQUESTS))?;
    for class in ["all", "p99", "p999"] {
        let parts_ns: u64 = parts(&summary, class).map(|(_, ns)| ns).sum();
        let latency_ns = &summary["classes"][class]["latency_ns"];
        check(&format!("the parts of {class} sum to the latency"), *latency_ns == parts_ns)?;
    }
    let tail_ns: u64 = parts(&summary, "p99").map(|(_, ns)| ns).sum();
    let unknown_ns: u64 =
        parts(&summary, "p99").filter(|(part, _)| *part == "unknown").map(|(_, ns)| ns).sum();
    check("the tail has requests", tail_ns > 0)?;
    check("at most 5 % of the tail is unknown", unknown_ns * 20 <= tail_ns)?;
    check("vm2's vCPU1 is named", antagonists(&summary).any(|name| name == "vm2 vCPU1"))?;
    check("the clock has a bound", summary["clock"]["bound_ns"].as_u64().is_some_and(|ns| ns > 0))
}

fn parts<'a>(summary: &'a Value, class: &str) -> impl Iterator<Item = (&'a str, u64)> {
    let parts = summary["parts"][class].as_object().into_iter().flatten();
    parts.map(|(part, ns)| (part.as_str(), ns.as_u64().unwrap_or(0)))
}

/// Who ran while VM1's vCPU1 waited, the longest first.
fn antagonists(summary: &Value) -> impl Iterator<Item = &str> {
    let vcpus = summary["vcpus"].as_array().into_iter().flatten();
    let ours = vcpus.filter(|vcpu| vcpu["vm"] == "vm1" && vcpu["vcpu"] == 1);
    let antagonists = ours.flat_map(|vcpu| vcpu["antagonists"].as_array().into_iter().flatten());
    antagonists.filter_map(|antagonist| antagonist["name"].as_str())
}

fn reported_again(lab: &Lab) -> Result<(), Failed> {
    let run = run(lab, &["--json"])?;
    let dir = run.run_dir();
    let again = lab.command(&["report", "--json"]).arg(&dir).output()?;
    if String::from_utf8_lossy(&again.stdout) != run.printed() {
        return Err("the report of the run directory is not what the run printed".into());
    }
    let text = lab.command(&["report"]).arg(&dir).output()?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    if text.contains("vm2 vCPU1") {
        Ok(())
    } else {
        Err(format!("no antagonist in\n{text}").into())
    }
}
