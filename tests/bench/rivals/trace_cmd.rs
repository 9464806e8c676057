//! `trace-cmd record` on the ping-pong's pCPU, in a tracefs instance of its own.

use super::tool::Tool;
use super::{Recorded, Recording, Setting};
use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use vslice_core::units::PcpuId;

/// Whether every switch has the kernel's stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stacks {
    /// It has.
    With,
    /// It has not.
    Without,
}

/// The names of instances: this, and the process id of the bench.
const PREFIX: &str = "vslice-bench-";

/// `trace-cmd record` at work.
pub(crate) struct Running {
    pub(crate) tool: Tool,
    instance: Instance,
}

struct Switches {
    running: Running,
    stacks: Stacks,
    measured: PcpuId,
}

pub(super) fn start(stacks: Stacks, setting: &Setting<'_>) -> anyhow::Result<Box<dyn Recording>> {
    let measured = setting.places.measured;
    let mask = format!("{:x}", 1_u128 << measured.0);
    let mut arguments = vec!["-M", &mask];
    if stacks == Stacks::With {
        arguments.push("-T");
    }
    let running = record(&arguments, &["sched/sched_switch"], setting.scratch)?;
    Ok(Box::new(Switches { running, stacks, measured }))
}

/// Returns once trace-cmd records these events, in an instance of its own.
pub(crate) fn record(
    arguments: &[&str],
    events: &[&str],
    scratch: &Path,
) -> anyhow::Result<Running> {
    let name = format!("{PREFIX}{}", std::process::id());
    remove_what_is_left()?;
    let instance = Instance { path: instances()?.join(&name) };
    let mut command = Command::new("trace-cmd");
    // -d leaves the function tracer alone, which is off here and whose switch is at the top level.
    // --no-filter keeps it from set_ftrace_pid: where that cannot be opened, 3.1.6 crashes.
    command.args(["record", "-d", "-B", &name, "--no-filter", "-b", "4096"]);
    command.args(arguments);
    for event in events {
        command.args(["-e", &event.replace('/', ":")]);
    }
    command.arg("-o").arg(scratch.join("trace.dat"));
    let tool = Tool::start(&command, &scratch.join("trace-cmd.said"))?;
    let mut running = Running { tool, instance };
    let instance = running.instance.path.clone();
    let is_one =
        |file: &str| fs::read_to_string(instance.join(file)).is_ok_and(|text| text == "1\n");
    let is_on = |event: &&str| is_one(&format!("events/{event}/enable"));
    // First it turns tracing off, then the events on, and last of all tracing on.
    running
        .tool
        .wait_until("it recorded", || Ok(events.iter().all(is_on) && is_one("tracing_on")))?;
    Ok(running)
}

/// Removes the instances of benches that were killed.
fn remove_what_is_left() -> anyhow::Result<()> {
    for entry in fs::read_dir(instances()?)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(pid) = name.and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            Instance { path }.remove().context("left behind by a bench that was killed")?;
        }
    }
    Ok(())
}

/// Mounts tracefs, where nobody has, in the place where trace-cmd would; the bench unmounts it.
fn instances() -> anyhow::Result<PathBuf> {
    const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let found = || {
        PLACES
            .map(|place| Path::new(place).join("instances"))
            .into_iter()
            .find(|path| path.exists())
    };
    if let Some(path) = found() {
        return Ok(path);
    }
    let nothing = None::<&str>;
    mount(Some("tracefs"), PLACES[0], Some("tracefs"), MsFlags::empty(), nothing)
        .context("cannot mount tracefs")?;
    found().context("tracefs has no instances")
}

impl Running {
    /// How many events a pCPU recorded so far, and how many found no room.
    pub(crate) fn counts(&self, pcpu: PcpuId) -> anyhow::Result<(u64, u64)> {
        let stats = self.instance.path.join(format!("per_cpu/cpu{}/stats", pcpu.0));
        let stats = fs::read_to_string(stats)?;
        let recorded = count_of(&stats, "entries") + count_of(&stats, "read events");
        Ok((recorded, count_of(&stats, "overrun") + count_of(&stats, "dropped events")))
    }
}

impl Recording for Switches {
    fn stop(mut self: Box<Self>) -> anyhow::Result<Recorded> {
        let (recorded, lost_count) = self.running.counts(self.measured)?;
        self.running.tool.interrupt()?;
        // A stack is an entry of its own.
        let (switches_count, stacks_count) = match self.stacks {
            Stacks::With => (recorded / 2, recorded / 2),
            Stacks::Without => (recorded, 0),
        };
        Ok(Recorded { switches_count, stacks_count, lost_count })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not the tool's own drop, which comes later: its readers keep the instance busy.
        self.tool.end();
        let _ = self.instance.remove();
    }
}

/// The number in `read events: 12`.
pub(crate) fn count_of(stats: &str, name: &str) -> u64 {
    let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// An instance, by its directory.
struct Instance {
    path: PathBuf,
}

impl Instance {
    /// trace-cmd does it too, unless it fails at something else before.
    fn remove(&self) -> anyhow::Result<()> {
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                // Whoever reads it has been killed and is about to close it.
                Err(_) => sleep(Duration::from_millis(20)),
            }
        }
        bail!("{} cannot be removed", self.path.display());
    }
}
