//! What the block requests of a guest's kernel were, from its tracepoints.
//!
//! ```text
//! event      what a tracepoint said, as a value
//! matching   from these to requests                           (pure)
//! source     these events, from the kernel; disks and tasks
//! clock      what stamps them
//! clock_cost what it costs to stamp them
//! error      why a guest cannot be observed
//! ```
#![forbid(unsafe_code)]

pub mod clock;
pub mod clock_cost;
pub mod error;
pub mod event;
pub mod matching;
pub mod source;

pub use error::ObserveError;
pub use event::{BlockTrace, BlockTraceKind, Rwbs};
pub use matching::{Counts, Limits, Matching};
pub use source::{Pass, Source};
