//! Lays requests over timelines: what was the host doing to the vCPU while a request was under way?
//!
//! Pure and streaming: requests and spans come in order of time, breakdowns go out.
//!
//! ```text
//! requests, as they completed --> order --.
//!                                         v
//! spans of the vCPU's thread ---------> stream (Join) --> Breakdown*
//!                                         ^
//! I/O of the VM's disk --> ios ------> matching, phase
//! ```

pub mod breakdown;
pub mod chain;
mod ios;
#[cfg(test)]
mod laws;
mod matching;
pub mod order;
pub mod phase;
#[cfg(test)]
mod phase_laws;
pub mod stream;
pub mod target;

pub use breakdown::{Attribution, Breakdown, Part, PartsNs};
pub use chain::{CHAIN_SPANS_MAX, Chain, Link, StaySplit};
pub use ios::Submitter;
pub use order::SubmissionOrder;
pub use phase::{IoMarks, NoPhase, Phase, PhaseParts};
pub use stream::Join;
pub use target::{HostAccess, Target};
