//! What to run, as a value: it arrives in the guest as JSON and appears in the run directory.

use serde::{Deserialize, Serialize};

/// Everything one machine is asked to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// One hog pinned to each of these vCPUs.
    pub hogs: Vec<u16>,
    /// The reader, if this machine has one.
    pub reader: Option<ReaderSpec>,
    /// Where everything that is neither hog nor reader runs.
    pub housekeeping_vcpu: u16,
    /// Which clock stamps the requests.
    pub clock: ClockChoice,
    /// The I/O scheduler to set on the target's block device, `none` for instance; `None` leaves it.
    pub io_scheduler: Option<String>,
    /// Without a sign of life of the collector for this long, everything stops.
    pub lease_ms: u32,
}

/// Which clock the requests are stamped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockChoice {
    /// The TSC where CPUID says that it is invariant, `CLOCK_MONOTONIC_RAW` otherwise.
    Auto,
    /// The TSC: the collector knows that it is good here though CPUID does not say so. It knows
    /// this of QEMU's TCG, whose guests read the host's TSC plus a constant.
    Tsc,
    /// `CLOCK_MONOTONIC_RAW`.
    MonotonicRaw,
}

/// One reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderSpec {
    /// A file, a block device, or `auto` for the machine's only disk.
    pub target: String,
    /// Create the target, a file, with `total_bytes` of real data first if it is not there.
    pub create: bool,
    /// The size of one read in bytes: a power of two of at least 512.
    pub block_bytes: u32,
    /// What all reads come to; a reader starts over at the end of a shorter target.
    pub total_bytes: u64,
    /// Stop after this long even if there is more to read.
    pub duration_ms: Option<u64>,
    /// In which order the blocks are read.
    pub pattern: Pattern,
    /// How they are read.
    pub engine: Engine,
    /// Requests in flight at once; only `io_uring` can do more than 1. In [1, 4096].
    pub depth: u16,
    /// The vCPU that the reader is pinned to.
    pub vcpu: u16,
}

/// In which order a reader reads its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// One after the other.
    Seq,
    /// By a fixed pseudo-random sequence, the same in every run.
    Rand,
}

/// How a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// `pread(2)`, one at a time.
    Psync,
    /// `io_uring(7)`, `depth` at a time.
    IoUring,
}
