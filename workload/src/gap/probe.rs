//! The loop that finds gaps, and its thread.

use crate::clock::Clock;
use crate::error::WorkloadError;
use crate::pin::pin_current_thread;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// The loop needs none, the C library 16 KiB; the witness has small buffers.
const STACK_BYTES: usize = 128 * 1024;

/// Readings of the counters before the loop begins.
const WARM_UPS: usize = 15;

/// How often the counters are read again after a reading that was itself interrupted, before such an
/// interruption is left in the blind time.
const REREADS_MAX: u64 = 8;

/// What the kernel's scheduler says of one thread: `/proc/TID/schedstat` (fs/proc/base.c,
/// `proc_pid_schedstat`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedStat {
    /// `se.sum_exec_runtime` as it stands: the kernel brings it up to date at ticks and switches,
    /// and when somebody asks for the thread's CPU clock, but not for this file. So when it is ahead
    /// of the last reading of that clock, a tick or a switch has happened since.
    pub ran_ns: u64,
    /// `sched_info.run_delay`: time that the thread was runnable and not running.
    pub run_delay_ns: u64,
}

/// What the guest's kernel counts about the loop's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// The loop's clock when `cpu_ns` was read.
    pub at: u64,
    /// `CLOCK_THREAD_CPUTIME_ID`. It includes what an interrupt or the host took, unless the kernel
    /// leaves steal or interrupt time out of it (kernel/sched/core.c, `update_rq_clock_task`).
    pub cpu_ns: u64,
    /// Read before `cpu_ns`; `None` where the kernel has no `CONFIG_SCHED_INFO` or no `/proc`.
    pub schedstat: Option<SchedStat>,
    /// Context switches in which the thread was not runnable any more (`ru_nvcsw`).
    pub voluntary: u64,
    /// Context switches in which it was (`ru_nivcsw`).
    pub involuntary: u64,
}

/// Reads the counters of the thread that calls it.
pub trait Witness {
    /// The counters now. Called after each gap, and regularly: it must neither allocate nor wait.
    fn read(&mut self, clock: Clock) -> Counters;
}

/// One gap and the counters around it, as the loop leaves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawGap {
    /// The last reading of the clock before.
    pub start: u64,
    /// The first one after.
    pub end: u64,
    /// The counters before; how long before, [`Settings::checkpoint_ticks`] bounds.
    pub before: Counters,
    /// The counters after.
    pub after: Counters,
}

/// Gaps that found no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostGaps {
    /// How many, at least 1.
    pub count: u64,
    /// When the first of them started.
    pub first: u64,
    /// When the last of them ended.
    pub last: u64,
}

/// How the loop goes. All but the last in ticks of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What the loop reads.
    pub clock: Clock,
    /// Readings further apart are a gap.
    pub threshold_ticks: u64,
    /// The counters are read again at least so often, so that what they say is of the gap and not
    /// of a long time before it.
    pub checkpoint_ticks: u64,
    /// Room for so many gaps.
    pub gaps_max: usize,
}

/// What one loop has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// In order of time.
    pub gaps: Vec<RawGap>,
    /// The loop's first reading.
    pub begun: u64,
    /// When it asked for the counters at the end.
    pub ended: u64,
    /// How often it read the clock.
    pub iterations: u64,
    /// How often it read the counters.
    pub counter_reads: u64,
    /// Ticks it spent on that, in which it sees no gap.
    pub blind_ticks: u64,
    /// The longest of these times.
    pub blind_longest_ticks: u64,
    /// Gaps without room: they are at the end, since room never comes back.
    pub lost: Option<LostGaps>,
    /// The counters at the first reading.
    pub first: Counters,
    /// The counters at the end.
    pub last: Counters,
}

impl Outcome {
    fn new(gaps_max: usize) -> Outcome {
        let mut gaps = Vec::with_capacity(gaps_max);
        // Written to once, so that no page is first touched by a gap's record.
        gaps.resize(gaps_max, RawGap::default());
        gaps.clear();
        let none = Counters::default();
        Outcome {
            gaps,
            begun: 0,
            ended: 0,
            iterations: 0,
            counter_reads: 0,
            blind_ticks: 0,
            blind_longest_ticks: 0,
            lost: None,
            first: none,
            last: none,
        }
    }

