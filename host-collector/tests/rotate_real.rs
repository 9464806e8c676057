//! `vslice attach --rotate` beside a real QEMU, as a service manager would run it.
//!
//! What this host lacks (QEMU, a second pCPU, the right to record) shows as an ignored test with the reason.

#[path = "support/rig.rs"]
mod rig;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{machine_of, missing, pcpus};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice_core::calendar::DayTime;
use vslice_lab::tools;
use vslice_selftest::rig::boot_sector::Guest;
use vslice_selftest::rig::frontend::Frontend;
use vslice_selftest::rig::inject::rival;
use vslice_selftest::rig::machine::Machine;

const DEADLINE: Duration = Duration::from_secs(60);
const NAP: Duration = Duration::from_millis(50);

type Outcome = Result<(), Failed>;
type Test = fn() -> Outcome;

fn main() {
    let mut arguments = Arguments::from_args();
    // Each has the pCPUs to itself.
    arguments.test_threads = Some(1);
    let tests: [(&str, Test); 4] = [
        ("runs_follow_each_other_and_no_moment_between_them_is_missed", rotated),
        ("old_runs_are_removed_and_nothing_else", tidied),
        ("a_supervisor_that_is_killed_leaves_whole_runs", killed),
        ("a_recorder_that_fails_is_tried_again", tried_again),
    ];
    let trial = |(name, test, missing): (&str, Test, Option<String>)| match missing {
        None => Trial::test(name, test),
        Some(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    };
    let mut trials: Vec<Trial> =
        tests.into_iter().map(|(name, test)| trial((name, test, missing()))).collect();
    let no_tool = ["unshare", "setpriv"].into_iter().find(|tool| tools::find(tool).is_none());
    let missing = missing().or_else(|| no_tool.map(|tool| format!("there is no {tool}")));
    trials.push(trial(("the_units_capabilities_suffice", capabilities, missing)));
    libtest_mimic::run(&arguments, trials).exit();
}

fn machine() -> Result<Machine, Failed> {
    let qemu = tools::find(tools::QEMU).ok_or("QEMU was there a moment ago")?;
    machine_of(&qemu, Guest::Hog, Frontend::VirtioBlk)
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// A continuous recording of one VM. Dropping it ends it.
struct Recording {
    folder: PathBuf,
    supervisor: Child,
    /// What it and its recorders say.
    said: tempfile::NamedTempFile,
}

impl Recording {
    fn start(folder: &Path, vm: &str, args: &[&str]) -> Result<Recording, Failed> {
        let said = tempfile::NamedTempFile::new()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_vslice"));
        command.args(["attach", vm]).args(args).arg("--output").arg(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.reopen()?);
        Ok(Recording { folder: folder.to_owned(), supervisor: command.spawn()?, said })
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill(Pid::from_raw(i32::try_from(self.supervisor.id())?), signal)?)
    }

    /// Ends it as a service manager or a terminal does; what was said.
    fn end(mut self, signal: Signal) -> Result<String, Failed> {
        self.signal(signal)?;
        let status = self.supervisor.wait()?;
        let said = self.said();
        check(status.success(), || format!("{status}: {said}"))?;
        Ok(said)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.said.path()).unwrap_or_default()
    }

    fn wait_for(&self, what: &str, is_there: impl Fn(&[PathBuf]) -> bool) -> Outcome {
        let deadline = Instant::now() + DEADLINE;
        while !is_there(&runs(&self.folder)) {
            check(Instant::now() < deadline, || {
                format!("no {what} after {DEADLINE:?}: {:?}: {}", runs(&self.folder), self.said())
            })?;
            sleep(NAP);
        }
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _may_have_ended = self.supervisor.kill();
        let _status = self.supervisor.wait();
    }
}

/// Its runs in order of their names.
fn runs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut runs: Vec<PathBuf> = entries.filter(|path| path.join("run.json").is_file()).collect();
    runs.sort();
    runs
}

fn manifest(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("run.json")).unwrap_or_default()).unwrap_or_default()
}

