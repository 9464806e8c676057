//! What each watched thread was doing at every instant. Pure: events in, spans out.
//!
//! ```text
//! HostEvent* --> Timeline (builder) --> Span*, LockWait*, Exit*
//!                  |-- thread       one thread's state machine
//!                  |-- antagonist   who ran where a thread waited
//!                  |-- tasks        what the host's threads are called at the time
//!                  |-- last_seen    how a thread came onto a pCPU
//!                  |-- stack        what a kernel stack proves
//!                  |-- futex        what a futex's address and arguments prove
//!                  |-- exits        exits from the guest and from KVM, exit_reason their names
//!                  |-- lock         who let go of a lock
//!                  |-- behaviour    which lock is the big one, by who waits for whom (before all else)
//!                  |-- halt_poll    when the host was busy for a guest that was idle
//!                  `-- classify     all of that --> reason: why a thread left its pCPU
//! ```

mod antagonist;
pub mod behaviour;
pub mod builder;
pub mod classify;
pub mod contradiction;
#[cfg(test)]
mod drawing;
#[cfg(test)]
mod evidence_tests;
pub mod exit_reason;
mod exits;
pub mod futex;
mod halt_poll;
mod last_seen;
#[cfg(test)]
mod laws;
mod lock;
mod reason;
pub mod span;
pub mod stack;
pub mod tasks;
mod thread;

pub use antagonist::{ANTAGONISTS_MAX, Credits};
pub use behaviour::{FoundLock, LockBehaviour, LockSearch};
pub use builder::{Timeline, Watched};
pub use contradiction::{Contradiction, ContradictionKind, Contradictions};
pub use exit_reason::{ExitReason, HardwareExit, UserspaceExit};
pub use exits::{Exit, ExitTime};
pub use futex::{GuestMode, LockFacts, Vmm};
pub use lock::{LockUser, LockWait};
pub use reason::Reason;
pub use span::{
    Antagonist, Covers, DeviceAddress, RunMode, Sleep, Span, ThreadState, UnknownCause, Who,
};
pub use stack::StackTable;
pub use tasks::{Arrival, Tasks};
