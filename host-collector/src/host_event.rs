//! What the host's scheduler was seen to do: the events that are recorded, stored and analysed.

use crate::units::{HostNs, PcpuId, Tid};

/// One recorded event. The events of one pCPU are in order of `time`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEvent {
    /// When it happened; of a loss, when the loss began.
    pub time: HostNs,
    /// The pCPU on which it was recorded.
    pub pcpu: PcpuId,
    /// What happened.
    pub kind: HostEventKind,
}

/// An index into the run's table of kernel stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub u32);

/// What a [`HostEvent`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEventKind {
    /// `sched_switch`: `prev` left the pCPU and `next` came on.
    Switch {
        /// The thread that left.
        prev: Tid,
        /// The state in which it left.
        prev_state: PrevState,
        /// The thread that came on.
        next: Tid,
        /// The kernel stack of `prev`, where it was asked for.
        stack: Option<StackId>,
    },
    /// `sched_waking`: `waker`, running here, wakes `tid`.
    Waking {
        /// The thread that becomes runnable.
        tid: Tid,
        /// The pCPU that it last ran on; the scheduler may choose another one after this event.
        target: PcpuId,
        /// The current task of the recording pCPU; in an interrupt that is whoever was interrupted.
        waker: Tid,
    },
    /// A thread's name, once when it is first seen and again whenever it changes.
    Comm {
        /// The thread.
        tid: Tid,
        /// Its name, at most 15 bytes, control characters replaced.
        comm: String,
    },
    /// A thread was born.
    Fork {
        /// Its process (thread group) id.
        pid: Tid,
        /// Its thread id.
        tid: Tid,
        /// The process that created it.
        parent_pid: Tid,
    },
    /// A thread ended.
    Exit {
        /// The thread.
        tid: Tid,
    },
    /// Events were lost on this pCPU between `time` and `until`.
    Lost {
        /// The end of the interval: the first moment at which recording was known to work again.
        until: HostNs,
        /// How many records the kernel says it dropped.
        count: u64,
    },
}

/// The state in which a thread left its pCPU, from `prev_state` of `sched_switch`
/// (`include/trace/events/sched.h`, `__trace_sched_switch_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrevState {
    /// `R`: still runnable, it gave way at a scheduling point.
    Runnable,
    /// `R+`: still runnable, preempted inside the kernel.
    RunnablePreempted,
    /// `S`: interruptible sleep.
    Sleep,
    /// `D`: uninterruptible sleep.
    DiskSleep,
    /// `T` or `t`: stopped or traced.
    Stopped,
    /// `X` or `Z`: it has ended.
    Dead,
    /// Any other state (`I`, `P`, ...), by the kernel's bit.
    Other(u16),
}

impl PrevState {
    /// Whether the thread was still runnable: it was preempted or gave way, it did not block.
    #[must_use]
    pub fn is_runnable(self) -> bool {
        matches!(self, PrevState::Runnable | PrevState::RunnablePreempted)
    }
}
