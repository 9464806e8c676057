//! What a workload is asked for, and what follows from that alone.
//!
//! Guest and host share this: the agent runs what a [`WorkloadSpec`] says, and the collector knows from
//! the same value which block each request read. It is pure: no I/O, no clock.
//!
//! ```text
//! workload   what to run, as a value, and which values make no sense
//! offsets    where each read of a reader goes
//! split_mix  numbers that look random and are the same in every run
//! duration   durations as people write them
//! quantity   durations, counts and shares as people read them
//! ```
#![forbid(unsafe_code)]

pub mod duration;
pub mod offsets;
pub mod quantity;
pub mod split_mix;
pub mod workload;

pub use workload::{
    ClockChoice, Engine, ObserveSpec, Pattern, ReaderSpec, SpecError, WorkloadSpec,
};
