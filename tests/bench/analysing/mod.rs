//! The goals that vslice sets itself, in one table: what is measured of each, beside an older vslice and a rival.
//!
//! ```text
//! child      a program that runs to its end: how long it took, its CPU time, its most memory
//! recording  one load, recorded by vslice and, at the same time, by perf and trace-cmd
//! rounds     loads recorded in turn, then reports of them in turn with perf's
//! goal       rows: a goal, the older vslice, this one, the rival, and how they compare    (pure)
//! table      the rows, for people, for programs and for a document
//! ```
//!
//! Each vslice reports of what it has recorded itself, as its own format of a run directory is part of it.

pub(crate) mod child;
pub(crate) mod goal;
mod recording;
pub(crate) mod rounds;
pub(crate) mod table;

pub(crate) use recording::{Beside, missing};
use std::path::PathBuf;

/// What is analysed, and by whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Analysed {
    /// Instead: every goal in one table, the guest's reader among them.
    #[arg(long, conflicts_with_all = ["observing", "reading"])]
    pub(crate) goals: bool,
    /// The vslice that is measured, for --goals.
    #[arg(long, value_name = "FILE", default_value = "../target/dist/vslice")]
    pub(crate) vslice: PathBuf,
    /// Where an older vslice is, with its guest's reader: what tests/bench/parent prints.
    #[arg(long, value_name = "DIR")]
    pub(crate) parent: Option<PathBuf>,
    /// How much the guest of the load reads.
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(crate) total: String,
    /// How often the load is recorded by each vslice.
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub(crate) recordings: usize,
    /// The guests' image.
    #[arg(
        long,
        value_name = "DIR",
        env = "VSLICE_IMAGE",
        default_value = "../target/images/micro"
    )]
    pub(crate) image: PathBuf,
    /// Only analyse this run directory, with no rival and no older vslice: one that is larger.
    #[arg(long, value_name = "DIR", conflicts_with = "parent")]
    pub(crate) run: Option<PathBuf>,
    /// Write the table into this document, between its two comments.
    #[arg(long, value_name = "FILE")]
    pub(crate) document: Option<PathBuf>,
}
