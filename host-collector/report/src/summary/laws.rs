//! Laws that hold for every summary and are checked on every summary: a report that contradicts itself is a
//! bug in vslice, and is reported as one. `schema.md` states these laws.

use super::causes::{Cause, Kind, groups};
use super::group::AntagonistGroup;
use super::io::IoClass;
use super::model::{Class, ClassAntagonist, LatencyNs, Summary, Timeslices, Vcpu};
use super::totals::{PartTotals, sum};
use super::what_if::{Percentiles, WhatIf, Without};
use thiserror::Error;
use vslice_core::join::{Part, Phase};

/// Violations that [`Inconsistent`] names at most.
const NAMED_MAX: usize = 5;

/// A summary contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("inconsistent: {}{}", violations[..violations.len().min(NAMED_MAX)].join("; "),
    more(violations.len().saturating_sub(NAMED_MAX)))]
pub struct Inconsistent {
    /// Each law that is broken, with its numbers; at least one.
    pub violations: Vec<String>,
}

fn more(count: usize) -> String {
    if count == 0 { String::new() } else { format!("; and {count} more") }
}

/// Checks every law.
///
/// # Errors
/// The laws that are broken.
pub fn check(summary: &Summary) -> Result<(), Inconsistent> {
    let violations = violations(summary);
    if violations.is_empty() { Ok(()) } else { Err(Inconsistent { violations }) }
}

/// Every law that the summary breaks, as a sentence without its end and with its numbers.
#[must_use]
pub fn violations(summary: &Summary) -> Vec<String> {
    let mut laws = Laws::default();
    laws.requests(summary);
    for of in classes(summary) {
        laws.class(&of);
        laws.phases(&of);
        laws.causes(&of);
        laws.inactivity(&of);
        let waits = sum([of.parts.get(Part::PreemptWait), of.parts.get(Part::WakeupDelay)]);
        let what = format!("classes.{}.wait_ns", of.name);
        laws.equal(&what, of.class.wait_ns, "its parts are", waits);
    }
    let [all, p99, p999] = classes(summary);
    laws.nested(&all, &p99);
    laws.nested(&p99, &p999);
    laws.percentiles(&summary.latency_ns);
    laws.what_if(summary.what_if.as_ref(), &all, &summary.latency_ns);
    summary.vcpus.iter().for_each(|vcpu| laws.vcpu(vcpu));
    laws.rows(summary);
    summary.observed.iter().for_each(|observed| laws.observed(observed));
    laws.selection(summary);
    laws.violations
}

/// All that a summary has of one class.
pub(super) struct OfClass<'a> {
    pub(super) name: String,
    pub(super) class: &'a Class,
    pub(super) parts: &'a PartTotals,
    pub(super) io: &'a IoClass,
    pub(super) causes: &'a [Cause],
}

fn classes(summary: &Summary) -> [OfClass<'_>; 3] {
    let (classes, parts, io) = (&summary.classes, &summary.parts, &summary.io.classes);
    let causes = &summary.causes;
    [
        ("all", &classes.all, &parts.all, &io.all, &causes.all),
        ("p99", &classes.p99, &parts.p99, &io.p99, &causes.p99),
        ("p999", &classes.p999, &parts.p999, &io.p999, &causes.p999),
    ]
    .map(|(name, class, parts, io, causes)| OfClass {
        name: name.to_owned(),
        class,
        parts,
        io,
        causes,
    })
}

#[derive(Default)]
pub(super) struct Laws {
    pub(super) violations: Vec<String>,
}

impl Laws {
    pub(super) fn equal(&mut self, what: &str, is: u64, whole: &str, should_be: u64) {
        if is != should_be {
            self.violations.push(format!("{what} is {is}, but {whole} {should_be}"));
        }
    }

    pub(super) fn at_most(&mut self, what: &str, is: u64, limit: &str, most: u64) {
        if is > most {
            self.violations.push(format!("{what} is {is}, more than {limit}, {most}"));
        }
    }

    pub(super) fn share(&mut self, what: &str, share: f64) {
        if !(0.0..=1.0).contains(&share) {
            self.violations.push(format!("{what} is {share}, which is not a share"));
        }
    }

