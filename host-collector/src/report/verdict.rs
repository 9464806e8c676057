//! One sentence on where the tail went, made of the numbers and of nothing else.

use super::evidence::EvidenceLevel;
use super::io::IoClass;
use super::model::{Class, ClassAntagonist, Summary, Vcpu};
use super::text::units::{duration, percent, whole_percent};
use super::totals::{PartTotals, share};
use crate::join::Part;
use crate::sampling::Doing;
use std::fmt::Write as _;

/// Something explains the tail if it takes at least this share of its time ...
pub const DOMINANT_SHARE: f64 = 0.5;

/// ... and leads whatever comes next by at least this much of it.
pub const DOMINANT_LEAD: f64 = 0.1;

/// A part with at least this share is named where nothing dominates.
const NAMED_SHARE: f64 = 0.1;

/// I/O inactivity is named if it takes at least this share of the tail's time.
pub const INACTIVITY_SHARE: f64 = 0.25;
/// A sampled reason with at least this share is named.
const SAMPLED_SHARE_NAMED: f64 = 0.02;

/// What the run says of its slow requests. The names in it come from guests and hosts: whoever
/// prints it sanitises it.
#[must_use]
pub fn verdict(summary: &Summary) -> String {
    if summary.requests.count == 0 {
        return without_requests(summary);
    }
    let unplaced = summary.requests.unattributable_by.unplaced();
    if summary.requests.count == unplaced {
        return "No request has a place on the host's clock, so there is no latency to explain."
            .to_owned();
    }
    let opening = format!("99th percentile: {}.", duration(summary.latency_ns.p99));
    if summary.evidence.level != EvidenceLevel::Recorded {
        return format!("{opening} {}", without_events(summary));
    }
    let tail = &summary.classes.p99;
    if tail.count > 0 {
        let because = because(summary, tail, &summary.parts.p99);
        let inactivity = inactivity(summary, &summary.io.classes.p99);
        return format!("{opening} Above it, {because}{inactivity}{}", left_out(tail));
    }
    if tail.unattributable > 0 {
        let lost = "no request could be given to causes: they touch losses or lie outside of what \
                    was recorded";
        return format!("{opening} Above it, {lost}.");
    }
    let all = &summary.classes.all;
    if all.count == 0 {
        return format!("{opening} No request at all could be given to causes.");
    }
    let because = because(summary, all, &summary.parts.all);
    format!(
        "{opening} No request was slower than that. Over all of them, {because}{}{}",
        inactivity(summary, &summary.io.classes.all),
        left_out(all)
    )
}

/// Where nobody asked for anything: the vCPU that was kept from its pCPU most.
fn without_requests(summary: &Summary) -> String {
    let opening = "No request was recorded, so there is no latency to explain.";
    let waited = |vcpu: &&Vcpu| share(vcpu.wait_ns, vcpu.observed_ns);
    let most = summary.vcpus.iter().max_by(|one, other| waited(one).total_cmp(&waited(other)));
    let Some(vcpu) = most.filter(|vcpu| vcpu.wait_ns > 0) else { return opening.to_owned() };
    let percent = percent(waited(&vcpu));
    let by = vcpu.antagonists.first().filter(|first| first.share >= DOMINANT_SHARE);
    let by = by.map(|first| format!(", mostly while {} ran there", first.thread.name));
    format!(
        "{opening} Of the vCPUs {} {} waited for a pCPU most, {percent} of its time{}.",
        vcpu.vm,
        vcpu.vcpu,
        by.unwrap_or_default()
    )
}

/// A wait for a pCPU while the data is there is one that a faster disk does not help.
fn inactivity(summary: &Summary, io: &IoClass) -> String {
    if io.inactivity_share < INACTIVITY_SHARE {
        return String::new();
    }
    let percent = whole_percent(io.inactivity_share);
    let who = who(summary);
    format!("; {percent} is I/O inactivity: the host had the data, and {who} no pCPU to take it")
}

