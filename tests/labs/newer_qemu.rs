//! Guests under the QEMUs that tests/newer-tools gets: what the release's does not have, a disk's queues over
//! two iothreads, and each frontend of a disk under the newest.

use crate::Case;
use crate::experiment::{every_request_is_whole, locks_and_devices_are_known};
use libtest_mimic::Failed;
use serde_json::Value;
use std::path::PathBuf;
use vslice_tests::{Lab, Run};

pub(crate) const CASES: &[Case] = &[
    ("virtio_blk_with_its_queues_over_two_iothreads", |lab| mapped(lab, NEWEST, "virtio-blk")),
    ("virtio_scsi_with_its_queues_over_two_iothreads", |lab| mapped(lab, NEWER, "virtio-scsi")),
    ("newest_qemu_with_virtio_scsi", |lab| plain(lab, "virtio-scsi")),
    ("newest_qemu_with_ide", |lab| plain(lab, "ide")),
    ("newest_qemu_with_ahci", |lab| plain(lab, "ahci")),
    ("newest_qemu_with_nvme", |lab| plain(lab, "nvme")),
];

/// QEMU 10.0, and 11.1 or what has come after it.
const NEWER: &str = "bin";
const NEWEST: &str = "newest/bin";

/// The directory of a newer QEMU, by the environment variable `VSLICE_NEWER_TOOLS`, which `make test`
/// sets.
///
/// # Errors
/// Why it is not known, for the ignored tests to say.
pub(crate) fn directory() -> Result<PathBuf, String> {
    directory_of(NEWEST)
}

fn directory_of(which: &str) -> Result<PathBuf, String> {
    let directory = std::env::var_os("VSLICE_NEWER_TOOLS").map(PathBuf::from);
    let directory = directory.ok_or("VSLICE_NEWER_TOOLS is not set, see make test")?.join(which);
    if directory.join("qemu-system-x86_64").exists() {
        Ok(directory)
    } else {
        Err(format!("{} has no qemu-system-x86_64", directory.display()))
    }
}

/// In 4 MiB of 4 KiB each.
const REQUESTS: u64 = 1024;

fn mapped(lab: &Lab, which: &str, bus: &str) -> Result<(), Failed> {
    let two = ["--iothread", "true", "--iothreads", "2"];
    let (run, summary) = complete(lab, which, &[&["--bus", bus][..], &two].concat())?;
    iothreads_serve(&run, &summary)
}

fn plain(lab: &Lab, bus: &str) -> Result<(), Failed> {
    complete(lab, NEWEST, &["--bus", bus]).map(|_| ())
}

/// A run of the demo, every request of which is there; waits for the big lock are proven, if there are any.
fn complete(lab: &Lab, which: &str, options: &[&str]) -> Result<(Run, Value), Failed> {
    // KVM that hangs takes a minute to say so, and would be asked once more for another QEMU.
    let arguments = ["demo", "--accelerator", "tcg", "--total", "4MiB"];
    let run = lab.clone().with_tools(directory_of(which)?).run(&[&arguments, options].concat())?;
    if run.code() != Some(0) {
        return Err(format!("exit code {:?}:\n{}", run.code(), run.said()).into());
    }
    run.nothing_is_left()?;
    locks_and_devices_are_known(&run)?;
    let summary = run.summary()?;
    let check = |what: &str, holds: bool| {
        if holds { Ok(()) } else { Err(Failed::from(format!("{what} in {summary:#}"))) }
    };
    let version = &summary["environment"]["details"]["host"]["qemu_version"];
    let is_newest =
        |text: &str| ["version 7.", "version 10.0"].iter().all(|old| !text.contains(old));
    let is_right = version.as_str().is_some_and(|text| match which {
        NEWEST => is_newest(text),
        _ => text.contains("version 10."),
    });
    check("it is that QEMU", is_right)?;
    every_request_is_whole(&summary, REQUESTS)?;
    let locks = summary["big_locks"].as_array().map_or(&[][..], |locks| &locks[..]);
    let proven = locks.iter().filter(|lock| lock["evidence"] == "proven").count();
    check("the locks of both VMs are proven", proven == 2)?;
    let waits = summary["lock_waits"].as_array().into_iter().flatten();
    let mut reasons = waits.filter_map(|wait| wait["reason"].as_str());
    check("no wait is inferred", reasons.all(|reason| !reason.starts_with("bql_")))?;
    Ok((run, summary))
}

/// Both are there; the reader's vCPU has one queue, whose iothread its doorbells woke. The other one may
/// never have come on a pCPU.
fn iothreads_serve(run: &Run, summary: &Value) -> Result<(), Failed> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(run.run_dir().join("run.json"))?)?;
    let threads = manifest["vms"][0]["threads"].as_array().map_or(&[][..], |threads| &threads[..]);
    for role in ["iothread io0", "iothread io1"] {
        if threads.iter().all(|thread| thread["role"] != role) {
            return Err(format!("no {role} in {threads:#?}").into());
        }
    }
    let service = summary["service"].as_array().into_iter().flatten();
    let iothreads = service
        .filter(|thread| thread["role"].as_str().is_some_and(|role| role.starts_with("iothread")));
    let woken = iothreads.filter_map(|thread| thread["woken_by_vcpus"].as_u64()).max();
    // Each request rings once.
    if woken.is_some_and(|woken| woken >= REQUESTS / 2) {
        return Ok(());
    }
    Err(format!("woken: {woken:?}\n{}", run.printed()).into())
}
