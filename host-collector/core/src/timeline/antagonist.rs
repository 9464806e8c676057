//! Who ran on a pCPU while a thread waited for it.

use super::span::{Antagonist, Covers, Who};
use crate::task::{Namesake, Task, TaskGroup};
use crate::units::{HostNs, Tid};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many antagonists one wait distinguishes at most.
///
/// A wait that sees more (a loop of short processes) has one row for all threads of a name; where there
/// are too many names still, the shortest ones of a group have one row together. Only if there are too many
/// groups it keeps the longest that it can, and the time of the others is credited to [`Who::Others`]. So
/// nothing is lost and no `ran_ns` is ever too large.
pub const ANTAGONISTS_MAX: usize = 32;

/// Who ran for how long at which location, with a bounded number of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credits<Location> {
    rows_max: usize,
    rows: Vec<Row<Location>>,
    /// Whether those of one name have one row.
    is_folded: bool,
    idle_ns: u64,
    others_ns: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row<Location> {
    location: Location,
    task: Arc<Task>,
    ran_ns: u64,
    covers: Covers,
}

impl<Location: Copy + Eq> Row<Location> {
    fn is_alike(&self, other: &Row<Location>) -> bool {
        let is_group = |row: &Row<Location>| row.covers == Covers::Group;
        if is_group(self) || is_group(other) {
            return is_group(self) && is_group(other) && self.is_beside(other);
        }
        let name = |row: &Row<Location>| Namesake(Arc::clone(&row.task));
        self.location == other.location && name(self) == name(other)
    }

    /// Whether it is of the same group at the same location.
    fn is_beside(&self, other: &Row<Location>) -> bool {
        self.location == other.location && self.task.task_group() == other.task.task_group()
    }

    /// Takes what other threads ran, and covers at least as much as this.
    fn take(&mut self, other: &Row<Location>, covers: Covers) {
        self.ran_ns = self.ran_ns.saturating_add(other.ran_ns);
        self.covers = self.covers.max(other.covers).max(covers);
    }
}

impl<Location: Copy + Ord> Credits<Location> {
    /// Empty; at most `rows_max` rows will be kept.
    #[must_use]
    pub fn new(rows_max: usize) -> Self {
        Credits { rows_max, rows: Vec::new(), is_folded: false, idle_ns: 0, others_ns: 0 }
    }

    /// Adds that somebody ran at a location for some time.
    pub fn add(&mut self, location: Location, ran: &Antagonist) {
        let Antagonist { who, ran_ns, covers } = ran;
        match who {
            Who::Idle => self.idle_ns = self.idle_ns.saturating_add(*ran_ns),
            Who::Others => self.others_ns = self.others_ns.saturating_add(*ran_ns),
            Who::Thread(_) if *ran_ns == 0 => {}
            Who::Thread(task) => {
                let (task, ran_ns) = (Arc::clone(task), *ran_ns);
                self.add_row(Row { location, task, ran_ns, covers: *covers });
            }
        }
    }

    fn add_row(&mut self, new: Row<Location>) {
        let is_same = |row: &&mut Row<Location>| {
            row.location == new.location
                && row.task == new.task
                && (row.covers == Covers::Group) == (new.covers == Covers::Group)
        };
        if let Some(row) = self.rows.iter_mut().find(is_same) {
            row.take(&new, Covers::Thread);
            return;
        }
        if self.rows.len() >= self.rows_max && !self.is_folded {
            self.fold();
        }
        let is_alike = |row: &&mut Row<Location>| row.is_alike(&new);
        if self.is_folded
            && let Some(row) = self.rows.iter_mut().find(is_alike)
        {
            row.take(&new, Covers::Name);
            return;
        }
        self.rows.push(new);
        if self.rows.len() > self.rows_max {
            self.give_way();
        }
    }

    /// There are too many: from now on those of one name have one row.
    fn fold(&mut self) {
        self.is_folded = true;
        let mut folded: Vec<Row<Location>> = Vec::new();
        for row in std::mem::take(&mut self.rows) {
            match folded.iter_mut().find(|known| known.is_alike(&row)) {
                Some(known) => known.take(&row, Covers::Name),
                None => folded.push(row),
            }
        }
        self.rows = folded;
    }

