//! The summary's rows of antagonists: who ran while a vCPU waited.

use super::group::{AntagonistGroup, GroupKind, GroupMember, MEMBERS_MAX};
use super::ledger::{Figures, Room};
use super::model::{ANTAGONISTS_MAX, Antagonist, COMMAND_CHARS_MAX};
use super::names::{Directory, NamedGroup, VmIndex};
use super::runners::{GroupKey, Runners, Told};
use super::totals::share;
use std::ops::Bound;
use vslice_core::timeline::{self, Span, Who};

/// The row of those that a ledger has under one key.
pub(super) fn row<K>(
    figures: &Figures<'_, K>,
    wait_ns: u64,
    victim: VmIndex,
    directory: &Directory<'_>,
) -> Antagonist {
    let Figures { ran_ns, error_ns, threads, processes, example, .. } = *figures;
    let command = directory.command(example);
    let (group, group_path) = match directory.group(example, victim) {
        NamedGroup { kind: GroupKind::KernelThread | GroupKind::Unknown, .. } => (None, None),
        NamedGroup { name, path, .. } => (Some(name), path),
    };
    Antagonist {
        thread: directory.task(example, victim),
        pid: example.process.map(|process| process.pid),
        command: command.map(|command| command.chars().take(COMMAND_CHARS_MAX).collect()),
        group,
        group_path,
        threads,
        processes,
        ran_ns,
        error_ns,
        share: share(ran_ns, wait_ns),
    }
}

/// The row of a group.
pub(super) fn group_row<Place: Eq>(
    told: &Told<'_, Place>,
    figures: &Figures<'_, (Place, GroupKey)>,
    wait_ns: u64,
    victim: VmIndex,
    directory: &Directory<'_>,
) -> AntagonistGroup {
    let Figures { ran_ns, error_ns, threads, processes, example, .. } = *figures;
    let group = directory.group(example, victim);
    let members = told.members(figures.key).map(|member| {
        let thread = directory.task(member.example, victim);
        GroupMember { name: thread.name, kind: thread.kind, ran_ns: member.ran_ns }
    });
    let mut members: Vec<GroupMember> = members.collect();
    let names = members.len() as u64;
    members.truncate(MEMBERS_MAX);
    AntagonistGroup {
        kind: group.kind,
        name: group.name,
        path: group.path,
        members,
        names,
        threads,
        processes,
        ran_ns,
        error_ns,
        share: share(ran_ns, wait_ns),
    }
}

/// The part of a wait in nanoseconds for which it is unknown who ran.
pub(super) fn unseen_ns(
    wait_ns: u64,
    ran_ns: impl Iterator<Item = u64>,
    beside_ns: [u64; 2],
) -> u64 {
    let seen_ns = ran_ns.chain(beside_ns).fold(0, u64::saturating_add);
    wait_ns.saturating_sub(seen_ns)
}

/// Who ran in one wait.
#[derive(Debug, Default)]
pub(super) struct Waited {
    pub(super) antagonists: Vec<Antagonist>,
    pub(super) others_ns: u64,
    pub(super) idle_ns: u64,
}

/// Who ran in the wait that a span is; nobody if it is none.
pub(super) fn of_wait(span: &Span, victim: VmIndex, directory: &Directory<'_>) -> Waited {
    if span.state.waits_for().is_none() {
        return Waited::default();
    }
    let names_max = timeline::ANTAGONISTS_MAX;
    let room = Room { keys: names_max + 1, cells: names_max + 1, members: 2 * names_max };
    let (mut runners, mut idle_ns) = (Runners::new(room), 0);
    for ran in &span.antagonists {
        match ran.who {
            Who::Idle => idle_ns = ran.ran_ns,
            Who::Others | Who::Thread(_) => runners.add((), 0, ran),
        }
    }
    let [told] = runners.longest(ANTAGONISTS_MAX, [(Bound::Unbounded, Bound::Unbounded)]);
    let length_ns = span.length_ns();
    let antagonists = told.names.iter().map(|figures| row(figures, length_ns, victim, directory));
    Waited { antagonists: antagonists.collect(), others_ns: told.others_ns, idle_ns }
}
