//! The sentence that explains the tail, made only of the numbers.

use super::causes::groups;
use super::evidence::ScheduledVcpu;
use super::hindrance::{Hindrance, REPORTED_SHARE_MIN, most_hindered};
use super::host_io::{HostIoOperation, range};
use super::model::{Class, Summary, Vcpu};
use super::observed::answer;
use super::quota;
use super::reason::OffReason;
use super::sentence::{ClassAnswer, Subject};
use super::totals::{share, sum};
use std::fmt::Write as _;
use vslice_core::join::Part;
use vslice_core::samples::Doing;
use vslice_core::units::VcpuId;
use vslice_spec::quantity::{count, counted, known_duration, percent, whole_percent};
use vslice_trace::evidence::EvidenceLevel;

/// Something explains the tail if it takes at least this share of its time ...
pub const DOMINANT_SHARE: f64 = 0.5;

/// ... and leads whatever comes next by at least this much of it.
pub const DOMINANT_LEAD: f64 = 0.1;

/// I/O inactivity beside what dominates is named if it takes at least this share of the tail's time.
pub const INACTIVITY_SHARE: f64 = 0.25;

/// That nothing kept a vCPU is only said of one of which this share of the window was seen.
const SEEN_SHARE_MIN: f64 = 0.95;

/// Who ran for at least this share of a vCPU's waits is named where nobody ran for most of them.
const NAMED_SHARE: f64 = 0.1;

/// A sampled reason with at least this share is named.
const SAMPLED_SHARE_NAMED: f64 = 0.02;

/// The run's verdict on its slow requests. The names in it come from guests and hosts: whoever prints it must
/// sanitise it.
#[must_use]
pub fn verdict(summary: &Summary) -> String {
    if summary.facts.measured_ns == 0 {
        return "Nothing was measured, so there is nothing to explain.".to_owned();
    }
    if let Some(nothing) = of_empty_part(summary) {
        return nothing;
    }
    let observed = answer::sentence(summary);
    if summary.requests.count == 0 {
        if let Some(observed) = observed.filter(|_| answer::unobserved(summary).is_none()) {
            return observed;
        }
        return match summary.facts.evidence.level {
            EvidenceLevel::Recorded => without_requests(summary),
            EvidenceLevel::Sampled | EvidenceLevel::Totals => without_requests_and_events(summary),
        };
    }
    let own = of_readers(summary);
    match observed {
        Some(_) if answer::is_of_reader(summary) => own,
        Some(unobserved) if answer::unobserved(summary).is_some() => format!("{own} {unobserved}"),
        Some(observed) => format!("{own} Of all requests of the guests' kernels: {observed}"),
        None => own,
    }
}

/// That a part of a run has none of its requests, which are elsewhere in it.
fn of_empty_part(summary: &Summary) -> Option<String> {
    let left_out = &summary.facts.selection.as_ref()?.left_out;
    let operations = summary.observed.iter().flat_map(|observed| &observed.operations);
    let there = sum(operations.map(|row| row.count).chain([summary.requests.count]));
    let elsewhere = sum([left_out.reader.total(), left_out.observed.total()]);
    (there == 0 && elsewhere > 0).then(|| {
        "No request of the run is in this part of it, so there is no latency to explain.".to_owned()
    })
}

/// The verdict on the requests of the readers, of which there is one.
fn of_readers(summary: &Summary) -> String {
    let unplaced = summary.requests.unattributable_by.unplaced();
    if summary.requests.count == unplaced {
        return "No request could be placed on the host's clock, so there is no latency to explain."
            .to_owned();
    }
    let opening = format!("99th percentile: {}.", known_duration(summary.latency_ns.p99));
    if summary.facts.evidence.level != EvidenceLevel::Recorded {
        return format!("{opening} {}", without_events(summary));
    }
    let subject = Subject::of_readers(summary);
    if let Some(told) = asked(summary, &subject) {
        let which = match told.class.threshold_ns {
            Some(_) => "In slower requests",
            None => "No request was slower. Over all requests",
        };
        return format!("{opening} {which}, {}{}", told.because(), left_out(told.class));
    }
    if summary.classes.p99.unattributable > 0 {
        return format!(
            "{opening} No slower request could be attributed to causes: they overlap losses or lie outside \
             the recording."
        );
    }
    format!("{opening} No request could be attributed to causes.")
}

/// The class that the answer is about: the slow requests, or all of them where none is slower than the
/// others. `None` if none of it was attributed to causes.
fn asked<'a>(summary: &'a Summary, subject: &'a Subject) -> Option<ClassAnswer<'a>> {
    let (classes, io, causes) = (&summary.classes, &summary.io.classes, &summary.causes);
    let tail =
        ClassAnswer { summary, subject, class: &classes.p99, io: &io.p99, causes: &causes.p99 };
    let all =
        ClassAnswer { summary, subject, class: &classes.all, io: &io.all, causes: &causes.all };
    let asked = if tail.class.count + tail.class.unattributable > 0 { tail } else { all };
    let is_recorded = summary.facts.evidence.level == EvidenceLevel::Recorded;
    (is_recorded && asked.class.count > 0).then_some(asked)
}

