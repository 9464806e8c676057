//! Lays requests over timelines: what was the host doing to the vCPU while a request was under way?
//!
//! Pure and streaming: requests and spans come in order of time, breakdowns go out.
//!
//! ```text
//! requests, as they completed --> order --.
//!                                         v
//! spans of the vCPU's thread ---------> stream (Join) --> Breakdown*
//! ```

pub mod breakdown;
pub mod chain;
#[cfg(test)]
mod laws;
pub mod order;
pub mod stream;

pub use breakdown::{Attribution, Breakdown, Part, PartsNs};
pub use chain::{CHAIN_SPANS_MAX, Chain, Link, StaySplit};
pub use order::SubmissionOrder;
pub use stream::Join;
