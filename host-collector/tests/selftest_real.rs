//! `vslice selftest` on this host: every injected cause is named right, and sleeps on QEMU's big
//! lock are counted as the kernel's own tracepoints count them.
//!
//! What this host lacks shows as an ignored test with the reason, and so does a cause that it did not let
//! happen often enough, with the figures.

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use vslice::lab::tools;
use vslice::perf::check_rights;
use vslice::timeline::Reason;

type Outcome = Result<(), Failed>;

fn main() {
    let mut arguments = Arguments::from_args();
    // Both have the pCPUs to themselves.
    arguments.test_threads = Some(1);
    let missing = missing();
    let sleeps = "sleeps_on_the_big_lock_agree_with_tracefs";
    let mut trials = vec![match &missing {
        None => Trial::test(sleeps, sleeps_agree),
        Some(reason) => ignored(sleeps, reason),
    }];
    match missing {
        None => trials.extend(causes(&arguments)),
        Some(reason) => trials.push(ignored(CAUSES, &reason)),
    }
    libtest_mimic::run(&arguments, trials).exit();
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
    let (said, is_content) = match selftest(&[]) {
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
        Some("too_few" | "not_tried") if taken_share > TAKEN_SHARE_MAX => {
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
