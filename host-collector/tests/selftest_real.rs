//! `vslice selftest` on this host: every injected cause is named right, and sleeps on QEMU's big
//! lock are counted as the kernel's own tracepoints count them.
//!
//! What this host lacks shows as an ignored test with the reason, and so does a cause that it did not let
//! happen often enough, with the figures.

#[path = "support/newer.rs"]
mod newer;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use vslice_core::timeline::Reason;
use vslice_lab::tools;
use vslice_record::perf::check_rights;
use vslice_selftest::disks::DiskCount;

type Outcome = Result<(), Failed>;

fn main() {
    let mut arguments = Arguments::from_args();
    // Both have the pCPUs to themselves.
    arguments.test_threads = Some(1);
    let missing = missing();
    let qemus = [None, Some(newer::QEMUS[0]), Some(newer::QEMUS[1])];
    let mut trials: Vec<Trial> = qemus.map(|which| trial_of_sleeps(which, missing.as_ref())).into();
    trials.push(Trial::test(
        "drawn_shortages_are_wrong_unless_others_explain_them",
        shortages_need_others,
    ));
    match missing {
        None => trials.extend(causes(&arguments)),
        Some(reason) => trials.push(ignored(CAUSES, &reason)),
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// With the installed QEMU, or with one that tests/newer-tools gets: `vslice` looks there first.
fn trial_of_sleeps(which: Option<&'static str>, missing: Option<&String>) -> Trial {
    let name = format!("{SLEEPS}/{}", which.unwrap_or("installed"));
    match (missing, which.map(newer::tool).transpose()) {
        (Some(reason), _) => ignored(&name, reason),
        (None, Err(reason)) => ignored(&name, &reason),
        (None, Ok(tools)) => Trial::test(name, move || {
            // A minute each, and one more for each that finds a KVM that hangs: one asks for it.
            let accelerator = if which.is_some() { "tcg" } else { "both" };
            sleeps_agree(tools.as_deref(), accelerator)
        }),
    }
}

fn ignored(name: &str, reason: &str) -> Trial {
    Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true)
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
fn selftest(tools: Option<&Path>, args: &[&str]) -> Result<(Value, bool), Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_vslice"))
        .envs(tools.map(|tools| ("VSLICE_TOOLS", tools)))
        .arg("selftest")
        .arg("--json")
        .args(args)
        .stdin(Stdio::null())
        .output()?;
    let said = serde_json::from_slice(&output.stdout).map_err(|error| {
        let last_words = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("no JSON: {error}; {}: {last_words}", output.status)
    })?;
    Ok((said, output.status.success()))
}

/// How the tests of the injected causes begin; each goes on with its reason.
const CAUSES: &str = "injected_causes_are_named";

/// Where others have more of the vCPU's pCPU, an injector may come to too few cases by no fault of its
/// own.
const TAKEN_SHARE_MAX: f64 = 0.15;

/// One test for each reason, and one for what is about all of them. The self-test is run before they
/// begin, as a reason that this machine does not let it judge is no test that passes: it is ignored, and
/// says why.
fn causes(arguments: &Arguments) -> Vec<Trial> {
    let reasons = Reason::ALL.into_iter().filter(|reason| *reason != Reason::Unknown);
    let names: Vec<String> =
        reasons.map(|reason| format!("{CAUSES}/{}", reason.name())).chain([all_name()]).collect();
    if arguments.list || !names.iter().any(|name| is_wanted(arguments, name)) {
        return names.into_iter().map(|name| Trial::test(name, || Ok(()))).collect();
    }
    let (said, is_content) = match selftest(None, &["--accelerator", "both"]) {
        Ok(run) => run,
        Err(failed) => return vec![Trial::test(all_name(), move || Err(failed))],
    };
    let rows = said["rows"].as_array().cloned().unwrap_or_default();
    let of_reason = |name: &String| {
        let reason = name.rsplit('/').next();
        rows.iter().find(|row| row["reason"].as_str() == reason).cloned()
    };
    let last = names.len() - 1;
    let mut trials: Vec<Trial> =
        names[..last].iter().map(|name| cause(name, of_reason(name))).collect();
    trials.push(Trial::test(all_name(), move || is_consistent(&said, is_content)));
    trials
}

fn all_name() -> String {
    format!("{CAUSES}/all")
}

fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let fits =
        |filter: &String| if arguments.exact { name == filter } else { name.contains(filter) };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}

fn cause(name: &str, row: Option<Value>) -> Trial {
    let Some(row) = row else {
        return Trial::test(name, || Err("the self-test says nothing of it".into()));
    };
    let why = row["why"].as_str().unwrap_or_default().to_owned();
    let taken_share = row["taken_share"].as_f64().unwrap_or(0.0);
    let cases = format!("{} cases", row["cases"]);
    match row["verdict"].as_str() {
        Some("right") => Trial::test(name, || Ok(())).with_kind(cases),
        Some("left_out") => told(name, "left out", &why),
        Some("too_few" | "not_tried" | "not_judged") if taken_share > TAKEN_SHARE_MAX => {
            told(name, "not judged", &format!("because {why}"))
        }
        _ => Trial::test(name, move || Err(why.into())),
    }
}

/// Ignored, with the figures on a line of their own: they are long.
fn told(name: &str, word: &str, why: &str) -> Trial {
    let written = writeln!(std::io::stderr(), "{name}: {word}, {why}");
    written.expect("the test's output");
    ignored(name, word)
}

