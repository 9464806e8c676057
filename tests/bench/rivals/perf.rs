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

struct Running {
    tool: Tool,
    data: PathBuf,
}

pub(super) fn start(asked: Asked, setting: &Setting<'_>) -> anyhow::Result<Box<dyn Recording>> {
    let [data, said] = ["perf.data", "perf.said"].map(|name| setting.scratch.join(name));
    let [orders, answers] = ["perf.orders", "perf.answers"].map(|name| setting.scratch.join(name));
    let (mut order, mut answer) = (fifo(&orders)?, fifo(&answers)?);
    let control = format!("--control=fifo:{},{}", orders.display(), answers.display());
    let mut command = Command::new("perf");
    command.args(["record", "--clockid", "monotonic_raw", "--mmap-pages", "4M"]);
    command.args(["--no-buildid", "--no-buildid-cache", "--synth=no", &control]);
    command.args(["--cpu", &setting.places.measured.0.to_string()]);
    command.args(asked.arguments()).arg("--output").arg(&data);
    let mut tool = Tool::start(&command, &said)?;
    // It answers from its main loop, when all events are enabled.
    order.write_all(b"ping\n")?;
    tool.wait_until("it recorded", || match answer.read(&mut [0; 16]) {
        Ok(bytes_count) => Ok(bytes_count > 0),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    })?;
    Ok(Box::new(Running { tool, data }))
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
        let switches_count = switches_of(&text);
        let stacks_count =
            if has_stacks(&self.perf(&["evlist", "-v"])?) { switches_count } else { 0 };
        // These count the records that tell of losses; how many were lost they know, but not perf's
        // statistics. The share of switches that were recorded shows it.
        let lost_count = count_of(&text, "LOST") + count_of(&text, "LOST_SAMPLES");
        Ok(Recorded { switches_count, stacks_count, lost_count })
    }
}

impl Running {
    /// What perf says of its recording.
    fn perf(&self, arguments: &[&str]) -> anyhow::Result<String> {
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

/// From the part `sched:sched_switch stats:`, which is left out if there are none.
pub(crate) fn switches_of(report: &str) -> u64 {
    let (_, rest) = report.split_once("sched:sched_switch stats:").unwrap_or_default();
    let part = rest.split(" stats:").next().unwrap_or_default();
    count_of(part, "SAMPLE")
}

/// The number in `SAMPLE events:  12`.
fn count_of(report: &str, kind: &str) -> u64 {
    let line =
        report.lines().find_map(|line| line.trim().strip_prefix(kind)?.strip_prefix(" events:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
