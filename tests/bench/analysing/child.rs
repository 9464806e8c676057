//! A program that runs to its end, and what it took. This binary starts it in another role, since the kernel
//! tells the most memory of all children together.

use anyhow::{Context, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::process::{Command, Stdio};
use std::time::Instant;
use vslice_core::units::PcpuId;

use crate::machine;

/// The first argument of this binary in this role.
pub(crate) const ROLE: &str = "role:child";

/// Instead of a pCPU: all of them.
const ALL: &str = "all";

/// What a program took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Took {
    /// From before it started until after its end.
    pub(crate) seconds: f64,
    /// In user and in kernel mode, of all its threads.
    pub(crate) processor_seconds: f64,
    /// The most memory that it had (ru_maxrss).
    pub(crate) peak_mib: f64,
}

/// Runs a program on one pCPU, or on all that this process may use. What it prints is dropped.
pub(crate) fn run(program: &Command, pcpu: Option<PcpuId>) -> anyhow::Result<Took> {
    let output = Command::new(std::env::current_exe()?)
        .args([ROLE, &pcpu.map_or_else(|| ALL.to_owned(), |pcpu| pcpu.0.to_string())])
        .arg(program.get_program())
        .args(program.get_args())
        .output()
        .context("cannot start this binary again")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program:?} failed: {}", said.trim().lines().last().unwrap_or_default());
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// What the role says: nanoseconds by the clock and of CPU time, and KiB.
fn parse(said: &str) -> anyhow::Result<Took> {
    let numbers = said.split_whitespace().map(str::parse::<f64>);
    let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
    let [wall_ns, processor_ns, peak_kib] = numbers[..] else { bail!("a child said {said:?}") };
    Ok(Took {
        seconds: wall_ns / 1e9,
        processor_seconds: processor_ns / 1e9,
        peak_mib: peak_kib / 1024.0,
    })
}

/// Child side.
pub(crate) fn play(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let place = arguments.next().context("a pCPU")?;
    if place != ALL {
        machine::pin_to(PcpuId(place.parse()?))?;
    }
    let mut command = Command::new(arguments.next().context("a program")?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    let wall_ns = begun.elapsed().as_nanos();
    anyhow::ensure!(status.success(), "it ended with {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let processor = usage.user_time() + usage.system_time();
    println!("{wall_ns} {} {}", processor.num_nanoseconds(), usage.max_rss());
    Ok(())
}
