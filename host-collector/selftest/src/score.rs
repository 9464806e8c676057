//! How often vslice is right. Pure.

use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use vslice_core::timeline::Reason;
use vslice_report::summary::OffReason;

/// A confusion matrix, and what it leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Score {
    /// Departures by what was injected and what vslice concluded.
    #[serde(serialize_with = "cells")]
    counts: BTreeMap<(Reason, Reason), u64>,
    /// Departures in the windows whose cause nobody injected, by what vslice concluded.
    pub not_injected: BTreeMap<Reason, u64>,
    /// Departures in the windows of which the witness cannot tell the cause; they are in no cell.
    #[serde(rename = "unsaid_count")]
    pub undecided_count: u64,
    /// Time off the pCPU in the windows, labelled or not; with it counts time in which records were
    /// lost, so that it is not known whether the thread was off.
    pub off_ns: u64,
    /// Of it, time for which vslice knows no reason.
    pub unknown_ns: u64,
    /// Departures that vslice says were waits for the big lock.
    pub bql_count: u64,
    /// Of them, those whose address is not the lock's.
    pub bql_unproven_count: u64,
}

/// Rows of `{injected, concluded, count}`: JSON has no pairs as keys.
fn cells<S: Serializer>(
    counts: &BTreeMap<(Reason, Reason), u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Cell {
        injected: Reason,
        #[serde(rename = "said")]
        concluded: Reason,
        count: u64,
    }
    let cell = |((injected, concluded), count): (&(Reason, Reason), &u64)| Cell {
        injected: *injected,
        concluded: *concluded,
        count: *count,
    };
    serializer.collect_seq(counts.iter().map(cell))
}

impl Score {
    /// A departure that was caused by `injected` and of which vslice concluded `concluded`.
    pub fn add(&mut self, injected: Reason, concluded: Reason) {
        *self.counts.entry((injected, concluded)).or_default() += 1;
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Score) {
        for (cell, count) in &other.counts {
            *self.counts.entry(*cell).or_default() += count;
        }
        for (concluded, count) in &other.not_injected {
            *self.not_injected.entry(*concluded).or_default() += count;
        }
        self.undecided_count += other.undecided_count;
        self.off_ns += other.off_ns;
        self.unknown_ns += other.unknown_ns;
        self.bql_count += other.bql_count;
        self.bql_unproven_count += other.bql_unproven_count;
    }

    /// How often `injected` was called `concluded`.
    #[must_use]
    pub fn count(&self, injected: Reason, concluded: Reason) -> u64 {
        self.counts.get(&(injected, concluded)).copied().unwrap_or(0)
    }

    /// How often a reason was injected.
    #[must_use]
    pub fn injected(&self, reason: Reason) -> u64 {
        self.sum(|injected, _| injected == reason)
    }

    /// How often vslice concluded it.
    #[must_use]
    pub fn concluded(&self, reason: Reason) -> u64 {
        self.sum(|_, concluded| concluded == reason)
    }

    fn sum(&self, wanted: impl Fn(Reason, Reason) -> bool) -> u64 {
        let counts =
            self.counts.iter().filter(|((injected, concluded), _)| wanted(*injected, *concluded));
        counts.map(|(_, count)| count).sum()
    }

    /// Of the departures that vslice gives this reason, the share that had it; `None` if there is
    /// none.
    #[must_use]
    pub fn precision(&self, reason: Reason) -> Option<f64> {
        ratio(self.count(reason, reason), self.concluded(reason))
    }

    /// Of the departures that had this reason, the share that vslice gives it; `None` if there is
    /// none.
    #[must_use]
    pub fn recall(&self, reason: Reason) -> Option<f64> {
        ratio(self.count(reason, reason), self.injected(reason))
    }

    /// The share of the time off the pCPU for which vslice knows no reason.
    #[must_use]
    pub fn unknown_share(&self) -> f64 {
        ratio(self.unknown_ns, self.off_ns).unwrap_or(0.0)
    }

    /// The reasons that were injected, in order.
    #[must_use]
    pub fn injected_reasons(&self) -> Vec<Reason> {
        self.reasons(|(injected, _)| *injected)
    }

    /// The reasons that vslice concluded, in order.
    #[must_use]
    pub fn concluded_reasons(&self) -> Vec<Reason> {
        self.reasons(|(_, concluded)| *concluded)
    }

