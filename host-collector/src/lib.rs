//! The host side of vslice, as a library: recording, clocks, timelines, the join and the report.
//!
//! Data flows one way: [`perf`] (or, without its rights, [`sampling`]) and [`guest`] record into a [`store`]d run directory; [`timeline`],
//! [`clock`], [`join`] and [`report`] are pure functions of what was recorded. [`lab`] and [`vmm`]
//! start guests and find their threads; [`run`] puts everything together, and [`compare`] sets runs of two
//! conditions against each other.

pub mod experiment;
pub mod guest;
pub mod lab;
pub mod perf;
pub mod ps;
pub mod rig;
pub mod run;
pub mod sampling;
pub mod selftest;
