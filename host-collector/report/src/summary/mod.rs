//! The summary of a run: the numbers, and the pages that show them.
//!
//! One model, many renderers. [`SummaryBuilder`] takes the spans of the vCPU threads and the
//! broken-down requests one by one and keeps no more of them than a bounded number of totals;
//! [`model::Summary`] is what is left at the end and what `summary.json` holds; [`text`] prints it.
//! Everything here is pure: no clock, file, environment variable or thread.

pub mod advice;
mod antagonists;
pub mod big_lock;
pub mod causes;
mod classes;
pub mod clock;
pub mod collect;
mod control_group;
pub mod distribution;
pub mod evidence;
mod exits;
pub mod group;
pub(crate) mod hindrance;
pub mod host_io;
pub mod io;
mod latency;
pub mod laws;
mod ledger;
mod locks;
mod members;
pub mod model;
pub mod names;
pub mod observed;
pub mod quota;
mod reason;
mod runners;
mod sampled;
pub mod selection;
mod sentence;
pub mod service;
pub mod stays;
pub mod text;
mod timeslice;
pub mod told;
pub mod totals;
mod unattributable;
pub mod verdict;
mod warn;
pub mod warning;
pub mod what_if;

pub use collect::{Facts, SummaryBuilder};
pub use model::Summary;
pub use names::{CommandLine, Names, ThreadKind, VmIndex, VmThreads};
pub use reason::OffReason;
pub use text::{Style, render, render_full};
pub use warning::Warning;

#[cfg(any(test, feature = "example"))]
pub mod example;
#[cfg(test)]
mod schema_tests;
