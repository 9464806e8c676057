//! What the kernel's own tracepoints say of `futex(2)`, in an instance of tracefs of its own: a
//! witness that shares neither buffers nor parsing with the recorder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};
use vslice_core::units::{HostNs, Tid};
use vslice_host::procfs;
use vslice_record::perf::Tracefs;

/// How the names of instances begin.
const PREFIX: &str = "vslice-";

/// Each pCPU's buffer of the instance.
const BUFFER_KIB: u32 = 16 << 10;

/// Why there is no witness.
#[derive(Debug, thiserror::Error)]
#[error("the tracefs instance {path} cannot be {action}")]
pub struct WitnessError {
    /// The file.
    path: PathBuf,
    /// `made`, `set up`, `read`.
    action: &'static str,
    /// Why.
    source: io::Error,
}

/// One call of `futex(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FutexEntry {
    /// When it was entered.
    pub time: HostNs,
    /// By whom.
    pub tid: Tid,
    /// Its first argument.
    pub address: u64,
    /// Its second one.
    pub operation: u32,
    /// Its third one.
    pub value: u32,
    /// When it was left, if that was seen.
    pub left: Option<HostNs>,
}

/// An instance that traces. Dropping it removes it.
#[derive(Debug)]
pub struct Witness {
    /// Keeps a private mount alive.
    _tracefs: Tracefs,
    path: PathBuf,
}

impl Witness {
    /// Begins to trace the futex calls of these threads, and with `switches` also when they leave
    /// their pCPUs.
    ///
    /// # Errors
    /// When there is no tracefs, or it has no such tracepoints.
    pub fn start(tids: &[Tid]) -> Result<Witness, WitnessError> {
        let tracefs = Tracefs::find_writable().map_err(|source| WitnessError {
            path: "tracefs".into(),
            action: "found",
            source,
        })?;
        sweep_stale(&tracefs);
        let path = tracefs.path().join("instances").join(name());
        fs::create_dir(&path).map_err(|source| WitnessError {
            path: path.clone(),
            action: "made",
            source,
        })?;
        let witness = Witness { _tracefs: tracefs, path };
        // New instances inherit the options of the top one.
        let _ = witness.write("options/stacktrace", "0");
        witness.write("trace_clock", "mono_raw")?;
        witness.write("buffer_size_kb", &BUFFER_KIB.to_string())?;
        let terms: Vec<String> = tids.iter().map(|tid| format!("common_pid=={tid}")).collect();
        let filter = terms.join("||");
        for event in ["sys_enter_futex", "sys_exit_futex"] {
            witness.write(&format!("events/syscalls/{event}/filter"), &filter)?;
            witness.write(&format!("events/syscalls/{event}/enable"), "1")?;
        }
        let leaves: Vec<String> = tids.iter().map(|tid| format!("prev_pid=={tid}")).collect();
        witness.write("events/sched/sched_switch/filter", &leaves.join("||"))?;
        witness.write("events/sched/sched_switch/enable", "1")?;
        witness.write("tracing_on", "1")?;
        Ok(witness)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), WitnessError> {
        let path = self.path.join(file);
        fs::write(&path, text).map_err(|source| WitnessError {
            path: path.clone(),
            action: "set up",
            source,
        })
    }

    /// Ends tracing and says what was traced, in order of time.
    ///
    /// # Errors
    /// When the trace cannot be read.
    pub fn finish(self) -> Result<Testimony, WitnessError> {
        self.write("tracing_on", "0")?;
        let path = self.path.join("trace");
        let text = fs::read_to_string(&path).map_err(|source| WitnessError {
            path,
            action: "read",
            source,
        })?;
        Ok(Testimony::parse(&text))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        for event in ["syscalls/sys_enter_futex", "syscalls/sys_exit_futex", "sched/sched_switch"] {
            let _ = self.write(&format!("events/{event}/enable"), "0");
        }
        // An instance that is still being read cannot be removed; nobody else reads this one.
        let _ = fs::remove_dir(&self.path);
    }
}

