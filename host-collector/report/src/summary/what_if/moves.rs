//! Where requests go when a cause is taken away, by bucket.

use super::taken::{Groups, Taken, TakenOfRequest};
use super::{GROUPS_MAX, Percentiles, WhatIf, Without, WithoutCause, WithoutGroup};
use crate::summary::causes::Kind;
use crate::summary::distribution::Distribution;
use crate::summary::group::GroupKind;
use crate::summary::names::{Directory, VmIndex};
use crate::summary::runners::GroupKey;
use crate::summary::totals::sum;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use vslice_core::join::Breakdown;
use vslice_core::task::Task;

/// What there is room for.
#[derive(Debug, Clone, Copy)]
pub(in crate::summary) struct GroupRoom {
    /// Groups that are told apart, the first ones that ran.
    pub(in crate::summary) groups: usize,
    /// Buckets of all of them together; where they are more, the groups that took least go.
    pub(in crate::summary) cells: usize,
}

/// What a request's length becomes: as it was measured, the longest and the shortest that it may be.
const TOLD: usize = 0;
const HIGH: usize = 1;
const LOW: usize = 2;
const COLUMNS: usize = 3;

/// A length, and the bucket that holds it, by its lower edge.
#[derive(Debug, Clone, Copy)]
struct Length {
    ns: u64,
    bucket_ns: u64,
}

impl Length {
    fn of(ns: u64, lengths: &Distribution) -> Length {
        Length { ns, bucket_ns: lengths.bucket_ns(ns) }
    }

    fn less(self, taken_ns: u64, lengths: &Distribution) -> Length {
        if taken_ns == 0 { self } else { Length::of(self.ns.saturating_sub(taken_ns), lengths) }
    }
}

/// What becomes of requests when one thing is taken away.
#[derive(Debug, Clone)]
struct Moves {
    requests: u64,
    taken_ns: u64,
    /// By bucket how many came, less how many left.
    came: FxHashMap<u64, [i64; COLUMNS]>,
    /// The shortest that came.
    shortest_ns: [u64; COLUMNS],
}

impl Moves {
    fn new() -> Moves {
        let (came, shortest_ns) = (FxHashMap::default(), [u64::MAX; COLUMNS]);
        Moves { requests: 0, taken_ns: 0, came, shortest_ns }
    }

    /// Takes a request of this length. Most requests have nothing of most causes; of those nothing is kept.
    fn take(&mut self, lengths: &Distribution, length: Length, taken: Taken) {
        if taken == Taken::default() {
            return;
        }
        self.requests += u64::from(taken.told_ns > 0);
        self.taken_ns = self.taken_ns.saturating_add(taken.told_ns);
        let mut left = [0; COLUMNS];
        for (column, taken_ns) in
            [(TOLD, taken.told_ns), (HIGH, taken.least_ns), (LOW, taken.most_ns)]
        {
            let to = length.less(taken_ns, lengths);
            self.shortest_ns[column] = self.shortest_ns[column].min(to.ns);
            if to.bucket_ns != length.bucket_ns {
                self.came.entry(to.bucket_ns).or_default()[column] += 1;
                left[column] = 1;
            }
        }
        if left != [0; COLUMNS] {
            let came = self.came.entry(length.bucket_ns).or_default();
            came.iter_mut().zip(left).for_each(|(came, left)| *came -= left);
        }
    }

    fn shift(&mut self, column: usize, from: Length, to: Length) {
        self.shortest_ns[column] = self.shortest_ns[column].min(to.ns);
        if from.bucket_ns != to.bucket_ns {
            self.came.entry(from.bucket_ns).or_default()[column] -= 1;
            self.came.entry(to.bucket_ns).or_default()[column] += 1;
        }
    }

    /// What is left of these lengths and of so many shorter ones; `anyone` are further moves to the shortest that
    /// they may be.
    fn without(&self, anyone: Option<&Moves>, before: &Before<'_>) -> Without {
        let percentiles = |column| before.percentiles(column, &[Some(self), anyone]);
        Without {
            requests: self.requests,
            taken_ns: self.taken_ns,
            latency_ns: percentiles(TOLD),
            low_ns: percentiles(LOW),
            high_ns: percentiles(HIGH),
        }
    }
}

