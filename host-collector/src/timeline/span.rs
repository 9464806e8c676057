//! The values that a timeline is made of.

use crate::host_event::StackId;
use crate::units::{HostNs, PcpuId, Tid};

/// One stay of one thread in one state. The spans of a thread follow each other without a gap.
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
    /// [`ANTAGONISTS_MAX`](super::ANTAGONISTS_MAX); empty unless the thread was runnable. What they
    /// ran adds up to at most the length of the span, and to exactly that where every switch of the
    /// pCPU was recorded and all of them fit.
    pub antagonists: Vec<Antagonist>,
}

impl Span {
    /// The length of the span.
    #[must_use]
    pub fn length_ns(&self) -> u64 {
        self.end.since_ns(self.start)
    }
}

/// Somebody who ran where a thread waited to run; [`Tid::IDLE`] where nobody did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Antagonist {
    /// Who ran.
    pub tid: Tid,
    /// For how long within the span.
    pub ran_ns: u64,
}

/// What a thread was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadState {
    /// On a pCPU: one timeslice.
    Running {
        /// Which one.
        pcpu: PcpuId,
    },
    /// Off, not runnable, until somebody woke it.
    Blocked {
        /// What it waited for.
        reason: BlockReason,
        /// Where in the kernel it went to sleep.
        stack: Option<StackId>,
        /// Who woke it, where the waking was seen.
        waker: Option<Tid>,
    },
    /// Woken and runnable, but not yet on a pCPU.
    WakeupDelay {
        /// The pCPU that it was woken for.
        pcpu: PcpuId,
    },
    /// Runnable, but somebody else was given the pCPU.
    PreemptWait {
        /// The pCPU that it was taken from.
        pcpu: PcpuId,
        /// Where in the kernel it gave way.
        stack: Option<StackId>,
    },
    /// Not known, and not guessed.
    Unknown {
        /// Why it is not known.
        cause: UnknownCause,
    },
}

/// Why a thread blocked. A first cut: the kernel stack is kept with every span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockReason {
    /// Asleep in `futex_wait`: a lock or a condition of the VMM.
    Futex,
    /// The guest is idle: asleep in `kvm_vcpu_block`.
    Halt,
    /// Asleep somewhere else; the stack says where.
    Other,
    /// Asleep, but no stack was recorded.
    Unknown,
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
}
