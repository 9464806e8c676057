//! `vslice-agent solo` as a process on this machine, disturbed in ways whose truth is known from
//! elsewhere: the kernel's own counters, or the test that did it. No time is asserted but by the
//! agreement of two measurements of one run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use vslice_workload::hog::Hog;

const MS: u64 = 1_000_000;

/// All tests use the same pCPU: two at once would be each other's rivals.
static PCPU: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    PCPU.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last pCPU that this process may use: the first one has most of the interrupts.
fn last_pcpu() -> u16 {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let is_allowed = |pcpu: &u16| allowed.is_set(usize::from(*pcpu)).unwrap();
    (0..1024).rfind(is_allowed).unwrap()
}

fn solo(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vslice-agent"));
    command.arg("solo").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn report(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// `schedstat` of the loop's thread; `None` until it is there.
fn loop_file(child: &Child, pcpu: u16) -> Option<PathBuf> {
    let name = format!("gap-{pcpu}\n");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).ok()?;
    let task = tasks
        .flatten()
        .map(|task| task.path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm == name))?;
    Some(task.join("schedstat"))
}

fn wait_for_loop(child: &Child, pcpu: u16) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(file) = loop_file(child, pcpu) {
            return file;
        }
        assert!(Instant::now() < deadline, "no loop has started");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Run delay and timeslices of a thread, while it is there.
fn delays(file: &PathBuf) -> Option<(u64, u64)> {
    let mut text = String::new();
    std::fs::File::open(file).ok()?.read_to_string(&mut text).ok()?;
    let mut numbers = text.split_ascii_whitespace().skip(1).map(|number| number.parse().unwrap());
    Some((numbers.next()?, numbers.next()?))
}

fn vcpu(report: &Value) -> &Value {
    assert_eq!(report["schema"], "vslice.solo/1");
    &report["vcpus"][0]
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Others have work on this machine too, and its own host may take the pCPU for long: one run in three
/// has to be undisturbed. What does not work fails in each.
fn in_some_run(test: fn()) {
    let _alone = alone();
    let is_right = |_| std::panic::catch_unwind(test).is_ok();
    if !(0..2).any(is_right) {
        test();
    }
}

/// A rival on the loop's pCPU takes half of it, and the loop names the guest's own scheduler.
#[test]
fn a_rival_is_the_guests_own_switch() {
    in_some_run(a_rival);
}

fn a_rival() {
    let pcpu = last_pcpu();
    let stop = Arc::new(AtomicBool::new(false));
    let rival = Hog::start(pcpu, Arc::clone(&stop), None).unwrap();
    let child = solo(&["--duration", "2s", "--vcpus", &pcpu.to_string(), "--json", "--gaps"]);
    let file = wait_for_loop(&child, pcpu);
    // The last of these readings is the nearest to the loop's own last.
    let mut seen = Vec::new();
    while let Some(delay) = delays(&file) {
        seen.push(delay);
        thread::sleep(Duration::from_millis(1));
    }
    let report = report(child);
    stop.store(true, Ordering::Relaxed);
    let _ = rival.join();
    let vcpu = vcpu(&report);
    let (outside_ns, timeslices) = *seen.last().unwrap();
    let found_ns = number(&vcpu["parts_ns"]["guest_switch"]);
    let told_ns = number(&vcpu["run_delay_ns"]);
    assert!(outside_ns > 0 && timeslices > 0, "a pinned rival runs at times");
    // Two percent are switches below the threshold; at either end one wait of some milliseconds is
    // in one count only.
    let agree = |one: u64, other: u64| one.abs_diff(other) <= one.max(other) / 50 + 15 * MS;
    assert!(agree(found_ns, outside_ns), "{found_ns} ns in gaps, {outside_ns} ns by /proc");
    assert!(agree(found_ns, told_ns), "{found_ns} of {told_ns} ns");
    let list = vcpu["gap_list"].as_array().unwrap();
    let switches = list.iter().filter(|gap| gap["kind"] == "guest_switch").count() as u64;
    assert_eq!(switches, number(&vcpu["gaps"]["guest_switch"]["count"]));
    assert!(
        switches * 10 <= timeslices * 11 && timeslices <= switches * 11 / 10 + 20,
        "{switches} gaps, {timeslices} timeslices"
    );
    for gap in list {
        let parts_ns: u64 = gap["parts_ns"].as_object().unwrap().values().map(number).sum();
        assert_eq!(parts_ns, number(&gap["length_ns"]));
    }
}

/// A stopped process neither runs nor waits: no run delay, no interrupt, and not the host either.
#[test]
fn a_stopped_loop_is_neither_the_hosts_nor_a_switch() {
    in_some_run(a_stopped_loop);
}

fn a_stopped_loop() {
    const STOPS: u64 = 6;
    const STOPPED: Duration = Duration::from_millis(50);
    let pcpu = last_pcpu();
    let child = solo(&["--duration", "2s", "--vcpus", &pcpu.to_string(), "--json", "--gaps"]);
    wait_for_loop(&child, pcpu);
    thread::sleep(Duration::from_millis(200));
    let mut stopped_ns = Vec::new();
    for _ in 0..STOPS {
        // Between the two readings the process is stopped for at least the sleep.
        let begun = Instant::now();
        kill(pid_of(&child), Signal::SIGSTOP).unwrap();
        thread::sleep(STOPPED);
        kill(pid_of(&child), Signal::SIGCONT).unwrap();
        stopped_ns.push(u64::try_from(begun.elapsed().as_nanos()).unwrap());
        thread::sleep(STOPPED);
    }
    let report = report(child);
    let list = vcpu(&report)["gap_list"].as_array().unwrap().clone();
    let long = list.iter().filter(|gap| number(&gap["length_ns"]) > 40 * MS);
    let stops: Vec<&Value> = long.collect();
    assert_eq!(stops.len() as u64, STOPS, "{stops:#?}");
    for (gap, outside_ns) in stops.iter().zip(stopped_ns) {
        assert_eq!(gap["kind"], "guest_stopped", "{gap:#}");
        // SIGSTOP takes effect a moment after kill, and both measurements may be delayed.
        let (length_ns, stopped_ns) =
            (number(&gap["length_ns"]), number(&gap["parts_ns"]["guest_stopped"]));
        assert!(length_ns.abs_diff(outside_ns) < 20 * MS, "{gap:#}, {outside_ns} ns outside");
        assert!(stopped_ns * 10 >= length_ns * 9, "{gap:#}");
    }
    assert_eq!(number(&vcpu(&report)["gaps"]["guest_stopped"]["count"]), STOPS);
}

/// Whoever ends it early gets the report of what was measured.
#[test]
fn an_interrupted_run_reports() {
    let _alone = alone();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let pcpu = last_pcpu();
        let child = solo(&["--duration", "60s", "--vcpus", &pcpu.to_string(), "--json"]);
        wait_for_loop(&child, pcpu);
        thread::sleep(Duration::from_millis(100));
        kill(pid_of(&child), signal).unwrap();
        let report = report(child);
        assert_eq!(report["interrupted"], true);
        let measured_ns = number(&vcpu(&report)["measured_ns"]);
        assert!((1..30_000 * MS).contains(&measured_ns), "{measured_ns}");
        assert!(number(&vcpu(&report)["cost"]["iterations"]) > 0);
    }
}

