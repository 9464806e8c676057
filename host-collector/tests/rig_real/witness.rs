//! What the kernel says: the witnesses of these tests.

use crate::{Outcome, check};
use libtest_mimic::Failed;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice::rig::machine::Machine;
use vslice::units::Tid;

/// What the kernel has counted for a thread, in `/proc/PID/task/TID`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// On a pCPU, and runnable without one: `schedstat`.
    pub(crate) run_ns: u64,
    pub(crate) run_delay_ns: u64,
    /// `status`.
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
}

impl Counts {
    pub(crate) fn of(pid: Tid, tid: Tid) -> Result<Counts, Failed> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}"));
        let (schedstat, status) = (read("schedstat")?, read("status")?);
        let mut times = schedstat.split_whitespace().map(str::parse);
        let mut time = || times.next().ok_or("schedstat has three numbers");
        let count = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key));
            value.and_then(|value| value.trim().parse::<u64>().ok()).ok_or("status has the counts")
        };
        Ok(Counts {
            run_ns: time()??,
            run_delay_ns: time()??,
            voluntary: count("voluntary_ctxt_switches:")?,
            involuntary: count("nonvoluntary_ctxt_switches:")?,
        })
    }

    pub(crate) fn of_vcpu(machine: &Machine) -> Result<Counts, Failed> {
        Counts::of(machine.pid(), machine.vcpu())
    }

    pub(crate) fn since(self, before: Counts) -> Counts {
        Counts {
            run_ns: self.run_ns - before.run_ns,
            run_delay_ns: self.run_delay_ns - before.run_delay_ns,
            voluntary: self.voluntary - before.voluntary,
            involuntary: self.involuntary - before.involuntary,
        }
    }
}

/// A thread of this process that has been dropped is gone.
pub(crate) fn is_gone(tid: Tid) -> Outcome {
    let path = PathBuf::from(format!("/proc/self/task/{tid}"));
    check(soon(|| !path.exists()), || format!("thread {tid} is still there"))
}

/// The kernel lets whoever joins a thread go a moment before it takes the thread off the list
/// (`mm_release` comes before `exit_notify`, kernel/exit.c).
pub(crate) fn soon(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(1));
    }
    true
}

pub(crate) fn state(pid: Tid) -> Result<char, Failed> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.ok_or_else(|| "no state".into())
}

/// What a process has read from storage: `/proc/PID/io`.
pub(crate) fn read_bytes(pid: Tid) -> Result<u64, Failed> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let value = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(value.ok_or("read_bytes")?.trim().parse()?)
}