    /// What lies between `start` and the reading, if there is anything.
    fn push(&mut self, start: u64, before: Counters, reading: &Reading) {
        if reading.asked <= start {
            return;
        }
        let gap = RawGap { start, end: reading.asked, before, after: reading.counters };
        if self.gaps.len() < self.gaps.capacity() {
            self.gaps.push(gap);
            return;
        }
        let lost = self.lost.get_or_insert(LostGaps { count: 0, first: gap.start, last: gap.end });
        lost.count += 1;
        lost.last = gap.end;
    }

    fn was_blind(&mut self, counter_reads: u64, ticks: u64) {
        self.counter_reads += counter_reads;
        self.blind_ticks += ticks;
        self.blind_longest_ticks = self.blind_longest_ticks.max(ticks);
    }
}

/// Reads the clock until `stop`, and the witness after each gap. No allocation, no lock; the only
/// system calls are the witness's.
///
/// The time the witness takes is no gap: the loop starts afresh from a new reading after it, and
/// the time in between is counted as blind. But where the witness itself was kept waiting, that is a
/// gap as well, or part of the one before it. This is not rare: reading a thread's CPU clock makes
/// the kernel look whether the thread's timeslice is over (kernel/sched/core.c,
/// `task_sched_runtime`), and so the loop is preferably switched away from there.
pub fn watch_for_gaps<W: Witness>(
    settings: &Settings,
    witness: &mut W,
    stop: &AtomicBool,
    iterations: &AtomicU64,
) -> Outcome {
    let clock = settings.clock;
    let mut outcome = Outcome::new(settings.gaps_max);
    let blind_max = settings.threshold_ticks.saturating_add(2 * usual_blind_ticks(witness, clock));
    let mut read = |asked| Reading::take(witness, clock, asked, blind_max);
    let first = read(clock.now());
    let (mut known, mut last) = (first.counters, first.done);
    (outcome.first, outcome.begun) = (known, last);
    while !stop.load(Ordering::Relaxed) {
        let now = clock.now();
        outcome.iterations += 1;
        // A plain store, see `hog::count_until`.
        iterations.store(outcome.iterations, Ordering::Relaxed);
        let is_gap = now.saturating_sub(last) > settings.threshold_ticks;
        if !is_gap && now.saturating_sub(known.at) < settings.checkpoint_ticks {
            last = now;
            continue;
        }
        let start = if is_gap { last } else { now };
        let reading = read(now);
        outcome.was_blind(reading.count, reading.done.saturating_sub(reading.asked));
        outcome.push(start, known, &reading);
        (known, last) = (reading.counters, reading.done);
    }
    let reading = read(last);
    outcome.push(last, known, &reading);
    (outcome.ended, outcome.last) = (reading.asked, reading.counters);
    outcome
}

/// The counters, and when they were asked for. A reading that was itself interrupted is taken again, so
/// that what interrupted it is before this one.
#[derive(Debug)]
struct Reading {
    counters: Counters,
    asked: u64,
    done: u64,
    /// How many readings that took.
    count: u64,
}

impl Reading {
    fn take<W: Witness>(witness: &mut W, clock: Clock, asked: u64, blind_max: u64) -> Reading {
        let mut once = |asked, count| {
            let counters = witness.read(clock);
            Reading { counters, asked, done: clock.now(), count }
        };
        let mut reading = once(asked, 1);
        while reading.done.saturating_sub(reading.asked) > blind_max && reading.count <= REREADS_MAX
        {
            reading = once(reading.done, reading.count + 1);
        }
        reading
    }
}

/// What reading the counters takes here when nothing interferes: the median of a few times.
fn usual_blind_ticks<W: Witness>(witness: &mut W, clock: Clock) -> u64 {
    let mut times = [0; WARM_UPS];
    for time in &mut times {
        let before = clock.now();
        witness.read(clock);
        *time = clock.now().saturating_sub(before);
    }
    times.sort_unstable();
    times[WARM_UPS / 2]
}

