//! A thread that looks at other threads, again and again.

use super::files::{Functions, ThreadFiles};
use super::item::{Call, SampleItem};
use crate::guest::exchange::host_now;
use crate::units::{HostNs, PcpuId, Tid};
use crate::vmm::pin;
use nix::time::{ClockId, clock_gettime};
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

/// From one round of looks to the next, on average.
pub const PERIOD: Duration = Duration::from_millis(1);

/// Looking never takes more than this share of a pCPU: where a round takes long, because there are
/// many threads, the next one comes later, and the rate is lower.
pub const PCPU_SHARE_MAX: f64 = 0.2;

/// Threads that are no vCPU's are looked at in every so many rounds only.
const OTHERS_ROUNDS: u64 = 10;

/// Between two reads of what the scheduler has counted.
const TOTALS_INTERVAL: Duration = Duration::from_millis(100);

/// How often it is tried what can be seen of threads: one that is running shows nothing.
const RIGHTS_TRIES: usize = 20;

/// Why whoever takes the items could not.
pub type SinkError = Box<dyn Error + Send + Sync>;

/// Takes what is sampled, item by item, in order of time.
pub trait SampleSink: Send + 'static {
    /// Takes an item of the VM with this index.
    ///
    /// # Errors
    /// What ends the sampling.
    fn item(&mut self, vm: usize, item: SampleItem) -> Result<(), SinkError>;

    /// Is called now and then, for what has waited to be written.
    ///
    /// # Errors
    /// As [`SampleSink::item`].
    fn tick(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// No more items will come.
    ///
    /// # Errors
    /// As [`SampleSink::item`].
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

impl<F: FnMut(usize, SampleItem) -> Result<(), SinkError> + Send + 'static> SampleSink for F {
    fn item(&mut self, vm: usize, item: SampleItem) -> Result<(), SinkError> {
        self(vm, item)
    }
}

/// Why sampling cannot begin, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A thread's totals cannot be read.
    #[error(
        "what the scheduler has counted of thread {tid} cannot be read: {source}; the kernel needs CONFIG_SCHED_INFO"
    )]
    NoSchedstat {
        /// The thread.
        tid: Tid,
        /// Why.
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("the sampling thread cannot be started")]
    NoThread(#[source] io::Error),
    /// Whoever takes the items could not.
    #[error("what was sampled could not be kept")]
    Sink(#[source] SinkError),
    /// The sampling thread has panicked.
    #[error("the sampling thread has panicked")]
    Panicked,
}

/// What is read of the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// What they are doing, and what the scheduler has counted.
    LooksAndTotals,
    /// What the scheduler has counted.
    TotalsOnly,
}

/// What the kernel shows of threads to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Calls and functions.
    Both,
    /// In which call they sleep, with its arguments.
    CallsOnly,
    /// In which function of the kernel they sleep.
    FunctionsOnly,
    /// Neither, or none of them slept.
    Nothing,
}

/// One thread to sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampledThread {
    /// The index of its VM, as the sink is told it.
    pub vm: usize,
    /// The thread.
    pub tid: Tid,
    /// How often it is looked at.
    pub pace: Pace,
}

/// How often a thread is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// In every round: a vCPU's thread.
    EveryRound,
    /// In every tenth.
    Seldom,
}

/// Whom to sample, and what of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplerPlan {
    /// The threads; those that are born later are not looked at.
    pub threads: Vec<SampledThread>,
    /// What is read of them.
    pub sight: Sight,
    /// Where the sampling thread shall run; `None` lets the scheduler choose.
    pub pcpu: Option<PcpuId>,
}

/// What a sampling came to.
#[derive(Debug, Default)]
pub struct SamplerTotals {
    /// Rounds of looks, or of reads of totals if nothing else was read.
    pub rounds_count: u64,
    /// Looks taken, of all threads.
    pub looks_count: u64,
    /// How long it went on.
    pub elapsed_ns: u64,
    /// What it took of a pCPU.
    pub own_ns: u64,
    /// Why it ended before it was stopped, if it did.
    pub ended_early: Option<SampleError>,
}

/// A sampling that goes on, until it is stopped or dropped.
#[derive(Debug)]
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<SamplerTotals>>,
}

