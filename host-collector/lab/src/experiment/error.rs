//! Why an experiment did not come to its end.

use crate::disk::DiskError;
use crate::plan::PlanError;
use crate::run::RunError;
use std::io;
use std::path::PathBuf;
use vslice_host::scratch::ScratchError;
use vslice_trace::StoreError;

/// Why an experiment did not come to its end.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message")]
pub enum ExperimentError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{} belongs to another experiment, or to something else", path.display())]
    Other { path: PathBuf },
    #[error("another vslice is writing {}", path.display())]
    InUse { path: PathBuf },
    #[error("{} was started with another {what}: its runs would not be comparable with new ones", path.display())]
    MadeWith { path: PathBuf, what: &'static str },
    #[error("cannot create the directory {}: {source}; use `--output DIR` to choose another one", path.display())]
    NoDirectory { path: PathBuf, source: io::Error },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("none of its conditions is available here")]
    NothingPossible,
    #[error("interrupted; the same command with --output {} resumes it", path.display())]
    Interrupted { path: PathBuf },
}