/// A loop on a thread of its own. Dropping it does not stop it: the flag given to [`Probe::start`]
/// does.
#[derive(Debug)]
pub struct Probe {
    vcpu: u16,
    iterations: Arc<AtomicU64>,
    thread: JoinHandle<Option<Outcome>>,
}

impl Probe {
    /// Starts a loop on `vcpu` until `stop` is true. `witness` is made on the loop's own thread,
    /// whose counters it reads. When this returns, the thread is pinned.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::SpawnHog`] if there can be no further thread, [`WorkloadError::Pin`] if it
    /// cannot run on `vcpu`.
    pub fn start<W: Witness>(
        vcpu: u16,
        settings: Settings,
        witness: impl FnOnce() -> W + Send + 'static,
        stop: Arc<AtomicBool>,
    ) -> Result<Probe, WorkloadError> {
        let iterations = Arc::new(AtomicU64::new(0));
        let published = Arc::clone(&iterations);
        let (send_pinned, receive_pinned) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("gap-{vcpu}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let pinned = pin_current_thread(vcpu);
                let go = pinned.is_ok();
                // The starter waits for this message, so the channel is open.
                let _ = send_pinned.send(pinned);
                go.then(|| watch_for_gaps(&settings, &mut witness(), &stop, &published))
            })
            .map_err(|source| WorkloadError::SpawnHog { vcpu, source })?;
        receive_pinned
            .recv()
            .expect("the thread sends before it does anything that could panic")?;
        Ok(Probe { vcpu, iterations, thread })
    }

    /// The vCPU that the loop is pinned to.
    #[must_use]
    pub fn vcpu(&self) -> u16 {
        self.vcpu
    }

    /// How often the loop has read its clock so far.
    #[must_use]
    pub fn iterations(&self) -> u64 {
        self.iterations.load(Ordering::Relaxed)
    }

    /// Waits for the loop to see its flag; `None` if its thread has died.
    #[must_use]
    pub fn join(self) -> Option<Outcome> {
        self.thread.join().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: u64 = 1_000_000;

    /// Takes 2 ms for every read, 20 ms for the `slow`th, and ends the loop with the `last`th; the
    /// warm-up does not count.
    struct Script<'run> {
        reads: u64,
        slow: Option<u64>,
        last: u64,
        stop: &'run AtomicBool,
    }

    impl<'run> Script<'run> {
        fn new(last: u64, slow: Option<u64>, stop: &'run AtomicBool) -> Self {
            Script { reads: 0, slow, last, stop }
        }
    }

    impl Witness for Script<'_> {
        fn read(&mut self, clock: Clock) -> Counters {
            self.reads += 1;
            let read = self.reads.saturating_sub(WARM_UPS as u64);
            if read >= self.last {
                self.stop.store(true, Ordering::Relaxed);
            }
            let ms = if self.slow == Some(read) { 20 } else { 2 };
            std::thread::sleep(Duration::from_millis(ms));
            Counters { at: clock.now(), cpu_ns: read, ..Counters::default() }
        }
    }

    fn settings(threshold_ticks: u64, checkpoint_ticks: u64, gaps_max: usize) -> Settings {
        Settings { clock: Clock::MonotonicRaw, threshold_ticks, checkpoint_ticks, gaps_max }
    }

    fn watch(settings: Settings, mut script: Script<'_>) -> Outcome {
        let count = AtomicU64::new(0);
        let stop = script.stop;
        let outcome = watch_for_gaps(&settings, &mut script, stop, &count);
        assert_eq!(count.load(Ordering::Relaxed), outcome.iterations);
        outcome
    }

    #[test]
    fn reading_the_counters_is_blind_time_and_no_gap() {
        let stop = AtomicBool::new(false);
        let outcome = watch(settings(u64::MAX, MS, 4), Script::new(11, None, &stop));
        assert_eq!(outcome.gaps, [], "every 2 ms without a reading were the witness's");
        assert_eq!(outcome.counter_reads, 10);
        assert!(outcome.blind_ticks >= 10 * 2 * MS, "{outcome:?}");
        assert!(outcome.blind_longest_ticks * 10 >= outcome.blind_ticks);
        assert!(outcome.ended - outcome.begun >= outcome.blind_ticks + 9 * MS);
        assert_eq!((outcome.first.cpu_ns, outcome.last.cpu_ns), (1, 12));
    }

    #[test]
    fn a_reading_that_was_interrupted_is_a_gap() {
        let stop = AtomicBool::new(false);
        // A reading takes 2 ms, so up to 4 ms above the threshold of 8 ms are no gap.
        let script = Script::new(8, Some(4), &stop);
        let outcome = watch(settings(8 * MS, MS, 4), script);
        // A busy machine may interrupt more than the script does.
        let slow = outcome.gaps.iter().find(|gap| gap.after.cpu_ns == 5);
        let gap = slow.unwrap_or_else(|| panic!("{outcome:?}"));
        assert!(gap.end - gap.start >= 20 * MS, "{gap:?}");
        assert_eq!(gap.before.cpu_ns, 3, "the interrupted reading is inside the gap");
        assert!(outcome.counter_reads >= 7 && outcome.blind_ticks >= 6 * 2 * MS, "{outcome:?}");
    }

    #[test]
    fn gaps_without_room_are_counted_with_their_interval() {
        let stop = AtomicBool::new(false);
        // Every step of the clock is a gap.
        let outcome = watch(settings(0, u64::MAX, 2), Script::new(6, None, &stop));
        assert_eq!(outcome.gaps.len(), 2);
        let lost = outcome.lost.unwrap();
        assert!((1..=3).contains(&lost.count), "5 readings, fewer gaps where one was repeated");
        assert!(lost.first >= outcome.gaps[1].end && lost.last > lost.first);
        let found = outcome.gaps.len() as u64 + lost.count;
        for gap in &outcome.gaps {
            assert!(gap.start < gap.end && gap.before.at < gap.end && gap.end <= gap.after.at);
            let reads = gap.after.cpu_ns - gap.before.cpu_ns;
            assert!(found == 5 && reads == 1 || found < 5 && reads >= 1, "{outcome:?}");
        }
    }

    #[test]
    fn an_interrupted_reading_is_neither_the_first_nor_the_last() {
        let stop = AtomicBool::new(false);
        let outcome = watch(settings(8 * MS, MS, 4), Script::new(4, Some(1), &stop));
        assert!(outcome.first.cpu_ns >= 2, "what interrupted it was before the loop: {outcome:?}");
        let stop = AtomicBool::new(false);
        let outcome = watch(settings(8 * MS, MS, 8), Script::new(4, Some(5), &stop));
        // A busy machine may interrupt more than the script does.
        let slow = outcome.gaps.iter().find(|gap| gap.end - gap.start >= 20 * MS);
        let gap = slow.unwrap_or_else(|| panic!("{outcome:?}"));
        assert!(gap.after.cpu_ns >= 6 && gap.end <= outcome.ended, "{outcome:?}");
        assert!(outcome.last.cpu_ns >= 6, "{outcome:?}");
    }

    struct Nobody;

    impl Witness for Nobody {
        fn read(&mut self, clock: Clock) -> Counters {
            Counters { at: clock.now(), ..Counters::default() }
        }
    }

    #[test]
    fn a_probe_runs_where_it_was_put_or_not_at_all() {
        let stop = Arc::new(AtomicBool::new(false));
        let settings = settings(MS, MS, 1024);
        let error = Probe::start(1023, settings, || Nobody, Arc::clone(&stop)).unwrap_err();
        assert!(matches!(error, WorkloadError::Pin { vcpu: 1023 }), "{error}");
        let vcpu = crate::pin::current_vcpu();
        let probe = Probe::start(vcpu, settings, || Nobody, Arc::clone(&stop)).unwrap();
        while probe.iterations() < 10 {
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(probe.vcpu(), vcpu);
        assert!(probe.join().unwrap().iterations >= 10);
    }
}
