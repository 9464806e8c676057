//! Who ran while somebody waited: totals by name and by group, for each place where they met.

use super::ledger::{Figures, Ledger, Room};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use vslice_core::task::{Namesake, Task, TaskGroup};
use vslice_core::timeline::{Antagonist, Covers, Who};

/// Buckets from one to another.
pub(super) type Buckets = (Bound<u64>, Bound<u64>);

/// What has one row among the groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GroupKey {
    /// Those of a VM, of a control group, or of one vslice.
    Group(TaskGroup),
    /// The kernel's threads of one name, and tasks of one name whose control group is not known.
    Name(Namesake),
}

impl GroupKey {
    /// The group of a task.
    pub(super) fn of(task: &Arc<Task>) -> GroupKey {
        match task.task_group() {
            TaskGroup::Kernel | TaskGroup::Unknown => GroupKey::Name(Namesake(Arc::clone(task))),
            group => GroupKey::Group(group),
        }
    }
}

/// Totals by place, bucket and who ran.
#[derive(Debug)]
pub(super) struct Runners<Place> {
    names: Ledger<(Place, Namesake)>,
    groups: Ledger<(Place, GroupKey)>,
}

/// Those that ran longest, and what all others ran.
#[derive(Debug)]
pub(super) struct Told<'a, Place> {
    pub(super) names: Vec<Figures<'a, (Place, Namesake)>>,
    pub(super) others_ns: u64,
    pub(super) groups: Vec<Figures<'a, (Place, GroupKey)>>,
    pub(super) other_groups_ns: u64,
    /// Every name that has a row, the longest first.
    pub(super) all_names: Vec<Figures<'a, (Place, Namesake)>>,
}

impl<Place: Ord + Copy> Runners<Place> {
    pub(super) fn new(room: Room) -> Runners<Place> {
        Runners { names: Ledger::new(room), groups: Ledger::new(room) }
    }

    /// Somebody ran for some time; idle time is nobody's.
    pub(super) fn add(&mut self, place: Place, bucket: u64, ran: &Antagonist) {
        let Antagonist { who, ran_ns, covers } = ran;
        let task = match who {
            Who::Idle => return,
            Who::Others => return self.add_others(bucket, *ran_ns),
            Who::Thread(task) => task,
        };
        let key = GroupKey::of(task);
        let added = (*ran_ns, *covers != Covers::Thread);
        match (&key, covers) {
            // Many names whose group is not known are not one group.
            (GroupKey::Name(_), Covers::Group) => return self.add_others(bucket, *ran_ns),
            (_, Covers::Group) => self.names.add_keyless(bucket, *ran_ns),
            (_, Covers::Thread | Covers::Name) => {
                self.names.add(&(place, Namesake(Arc::clone(task))), bucket, task, added);
            }
        }
        self.groups.add(&(place, key), bucket, task, added);
    }

    /// Some that are not told apart ran for some time.
    pub(super) fn add_others(&mut self, bucket: u64, ran_ns: u64) {
        self.names.add_keyless(bucket, ran_ns);
        self.groups.add_keyless(bucket, ran_ns);
    }

    /// The `count` longest of each of these classes of buckets, and for all of them what they had in each.
    pub(super) fn longest<const CLASSES: usize>(
        &self,
        count: usize,
        classes: [Buckets; CLASSES],
    ) -> [Told<'_, Place>; CLASSES] {
        let names: BTreeSet<_> =
            classes.iter().flat_map(|class| self.names.longest(count, *class)).collect();
        let groups: BTreeSet<_> =
            classes.iter().flat_map(|class| self.groups.longest(count, *class)).collect();
        let (names, groups) = (Vec::from_iter(names), Vec::from_iter(groups));
        classes.map(|class| {
            let (names, others_ns) = self.names.figures(&names, class);
            let (groups, other_groups_ns) = self.groups.figures(&groups, class);
            let (all_names, _) = self.names.figures(&self.names.longest(usize::MAX, class), class);
            Told { names, others_ns, groups, other_groups_ns, all_names }
        })
    }
}

