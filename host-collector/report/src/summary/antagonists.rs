//! The summary's rows of antagonists: who ran while a vCPU waited.

use super::ledger::{Figures, Ledger, Room};
use super::model::{ANTAGONISTS_MAX, Antagonist, COMMAND_CHARS_MAX};
use super::names::{Directory, VmIndex};
use super::totals::share;
use std::ops::Bound;
use std::sync::Arc;
use vslice_core::task::Namesake;
use vslice_core::timeline::{self, Covers, Span, Who};

/// The row of those that a ledger has under one key.
pub(super) fn row<K>(
    figures: &Figures<'_, K>,
    wait_ns: u64,
    victim: VmIndex,
    directory: &Directory<'_>,
) -> Antagonist {
    let Figures { ran_ns, error_ns, threads, processes, example, .. } = *figures;
    let command = directory.command(example);
    Antagonist {
        thread: directory.task(example, victim),
        pid: example.process.map(|process| process.pid),
        command: command.map(|command| command.chars().take(COMMAND_CHARS_MAX).collect()),
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
    let (mut ledger, mut idle_ns) = (Ledger::new(room), 0);
    let all = (Bound::Unbounded, Bound::Unbounded);
    for ran in &span.antagonists {
        match &ran.who {
            Who::Idle => idle_ns = ran.ran_ns,
            Who::Others => ledger.add_keyless(0, ran.ran_ns),
            Who::Thread(_) if ran.covers == Covers::Group => ledger.add_keyless(0, ran.ran_ns),
            Who::Thread(task) => {
                let face = Namesake(Arc::clone(task));
                ledger.add(&face, 0, task, (ran.ran_ns, ran.covers == Covers::Name));
            }
        }
    }
    let (rows, others_ns) = ledger.figures(&ledger.longest(ANTAGONISTS_MAX, all), all);
    let length_ns = span.length_ns();
    let antagonists = rows.iter().map(|figures| row(figures, length_ns, victim, directory));
    Waited { antagonists: antagonists.collect(), others_ns, idle_ns }
}
