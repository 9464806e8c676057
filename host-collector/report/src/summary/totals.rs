//! Sums by part and by class of requests, and shares of them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vslice_core::join::{Part, PartsNs};

/// One value for each class of requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByClass<T> {
    /// Every request.
    pub all: T,
    /// Those slower than `latency_ns.p99`.
    pub p99: T,
    /// Those slower than `latency_ns.p999`.
    pub p999: T,
}

/// Nanoseconds by part; every part is there, also when it is 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartTotals(BTreeMap<Part, u64>);

impl PartTotals {
    /// Nanoseconds in `part`.
    #[must_use]
    pub fn get(&self, part: Part) -> u64 {
        self.0.get(&part).copied().unwrap_or(0)
    }

    /// Adds nanoseconds to `part`. Stays at 584 years, which only a lying guest can reach.
    pub fn add(&mut self, part: Part, length_ns: u64) {
        let total_ns = self.0.entry(part).or_insert(0);
        *total_ns = total_ns.saturating_add(length_ns);
    }

    /// The sum over all parts.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        sum(self.0.values().copied())
    }
}

impl Default for PartTotals {
    fn default() -> Self {
        PartTotals(Part::ALL.into_iter().map(|part| (part, 0)).collect())
    }
}

impl From<&PartsNs> for PartTotals {
    fn from(parts: &PartsNs) -> Self {
        PartTotals(Part::ALL.into_iter().map(|part| (part, parts.get(part))).collect())
    }
}

/// The sum; it stays at 584 years of nanoseconds, which only a lying guest reaches.
#[must_use]
pub(super) fn sum(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::saturating_add)
}

/// `part / whole` rounded to four decimals; 0 if `whole` is 0.
#[must_use]
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { round_4(part as f64 / whole as f64) }
}

/// Rounded to four decimals: few enough digits that every JSON parser reads the same number back.
#[must_use]
pub(crate) fn round_4(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
