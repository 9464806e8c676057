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

/// A control group, as a run's [`ControlGroups`](crate::control_groups::ControlGroups) number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlGroup(pub u32);

/// What a thread is grouped by: its VM, or else its control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskGroup {
    /// The threads of a VM's VMM, and those that work for that VM alone.
    Vm(VmIndex),
    /// The threads of this vslice.
    Collector,
    /// The threads of another vslice.
    OtherVslice {
        /// The other's process.
        pid: Tid,
    },
    /// The threads of the host's kernel that work for no VM alone.
    Kernel,
    /// Other tasks of a control group.
    Control(ControlGroup),
    /// Other tasks whose control group is not known.
    Unknown,
}

/// A thread under one of its names. A thread that changes its name or its control group is another
/// `Task` from then on.
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
    /// The control group that it was in, where that is known.
    pub group: Option<ControlGroup>,
}

impl Task {
    /// A thread of which only the thread id is known.
    #[must_use]
    pub fn unknown(tid: Tid) -> Task {
        let name = format!("tid {tid}");
        let kind = ThreadKind::Unknown;
        Task { tid, since: HostNs(0), process: None, kind, name, group: None }
    }

    /// What it is grouped by.
    #[must_use]
    pub fn task_group(&self) -> TaskGroup {
        match self.kind {
            ThreadKind::Vcpu { vm, .. } | ThreadKind::Vmm { vm } => TaskGroup::Vm(vm),
            ThreadKind::Collector => TaskGroup::Collector,
            ThreadKind::OtherVslice { pid } => TaskGroup::OtherVslice { pid },
            ThreadKind::Kernel => TaskGroup::Kernel,
            ThreadKind::Host | ThreadKind::Unknown => {
                self.group.map_or(TaskGroup::Unknown, TaskGroup::Control)
            }
        }
    }
}

/// A task compared by its kind, its group and its name only: two tasks that agree in these are equal.
#[derive(Debug, Clone)]
pub struct Namesake(pub Arc<Task>);

impl Namesake {
    fn key(&self) -> (ThreadKind, TaskGroup, &str) {
        (self.0.kind, self.0.task_group(), &self.0.name)
    }
}

impl PartialEq for Namesake {
    fn eq(&self, other: &Namesake) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Namesake {}

impl PartialOrd for Namesake {
    fn partial_cmp(&self, other: &Namesake) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Namesake {
    fn cmp(&self, other: &Namesake) -> Ordering {
        self.key().cmp(&other.key())
    }
}
