//! What observing a block request costs whoever makes it, and whoever records it: the agent, perf and
//! trace-cmd in turn, with the same tracepoints, on this machine or in a guest.
//!
//! ```text
//! load     a thread that reads a block device without pause, and what a read took
//! rivals   the agent, perf and trace-cmd: started, stopped, and what they recorded
//! agent    a collector for the agent, which only counts
//! rounds   rivals between windows of nothing, forwards and backwards in turn
//! table    the result
//! ```
//!
//! A disk that answers at once shows the most: `null_blk` in a guest, which completes a request where it
//! is issued; and a loop device on memory where there is no such module, which hands it to a kernel
//! thread.

pub(crate) mod agent;
mod load;
pub(crate) mod rivals;
pub(crate) mod rounds;
pub(crate) mod table;

use std::path::PathBuf;

/// What is observed, and by which agent.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Observed {
    /// Instead: what observing a block request costs in a guest, or here.
    #[arg(long, conflicts_with = "json")]
    pub(crate) observing: bool,
    /// The block device that is read, for --observing; a loop device on memory, if none is named.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<PathBuf>,
    /// The agent, for --observing.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/vslice-agent"))]
    pub(crate) agent: PathBuf,
}