impl<Place: Eq> Told<'_, Place> {
    /// The names of a group, the longest first.
    pub(super) fn members<'a>(
        &'a self,
        group: &'a (Place, GroupKey),
    ) -> impl Iterator<Item = &'a Figures<'a, (Place, Namesake)>> {
        let is_of = |row: &&Figures<'_, (Place, Namesake)>| {
            row.key.0 == group.0 && GroupKey::of(&row.key.1.0) == group.1
        };
        self.all_names.iter().filter(is_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use vslice_core::task::{ControlGroup, ThreadKind};
    use vslice_core::units::Tid;

    const ALL: Buckets = (Bound::Unbounded, Bound::Unbounded);

    fn task(number: u32, kind: ThreadKind, name: u32, group: Option<u32>) -> Arc<Task> {
        let (name, group) = (format!("name{name}"), group.map(ControlGroup));
        Arc::new(Task { kind, name, group, ..Task::unknown(Tid(number)) })
    }

    fn ran(task: Arc<Task>, ran_ns: u64, covers: Covers) -> Antagonist {
        Antagonist { who: Who::Thread(task), ran_ns, covers }
    }

    #[test]
    fn a_loop_of_short_processes_is_one_group_with_its_names() {
        let mut runners = Runners::new(Room { keys: 64, cells: 64, members: 64 });
        for number in 0..50 {
            let process = task(number, ThreadKind::Host, number % 3, Some(7));
            runners.add((), 0, &ran(process, 10, Covers::Thread));
        }
        let folded = task(99, ThreadKind::Host, 9, Some(7));
        runners.add((), 0, &ran(folded, 100, Covers::Group));
        let [told] = runners.longest(8, [ALL]);
        assert_eq!((told.groups.len(), told.groups[0].ran_ns), (1, 600));
        assert_eq!(told.groups[0].threads.count, 51);
        assert!(!told.groups[0].threads.is_exact, "the folded ones are more");
        let members: Vec<u64> =
            told.members(told.groups[0].key).map(|member| member.ran_ns).collect();
        assert_eq!((members, told.others_ns), (vec![170, 170, 160], 100));
        assert_eq!(told.other_groups_ns, 0);
    }

    #[test]
    fn names_of_the_kernel_and_of_unknown_groups_are_no_group() {
        let mut runners = Runners::new(Room { keys: 64, cells: 64, members: 64 });
        for name in 0..2 {
            let kernel = task(name, ThreadKind::Kernel, name, Some(1));
            runners.add((), 0, &ran(kernel, 10, Covers::Thread));
            let unknown = task(10 + name, ThreadKind::Host, name, None);
            runners.add((), 0, &ran(unknown, 10, Covers::Thread));
        }
        let folded = task(99, ThreadKind::Host, 9, None);
        runners.add((), 0, &ran(folded, 100, Covers::Group));
        let [told] = runners.longest(8, [ALL]);
        assert_eq!((told.groups.len(), told.other_groups_ns), (4, 100));
    }

    proptest! {
        /// Whatever room there is: no group is told more than it ran, and nothing is lost.
        #[test]
        fn no_group_is_told_too_much(
            deeds in prop::collection::vec((0..9_u32, 0..6_u32, 0..3_u64, 1..1_000_u64, 0..3_u8), 0..200),
            keys in 2..12_usize,
        ) {
            let mut runners = Runners::new(Room { keys, cells: 3 * keys, members: 16 });
            let mut of_group = BTreeMap::<u32, u64>::new();
            let mut total_ns = 0;
            for (number, (name, group, bucket, ran_ns, covers)) in (1..).zip(&deeds) {
                let covers = [Covers::Thread, Covers::Name, Covers::Group][usize::from(*covers)];
                let task = task(number, ThreadKind::Host, *name, Some(*group));
                runners.add((), *bucket, &ran(task, *ran_ns, covers));
                *of_group.entry(*group).or_default() += ran_ns;
                total_ns += ran_ns;
            }
            let [told] = runners.longest(8, [ALL]);
            for row in &told.groups {
                let GroupKey::Group(TaskGroup::Control(ControlGroup(group))) = row.key.1 else {
                    return Err(TestCaseError::fail("a task of a control group"));
                };
                prop_assert!(row.ran_ns <= of_group[&group]);
                prop_assert!(of_group[&group] <= row.ran_ns + row.error_ns);
                let members_ns: u64 = told.members(row.key).map(|member| member.ran_ns).sum();
                prop_assert!(members_ns <= row.ran_ns + row.error_ns);
            }
            let groups_ns: u64 = told.groups.iter().map(|row| row.ran_ns).sum();
            prop_assert_eq!(groups_ns + told.other_groups_ns, total_ns);
            let names_ns: u64 = told.names.iter().map(|row| row.ran_ns).sum();
            prop_assert_eq!(names_ns + told.others_ns, total_ns);
        }
    }
}
