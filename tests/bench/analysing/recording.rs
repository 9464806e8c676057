//! One load, recorded by vslice and by perf and trace-cmd at the same time: so all of them have the same events
//! to record, and each disturbs the others as much as it is disturbed.

use crate::rivals::tool;
use crate::rivals::{perf, trace_cmd};
use anyhow::{Context, bail};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use vslice_core::units::PcpuId;

/// What all three record: who runs, and who is woken. vslice adds kernel stacks of its guests' threads.
const EVENTS: [&str; 2] = ["sched/sched_switch", "sched/sched_waking"];

/// Why nothing can be recorded, or nothing beside it.
pub(crate) fn missing() -> Option<String> {
    tool::missing("perf", "linux-perf").or_else(|| tool::missing("trace-cmd", "trace-cmd"))
}

/// What somebody recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorded {
    pub(crate) events_count: u64,
    /// On disk, of all events.
    pub(crate) bytes: u64,
    /// CPU time of who records.
    pub(crate) processor_ns: u64,
}

impl Recorded {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn bytes_an_event(self) -> f64 {
        self.bytes as f64 / self.events_count.max(1) as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn processor_us_an_event(self) -> f64 {
        self.processor_ns as f64 / 1e3 / self.events_count.max(1) as f64
    }

    /// Without what is in a file that has hardly an event: names of kernel functions, formats.
    fn without(self, short: Recorded) -> Recorded {
        Recorded {
            events_count: self.events_count.saturating_sub(short.events_count),
            bytes: self.bytes.saturating_sub(short.bytes),
            processor_ns: self.processor_ns.saturating_sub(short.processor_ns),
        }
    }
}

/// A run directory's figures, by files and numbers that every version of vslice has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) events: Recorded,
    pub(crate) requests_count: u64,
    pub(crate) requests_bytes: u64,
}

impl Run {
    /// Of a run directory that `vslice` can read.
    pub(crate) fn of(vslice: &Path, directory: &Path) -> anyhow::Result<Run> {
        let text = fs::read(directory.join("run.json")).context("no run.json")?;
        let manifest: Value = serde_json::from_slice(&text)?;
        let said = Command::new(vslice).args(["report", "--json"]).arg(directory).output()?;
        if !said.status.success() {
            bail!("vslice report: {}", String::from_utf8_lossy(&said.stderr).trim());
        }
        let summary: Value = serde_json::from_slice(&said.stdout)?;
        let number = |value: &Value| value.as_u64().context("a number is missing");
        Ok(Run {
            events: Recorded {
                events_count: number(&manifest["cost"]["events_count"])?,
                bytes: bytes_of(directory, &["events-", "stacks.vsr", "groups.vsr"])?,
                processor_ns: manifest["cost"]["cpu_ns"].as_u64().unwrap_or(0),
            },
            requests_count: number(&summary["requests"]["count"])?,
            requests_bytes: bytes_of(directory, &["requests-"])?,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    pub(crate) fn bytes_a_request(&self) -> f64 {
        self.requests_bytes as f64 / self.requests_count.max(1) as f64
    }
}

/// The size of the streams whose names begin so.
fn bytes_of(directory: &Path, names: &[&str]) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_one = names.iter().any(|begin| name.starts_with(begin)) && name.ends_with(".vsr");
        bytes += if is_one { entry.metadata()?.len() } else { 0 };
    }
    Ok(bytes)
}

/// A load that was recorded three times at once.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) run: Run,
    pub(crate) perf: Recorded,
    pub(crate) trace_cmd: Recorded,
    /// The run directory.
    pub(crate) directory: PathBuf,
    /// What perf wrote.
    pub(crate) perf_data: PathBuf,
}

/// Who records what.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) image: &'a Path,
    pub(crate) total: &'a str,
    pub(crate) scratch: &'a Path,
}

