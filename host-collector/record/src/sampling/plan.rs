//! What a sampler is told, to whom it gives, and what it comes to.

use std::error::Error;
use std::io;
use std::time::Duration;
use vslice_core::samples::SampleItem;
use vslice_core::units::{PcpuId, Tid};

/// From one round of looks to the next, on average.
pub const PERIOD: Duration = Duration::from_millis(1);

/// Looking never takes more than this share of a pCPU: where a round takes long, because there are
/// many threads, the next one comes later, and the rate is lower.
pub const PCPU_SHARE_MAX: f64 = 0.2;

/// Threads that are no vCPU's are looked at in every so many rounds only.
pub(super) const OTHERS_ROUNDS: u64 = 10;

/// Between two reads of what the scheduler has counted.
pub(super) const TOTALS_INTERVAL: Duration = Duration::from_millis(100);

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

/// What is read of the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// What they are doing, and what the scheduler has counted.
    LooksAndTotals,
    /// What the scheduler has counted.
    TotalsOnly,
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
