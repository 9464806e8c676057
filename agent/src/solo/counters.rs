//! What the guest's kernel counts about a loop's thread.

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::os::unix::fs::FileExt;
use vslice_workload::clock::Clock;
use vslice_workload::gap::{Counters, SchedStat, Witness};

/// Three numbers of at most 20 digits.
const SCHEDSTAT_BYTES: usize = 80;

/// The witness of the thread that made it.
#[derive(Debug)]
pub(super) struct ThreadWitness {
    /// `/proc/thread-self/schedstat`; `None` where there is none, or it tells nothing.
    schedstat: Option<File>,
}

impl ThreadWitness {
    /// For the calling thread. The file stays that thread's, whoever reads it (proc(5)).
    pub(super) fn new() -> Self {
        let file = File::open("/proc/thread-self/schedstat").ok();
        // Without CONFIG_SCHED_INFO the file says "0 0 0" (fs/proc/base.c), and a thread that reads
        // it has run.
        let tells = |file: &File| read_schedstat(file).is_some_and(|stat| stat.ran_ns > 0);
        Self { schedstat: file.filter(tells) }
    }

    /// Whether the kernel tells run delays.
    pub(super) fn has_schedstat(&self) -> bool {
        self.schedstat.is_some()
    }
}

impl Witness for ThreadWitness {
    fn read(&mut self, clock: Clock) -> Counters {
        // The order matters: reading the thread's CPU clock brings the runtime in schedstat up to
        // date, and with it hides when the last tick was.
        let usage = getrusage(UsageWho::RUSAGE_THREAD).ok();
        let count = |number| u64::try_from(number).unwrap_or(0);
        let schedstat = self.schedstat.as_ref().and_then(read_schedstat);
        let at = clock.now();
        Counters {
            at,
            cpu_ns: thread_cpu_ns(),
            schedstat,
            voluntary: usage.map_or(0, |usage| count(usage.voluntary_context_switches())),
            involuntary: usage.map_or(0, |usage| count(usage.involuntary_context_switches())),
        }
    }
}

fn thread_cpu_ns() -> u64 {
    const NS_PER_S: u64 = 1_000_000_000;
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(0, |time| {
        let part = |number| u64::try_from(number).unwrap_or(0);
        part(time.tv_sec()) * NS_PER_S + part(time.tv_nsec())
    })
}

fn read_schedstat(file: &File) -> Option<SchedStat> {
    let mut buffer = [0; SCHEDSTAT_BYTES];
    let length = file.read_at(&mut buffer, 0).ok()?;
    parse_schedstat(&buffer[..length])
}

/// `RAN_NS RUN_DELAY_NS TIMESLICES` (Documentation/scheduler/sched-stats.rst).
fn parse_schedstat(bytes: &[u8]) -> Option<SchedStat> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let ran_ns = numbers.next()?.ok()?;
    let run_delay_ns = numbers.next()?.ok()?;
    Some(SchedStat { ran_ns, run_delay_ns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_spec::ClockChoice;

    #[test]
    fn schedstat_is_two_numbers_and_more() {
        let stat = SchedStat { ran_ns: 613_610, run_delay_ns: 48_112 };
        assert_eq!(parse_schedstat(b"613610 48112 2\n"), Some(stat));
        for bytes in [&b""[..], b"1", b"a 2 3", b"1 -2 3", b"\xff 1"] {
            assert_eq!(parse_schedstat(bytes), None);
        }
    }

    #[test]
    fn a_thread_that_runs_is_seen_running() {
        let clock = Clock::choose(ClockChoice::MonotonicRaw);
        let mut witness = ThreadWitness::new();
        let before = witness.read(clock);
        while clock.now() < before.at + 2_000_000 {}
        let after = witness.read(clock);
        assert!(after.at >= before.at + 2_000_000);
        assert!(after.cpu_ns > before.cpu_ns);
        assert_eq!(after.schedstat.is_some(), witness.has_schedstat());
        if let Some((before, after)) = before.schedstat.zip(after.schedstat) {
            assert!(after.run_delay_ns >= before.run_delay_ns);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(witness.read(clock).voluntary > after.voluntary, "a sleep is voluntary");
    }
}
