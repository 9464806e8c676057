//! The classes of some requests: all of them, and the slow ones.

use super::antagonists;
use super::causes::{Cause, causes};
use super::group::ClassAntagonistGroup;
use super::io::IoClass;
use super::latency::{ClassTotals, Encounter, LatencyTally, Slower};
use super::model::{ANTAGONISTS_MAX, Class, ClassAntagonist, LatencyNs};
use super::names::Directory;
use super::runners::Told;
use super::totals::{ByClass, PartTotals};

/// What a summary has of the classes of some requests.
#[derive(Debug)]
pub(super) struct Classes {
    pub(super) parts: ByClass<PartTotals>,
    pub(super) clock_error_ns: ByClass<PartTotals>,
    pub(super) classes: ByClass<Class>,
    pub(super) io: ByClass<IoClass>,
    pub(super) causes: ByClass<Vec<Cause>>,
}

impl Classes {
    /// Those of these requests, whose percentiles are these.
    pub(super) fn of(
        latencies: &LatencyTally,
        latency_ns: &LatencyNs,
        directory: &Directory<'_>,
    ) -> Classes {
        let slower = [Slower::All, Slower::Than(latency_ns.p99), Slower::Than(latency_ns.p999)];
        let totals = slower.map(|slower| latencies.class(slower));
        let met = latencies.encounters(ANTAGONISTS_MAX, slower);
        let io = [0, 1, 2].map(|at: usize| totals[at].io.class(totals[at].latency_ns));
        let classes =
            [0, 1, 2].map(|at: usize| class(&totals[at], slower[at], &met[at], directory));
        let causes = [0, 1, 2].map(|at: usize| causes(&io[at], totals[at].latency_ns));
        let parts = |of: fn(&ClassTotals) -> PartTotals| {
            by_class([0, 1, 2].map(|at: usize| of(&totals[at])))
        };
        Classes {
            parts: parts(|totals| PartTotals::from(&totals.parts)),
            clock_error_ns: parts(|totals| PartTotals::from(&totals.clock_error)),
            classes: by_class(classes),
            io: by_class(io),
            causes: by_class(causes),
        }
    }
}

fn by_class<T>([all, p99, p999]: [T; 3]) -> ByClass<T> {
    ByClass { all, p99, p999 }
}

fn class(
    totals: &ClassTotals,
    slower: Slower,
    met: &Told<'_, Encounter>,
    directory: &Directory<'_>,
) -> Class {
    let (wait_ns, idle_ns) = (totals.wait_ns, totals.idle_ns);
    let rows = met.names.iter().map(|figures| {
        let Encounter { victim_vm, victim_vcpu, pcpu } = figures.key.0;
        let antagonist = antagonists::row(figures, wait_ns, victim_vm, directory);
        let victim_vm = directory.vm_name(victim_vm);
        ClassAntagonist { victim_vm, victim_vcpu, pcpu, antagonist }
    });
    let groups = met.groups.iter().map(|figures| {
        let Encounter { victim_vm, victim_vcpu, pcpu } = figures.key.0;
        let group = antagonists::group_row(met, figures, wait_ns, victim_vm, directory);
        let victim_vm = directory.vm_name(victim_vm);
        ClassAntagonistGroup { victim_vm, victim_vcpu, pcpu, group }
    });
    let (antagonists, others_ns): (Vec<ClassAntagonist>, u64) = (rows.collect(), met.others_ns);
    let ran_ns = antagonists.iter().map(|row| row.antagonist.ran_ns);
    Class {
        threshold_ns: slower.threshold_ns(),
        count: totals.count,
        unattributable: totals.unattributable,
        latency_ns: totals.latency_ns,
        clock_uncertain: totals.clock_uncertain,
        wait_ns,
        unseen_ns: antagonists::unseen_ns(wait_ns, ran_ns, [others_ns, idle_ns]),
        antagonists,
        others_ns,
        antagonist_groups: groups.collect(),
        other_groups_ns: met.other_groups_ns,
        idle_ns,
    }
}
