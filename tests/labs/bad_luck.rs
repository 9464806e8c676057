//! Everything that can go wrong around a run: a sentence, an exit code that is not 0, nothing left
//! behind, and what was recorded until then still there.

use crate::Case;
use libtest_mimic::Failed;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use vslice_tests::{Lab, Run, Started, processes_with};

pub(crate) const CASES: &[Case] = &[
    ("a_guest_that_dies_midway_leaves_a_partial_report", dying_guest),
    ("ctrl_c_leaves_a_partial_report", interrupted),
    ("ctrl_c_during_the_boot_is_said", interrupted_boot),
    ("ctrl_c_twice_leaves_a_partial_report", interrupted_twice),
    ("a_killed_collector_leaves_no_guest_behind", killed_collector),
    ("a_guest_that_does_not_connect_in_time_is_said", late_guest),
    ("a_guest_that_panics_is_said", panicking_guest),
    ("a_full_disk_is_said", full_disk),
    ("a_missing_kernel_is_said", missing_kernel),
    ("an_impossible_pin_is_said", impossible_pin),
    ("an_unknown_key_is_said", unknown_key),
    ("a_run_directory_is_never_used_twice", used_directory),
];

/// Long enough to be interrupted at any time.
const LONG: &[&str] = &["demo", "--total", "4GiB"];
const LONG_AS_JSON: &[&str] = &["run", "demo", "--total", "4GiB", "--json"];
pub(crate) const UNTIL_RECORDING: Duration = Duration::from_secs(120);
const UNTIL_GONE: Duration = Duration::from_secs(60);

/// The run has failed with `sentence`, and has left nothing behind.
pub(crate) fn failed_with(run: &Run, code: i32, sentence: &str) -> Result<(), Failed> {
    run.nothing_is_left()?;
    if run.code() != Some(code) {
        return Err(format!("exit code {:?}, not {code}:\n{}", run.code(), run.said()).into());
    }
    if !run.said().contains(sentence) {
        return Err(format!("'{sentence}' was not said:\n{}", run.said()).into());
    }
    Ok(())
}

/// The run is reported as partial, with requests that were recorded before its end.
pub(crate) fn is_partial(run: &Run) -> Result<(), Failed> {
    let summary = run.summary()?;
    let partial = summary["status"]["state"] == "partial";
    let some = summary["requests"]["count"].as_u64().is_some_and(|count| count > 0);
    if partial && some { Ok(()) } else { Err(format!("not partial: {summary:#}").into()) }
}

/// A long run, a moment after the first block of requests has been stored.
fn recording(lab: &Lab) -> Result<Started, Failed> {
    let mut started = lab.start(LONG)?;
    started.wait_until(UNTIL_RECORDING, |dir| {
        fs::metadata(dir.join("requests-vm1.vsr")).is_ok_and(|file| file.len() > 4096)
    })?;
    Ok(started)
}

pub(crate) fn qemu_of(vm: &str, dir: &Path) -> Result<Pid, Failed> {
    let processes = processes_with(dir);
    let qemu = processes.iter().find(|(_, line)| line.contains(&format!("-name {vm},")));
    Ok(Pid::from_raw(qemu.ok_or(format!("no QEMU of {vm} in {processes:#?}"))?.0))
}

fn dying_guest(lab: &Lab) -> Result<(), Failed> {
    let started = recording(lab)?;
    kill(qemu_of("vm1", &started.run_dir())?, Signal::SIGKILL)?;
    let run = started.finish()?;
    failed_with(&run, 1, "vm1")?;
    is_partial(&run)
}

fn interrupted(lab: &Lab) -> Result<(), Failed> {
    let started = recording(lab)?;
    kill(started.pid(), Signal::SIGINT)?;
    let run = started.finish()?;
    failed_with(&run, 130, "interrupted")?;
    is_partial(&run)
}

/// Nothing is there to be waited for, and nothing was measured.
fn interrupted_boot(lab: &Lab) -> Result<(), Failed> {
    let mut started = lab.start(LONG)?;
    started.wait_until(UNTIL_RECORDING, |dir| dir.join("vm1.qemu.log").exists())?;
    kill(started.pid(), Signal::SIGINT)?;
    let run = started.finish()?;
    failed_with(&run, 130, "interrupted")?;
    if run.summary()?["measured_ns"] == 0 { Ok(()) } else { Err("it has recorded".into()) }
}

/// As somebody does who has no patience, or a shell that tells the whole group.
fn interrupted_twice(lab: &Lab) -> Result<(), Failed> {
    let started = recording(lab)?;
    kill(started.pid(), Signal::SIGINT)?;
    std::thread::sleep(Duration::from_millis(100));
    kill(started.pid(), Signal::SIGINT)?;
    let run = started.finish()?;
    failed_with(&run, 130, "interrupted")?;
    is_partial(&run)
}