/// The name of an instance: who made it.
fn name() -> String {
    let own = Tid(std::process::id());
    let start = procfs::start_ticks(own).map_or(0, |start| start.0);
    format!("{PREFIX}{own}-{start}")
}

/// Removes instances that killed processes of vslice have left: their tracepoints would go on to cost
/// every system call of the host.
fn sweep_stale(tracefs: &Tracefs) {
    let Ok(entries) = fs::read_dir(tracefs.path().join("instances")) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| is_stale(path)) {
        // The kernel ends the tracing of an instance that is removed.
        let _ = fs::remove_dir(path);
    }
}

fn is_stale(path: &Path) -> bool {
    let owner = path.file_name().and_then(|name| {
        let (pid, start) = name.to_str()?.strip_prefix(PREFIX)?.split_once('-')?;
        Some((Tid(pid.parse().ok()?), procfs::StartTicks(start.parse().ok()?)))
    });
    owner.is_some_and(|(pid, start)| !procfs::is_alive(pid, start))
}

/// What was traced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Testimony {
    /// Calls of `futex(2)`, by the time at which they were entered.
    pub calls: Vec<FutexEntry>,
    /// Entries that were written and that the buffers no longer have.
    pub lost_count: u64,
    /// Sleeps of threads that were in such a call then: time, thread, the call's address, operation
    /// and value.
    pub sleeps: Vec<FutexSleep>,
}

/// A sleep in `futex(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FutexSleep {
    /// When it began.
    pub time: HostNs,
    /// Who slept.
    pub tid: Tid,
    /// On which futex.
    pub address: u64,
    /// With which operation.
    pub operation: u32,
    /// With which value.
    pub value: u32,
}

impl Testimony {
    /// Reads what the file `trace` of an instance holds.
    #[must_use]
    pub fn parse(text: &str) -> Testimony {
        let mut testimony = Testimony::default();
        let mut open: HashMap<Tid, usize> = HashMap::new();
        for line in text.lines() {
            testimony.lost_count += lost_in(line);
            let Some((tid, time, event)) = line_of(line) else { continue };
            if let Some(arguments) = event.strip_prefix("sys_futex(") {
                if let Some(entry) = entry(tid, time, arguments) {
                    open.insert(tid, testimony.calls.len());
                    testimony.calls.push(entry);
                }
            } else if event.starts_with("sys_futex -> ") {
                if let Some(place) = open.remove(&tid) {
                    testimony.calls[place].left = Some(time);
                }
            } else if let Some(switch) = event.strip_prefix("sched_switch: ")
                && let Some(place) = open.get(&tid)
                && is_sleep(switch)
            {
                let FutexEntry { address, operation, value, .. } = testimony.calls[*place];
                testimony.sleeps.push(FutexSleep { time, tid, address, operation, value });
            }
        }
        testimony
    }

    /// The lock, a contended glibc mutex, that the main loop and the vCPU thread were both seen to
    /// wait for, and most often: QEMU's big lock, by what it is for.
    #[must_use]
    pub fn most_shared_mutex(&self, main_loop: Tid, vcpu: Tid) -> Option<u64> {
        let mut counts: HashMap<u64, [u64; 2]> = HashMap::new();
        for sleep in self.sleeps.iter().filter(|sleep| (sleep.operation, sleep.value) == (0x80, 2))
        {
            let counts = counts.entry(sleep.address).or_default();
            counts[0] += u64::from(sleep.tid == main_loop);
            counts[1] += u64::from(sleep.tid == vcpu);
        }
        let shared =
            counts.into_iter().filter(|(_, [main_loop, vcpu])| *main_loop > 0 && *vcpu > 0);
        shared.max_by_key(|(_, [main_loop, vcpu])| main_loop + vcpu).map(|(address, _)| address)
    }