/// What the requests that the answer is about waited for most, by kind, and its share of their latency in [0,
/// 1]; `None` if that is unknown.
#[must_use]
pub fn first_cause(summary: &Summary) -> Option<(String, f64)> {
    let subject = Subject::of_readers(summary);
    let told = asked(summary, &subject)?;
    let groups = groups(told.causes);
    let first = groups.first()?;
    Some((first.label(), share(first.total_ns, told.class.latency_ns)))
}

/// What is said first where nothing is known of any request.
fn no_requests(summary: &Summary) -> String {
    let why = answer::unobserved(summary);
    let why = why.unwrap_or_else(|| "No request was recorded".to_owned());
    format!("{why}, so there is no latency to explain.")
}

/// Where nobody asked for anything: the vCPU that one thing kept from its work most.
fn without_requests(summary: &Summary) -> String {
    let opening = host_view(summary).unwrap_or_else(|| no_requests(summary));
    if !summary.vcpus.is_empty() && summary.vcpus.iter().all(has_not_moved) {
        return format!(
            "{opening} No vCPU was ever scheduled in or out: the VM was stopped or paused, or nothing \
             woke it."
        );
    }
    let Some((vcpu, hindrance, kept_ns)) = most_hindered(summary) else {
        return opening;
    };
    let share = share(kept_ns, vcpu.observed_ns);
    if share < REPORTED_SHARE_MIN {
        if !summary.vcpus.iter().all(|vcpu| is_seen(summary, vcpu)) {
            return opening;
        }
        let floor = percent(REPORTED_SHARE_MIN);
        return format!(
            "{opening} No vCPU waited for a pCPU, a lock or memory for more than {floor} of its time."
        );
    }
    let percent = percent(share);
    let what = match hindrance {
        Hindrance::RunDelay => {
            let quota = quota::doubt(summary, &[(&vcpu.vm, vcpu.vcpu)]);
            format!("waited most for a pCPU: {percent} of its time{}{quota}", while_ran(vcpu))
        }
        Hindrance::Off(reason) => {
            format!("was held up most: {percent} of its time ({})", reason.label())
        }
    };
    format!("{opening} Of all vCPUs, {} {} {what}.", vcpu.vm, vcpu.vcpu)
}

/// What the host alone saw of the VMs' I/O; `None` if nothing was.
fn host_view(summary: &Summary) -> Option<String> {
    let host_io = &summary.facts.host_io;
    let ended: u64 = host_io.of_disks().map(|row| row.ended).sum();
    if ended == 0 {
        return None;
    }
    let known: u64 = host_io.of_disks().map(|row| row.known).sum();
    let sum =
        |of: fn(&HostIoOperation) -> u64| host_io.of_disks().map(of).fold(0, u64::saturating_add);
    let inactivity = match known {
        0 => "how long they then waited for a vCPU that could take them is unknown".to_owned(),
        _ => {
            let range = range(sum(|row| row.least_ns), sum(|row| row.most_ns));
            let who = if known == ended {
                "they".to_owned()
            } else {
                format!("{} of them", count(known))
            };
            format!(
                "{who} then waited {range} in all for a vCPU that could take them (I/O inactivity)"
            )
        }
    };
    let unobserved = answer::unobserved(summary);
    let unobserved = unobserved
        .unwrap_or_else(|| "No request was observed (attach with --observe for that)".to_owned());
    Some(format!(
        "{unobserved}; on the host, {} for the VMs' disks ended, and \
         {inactivity}.",
        counted(ended, "I/O")
    ))
}

/// The same without events: the vCPU that waited most for a pCPU, by the kernel's totals.
fn without_requests_and_events(summary: &Summary) -> String {
    let waited = |row: &&ScheduledVcpu| share(row.run_delay_ns, row.observed_ns);
    let most =
        summary.facts.scheduled.iter().max_by(|one, other| waited(one).total_cmp(&waited(other)));
    let Some(row) = most.filter(|row| waited(row) >= REPORTED_SHARE_MIN) else {
        return no_requests(summary);
    };
    format!(
        "{} Of all vCPUs, {} {} waited most for a pCPU: {} of its time; what ran there \
         meanwhile was not recorded.",
        no_requests(summary),
        row.vm,
        row.vcpu,
        percent(waited(&row))
    )
}

