//! The runs in a folder: where they are, which is the latest, and the result of each.

pub mod at;
mod find;
mod list;
pub mod text;

pub use find::{Found, find, is_run, what_it_is};
pub use list::list;

use crate::analyse::manifest_of;
use crate::summary::model::RunStatus;
use serde::Serialize;
use std::path::Path;
use vslice_core::text::harmless;
use vslice_trace::RunDir;

/// The schema of the JSON; `schema.md` beside this file has every key.
pub const SCHEMA: &str = "vslice.runs/1";

/// The runs of a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Runs {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The folder, as it was named.
    pub folder: String,
    /// Why there may be more runs than these, as a sentence without its full stop; `None` if there are no
    /// more.
    pub incomplete: Option<String>,
    /// The result of each run, the latest last.
    pub runs: Vec<Run>,
}

/// One run of a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Where it is, below the folder.
    pub path: String,
    /// When its `run.json` was last written, in seconds since 1970; `None` if that is not known.
    pub written_s: Option<u64>,
    /// The size of its files; `None` if they cannot be looked at.
    pub bytes: Option<u64>,
    /// Its result.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// It reached its planned end.
    Complete(Figures),
    /// It ended early.
    Partial {
        /// Why, as a sentence.
        reason: String,
        /// Its figures until then.
        #[serde(flatten)]
        figures: Figures,
    },
    /// There is no report of it.
    Unreadable {
        /// Why not, as a sentence.
        reason: String,
    },
}

/// The main figures of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// The name of the plan.
    pub plan: String,
    /// The VMs whose vCPUs were recorded, in order of their names.
    pub vms: Vec<String>,
    /// Requests recorded.
    pub requests: u64,
    /// The median latency; `None` without latencies.
    pub p50_ns: Option<u64>,
    /// The 99th percentile; `None` without latencies.
    pub p99_ns: Option<u64>,
    /// What the slow requests waited for most; `None` if it is unknown.
    pub first_cause: Option<FirstCause>,
}

/// What requests slower than the 99th percentile waited for most, or all requests if none is slower.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FirstCause {
    /// The cause, as a report calls it.
    pub label: String,
    /// Its share of their latency, in [0, 1].
    pub share: f64,
}

/// The names of a run's VMs, as far as a terminal may be sent them; none if its manifest cannot be read.
#[must_use]
pub fn vms(run: &Path) -> Vec<String> {
    let manifest = RunDir::open(run).ok().and_then(|run| manifest_of(&run).ok());
    let names = manifest.into_iter().flat_map(|manifest| manifest.vms).map(|vm| vm.name);
    names.filter(|name| harmless(name) == *name).collect()
}

impl Outcome {
    fn new(status: RunStatus, figures: Figures) -> Outcome {
        match status {
            RunStatus::Complete => Outcome::Complete(figures),
            RunStatus::Partial { reason } => Outcome::Partial { reason, figures },
        }
    }
}

#[cfg(test)]
mod example;
#[cfg(test)]
mod schema_tests;
