//! `vslice selftest` on this host: every injected cause is named right, and sleeps on QEMU's big
//! lock are counted as the kernel's own tracepoints count them.
//!
//! What this host lacks shows as an ignored test with the reason.

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use vslice::lab::tools;
use vslice::perf::check_rights;

type Outcome = Result<(), Failed>;
type Test = fn() -> Outcome;

fn main() {
    let mut arguments = Arguments::from_args();
    // Both have the pCPUs to themselves.
    arguments.test_threads = Some(1);
    let tests: [(&str, Test); 2] = [
        ("injected_causes_are_named", causes_are_named),
        ("sleeps_on_the_big_lock_agree_with_tracefs", sleeps_agree),
    ];
    let missing = missing();
    let trial = |(name, test): (&str, Test)| match &missing {
        None => Trial::test(name, test),
        Some(reason) => {
            Trial::test(name, || Ok(())).with_kind(reason.clone()).with_ignored_flag(true)
        }
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit();
}

fn missing() -> Option<String> {
    if let Err(error) = check_rights() {
        return Some(error.to_string());
    }
    let pcpus_count = std::thread::available_parallelism().map_or(1, usize::from);
    if pcpus_count < 2 {
        return Some("there is only one pCPU".to_owned());
    }
    tools::find(tools::QEMU).is_none().then(|| format!("there is no {}", tools::QEMU))
}

/// What `vslice selftest` prints as JSON, and whether it is content with itself.
fn selftest(args: &[&str]) -> Result<(Value, bool), Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_vslice"))
        .arg("selftest")
        .args(["--accelerator", "both", "--json"])
        .args(args)
        .stdin(Stdio::null())
        .output()?;
    let said = serde_json::from_slice(&output.stdout).map_err(|error| {
        let last_words = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("no JSON: {error}; {}: {last_words}", output.status)
    })?;
    Ok((said, output.status.success()))
}

/// The reasons that are injected wherever there is a QEMU, and how often at least: fewer would not
/// show a wrong one in a hundred.
const INJECTED: [(&str, u64); 12] = [
    ("bql", 100),
    ("qemu_lock", 100),
    ("halt_user", 100),
    ("vmm_lock", 100),
    ("host_fault", 100),
    ("io_submit", 100),
    // As long as the periods of its quota are.
    ("throttle", 4),
    ("timeslice", 20),
    ("preempt_wakeup", 100),
    ("yield", 100),
    ("poll_sleep", 100),
    ("stopped", 50),
];

fn causes_are_named() -> Outcome {
    let (said, is_content) = selftest(&[])?;
    let scenarios = said["scenarios"].as_array().ok_or("no scenarios")?;
    let cells = scenarios.iter().filter_map(|scenario| scenario["score"]["counts"].as_array());
    let mut injected: BTreeMap<&str, u64> = BTreeMap::new();
    for cell in cells.flatten() {
        let name = cell["injected"].as_str().ok_or("a cell without a reason")?;
        *injected.entry(name).or_default() += cell["count"].as_u64().unwrap_or(0);
    }
    for (name, count_min) in INJECTED {
        let count = injected.get(name).copied().unwrap_or(0);
        if count < count_min {
            return Err(
                format!("{name} was injected {count} times, not {count_min}: {said}").into()
            );
        }
    }
    if is_content { Ok(()) } else { Err(format!("it falls short: {said:#}").into()) }
}

fn sleeps_agree() -> Outcome {
    let (said, is_content) = selftest(&["--disks", "--window", "0.8"])?;
    let disks = said["disks"].as_array().ok_or("no disks")?;
    let count = |name: &str, key: &str| {
        disks.iter().find(|disk| disk["name"] == name).and_then(|disk| disk[key].as_u64())
    };
    for disk in disks {
        let is_read = disk["reads_count"].as_u64() > Some(0);
        // Where main loop and vCPU were both seen to wait for a lock, it is the one that was found.
        let is_same =
            disk["shared_address"].is_null() || disk["shared_address"] == disk["found_address"];
        let is_known = disk["found_address"].is_u64() && is_same;
        let is_whole = disk["witness_lost_count"] == 0;
        if !is_read || !is_known || !is_whole {
            return Err(format!("{disk:#}").into());
        }
    }
    // Without an iothread each request wakes the main loop, which takes the lock.
    let contended = count("ide, TCG", "witnessed_count").ok_or("no IDE under TCG")?;
    if contended < 50 {
        return Err(format!("IDE under TCG slept {contended} times: nothing to compare").into());
    }
    if is_content { Ok(()) } else { Err(format!("the counts differ: {disks:#?}").into()) }
}