/// Of a run without events: nothing about single requests, and of the vCPUs what is known. The vCPUs
/// named are those that made requests.
fn without_events(summary: &Summary) -> String {
    let mut text = "What happened to single requests was not recorded.".to_owned();
    let is_reader = |vm: &str, vcpu| {
        let mut clocks = summary.clock.vcpus.iter().filter(|clock| clock.requests > 0);
        clocks.any(|clock| clock.vm == vm && clock.vcpu == vcpu)
    };
    for row in summary.scheduled.iter().filter(|row| is_reader(&row.vm, row.vcpu)) {
        let of_time = |length_ns| whole_percent(share(length_ns, row.observed_ns));
        let (on, waiting) = (of_time(row.on_pcpu_ns), of_time(row.run_delay_ns));
        let _ = write!(
            text,
            " In the whole run {} {} was on a pCPU for {on} of the time and waited for one for \
             {waiting}",
            row.vm, row.vcpu
        );
        let sampled = summary.sampled.iter().flat_map(|sampled| &sampled.vcpus);
        let of_vcpu = sampled.filter(|seen| (&seen.vm, seen.vcpu) == (&row.vm, row.vcpu));
        let shares = of_vcpu.flat_map(|seen| &seen.shares);
        let asleep = shares.filter(|share| share.what.0 != Doing::Runnable);
        let named: Vec<String> = asleep
            .filter(|share| share.share >= SAMPLED_SHARE_NAMED)
            .map(|row| {
                let (low, high) = (whole_percent(row.low), whole_percent(row.high));
                format!("{} {low} to {high}", row.label())
            })
            .collect();
        if !named.is_empty() {
            let _ = write!(text, "; asleep, sampled: {}", named.join(", "));
        }
        text.push('.');
    }
    text
}

fn left_out(class: &Class) -> String {
    match class.unattributable {
        0 => ".".to_owned(),
        1 => ". One more request there could not be given to causes.".to_owned(),
        more => format!(". {more} more requests there could not be given to causes."),
    }
}

fn because(summary: &Summary, class: &Class, parts: &PartTotals) -> String {
    if class.latency_ns == 0 {
        return "the requests took no measurable time".to_owned();
    }
    let of_class = |length_ns| share(length_ns, class.latency_ns);
    let mut ranked: Vec<(Part, f64)> =
        Part::ALL.into_iter().map(|part| (part, of_class(parts.get(part)))).collect();
    ranked.sort_by(|left, right| right.1.total_cmp(&left.1));

    let is_wait = |part| matches!(part, Part::PreemptWait | Part::WakeupDelay);
    let next_to_waits =
        ranked.iter().find(|(part, _)| !is_wait(*part)).map_or(0.0, |(_, share)| *share);
    if let Some(row) = class.antagonists.first() {
        let had = of_class(row.antagonist.ran_ns);
        if dominates(had, next_to_waits) {
            let percent = whole_percent(had);
            return format!("{percent} of the requests' time {}", antagonist(row));
        }
    }
    let idle = of_class(class.idle_ns);
    if dominates(idle, next_to_waits) {
        let (percent, who) = (whole_percent(idle), who(summary));
        return format!(
            "{percent} of the requests' time {who} was runnable while its pCPU was idle"
        );
    }
    let (part, largest) = ranked[0];
    if dominates(largest, ranked[1].1) {
        let percent = whole_percent(largest);
        let what = state(part, &who(summary));
        let split = if is_wait(part) { shared(class) } else { String::new() };
        return format!("{percent} of the requests' time {what}{split}");
    }
    let named: Vec<String> = ranked
        .iter()
        .enumerate()
        .filter(|(rank, (_, share))| *rank < 2 || *share >= NAMED_SHARE)
        .map(|(_, (part, share))| format!("{} {}", whole_percent(*share), label(*part)))
        .collect();
    format!("no single cause dominates: {}", named.join(", "))
}

fn dominates(largest: f64, next: f64) -> bool {
    largest >= DOMINANT_SHARE && largest - next >= DOMINANT_LEAD
}

fn antagonist(row: &ClassAntagonist) -> String {
    let (vm, vcpu, pcpu) = (&row.victim_vm, row.victim_vcpu, row.pcpu);
    format!("{vm} {vcpu} was runnable but {} had {pcpu}", row.antagonist.thread.name)
}

/// How a wait that no one explains was shared out.
fn shared(class: &Class) -> String {
    let first = class.antagonists.first().filter(|row| row.antagonist.ran_ns > class.idle_ns);
    if let Some(ClassAntagonist { antagonist, .. }) = first {
        let percent = whole_percent(antagonist.share);
        return format!(" ({} ran for {percent} of the waits)", antagonist.thread.name);
    }
    if class.idle_ns == 0 {
        return String::new();
    }
    let percent = whole_percent(share(class.idle_ns, class.wait_ns));
    format!(" (nobody ran for {percent} of the waits)")
}

/// The vCPU that made the requests, if it was one: the class of all knows every vCPU that waited,
/// but only a reader that never waited leaves none; the slowest requests name it then.
fn who(summary: &Summary) -> String {
    let mut vcpus: Vec<_> = summary.worst.iter().map(|worst| (&worst.vm, worst.vcpu)).collect();
    let waited = summary.classes.all.antagonists.iter();
    vcpus.extend(waited.map(|row| (&row.victim_vm, row.victim_vcpu)));
    vcpus.sort();
    vcpus.dedup();
    match vcpus.as_slice() {
        [(vm, vcpu)] => format!("{vm} {vcpu}"),
        _ => "the requesting vCPU".to_owned(),
    }
}

