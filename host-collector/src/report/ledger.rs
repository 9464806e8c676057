//! Who ran for how long: totals by key, in bounded memory.

use std::collections::BTreeMap;

/// Nanoseconds by key. Beyond `keys_max` keys whatever is added to a new one is only counted as
/// others, so nobody who invents keys makes this grow.
#[derive(Debug, Clone)]
pub(super) struct Ledger<K> {
    totals_ns: BTreeMap<K, u64>,
    keys_max: usize,
    others_ns: u64,
}

impl<K: Ord + Copy> Ledger<K> {
    pub(super) fn new(keys_max: usize) -> Self {
        Ledger { totals_ns: BTreeMap::new(), keys_max, others_ns: 0 }
    }

    pub(super) fn add(&mut self, key: K, length_ns: u64) {
        if let Some(total_ns) = self.totals_ns.get_mut(&key) {
            *total_ns = total_ns.saturating_add(length_ns);
        } else if self.totals_ns.len() < self.keys_max {
            self.totals_ns.insert(key, length_ns);
        } else {
            self.others_ns = self.others_ns.saturating_add(length_ns);
        }
    }

    pub(super) fn add_all(&mut self, other: &Ledger<K>) {
        for (key, total_ns) in &other.totals_ns {
            self.add(*key, *total_ns);
        }
        self.others_ns = self.others_ns.saturating_add(other.others_ns);
    }

    /// The `count` longest, and what is left beside them. Equals come in the order of their keys.
    pub(super) fn longest(&self, count: usize) -> (Vec<(K, u64)>, u64) {
        let mut rows: Vec<(K, u64)> =
            self.totals_ns.iter().map(|(key, total_ns)| (*key, *total_ns)).collect();
        rows.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(&right.0)));
        let cut = rows.split_off(count.min(rows.len()));
        let others_ns = cut.iter().fold(self.others_ns, |sum_ns, row| sum_ns.saturating_add(row.1));
        (rows, others_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_new_keys_are_others_and_nothing_is_lost() {
        let mut ledger = Ledger::new(2);
        for (key, length_ns) in [('a', 5), ('b', 7), ('c', 11), ('a', 1), ('d', 2)] {
            ledger.add(key, length_ns);
        }
        assert_eq!(ledger.longest(8), (vec![('b', 7), ('a', 6)], 13));
        assert_eq!(ledger.longest(1), (vec![('b', 7)], 19));
    }

    #[test]
    fn a_merge_keeps_the_total() {
        let mut left = Ledger::new(1);
        left.add(1, 10);
        let mut right = Ledger::new(1);
        right.add(2, 20);
        right.add(3, 30);
        left.add_all(&right);
        assert_eq!(left.longest(8), (vec![(1, 10)], 50));
    }
}
