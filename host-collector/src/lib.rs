//! The host side of vslice, as a library: recording, clocks, timelines, the join and the report.
//!
//! Data flows one way: [`perf`] and [`guest`] record into a [`store`]d run directory; [`timeline`],
//! [`clock`], [`join`] and [`report`] are pure functions of what was recorded.

pub mod clock;
pub mod join;
pub mod perf;
pub mod sched;
pub mod store;
pub mod timeline;
pub mod units;