/// Whether nothing was seen of a vCPU's thread all the time, as it neither came nor went.
fn has_not_moved(vcpu: &Vcpu) -> bool {
    let unseen = vcpu.off_cpu.iter().filter(|row| row.reason == OffReason::NotRecorded);
    vcpu.observed_ns > 0 && sum(unseen.map(|row| row.total_ns)) == vcpu.observed_ns
}

/// Whether it is known of nearly all of the window what a vCPU's thread did.
fn is_seen(summary: &Summary, vcpu: &Vcpu) -> bool {
    let unseen = vcpu.off_cpu.iter().filter(|row| row.reason == OffReason::NotRecorded);
    let seen_ns = vcpu.observed_ns.saturating_sub(sum(unseen.map(|row| row.total_ns)));
    seen_ns > 0 && share(seen_ns, summary.facts.measured_ns) >= SEEN_SHARE_MIN
}

/// Who ran while a vCPU waited, if one did for much of it.
fn while_ran(vcpu: &Vcpu) -> String {
    let idle_share = share(vcpu.idle_ns, vcpu.wait_ns);
    if idle_share >= DOMINANT_SHARE {
        return ", mostly while its pCPU was idle".to_owned();
    }
    let first = vcpu.antagonist_groups.first().filter(|first| first.share > idle_share);
    match first {
        Some(first) if first.share >= DOMINANT_SHARE => {
            format!(", mostly while {} was running there", first.subject())
        }
        Some(first) if first.share >= NAMED_SHARE => {
            let share = whole_percent(first.share);
            format!(", {share} of it while {} was running there", first.subject())
        }
        _ => String::new(),
    }
}

/// Of a run without events: nothing about single requests, and of the vCPUs what is known. The vCPUs
/// named are those that made requests.
fn without_events(summary: &Summary) -> String {
    let mut text = "What happened to single requests was not recorded.".to_owned();
    let requesters = requesters(summary);
    let is_requester = |row: &&ScheduledVcpu| requesters.contains(&(row.vm.as_str(), row.vcpu));
    for row in summary.facts.scheduled.iter().filter(is_requester) {
        let of_time = |length_ns| whole_percent(share(length_ns, row.observed_ns));
        let (on, waiting) = (of_time(row.on_pcpu_ns), of_time(row.run_delay_ns));
        let _ = write!(
            text,
            " Over the whole run, {} {} was on a pCPU for {on} of the time and waited for one for \
             {waiting}",
            row.vm, row.vcpu
        );
        let sampled = summary.facts.sampled.iter().flat_map(|sampled| &sampled.vcpus);
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
            let _ = write!(text, "; sampled reasons for sleeping: {}", named.join(", "));
        }
        text.push('.');
    }
    text
}

pub(super) fn left_out(class: &Class) -> String {
    match class.unattributable {
        0 => ".".to_owned(),
        1 => ". One more such request could not be attributed to causes.".to_owned(),
        more => format!(". {more} more such requests could not be attributed to causes."),
    }
}

/// The vCPUs that made requests: those whose clocks placed some. Without any such clock they are the vCPUs of
/// slow requests and waits, which may leave out one that was seldom slow.
pub(super) fn requesters(summary: &Summary) -> Vec<(&str, VcpuId)> {
    let made = summary.clock.vcpus.iter().filter(|clock| clock.requests > 0);
    let mut vcpus: Vec<_> = made.map(|clock| (clock.vm.as_str(), clock.vcpu)).collect();
    if vcpus.is_empty() {
        vcpus.extend(summary.worst.iter().map(|worst| (worst.vm.as_str(), worst.vcpu)));
        let waited = summary.classes.all.antagonists.iter();
        vcpus.extend(waited.map(|row| (row.victim_vm.as_str(), row.victim_vcpu)));
    }
    vcpus.sort_unstable();
    vcpus.dedup();
    vcpus
}

/// The vCPU that made the requests, if there was only one.
pub(super) fn who(summary: &Summary) -> String {
    match requesters(summary).as_slice() {
        [(vm, vcpu)] => format!("{vm} {vcpu}"),
        _ => "the requesting vCPU".to_owned(),
    }
}

/// The name of a part on a page.
#[must_use]
pub fn label(part: Part) -> &'static str {
    match part {
        Part::OnPcpu => "on a pCPU",
        Part::PreemptWait => "preemption wait",
        Part::WakeupDelay => "wakeup delay",
        Part::Guest => "in the guest",
        Part::Kvm => "in KVM",
        Part::VmmUser => "in the VMM",
        Part::HaltPoll => "halt polling",
        Part::Throttled => "throttled",
        Part::BqlWait => "BQL wait",
        Part::LockWait => "lock wait",
        Part::HostFault => "host page fault",
        Part::IoSubmit => "own disk I/O",
        Part::Halt => "halt",
        Part::OtherSleep => "other sleep",
        Part::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests;
