//! `perf record` on the ping-pong's pCPU, with rings as large as vslice's and on its clock.

use super::tool::Tool;
use super::{Recorded, Recording, Setting};
use anyhow::{Context, bail};
use nix::sys::stat::Mode;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What perf is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Switches that do not happen: the price of the filter.
    NothingPasses,
    /// Every switch.
    Switches,
    /// Every switch with the kernel's stack.
    Stacks,
    /// Every waking, and every switch with the kernel's stack.
    StacksAndWakings,
}

impl Asked {
    fn arguments(self) -> &'static [&'static str] {
        const SWITCH: &str = "sched:sched_switch";
        match self {
            // No thread has this number: kernel.pid_max is at most 2^22.
            Asked::NothingPasses => &["-e", SWITCH, "--filter", "prev_pid==2147483647"],
            Asked::Switches => &["-e", SWITCH],
            Asked::Stacks => &["--kernel-callchains", "--call-graph", "fp", "-e", SWITCH],
            Asked::StacksAndWakings => &[
                "--kernel-callchains",
                "-e",
                "sched:sched_switch/call-graph=fp/",
                "-e",
                "sched:sched_waking/call-graph=no/",
            ],
        }
    }
}

/// `perf record` at work.
pub(crate) struct Running {
    pub(crate) tool: Tool,
    data: PathBuf,
}

pub(super) fn start(asked: Asked, setting: &Setting<'_>) -> anyhow::Result<Box<dyn Recording>> {
    let measured = setting.places.measured.0.to_string();
    let arguments = [&["--cpu", &measured], asked.arguments()].concat();
    Ok(Box::new(record(&arguments, setting.scratch)?))
}

/// Returns once perf records.
pub(crate) fn record(arguments: &[&str], scratch: &Path) -> anyhow::Result<Running> {
    let [data, said] = ["perf.data", "perf.said"].map(|name| scratch.join(name));
    let [orders, answers] = ["perf.orders", "perf.answers"].map(|name| scratch.join(name));
    let (mut order, mut answer) = (fifo(&orders)?, fifo(&answers)?);
    let control = format!("--control=fifo:{},{}", orders.display(), answers.display());
    let mut command = Command::new("perf");
    command.args(["record", "--clockid", "monotonic_raw", "--mmap-pages", "4M"]);
    command.args(["--no-buildid", "--no-buildid-cache", "--synth=no", &control]);
    command.args(arguments).arg("--output").arg(&data);
    let mut tool = Tool::start(&command, &said)?;
    // It answers from its main loop, when all events are enabled.
    order.write_all(b"ping\n")?;
    tool.wait_until("it recorded", || match answer.read(&mut [0; 16]) {
        Ok(bytes_count) => Ok(bytes_count > 0),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    })?;
    Ok(Running { tool, data })
}

/// Opened for both ways, a named pipe waits for nobody.
fn fifo(path: &Path) -> anyhow::Result<File> {
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(error) => return Err(error).context("cannot make a named pipe"),
    }
    let flags = nix::libc::O_NONBLOCK;
    Ok(OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?)
}

impl Recording for Running {
    fn stop(mut self: Box<Self>) -> anyhow::Result<Recorded> {
        self.tool.interrupt()?;
        let text = self.perf(&["report", "--stats"])?;
        let switches_count = samples_of(&text, "sched:sched_switch");
        let stacks_count =
            if has_stacks(&self.perf(&["evlist", "-v"])?) { switches_count } else { 0 };
        Ok(Recorded { switches_count, stacks_count, lost_count: lost_of(&text) })
    }
}

impl Running {
    /// What perf says of its recording.
    pub(crate) fn perf(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = Command::new("perf").args(arguments).arg("--input").arg(&self.data).output()?;
        if !said.status.success() {
            bail!("perf cannot read its recording: {}", String::from_utf8_lossy(&said.stderr));
        }
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }
}

/// Whether switches were recorded with a callchain, from `perf evlist -v`.
pub(crate) fn has_stacks(events: &str) -> bool {
    let mut switches = events.lines().filter(|line| line.starts_with("sched:sched_switch:"));
    switches.any(|line| line.contains("CALLCHAIN|"))
}

/// From the part `sched:sched_switch stats:`, for instance, which is left out if there are none.
pub(crate) fn samples_of(report: &str, tracepoint: &str) -> u64 {
    let (_, rest) = report.split_once(&format!("{tracepoint} stats:")).unwrap_or_default();
    let part = rest.split(" stats:").next().unwrap_or_default();
    count_of(part, "SAMPLE")
}

/// These count the records that tell of losses; how many were lost they know, but not perf's
/// statistics. The share of events that were recorded shows it.
pub(crate) fn lost_of(report: &str) -> u64 {
    count_of(report, "LOST") + count_of(report, "LOST_SAMPLES")
}

/// The number in `SAMPLE events:  12`.
fn count_of(report: &str, kind: &str) -> u64 {
    let line =
        report.lines().find_map(|line| line.trim().strip_prefix(kind)?.strip_prefix(" events:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
