//! The agent as a process on this machine, at a Unix socket.
//!
//! ```text
//! conversation   with a collector that behaves
//! bad_luck       with collectors that do not, and with plans that cannot run
//! ```

mod bad_luck;
mod collector;
mod conversation;
