//! A thread of the host as it was at one time: what it belonged to, and what it was called.

use crate::units::{HostNs, Tid, VcpuId};
use std::cmp::Ordering;
use std::sync::Arc;

/// A VM by its position in the list of a run's VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmIndex(pub usize);

/// What a host thread belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ThreadKind {
    /// It runs a vCPU.
    Vcpu {
        /// The VM.
        vm: VmIndex,
        /// The vCPU.
        vcpu: VcpuId,
    },
    /// Another thread of a VM's VMM, or of a process that serves that VM alone.
    Vmm {
        /// The VM.
        vm: VmIndex,
    },
    /// It is one of this vslice's own.
    Collector,
    /// It is one of another vslice.
    OtherVslice {
        /// The other's process.
        pid: Tid,
    },
    /// A thread of the host's kernel.
    Kernel,
    /// Any other task of the host.
    Host,
    /// Its name was never recorded.
    Unknown,
}

/// A process, distinguished from others that had the same pid before or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Its number (thread group id).
    pub pid: Tid,
    /// When it was born; 0 if it was there when recording began.
    pub since: HostNs,
}

/// A thread under one of its names. A thread that changes its name is another `Task` from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The thread.
    pub tid: Tid,
    /// When it was born, or first seen; 0 if it was there when recording began. With `tid` it tells the
    /// thread apart from all others of the run.
    pub since: HostNs,
    /// Its process, where that is known.
    pub process: Option<Process>,
    /// What it belongs to.
    pub kind: ThreadKind,
    /// Its role where it is a VMM's (`main loop`, `worker`, `iothread io0`), else the name that it had.
    pub name: String,
}

impl Task {
    /// A thread of which only the thread id is known.
    #[must_use]
    pub fn unknown(tid: Tid) -> Task {
        let name = format!("tid {tid}");
        Task { tid, since: HostNs(0), process: None, kind: ThreadKind::Unknown, name }
    }
}

/// A task compared by its kind and name only: two tasks with the same kind and name are equal.
#[derive(Debug, Clone)]
pub struct KindAndName(pub Arc<Task>);

impl KindAndName {
    fn key(&self) -> (ThreadKind, &str) {
        (self.0.kind, &self.0.name)
    }
}

impl PartialEq for KindAndName {
    fn eq(&self, other: &KindAndName) -> bool {
        self.key() == other.key()
    }
}

impl Eq for KindAndName {}

impl PartialOrd for KindAndName {
    fn partial_cmp(&self, other: &KindAndName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KindAndName {
    fn cmp(&self, other: &KindAndName) -> Ordering {
        self.key().cmp(&other.key())
    }
}
