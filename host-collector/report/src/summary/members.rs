//! Counts distinct threads and processes in bounded memory.

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use vslice_core::units::{HostNs, Tid};

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// How many are known.
    pub count: u64,
    /// False if there may be more.
    pub is_exact: bool,
}

/// One of them: its number, and since when it had it.
pub(super) type Member = (Tid, HostNs);

/// How many more may be told apart, by all that share it.
#[derive(Debug, Clone)]
pub(super) struct Budget(pub(super) usize);

/// Distinct members, as far as the budget goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Roll {
    distinct: FxHashSet<Member>,
    is_short: bool,
}

impl Roll {
    /// Adds one. The first one is free, so that nothing that is there counts as 0.
    pub(super) fn add(&mut self, member: Member, budget: &mut Budget) {
        if self.distinct.contains(&member) {
            return;
        }
        if self.distinct.is_empty() {
            self.distinct.insert(member);
        } else if budget.0 > 0 {
            budget.0 -= 1;
            self.distinct.insert(member);
        } else {
            self.is_short = true;
        }
    }

    /// There are more, and it is not known how many.
    pub(super) fn and_more(&mut self) {
        self.is_short = true;
    }

    /// Gives back what it took of the budget.
    pub(super) fn release(&self, budget: &mut Budget) {
        budget.0 += self.distinct.len().saturating_sub(1);
    }

    pub(super) fn count(&self) -> Members {
        let count = self.distinct.len() as u64;
        Members { count, is_exact: !self.is_short }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_exact_as_far_as_the_budget_goes_and_then_at_least() {
        let mut budget = Budget(2);
        let (mut one, mut other) = (Roll::default(), Roll::default());
        let member = |number| (Tid(number), HostNs(0));
        for number in [1, 2, 3, 2, 1] {
            one.add(member(number), &mut budget);
        }
        assert_eq!(one.count(), Members { count: 3, is_exact: true });
        other.add(member(7), &mut budget);
        assert_eq!(other.count(), Members { count: 1, is_exact: true }, "the first is free");
        other.add(member(8), &mut budget);
        assert_eq!(other.count(), Members { count: 1, is_exact: false });
        one.release(&mut budget);
        other.add((Tid(7), HostNs(5)), &mut budget);
        assert_eq!(other.count().count, 2, "the number was used again");
    }
}
