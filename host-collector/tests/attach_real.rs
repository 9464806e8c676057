//! `vslice attach` to real QEMUs, as a user would: by their processes, from another one.
//!
//! What this host lacks (QEMU, a second pCPU, the right to record) shows as an ignored test with the
//! reason.

#[path = "support/newer.rs"]
mod newer;
#[path = "support/rig.rs"]
mod rig;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{machine_of, missing, pcpus};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use vslice_core::units::{PcpuId, Tid};
use vslice_host::host::disk_facts;
use vslice_host::host_clock::host_now;
use vslice_host::pin::affinity;
use vslice_host::scratch;
use vslice_lab::tools;
use vslice_selftest::rig::boot_sector::Guest;
use vslice_selftest::rig::frontend::Frontend;
use vslice_selftest::rig::inject::rival;
use vslice_selftest::rig::machine::{Machine, READER};

const DEADLINE: Duration = Duration::from_secs(60);
const NAP: Duration = Duration::from_millis(20);

type Outcome = Result<(), Failed>;
type Test = fn(&Path) -> Outcome;

fn main() {
    let mut arguments = Arguments::from_args();
    // Each has the pCPUs to itself.
    arguments.test_threads = Some(1);
    let tests: [(&str, Test); 5] = [
        ("a_vm_is_recorded_for_a_time", recorded),
        ("two_vms_are_recorded_at_once", two_at_once),
        ("ctrl_c_ends_a_recording_in_order", interrupted),
        ("a_vm_that_ends_midway_leaves_a_partial_report", ended_midway),
        ("who_cannot_be_attached_to_is_said", unknown),
    ];
    let missing = missing();
    let trial = |(name, test): (&str, Test)| match &missing {
        None => Trial::test(name, move || test(&qemu()?)),
        Some(reason) => {
            Trial::test(name, || Ok(())).with_kind(reason.clone()).with_ignored_flag(true)
        }
    };
    let mut trials: Vec<Trial> = tests.into_iter().map(trial).collect();
    trials.extend(["installed", newer::QEMUS[0], newer::QEMUS[1]].map(|which| {
        let name = format!("the_lock_is_proven_and_found_by_behaviour/{which}");
        let newer = || newer::tool(&format!("{which}/{}", tools::QEMU));
        let qemu = match &missing {
            Some(reason) => Err(reason.clone()),
            None if which == "installed" => tools::find(tools::QEMU).ok_or("no QEMU".to_owned()),
            None => newer(),
        };
        match qemu {
            Ok(qemu) => Trial::test(name, move || locks(&qemu)),
            Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
        }
    }));
    trials.push(Trial::test("a_rival_of_whom_little_is_seen_is_not_named", little_is_not_named));
    libtest_mimic::run(&arguments, trials).exit();
}

fn qemu() -> Result<PathBuf, Failed> {
    Ok(tools::find(tools::QEMU).ok_or("QEMU was there a moment ago")?)
}

fn machine(qemu: &Path) -> Result<Machine, Failed> {
    machine_of(qemu, Guest::Hog, Frontend::VirtioBlk)
}

