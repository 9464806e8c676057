//! What each watched thread was doing at every instant. Pure: events in, spans out.
//!
//! ```text
//! HostEvent* --> Timeline (builder) --> Span*
//!                   |-- thread       one thread's state machine
//!                   |-- antagonist   who ran where a thread waited
//!                   `-- classify     kernel stack --> why it blocked
//! ```

mod antagonist;
pub mod builder;
pub mod classify;
pub mod contradiction;
#[cfg(test)]
mod drawing;
#[cfg(test)]
mod laws;
pub mod span;
mod thread;

pub use antagonist::ANTAGONISTS_MAX;
pub use builder::Timeline;
pub use classify::StackTable;
pub use contradiction::{Contradiction, ContradictionKind, Contradictions};
pub use span::{Antagonist, BlockReason, Span, ThreadState, UnknownCause};
