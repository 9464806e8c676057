//! An experiment: a plan run again and again under conditions that differ in one thing each, in turn.
//!
//! ```text
//! matrix    which conditions, and in what order         (pure)
//! offer     which of them QEMU has
//! emission  each of them for QEMU and libvirt
//! record    what it is and what became of it          (pure)
//! directory where that is kept, and each run
//! conduct   the runs, one after the other, resumable
//! ```
//!
//! What it leaves is a directory with a run directory for each run, `CELL/run-N`, and
//! `experiment.json`, which says of every cell why it was not run or what became of its runs.

pub mod conduct;
mod directory;
mod emission;
mod error;
pub mod matrix;
pub mod offer;
pub mod overview;
pub mod record;

pub use conduct::{Conductor, ExperimentOptions, look};
pub use error::ExperimentError;
pub use matrix::{Cell, Matrix, alternating};
pub use record::{CellRecord, CellState, Experiment, RunRecord};