/// `vslice attach` with these arguments, its run directory in `dir`.
fn attach(dir: &Path, args: &[&str]) -> Result<Child, Failed> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vslice"));
    command.arg("attach").args(args).arg("--json").arg("--output").arg(dir.join("run"));
    // What is vslice's own lies elsewhere than the VM's image.
    command.env("VSLICE_TMP", "/dev/shm");
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn summary(output: &Output) -> Result<Value, Failed> {
    let summary = serde_json::from_slice(&output.stdout);
    summary.map_err(|error| format!("no JSON ({error}): {}", said(output)).into())
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

fn is_complete(output: &Output) -> Result<Value, Failed> {
    let summary = summary(output)?;
    check(output.status.success(), || said(output))?;
    check(summary["status"]["state"] == "complete", || format!("{summary:#}"))?;
    Ok(summary)
}

/// What the kernel counts of a thread's running, looked at while the thread is recorded: how much of the pCPU
/// it got is told on a busy machine too.
struct RunClock {
    stop: Arc<AtomicBool>,
    /// Moments, and what it had run by then, but for the tick that goes on.
    looks: JoinHandle<Vec<(u64, u64)>>,
}

impl RunClock {
    fn start(tid: Tid) -> RunClock {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let looks = spawn(move || {
            let mut looks = Vec::new();
            // ATOMICS: relaxed, because the flag stands for itself.
            while !is_over.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(format!("/proc/{tid}/schedstat"));
                let ran_ns = text.ok().and_then(|text| text.split(' ').next()?.parse().ok());
                looks.extend(ran_ns.map(|ran_ns| (host_now().0, ran_ns)));
                sleep(Duration::from_millis(2));
            }
            looks
        });
        RunClock { stop, looks }
    }

    /// For how long it ran while the run in `dir` was recorded, at least.
    fn ran_ns(self, dir: &Path) -> Result<u64, Failed> {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.looks.join().map_err(|_| "the looks at a thread have panicked")?;
        let manifest: Value = serde_json::from_slice(&std::fs::read(dir.join("run/run.json"))?)?;
        let edge = |name: &str| manifest["window"][name].as_u64().ok_or("no window");
        let window = edge("start_ns")?..=edge("end_ns")?;
        let mut inside = looks.iter().filter(|(time, _)| window.contains(time));
        let (first, last) = (inside.next(), inside.next_back());
        let (first, last) = first.zip(last).ok_or("nobody looked at the thread")?;
        Ok(last.1 - first.1)
    }
}

/// A row of the antagonists, for at least half of what the thread behind it really ran. It always wants the
/// pCPU that the vCPU wants, so that the vCPU waits while it runs.
fn is_named(antagonists: &Value, name: &str, ran_ns: u64) -> Outcome {
    let rows = antagonists.as_array().ok_or("no antagonists")?;
    let found = rows.iter().find(|row| row["name"] == name);
    let told_ns = found.and_then(|row| row["ran_ns"].as_u64()).unwrap_or(0);
    check(ran_ns > 0 && told_ns.saturating_mul(2) >= ran_ns, || {
        format!("{name} ran for {ran_ns} ns, of which {told_ns} are told: {antagonists:#}")
    })
}

fn little_is_not_named() -> Outcome {
    let rows = serde_json::json!([
        { "name": "cc1", "ran_ns": 700 },
        { "name": "rig-hog", "ran_ns": 499 },
    ]);
    is_named(&rows, "rig-hog", 998)?;
    for (name, ran_ns) in [("rig-hog", 999), ("rig-hog", 500_000), ("rig-hog", 0), ("cc2", 1)] {
        check(is_named(&rows, name, ran_ns).is_err(), || format!("{name} of {ran_ns} ns"))?;
    }
    Ok(())
}

/// A rival takes half of the vCPU's pCPU, and nothing of the VM is changed.
fn recorded(qemu: &Path) -> Outcome {
    let machine = machine(qemu)?;
    let rival = rival::start(pcpus().0)?;
    let name = std::fs::read_to_string(format!("/proc/self/task/{}/comm", rival.tid()))?;
    let dir = tempfile::tempdir()?;
    let affinities = || -> Result<Vec<Vec<PcpuId>>, Failed> {
        let threads = machine.threads()?;
        Ok(threads.iter().map(|thread| affinity(thread.tid)).collect::<Result<_, _>>()?)
    };
    let before = affinities()?;
    let pid = machine.pid().to_string();
    let clock = RunClock::start(rival.tid());
    let output = attach(dir.path(), &[&pid, "--duration", "1s"])?.wait_with_output()?;
    let rival_ns = clock.ran_ns(dir.path())?;
    drop(rival);
    let summary = is_complete(&output)?;
    let what = || format!("{summary:#}");
    check(affinities()? == before, || "an affinity was changed".to_owned())?;
    check(summary["plan"] == "attach" && summary["requests"]["count"] == 0, what)?;
    check(summary["measured_ns"].as_u64() >= Some(1_000_000_000), what)?;
    let vcpu = &summary["vcpus"][0];
    check(
        vcpu["tid"] == machine.vcpu().0 && vcpu["timeslices"]["count"].as_u64() > Some(10),
        what,
    )?;
    // Whoever else is busy on this machine may be there for longer.
    is_named(&vcpu["antagonists"], name.trim_end(), rival_ns)?;
    let rows = vcpu["off_cpu"].as_array().ok_or("no reasons")?;
    let over = rows.iter().find(|row| row["reason"] == "timeslice").ok_or_else(what)?;
    check(over["count"].as_u64() > Some(10), what)?;
    let host = &summary["environment"]["details"]["host"];
    match disk_facts(&scratch::parent_dir()) {
        Some(disk) => check(host["disks"][0]["device"] == disk.device.as_str(), what)?,
        None => check(host["disks_missing"][0].is_string(), what)?,
    }
    // The report is a function of the run directory, here too.
    let again = Command::new(env!("CARGO_BIN_EXE_vslice"))
        .args(["report", "--json"])
        .arg(dir.path().join("run"))
        .output()?;
    check(again.stdout == output.stdout, || "the report again is another".to_owned())
}

