//! Why a guest's block requests cannot be observed: each a sentence that says what to do.

use std::io;
use vslice_perf::RingError;

/// Why nothing can be observed, or why observing ended.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The kernel does not let this process trace it.
    #[error(
        "the agent may not trace the guest's kernel: run it as root, or with CAP_PERFMON and read access to \
         tracefs (kernel.perf_event_paranoid is {})", known(*.paranoid)
    )]
    NotPermitted {
        /// `/proc/sys/kernel/perf_event_paranoid`, where it can be read.
        paranoid: Option<i32>,
    },
    /// The kernel is locked down so far that not even root may trace it.
    #[error(
        "the guest's kernel is locked down ({level}), which forbids tracing: boot it with lockdown=integrity \
         or without lockdown, or have the host's view alone"
    )]
    LockedDown {
        /// What `/sys/kernel/security/lockdown` says.
        level: String,
    },
    /// There is no tracefs, and none could be mounted.
    #[error(
        "the guest has no tracefs and mounting one failed ({0}): its kernel needs CONFIG_FTRACE and \
         CONFIG_BLK_DEV_IO_TRACE or another tracer"
    )]
    NoTracefs(#[source] io::Error),
    /// A tracepoint is missing without which no request is known.
    #[error(
        "the guest's kernel has no readable tracepoint {name} ({source}): it needs CONFIG_EVENT_TRACING, as \
         distributions' kernels have it"
    )]
    NoTracepoint {
        /// Group and name.
        name: &'static str,
        /// Why its files cannot be read.
        source: io::Error,
    },
    /// A tracepoint has a format that vslice does not know.
    #[error("the format of the guest's tracepoint {name} is unknown to this agent: {what}")]
    BadFormat {
        /// Group and name.
        name: &'static str,
        /// What is missing or wrong.
        what: String,
    },
    /// The kernel was built without perf events.
    #[error("the guest's kernel has no perf events: it needs CONFIG_PERF_EVENTS")]
    NoPerf,
    /// No disk is there to be observed.
    #[error("the guest has none of the disks to be observed: {}{}", there_are(.there), and(.notices))]
    NoDisk {
        /// Those that it has.
        there: Vec<String>,
        /// What is to be known of those that were asked for: sentences.
        notices: Vec<String>,
    },
    /// There are too few file descriptors: one is needed for each event on each vCPU.
    #[error(
        "too many open files in the guest after {opened} perf events; raise the agent's `ulimit -n` (now {limit})"
    )]
    TooManyFiles {
        /// The number of events that were opened.
        opened: usize,
        /// The limit of open files.
        limit: u64,
    },
    /// The rings are locked memory, and that is limited.
    #[error(
        "no locked memory left in the guest for a ring buffer of {ring_bytes} bytes on vCPU {vcpu}: run the agent \
         as root, or raise its `ulimit -l`"
    )]
    NoMemory {
        /// The size of one ring buffer in bytes.
        ring_bytes: usize,
        /// Where it was refused.
        vcpu: u16,
    },
    /// Something was refused for another reason.
    #[error("the guest's kernel refuses to {doing} on vCPU {vcpu}: {source}")]
    Kernel {
        /// What was tried, as a verb.
        doing: &'static str,
        /// Where.
        vcpu: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// The guest's facts cannot be read.
    #[error("cannot {doing} in the guest: {source}")]
    Guest {
        /// What was tried, as a verb.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A ring holds bytes that no kernel writes.
    #[error("the ring buffer of vCPU {vcpu} is corrupt: {source}")]
    CorruptRing {
        /// Whose ring.
        vcpu: u16,
        /// What is wrong.
        source: RingError,
    },
}

fn known(paranoid: Option<i32>) -> String {
    paranoid.map_or_else(|| "unknown".into(), |level| level.to_string())
}

fn there_are(disks: &[String]) -> String {
    match disks {
        [] => "it has no disk with a device behind it".to_owned(),
        disks => format!("it has {}", disks.join(", ")),
    }
}

fn and(notices: &[String]) -> String {
    notices.iter().map(|notice| format!("; {notice}")).collect()
}
