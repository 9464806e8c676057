//! One sentence on where the tail went, made of the numbers and of nothing else.

use super::model::{Class, ClassAntagonist, PartTotals, Relation, Summary, share};
use super::text::units::{duration, whole_percent};
use crate::join::Part;

/// Something explains the tail if it takes at least this share of its time ...
pub const DOMINANT_SHARE: f64 = 0.5;

/// ... and leads whatever comes next by at least this much of it.
pub const DOMINANT_LEAD: f64 = 0.1;

/// A part with at least this share is named where nothing dominates.
const NAMED_SHARE: f64 = 0.1;

/// What the run says of its slow requests. The names in it come from guests and hosts: whoever
/// prints it sanitises it.
#[must_use]
pub fn verdict(summary: &Summary) -> String {
    if summary.requests.count == 0 {
        return "No request was recorded, so there is no latency to explain.".to_owned();
    }
    let opening = format!("99th percentile: {}.", duration(summary.latency_ns.p99));
    let tail = &summary.classes.p99;
    if tail.count > 0 {
        let because = because(summary, tail, &summary.parts.p99);
        return format!("{opening} Above it, {because}{}", left_out(tail));
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
        "{opening} No request was slower than that. Over all of them, {because}{}",
        left_out(all)
    )
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
    match row.antagonist.thread.kind {
        Relation::Idle => format!("{vm} {vcpu} was runnable while {pcpu} was idle"),
        _ => format!("{vm} {vcpu} was runnable but {} had {pcpu}", row.antagonist.thread.name),
    }
}

/// How a wait that no one thread explains was shared out.
fn shared(class: &Class) -> String {
    class.antagonists.first().map_or_else(String::new, |row| {
        let thread = &row.antagonist.thread;
        let percent = whole_percent(row.antagonist.share);
        match thread.kind {
            Relation::Idle => format!(" ({} was idle for {percent} of the waits)", row.pcpu),
            _ => format!(" ({} ran for {percent} of the waits)", thread.name),
        }
    })
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
        Part::Futex => format!("{who} slept on a futex, a lock or a condition of the VMM"),
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
        Part::Futex => "futex",
        Part::Halt => "halt",
        Part::OtherSleep => "other sleep",
        Part::Unknown => "unknown",
    }
}