/// Records the plan `demo` by this vslice, into directories of its own in `scratch`.
pub(crate) fn record(setting: &Setting<'_>, vslice: &Path, name: &str) -> anyhow::Result<Load> {
    let beside = setting.scratch.join(format!("{name}-beside"));
    fs::create_dir_all(&beside)?;
    let short = Beside::start(&beside)?.stop(&beside)?;
    let directory = setting.scratch.join(name);
    let tools = Beside::start(&beside)?;
    let said = Command::new(vslice)
        .args(["run", "demo", "--json", "--total", setting.total, "--output"])
        .arg(&directory)
        .arg("--image")
        .arg(setting.image)
        .output()
        .with_context(|| format!("cannot run {}", vslice.display()))?;
    let [perf, trace_cmd] = tools.stop(&beside)?;
    if !said.status.success() {
        let said = String::from_utf8_lossy(&said.stderr);
        bail!("vslice run: {}", said.trim().lines().last().unwrap_or_default());
    }
    Ok(Load {
        run: Run::of(vslice, &directory)?,
        perf: perf.without(short[0]),
        trace_cmd: trace_cmd.without(short[1]),
        directory,
        perf_data: beside.join("perf.data"),
    })
}

/// perf and trace-cmd at work on all pCPUs.
pub(crate) struct Beside {
    perf: perf::Running,
    trace_cmd: trace_cmd::Running,
}

impl Beside {
    pub(crate) fn start(scratch: &Path) -> anyhow::Result<Beside> {
        let [switch, waking] = EVENTS.map(|event| event.replace('/', ":"));
        let perf = perf::record(&["--all-cpus", "-e", &switch, "-e", &waking], scratch)?;
        let trace_cmd = trace_cmd::record(&["--compression", "zstd"], &EVENTS, scratch)?;
        Ok(Beside { perf, trace_cmd })
    }

    /// What each recorded: perf, then trace-cmd.
    pub(crate) fn stop(self, scratch: &Path) -> anyhow::Result<[Recorded; 2]> {
        let Beside { mut perf, mut trace_cmd } = self;
        let processor_ns = [perf.tool.processor_ns(), trace_cmd.tool.processor_ns()];
        let mut stored = 0;
        for pcpu in 0..pcpus_count()? {
            stored += trace_cmd.counts(PcpuId(pcpu))?.0;
        }
        trace_cmd.tool.interrupt()?;
        perf.tool.interrupt()?;
        let said = perf.perf(&["report", "--stats"])?;
        let sampled = EVENTS.map(|event| perf::samples_of(&said, &event.replace('/', ":")));
        let size = |name: &str| Ok::<u64, std::io::Error>(fs::metadata(scratch.join(name))?.len());
        Ok([
            Recorded {
                events_count: sampled.iter().sum(),
                bytes: size("perf.data")?,
                processor_ns: processor_ns[0],
            },
            Recorded {
                events_count: stored,
                bytes: size("trace.dat")?,
                processor_ns: processor_ns[1],
            },
        ])
    }
}

/// All of this host, whether or not this process may use them.
fn pcpus_count() -> anyhow::Result<u32> {
    let count = sysconf(SysconfVar::_NPROCESSORS_ONLN)?.context("no number of pCPUs")?;
    Ok(u32::try_from(count)?)
}

/// The bytes that fio's log of latencies has for each request, of some that were made.
pub(crate) fn fio_log_bytes_a_request(scratch: &Path) -> anyhow::Result<f64> {
    let output = Command::new("fio")
        .current_dir(scratch)
        .args(["--name=bench", "--rw=randread", "--bs=4k", "--size=16M", "--direct=1"])
        .args(["--ioengine=psync", "--disable_slat=1", "--disable_clat=1", "--write_lat_log=log"])
        .output()
        .context("cannot run fio")?;
    if !output.status.success() {
        bail!("fio: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let log = fs::read(scratch.join("log_lat.1.log")).context("fio wrote no log")?;
    let lines = log.iter().filter(|&&byte| byte == b'\n').count();
    anyhow::ensure!(lines > 0, "fio's log is empty");
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    Ok(log.len() as f64 / lines as f64)
}

/// The same run without its requests, and with all else: links to its streams, and for those of requests the
/// stream of the guest that makes none.
pub(crate) fn without_requests(directory: &Path, target: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(target)?;
    let empty = directory.join("requests-vm2.vsr");
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        let is_requests = name.to_string_lossy().starts_with("requests-");
        let from = if is_requests { &empty } else { &path };
        std::os::unix::fs::symlink(from, target.join(name))?;
    }
    Ok(())
}