/// The reader's slow requests are laid under the gaps.
#[test]
fn a_reader_is_joined() {
    let _alone = alone();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, vec![7; 4 << 20]).unwrap();
    let pcpu = last_pcpu().to_string();
    let path = file.to_str().unwrap();
    let json = report(solo(&["--duration", "1s", "--vcpus", &pcpu, "--json", "--read", path]));
    let reading = &json["reading"];
    let latency = &reading["latency"];
    assert!(number(&latency["count"]) > 0 && reading["dropped"] == 0, "{reading:#}");
    assert_eq!(reading["slow_from_ns"], latency["p99_ns"]);
    assert!(number(&reading["slow"]["count"]) * 100 <= number(&latency["count"]));
    assert!(number(&reading["slow"]["host_ns"]) <= number(&reading["slow"]["latency_ns"]));
    let text = solo(&["--duration", "100ms", "--vcpus", &pcpu, "--read", path]);
    let text = String::from_utf8(text.wait_with_output().unwrap().stdout).unwrap();
    assert!(text.contains("Reader on vCPU") && text.contains("a lower bound"), "{text}");
}

/// An ordinary user is told what is missing, and nothing else.
#[test]
fn what_cannot_run_says_why() {
    let _alone = alone();
    for (arguments, expected) in [
        (&["--vcpus", "1000"][..], "vCPU1000"),
        (&["--vcpus", "0,0"], "named twice"),
        (&["--duration", "1ms"], "10 ms"),
        (&["--duration", "5"], "say 20us"),
        (&["--duration", "1s", "--read", "/nowhere"], "/nowhere"),
    ] {
        let output = solo(arguments).wait_with_output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{said}");
    }
}

/// The log of lengths is there, and the calibration says how fine the loop is.
#[test]
fn a_log_and_a_calibration() {
    let _alone = alone();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("solo.hlog");
    let pcpu = last_pcpu().to_string();
    let path = file.to_str().unwrap();
    report(solo(&["--duration", "500ms", "--vcpus", &pcpu, "--json", "--hlog", path]));
    let log = std::fs::read_to_string(&file).unwrap();
    assert!(log.starts_with("#[Histogram log format version 1.3]\n"), "{log}");
    let lines = log.lines().filter(|line| line.starts_with("Tag=vcpu"));
    assert!(lines.clone().all(|line| line.contains(",HISTFAAA")), "{log}");
    assert!(lines.count() > 0, "half a second without an interrupt of 20 us: {log}");
    let json = report(solo(&["--calibrate", "--vcpus", &pcpu, "--json"]));
    assert_eq!(json["schema"], "vslice.solo-calibration/1");
    let vcpu = &json["vcpus"][0];
    assert!(number(&vcpu["iteration_p50_ns"]) > 0);
    assert!(number(&vcpu["iteration_p50_ns"]) <= number(&vcpu["shortest_gap_ns"]));
    assert!(number(&vcpu["counters_p50_ns"]) > number(&vcpu["iteration_p50_ns"]));
}

/// A loop that may not run where it is asked to says so.
#[test]
fn the_affinity_of_the_process_is_the_default() {
    let _alone = alone();
    let pcpu = last_pcpu();
    let child = thread::spawn(move || {
        let mut set = CpuSet::new();
        set.set(usize::from(pcpu)).unwrap();
        sched_setaffinity(Pid::from_raw(0), &set).unwrap();
        solo(&["--duration", "50ms", "--json"])
    });
    let report = report(child.join().unwrap());
    assert_eq!(report["vcpus"].as_array().unwrap().len(), 1);
    assert_eq!(vcpu(&report)["vcpu"], pcpu);
}
