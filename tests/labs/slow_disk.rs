//! A host's disk that others keep busy is what slow requests wait for, and the first sentence says so:
//! also where a hog keeps the vCPU on its pCPU meanwhile.

mod load;

use crate::Case;
use libtest_mimic::Failed;
use load::{DiskLoad, Witness, percentile};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use vslice_tests::{Lab, not_judged};

const ALONE: &str = "a_slow_disk_is_named_by_the_first_sentence";
const WITH_HOG: &str = "a_slow_disk_is_named_though_a_hog_keeps_the_vcpu_on_its_pcpu";

pub(crate) const CASES: &[Case] = &[
    (ALONE, |lab| names_the_disk(lab, ALONE, "")),
    (WITH_HOG, |lab| names_the_disk(lab, WITH_HOG, "1")),
];

/// What the tail of the requests owes to the disk at least, by the witness, for the disk to be expected
/// as its cause: well above what dominates by half of the time.
const SHARE_JUDGED: f64 = 0.75;

/// Where the tail waits for a pCPU by more than this share, apart from its disk, others kept the vCPU
/// from it: then it is not the disk alone that is to be named.
const PCPU_WAIT_SHARE_MAX: f64 = 0.25;

/// The disk is slow if a read of the test's own takes so many times as long as before.
const SLOWER_JUDGED: f64 = 4.0;

/// One guest that reads 1.5 MiB by 4 KiB, so that the tail is of three requests; its reader's vCPU has pCPU1 for
/// itself.
fn plan(hogs: &str) -> String {
    format!(
        r#"
name = "slow-disk"
collector_pcpu = 0
[[vm]]
name = "web1"
vcpus = 2
vcpu_pcpus = [0, 1]
hogs = [{hogs}]
housekeeping_vcpu = 0
main_loop_pcpu = 0
iothread_pcpu = 0
worker_pcpu = 0
[vm.disk]
bus = "virtio-blk"
aio = "native"
cache = "none"
size = "16MiB"
guest_io_scheduler = "none"
[vm.reader]
vcpu = 1
pattern = "seq"
engine = "psync"
block = "4KiB"
total = "1536KiB"
"#
    )
}

fn names_the_disk(lab: &Lab, test: &str, hogs: &str) -> Result<(), Failed> {
    // Where the guest's disk is as well, see `vslice doctor`.
    let parent = std::env::var_os("VSLICE_TMP").map_or_else(|| "/var/tmp".into(), PathBuf::from);
    let dir = tempfile::Builder::new().prefix("slow-disk-").tempdir_in(parent)?;
    let plan_path = dir.path().join("slow-disk.toml");
    std::fs::write(&plan_path, plan(hogs))?;
    let load = DiskLoad::prepare(dir.path())?;

    let quiet = Witness::start(load.file())?;
    std::thread::sleep(Duration::from_millis(500));
    let quiet_ns = percentile(&quiet.finish()?, 0.5);
    let load = load.start()?;
    let mut started = lab.start(&[&plan_path.to_string_lossy()])?;
    started.wait_until(Duration::from_secs(120), |run| run.join("events-0.vsr").exists())?;
    let witness = Witness::start(load.file())?;
    let run = started.finish()?;
    let reads_ns = witness.finish()?;
    load.stop()?;
    if run.code() != Some(0) {
        return Err(format!("exit code {:?}:\n{}", run.code(), run.said()).into());
    }
    run.nothing_is_left()?;
    let summary = run.summary()?;
    let disk = &summary["io"]["disks"][0];
    let Some(device) = disk["device"].as_str() else {
        return not_judged(test, &format!("the host's I/O is not known here: {}", disk["reason"]));
    };
    let p99_ns = summary["latency_ns"]["p99"].as_u64().ok_or("no latency")?;
    let (slow_ns, tail_ns) = (percentile(&reads_ns, 0.5), percentile(&reads_ns, 0.99));
    let figures = format!(
        "a read of the test's own took {quiet_ns} ns before, {slow_ns} ns beside the load and {tail_ns} ns at \
         its 99th percentile ({} reads); the guest's 99th percentile is {p99_ns} ns",
        reads_ns.len()
    );
    if (slow_ns as f64) < SLOWER_JUDGED * quiet_ns as f64 {
        return not_judged(test, &format!("the load did not slow this disk down: {figures}"));
    }
    if (tail_ns as f64) < SHARE_JUDGED * p99_ns as f64 {
        return not_judged(test, &format!("more than the disk made the guest's tail: {figures}"));
    }
    let pcpu_wait = pcpu_wait_share(&summary);
    if pcpu_wait > PCPU_WAIT_SHARE_MAX {
        let percent = pcpu_wait * 100.0;
        let because = format!("{percent:.0} % of the tail are waits for a pCPU: {figures}");
        return not_judged(test, &because);
    }
    let printed = run.printed();
    let words = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    let told = format!("the I/O was in the host's disk ({device}) or its queue for");
    if words.contains(&told) {
        return Ok(());
    }
    Err(format!("'{told}' is not said, though {figures}:\n{printed}").into())
}

/// The share of the time of the slowest requests in which they waited for their vCPU's pCPU, while no disk had
/// their I/O.
fn pcpu_wait_share(summary: &Value) -> f64 {
    let causes = summary["causes"]["p99"].as_array().into_iter().flatten();
    let waits = causes
        .filter(|cause| matches!(cause["part"].as_str(), Some("preempt_wait" | "wakeup_delay")));
    waits.filter_map(|cause| cause["share"].as_f64()).sum()
}