impl Sampler {
    /// Opens the files of all threads and starts to sample. Threads that have ended are left out.
    ///
    /// # Errors
    /// [`SampleError::NoSchedstat`] or [`SampleError::NoThread`].
    pub fn start(plan: &SamplerPlan, sink: impl SampleSink) -> Result<Sampler, SampleError> {
        let mut threads = Vec::new();
        for thread in &plan.threads {
            match ThreadFiles::open(thread.tid) {
                Ok(files) => threads.push((*thread, files)),
                Err(_) if !exists(thread.tid) => {}
                Err(source) => return Err(SampleError::NoSchedstat { tid: thread.tid, source }),
            }
        }
        let mut vms: Vec<usize> = threads.iter().map(|(thread, _)| thread.vm).collect();
        vms.sort_unstable();
        vms.dedup();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, sight, pcpu) = (Arc::clone(&stop), plan.sight, plan.pcpu);
        let run = move || {
            if let Some(pcpu) = pcpu {
                // Where that fails it samples from anywhere rather than not at all.
                let _anywhere = pin::set_affinity(own_tid(), &[pcpu]);
            }
            let functions = Functions::default();
            let totals = SamplerTotals::default();
            Round { threads, vms, sight, sink, functions, totals }.repeat(&stopped)
        };
        let thread = Builder::new().name("vslice-sample".into()).spawn(run);
        Ok(Sampler { stop, thread: Some(thread.map_err(SampleError::NoThread)?) })
    }

    /// Whether it has ended by itself; [`Sampler::stop`] then says why.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Takes the totals once more, hands the rest to the sink and finishes it.
    ///
    /// # Errors
    /// [`SampleError::Panicked`]. Other failures are in [`SamplerTotals::ended_early`], because what
    /// was sampled before them is worth keeping.
    pub fn stop(mut self) -> Result<SamplerTotals, SampleError> {
        self.join().ok_or(SampleError::Panicked)
    }

    fn join(&mut self) -> Option<SamplerTotals> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.join();
    }
}

/// What the kernel shows of these threads, found out by looking. Takes up to a tenth of a second
/// where it shows nothing.
#[must_use]
pub fn shown_of(tids: &[Tid]) -> Shown {
    let mut files: Vec<_> = tids.iter().filter_map(|tid| ThreadFiles::open(*tid).ok()).collect();
    let mut functions = Functions::default();
    let (mut calls, mut names) = (false, false);
    for _ in 0..RIGHTS_TRIES {
        for file in &mut files {
            if let Some(look) = file.look(&mut functions) {
                calls |= look.call != Call::Hidden;
                names |= look.wchan.is_some();
            }
        }
        if calls && names {
            break;
        }
        thread::sleep(TOTALS_INTERVAL / 20);
    }
    match (calls, names) {
        (true, true) => Shown::Both,
        (true, false) => Shown::CallsOnly,
        (false, true) => Shown::FunctionsOnly,
        (false, false) => Shown::Nothing,
    }
}

fn exists(tid: Tid) -> bool {
    std::path::Path::new(&format!("/proc/{tid}")).exists()
}

fn own_tid() -> Tid {
    Tid(nix::unistd::gettid().as_raw().cast_unsigned())
}

/// Pseudo-random numbers (G. Marsaglia, Xorshift RNGs, J. Stat. Software 8/14, 2003): all that is
/// asked of them is not to keep step with the host's ticks.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From half of `mean` to one and a half.
    fn around(&mut self, mean: Duration) -> Duration {
        let part = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        mean.mul_f64(0.5 + part)
    }
}

/// The sampling thread's state.
struct Round<S> {
    threads: Vec<(SampledThread, ThreadFiles)>,
    vms: Vec<usize>,
    sight: Sight,
    sink: S,
    functions: Functions,
    totals: SamplerTotals,
}

impl<S: SampleSink> Round<S> {
    fn repeat(mut self, stop: &AtomicBool) -> SamplerTotals {
        let (started, own_before_ns) = (Instant::now(), own_ns());
        let result = self.rounds(stop).and_then(|()| self.read_totals());
        let result = result.and_then(|()| self.sink.finish());
        self.totals.elapsed_ns = nanoseconds(started.elapsed());
        self.totals.own_ns = own_ns().saturating_sub(own_before_ns);
        self.totals.ended_early = result.err().map(SampleError::Sink);
        self.totals
    }

