//! What is said of one thing that a run needs.

use serde::{Deserialize, Serialize};

/// The status of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything is available.
    Ok,
    /// A run is possible, but slower or with less evidence.
    Degraded,
    /// A run is not possible.
    Missing,
}

/// One thing that a run needs, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The subject, in a word or two.
    pub name: String,
    /// Its status.
    pub status: Status,
    /// What was found.
    pub seen: String,
    /// What to do, unless the status is [`Status::Ok`].
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(name: &str, seen: impl Into<String>) -> Finding {
        Finding { name: name.into(), status: Status::Ok, seen: seen.into(), advice: None }
    }

    pub(super) fn degraded(
        name: &str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let advice = Some(advice.into());
        Finding { name: name.into(), status: Status::Degraded, seen: seen.into(), advice }
    }

    pub(super) fn missing(
        name: &str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let advice = Some(advice.into());
        Finding { name: name.into(), status: Status::Missing, seen: seen.into(), advice }
    }
}
