//! Who ran for how long: totals by key and bucket, in bounded memory.
//!
//! The heaviest keys have a row, as in space-saving (Metwally, Agrawal, El Abbadi, ICDT 2005) and its
//! mirror image, Misra and Gries' summary; which keys lose their row goes by the latter, as Anderson et
//! al. do it ("A high-performance algorithm for identifying frequent items in data streams", IMC 2017):
//! where there is no room, the median of the weights is taken off all of them, and whoever has none left
//! goes. What is told of a key is not an estimate but what it was seen to have since it has its row:
//! exact by bucket, never too much, and it adds up. What it may have had before is its error.
//!
//! With `floor` all that was taken off so far, no key has had more than its weight and `floor`. So
//!
//! - a key without a row has had at most `floor`, and that is its error when it gets one;
//! - half of the weights were at least what was taken off, so `floor` is at most all that was added,
//!   divided by half of the keys that had a row: whoever has had more has one.

use super::members::{Budget, Roll};
use super::model::Members;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use vslice_core::task::Task;

/// What there is room for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Keys that are told apart.
    pub(super) keys: usize,
    /// Totals by key and bucket. A key may have one in each bucket; so few keys as a summary lists must
    /// find room whatever their number.
    pub(super) cells: usize,
    /// Threads and processes that are counted one by one.
    pub(super) members: usize,
}

/// Nanoseconds by key and bucket.
#[derive(Debug, Clone)]
pub(super) struct Ledger<K> {
    room: Room,
    rows: BTreeMap<K, Row>,
    cells_count: usize,
    budget: Budget,
    floor_ns: u64,
    /// By bucket, all that was added.
    total_ns: FxHashMap<u64, u64>,
    /// By bucket, what was added without a key.
    keyless_ns: FxHashMap<u64, u64>,
}

#[derive(Debug, Clone)]
struct Row {
    /// What was not taken off yet of all that it has had.
    weight_ns: u64,
    /// What it may have had before it had this row.
    error_ns: u64,
    by_bucket_ns: FxHashMap<u64, u64>,
    threads: Roll,
    processes: Roll,
    /// Whoever had most at once.
    example: Arc<Task>,
    example_ns: u64,
}

/// What a ledger tells of one key in some buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Figures<'a, K> {
    pub(super) key: &'a K,
    pub(super) ran_ns: u64,
    /// How much more it may be; that is in the others' time.
    pub(super) error_ns: u64,
    /// How many threads and processes have this key, in all buckets.
    pub(super) threads: Members,
    pub(super) processes: Members,
    /// One of them.
    pub(super) example: &'a Arc<Task>,
}

impl<K: Ord + Clone> Ledger<K> {
    pub(super) fn new(room: Room) -> Self {
        Ledger {
            room,
            rows: BTreeMap::new(),
            cells_count: 0,
            budget: Budget(room.members),
            floor_ns: 0,
            total_ns: FxHashMap::default(),
            keyless_ns: FxHashMap::default(),
        }
    }

    /// A task of this key ran for some time. `is_several` says that others of the key ran in it too.
    pub(super) fn add(
        &mut self,
        key: &K,
        bucket: u64,
        task: &Arc<Task>,
        (ran_ns, is_several): (u64, bool),
    ) {
        add_to(&mut self.total_ns, bucket, ran_ns);
        let is_new = self.rows.get(key).is_none_or(|row| !row.by_bucket_ns.contains_key(&bucket));
        if is_new {
            self.make_room();
            self.cells_count += 1;
        }
        let row = self.rows.entry(key.clone()).or_insert_with(|| Row {
            weight_ns: 0,
            error_ns: self.floor_ns,
            by_bucket_ns: FxHashMap::default(),
            threads: Roll::default(),
            processes: Roll::default(),
            example: Arc::clone(task),
            example_ns: 0,
        });
        row.weight_ns = row.weight_ns.saturating_add(ran_ns);
        add_to(&mut row.by_bucket_ns, bucket, ran_ns);
        if ran_ns > row.example_ns {
            (row.example, row.example_ns) = (Arc::clone(task), ran_ns);
        }
        row.threads.add((task.tid, task.since), &mut self.budget);
        match task.process {
            Some(process) => row.processes.add((process.pid, process.since), &mut self.budget),
            None => row.processes.and_more(),
        }
        if is_several {
            row.threads.and_more();
            row.processes.and_more();
        }
    }

