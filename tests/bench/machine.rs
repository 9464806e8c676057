//! What is asked of this machine: its pCPUs, its steal, its load.

use anyhow::Context;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::fs;
use std::process::{Command, Stdio};
use vslice_core::units::PcpuId;

/// Where the ping-pong runs and where everybody else does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// The ping-pong's.
    pub(crate) measured: PcpuId,
    /// That of the bench, the readers of the rivals and the idle VM.
    pub(crate) others: PcpuId,
}

impl Places {
    /// The last two pCPUs that this process may use: interrupts prefer the first ones.
    pub(crate) fn choose() -> anyhow::Result<Places> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let all = (0..CpuSet::count()).filter(|place| allowed.is_set(*place).unwrap_or(false));
        let all = all.map(|place| Ok(PcpuId(u32::try_from(place)?)));
        let all = all.collect::<anyhow::Result<Vec<_>>>()?;
        let [.., others, measured] = all[..] else {
            anyhow::bail!("this needs two pCPUs: one to measure, one for those who read the rings");
        };
        Ok(Places { measured, others })
    }
}

/// Pins this thread, and whatever it starts from now on.
pub(crate) fn pin_to(pcpu: PcpuId) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(usize::try_from(pcpu.0)?)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot pin to {pcpu}"))
}

/// This thread, pinned until this is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    pub(crate) fn to(pcpu: PcpuId) -> anyhow::Result<Pinned> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        pin_to(pcpu)?;
        Ok(Pinned { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

/// Where tracefs and debugfs were mounted when this was made. perf and trace-cmd mount them and leave
/// them there; whatever came after is unmounted when this is dropped.
#[derive(Debug)]
pub(crate) struct Mounts {
    before: Vec<String>,
}

impl Mounts {
    pub(crate) fn note() -> Mounts {
        Mounts { before: trace_mounts() }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        // Last in, first out: a tracefs may lie inside a debugfs.
        for place in trace_mounts().iter().rev().filter(|place| !self.before.contains(place)) {
            // Whoever still looks into it may keep it.
            let _ = nix::mount::umount(place.as_str());
        }
    }
}

/// Of proc_pid_mounts(5): device, place, type. Blanks in a place would be octal; the tools' own
/// places have none.
fn trace_mounts() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let traces = fields.filter(|fields| matches!(fields[..], [_, _, "tracefs" | "debugfs", ..]));
    traces.map(|fields| fields[1].to_owned()).collect()
}

/// Gives this thread, and whatever it starts from now on, 87 times the weight of a normal thread:
/// other work on the machine then disturbs the ping-pong less, and no rival loses records because
/// its reader waits. For all of them alike.
pub(crate) fn raise_priority() -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let mut renice = Command::new("renice");
    let status = renice.args(["-n", "-20", "-p", &pid]).stdout(Stdio::null()).status();
    let status = status.context("cannot run renice (package bsdutils)")?;
    anyhow::ensure!(status.success(), "not allowed to raise the own priority: run as root");
    Ok(())
}

/// What the hypervisor took from a pCPU since the start, from `/proc/stat` (proc_stat(5)).
pub(crate) fn steal_ns(pcpu: PcpuId) -> anyhow::Result<u64> {
    let name = format!("cpu{}", pcpu.0);
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&name));
    let ticks: u64 = line
        .and_then(|line| line.split(' ').nth(8))
        .with_context(|| format!("no steal of {pcpu} in /proc/stat"))?
        .parse()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(ticks * 1_000_000_000 / u64::try_from(per_second)?)
}

/// The three load averages.
pub(crate) fn load() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
