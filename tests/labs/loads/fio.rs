//! fio in the guest, and its own latency log.

use super::guest::LoadGuest;
use libtest_mimic::Failed;
use serde_json::Value;

/// What every job has: each I/O in the log with its offset, by a clock that is the kernel's.
const OPTIONS: &str = "--name=load --write_lat_log=load --log_offset=1 --output-format=json \
                       --output=load.json --clocksource=clock_gettime --percentile_list=50:99";

/// An I/O of fio's log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged {
    pub(super) offset: u64,
    pub(super) is_write: bool,
    /// From before the system call that submits it until fio knows that it is done.
    pub(super) latency_ns: u64,
}

/// What fio said of its own work.
pub(super) struct FioRun {
    /// In the order of its log.
    pub(super) logged: Vec<Logged>,
    /// Its JSON output of the first job.
    pub(super) job: Value,
}

/// Runs fio with these options in the guest; `jobs` of them at once, each with a log of its own.
pub(super) fn run(guest: &LoadGuest, options: &str, jobs: usize) -> Result<FioRun, Failed> {
    guest.run(&format!(
        "rm -rf /run/fio && mkdir /run/fio && cd /run/fio && fio {OPTIONS} --numjobs={jobs} {options}"
    ))?;
    let mut logged = Vec::new();
    for job in 1..=jobs {
        logged.extend(parse(&guest.file(&format!("/run/fio/load_lat.{job}.log"))?)?);
    }
    let mut json: Value = serde_json::from_str(&guest.file("/run/fio/load.json")?)?;
    Ok(FioRun { logged, job: json["jobs"][0].take() })
}

/// Lines of "time (ms), latency (ns), direction, bytes, offset, priority" (fio's HOWTO, "Log File
/// Formats").
fn parse(log: &str) -> Result<Vec<Logged>, Failed> {
    let line = |line: &str| -> Result<Logged, Failed> {
        let fields = line.split(", ").map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [_, latency_ns, direction @ 0..=1, _, offset, _] = fields[..] else {
            return Err(format!("not a line of a latency log: {line}").into());
        };
        Ok(Logged { offset, is_write: direction == 1, latency_ns })
    };
    log.lines().map(line).collect()
}