    fn rounds(&mut self, stop: &AtomicBool) -> Result<(), SinkError> {
        let period = match self.sight {
            Sight::LooksAndTotals => PERIOD,
            Sight::TotalsOnly => TOTALS_INTERVAL,
        };
        // Not 0, which would stay 0.
        let mut random = Random(host_now().0 | 1);
        self.read_totals()?;
        let (mut totals_at, mut due) = (Instant::now(), Instant::now());
        let mut own_before_ns = own_ns();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let late = due.elapsed();
            if late > period {
                self.gap(late, period)?;
            }
            if self.sight == Sight::LooksAndTotals {
                self.look()?;
            }
            if self.sight == Sight::TotalsOnly || totals_at.elapsed() >= TOTALS_INTERVAL {
                totals_at = Instant::now();
                self.read_totals()?;
                self.sink.tick()?;
            }
            self.totals.rounds_count += 1;
            let own_now_ns = own_ns();
            let took = Duration::from_nanos(own_now_ns.saturating_sub(own_before_ns));
            own_before_ns = own_now_ns;
            due = Instant::now() + random.around(period).max(rest(took));
        }
        Ok(())
    }

    /// All threads that are due in this round; those that have ended are forgotten.
    fn look(&mut self) -> Result<(), SinkError> {
        let is_for_all = self.totals.rounds_count.is_multiple_of(OTHERS_ROUNDS);
        let mut ended = Vec::new();
        for (place, (thread, files)) in self.threads.iter_mut().enumerate() {
            if thread.pace == Pace::Seldom && !is_for_all {
                continue;
            }
            match files.look(&mut self.functions) {
                Some(look) => {
                    self.totals.looks_count += 1;
                    self.sink.item(thread.vm, SampleItem::Look(look))?;
                }
                None => ended.push(place),
            }
        }
        for place in ended.into_iter().rev() {
            self.threads.swap_remove(place);
        }
        Ok(())
    }

    fn read_totals(&mut self) -> Result<(), SinkError> {
        for (thread, files) in &self.threads {
            if let Some(schedstat) = files.schedstat() {
                self.sink.item(thread.vm, SampleItem::Schedstat(schedstat))?;
            }
        }
        Ok(())
    }

    fn gap(&mut self, late: Duration, period: Duration) -> Result<(), SinkError> {
        let until = host_now();
        let time = HostNs(until.0.saturating_sub(nanoseconds(late)));
        let rounds_count = nanoseconds(late) / nanoseconds(period);
        for vm in &self.vms {
            self.sink.item(*vm, SampleItem::Gap { time, until, rounds_count })?;
        }
        Ok(())
    }
}

/// How long to rest after work of this length, to stay within [`PCPU_SHARE_MAX`].
fn rest(took: Duration) -> Duration {
    took.mul_f64((1.0 - PCPU_SHARE_MAX) / PCPU_SHARE_MAX)
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// Time that the calling thread has spent on a pCPU.
fn own_ns() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) else { return 0 };
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec()) * 1_000_000_000 + part(time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn work_and_rest_stay_within_the_share(took_ns in 1_000_u64..100_000_000) {
            let took = Duration::from_nanos(took_ns);
            let share = took.as_secs_f64() / (took + rest(took)).as_secs_f64();
            prop_assert!(share <= PCPU_SHARE_MAX + 1e-3);
        }

        #[test]
        fn intervals_are_around_their_mean(seed in 1_u64..) {
            let mut random = Random(seed);
            let lengths: Vec<f64> =
                (0..2000).map(|_| random.around(PERIOD).as_secs_f64() / PERIOD.as_secs_f64()).collect();
            prop_assert!(lengths.iter().all(|length| (0.5..=1.5).contains(length)));
            let mean = lengths.iter().sum::<f64>() / lengths.len() as f64;
            // Its deviation is 0.0065: ten of them.
            prop_assert!((mean - 1.0).abs() < 0.065, "{mean}");
        }
    }

    #[test]
    fn a_sink_that_fails_ends_it_and_says_why() {
        let plan = SamplerPlan {
            threads: vec![SampledThread { vm: 0, tid: own_tid(), pace: Pace::EveryRound }],
            sight: Sight::TotalsOnly,
            pcpu: None,
        };
        let full = |_: usize, _: SampleItem| -> Result<(), SinkError> { Err("full".into()) };
        let sampler = Sampler::start(&plan, full).unwrap();
        while !sampler.has_ended() {
            thread::sleep(Duration::from_millis(1));
        }
        let ended = sampler.stop().unwrap().ended_early.unwrap();
        assert_eq!(ended.source().unwrap().to_string(), "full");
    }
}