fn state(run: &Path) -> String {
    manifest(run)["status"]["state"].as_str().unwrap_or_default().to_owned()
}

fn completed_count(runs: &[PathBuf]) -> usize {
    runs.iter().filter(|run| state(run) == "complete").count()
}

fn are_whole(folder: &Path) -> Outcome {
    for run in runs(folder) {
        check(state(&run) == "complete", || format!("{}: {:#}", run.display(), manifest(&run)))?;
        check(!run.join(".reserve").exists(), || format!("{} has a reserve", run.display()))?;
    }
    Ok(())
}

fn edge(run: &Path, name: &str) -> Result<u64, Failed> {
    Ok(manifest(run)["window"][name]
        .as_u64()
        .ok_or_else(|| format!("{}: no {name}", run.display()))?)
}

/// Two changes from one recorder to the next, and an end by SIGTERM; then a time of day is found.
fn rotated() -> Outcome {
    let machine = machine()?;
    let _rival = rival::start(pcpus().0)?;
    let scratch = tempfile::tempdir()?;
    let recording = Recording::start(
        scratch.path(),
        &machine.pid().to_string(),
        &["--rotate", "2s", "--keep", "10min"],
    )?;
    recording.wait_for("third run", |runs| {
        runs.len() >= 3 && manifest(&runs[2])["window"]["start_ns"].is_u64()
    })?;
    let said = recording.end(Signal::SIGTERM)?;
    are_whole(scratch.path())?;
    let runs = runs(scratch.path());
    check(runs.len() >= 3 && said.contains(" of it twice, "), || said.clone())?;
    for pair in runs.windows(2) {
        let (end, next) = (edge(&pair[0], "end_ns")?, edge(&pair[1], "start_ns")?);
        check(next <= end, || format!("{} ns between {pair:?}: {said}", next - end))?;
        check(!pair[0].join("summary.json").exists(), || "a report was made".to_owned())?;
    }
    // A second in the middle of the second run.
    let date_ns = |index: usize| manifest(&runs[1])["dates"][index]["realtime_ns"].as_u64();
    let (start, end) = date_ns(0).zip(date_ns(1)).ok_or("no dates")?;
    let middle_s = i64::try_from(start / 2 / 1_000_000_000 + end / 2 / 1_000_000_000)?;
    let time = format!("{}Z", DayTime::of_unix_s(middle_s, 0));
    let report = Command::new(env!("CARGO_BIN_EXE_vslice"))
        .args(["report", "--at", &time, "--around", "0s", "--json"])
        .arg(scratch.path())
        .output()?;
    let told = String::from_utf8_lossy(&report.stderr).into_owned();
    check(report.status.success(), || told.clone())?;
    let summary: Value = serde_json::from_slice(&report.stdout)?;
    check(summary["vcpus"][0]["on_pcpu_ns"].as_u64() > Some(0), || format!("{summary:#}"))?;
    let length_ns =
        summary["selection"]["until_ns"].as_u64().zip(summary["selection"]["since_ns"].as_u64());
    let length_ns = length_ns.map(|(until, since)| until.saturating_sub(since));
    check(length_ns.is_some_and(|ns| ns > 0 && ns <= 1_001_000_000), || {
        format!("{:#}", summary["selection"])
    })
}