    fn requests(&mut self, summary: &Summary) {
        let (requests, all) = (&summary.requests, &summary.classes.all);
        let by = &requests.unattributable_by;
        let unattributable = "requests.unattributable";
        self.equal(unattributable, requests.unattributable, "its reasons add up to", by.total());
        let counted = sum([all.count, all.unattributable, by.unplaced()]);
        let whole = "the class of all and those without a place on the clock are";
        self.equal("requests.count", requests.count, whole, counted);
        let out_of_class = sum([all.unattributable, by.unplaced()]);
        self.equal(
            unattributable,
            requests.unattributable,
            "the class of all leaves out",
            out_of_class,
        );
    }

    pub(super) fn class(&mut self, OfClass { name, class, parts, .. }: &OfClass<'_>) {
        let latency = format!("classes.{name}.latency_ns");
        self.equal(
            &format!("the sum of parts.{name}"),
            parts.total_ns(),
            &latency,
            class.latency_ns,
        );
        let groups = class.antagonist_groups.iter().map(|row| row.group.ran_ns);
        let groups = sum(groups.chain([class.other_groups_ns, class.idle_ns, class.unseen_ns]));
        let what = format!("the groups that ran, others, idle and unseen in {name}");
        self.equal(&what, groups, "its wait_ns is", class.wait_ns);
        self.groups(name, class.antagonist_groups.iter().map(|row| &row.group));
        let ran = class.antagonists.iter().map(|row| row.antagonist.ran_ns);
        let ran = sum(ran.chain([class.others_ns, class.idle_ns, class.unseen_ns]));
        let wait = format!("classes.{name}.wait_ns");
        self.equal(
            &format!("who ran, others, idle and unseen of {name}"),
            ran,
            &wait,
            class.wait_ns,
        );
        for row in &class.antagonists {
            self.share(&format!("an antagonist's share in {name}"), row.antagonist.share);
        }
        let uncertain = format!("classes.{name}.clock_uncertain");
        self.at_most(&uncertain, class.clock_uncertain, "the class's count", class.count);
    }

    pub(super) fn phases(&mut self, OfClass { name, class, parts, io, .. }: &OfClass<'_>) {
        let phases = sum(io.phases_ns.values().copied());
        let latency = format!("classes.{name}.latency_ns");
        self.equal(&format!("the sum of the phases of {name}"), phases, &latency, class.latency_ns);
        for phase in Phase::ALL {
            let of_phase = io.phases_ns.get(&phase).copied().unwrap_or(0);
            let parts = sum(Part::ALL.map(|part| io.get(phase, part)));
            let what = format!("the sum of the parts of {name} in {}", phase.name());
            self.equal(&what, parts, "its phase has", of_phase);
        }
        for part in Part::ALL {
            let over_phases = sum(Phase::ALL.map(|phase| io.get(phase, part)));
            let what = format!("{} of {name} over the phases", part.name());
            self.equal(&what, over_phases, "its part has", parts.get(part));
        }
        let unknown = io.phases_ns.get(&Phase::Unknown).copied().unwrap_or(0);
        if io.page_cache_ns > unknown {
            self.violations.push(format!(
                "io.classes.{name}.page_cache_ns is {}, its unknown phase {unknown}",
                io.page_cache_ns
            ));
        }
        let requests = sum([io.known, io.unphased]);
        let what = format!("requests of {name} with and without phases");
        self.equal(&what, requests, "the class has", class.count);
        let by = vslice_core::join::NoPhase::ALL.map(|reason| io.unphased_by.get(reason));
        let what = format!("io.classes.{name}.unphased");
        self.equal(&what, io.unphased, "its reasons add up to", sum(by));
    }

    pub(super) fn causes(&mut self, OfClass { name, class, io, causes, .. }: &OfClass<'_>) {
        let causes_ns = sum(causes.iter().map(|cause| cause.total_ns));
        let latency = format!("classes.{name}.latency_ns");
        self.equal(&format!("the sum of causes.{name}"), causes_ns, &latency, class.latency_ns);
        for cause in *causes {
            let total_ns = cause.part.map_or_else(
                || match cause.phase {
                    Phase::GuestQueue => sum(Part::ALL.map(|part| io.queue_context(part))),
                    phase => io.phases_ns.get(&phase).copied().unwrap_or(0),
                },
                |part| match cause.phase {
                    Phase::GuestQueue => {
                        io.get(cause.phase, part).saturating_sub(io.queue_context(part))
                    }
                    phase => io.get(phase, part),
                },
            );
            let what = format!("the cause '{}' of {name}", cause.label());
            self.equal(&what, cause.total_ns, "its phase and part have", total_ns);
            self.share(&format!("the share of {what}"), cause.share);
        }
        if !causes.is_sorted_by_key(|cause| std::cmp::Reverse(cause.total_ns)) {
            self.violations.push(format!("causes.{name} is not in order"));
        }
    }