    /// Some that are not told apart ran for some time.
    pub(super) fn add_keyless(&mut self, bucket: u64, ran_ns: u64) {
        add_to(&mut self.total_ns, bucket, ran_ns);
        add_to(&mut self.keyless_ns, bucket, ran_ns);
    }

    fn make_room(&mut self) {
        while self.rows.len() > 1
            && (self.rows.len() >= self.room.keys || self.cells_count >= self.room.cells)
        {
            let mut weights_ns: Vec<u64> = self.rows.values().map(|row| row.weight_ns).collect();
            let (_, median_ns, _) = weights_ns.select_nth_unstable((self.rows.len() - 1) / 2);
            let median_ns = *median_ns;
            self.floor_ns = self.floor_ns.saturating_add(median_ns);
            let (cells_count, budget) = (&mut self.cells_count, &mut self.budget);
            self.rows.retain(|_, row| {
                row.weight_ns = row.weight_ns.saturating_sub(median_ns);
                if row.weight_ns == 0 {
                    *cells_count -= row.by_bucket_ns.len();
                    row.threads.release(budget);
                    row.processes.release(budget);
                }
                row.weight_ns > 0
            });
        }
    }

    /// The keys with most in these buckets, the longest first; equals come in the order of their keys.
    pub(super) fn longest(&self, count: usize, buckets: (Bound<u64>, Bound<u64>)) -> Vec<&K> {
        let mut rows: Vec<(u64, &K)> =
            self.rows.iter().map(|(key, row)| (sum(&row.by_bucket_ns, buckets), key)).collect();
        rows.retain(|(ran_ns, _)| *ran_ns > 0);
        rows.sort_by_key(|(ran_ns, key)| (Reverse(*ran_ns), *key));
        rows.truncate(count);
        rows.into_iter().map(|(_, key)| key).collect()
    }

    /// What these keys had in these buckets, the longest first, and what all others had.
    pub(super) fn figures<'a>(
        &'a self,
        keys: &[&K],
        buckets: (Bound<u64>, Bound<u64>),
    ) -> (Vec<Figures<'a, K>>, u64) {
        let all_ns = sum(&self.total_ns, buckets);
        let keyless_ns = sum(&self.keyless_ns, buckets);
        let with_row = self.rows.values().map(|row| sum(&row.by_bucket_ns, buckets));
        let with_row_ns = with_row.fold(keyless_ns, u64::saturating_add);
        let gone_ns = all_ns.saturating_sub(with_row_ns);
        let rows = keys.iter().filter_map(|key| self.rows.get_key_value(key));
        let figures = rows.map(|(key, row)| Figures {
            key,
            ran_ns: sum(&row.by_bucket_ns, buckets),
            error_ns: row.error_ns.min(gone_ns).saturating_add(keyless_ns),
            threads: row.threads.count(),
            processes: row.processes.count(),
            example: &row.example,
        });
        let mut figures: Vec<_> = figures.collect();
        figures.sort_by(|one, next| next.ran_ns.cmp(&one.ran_ns).then(one.key.cmp(next.key)));
        let listed_ns =
            figures.iter().fold(0, |sum_ns: u64, row| sum_ns.saturating_add(row.ran_ns));
        (figures, all_ns.saturating_sub(listed_ns))
    }
}

fn add_to(totals_ns: &mut FxHashMap<u64, u64>, bucket: u64, length_ns: u64) {
    let total_ns = totals_ns.entry(bucket).or_insert(0);
    *total_ns = total_ns.saturating_add(length_ns);
}

fn sum(by_bucket_ns: &FxHashMap<u64, u64>, buckets: impl RangeBounds<u64>) -> u64 {
    let within = by_bucket_ns.iter().filter(|(bucket, _)| buckets.contains(bucket));
    within.fold(0, |sum_ns, (_, length_ns)| sum_ns.saturating_add(*length_ns))
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
