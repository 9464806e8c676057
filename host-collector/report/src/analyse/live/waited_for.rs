//! Who ran while threads waited for a pCPU, by groups, as far as it falls into a second.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use vslice_core::task::{Task, TaskGroup};
use vslice_core::timeline::{Span, Who};
use vslice_core::units::HostNs;

/// Groups that are told apart in a second of a vCPU at most.
const GROUPS_KEPT_MAX: usize = 64;

/// Threads of a group have this in common. Those that are in none that has a name of its own are told by theirs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    group: TaskGroup,
    name: Option<String>,
}

impl GroupKey {
    fn of(task: &Task) -> GroupKey {
        let group = task.task_group();
        let is_nameless = matches!(group, TaskGroup::Kernel | TaskGroup::Unknown);
        GroupKey { group, name: is_nameless.then(|| task.name.clone()) }
    }
}

/// For how long whoever ran.
#[derive(Debug, Clone, Default)]
struct Ran {
    /// With one of the group's threads.
    groups: BTreeMap<GroupKey, (Arc<Task>, u64)>,
    others_ns: u64,
    idle_ns: u64,
}

impl Ran {
    fn of(span: &Span) -> Ran {
        let mut ran = Ran::default();
        for antagonist in &span.antagonists {
            ran.add(&antagonist.who, antagonist.ran_ns);
        }
        ran
    }

    fn add(&mut self, who: &Who, ns: u64) {
        match who {
            Who::Idle => self.idle_ns = self.idle_ns.saturating_add(ns),
            Who::Others => self.others_ns = self.others_ns.saturating_add(ns),
            Who::Thread(task) => self.add_group(GroupKey::of(task), task, ns),
        }
    }

    fn add_group(&mut self, key: GroupKey, task: &Arc<Task>, ns: u64) {
        if self.groups.len() >= GROUPS_KEPT_MAX && !self.groups.contains_key(&key) {
            self.others_ns = self.others_ns.saturating_add(ns);
            return;
        }
        let (_, sum_ns) = self.groups.entry(key).or_insert_with(|| (Arc::clone(task), 0));
        *sum_ns = sum_ns.saturating_add(ns);
    }

    /// What came since `before`. Names that had a row of their own then may be among the others now.
    fn since(mut self, before: &Ran) -> Ran {
        for (key, (_, ns)) in &mut self.groups {
            let before_ns = before.groups.get(key).map_or(0, |(_, ns)| *ns);
            *ns = ns.saturating_sub(before_ns);
        }
        self.others_ns = self.others_ns.saturating_sub(before.others_ns);
        self.idle_ns = self.idle_ns.saturating_sub(before.idle_ns);
        self
    }
}

/// Adds up who ran while one thread waited.
#[derive(Debug, Default)]
pub(super) struct WaitedFor {
    ran: Ran,
    unseen_ns: u64,
    /// The start of a wait that goes on, and what was told of it so far.
    open: Option<(HostNs, Ran)>,
}

impl WaitedFor {
    /// That of the next second.
    pub(super) fn turned(self) -> WaitedFor {
        WaitedFor { open: self.open, ..WaitedFor::default() }
    }

    /// A wait of which `ns` fall into the second that were not told before.
    pub(super) fn wait(&mut self, span: &Span, ns: u64, goes_on: bool) {
        let told = Ran::of(span);
        let before = self.open.take().filter(|(start, _)| *start == span.start);
        let new = match &before {
            Some((_, before)) => told.clone().since(before),
            None => told.clone(),
        };
        if goes_on {
            self.open = Some((span.start, told));
        }
        self.add(new, ns);
    }

    /// No more than the wait: what was told of it before may have been wrong.
    fn add(&mut self, new: Ran, ns: u64) {
        let mut left_ns = ns;
        let mut some = |ran_ns: u64| {
            let ran_ns = ran_ns.min(left_ns);
            left_ns -= ran_ns;
            ran_ns
        };
        let mut groups: Vec<_> = new.groups.into_iter().collect();
        groups.sort_by_key(|(_, (_, ran_ns))| Reverse(*ran_ns));
        for (key, (task, ran_ns)) in groups {
            let ran_ns = some(ran_ns);
            if ran_ns > 0 {
                self.ran.add_group(key, &task, ran_ns);
            }
        }
        self.ran.idle_ns += some(new.idle_ns);
        self.ran.others_ns += some(new.others_ns);
        self.unseen_ns += left_ns;
    }

    /// Adds what another thread waited for.
    pub(super) fn merge(&mut self, other: &WaitedFor) {
        for (key, (task, ns)) in &other.ran.groups {
            self.ran.add_group(key.clone(), task, *ns);
        }
        self.ran.idle_ns += other.ran.idle_ns;
        self.ran.others_ns += other.ran.others_ns;
        self.unseen_ns += other.unseen_ns;
    }

    /// The groups with one thread of each, the longest first, at most so many; then for how long others ran, nobody
    /// did, and it is not known who did.
    pub(super) fn groups(&self, max: usize) -> (Vec<(&Arc<Task>, u64)>, [u64; 3]) {
        let mut groups: Vec<(&Arc<Task>, u64)> =
            self.ran.groups.values().map(|(task, ns)| (task, *ns)).collect();
        groups.sort_by_key(|(task, ns)| (Reverse(*ns), task.tid));
        let more_ns: u64 = groups.iter().skip(max).map(|(_, ns)| *ns).sum();
        groups.truncate(max);
        (groups, [self.ran.others_ns + more_ns, self.ran.idle_ns, self.unseen_ns])
    }
}
