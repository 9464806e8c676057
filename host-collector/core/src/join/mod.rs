//! Lays requests over timelines: what was the host doing to the vCPU while a request was under way?
//!
//! Pure and streaming: requests and spans come in order of time, breakdowns go out.
//!
//! ```text
//! requests, as they completed --> order --> placed --.
//!                                                   v
//! spans of the vCPU's thread --> history ------> stream (Join) --> Breakdown*
//!                                                   ^
//! I/O of the VM's disk --------> ios ----------> matching, phase
//!                                                   ^
//! requests as the host may have seen them ----> windows
//! ```

/// Requests of one vCPU that are open at a time at most.
///
/// More than any agent has in flight. A guest whose requests overlap more than that is lying; those
/// that come while so many are open are given up, so that neither memory nor time per span grows.
pub const OPEN_REQUESTS_MAX: usize = 8192;

pub mod breakdown;
pub mod chain;
mod history;
#[cfg(test)]
mod io_truth;
mod ios;
mod lane;
#[cfg(test)]
mod laws;
mod matching;
pub mod order;
pub mod part;
pub mod phase;
#[cfg(test)]
mod phase_laws;
pub mod placed;
mod sectors;
pub mod stream;
pub mod target;
pub mod uncertainty;
#[cfg(test)]
mod uncertainty_laws;
mod under_way;
mod waits;
mod windows;

pub use breakdown::{Attribution, Breakdown, IoCheck};
pub use chain::{CHAIN_SPANS_MAX, Chain, Link, ModeSplit};
pub use ios::Submitter;
pub use order::SubmissionOrder;
pub use part::{Part, PartsNs};
pub use phase::{IoMarks, NoPhase, Phase, PhaseParts, RequestIo};
pub use placed::{Clocks, Placed, Unplaced};
pub use stream::Join;
pub use target::{HostAccess, Target};
pub use uncertainty::ClockError;
pub use waits::{WAITS_MAX, Waits};