fn killed_collector(lab: &Lab) -> Result<(), Failed> {
    let started = recording(lab)?;
    kill(started.pid(), Signal::SIGKILL)?;
    let run = started.finish()?;
    // The kernel kills the guests right after their parent; it takes a while to free their memory.
    let deadline = Instant::now() + UNTIL_GONE;
    while let Err(left) = run.no_process_is_left() {
        if Instant::now() > deadline {
            return Err(left.into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let report = lab.command(&["report", "--json"]).arg(run.run_dir()).output()?;
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    if text.contains("\"partial\"") { Ok(()) } else { Err(format!("not partial: {text}").into()) }
}

/// No guest boots in a second.
fn late_guest(lab: &Lab) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let plan = dir.path().join("late.toml");
    let toml = lab.command(&["plan", "show", "demo"]).output()?.stdout;
    fs::write(&plan, format!("boot_timeout = \"1s\"\n{}", String::from_utf8_lossy(&toml)))?;
    let run = lab.run(&[&plan.to_string_lossy(), "--accelerator", "tcg"])?;
    failed_with(&run, 1, "the guest did not connect within 1 s")?;
    // The test's directory, and with it the console's log, is gone when this is read.
    failed_with(&run, 1, "the last line there: ")
}

/// An image without an init.
fn panicking_guest(lab: &Lab) -> Result<(), Failed> {
    let image = tempfile::tempdir()?;
    for file in ["vmlinux", "manifest.json"] {
        symlink(lab.image().join(file), image.path().join(file))?;
    }
    fs::write(image.path().join("initramfs.cpio.gz"), b"")?;
    let image = image.path().to_string_lossy().into_owned();
    let run = lab.run(&["demo", "--accelerator", "tcg", "--image", &image])?;
    failed_with(&run, 1, "the guest's console says")
}

/// A file system of its own for the run directory; the guests' scratch disks are elsewhere.
fn full_disk(lab: &Lab) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    // More than a run keeps for its last words, and little enough to be filled at once.
    let (source, kind, size) = (Some("vslice-test"), Some("tmpfs"), Some("size=128m"));
    mount(source, dir.path(), kind, MsFlags::empty(), size)?;
    let run = dir.path().join("run");
    let output = on_a_disk_that_fills(lab, &run, &dir.path().join("somebody-else's"));
    let left = processes_with(&run);
    let unmounted = umount(dir.path());
    let output = output?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() != Some(1) || !said.contains("No space left") {
        return Err(format!("{}:\n{said}", output.status).into());
    }
    let summary: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("no report ({error}):\n{said}"))?;
    let reason = summary["status"]["reason"].as_str().unwrap_or_default();
    if !reason.contains("No space left") || summary["requests"]["count"] == 0 {
        return Err(format!("not what was recorded: {summary:#}").into());
    }
    if !left.is_empty() {
        return Err(format!("left behind: {left:#?}").into());
    }
    Ok(unmounted?)
}

/// A run on whose disk somebody else's file takes all that is left, once requests are recorded.
fn on_a_disk_that_fills(lab: &Lab, run: &Path, file: &Path) -> Result<Output, Failed> {
    let mut command = lab.command(&[LONG_AS_JSON, &["--output"]].concat());
    command.arg(run).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut started = command.spawn()?;
    let deadline = Instant::now() + UNTIL_RECORDING;
    let is_recording = || {
        let requests = fs::metadata(run.join("requests-vm1.vsr"));
        requests.is_ok_and(|requests| requests.len() > 4096)
    };
    while !is_recording() && started.try_wait()?.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let filled = File::create(file).and_then(|mut file| io::copy(&mut io::repeat(0x5a), &mut file));
    let output = started.wait_with_output()?;
    match filled {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(output),
        filled => Err(format!("the disk was not filled: {filled:?}").into()),
    }
}

fn missing_kernel(lab: &Lab) -> Result<(), Failed> {
    let run = lab.run(&["demo", "--image", "/nonexistent"])?;
    failed_with(&run, 1, "make image")
}

fn impossible_pin(lab: &Lab) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let plan = dir.path().join("far.toml");
    let toml = lab.command(&["plan", "show", "demo"]).output()?.stdout;
    let toml =
        String::from_utf8_lossy(&toml).replace("vcpu_pcpus = [0, 1]", "vcpu_pcpus = [0, 4000]");
    fs::write(&plan, toml)?;
    let run = lab.run(&[&plan.to_string_lossy()])?;
    failed_with(&run, 1, "pCPU4000")
}

fn unknown_key(lab: &Lab) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let plan = dir.path().join("wrong.toml");
    fs::write(&plan, "name = \"wrong\"\ncollector_pcpu = 0\nhogz = 1\n")?;
    let run = lab.run(&[&plan.to_string_lossy()])?;
    failed_with(&run, 1, "hogz")
}

/// What is in it stays as it is, and is not reported as if it were the new run's.
fn used_directory(lab: &Lab) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("run.json"), "precious")?;
    let output = lab.command(&["run", "demo", "--output"]).arg(dir.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_untouched = fs::read(dir.path().join("run.json"))? == b"precious"
        && fs::read_dir(dir.path())?.count() == 1
        && output.stdout.is_empty();
    if output.status.code() != Some(1) || !said.contains("is not empty") || !is_untouched {
        return Err(format!("{}:\n{said}", output.status).into());
    }
    Ok(())
}
