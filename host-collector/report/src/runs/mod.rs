//! The runs in a folder: where they are, which is the latest, and what each came to.

mod find;
mod list;
pub mod text;

pub use find::{Found, find, is_run, what_it_is};
pub use list::list;

use crate::summary::model::RunStatus;
use serde::Serialize;

/// The schema of the JSON; `schema.md` beside this file has every key.
pub const SCHEMA: &str = "vslice.runs/1";

/// The runs of a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Runs {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The folder, as it was named.
    pub folder: String,
    /// Why there may be more runs than these, as a sentence without its end; `None` if there are not.
    pub incomplete: Option<String>,
    /// What each run came to, the latest last.
    pub runs: Vec<Run>,
}

/// One run of a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Where it is, below the folder.
    pub path: String,
    /// When its `run.json` was last written, in seconds since 1970; `None` if that is not known.
    pub written_s: Option<u64>,
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// It came to its planned end.
    Complete(Figures),
    /// It ended before that.
    Partial {
        /// Why, as a sentence.
        reason: String,
        /// What it came to until then.
        #[serde(flatten)]
        figures: Figures,
    },
    /// There is no report of it.
    Unreadable {
        /// Why not, as a sentence.
        reason: String,
    },
}

/// The figures of a run that tell it from others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// The name of the plan.
    pub plan: String,
    /// The VMs whose vCPUs were watched, in order of their names.
    pub vms: Vec<String>,
    /// Requests recorded.
    pub requests: u64,
    /// The median latency; `None` without latencies.
    pub p50_ns: Option<u64>,
    /// The 99th percentile; `None` without latencies.
    pub p99_ns: Option<u64>,
    /// What the slow requests waited for most; `None` where it is not known.
    pub first_cause: Option<FirstCause>,
}

/// What the requests slower than the 99th percentile waited for most; without such, all of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FirstCause {
    /// The cause, as a report calls it.
    pub label: String,
    /// Its share of their latency, in [0, 1].
    pub share: f64,
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
