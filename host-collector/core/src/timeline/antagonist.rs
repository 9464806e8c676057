//! Who ran on a pCPU while a thread waited for it.

use super::span::{Antagonist, Who};
use crate::task::{KindAndName, Task};
use crate::units::{HostNs, Tid};
use std::cmp::Reverse;
use std::sync::Arc;

/// How many antagonists one wait distinguishes at most.
///
/// A wait that sees more (a loop of short processes) has one row for all threads of a name; where there
/// are too many names still, it keeps the longest ones that it can, and the time of the others is credited
/// to [`Who::Others`], so that nothing is lost and no `ran_ns` is ever too large.
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
    is_several: bool,
}

impl<Location: Copy + Eq> Row<Location> {
    fn is_alike(&self, other: &Row<Location>) -> bool {
        let face = |row: &Row<Location>| KindAndName(Arc::clone(&row.task));
        self.location == other.location && face(self) == face(other)
    }

    /// Takes what another thread of the name ran.
    fn take(&mut self, other: &Row<Location>) {
        self.ran_ns = self.ran_ns.saturating_add(other.ran_ns);
        self.is_several = true;
    }
}

impl<Location: Copy + Eq> Credits<Location> {
    /// Empty; at most `rows_max` rows will be kept.
    #[must_use]
    pub fn new(rows_max: usize) -> Self {
        Credits { rows_max, rows: Vec::new(), is_folded: false, idle_ns: 0, others_ns: 0 }
    }

    /// Adds that somebody ran at a location for some time.
    pub fn add(&mut self, location: Location, ran: &Antagonist) {
        let Antagonist { who, ran_ns, is_several } = ran;
        match who {
            Who::Idle => self.idle_ns = self.idle_ns.saturating_add(*ran_ns),
            Who::Others => self.others_ns = self.others_ns.saturating_add(*ran_ns),
            Who::Thread(_) if *ran_ns == 0 => {}
            Who::Thread(task) => {
                let (task, ran_ns) = (Arc::clone(task), *ran_ns);
                self.add_row(Row { location, task, ran_ns, is_several: *is_several });
            }
        }
    }

    fn add_row(&mut self, new: Row<Location>) {
        let is_same =
            |row: &&mut Row<Location>| row.location == new.location && row.task == new.task;
        if let Some(row) = self.rows.iter_mut().find(is_same) {
            row.ran_ns = row.ran_ns.saturating_add(new.ran_ns);
            row.is_several |= new.is_several;
            return;
        }
        if self.rows.len() >= self.rows_max && !self.is_folded {
            self.fold();
        }
        let is_alike = |row: &&mut Row<Location>| row.is_alike(&new);
        if self.is_folded
            && let Some(row) = self.rows.iter_mut().find(is_alike)
        {
            row.take(&new);
            return;
        }
        if self.rows.len() < self.rows_max {
            self.rows.push(new);
            return;
        }
        let shortest = self.rows.iter_mut().min_by_key(|row| row.ran_ns);
        let dropped = match shortest.filter(|row| row.ran_ns < new.ran_ns) {
            Some(row) => std::mem::replace(row, new),
            None => new,
        };
        self.others_ns = self.others_ns.saturating_add(dropped.ran_ns);
    }

    /// There are too many: from now on those of one name have one row.
    fn fold(&mut self) {
        self.is_folded = true;
        let mut folded: Vec<Row<Location>> = Vec::new();
        for row in std::mem::take(&mut self.rows) {
            match folded.iter_mut().find(|known| known.is_alike(&row)) {
                Some(known) => known.take(&row),
                None => folded.push(row),
            }
        }
        self.rows = folded;
    }

    /// All rows with their locations, the longest first, ties by thread id; idle time and others, which have
    /// no location, come last.
    pub fn rows(&self) -> impl Iterator<Item = (Option<Location>, Antagonist)> {
        let mut rows: Vec<&Row<Location>> = self.rows.iter().collect();
        rows.sort_by_key(|row| (Reverse(row.ran_ns), row.task.tid));
        let named = rows.into_iter().map(|row| {
            let who = Who::Thread(Arc::clone(&row.task));
            let (ran_ns, is_several) = (row.ran_ns, row.is_several);
            (Some(row.location), Antagonist { who, ran_ns, is_several })
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
    use crate::task::ThreadKind;

    fn tid(antagonist: &Antagonist) -> Option<Tid> {
        antagonist.who.tid()
    }

    #[test]
    fn more_than_the_most_keeps_the_longest_and_loses_nothing() {
        let mut wait = Wait::default();
        let mut now_ns = 0;
        // Thread 1 runs for 1 ns, thread 2 for 2 ns and so on: the first ones are pushed out.
        for tid in 1..=40_u32 {
            now_ns += u64::from(tid);
            wait.credit(Some(Who::of_tid(Tid(tid))), HostNs(now_ns));
        }
        now_ns += 1;
        wait.credit(Some(Who::of_tid(Tid(99))), HostNs(now_ns));
        let ran = wait.take();
        assert_eq!(ran.len(), ANTAGONISTS_MAX + 1);
        assert_eq!(ran[0], Antagonist::new(Who::of_tid(Tid(40)), 40));
        let (others, named) = ran.split_last().unwrap();
        assert_eq!(*others, Antagonist::new(Who::Others, (1..=8).sum::<u64>() + 1));
        assert!(named.iter().all(|row| row.ran_ns == u64::from(tid(row).unwrap().0)));
        assert_eq!(ran.iter().map(|antagonist| antagonist.ran_ns).sum::<u64>(), now_ns);
        assert!(!ran.iter().any(|row| [Some(Tid(1)), Some(Tid(99))].contains(&tid(row))));
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
        assert!(ran.iter().all(|row| row.is_several));
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
