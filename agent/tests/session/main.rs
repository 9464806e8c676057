//! The agent as a process on this machine, at a Unix socket.
//!
//! ```text
//! conversation   with a collector that behaves
//! bad_luck       with collectors that do not, and with plans that cannot run
//! observing      what the kernel here does with its disks, observed
//! hidden         what the kernel here hides from perf
//! no_room        what an agent that does not come to it could not see of a loop device
//! ```

mod bad_luck;
mod collector;
mod conversation;
mod hidden;
mod no_room;
mod observing;
