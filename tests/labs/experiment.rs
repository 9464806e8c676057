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

/// What holds of every demo.
fn holds(lab: &Lab, arguments: &[&str]) -> Result<(), Failed> {
    let run = run(lab, arguments)?;
    locks_and_devices_are_known(&run)?;
    let summary = run.summary()?;
    let check = |what: &str, holds: bool| {
        if holds { Ok(()) } else { Err(Failed::from(format!("{what} in {summary:#}"))) }
    };
    check("the schema is vslice.summary/3", summary["schema"] == "vslice.summary/3")?;
    every_request_is_whole(&summary, REQUESTS)?;
    let tail_ns: u64 = parts(&summary, "p99").map(|(_, ns)| ns).sum();
    let unknown_ns: u64 =
        parts(&summary, "p99").filter(|(part, _)| *part == "unknown").map(|(_, ns)| ns).sum();
    check("the tail has requests", tail_ns > 0)?;
    check("at most 5 % of the tail is unknown", unknown_ns * 20 <= tail_ns)?;
    check("vm2's vCPU1 is named", antagonists(&summary).any(|name| name == "vm2 vCPU1"))?;
    phases(&summary)?;
    check("the clock has a bound", summary["clock"]["bound_ns"].as_u64().is_some_and(|ns| ns > 0))?;
    let hogs = summary["clock"]["vcpus"].as_array().map_or(&[][..], |vcpus| &vcpus[..]);
    let count = |key| hogs.iter().filter_map(|vcpu| vcpu["hog_check"][key].as_u64()).sum::<u64>();
    check("hogs missed when their vCPUs were off", count("absences") >= 50)?;
    check("no hog ran while its vCPU was off", count("violations") == 0)?;
    let stays = hogs.iter().filter_map(|vcpu| vcpu["stays"].as_u64()).sum::<u64>();
    check("their stays bound the clock", stays >= 20)
}

/// So many requests are there, with their parts, and next to nothing is lost.
pub(crate) fn every_request_is_whole(summary: &Value, requests_count: u64) -> Result<(), Failed> {
    let check = |what: &str, holds: bool| {
        if holds { Ok(()) } else { Err(Failed::from(format!("{what} in {summary:#}"))) }
    };
    check("every request is there", summary["requests"]["count"] == requests_count)?;
    check("nothing was dropped", summary["requests"]["dropped"] == 0)?;
    check("no read failed", summary["requests"]["errors"] == 0)?;
    check("no record was lost", summary["lost"]["records"] == 0)?;
    // A kernel that traces nothing while certain tasks are current (see assemble.rs) can make a
    // few requests unattributable without a record being lost.
    let unattributable = summary["requests"]["unattributable"].as_u64();
    check(
        "99 % are attributed",
        unattributable.is_some_and(|count| count * 100 <= requests_count),
    )?;
    for class in ["all", "p99", "p999"] {
        let parts_ns: u64 = parts(summary, class).map(|(_, ns)| ns).sum();
        let latency_ns = &summary["classes"][class]["latency_ns"];
        check(&format!("the parts of {class} sum to the latency"), *latency_ns == parts_ns)?;
    }
    Ok(())
}

/// What proves a wait for QEMU's big lock is in the manifest, and what names the devices.
pub(crate) fn locks_and_devices_are_known(run: &Run) -> Result<(), Failed> {
    let manifest = std::fs::read_to_string(run.run_dir().join("run.json"))?;
    let manifest: Value = serde_json::from_str(&manifest)?;
    for vm in manifest["vms"].as_array().into_iter().flatten() {
        let lock = vm["lock"]["bql"]["address"].as_u64().ok_or(format!("no lock in {vm:#}"))?;
        let data = &vm["lock"]["exe_data"];
        let is_in_data = data["start"].as_u64() <= Some(lock) && Some(lock) < data["end"].as_u64();
        let ports = vm["memory_map"]["ports"].as_array().into_iter().flatten();
        let has_timer = ports.into_iter().any(|range| range["name"] == "acpi-tmr");
        if !is_in_data || !has_timer || !vm["memory_map_missing"].is_null() {
            return Err(format!("the lock or the devices of {vm:#}").into());
        }
    }
    Ok(())
}

/// The demo's disk is read with `O_DIRECT`, so the host's I/O is known wherever a host's disk can tell.
fn phases(summary: &Value) -> Result<(), Failed> {
    let (all, disk) = (&summary["io"]["classes"]["all"], &summary["io"]["disks"][0]);
    let count = |key: &str| all[key].as_u64().unwrap_or(0);
    let holds = if disk["device"].is_string() {
        count("known") * 100 >= (count("known") + count("unphased")) * 95 && count("known") > 0
    } else {
        // In memory, over several devices: then no phase is claimed, and it is said why.
        disk["reason"].is_string() && count("known") == 0
    };
    if holds {
        return Ok(());
    }
    Err(format!("phases of 95 % of the requests, or a reason, in {disk:#} {all:#}").into())
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