/// The lengths as they were.
struct Before<'a> {
    lengths: &'a Distribution,
    counts: BTreeMap<u64, u64>,
    /// How many shorter ones were only counted.
    shorter_count: u64,
}

impl Before<'_> {
    fn percentiles(&self, column: usize, moves: &[Option<&Moves>]) -> Percentiles {
        let (mut counts, mut shortest_ns) =
            (self.counts.clone(), self.lengths.min_ns().unwrap_or(0));
        for moves in moves.iter().flatten() {
            shortest_ns = shortest_ns.min(moves.shortest_ns[column]);
        }
        // First who comes: of two sets of moves one may undo what the other does.
        let came = || moves.iter().flatten().flat_map(|moves| &moves.came);
        for (bucket, came) in came().filter(|(_, came)| came[column] > 0) {
            *counts.entry(*bucket).or_insert(0) += came[column].unsigned_abs();
        }
        for (bucket, came) in came().filter(|(_, came)| came[column] < 0) {
            let count = counts.entry(*bucket).or_insert(0);
            *count = count.saturating_sub(came[column].unsigned_abs());
        }
        let quantile_ns = |millionths| {
            let lengths = self.lengths;
            lengths.moved_quantile_above_ns(&counts, shortest_ns, millionths, self.shorter_count)
        };
        Percentiles {
            p50: quantile_ns(500_000),
            p99: quantile_ns(990_000),
            p999: quantile_ns(999_000),
        }
    }
}

/// What becomes of requests when any one of several things is taken away.
#[derive(Debug)]
pub(in crate::summary) struct WhatIfTally {
    attributed: u64,
    phased: u64,
    causes: [Moves; Kind::ALL.len()],
    inactivity: Moves,
    groups: GroupMoves,
}

impl WhatIfTally {
    pub(in crate::summary) fn new(room: GroupRoom) -> WhatIfTally {
        WhatIfTally {
            attributed: 0,
            phased: 0,
            causes: Kind::ALL.map(|_| Moves::new()),
            inactivity: Moves::new(),
            groups: GroupMoves::new(room),
        }
    }

    /// Takes an attributed request of this VM, whose length is one of `lengths`.
    pub(in crate::summary) fn add(
        &mut self,
        vm: VmIndex,
        breakdown: &Breakdown,
        lengths: &Distribution,
    ) {
        let length = Length::of(breakdown.latency_ns(), lengths);
        let taken = TakenOfRequest::of(breakdown);
        self.attributed += 1;
        self.phased += u64::from(breakdown.io.is_ok());
        for (moves, taken) in self.causes.iter_mut().zip(taken.causes) {
            moves.take(lengths, length, taken);
        }
        self.inactivity.take(lengths, length, taken.inactivity);
        self.groups.add(vm, length, taken.groups, lengths);
    }

    /// What is left of these lengths, and of so many that were shorter; `None` if none of them could be attributed.
    pub(in crate::summary) fn finish(
        &self,
        lengths: &Distribution,
        shorter_count: u64,
        directory: &Directory<'_>,
    ) -> Option<WhatIf> {
        if self.attributed == 0 {
            return None;
        }
        let before = Before { lengths, counts: lengths.counts(), shorter_count };
        let causes = Kind::ALL.into_iter().zip(&self.causes);
        let causes = causes.filter(|(_, moves)| moves.taken_ns > 0);
        let mut causes: Vec<WithoutCause> = causes
            .map(|(cause, moves)| WithoutCause { cause, without: moves.without(None, &before) })
            .collect();
        causes.sort_by_key(|row| Reverse(row.without.taken_ns));
        let (antagonist_groups, other_groups_ns) = self.groups.finish(&before, directory);
        Some(WhatIf {
            attributed: self.attributed,
            unattributed: lengths.count().saturating_sub(self.attributed),
            causes,
            inactivity: (self.phased > 0).then(|| self.inactivity.without(None, &before)),
            antagonist_groups,
            other_groups_ns,
        })
    }
}

