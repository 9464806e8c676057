//! What the kernel says: the witnesses of these tests.

use crate::{LONGEST, Outcome, WINDOW, check, not_judged, pcpus};
use libtest_mimic::Failed;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice_core::units::{PcpuId, Tid};
use vslice_selftest::rig::machine::Machine;

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

/// What a pCPU has been used for so far.
#[derive(Debug, Clone, Copy)]
struct Usage {
    at: Instant,
    /// Idle, by `/proc/stat`, with or without I/O that is waited for, in steps of 10 ms.
    idle_ns: u64,
}

impl Usage {
    fn of(pcpu: PcpuId) -> Result<Usage, Failed> {
        let stat = fs::read_to_string("/proc/stat")?;
        let key = format!("cpu{} ", pcpu.0);
        let line = stat.lines().find_map(|line| line.strip_prefix(&key)).ok_or("no such pCPU")?;
        let number = |place| line.split_whitespace().nth(place).and_then(|word| word.parse().ok());
        let ticks: [Option<u64>; 2] = [number(3), number(4)];
        let ticks: u64 = ticks.into_iter().flatten().sum();
        Ok(Usage { at: Instant::now(), idle_ns: ticks * 10_000_000 })
    }
}

/// Who had the vCPU's pCPU while something was injected: the machine's vCPU and the injector, or others.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    machine: &'a Machine,
    injector: Option<Tid>,
    usage: Usage,
    vcpu: Counts,
    own: Option<Counts>,
}

/// What a [`Watch`] has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Of the vCPU thread.
    pub(crate) vcpu: Counts,
    /// The share of the pCPU that others had: where it is large, they were preempted, and not the vCPU.
    pub(crate) taken_share: f64,
}

/// Where others have more of a pCPU, it is not known whom an injector hits.
const TAKEN_SHARE_MAX: f64 = 0.15;

impl Watch<'_> {
    pub(crate) fn start(machine: &Machine, injector: Option<Tid>) -> Result<Watch<'_>, Failed> {
        let (usage, vcpu) = (Usage::of(pcpus().0)?, Counts::of_vcpu(machine)?);
        let own = injector.map(of_injector).transpose()?;
        Ok(Watch { machine, injector, usage, vcpu, own })
    }

    pub(crate) fn seen(&self) -> Result<Seen, Failed> {
        let usage = Usage::of(pcpus().0)?;
        let vcpu = Counts::of_vcpu(self.machine)?.since(self.vcpu);
        let injected = match (self.injector, self.own) {
            (Some(tid), Some(before)) => of_injector(tid)?.since(before).run_ns,
            _ => 0,
        };
        let length_ns = (usage.at - self.usage.at).as_nanos() as f64;
        // The part of it that waits for I/O may decrease, see proc_stat(5).
        let idle_ns = usage.idle_ns.saturating_sub(self.usage.idle_ns);
        let known_ns = idle_ns + vcpu.run_ns + injected;
        Ok(Seen { vcpu, taken_share: (1.0 - known_ns as f64 / length_ns).clamp(0.0, 1.0) })
    }

    /// Waits until something is so, or the time is over; says what was seen until then.
    pub(crate) fn until(&self, mut is_so: impl FnMut(&Seen) -> bool) -> Result<Seen, Failed> {
        let deadline = Instant::now() + LONGEST;
        loop {
            sleep(WINDOW);
            let seen = self.seen()?;
            if is_so(&seen) || Instant::now() >= deadline {
                return Ok(seen);
            }
        }
    }
}

impl Seen {
    /// The outcome of something that is only to be judged while the pCPU is the test's own.
    pub(crate) fn judge(&self, condition: bool, what: impl FnOnce() -> String) -> Outcome {
        if condition {
            return Ok(());
        }
        if self.taken_share > TAKEN_SHARE_MAX {
            let percent = self.taken_share * 100.0;
            not_judged(&format!("others had {percent:.0} % of the pCPU: {}", what()));
            return Ok(());
        }
        Err(format!("{}, others had {:.1} %", what(), self.taken_share * 100.0).into())
    }
}

fn of_injector(tid: Tid) -> Result<Counts, Failed> {
    Counts::of(Tid(std::process::id()), tid)
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