    fn reasons(&self, which: impl Fn(&(Reason, Reason)) -> Reason) -> Vec<Reason> {
        self.counts.keys().map(which).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The same of the precision and the recall of one reason; none of one that was not injected.
    #[must_use]
    pub fn rate_shortfalls(&self, reason: Reason) -> Vec<String> {
        if self.injected(reason) == 0 {
            return Vec::new();
        }
        let label = OffReason::Left(reason).label();
        let rates = [("precision", self.precision(reason)), ("recall", self.recall(reason))];
        // Injected and never concluded is a recall of 0, with no precision to speak of.
        let rates = rates.map(|(what, value)| (what, value.unwrap_or(0.0)));
        let short = rates.into_iter().filter(|(_, value)| *value < RATE_MIN);
        short.map(|(what, value)| format!("{label}: {what} {value:.4}, below {RATE_MIN}")).collect()
    }

    /// What falls short of what vslice promises, as sentences; none if all is well.
    #[must_use]
    pub fn shortfalls(&self) -> Vec<String> {
        let mut shortfalls = Vec::new();
        for reason in self.injected_reasons() {
            shortfalls.extend(self.rate_shortfalls(reason));
        }
        let unknown = self.unknown_share();
        if unknown > UNKNOWN_SHARE_MAX {
            let (percent, limit) = (unknown * 100.0, UNKNOWN_SHARE_MAX * 100.0);
            shortfalls.push(format!(
                "{percent:.2} % of the off-CPU time has no known reason, more than \
                {limit} %"
            ));
        }
        if self.bql_unproven_count > 0 {
            let count = self.bql_unproven_count;
            shortfalls
                .push(format!("{count} waits for the big lock have the address of another lock"));
        }
        shortfalls
    }
}

/// Precision and recall that vslice promises for each reason.
pub const RATE_MIN: f64 = 0.99;

/// The share of the time off a pCPU that may be unknown.
pub const UNKNOWN_SHARE_MAX: f64 = 0.01;

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(cells: &[(Reason, Reason, u64)]) -> Score {
        let mut score = Score { off_ns: 1000, ..Score::default() };
        for (injected, concluded, count) in cells {
            (0..*count).for_each(|_| score.add(*injected, *concluded));
        }
        score
    }

    #[test]
    fn precision_looks_down_a_column_and_recall_along_a_row() {
        let score = score(&[
            (Reason::Bql, Reason::Bql, 98),
            (Reason::Bql, Reason::QemuLock, 2),
            (Reason::QemuLock, Reason::QemuLock, 6),
            (Reason::Halt, Reason::Bql, 2),
        ]);
        assert_eq!(score.recall(Reason::Bql), Some(0.98));
        assert_eq!(score.precision(Reason::Bql), Some(0.98));
        assert_eq!(score.precision(Reason::QemuLock), Some(0.75));
        assert_eq!(score.recall(Reason::QemuLock), Some(1.0));
        assert_eq!((score.recall(Reason::Yield), score.precision(Reason::Yield)), (None, None));
        let sentences = score.shortfalls().join("; ");
        assert!(sentences.contains("BQL: precision 0.98"), "{sentences}");
        assert!(sentences.contains("halt: recall 0.0000"), "{sentences}");
    }

    #[test]
    fn a_score_that_holds_has_no_shortfall() {
        let good = score(&[(Reason::Halt, Reason::Halt, 99), (Reason::Halt, Reason::Unknown, 1)]);
        assert_eq!(good.shortfalls(), Vec::<String>::new());
        let unknown = Score { unknown_ns: 11, ..good.clone() };
        assert_eq!(
            unknown.shortfalls(),
            ["1.10 % of the off-CPU time has no known reason, more than 1 \
            %"]
        );
        let unproven = Score { bql_unproven_count: 1, ..good };
        assert_eq!(unproven.shortfalls().len(), 1);
    }

    #[test]
    fn scores_add_up() {
        let mut sum = score(&[(Reason::Halt, Reason::Halt, 2)]);
        sum.merge(&score(&[(Reason::Halt, Reason::Halt, 1), (Reason::Bql, Reason::Halt, 1)]));
        assert_eq!(
            (sum.injected(Reason::Halt), sum.concluded(Reason::Halt), sum.off_ns),
            (3, 4, 2000)
        );
        let json = serde_json::to_value(&sum).unwrap();
        assert_eq!(json["counts"][0]["injected"], "bql");
    }
}
