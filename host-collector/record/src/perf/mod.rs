//! Records what the host's scheduler does, through `perf_event_open(2)` (`vslice_perf`).
//!
//! ```text
//! format            where the fields lie that are read
//! filter, attr      what is asked of the kernel
//! bpf               programs that record the scheduler's events and disks', where they may
//! event             bytes -> records                           (pure)
//! registers         user registers -> a system call's arguments (pure)
//! assemble          records of one ring -> HostEvents in order (pure)
//! comms, stacks     thread names and kernel stacks, said once
//! groups            the paths of control groups, said once
//! source            who writes these events: bpf, or perf's own tracepoint events
//! machine           what this machine offers, and who is to be recorded on it
//! opening           events of one pCPU: opening them, and what may be refused
//! rings             the events and the ring of each pCPU
//! reader, recorder  threads and rings together
//! symbols           addresses -> names, after the run
//! offer             what of all that this host has
//! ```
//!
//! # What is recorded
//!
//! Each online pCPU has one ring. On a *watched* pCPU (one that the plan names, because VM threads
//! are pinned to it) every context switch is recorded, so that it is known who ran while a vCPU
//! thread waited. On the others only the switches from or to a VM's thread are. Wakings of VM threads
//! are recorded wherever the waker is, and those of strangers where they may take a watched pCPU from
//! a VM's thread. What is not wanted is turned away in the kernel. A switch or a waking is recorded
//! exactly once; one where a VM's thread leaves has its kernel stack and, if it is in a system call,
//! its arguments, which name the lock that it sleeps on.
//!
//! BPF programs write these records where they may ([`SchedulerSource`]), and otherwise perf's own
//! tracepoint events with filters.
//!
//! Beyond the scheduler's events a plan may ask for what KVM does for vCPU threads (which device
//! the VMM has to serve; on demand every exit) and for the steps of I/O on disks; with both, for the
//! interrupts of vCPUs by other threads of their VMs.
//!
//! # Threads that are born during the run
//!
//! A thread of a VM's process is wanted as soon as the reader has seen its birth: at most
//! [`READ_INTERVAL`] late. What it did before, on unwatched pCPUs and with threads of no VM, is not
//! recorded; it has no timeline there, rather than a wrong one. Without programs it takes events of
//! its own on each unwatched pCPU that it may run on, and its stacks are not asked for.

mod assemble;
mod attr;
mod bpf;
mod comms;
mod event;
mod filter;
mod format;
mod groups;
mod kernel;
mod machine;
pub mod offer;
mod opening;
mod reader;
mod recorder;
mod registers;
mod rings;
mod source;
mod stacks;
mod symbols;
mod totals;

pub use reader::{EventSink, READ_INTERVAL, SinkError};
pub use recorder::{KvmDetail, RecordPlan, Recorder, check_rights};
pub use source::{SchedulerSource, check_disk_programs, check_programs};
pub use stacks::StackTable;
pub use symbols::{SymbolError, Symbols};
pub use totals::{RecordCounters, RecordTotals};
pub use vslice_perf::{RingError, Tracefs};

use std::io;
use vslice_core::units::PcpuId;

/// Why nothing can be recorded, or why recording ended.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The kernel does not let this process see the whole machine.
    #[error(
        "no permission to record scheduler events: run as root, or with CAP_PERFMON and read access to \
        tracefs (kernel.perf_event_paranoid is {})", paranoid_text(*.paranoid)
    )]
    NotPermitted {
        /// `/proc/sys/kernel/perf_event_paranoid`, where it can be read.
        paranoid: Option<i32>,
    },
    /// The kernel was built without perf events.
    #[error("this kernel has no perf events (CONFIG_PERF_EVENTS)")]
    NoPerf,
    /// There is no tracefs, and none could be mounted.
    #[error(
        "no tracefs is mounted and mounting one failed: run as root or \
         `mount -t tracefs tracefs /sys/kernel/tracing`"
    )]
    NoTracefs(#[source] io::Error),
    /// A tracepoint is missing that every kernel with tracing has.
    #[error("this kernel has no readable tracepoint {name}")]
    NoTracepoint {
        /// Group and name.
        name: &'static str,
        /// Why its files cannot be read.
        source: io::Error,
    },
    /// A tracepoint has an unknown format.
    #[error("the format of tracepoint {name} is unknown: {what}")]
    BadFormat {
        /// Group and name.
        name: &'static str,
        /// What is missing or wrong.
        what: String,
    },
    /// Pids in perf records would not be those of tracepoints.
    #[error("vslice runs in a pid namespace, which hides the host's thread ids")]
    PidNamespace,
    /// A pCPU of the plan that cannot be recorded.
    #[error("{0} is not online")]
    PcpuOffline(PcpuId),
    /// There are too few file descriptors: one is needed for each event on each pCPU.
    #[error("too many open files after {opened} perf events; raise `ulimit -n` (now {limit})")]
    TooManyFiles {
        /// The number of events that were opened.
        opened: usize,
        /// The soft limit of open files.
        limit: u64,
    },
    /// The rings are locked memory, and that is limited.
    #[error(
        "no locked memory left for a ring buffer of {ring_bytes} bytes on {pcpu}; use smaller ring \
        buffers, or raise kernel.perf_event_mlock_kb (now {mlock_kib} KiB per pCPU) or `ulimit -l`"
    )]
    MlockLimit {
        /// The size of one ring buffer in bytes.
        ring_bytes: usize,
        /// Where it was refused.
        pcpu: PcpuId,
        /// `/proc/sys/kernel/perf_event_mlock_kb`, 0 where it cannot be read.
        mlock_kib: u64,
    },
    /// An event, its filter or its ring was refused for another reason.
    #[error("cannot {doing} on {pcpu}")]
    Kernel {
        /// What was tried, as a verb.
        doing: &'static str,
        /// Where.
        pcpu: PcpuId,
        /// What the kernel said.
        source: io::Error,
    },
    /// The host's facts cannot be read.
    #[error("cannot {doing}")]
    Host {
        /// What was tried, as a verb.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A ring holds bytes that no kernel writes.
    #[error("the ring buffer of {pcpu} is corrupt")]
    CorruptRing {
        /// Whose ring.
        pcpu: PcpuId,
        /// What is wrong.
        source: RingError,
    },
    /// The sink failed.
    #[error("the recorded events could not be stored")]
    Sink(#[source] SinkError),
    /// The reader thread is gone: it panicked, or it ended after an error.
    #[error("the thread that reads the ring buffers has ended")]
    ReaderGone,
}

fn paranoid_text(paranoid: Option<i32>) -> String {
    paranoid.map_or_else(|| "unknown".into(), |level| level.to_string())
}
