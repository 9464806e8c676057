//! Injectors: each makes one cause happen, writes down what it did and when, and undoes it all when
//! it is dropped.

pub mod quota;
pub mod realtime;
pub mod rival;
pub mod scheduling;
pub mod stopper;
pub mod storm;
pub mod thread;
pub mod waker;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use thiserror::Error;
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_host::qmp::QmpError;

/// One thing that an injector did, from `start` to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// Taken just before.
    pub start: HostNs,
    /// Taken just after.
    pub end: HostNs,
}

/// What a thread of this process did to others on its pCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadLog {
    /// The thread; it has ended.
    pub tid: Tid,
    /// Where it ran.
    pub pcpu: PcpuId,
    /// When it ran, as it saw it: of a rival, one long episode in which others ran too; of a thread
    /// that wakes, one for each time, from its waking to its going back to sleep.
    pub episodes: Vec<Episode>,
}

/// Why something could not be injected.
#[derive(Debug, Error)]
pub enum InjectError {
    /// No thread.
    #[error("cannot start the {name} thread: {source}")]
    Thread {
        /// What it is for.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused to schedule a thread as it should be.
    #[error("the {name} thread cannot be {what}: {errno}{hint}")]
    Scheduling {
        /// What it is for.
        name: &'static str,
        /// `pinned to pCPU1`, `made SCHED_FIFO`.
        what: String,
        /// What the kernel said.
        errno: Errno,
        /// What to do, or nothing.
        hint: &'static str,
    },
    /// There is no cgroup to be had.
    #[error("no cgroup can limit a thread's CPU time here: {0}")]
    NoCgroup(String),
    /// A file of a cgroup.
    #[error("{path} cannot be {action}: {source}")]
    Cgroup {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A signal could not be sent.
    #[error("process {pid} cannot be stopped: {errno}")]
    Signal {
        /// The process.
        pid: Tid,
        /// What the kernel said.
        errno: Errno,
    },
    /// See [`QmpError`].
    #[error(transparent)]
    Monitor(#[from] QmpError),
}
