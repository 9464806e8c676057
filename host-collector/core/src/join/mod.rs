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
//!
//! Observed requests take the same way, but for two: in order of queueing (`queue_order.rs`), and by a join of
//! their own (`observed.rs`), as each of them waits for up to three vCPUs.

/// Requests of one vCPU that are open at a time at most.
///
/// More than any agent has in flight. A guest whose requests overlap more than that is lying; those
/// that come while so many are open are given up, so that neither memory nor time per span grows.
pub const OPEN_REQUESTS_MAX: usize = 8192;

pub mod asked;
pub mod breakdown;
pub mod chain;
mod flushes;
pub mod guest_request;
mod history;
#[cfg(test)]
mod io_truth;
mod ios;
mod laid;
mod lane;
#[cfg(test)]
mod laws;
mod matching;
pub mod observed;
#[cfg(test)]
mod observed_io;
#[cfg(test)]
mod observed_laws;
#[cfg(test)]
mod observed_truth;
pub mod order;
pub mod part;
pub mod phase;
#[cfg(test)]
mod phase_laws;
pub mod placed;
pub mod queue_order;
mod recent_spans;
pub(crate) mod sectors;
#[cfg(test)]
mod steering_laws;
pub mod stream;
mod sync_calls;
pub mod target;
pub mod uncertainty;
#[cfg(test)]
mod uncertainty_laws;
mod under_way;
mod waits;
mod windows;

pub use asked::Coverage;
pub use breakdown::{Attribution, Breakdown, IoCheck, PhaseVcpus};
pub use chain::{CHAIN_SPANS_MAX, Chain, Link, ModeSplit};
pub use guest_request::GuestRequest;
pub use ios::Submitter;
pub use observed::{OBSERVED_PENDING_MAX, ObservedDisk, ObservedJoin};
pub use order::SubmissionOrder;
pub use part::{Part, PartsNs};
pub use phase::{IoMarks, NoPhase, Phase, PhaseParts, RequestIo};
pub use placed::{Bounds, Clocks, Placed, Unplaced};
pub use queue_order::{Ordered, QueueOrder, Told};
pub use stream::Join;
pub use sync_calls::SyncCall;
pub use target::{HostAccess, Image, Target};
pub use uncertainty::ClockError;
pub use waits::{WAITS_MAX, Waits};