/// The same of groups of antagonists. A group has a row from its first request on, or none: what it took before is
/// not known by request.
#[derive(Debug)]
struct GroupMoves {
    room: GroupRoom,
    rows: BTreeMap<GroupKey, GroupRow>,
    cells_count: usize,
    /// Whether there was no room for one.
    is_full: bool,
    /// What has no row took.
    others_ns: u64,
    /// What becomes of requests if all that is not told apart of one was anyone's.
    anyone: Moves,
}

#[derive(Debug)]
struct GroupRow {
    moves: Moves,
    example: Arc<Task>,
    victim: VmIndex,
    has_more_victims: bool,
}

impl GroupMoves {
    fn new(room: GroupRoom) -> GroupMoves {
        GroupMoves {
            room,
            rows: BTreeMap::new(),
            cells_count: 0,
            is_full: false,
            others_ns: 0,
            anyone: Moves::new(),
        }
    }

    fn add(&mut self, vm: VmIndex, length: Length, groups: Groups, lengths: &Distribution) {
        let anyone = length.less(groups.anyone_most_ns, lengths);
        self.anyone.shift(LOW, length, anyone);
        self.others_ns = self.others_ns.saturating_add(groups.unnamed_ns);
        for (key, task, taken) in groups.rows {
            let is_known = self.rows.contains_key(&key);
            self.is_full |= self.rows.len() >= self.room.groups && !is_known;
            if self.is_full && !is_known {
                self.others_ns = self.others_ns.saturating_add(taken.told_ns);
                continue;
            }
            let row = self.rows.entry(key).or_insert_with(|| GroupRow {
                moves: Moves::new(),
                example: task,
                victim: vm,
                has_more_victims: false,
            });
            row.has_more_victims |= row.victim != vm;
            let cells_before = row.moves.came.len();
            row.moves.take(lengths, length, taken);
            // Of this request it is known who it was.
            row.moves.shift(LOW, anyone, length);
            self.cells_count += row.moves.came.len() - cells_before;
        }
        self.make_room();
    }

    /// The groups that took least go.
    fn make_room(&mut self) {
        while self.cells_count > self.room.cells && self.rows.len() > 1 {
            let least = self.rows.iter().min_by_key(|(_, row)| row.moves.taken_ns);
            let Some(least) = least.map(|(key, _)| key.clone()) else { return };
            let Some(gone) = self.rows.remove(&least) else { return };
            self.is_full = true;
            self.cells_count -= gone.moves.came.len();
            self.others_ns = self.others_ns.saturating_add(gone.moves.taken_ns);
        }
    }

    fn finish(&self, before: &Before<'_>, directory: &Directory<'_>) -> (Vec<WithoutGroup>, u64) {
        let took = self.rows.values().filter(|row| row.moves.taken_ns > 0);
        let mut rows: Vec<&GroupRow> = took.collect();
        rows.sort_by_key(|row| Reverse(row.moves.taken_ns));
        let (told, others) = rows.split_at(rows.len().min(GROUPS_MAX));
        let others_ns = sum(others.iter().map(|row| row.moves.taken_ns).chain([self.others_ns]));
        let told = told.iter().map(|row| {
            let group = directory.group(&row.example, row.victim);
            let kind = match group.kind {
                GroupKind::OwnVm if row.has_more_victims => GroupKind::OtherVm,
                kind => kind,
            };
            let without = row.moves.without(Some(&self.anyone), before);
            WithoutGroup { kind, name: group.name, path: group.path, without }
        });
        (told.collect(), others_ns)
    }
}

#[cfg(test)]
impl WhatIfTally {
    /// Buckets that are kept, of all that may be taken away.
    pub(super) fn cells_count(&self) -> usize {
        let causes = self.causes.iter().map(|moves| moves.came.len()).sum::<usize>();
        let groups = self.groups_cells_count();
        causes + groups + self.groups.anyone.came.len() + self.inactivity.came.len()
    }

    /// Those of the groups.
    pub(super) fn groups_cells_count(&self) -> usize {
        let groups = self.groups.rows.values().map(|row| row.moves.came.len()).sum::<usize>();
        assert_eq!(groups, self.groups.cells_count);
        groups
    }
}
