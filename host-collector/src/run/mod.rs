//! One run of a plan: guests up, recording on, workload through, everything down again.
//!
//! [`prepare`] and [`Prepared::conduct`] make the run and leave a run directory; [`analyse()`] makes
//! a summary of one, from nothing but what is in it.

pub mod attach;
pub mod census;
pub mod conduct;
mod disk_notes;
pub mod error;
pub mod event_writers;
pub mod evidence;
mod guest_record;
mod leftovers;
mod lock_facts;
mod measurement;
mod observer;
mod options;
pub(crate) mod quota;
mod reserve;
mod seat;
mod seats;
mod sink;
mod stage;
mod tsc_watch;
mod uninterrupted;
pub mod watch;

use std::path::Path;
use vslice_core::text::sentence;
use vslice_trace::manifest::{Manifest, Status};
use vslice_trace::{RunDir, StoreError};

pub use attach::{AttachOptions, Attachment, Casting, Load, NotMeasured};
pub use conduct::{Prepared, prepare};
pub use error::RunError;
pub use evidence::EvidenceSetting;
pub use options::RunOptions;

/// The directory of a new run.
fn new_directory(output: &Path) -> Result<RunDir, RunError> {
    RunDir::create(output).map_err(|source| match source {
        StoreError::Io { .. } => RunError::Output { source },
        other => other.into(),
    })
}

/// Writes the last word of a run into its directory: how it ended, which is returned.
fn close(
    dir: &RunDir,
    manifest: &mut Manifest,
    result: Result<(), RunError>,
) -> Result<(), RunError> {
    manifest.status = match &result {
        Ok(()) => Status::Complete,
        Err(error) => Status::Partial { why: sentence(error) },
    };
    reserve::release(dir);
    manifest.cost.written_bytes = dir.streams_bytes().unwrap_or(0);
    // What the manifest calls complete is on the disk by then, also if the host dies in the next moment.
    let written = dir.sync_streams().and_then(|()| dir.write_json("run.json", manifest));
    result?;
    Ok(written?)
}
