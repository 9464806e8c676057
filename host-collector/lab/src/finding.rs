//! What is said of one thing that a run needs.

use serde::{Deserialize, Serialize};

/// How good a thing is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As good as it gets.
    Ok,
    /// A run is possible, by a slower or poorer way.
    Degraded,
    /// No run is possible.
    Missing,
}

/// One thing that a run needs, and how this host stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about, in a word or two.
    pub name: String,
    /// How good it is.
    pub status: Status,
    /// What was seen.
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
