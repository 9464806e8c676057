//! How well a run sees its guests' threads: each level, and what a user without rights gets.

use crate::Case;
use libtest_mimic::Failed;
use serde_json::Value;
use vslice_tests::{Lab, Run};

/// As root.
pub(crate) const CASES: &[Case] = &[
    ("a_run_is_recorded_where_it_can_be", |lab| recorded(&lab.run(&demo("auto"))?)),
    ("a_run_can_be_sampled", |lab| sampled(&lab.run(&demo("sampled"))?)),
    ("a_run_can_be_made_of_totals_alone", |lab| totals(&lab.run(&demo("totals"))?)),
];

/// As a user without any rights.
pub(crate) const USER_CASES: &[Case] = &[
    ("an_ordinary_user_gets_shares", |lab| sampled(&lab.run_as_nobody(&demo("auto"))?)),
    ("an_ordinary_user_gets_totals", |lab| totals(&lab.run_as_nobody(&demo("totals"))?)),
    ("an_ordinary_user_who_wants_events_is_told_why_not", refused),
];

const REQUESTS: u64 = 1024;

fn demo(level: &str) -> [&str; 5] {
    ["demo", "--total", "4MiB", "--evidence", level]
}

fn check(what: &str, holds: bool, summary: &Value) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed::from(format!("{what} in {summary:#}"))) }
}

/// What holds of a run on every level; returns its summary.
fn finished(run: &Run, level: &str) -> Result<Value, Failed> {
    if run.code() != Some(0) {
        return Err(format!("exit code {:?}:\n{}", run.code(), run.said()).into());
    }
    run.nothing_is_left()?;
    let summary = run.summary()?;
    check("every request is there", summary["requests"]["count"] == REQUESTS, &summary)?;
    check(&format!("the level is {level}"), summary["evidence"]["level"] == level, &summary)?;
    let has_reason = summary["evidence"]["reason"].as_str().is_some_and(|text| !text.is_empty());
    check("the level has a reason", has_reason, &summary)?;
    Ok(summary)
}

fn rows<'a>(summary: &'a Value, pointer: &str) -> &'a [Value] {
    summary.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn recorded(run: &Run) -> Result<(), Failed> {
    let summary = finished(run, "recorded")?;
    check("nothing was sampled", summary["sampled"].is_null(), &summary)?;
    check("there are no totals", rows(&summary, "/scheduled").is_empty(), &summary)
}

/// Both guests have two vCPUs, and each has run.
fn has_totals(summary: &Value) -> Result<(), Failed> {
    let scheduled = rows(summary, "/scheduled");
    let has_run =
        |row: &Value| row["on_pcpu_ns"].as_u64() > Some(0) && row["timeslices"].as_u64() > Some(0);
    check("four vCPUs have run", scheduled.len() == 4 && scheduled.iter().all(has_run), summary)?;
    let warned = rows(summary, "/warnings").iter().any(|row| row["kind"] == "not_recorded");
    check("it is warned of", warned, summary)?;
    let attributed = &summary["classes"]["all"]["count"];
    check("no request is given to causes", *attributed == 0, summary)
}

fn sampled(run: &Run) -> Result<(), Failed> {
    let summary = finished(run, "sampled")?;
    has_totals(&summary)?;
    let vcpus = rows(&summary, "/sampled/vcpus");
    check("four vCPUs were looked at", vcpus.len() == 4, &summary)?;
    for vcpu in vcpus {
        let shares = rows(vcpu, "/shares");
        let total: f64 = shares.iter().filter_map(|row| row["share"].as_f64()).sum();
        check("the shares add up", (total - 1.0).abs() < 0.01, vcpu)?;
        let looks: u64 = shares.iter().filter_map(|row| row["looks"].as_u64()).sum();
        check("so do the looks", vcpu["looks"] == looks && looks > 0, vcpu)?;
    }
    // vm2's housekeeping vCPU has next to nothing to do.
    let idle = vcpus.iter().filter(|row| row["vm"] == "vm2" && row["vcpu"] == 0);
    let mut idle = idle.flat_map(|row| rows(row, "/shares"));
    let is_halt = |row: &Value| row["what"] == "halt" || row["what"] == "halt_user";
    check("an idle vCPU was seen idle", idle.any(is_halt), &summary)?;
    let title = run.printed().lines().next().unwrap_or_default().to_owned();
    check("the title says so", title.contains("(sampled)"), &title.into())
}

fn totals(run: &Run) -> Result<(), Failed> {
    let summary = finished(run, "totals")?;
    has_totals(&summary)?;
    check("nothing was sampled", summary["sampled"].is_null(), &summary)?;
    let title = run.printed().lines().next().unwrap_or_default().to_owned();
    check("the title says so", title.contains("(totals only)"), &title.into())
}

fn refused(lab: &Lab) -> Result<(), Failed> {
    let run = lab.run_as_nobody(&demo("recorded"))?;
    run.nothing_is_left()?;
    let said = run.said();
    if run.code() == Some(1) && said.contains("no permission to record scheduler events") {
        return Ok(());
    }
    Err(format!("exit code {:?}:\n{said}", run.code()).into())
}