    pub(super) fn inactivity(&mut self, OfClass { name, class, io, .. }: &OfClass<'_>) {
        let parts = sum(io.inactivity_parts_ns.values().copied());
        let what = format!("io.classes.{name}.inactivity_ns");
        self.equal(&what, io.inactivity_ns, "its parts add up to", parts);
        for (part, length_ns) in &io.inactivity_parts_ns {
            let what = format!("the inactivity of {name} by {}", part.name());
            let completed_ns = io.get(Phase::Completed, *part);
            self.equal(&what, *length_ns, "completed and it at once are", completed_ns);
        }
        self.share(&format!("io.classes.{name}.inactivity_share"), io.inactivity_share);
        self.at_most(
            &format!("io.classes.{name}.inactive"),
            io.inactive,
            "the requests with phases",
            io.known,
        );
        self.at_most(&what, io.inactivity_ns, "the class's latency", class.latency_ns);
    }

    /// What the names of a group ran is in what the group ran. Where a group got a row later than its names, what
    /// it ran before is its error.
    fn groups<'a>(&mut self, of: &str, groups: impl Iterator<Item = &'a AntagonistGroup>) {
        for group in groups {
            self.share(&format!("a group's share of {of}"), group.share);
            let members = sum(group.members.iter().map(|member| member.ran_ns));
            let what = format!("what the names of {} ran of {of}", group.name);
            self.at_most(&what, members, "what it ran", sum([group.ran_ns, group.error_ns]));
        }
    }

    /// A class of slower requests lies within one of more.
    pub(super) fn nested(&mut self, outer: &OfClass<'_>, inner: &OfClass<'_>) {
        let limit = format!("that of {}", outer.name);
        let mut within = |what: &str, is, most| {
            self.at_most(&format!("{what} of {}", inner.name), is, &limit, most);
        };
        let (one, other) = (inner.class, outer.class);
        within("count", one.count, other.count);
        within("unattributable", one.unattributable, other.unattributable);
        within("latency_ns", one.latency_ns, other.latency_ns);
        within("wait_ns", one.wait_ns, other.wait_ns);
        within("clock_uncertain", one.clock_uncertain, other.clock_uncertain);
        within("known", inner.io.known, outer.io.known);
        within("unphased", inner.io.unphased, outer.io.unphased);
        within("inactive", inner.io.inactive, outer.io.inactive);
        within("idle_ns", one.idle_ns, other.idle_ns);
        for row in &one.antagonists {
            let who = |row: &ClassAntagonist| {
                let thread = &row.antagonist.thread;
                let victim = (row.victim_vm.clone(), row.victim_vcpu, row.pcpu);
                (victim, thread.name.clone(), thread.kind, row.antagonist.group.clone())
            };
            let same = other.antagonists.iter().filter(|of| who(of) == who(row));
            // Of a row with an error, that much may be among the others.
            let most = same.map(|of| sum([of.antagonist.ran_ns, of.antagonist.error_ns]));
            let what = format!("what {} ran", row.antagonist.thread.name);
            within(&what, row.antagonist.ran_ns, sum(most));
        }
        for part in Part::ALL {
            within(part.name(), inner.parts.get(part), outer.parts.get(part));
            for phase in Phase::ALL {
                let what = format!("{} in {}", part.name(), phase.name());
                within(&what, inner.io.get(phase, part), outer.io.get(phase, part));
            }
        }
    }

    /// Without a cause requests are faster, by no more than what they had of it; the causes add up to all that they
    /// took. The percentiles need not add up: who is the slowest changes with what is taken away.
    pub(super) fn what_if(
        &mut self,
        what_if: Option<&WhatIf>,
        all: &OfClass<'_>,
        latency_ns: &LatencyNs,
    ) {
        let Some(what_if) = what_if else { return };
        let OfClass { name, class, io, causes, .. } = all;
        let what = |what: &str| format!("{what} of {name} without a cause");
        self.equal(&what("the requests"), what_if.attributed, "attributed are", class.count);
        let left_out = "those that are not attributed are";
        self.equal(&what("the others"), what_if.unattributed, left_out, class.unattributable);
        let taken_ns = sum(what_if.causes.iter().map(|row| row.without.taken_ns));
        self.equal(&what("what is taken"), taken_ns, "their latency is", class.latency_ns);
        let measured = Percentiles::from(latency_ns);
        let taken_of = |kind| {
            let row = what_if.causes.iter().find(|row| row.cause == kind);
            row.map_or(0, |row| row.without.taken_ns)
        };
        for group in groups(causes) {
            let what = format!("what is taken of {name} with {}", group.kind.name());
            self.equal(&what, taken_of(group.kind), "its causes have", group.total_ns);
        }
        for row in &what_if.causes {
            self.without(&format!("{name} without {}", row.cause.name()), &row.without, measured);
        }
        let is_phased = what_if.inactivity.is_some();
        let what = format!("whether the inactivity of {name} is known");
        self.equal(&what, is_phased.into(), "with phases are some", (io.known > 0).into());
        if let Some(without) = &what_if.inactivity {
            let what = format!("the inactivity that is taken of {name}");
            self.equal(&what, without.taken_ns, "there is", io.inactivity_ns);
            self.without(&format!("{name} without inactivity"), without, measured);
        }
        for row in &what_if.antagonist_groups {
            let what = format!("{name} without {}", row.name);
            let waits = "what the waits for a pCPU take";
            self.at_most(&what, row.without.taken_ns, waits, taken_of(Kind::PcpuWait));
            self.without(&what, &row.without, measured);
        }
    }

    /// Nothing is slower than it was, and nothing that is taken away leaves all as it was.
    fn without(&mut self, what: &str, without: &Without, measured: Percentiles) {
        let Without { taken_ns, latency_ns, low_ns, high_ns, .. } = *without;
        let ascending = [low_ns, latency_ns, high_ns, measured];
        for pair in ascending.windows(2) {
            for (lower, higher) in pair[0].all().into_iter().zip(pair[1].all()) {
                // One that is not known lies below all that are.
                if lower > higher {
                    self.violations.push(format!("{what} does not ascend: {ascending:?}"));
                }
            }
        }
        for of in [low_ns, latency_ns, high_ns] {
            if !of.all().is_sorted() {
                self.violations.push(format!("the percentiles of {what} do not ascend: {of:?}"));
            }
        }
        if taken_ns == 0 && latency_ns != measured {
            self.violations.push(format!("{what}, of which nothing is taken, is not as it was"));
        }
    }

    fn percentiles(&mut self, latency_ns: &LatencyNs) {
        let LatencyNs { min, mean, p50, p90, p99, p999, p9999, max } = *latency_ns;
        self.ascending("latency_ns", &[min, p50, p90, p99, p999, p9999, max]);
        self.ascending("latency_ns.mean between its ends", &[min, mean, max]);
    }

    fn timeslices(&mut self, vcpu: &str, timeslices: &Timeslices) {
        let Timeslices { count: _, mean_ns, cv: _, p10_ns, p50_ns, p90_ns, p99_ns, max_ns } =
            *timeslices;
        self.ascending(
            &format!("the timeslices of {vcpu}"),
            &[p10_ns, p50_ns, p90_ns, p99_ns, max_ns],
        );
        self.ascending(&format!("the mean timeslice of {vcpu}"), &[mean_ns, max_ns]);
    }

    fn ascending(&mut self, what: &str, values: &[Option<u64>]) {
        // Of none there are no figures, and of some there are all.
        if !values.is_sorted() || values.iter().any(|value| value.is_none() != values[0].is_none())
        {
            self.violations.push(format!("{what} does not ascend: {values:?}"));
        }
    }

    fn vcpu(&mut self, vcpu: &Vcpu) {
        let name = format!("{} {}", vcpu.vm, vcpu.vcpu);
        let off = vcpu.off_cpu.iter().map(|row| row.total_ns);
        let spans = sum(off.chain([vcpu.on_pcpu_ns]));
        self.equal(
            &format!("on and off the pCPU of {name}"),
            spans,
            "observed are",
            vcpu.observed_ns,
        );
        let groups = vcpu.antagonist_groups.iter().map(|row| row.ran_ns);
        let groups = sum(groups.chain([vcpu.other_groups_ns, vcpu.idle_ns, vcpu.unseen_ns]));
        let what = format!("the groups that ran, others, idle and unseen of {name}");
        self.equal(&what, groups, "its wait_ns is", vcpu.wait_ns);
        self.groups(&name, vcpu.antagonist_groups.iter());
        let ran = vcpu.antagonists.iter().map(|row| row.ran_ns);
        let ran = sum(ran.chain([vcpu.others_ns, vcpu.idle_ns, vcpu.unseen_ns]));
        let what = format!("who ran, others, idle and unseen of {name}");
        self.equal(&what, ran, "its wait_ns is", vcpu.wait_ns);
        for row in &vcpu.antagonists {
            self.share(&format!("an antagonist's share of {name}"), row.share);
        }
        for row in &vcpu.off_cpu {
            let what = format!("the longest {:?} of {name}", row.reason);
            self.at_most(&what, row.max_ns.unwrap_or(0), "their total", row.total_ns);
            self.equal(
                &format!("{what} being there"),
                u64::from(row.max_ns.is_some()),
                "and there being one",
                u64::from(row.count > 0),
            );
        }
        self.timeslices(&name, &vcpu.timeslices);
    }

    fn rows(&mut self, summary: &Summary) {
        for exits in &summary.exits {
            let whole = sum([exits.kvm_ns, exits.vmm_ns, exits.off_ns]);
            let what = format!("exits of {} {} for {}", exits.vm, exits.vcpu, exits.reason);
            self.equal(&what, exits.total_ns, "their parts add up to", whole);
        }
        for worst in &summary.worst {
            let what = format!("the parts of request {} of {}", worst.index, worst.vm);
            self.equal(&what, worst.parts.total_ns(), "its latency is", worst.latency_ns);
            for row in worst.chain.iter().flat_map(|span| &span.antagonists) {
                self.share(&format!("an antagonist's share of request {}", worst.index), row.share);
            }
        }
        let sampled = summary.facts.sampled.iter().flat_map(|sampled| &sampled.vcpus);
        for row in sampled.flat_map(|vcpu| &vcpu.shares) {
            let shares = [row.low, row.share, row.high].into_iter();
            shares.for_each(|share| self.share("a sampled share", share));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::example;
    use crate::summary::selection::Selection;
    use vslice_core::units::VcpuId;

    /// What is wrong with the example once it has been changed so.
    fn broken(change: impl FnOnce(&mut Summary)) -> Vec<String> {
        let mut summary = example::summary();
        assert_eq!(violations(&summary), Vec::<String>::new());
        change(&mut summary);
        violations(&summary)
    }

    fn has(found: Vec<String>, told: &str) {
        assert!(found.iter().any(|violation| violation.starts_with(told)), "{told}: {found:#?}");
    }

    fn what_if(summary: &mut Summary) -> &mut WhatIf {
        summary.what_if.as_mut().expect("the example has attributed requests")
    }

    #[test]
    fn every_law_can_be_broken_and_is_named_with_its_numbers() {
        let part = Part::BqlWait;
        has(broken(|run| run.parts.p99.add(part, 1)), "the sum of parts.p99 is");
        has(broken(|run| run.parts.p99.add(part, 1)), "bql_wait of p99 over the phases is");
        has(
            broken(|run| *run.io.classes.all.phases_ns.get_mut(&Phase::Device).unwrap() += 1),
            "the sum of the phases of all is",
        );
        has(
            broken(|run| run.io.classes.all.parts_ns.get_mut(&Phase::Device).unwrap().add(part, 1)),
            "the sum of the parts of all in device is",
        );
        has(broken(|run| run.causes.p99[0].total_ns += 1), "the sum of causes.p99 is");
        has(broken(|run| run.causes.p99.swap(0, 1)), "causes.p99 is not in order");
        has(
            broken(|run| run.causes.all[0].share = 1.5),
            "the share of the cause 'in the host's disk'",
        );
        has(broken(|run| run.io.classes.all.inactivity_ns += 1), "io.classes.all.inactivity_ns is");
        has(
            broken(|run| run.io.classes.all.inactivity_share = -0.1),
            "io.classes.all.inactivity_share is -0.1",
        );
        has(
            broken(|run| run.classes.p99.others_ns += 1),
            "who ran, others, idle and unseen of p99 is",
        );
        has(broken(|run| run.classes.p99.wait_ns += 1), "classes.p99.wait_ns is");
        has(
            broken(|run| run.classes.all.antagonists[0].antagonist.share = 2.28),
            "an antagonist's share in all is 2.28",
        );
        has(
            broken(|run| run.classes.p99.other_groups_ns += 1),
            "the groups that ran, others, idle and unseen in p99 is",
        );
        has(
            broken(|run| run.vcpus[1].antagonist_groups[0].ran_ns += 1),
            "the groups that ran, others, idle and unseen of vm1 vCPU1 is",
        );
        has(
            broken(|run| run.vcpus[1].antagonist_groups[0].members[0].ran_ns = 1 << 40),
            "what the names of vm2 ran of vm1 vCPU1 is",
        );
        has(
            broken(|run| run.classes.p999 = run.classes.all.clone()),
            "count of p999 is 1999, more than that of p99, 19",
        );
        has(
            broken(|run| run.requests.unattributable += 1),
            "requests.unattributable is 2, but its reasons add up to 1",
        );
        has(broken(|run| run.requests.count -= 1), "requests.count is");
        has(
            broken(|run| run.io.classes.p99.unphased += 1),
            "requests of p99 with and without phases is",
        );
        has(broken(|run| run.vcpus[1].observed_ns += 1), "on and off the pCPU of vm1 vCPU1 is");
        has(
            broken(|run| run.vcpus[1].unseen_ns += 1),
            "who ran, others, idle and unseen of vm1 vCPU1 is",
        );
        has(broken(|run| run.worst[0].latency_ns += 1), "the parts of request 700 of vm1 is");
    }

    #[test]
    fn every_law_of_what_would_be_without_a_cause_can_be_broken() {
        has(broken(|run| what_if(run).attributed += 1), "the requests of all without a cause is");
        has(broken(|run| what_if(run).unattributed += 1), "the others of all without a cause is 2");
        has(
            broken(|run| what_if(run).causes[0].without.taken_ns += 1),
            "what is taken of all without a cause is",
        );
        has(
            broken(|run| what_if(run).causes[0].without.taken_ns += 1),
            "what is taken of all with device is",
        );
        has(
            broken(|run| what_if(run).causes[0].without.latency_ns.p99 = Some(u64::MAX)),
            "all without device does not ascend",
        );
        has(
            broken(|run| what_if(run).causes[0].without.low_ns.p50 = Some(1 << 40)),
            "the percentiles of all without device do not ascend",
        );
        has(
            broken(|run| what_if(run).inactivity.iter_mut().for_each(|of| of.taken_ns = 0)),
            "all without inactivity, of which nothing is taken, is not as it was",
        );
        has(
            broken(|run| what_if(run).inactivity = None),
            "whether the inactivity of all is known is 0",
        );
        has(
            broken(|run| what_if(run).antagonist_groups[0].without.taken_ns = 1 << 40),
            "all without vm2 is 1099511627776, more than what the waits for a pCPU take",
        );
    }

    #[test]
    fn every_law_of_a_part_can_be_broken() {
        let part = |change: fn(&mut Selection)| {
            broken(|run| {
                *run = example::part();
                assert_eq!(violations(run), Vec::<String>::new());
                run.facts.selection.iter_mut().for_each(change);
            })
        };
        has(part(|of| of.of_ns = 1), "selection.until_ns is 1100000000, more than the run's");
        has(part(|of| of.since_ns += 1), "measured_ns is 1000000000, but the part's length is");
        has(part(|of| of.slower_than_ns = Some(1 << 40)), "selection.slower_than_ns is");
        has(part(|of| of.vms = vec!["vm2".to_owned()]), "vm1 vCPU0 is not of this part");
        has(part(|of| of.vms = vec!["vm2".to_owned()]), "a request of vm1 at");
        has(part(|of| of.vcpus = vec![VcpuId(1)]), "vm1 vCPU0 is not of this part");
        has(part(|of| of.since_ns = 300_000_000), "a request of vm1 at 255");
        has(part(|of| of.until_ns = 300_000_000), "a request of vm1 at 341");
    }

    #[test]
    fn the_first_violations_are_told_and_how_many_more_there_are() {
        let violations = (1..=7).map(|number| format!("law {number}")).collect();
        let told = Inconsistent { violations }.to_string();
        assert_eq!(told, "inconsistent: law 1; law 2; law 3; law 4; law 5; and 2 more");
    }
}