    /// There is one name too many: the shortest that has others of its group beside it joins the shortest of
    /// these. Where each group has but one row, the shortest loses it.
    fn give_way(&mut self) {
        let group = |row: &Row<Location>| (row.location, row.task.task_group());
        let mut counts: BTreeMap<(Location, TaskGroup), usize> = BTreeMap::new();
        self.rows.iter().for_each(|row| *counts.entry(group(row)).or_default() += 1);
        let has_others =
            |row: &Row<Location>| counts.get(&group(row)).is_some_and(|count| *count > 1);
        let is_group = |row: &Row<Location>| row.covers == Covers::Group;
        let rows = self.rows.iter().enumerate();
        let joining = rows.clone().filter(|(_, row)| has_others(row) && !is_group(row));
        let joining = joining.min_by_key(|(_, row)| row.ran_ns).map(|(place, _)| place);
        let Some(place) = joining.or(rows.min_by_key(|(_, row)| row.ran_ns).map(|(at, _)| at))
        else {
            return;
        };
        let row = self.rows.swap_remove(place);
        let beside = self.rows.iter_mut().filter(|other| other.is_beside(&row));
        match beside.min_by_key(|other| (!is_group(other), other.ran_ns)) {
            Some(other) => {
                let longer = if row.ran_ns > other.ran_ns { &row.task } else { &other.task };
                other.task = Arc::clone(longer);
                other.take(&row, Covers::Group);
            }
            None => self.others_ns = self.others_ns.saturating_add(row.ran_ns),
        }
    }

    /// All rows with their locations, the longest first, ties by thread id; idle time and others, which have
    /// no location, come last.
    pub fn rows(&self) -> impl Iterator<Item = (Option<Location>, Antagonist)> {
        let mut rows: Vec<&Row<Location>> = self.rows.iter().collect();
        rows.sort_by_key(|row| (Reverse(row.ran_ns), row.task.tid));
        let named = rows.into_iter().map(|row| {
            let who = Who::Thread(Arc::clone(&row.task));
            let (ran_ns, covers) = (row.ran_ns, row.covers);
            (Some(row.location), Antagonist { who, ran_ns, covers })
        });
        let nameless = [(Who::Idle, self.idle_ns), (Who::Others, self.others_ns)];
        let nameless = nameless.into_iter().filter(|(_, ran_ns)| *ran_ns > 0);
        named.chain(nameless.map(|(who, ran_ns)| (None, Antagonist::new(who, ran_ns))))
    }
}

/// The antagonists of one wait that has not ended yet.
#[derive(Debug)]
pub(super) struct Wait {
    /// Everything before this moment is credited already.
    credited_until: HostNs,
    credits: Credits<()>,
}

impl Default for Wait {
    fn default() -> Wait {
        Wait { credited_until: HostNs(0), credits: Credits::new(ANTAGONISTS_MAX) }
    }
}

impl Wait {
    /// Forgets all credits and starts anew at `at`.
    pub(super) fn restart(&mut self, at: HostNs) {
        *self = Wait { credited_until: at, ..Wait::default() };
    }

    /// Credits the time since the last credit to `who`, or to nobody where that is not known.
    pub(super) fn credit(&mut self, who: Option<Who>, until: HostNs) {
        let ran_ns = until.since_ns(self.credited_until);
        self.credited_until = self.credited_until.max(until);
        if let Some(who) = who {
            self.credits.add((), &Antagonist::new(who, ran_ns));
        }
    }

    /// What [`Wait::take`] would say if `who` had the time since the last credit.
    pub(super) fn so_far(&self, who: Option<Who>, until: HostNs) -> Vec<Antagonist> {
        let mut wait = Wait { credited_until: self.credited_until, credits: self.credits.clone() };
        wait.credit(who, until);
        wait.take()
    }

