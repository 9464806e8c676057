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

struct Running {
    tool: Tool,
    instance: Instance,
    stacks: Stacks,
    measured: PcpuId,
}

pub(super) fn start(stacks: Stacks, setting: &Setting<'_>) -> anyhow::Result<Box<dyn Recording>> {
    let name = format!("{PREFIX}{}", std::process::id());
    remove_what_is_left()?;
    let instance = Instance { path: instances()?.join(&name) };
    let measured = setting.places.measured;
    let mut command = Command::new("trace-cmd");
    // -d leaves the function tracer alone, which is off here and whose switch is at the top level.
    // --no-filter keeps it from set_ftrace_pid: where that cannot be opened, 3.1.6 crashes.
    command.args(["record", "-d", "-B", &name, "--no-filter", "-b", "4096"]);
    command.args(["-M", &format!("{:x}", 1_u128 << measured.0), "-e", "sched:sched_switch"]);
    if stacks == Stacks::With {
        command.arg("-T");
    }
    command.arg("-o").arg(setting.scratch.join("trace.dat"));
    let tool = Tool::start(&command, &setting.scratch.join("trace-cmd.said"))?;
    let mut running = Box::new(Running { tool, instance, stacks, measured });
    let instance = running.instance.path.clone();
    let is_one =
        |file: &str| fs::read_to_string(instance.join(file)).is_ok_and(|text| text == "1\n");
    // First it turns tracing off, then the event on, and last of all tracing on.
    running.tool.wait_until("it recorded", || {
        Ok(is_one("events/sched/sched_switch/enable") && is_one("tracing_on"))
    })?;
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

impl Recording for Running {
    fn stop(mut self: Box<Self>) -> anyhow::Result<Recorded> {
        let stats = format!("per_cpu/cpu{}/stats", self.measured.0);
        let stats = fs::read_to_string(self.instance.path.join(stats))?;
        self.tool.interrupt()?;
        let recorded = count_of(&stats, "entries") + count_of(&stats, "read events");
        // A stack is an entry of its own.
        let (switches_count, stacks_count) = match self.stacks {
            Stacks::With => (recorded / 2, recorded / 2),
            Stacks::Without => (recorded, 0),
        };
        let lost_count = count_of(&stats, "overrun") + count_of(&stats, "dropped events");
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