    /// When the main loop and the vCPU thread had both been seen to sleep on this lock, of what was seen
    /// from `start` on.
    #[must_use]
    pub fn shared_from(
        &self,
        start: HostNs,
        address: u64,
        main_loop: Tid,
        vcpu: Tid,
    ) -> Option<HostNs> {
        let first = |tid| {
            let sleeps = self.sleeps.iter().filter(|sleep| sleep.time >= start);
            let mut own = sleeps.filter(|sleep| sleep.tid == tid && sleep.address == address);
            own.next().map(|sleep| sleep.time)
        };
        Some(first(main_loop)?.max(first(vcpu)?))
    }

    /// When the vCPU thread and anybody else had both been in a call that waits for this lock as a contended
    /// mutex, of the calls that went on at `start` or later: before that no record since then can show that
    /// both sleep on it.
    #[must_use]
    pub fn maybe_shared_from(&self, start: HostNs, address: u64, vcpu: Tid) -> Option<HostNs> {
        let first = |is_vcpu: bool| {
            let mut waits = self.calls.iter().filter(|call| {
                (call.address, call.operation, call.value) == (address, 0x80, 2)
                    && call.left.is_none_or(|left| left >= start)
                    && (call.tid == vcpu) == is_vcpu
            });
            waits.next().map(|call| call.time.max(start))
        };
        Some(first(false)?.max(first(true)?))
    }

    /// How often a thread slept on any contended mutex.
    #[must_use]
    pub fn mutex_sleeps_count(&self, tid: Tid) -> usize {
        let is_mutex = |sleep: &&FutexSleep| (sleep.operation, sleep.value) == (0x80, 2);
        self.sleeps.iter().filter(is_mutex).filter(|sleep| sleep.tid == tid).count()
    }
}

/// `           CPU 0/KVM-1234    [001] d..2.  1234.567890: sched_switch: ...`: who, when, what. The
/// name may have blanks and dashes in it.
fn line_of(line: &str) -> Option<(Tid, HostNs, &str)> {
    if line.starts_with('#') {
        return None;
    }
    let (who, rest) = line.split_once(" [")?;
    let tid = who.trim_end().rsplit('-').next()?.parse().ok().map(Tid)?;
    let (_, rest) = rest.split_once("] ")?;
    let mut words = rest.split_whitespace();
    let time = words.find_map(|word| word.strip_suffix(':').and_then(nanoseconds))?;
    let event = rest.split_once(": ")?.1.trim_start();
    Some((tid, time, event))
}

/// `# entries-in-buffer/entries-written: 140/150   #P:2`: how many are gone.
fn lost_in(line: &str) -> u64 {
    let counts = || {
        let (_, counts) = line.split_once("entries-in-buffer/entries-written: ")?;
        let (kept, written) = counts.split_whitespace().next()?.split_once('/')?;
        written.parse::<u64>().ok()?.checked_sub(kept.parse().ok()?)
    };
    counts().unwrap_or(0)
}

/// `1234.567890`, seconds and microseconds.
fn nanoseconds(word: &str) -> Option<HostNs> {
    let (seconds, fraction) = word.split_once('.')?;
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?;
    let fraction: u64 = fraction.parse().ok()?;
    Some(HostNs(seconds.parse::<u64>().ok()? * 1_000_000_000 + fraction * 10_u64.pow(9 - digits)))
}

/// `uaddr: 55d120000000, op: 80, val: 2, ...)`, all in hex.
fn entry(tid: Tid, time: HostNs, arguments: &str) -> Option<FutexEntry> {
    let argument = |name: &str| {
        let (_, rest) = arguments.split_once(name)?;
        let end = rest.find([',', ')']).unwrap_or(rest.len());
        // From 6.18 on a name follows some numbers: `op: 0x80 (FUTEX_WAIT|...)`.
        let number = rest[..end].trim().split(' ').next()?;
        u64::from_str_radix(number.trim_start_matches("0x"), 16).ok()
    };
    Some(FutexEntry {
        time,
        tid,
        address: argument("uaddr: ")?,
        operation: u32::try_from(argument("op: ")?).ok()?,
        value: u32::try_from(argument("val: ")?).ok()?,
        left: None,
    })
}