/// What is not about one reason: unknown time, and waits for the big lock that do not name it. And that
/// the status with which it ended says what it printed.
fn is_consistent(said: &Value, is_content: bool) -> Outcome {
    let shortfalls = said["shortfalls"].as_array().ok_or("no shortfalls")?;
    let rows = said["rows"].as_array().ok_or("no rows")?;
    if !shortfalls.is_empty() {
        return Err(format!("it falls short: {shortfalls:#?}\n{said:#}").into());
    }
    let is_fine = |row: &Value| row["verdict"] == "right" || row["verdict"] == "left_out";
    if is_content != rows.iter().all(is_fine) {
        return Err(format!("content: {is_content}, but {rows:#?}").into());
    }
    Ok(())
}

const SLEEPS: &str = "sleeps_on_the_big_lock_agree_with_tracefs";

/// The disk whose vCPU thread sleeps on the lock for sure: without an iothread each request wakes the main
/// loop, which takes the lock.
const CONTENDED: &str = "ide, TCG";

/// Fewer sleeps than these are nothing to compare.
const SLEEPS_MIN: u64 = 50;

fn sleeps_agree(tools: Option<&Path>, accelerator: &str) -> Outcome {
    let args = ["--accelerator", accelerator, "--disks", "--window", "0.8"];
    let (said, is_content) = selftest(tools, &args)?;
    let counts: Vec<DiskCount> = serde_json::from_value(said["disks"].clone())?;
    let unjudged =
        judge_disks(&counts, is_content).map_err(|wrong| format!("{wrong}: {said:#}"))?;
    if !unjudged.is_empty() {
        let written =
            writeln!(std::io::stderr(), "\n{SLEEPS}: not judged, because {}", unjudged.join("; "));
        written.expect("the test's output");
    }
    Ok(())
}

/// Of which disks nothing is said, and why: others had too much of the vCPU's pCPU for it to do what is
/// counted.
fn judge_disks(counts: &[DiskCount], is_content: bool) -> Result<Vec<String>, String> {
    let mut unjudged = Vec::new();
    for count in counts {
        let name = &count.name;
        // Where main loop and vCPU were both seen to wait for a lock, it is the one that was found.
        let is_known = count.found_address.is_some()
            && count.shared_address.is_none_or(|shared| count.found_address == Some(shared));
        if !is_known {
            return Err(format!("{name}: the lock that was found is not the one that is shared"));
        }
        match too_little(count) {
            Some(why) if count.taken_share > TAKEN_SHARE_MAX => unjudged.push(format!(
                "{name}: {why}, while others had {:.1} % of the vCPU's pCPU",
                count.taken_share * 100.0
            )),
            Some(why) => return Err(format!("{name}: {why}")),
            None if !count.agrees() => return Err(format!("{name}: the counts differ")),
            None => {}
        }
    }
    if !counts.iter().any(|count| count.name == CONTENDED) {
        return Err(format!("nothing is said of {CONTENDED}"));
    }
    if is_content != counts.iter().all(DiskCount::agrees) {
        return Err(format!("content: {is_content}"));
    }
    Ok(unjudged)
}

/// Why there is nothing to compare on a disk.
fn too_little(count: &DiskCount) -> Option<String> {
    if count.reads_count == 0 {
        return Some("the guest read nothing".to_owned());
    }
    if count.witness_lost_count > 0 {
        return Some(format!("the witness lost {} entries", count.witness_lost_count));
    }
    let is_few = count.name == CONTENDED && count.witnessed_count < SLEEPS_MIN;
    is_few
        .then(|| format!("its vCPU slept {} times of at least {SLEEPS_MIN}", count.witnessed_count))
}

/// What is judged of drawn counts: a shortage is wrong where nobody else explains it.
fn shortages_need_others() -> Outcome {
    let good = DiskCount {
        name: CONTENDED.to_owned(),
        recorded_count: 400,
        witnessed_count: 400,
        departures_count: 500,
        lost_ns: 0,
        reads_count: 300,
        witness_lost_count: 0,
        found_address: Some(64),
        shared_address: Some(64),
        taken_share: 0.0,
    };
    let judge = |count: &DiskCount, taken_share| {
        let count = DiskCount { taken_share, ..count.clone() };
        judge_disks(std::slice::from_ref(&count), count.agrees())
    };
    let short = [
        DiskCount { reads_count: 0, ..good.clone() },
        DiskCount { witness_lost_count: 1, ..good.clone() },
        DiskCount { recorded_count: 49, witnessed_count: 49, ..good.clone() },
    ];
    for count in &short {
        let (quiet, busy) = (judge(count, TAKEN_SHARE_MAX), judge(count, 0.4));
        let is_said = busy.as_ref().is_ok_and(|why| why[0].ends_with("40.0 % of the vCPU's pCPU"));
        if quiet.is_ok() || !is_said {
            return Err(format!("{count:?}: {quiet:?}, {busy:?}").into());
        }
    }
    let wrong = [
        DiskCount { recorded_count: 300, ..good.clone() },
        DiskCount { shared_address: Some(8), ..good.clone() },
        DiskCount { found_address: None, ..good.clone() },
        DiskCount { name: "nvme, TCG".to_owned(), ..good.clone() },
    ];
    match wrong.iter().find(|count| judge(count, 0.9).is_ok()) {
        Some(count) => Err(format!("{count:?} is taken for right").into()),
        None if judge(&good, 0.9) == Ok(Vec::new()) => Ok(()),
        None => Err(format!("{:?}", judge(&good, 0.9)).into()),
    }
}