    /// The antagonists so far, in the order of [`Credits::rows`].
    pub(super) fn take(&mut self) -> Vec<Antagonist> {
        let antagonists = self.credits.rows().map(|(_, antagonist)| antagonist).collect();
        self.credits = Credits::new(ANTAGONISTS_MAX);
        antagonists
    }
}

impl Who {
    /// A thread by its number alone; the idle task is nobody.
    #[must_use]
    pub fn of_tid(tid: Tid) -> Who {
        if tid == Tid::IDLE { Who::Idle } else { Who::Thread(Arc::new(Task::unknown(tid))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{ControlGroup, ThreadKind};
    use proptest::prelude::*;

    fn tid(antagonist: &Antagonist) -> Option<Tid> {
        antagonist.who.tid()
    }

    fn task(number: u32, name: &str, group: u32) -> Arc<Task> {
        let (kind, name, group) = (ThreadKind::Host, name.to_owned(), Some(ControlGroup(group)));
        Arc::new(Task { kind, name, group, ..Task::unknown(Tid(number)) })
    }

    #[test]
    fn more_groups_than_the_most_keep_the_longest_and_lose_nothing() {
        let mut wait = Wait::default();
        let mut now_ns = 0;
        let mut credit = |number: u32, ran_ns: u64| {
            now_ns += ran_ns;
            let who = Who::Thread(task(number, "hog", number));
            wait.credit(Some(who), HostNs(now_ns));
        };
        // Thread 1 runs for 1 ns, thread 2 for 2 ns and so on: the first ones are pushed out.
        (1..=40).for_each(|number| credit(number, u64::from(number)));
        credit(99, 1);
        let ran = wait.take();
        assert_eq!(ran.len(), ANTAGONISTS_MAX + 1);
        assert_eq!((tid(&ran[0]), ran[0].ran_ns), (Some(Tid(40)), 40));
        let (others, named) = ran.split_last().unwrap();
        assert_eq!(*others, Antagonist::new(Who::Others, (1..=8).sum::<u64>() + 1));
        assert!(named.iter().all(|row| row.ran_ns == u64::from(tid(row).unwrap().0)));
        assert_eq!(ran.iter().map(|antagonist| antagonist.ran_ns).sum::<u64>(), now_ns);
        assert!(!ran.iter().any(|row| [Some(Tid(1)), Some(Tid(99))].contains(&tid(row))));
    }

    /// As a compiler's many short programs do, each of another name, beside one that runs for long.
    #[test]
    fn the_shortest_names_of_a_group_share_a_row_and_the_longest_keeps_its_own() {
        let mut credits = Credits::new(ANTAGONISTS_MAX);
        let mut add = |number, name: &str, group, ran_ns| {
            let who = Who::Thread(task(number, name, group));
            credits.add((), &Antagonist::new(who, ran_ns));
        };
        add(1, "cc1", 7, 5_000);
        add(2, "sshd", 8, 1);
        (100..300).for_each(|number| add(number, &format!("conftest{number}"), 7, 10));
        let rows: Vec<Antagonist> = credits.rows().map(|(_, antagonist)| antagonist).collect();
        assert!(rows.len() <= ANTAGONISTS_MAX);
        assert_eq!((tid(&rows[0]), rows[0].covers), (Some(Tid(1)), Covers::Thread));
        let of_group = |row: &&Antagonist| row.covers == Covers::Group;
        let shared: Vec<&Antagonist> = rows.iter().filter(of_group).collect();
        assert_eq!(shared.len(), 1, "{rows:?}");
        let short = rows.iter().filter(|row| (100..300).contains(&tid(row).unwrap_or_default().0));
        assert_eq!(short.map(|row| row.ran_ns).sum::<u64>(), 2_000);
        let sshd = rows.iter().find(|row| tid(row) == Some(Tid(2))).unwrap();
        assert_eq!((sshd.ran_ns, sshd.covers), (1, Covers::Thread), "alone in its group");
        assert!(rows.iter().all(|row| row.who != Who::Others));
    }

    proptest! {
        /// Whatever comes in whatever order: nothing is lost, no name and no group is told more than it
        /// ran, and as long as there is room for the groups each is told all of it.
        #[test]
        fn groups_are_never_told_too_much_and_nothing_is_lost(
            ran in prop::collection::vec((0..60_u32, 0..12_u32, 0..2_u8, 1..1_000_u64), 0..400),
        ) {
            let mut credits = Credits::new(24);
            let mut of_group = BTreeMap::<(u8, u32), u64>::new();
            let mut of_name = BTreeMap::<(u8, u32, u32), u64>::new();
            for (number, (name, group, location, ran_ns)) in (1..).zip(&ran) {
                let who = Who::Thread(task(number, &format!("name{name}"), *group));
                credits.add(*location, &Antagonist::new(who, *ran_ns));
                *of_group.entry((*location, *group)).or_default() += ran_ns;
                *of_name.entry((*location, *group, *name)).or_default() += ran_ns;
            }
            let rows: Vec<(Option<u8>, Antagonist)> = credits.rows().collect();
            prop_assert!(rows.len() <= 25);
            let total_ns: u64 = ran.iter().map(|(.., ran_ns)| ran_ns).sum();
            prop_assert_eq!(rows.iter().map(|(_, row)| row.ran_ns).sum::<u64>(), total_ns);
            let mut told = BTreeMap::<(u8, u32), u64>::new();
            for (location, row) in &rows {
                let (Some(location), Who::Thread(task)) = (location, &row.who) else { continue };
                let group = task.group.unwrap().0;
                *told.entry((*location, group)).or_default() += row.ran_ns;
                if row.covers != Covers::Group {
                    let name = task.name[4..].parse().unwrap();
                    prop_assert!(row.ran_ns <= of_name[&(*location, group, name)]);
                }
            }
            prop_assert_eq!(told, of_group);
        }
    }

    #[test]
    fn threads_of_one_name_share_a_row_where_there_are_too_many() {
        let mut wait = Wait::default();
        for number in 1..=100_u32 {
            let name = if number % 2 == 0 { "true" } else { "bash" };
            let kind = ThreadKind::Host;
            let task = Task { kind, name: name.to_owned(), ..Task::unknown(Tid(number)) };
            wait.credit(Some(Who::Thread(Arc::new(task))), HostNs(u64::from(number) * 10));
        }
        let ran = wait.take();
        assert_eq!(ran.iter().map(|row| row.ran_ns).collect::<Vec<_>>(), [500, 500]);
        assert!(ran.iter().all(|row| row.covers == Covers::Name));
    }

    /// As a slow request beside a loop of short processes does.
    #[test]
    fn however_many_threads_come_few_names_lose_nothing_to_others() {
        let mut credits = Credits::new(ANTAGONISTS_MAX);
        for number in 1..=400_u32 {
            let (name, ran_ns) = match number % 40 {
                39 => ("kworker/1:1".to_owned(), 1),
                name => (format!("name {}", name % 20), 1_000),
            };
            let task = Task { kind: ThreadKind::Host, name, ..Task::unknown(Tid(number)) };
            credits.add((), &Antagonist::new(Who::Thread(Arc::new(task)), ran_ns));
        }
        let rows: Vec<Antagonist> = credits.rows().map(|(_, antagonist)| antagonist).collect();
        assert!(rows.len() <= ANTAGONISTS_MAX);
        assert_eq!(rows.iter().map(|row| row.ran_ns).sum::<u64>(), 390 * 1_000 + 10);
        let others = rows.iter().find(|row| row.who == Who::Others);
        assert_eq!(others, None);
    }

    #[test]
    fn time_of_an_unknown_occupant_is_credited_to_nobody() {
        let mut wait = Wait::default();
        wait.restart(HostNs(10));
        wait.credit(Some(Who::of_tid(Tid(7))), HostNs(15));
        wait.credit(None, HostNs(25));
        wait.credit(Some(Who::of_tid(Tid(7))), HostNs(28));
        assert_eq!(wait.take(), [Antagonist::new(Who::of_tid(Tid(7)), 8)]);
    }
}
