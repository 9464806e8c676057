//! What the release's QEMU does not have: a disk's queues over two iothreads, with the QEMU that
//! tests/newer-qemu gets.

use crate::Case;
use crate::experiment::locks_and_devices_are_known;
use libtest_mimic::Failed;
use std::path::PathBuf;
use vslice_tests::{Lab, Run};

pub(crate) const CASES: &[Case] = &[
    ("virtio_blk_with_its_queues_over_two_iothreads", |lab| mapped(lab, "virtio-blk")),
    ("virtio_scsi_with_its_queues_over_two_iothreads", |lab| mapped(lab, "virtio-scsi")),
];

/// The directory of the newer QEMU, by the environment variable `VSLICE_NEWER_QEMU`, which `make test`
/// sets.
///
/// # Errors
/// Why it is not known, for the ignored tests to say.
pub(crate) fn directory() -> Result<PathBuf, String> {
    let directory = std::env::var_os("VSLICE_NEWER_QEMU").map(PathBuf::from);
    let directory = directory.ok_or("VSLICE_NEWER_QEMU is not set, see make test")?;
    if directory.join("qemu-system-x86_64").exists() {
        Ok(directory)
    } else {
        Err(format!("{} has no qemu-system-x86_64", directory.display()))
    }
}

fn mapped(lab: &Lab, bus: &str) -> Result<(), Failed> {
    let arguments =
        ["demo", "--total", "4MiB", "--bus", bus, "--iothread", "true", "--iothreads", "2"];
    let run = lab.clone().with_tools(directory()?).run(&arguments)?;
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
    let is_newer = version.as_str().is_some_and(|text| !text.contains("version 7."));
    check("it is the newer QEMU", is_newer)?;
    check("every request is there", summary["requests"]["count"] == 1024)?;
    iothreads_serve(&run, &summary)
}

/// Both are there; the reader's vCPU has one queue, whose iothread its doorbells woke.
fn iothreads_serve(run: &Run, summary: &serde_json::Value) -> Result<(), Failed> {
    let service = summary["service"].as_array().map_or(&[][..], |threads| &threads[..]);
    let woken = |role: &str| {
        let mut threads = service.iter().filter(|thread| thread["vm"] == "vm1");
        threads.find(|thread| thread["role"] == role)?["woken_by_vcpus"].as_u64()
    };
    let (first, second) = (woken("iothread io0"), woken("iothread io1"));
    match first.zip(second) {
        Some((first, second)) if first.max(second) >= 512 => Ok(()),
        _ => Err(format!("woken: {first:?}, {second:?}\n{}", run.printed()).into()),
    }
}
