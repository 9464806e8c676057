//! The block requests that agents observed in their guests: by device and operation, by process, the slowest.
//!
//! They have latencies, parts, phases and classes as the requests of the reader have them, for each device
//! and operation apart. Somebody waits for an operation or nobody does, as the kernel itself tells them apart
//! (`op_is_sync`): a write that is written back later is another thing to a user than one that `fsync` is
//! waiting for, and so has a row of its own.

pub(super) mod answer;
mod laws;
pub mod model;
mod operation;
mod process;
mod reader;
mod tally;
mod under_way;
mod warn;

pub(super) use answer::is_of_reader;
pub use answer::subject;
pub use model::Observed;
pub(super) use operation::OfGuest;
pub use process::Tasks;
pub use reader::ReadPlaces;
pub use tally::Observation;
pub(super) use tally::{ObservedTally, device_name};
pub(super) use warn::warnings;

#[cfg(any(test, feature = "example"))]
pub mod example;
#[cfg(test)]
mod tests;
