//! What the percentiles would be without a cause.
//!
//! The parts of a request are exact, so each request can be thought of without one of them: its latency less that
//! part. Percentiles of what is left, taken anew, say what could be gained by taking the cause away. That bounds
//! what a request can gain by itself, and is no forecast: whatever takes the cause's place makes the gain smaller. That
//! others which waited in a queue behind it would have been served earlier is not in it.
//!
//! Only requests that could be attributed to causes are moved. The others stay as they were, and their number is told.
//!
//! No request is kept. A cause has, by the buckets of the histogram that the percentiles are from, how many requests
//! left a bucket and how many came to it; whoever did not have the cause stays where it is and costs nothing.

mod moves;
mod taken;
#[cfg(test)]
mod tests;

pub(super) use moves::{GroupRoom, WhatIfTally};

use super::causes::Kind;
use super::group::GroupKind;
use super::model::LatencyNs;
use serde::{Deserialize, Serialize};

/// Rows of [`WhatIf::antagonist_groups`] at most.
pub const GROUPS_MAX: usize = 8;

/// What the percentiles of some requests would be without a cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatIf {
    /// Requests that could be attributed to causes, and so can be thought of without one.
    pub attributed: u64,
    /// Requests that stay as they were, as they could not.
    pub unattributed: u64,
    /// Without each kind of cause that took time, the largest total first. Their `taken_ns` add up to the
    /// `latency_ns` of the class of all.
    pub causes: Vec<WithoutCause>,
    /// Without I/O inactivity; `None` if no request's phases are known.
    pub inactivity: Option<Without>,
    /// Without each group of antagonists, at most [`GROUPS_MAX`], the largest total first.
    pub antagonist_groups: Vec<WithoutGroup>,
    /// What all others took: groups that have no row, and who is not told apart.
    pub other_groups_ns: u64,
}

/// Percentiles in nanoseconds. `None` is one that is unknown, as it lies among requests that were only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: Option<u64>,
    /// The 99th percentile.
    pub p99: Option<u64>,
    /// The 99.9th percentile.
    pub p999: Option<u64>,
}

impl From<&LatencyNs> for Percentiles {
    fn from(latency_ns: &LatencyNs) -> Percentiles {
        let LatencyNs { p50, p99, p999, .. } = *latency_ns;
        Percentiles { p50, p99, p999 }
    }
}

impl Percentiles {
    /// All of them, in order.
    #[must_use]
    pub fn all(&self) -> [Option<u64>; 3] {
        [self.p50, self.p99, self.p999]
    }
}

/// What is left without something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Without {
    /// Requests that had it.
    pub requests: u64,
    /// What it took of all of them, in nanoseconds.
    pub taken_ns: u64,
    /// The percentiles that are left.
    pub latency_ns: Percentiles,
    /// The lowest that clock errors, unknown states, unknown phases and, of a group, unknown names could make of them.
    pub low_ns: Percentiles,
    /// The highest that these could make of them.
    pub high_ns: Percentiles,
}

/// What is left without a kind of cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithoutCause {
    /// The kind.
    pub cause: Kind,
    /// What is left.
    #[serde(flatten)]
    pub without: Without,
}

/// What is left without a group of antagonists: without the waits for a pCPU in which it ran there. While it ran no
/// other could, so without it another may have taken its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithoutGroup {
    /// What its members have in common. A VM that itself waited is `own_vm` only if no other did.
    pub kind: GroupKind,
    /// What it is called.
    pub name: String,
    /// The path of its control group, where it is one and that is known.
    pub path: Option<String>,
    /// What is left. A group's time counts as far as its requests' vCPUs waited in phases in which that is a cause.
    #[serde(flatten)]
    pub without: Without,
}
