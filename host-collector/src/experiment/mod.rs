//! An experiment: a plan run again and again under conditions that differ in one thing each, in turn.
//!
//! ```text
//! matrix    which conditions, and in what order         (pure)
//! offer     which of them QEMU has
//! emission  each of them for QEMU and libvirt
//! conduct   the runs, one after the other, resumable
//! ```
//!
//! What it leaves is a directory with a run directory for each run, `CELL/run-N`, and
//! `experiment.json`, which says of every cell why it was not run or what became of its runs.

pub mod conduct;
mod emission;
mod error;
pub mod matrix;
pub mod offer;
pub mod overview;

pub use conduct::{CellRecord, CellState, Experiment, ExperimentOptions, RunRecord};
pub use error::ExperimentError;
pub use matrix::{Cell, Matrix, alternating};