/// Whether the thread of `prev_comm=... prev_state=S ==> ...` went to sleep.
fn is_sleep(switch: &str) -> bool {
    let state = switch.split(" prev_state=").nth(1).and_then(|rest| rest.chars().next());
    matches!(state, Some('S' | 'D'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 prints an instance with the clock `mono_raw`.
    const TRACE: &str = "\
# tracer: nop
# entries-in-buffer/entries-written: 5/8   #P:2
       CPU 0/KVM-101     [001] .....  2579.120813: sys_futex(uaddr: 0x40, op: 0x80, val: 0x2, utime: 0)
       CPU 0/KVM-101     [001] d..2.  2579.120815: sched_switch: prev_comm=CPU 0/KVM prev_pid=101 \
prev_prio=120 prev_state=S ==> next_comm=swapper/1 next_pid=0 next_prio=120
 qemu-system-x86-100     [000] .....  2579.120900: sys_futex(uaddr: 0x40, op: 0x81, val: 0x1, utime: 0)
 qemu-system-x86-100     [000] .....  2579.120901: sys_futex -> 0x1
       CPU 0/KVM-101     [001] .....  2579.120910: sys_futex -> 0x0
";

    #[test]
    fn a_trace_tells_calls_and_sleeps() {
        let testimony = Testimony::parse(TRACE);
        assert_eq!((testimony.calls.len(), testimony.lost_count), (2, 3));
        let call = testimony.calls[0];
        assert_eq!((call.tid, call.address, call.operation, call.value), (Tid(101), 0x40, 0x80, 2));
        assert_eq!(call.time, HostNs(2_579_120_813_000));
        assert_eq!(call.left, Some(HostNs(2_579_120_910_000)));
        let [sleep] = testimony.sleeps[..] else { panic!("{:?}", testimony.sleeps) };
        assert_eq!(
            (sleep.tid, sleep.address, sleep.time),
            (Tid(101), 0x40, HostNs(2_579_120_815_000))
        );
    }

    #[test]
    fn the_big_lock_is_the_one_that_both_wait_for() {
        let sleep = |tid, address| FutexSleep {
            time: HostNs(1),
            tid: Tid(tid),
            address,
            operation: 0x80,
            value: 2,
        };
        let sleeps =
            vec![sleep(101, 8), sleep(101, 8), sleep(101, 8), sleep(101, 16), sleep(100, 16)];
        let testimony = Testimony { sleeps, ..Testimony::default() };
        assert_eq!(testimony.most_shared_mutex(Tid(100), Tid(101)), Some(16));
        assert_eq!(testimony.most_shared_mutex(Tid(99), Tid(101)), None);
        let shared =
            |start, address| testimony.shared_from(HostNs(start), address, Tid(100), Tid(101));
        assert_eq!(shared(0, 16), Some(HostNs(1)));
        assert_eq!(shared(2, 16), None, "not since then");
        assert_eq!(shared(0, 8), None, "the main loop never did");
    }

    #[test]
    fn a_lock_may_be_shared_once_two_threads_have_asked_for_it() {
        let call = |time, tid, left: Option<u64>| FutexEntry {
            time: HostNs(time),
            tid: Tid(tid),
            address: 16,
            operation: 0x80,
            value: 2,
            left: left.map(HostNs),
        };
        let calls = vec![call(1, 99, Some(4)), call(10, 101, Some(12)), call(20, 98, None)];
        let testimony = Testimony { calls, ..Testimony::default() };
        let from = |start, address| {
            testimony.maybe_shared_from(HostNs(start), address, Tid(101)).map(|time| time.0)
        };
        assert_eq!((from(4, 16), from(5, 16)), (Some(10), Some(20)));
        assert_eq!((from(13, 16), from(0, 8)), (None, None));
        assert_eq!(testimony.mutex_sleeps_count(Tid(101)), 0, "a call is no sleep");
    }

    #[test]
    fn only_instances_whose_maker_is_gone_are_stale() {
        assert!(!is_stale(&Path::new("/x").join(name())));
        assert!(is_stale(Path::new("/x/vslice-4194304-1")));
        assert!(!is_stale(Path::new("/x/somebody-1-1")));
    }
}
