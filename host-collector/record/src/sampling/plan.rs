//! The plan of a sampler, the sink that takes its samples, and its totals.

use std::error::Error;
use std::io;
use std::time::Duration;
use vslice_core::samples::SampleItem;
use vslice_core::units::{PcpuId, Tid};

/// The average time from one sampling round to the next.
pub const PERIOD: Duration = Duration::from_millis(1);

/// The largest share of a pCPU that sampling takes. If a round takes long because there are many threads,
/// the next one starts later, so the rate is lower.
pub const PCPU_SHARE_MAX: f64 = 0.2;

/// Threads other than vCPU threads are sampled only once in this many rounds.
pub(super) const OTHERS_ROUNDS: u64 = 10;

/// The time between two reads of the scheduler's counters.
pub(super) const TOTALS_INTERVAL: Duration = Duration::from_millis(100);

/// The error of a sink that could not take an item.
pub type SinkError = Box<dyn Error + Send + Sync>;

/// Receives the samples one by one, in order of time.
pub trait SampleSink: Send + 'static {
    /// Takes an item of the VM with this index.
    ///
    /// # Errors
    /// An error ends the sampling.
    fn item(&mut self, vm: usize, item: SampleItem) -> Result<(), SinkError>;

    /// Is called regularly, so that buffered items can be written.
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

/// Why sampling could not start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A thread's totals cannot be read.
    #[error(
        "cannot read the scheduler's counters of thread {tid}: {source}; the kernel needs \
        CONFIG_SCHED_INFO"
    )]
    NoSchedstat {
        /// The thread.
        tid: Tid,
        /// Why.
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the sampling thread")]
    NoThread(#[source] io::Error),
    /// Whoever takes the items could not.
    #[error("the samples could not be stored")]
    Sink(#[source] SinkError),
    /// The sampling thread has panicked.
    #[error("the sampling thread has panicked")]
    Panicked,
}

/// The data that is sampled of each thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleContent {
    /// Its state, and the scheduler's counters.
    StatesAndTotals,
    /// Only the scheduler's counters.
    TotalsOnly,
}

/// One thread to sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampledThread {
    /// The index of its VM, as the sink is told it.
    pub vm: usize,
    /// The thread.
    pub tid: Tid,
    /// How often its state is sampled.
    pub rate: SampleRate,
}

/// How often a thread's state is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleRate {
    /// In every round, for a vCPU thread.
    EveryRound,
    /// In every tenth round, for other threads.
    EveryTenthRound,
}

/// The threads to sample, and the data to sample of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplerPlan {
    /// The threads; those that are born later are not looked at.
    pub threads: Vec<SampledThread>,
    /// What is read of them.
    pub content: SampleContent,
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
