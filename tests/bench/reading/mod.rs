//! What the guest's reader costs by itself, and how fast it reads, beside fio: with every request recorded.
//!
//! ```text
//! task     what is done in turn: requests without a read, pread, io_uring
//! reader   vslice's reader, with someone who takes its records as the agent does
//! fio      the same by fio, which keeps no record of a request unless it is asked to
//! rounds   one after the other, who is first in turn
//! table    the result, for people and for programs
//! ```
//!
//! Both read the same file, one right after the other: what a disk can do changes from minute to minute,
//! and only the ratio of neighbours says something of the reader.

mod fio;
mod reader;
pub(crate) mod rounds;
pub(crate) mod table;
pub(crate) mod task;

pub(crate) use fio::{missing, of_json};
use std::path::PathBuf;

/// What is read.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Read {
    /// Instead: what the guest's reader costs, and how fast it reads, beside fio.
    #[arg(long, conflicts_with = "observing")]
    pub(crate) reading: bool,
    /// The file or block device that is read, for --reading; a file in /var/tmp, if none is named.
    #[arg(long, value_name = "FILE")]
    pub(crate) target: Option<PathBuf>,
}