/// A guest that reads from IDE waits for the lock with each request. What the code proves is what the behaviour
/// shows, in a run of which only the latter is left.
fn locks(qemu: &Path) -> Outcome {
    let machine = machine_of(qemu, READER, Frontend::Ide)?;
    let pid = machine.pid().to_string();
    let vslice = || Command::new(env!("CARGO_BIN_EXE_vslice"));
    let ps: Value =
        serde_json::from_slice(&vslice().args(["ps", "--json", &pid]).output()?.stdout)?;
    let vm = &ps["vms"][0];
    check(vm["vmm"] == "qemu" && vm["accelerator"] == "tcg", || format!("{ps:#}"))?;
    check(vm["disks"][0]["bus"] == "ide", || format!("{ps:#}"))?;

    let dir = tempfile::tempdir()?;
    let output = attach(dir.path(), &[&pid, "--duration", "3s"])?.wait_with_output()?;
    drop(machine);
    let proven = is_complete(&output)?;
    check(proven["big_locks"][0]["evidence"] == "proven", || format!("{proven:#}"))?;
    check(count(&proven, "bql") > 50, || format!("{proven:#}"))?;
    for other in ["bql_found_by_behaviour", "bql_inferred"] {
        check(count(&proven, other) == 0, || format!("{proven:#}"))?;
    }

    let run_json = dir.path().join("run/run.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&run_json)?)?;
    let lock = &mut manifest["vms"][0]["lock"];
    (lock["bql"], lock["bql_missing"]) = (Value::Null, "it has no symbols".into());
    std::fs::write(&run_json, manifest.to_string())?;
    let again = vslice().args(["report", "--json"]).arg(dir.path().join("run")).output()?;
    let shown = summary(&again)?;
    let (lock, what) = (&shown["big_locks"][0], || format!("{shown:#}"));
    check(lock["evidence"] == "found_by_behaviour", what)?;
    check(lock["address"] == proven["big_locks"][0]["address"], what)?;
    check(count(&shown, "bql_found_by_behaviour") == count(&proven, "bql"), what)
}

/// How often the vCPU left its pCPU for this reason.
fn count(summary: &Value, reason: &str) -> u64 {
    let rows = summary["vcpus"][0]["off_cpu"].as_array().into_iter().flatten();
    rows.filter(|row| row["reason"] == reason).filter_map(|row| row["count"].as_u64()).sum()
}

/// Both have the same name, so that they are told apart by their processes.
fn two_at_once(qemu: &Path) -> Outcome {
    let (one, two) = (machine(qemu)?, machine(qemu)?);
    let dir = tempfile::tempdir()?;
    let pids = [one.pid().to_string(), two.pid().to_string()];
    let args = [pids[0].as_str(), pids[1].as_str(), "--duration", "500ms"];
    let clocks = [&one, &two].map(|machine| (machine.vcpu(), RunClock::start(machine.vcpu())));
    let output = attach(dir.path(), &args)?.wait_with_output()?;
    let mut ran_ns = Vec::new();
    for (tid, clock) in clocks {
        ran_ns.push((tid.0, clock.ran_ns(dir.path())?));
    }
    let summary = is_complete(&output)?;
    let vcpus = summary["vcpus"].as_array().ok_or("no vCPUs")?;
    check(vcpus.len() == 2 && vcpus[0]["vm"] != vcpus[1]["vm"], || format!("{summary:#}"))?;
    // They share a pCPU, and each sees the other one there.
    for (vcpu, other) in [(&vcpus[0], &vcpus[1]), (&vcpus[1], &vcpus[0])] {
        let (name, tid) = (other["vm"].as_str().ok_or("a name")?, &other["tid"]);
        let ran_ns = ran_ns.iter().find(|(of, _)| tid == of).ok_or("another thread")?.1;
        // Whoever else is busy on this machine may be there for longer.
        is_named(&vcpu["antagonists"], &format!("{name} vCPU0"), ran_ns)?;
    }
    Ok(())
}

fn wait_until_it_records(dir: &Path) -> Outcome {
    let deadline = Instant::now() + DEADLINE;
    let records = || {
        let text = std::fs::read(dir.join("run/run.json")).unwrap_or_default();
        let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
        manifest["window"]["start_ns"].is_u64()
    };
    while !records() {
        check(Instant::now() < deadline, || format!("nothing is recorded after {DEADLINE:?}"))?;
        sleep(NAP);
    }
    sleep(NAP * 10);
    Ok(())
}

fn interrupted(qemu: &Path) -> Outcome {
    let machine = machine(qemu)?;
    // Of a vCPU that hardly anybody disturbs, there may be no whole stay in so short a time.
    let _rival = rival::start(pcpus().0)?;
    let dir = tempfile::tempdir()?;
    let child = attach(dir.path(), &[&machine.pid().to_string()])?;
    wait_until_it_records(dir.path())?;
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let output = child.wait_with_output()?;
    let summary = is_complete(&output)?;
    check(summary["vcpus"][0]["on_pcpu_ns"].as_u64() > Some(0), || format!("{summary:#}"))
}

fn ended_midway(qemu: &Path) -> Outcome {
    let machine = machine(qemu)?;
    // Of a vCPU that nobody disturbs, and that is gone when it is asked for, nothing is known.
    let _rival = rival::start(pcpus().0)?;
    let dir = tempfile::tempdir()?;
    let pid = machine.pid();
    let child = attach(dir.path(), &[&pid.to_string(), "--duration", "10min"])?;
    wait_until_it_records(dir.path())?;
    drop(machine);
    let output = child.wait_with_output()?;
    let summary = summary(&output)?;
    let reason = summary["status"]["reason"].as_str().unwrap_or_default();
    check(reason.contains(&format!("process {pid}, has ended")), || format!("{summary:#}"))?;
    check(summary["vcpus"][0]["on_pcpu_ns"].as_u64() > Some(0), || format!("{summary:#}"))?;
    check(output.status.code() == Some(1), || format!("{}: {}", output.status, said(&output)))
}

fn unknown(qemu: &Path) -> Outcome {
    let machine = machine(qemu)?;
    let pid = machine.pid().to_string();
    let own = Tid(std::process::id()).to_string();
    let dir = tempfile::tempdir()?;
    for (args, expected) in [
        (&["nobody"][..], "there is no VM 'nobody' on this host"),
        (&[&own], "there is no VM"),
        (&[&pid, &pid], "is named twice"),
        (&["--vm", "nobody"], "there is no VM 'nobody' on this host"),
        (&[&pid, "--vm", &pid], "is named twice"),
        (&[&pid, "--duration", "0s"], "the duration must be longer than 0"),
        (&[&pid, "--load", "demo", "--agent", "/etc/passwd"], "is not a Linux program"),
        (&[&pid, "--load", "demo"], "has 1 vCPUs"),
        (&[&pid, "--duration", "soon"], "is not a duration"),
        (&[&pid, "--devices", "vda"], "--observe"),
        (&[&pid, "--slower-than", "5ms"], "--observe"),
        (&[&pid, "--agent", "/etc/passwd"], "<--load <PLAN>|--observe>"),
        (&[&pid, "--observe", "--slower-than", "soon"], "is not a duration"),
        (&[&pid, "--observe", "--slower-than", "0.5us"], "is finer than a microsecond"),
        (&[&pid, "--observe", "--devices", "vda,v/b"], "\"v/b\" is no name of a disk"),
        (&[&pid, "--observe", "--target", "/dev/vda"], "--load"),
        (&[&pid, "--observe", "--agent", "/etc/passwd"], "is not a Linux program"),
        (&[&pid, "--observe"], "use --plug to plug one in"),
    ] {
        let output = attach(dir.path(), args)?.wait_with_output()?;
        check(!output.status.success() && said(&output).contains(expected), || said(&output))?;
        check(!dir.path().join("run").exists(), || "a run directory was made".to_owned())?;
    }
    Ok(())
}