/// With a short memory: what is not a run of this recording stays.
fn tidied() -> Outcome {
    let machine = machine()?;
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path().join("runs");
    let users = folder.join("attach-2026-11-30T03-12-00Z");
    let elsewhere = scratch.path().join("elsewhere");
    for path in [&users, &elsewhere] {
        fs::create_dir_all(path)?;
        fs::write(path.join("notes.txt"), "mine")?;
    }
    std::os::unix::fs::symlink(&elsewhere, folder.join("attach-2026-11-30T03-12-01Z"))?;
    let recording =
        Recording::start(&folder, &machine.pid().to_string(), &["--rotate", "1s", "--keep", "1s"])?;
    recording.wait_for("run", |runs| !runs.is_empty())?;
    let first = runs(&folder)[0].clone();
    recording.wait_for("removal", |_| !first.exists())?;
    recording.wait_for("whole run", |runs| completed_count(runs) >= 1)?;
    let said = recording.end(Signal::SIGINT)?;
    let first = first.file_name().and_then(|name| name.to_str()).ok_or("a name")?;
    check(said.contains(&format!("removed {first}: it ended longer ago")), || said.clone())?;
    let left_alone = "attach-2026-11-30T03-12-00Z is left alone";
    check(said.contains(left_alone), || said.clone())?;
    check(users.join("notes.txt").exists() && elsewhere.join("notes.txt").exists(), || {
        said.clone()
    })?;
    are_whole(&folder)
}

/// Nobody tells its recorder to end but the kernel.
fn killed() -> Outcome {
    let machine = machine()?;
    let _rival = rival::start(pcpus().0)?;
    let scratch = tempfile::tempdir()?;
    let recording = Recording::start(
        scratch.path(),
        &machine.pid().to_string(),
        &["--rotate", "1h", "--keep", "2h"],
    )?;
    recording.wait_for("window", |runs| {
        runs.first().is_some_and(|run| manifest(run)["window"]["start_ns"].is_u64())
    })?;
    recording.signal(Signal::SIGKILL)?;
    recording.wait_for("whole run", |runs| completed_count(runs) == 1)?;
    are_whole(scratch.path())?;
    // The lock went with it.
    let again = Recording::start(
        scratch.path(),
        &machine.pid().to_string(),
        &["--rotate", "1h", "--keep", "2h"],
    )?;
    again.wait_for("second run", |runs| runs.len() == 2)?;
    again.end(Signal::SIGTERM).map(drop)
}

/// The VM is not there at first: each recorder says so, and the one after it waits longer.
fn tried_again() -> Outcome {
    let scratch = tempfile::tempdir()?;
    let recording = Recording::start(scratch.path(), "nobody", &["--rotate", "5s"])?;
    for wait in ["started in 1.00 s", "started in 2.00 s"] {
        recording.wait_for(wait, |_| recording.said().contains(wait))?;
    }
    let said = recording.end(Signal::SIGTERM)?;
    check(runs(scratch.path()).is_empty(), || said.clone())?;
    let reasons = ["there is no VM 'nobody'", "no virtual machine is visible"];
    check(reasons.iter().any(|reason| said.contains(reason)), || said.clone())
}

const UNIT: &str = include_str!("../systemd/vslice.service");

/// What the recorder of a unit may do, where its tracefs is mounted: it records with nothing missing, and finds the lock
/// of a QEMU. The mount is that of a namespace of its own.
const AS_THE_UNIT: &str = r#"
mount -t tracefs tracefs /sys/kernel/tracing || exit 77
exec setpriv --bounding-set "-all,$1" --no-new-privs "$2" attach --all --duration 500ms --json --output "$3"
"#;

fn capabilities() -> Outcome {
    let _machine = machine()?;
    let line = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.ok_or("the unit bounds no capabilities")?.split(' ');
    let names = names.map(|name| name.to_lowercase().replace("cap_", "+")).collect::<Vec<_>>();
    let scratch = tempfile::tempdir()?;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", AS_THE_UNIT, "sh", &names.join(",")])
        .arg(env!("CARGO_BIN_EXE_vslice"))
        .arg(scratch.path().join("run"))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.success(), || said.clone())?;
    let manifest = manifest(&scratch.path().join("run"));
    let evidence = &manifest["evidence"];
    check(evidence["level"] == "recorded", || format!("{evidence:#}"))?;
    check(evidence["missing"].as_array().is_some_and(Vec::is_empty), || format!("{evidence:#}"))?;
    let lock = &manifest["vms"][0]["lock"];
    check(lock["bql"].is_object() || lock["bql"].is_number(), || format!("{lock:#}"))?;
    check(scratch.path().join("run/stacks.json").exists(), || "stacks have no names".to_owned())
}
