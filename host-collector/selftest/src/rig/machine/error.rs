//! What can keep a machine from running.

use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use vslice_host::pin::PinError;
use vslice_host::qmp::QmpError;
use vslice_host::scratch::ScratchError;
use vslice_host::threads::ThreadsError;
use vslice_lab::disk::DiskError;
use vslice_lab::process::ProcessError;

/// Why a machine does not run.
#[derive(Debug, Error)]
pub enum MachineError {
    /// See [`ScratchError`].
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// See [`DiskError`].
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The guest cannot be put on its disk.
    #[error("cannot write the boot sector to {path}: {source}")]
    BootSector {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// See [`ProcessError`]; QEMU's last words are in it.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// See [`ThreadsError`].
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// QEMU's threads are not those that were expected.
    #[error("{title} has no thread for its {role}, only {found}")]
    NoThread {
        /// The machine.
        title: String,
        /// What is missing.
        role: &'static str,
        /// The names that there are.
        found: String,
    },
    /// See [`PinError`].
    #[error(transparent)]
    Pin(#[from] PinError),
    /// QMP.
    #[error("{title} does not answer: {source}")]
    Monitor {
        /// The machine.
        title: String,
        /// Why.
        source: QmpError,
    },
    /// What QEMU says of its guest's memory.
    #[error("{title} returned '{answer}' for the word at {address:#x}, which is not a number")]
    Word {
        /// The machine.
        title: String,
        /// Where.
        address: u16,
        /// What it says.
        answer: String,
    },
    /// The guest does not count.
    #[error(
        "{title} did not start counting within {} s (counter {counter}, failed reads {error_count}); \
        QEMU's last message: {last_words}",
        limit.as_secs()
    )]
    NotRunning {
        /// The machine.
        title: String,
        /// How long it had.
        limit: Duration,
        /// Its counter.
        counter: u32,
        /// How many reads failed in it.
        error_count: u32,
        /// The last line that QEMU printed, or what there is instead.
        last_words: String,
    },
}
