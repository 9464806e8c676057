//! `vslice top` of real QEMUs, as a user would: in a pipe and in a terminal.
//!
//! What this host lacks (QEMU, a second pCPU, the right to record, tmux) shows as an ignored test with the reason.

#[path = "support/rig.rs"]
mod rig;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::{machine_of, missing, pcpus};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice_core::timeline::{Span, ThreadState};
use vslice_core::units::{HostNs, Tid};
use vslice_lab::tools;
use vslice_report::analyse::observer::{MeasuredWindow, Observer, Run};
use vslice_report::analyse_with;
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
    let tests: [(&str, Test, bool); 4] = [
        ("seconds_of_two_vms_are_what_the_run_of_the_same_time_says", two_vms, false),
        ("a_terminal_is_given_back_when_it_is_quit", quit, true),
        ("a_terminal_is_given_back_when_it_is_terminated", terminated, true),
        ("without_a_terminal_it_says_what_to_do", no_terminal, false),
    ];
    let trial = |(name, test, in_terminal): (&str, Test, bool)| {
        let no_tmux = || in_terminal && tools::find("tmux").is_none();
        match missing().or_else(|| no_tmux().then(|| "there is no tmux".to_owned())) {
            None => Trial::test(name, test),
            Some(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
        }
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit();
}

fn machine() -> Result<Machine, Failed> {
    let qemu = tools::find(tools::QEMU).ok_or("QEMU was there a moment ago")?;
    machine_of(&qemu, Guest::Hog, Frontend::VirtioBlk)
}

fn vslice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vslice"));
    command.env("VSLICE_TMP", "/dev/shm");
    command
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Times of one thread: on a pCPU, runnable without one, asleep, throttled.
type Times = [u64; 4];

/// Adds up the parts of all spans that are in the window.
#[derive(Default)]
struct Parts {
    window: Option<MeasuredWindow>,
    of: BTreeMap<Tid, Times>,
    /// Up to here each thread's spans go: the run's end is its last event, which may be before its window's.
    until: BTreeMap<Tid, HostNs>,
}

impl Observer for Parts {
    fn start(&mut self, run: &Run<'_>) {
        self.window = Some(run.window);
    }

    fn span(&mut self, span: &Span) {
        let Some(window) = self.window else { return };
        let (start, end) = (span.start.max(window.start), span.end.min(window.end));
        self.until.insert(span.tid, end);
        let place = match span.state {
            ThreadState::Running { .. } => 0,
            state if state.waits_for().is_some() => 1,
            ThreadState::Blocked(_) => 2,
            ThreadState::PreemptWait { .. } => 3,
            ThreadState::WakeupDelay { .. } | ThreadState::Unknown { .. } => return,
        };
        self.of.entry(span.tid).or_default()[place] += end.since_ns(start);
    }
}

/// Two VMs whose vCPUs and a rival want the same pCPU: one recorder shows and writes, so that what it showed is what the
/// run says, to the nanosecond but for what was not known yet at the end of a second.
fn two_vms() -> Outcome {
    let (one, two) = (machine()?, machine()?);
    let rival = rival::start(pcpus().0)?;
    let scratch = tempfile::tempdir()?;
    let (run, metrics) = (scratch.path().join("run"), scratch.path().join("vslice.prom"));
    let pids = [one.pid().to_string(), two.pid().to_string()];
    let output = vslice()
        .arg("top")
        .args(&pids)
        .args(["--json", "--duration", "4s", "--output"])
        .arg(&run)
        .arg("--prometheus")
        .arg(&metrics)
        .stdin(Stdio::null())
        .output()?;
    drop(rival);
    check(output.status.success(), || said(&output))?;
    let text = String::from_utf8(output.stdout)?;
    let seconds: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    check((4..=6).contains(&seconds.len()), || format!("{} seconds", seconds.len()))?;
    let mut told = BTreeMap::<Tid, (Times, u64)>::new();
    for second in &seconds {
        let losses = second["losses"].as_object().ok_or("no losses")?;
        check(losses.values().all(|count| count == 0), || format!("{losses:?}"))?;
        for vcpu in second["vms"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|vm| vm["vcpus"].as_array())
            .flatten()
        {
            let ns = |name: &str| vcpu[name].as_u64().unwrap_or(0);
            let names = ["running_ns", "waiting_ns", "asleep_ns", "throttled_ns"];
            let (parts, unknown_ns) = (names.map(ns), ns("unknown_ns"));
            let sum: u64 = parts.iter().sum::<u64>() + unknown_ns;
            check(Some(sum) == second["length_ns"].as_u64(), || format!("{vcpu:#}"))?;
            let tid = Tid(u32::try_from(ns("tid"))?);
            let (sums, unknown) = told.entry(tid).or_default();
            sums.iter_mut().zip(parts).for_each(|(sum, ns)| *sum += ns);
            *unknown += unknown_ns;
        }
    }
    let mut parts = Parts::default();
    analyse_with(&run, &mut [&mut parts])?;
    check(told.len() == 2, || format!("{told:?}"))?;
    for (tid, (told, unknown_ns)) in &told {
        let of_run = parts.of.get(tid).ok_or("the run has it")?;
        let window = parts.window.ok_or("the run has one")?;
        let rest_ns = window.end.since_ns(parts.until.get(tid).copied().unwrap_or_default());
        for (told_ns, run_ns) in told.iter().zip(of_run) {
            // What was unknown in a second is known in the run.
            let is_same =
                *told_ns <= run_ns + rest_ns && run_ns.saturating_sub(*told_ns) <= *unknown_ns;
            check(is_same, || {
                format!("{tid}: {told:?} and {of_run:?}, unknown {unknown_ns}, after it {rest_ns}")
            })?;
        }
        // The run goes on to its window's end, but for what has no event.
        check(rest_ns < 100_000_000, || format!("{rest_ns}"))?;
        check(told[0] > 0 && told[1] > 0, || format!("it ran and waited: {told:?}"))?;
        check(*unknown_ns < 4_000_000_000, || format!("nearly nothing is known: {unknown_ns}"))?;
    }
    let text = std::fs::read_to_string(&metrics)?;
    let waited: u64 = told.values().map(|(told, _)| told[1]).sum();
    let ready = text.lines().filter(|line| line.starts_with("vslice_vcpu_ready_seconds_total{"));
    let ready: f64 = ready.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    check((ready - waited as f64 / 1e9).abs() < 1e-6, || format!("{ready} and {waited}"))
}

fn no_terminal() -> Outcome {
    let output = vslice().arg("top").stdin(Stdio::null()).output()?;
    let words = said(&output);
    check(!output.status.success() && words.contains("use --json"), || words)
}

/// A session of tmux with a server of its own, which dies with this.
struct Tmux {
    scratch: tempfile::TempDir,
    name: String,
}

impl Tmux {
    /// A shell that starts `vslice top`, and looks at its terminal before and after.
    fn start(pid: Tid) -> Result<Tmux, Failed> {
        let scratch = tempfile::tempdir()?;
        let name = format!("vslice-test-{}", std::process::id());
        let tmux = Tmux { scratch, name };
        let script = tmux.path("script");
        std::fs::write(
            &script,
            format!(
                "cd '{}'\nexport LANG=C.UTF-8 VSLICE_TMP=/dev/shm\nstty -a > before\n'{}' top {pid} &\necho $! > pid\n\
                 fg > /dev/null\necho $? > code\nstty -a > after\ntouch over\nsleep 60\n",
                tmux.scratch.path().display(),
                env!("CARGO_BIN_EXE_vslice"),
            ),
        )?;
        // Job control, so that the shell has the terminal again if the job does not give it back.
        let shell = format!("bash -m '{}'", script.display());
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &shell])?;
        Ok(tmux)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Result<String, Failed> {
        let output = Command::new("tmux").args(["-L", &self.name]).args(args).output()?;
        check(output.status.success(), || said(&output))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn screen(&self) -> Result<String, Failed> {
        self.run(&["capture-pane", "-p"])
    }

    fn wait_for(&self, what: &str) -> Result<String, Failed> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let screen = self.screen()?;
            if screen.contains(what) {
                return Ok(screen);
            }
            check(Instant::now() < deadline, || format!("no {what:?} on\n{screen}"))?;
            sleep(NAP);
        }
    }

    fn wait_for_file(&self, name: &str) -> Result<String, Failed> {
        let deadline = Instant::now() + DEADLINE;
        while !self.path(name).exists() {
            check(Instant::now() < deadline, || format!("there is no {name}"))?;
            sleep(NAP);
        }
        Ok(std::fs::read_to_string(self.path(name))?)
    }

    /// That the terminal is as it was, the cursor and the main screen too.
    fn is_as_it_was(&self) -> Outcome {
        self.wait_for_file("over")?;
        let state = |name: &str| std::fs::read_to_string(self.path(name));
        let (before, after) = (state("before")?, state("after")?);
        check(before == after, || format!("{before}\n{after}"))?;
        let flags = self.run(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"])?;
        check(flags.trim() == "0 1", || format!("alternate screen and cursor: {flags}"))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _its_server_ends_with_its_last_session = self.run(&["kill-server"]);
    }
}

