//! The values that a timeline is made of.

use super::reason::Reason;
use crate::host_event::StackId;
use crate::task::Task;
use crate::units::{HostNs, PcpuId, Tid};
use std::sync::Arc;

/// One thread in one state from one time to another. The spans of a thread follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The thread.
    pub tid: Tid,
    /// When it entered the state.
    pub start: HostNs,
    /// When it left the state; never before `start`.
    pub end: HostNs,
    /// The state.
    pub state: ThreadState,
    /// Who ran on the pCPU while the thread waited for it, the longest first and at most
    /// [`ANTAGONISTS_MAX`](super::ANTAGONISTS_MAX) rows, then [`Who::Idle`] and [`Who::Others`];
    /// empty unless the thread [waited for a pCPU](ThreadState::waits_for). What they ran adds up to at
    /// most the length of the span, and to exactly that where every switch of the pCPU was recorded.
    pub antagonists: Vec<Antagonist>,
}

impl Span {
    /// The length of the span.
    #[must_use]
    pub fn length_ns(&self) -> u64 {
        self.end.since_ns(self.start)
    }

    /// The part of it from `start` to `end`, which lie within it.
    ///
    /// Where in the span each of the antagonists ran is not kept, so each gets its share of what is left:
    /// the difference of two sums that are cut to whole nanoseconds, so that all of them together get what
    /// their sum gets, and none is off by more than one.
    #[must_use]
    pub fn clipped(&self, start: HostNs, end: HostNs) -> Span {
        let (length_ns, clipped_ns) = (self.length_ns(), end.since_ns(start));
        if clipped_ns == length_ns {
            return self.clone();
        }
        let scaled = |ran_ns: u64| {
            let scaled = u128::from(ran_ns) * u128::from(clipped_ns) / u128::from(length_ns.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let mut before_ns = 0_u64;
        let clipped = |antagonist: &Antagonist| {
            let until_ns = before_ns.saturating_add(antagonist.ran_ns);
            let ran_ns = scaled(until_ns) - scaled(std::mem::replace(&mut before_ns, until_ns));
            Antagonist { ran_ns, ..antagonist.clone() }
        };
        let antagonists = self.antagonists.iter().map(clipped);
        let antagonists = antagonists.filter(|ran| ran.ran_ns > 0).collect();
        Span { tid: self.tid, start, end, state: self.state, antagonists }
    }
}

/// Somebody who ran where a thread waited to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Antagonist {
    /// Who ran.
    pub who: Who,
    /// For how long within the span.
    pub ran_ns: u64,
    /// Who else is in it.
    pub covers: Covers,
}

/// Which threads what is told of an antagonist covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Covers {
    /// That one thread.
    Thread,
    /// Also others of the same kind, group and name, which have no row of their own.
    Name,
    /// Also others of the same group with any names, which have no row of their own.
    Group,
}

impl Antagonist {
    /// Somebody who ran for so long.
    #[must_use]
    pub fn new(who: Who, ran_ns: u64) -> Antagonist {
        Antagonist { who, ran_ns, covers: Covers::Thread }
    }
}

/// Who was on a pCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Nobody: it was idle.
    Idle,
    /// A thread under the name that it had then.
    Thread(Arc<Task>),
    /// Threads that are not told apart.
    Others,
}

impl Who {
    /// The thread id, or that of the idle task; `None` for others.
    #[must_use]
    pub fn tid(&self) -> Option<Tid> {
        match self {
            Who::Idle => Some(Tid::IDLE),
            Who::Thread(task) => Some(task.tid),
            Who::Others => None,
        }
    }
}

/// What a thread was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadState {
    /// On a pCPU. A timeslice is one such span, or several in a row that differ in their mode.
    Running {
        /// Which one.
        pcpu: PcpuId,
        /// In whose code it was.
        mode: RunMode,
    },
    /// Off, not runnable, until somebody woke it.
    Blocked(Sleep),
    /// Woken and runnable, but not yet on a pCPU.
    WakeupDelay {
        /// The pCPU that it last ran on, and was woken for if the scheduler did not choose another.
        pcpu: PcpuId,
        /// The sleep that it had begun when it was woken already: it left for this, but the sleep
        /// itself lasted no time.
        raced: Option<Sleep>,
    },
    /// Runnable, but another thread was given the pCPU.
    PreemptWait {
        /// The pCPU that it was taken from.
        pcpu: PcpuId,
        /// Why it was.
        reason: Reason,
        /// Where in the kernel it gave way.
        stack: Option<StackId>,
        /// The lock that it was about to sleep on when it was woken.
        lock: Option<u64>,
    },
    /// Not known, and not guessed.
    Unknown {
        /// Why it is not known.
        cause: UnknownCause,
    },
}

impl ThreadState {
    /// The pCPU that the thread waits for, if it could run there at once. One whose control group has
    /// used up its quota could not, whoever runs there meanwhile.
    #[must_use]
    pub fn waits_for(&self) -> Option<PcpuId> {
        match self {
            ThreadState::PreemptWait { reason: Reason::Throttle, .. }
            | ThreadState::Running { .. }
            | ThreadState::Blocked(_)
            | ThreadState::Unknown { .. } => None,
            ThreadState::PreemptWait { pcpu, .. } | ThreadState::WakeupDelay { pcpu, .. } => {
                Some(*pcpu)
            }
        }
    }
}

/// In whose code a thread on a pCPU was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunMode {
    /// Entries into the guest and exits from it were not recorded.
    Unsplit,
    /// In the guest.
    Guest,
    /// In KVM, from a guest's exit until the VMM is asked or the guest is entered again.
    Kvm,
    /// In KVM, for a guest that is halted: it polls whether the guest has to run again.
    HaltPoll,
    /// In the VMM's userspace; the way back through KVM to the guest's next entry is counted here.
    Vmm,
}

/// A sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleep {
    /// What it waited for.
    pub reason: Reason,
    /// Where in the kernel it went to sleep.
    pub stack: Option<StackId>,
    /// Who woke it, where the waking was seen.
    pub waker: Option<Tid>,
    /// The address of the lock, if it is one and was recorded.
    pub lock: Option<u64>,
    /// The device that the guest had touched, if that is why the VMM ran and it was recorded.
    pub device: Option<DeviceAddress>,
}

impl Sleep {
    /// A sleep of which only the reason is known.
    #[must_use]
    pub fn new(reason: Reason) -> Sleep {
        Sleep { reason, stack: None, waker: None, lock: None, device: None }
    }
}

/// Where a guest touched a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceAddress {
    /// A port.
    Port(u16),
    /// A guest-physical address.
    Memory(u64),
}

/// Why nothing is known of a thread for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnknownCause {
    /// No event tells of it: before the thread's first one, or after its last one where only a next
    /// one could have told.
    NotYetSeen,
    /// Records were lost, or one is proven to be missing by events that contradict each other.
    Lost,
    /// The thread has ended.
    Ended,
    /// It is not known which thread it would be of. No timeline has it; it stands for the vCPU of a request that may
    /// have been any.
    UnknownThread,
}