fn state(part: Part, who: &str) -> String {
    match part {
        Part::OnPcpu => format!("{who} was on a pCPU: in the guest, in KVM or in the VMM"),
        Part::PreemptWait => format!("{who} was runnable but had lost its pCPU"),
        Part::WakeupDelay => format!("{who} had been woken but was not yet on a pCPU"),
        Part::Guest => format!("{who} was on a pCPU, in the guest"),
        Part::Kvm => format!("{who} was on a pCPU, in KVM"),
        Part::VmmUser => format!("{who} was on a pCPU, in the VMM"),
        Part::Throttled => format!("{who} was kept off its pCPU by its control group's quota"),
        Part::BqlWait => format!("{who} slept on QEMU's big lock"),
        Part::LockWait => format!("{who} slept on a lock of the VMM"),
        Part::HostFault => format!("{who} waited for memory of the host"),
        Part::IoSubmit => format!("{who} waited for disk I/O that it did itself"),
        Part::Halt => format!("{who} was halted: the guest was idle, normally for the device"),
        Part::OtherSleep => format!("{who} slept somewhere else in the host's kernel"),
        Part::Unknown => format!("it is not known what {who} did"),
    }
}

/// A part as it is called on a page.
#[must_use]
pub fn label(part: Part) -> &'static str {
    match part {
        Part::OnPcpu => "on a pCPU",
        Part::PreemptWait => "preemption wait",
        Part::WakeupDelay => "wakeup delay",
        Part::Guest => "in the guest",
        Part::Kvm => "in KVM",
        Part::VmmUser => "in the VMM",
        Part::Throttled => "quota used up",
        Part::BqlWait => "BQL wait",
        Part::LockWait => "lock wait",
        Part::HostFault => "host fault",
        Part::IoSubmit => "own disk I/O",
        Part::Halt => "halt",
        Part::OtherSleep => "other sleep",
        Part::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::Attribution;
    use crate::report::example::{self, blocked, preempted, request, running, woken};
    use crate::report::{Summary, SummaryBuilder};
    use crate::timeline::{Reason, Span};
    use crate::units::HostNs;

    /// 990 requests of 100 us and 10 slow ones, of these spans.
    fn run(slow: &[Span], attribution: Attribution) -> Summary {
        let mut builder = SummaryBuilder::new(example::START, example::vms());
        for index in 0..1000 {
            let is_slow = index >= 990;
            let spans = if is_slow { slow.to_vec() } else { vec![running(100_000)] };
            let mut breakdown = request(index, HostNs(2_000_000_000), spans);
            if is_slow {
                breakdown.attribution = attribution;
            }
            builder.breakdown(example::VM1, breakdown);
        }
        builder.finish(example::facts(), &example::names())
    }

    fn tail(slow: &[Span]) -> String {
        let verdict = verdict(&run(slow, Attribution::Attributed));
        let (opening, tail) = verdict.split_once(". ").unwrap();
        assert_eq!(opening, "99th percentile: 100 us");
        tail.to_owned()
    }

    #[test]
    fn one_antagonist_is_named_with_what_it_ran() {
        let slow = [running(500_000), preempted(5_500_000, &[(201, 5_400_000), (7, 100_000)])];
        assert_eq!(
            tail(&slow),
            "Above it, 90 % of the requests' time vm1 vCPU1 was runnable but vm2 vCPU1 had pCPU1."
        );
    }

    #[test]
    fn an_antagonist_counts_over_both_kinds_of_wait() {
        let mut late = preempted(4_000_000, &[(201, 4_000_000)]);
        late.state = woken(0).state;
        let slow = [preempted(4_000_000, &[(201, 4_000_000)]), late, running(2_000_000)];
        assert!(tail(&slow).contains("80 % of the requests' time vm1 vCPU1 was runnable but vm2"));
    }

    #[test]
    fn a_pcpu_that_idled_is_nobodys_fault() {
        let slow = [preempted(6_000_000, &[(0, 6_000_000)])];
        assert_eq!(
            tail(&slow),
            "Above it, 100 % of the requests' time vm1 vCPU1 was runnable while its pCPU was idle."
        );
    }

    #[test]
    fn waits_shared_by_many_are_no_ones() {
        let ran: Vec<(u32, u64)> = (300..310).map(|tid| (tid, 600_000)).collect();
        assert_eq!(
            tail(&[preempted(6_000_000, &ran)]),
            "Above it, 100 % of the requests' time vm1 vCPU1 was runnable but had lost its pCPU \
             (tid 300 ran for 10 % of the waits)."
        );
    }

    #[test]
    fn a_part_that_dominates_is_said_in_words() {
        let slow = [running(1_000_000), blocked(Reason::Bql, 3_000_000)];
        assert_eq!(
            tail(&slow),
            "Above it, 75 % of the requests' time vm1 vCPU1 slept on QEMU's big lock."
        );
    }

    #[test]
    fn a_tie_names_both_and_blames_neither() {
        let slow = [running(3_000_000), preempted(3_000_000, &[(201, 3_000_000)])];
        assert_eq!(
            tail(&slow),
            "Above it, no single cause dominates: 50 % on a pCPU, 50 % preemption wait."
        );
        let slow = [running(5_200_000), preempted(4_800_000, &[(201, 4_800_000)])];
        assert_eq!(
            tail(&slow),
            "Above it, no single cause dominates: 52 % on a pCPU, 48 % preemption wait."
        );
        let slow = [
            running(4_500_000),
            blocked(Reason::Bql, 4_000_000),
            blocked(Reason::Halt, 1_000_000),
            woken(500_000),
        ];
        assert_eq!(
            tail(&slow),
            "Above it, no single cause dominates: 45 % on a pCPU, 40 % BQL wait, 10 % halt."
        );
    }

    #[test]
    fn what_could_not_be_attributed_is_not_explained() {
        let slow = [preempted(6_000_000, &[(201, 6_000_000)])];
        assert_eq!(
            verdict(&run(&slow, Attribution::Lost)),
            "99th percentile: 100 us. Above it, no request could be given to causes: they touch \
             losses or lie outside of what was recorded."
        );
    }

    #[test]
    fn where_nothing_is_above_the_percentile_all_requests_are_told_of() {
        assert_eq!(
            verdict(&run(&[running(100_000)], Attribution::Attributed)),
            "99th percentile: 100 us. No request was slower than that. Over all of them, 100 % of \
             the requests' time vm1 vCPU1 was on a pCPU: in the guest, in KVM or in the VMM."
        );
    }

    #[test]
    fn inactivity_is_said_if_it_is_a_large_share_of_the_tail() {
        let inactive = |completed_ns| {
            let mut builder = SummaryBuilder::new(example::START, example::vms());
            for index in 0..1000 {
                let wait = preempted(6_000_000, &[(201, 6_000_000)]);
                let spans = if index >= 990 { vec![running(10_000), wait] } else { vec![woken(9)] };
                let mut breakdown = request(index, HostNs(2_000_000_000), spans);
                if index >= 990 {
                    example::set_io(&mut breakdown, 5_000, completed_ns);
                }
                builder.breakdown(example::VM1, breakdown);
            }
            let summary = builder.finish(example::facts(), &example::names());
            assert_eq!(summary.io.classes.p99.inactive, 10);
            verdict(&summary)
        };
        let said =
            "; 83 % is I/O inactivity: the host had the data, and vm1 vCPU1 no pCPU to take it.";
        assert!(inactive(1_010_000).ends_with(said), "{}", inactive(1_010_000));
        assert!(!inactive(5_000_000).contains("inactivity"));
    }

    #[test]
    fn an_empty_run_has_nothing_to_explain() {
        let builder = SummaryBuilder::new(example::START, example::vms());
        let summary = builder.finish(example::facts(), &example::names());
        assert_eq!(
            verdict(&summary),
            "No request was recorded, so there is no latency to explain."
        );
    }

    #[test]
    fn without_requests_the_vcpu_that_waited_most_is_named() {
        let mut summary = example::summary();
        summary.requests.count = 0;
        let has_rival = |vcpu: &Vcpu| !vcpu.antagonists.is_empty();
        let place = summary.vcpus.iter().position(has_rival).unwrap();
        let vcpu = &mut summary.vcpus[place];
        (vcpu.observed_ns, vcpu.wait_ns) = (1_000, 900);
        vcpu.antagonists[0].share = 0.5;
        let (vm, name) = (vcpu.vm.clone(), vcpu.antagonists[0].thread.name.clone());
        let by =
            format!("Of the vCPUs {vm} {} waited for a pCPU most, 90.0 % of its time", vcpu.vcpu);
        let told = verdict(&summary);
        assert!(told.ends_with(&format!("{by}, mostly while {name} ran there.")), "{told}");
        summary.vcpus[place].antagonists[0].share = 0.4;
        assert!(verdict(&summary).ends_with(&format!("{by}.")), "{}", verdict(&summary));
    }
}