fn quit() -> Outcome {
    let machine = machine()?;
    let tmux = Tmux::start(machine.pid())?;
    let shown = tmux.wait_for("second 1 ")?;
    check(shown.contains("wait%") && shown.contains("who ran while"), || shown.clone())?;
    tmux.run(&["send-keys", "w"])?;
    tmux.wait_for("writing runs/top-")?;
    // So that there is something to write.
    tmux.wait_for("second 3 ")?;
    tmux.run(&["send-keys", "Space", "Left", "s", "v", "Down"])?;
    tmux.wait_for("PAUSED")?;
    tmux.run(&["send-keys", "w"])?;
    tmux.wait_for("wrote runs/top-")?;
    tmux.run(&["send-keys", "q"])?;
    tmux.is_as_it_was()?;
    let code = tmux.wait_for_file("code")?;
    check(code.trim() == "0", || format!("exit code {code}"))?;
    let mut runs = std::fs::read_dir(tmux.path("runs"))?;
    let run = runs.next().ok_or("no run")??.path();
    let summary = vslice_report::analyse(&run)?;
    check(summary.vcpus.len() == 1, || format!("{:?}", summary.vcpus))
}

fn terminated() -> Outcome {
    let machine = machine()?;
    let tmux = Tmux::start(machine.pid())?;
    tmux.wait_for("second 0 ")?;
    let pid: i32 = tmux.wait_for_file("pid")?.trim().parse()?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    tmux.is_as_it_was()
}
