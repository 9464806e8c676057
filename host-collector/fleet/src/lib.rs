//! Runs of many hosts as tables of Parquet, which engines read that exist already.
//!
//! ```text
//! DIR/requests/host=kvm7/day=2026-11-30/<run>.0.parquet
//!     vcpu_waits/ ran_instead/ timeslices/ lock_waits/ vcpus/ runs/      the same
//! ```
//!
//! ```text
//! observer   is told of a run by the one analysis, and tells the tables: requests, waits, lock_waits, runs
//! table      rows that are gathered cell by cell, and written as a row group when there are enough
//! schema     the columns of each table; schema.md lists them
//! place      which host and day a run is of
//! ```
//!
//! No table holds the run in memory: what is gathered, and what a file's end has to repeat, is bounded.
#![forbid(unsafe_code)]

mod cells;
mod lock_waits;
mod names;
mod observer;
mod place;
mod requests;
mod runs;
pub mod schema;
pub mod table;
mod waits;

pub use observer::{FleetError, FleetTables, Written};
