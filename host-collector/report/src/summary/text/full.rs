//! The whole page: everything in a summary that is meant for people.

use super::contradiction::contradiction;
use super::page::{Page, Tone, shorten};
use super::{
    NAME_CHARS_MAX, Style, advice, chain, clock, exits, host_io, io, observed, sampled, selection,
    service, tables, what_if,
};
use crate::summary::Warning;
use crate::summary::model::{Lost, RunStatus, Summary};
use crate::summary::sampled::limits_the_answer;
use crate::summary::verdict::verdict;
use vslice_spec::quantity::{bytes, count, counted, duration};
use vslice_trace::evidence::EvidenceLevel;

/// The summary as text, with all of its tables. Whatever names it holds, the only control characters in the result are line
/// feeds and, with [`Style::colour`], the renderer's own colours.
#[must_use]
pub fn render_full(summary: &Summary, style: Style) -> String {
    let mut page = Page::new(style);
    selection::head(&mut page, summary, usize::MAX);
    title(&mut page, summary);
    page.blank();
    if contradiction(&mut page, summary, (usize::MAX, usize::MAX)) {
        return page.into_text();
    }
    page.paragraph("", &verdict(summary), Tone::Strong);
    let has_readers = summary.requests.count > 0 || summary.requests.dropped > 0;
    if has_guests_word(summary) && (has_readers || summary.observed.is_none()) {
        page.blank();
        requests(&mut page, summary);
    }
    if summary.requests.count > 0 {
        tables::latency(&mut page, summary);
    }
    observed::observed(&mut page, summary);
    if summary.facts.evidence.level == EvidenceLevel::Recorded {
        recorded(&mut page, summary);
    } else {
        sampled::scheduled(&mut page, summary, usize::MAX);
        sampled::shares(&mut page, summary, usize::MAX);
    }
    footing(&mut page, summary);
    warnings(&mut page, summary);
    page.into_text()
}

/// What only events can tell.
fn recorded(page: &mut Page, summary: &Summary) {
    if summary.requests.count > 0 {
        tables::parts(page, summary);
        io::phases(page, summary);
        tables::class_antagonists(page, summary);
        what_if::Told::of_readers(summary).iter().for_each(|told| what_if::full(page, told));
    }
    if summary.requests.count > 0 || observed::answer(summary).is_some() {
        advice::full(page, summary);
    }
    host_io::disks(page, summary, usize::MAX);
    host_io::worst(page, summary, usize::MAX);
    host_io::limits(page, summary);
    tables::timeslices(page, summary);
    tables::off_cpu(page, summary);
    tables::lock_waits(page, summary);
    tables::big_locks(page, summary);
    service::service(page, summary);
    exits::exits(page, summary);
    tables::antagonists(page, summary);
    tables::stacks(page, summary);
    chain::worst(page, summary);
}

fn title(page: &mut Page, summary: &Summary) {
    let mut vms: Vec<&str> = summary.vcpus.iter().map(|vcpu| vcpu.vm.as_str()).collect();
    vms.dedup();
    let guests = if vms.len() == 1 { "guest" } else { "guests" };
    let title = format!(
        "vslice {}{}: {} {guests} under {}, {} measured",
        shorten(&summary.facts.plan, NAME_CHARS_MAX),
        sampled::label(summary.facts.evidence.level),
        vms.len(),
        shorten(&summary.facts.accelerator.name, NAME_CHARS_MAX),
        duration(summary.facts.whole_ns())
    );
    page.paragraph("", &title, Tone::Strong);
    if let RunStatus::Partial { reason } = &summary.facts.status {
        page.paragraph("", &format!("PARTIAL RUN: {reason}"), Tone::Alarm);
    }
    let accelerator = &summary.facts.accelerator;
    page.paragraph("  ", &format!("{}: {}", accelerator.name, accelerator.reason), Tone::Dim);
    for line in &summary.facts.environment.lines {
        page.paragraph("  ", line, Tone::Dim);
    }
}

/// Whether any guest reported anything: of VMs that were only attached to, there is only what the host
/// recorded.
pub(super) fn has_guests_word(summary: &Summary) -> bool {
    let requests = &summary.requests;
    requests.count > 0 || requests.dropped > 0 || !summary.clock.vcpus.is_empty()
}

fn requests(page: &mut Page, summary: &Summary) {
    let requests = &summary.requests;
    let rate = requests.iops.zip(requests.elapsed_ns).map(|(rate, elapsed_ns)| {
        let (bytes, elapsed) = (bytes(requests.bytes), duration(elapsed_ns));
        format!(", {} IOPS, {bytes} in {elapsed}", iops(rate))
    });
    let rate = rate.unwrap_or_default();
    let mut text = format!(
        "{} recorded{rate}; {} dropped, {} unattributable",
        count(requests.count),
        count(requests.dropped),
        count(requests.unattributable)
    );
    for (number, what) in [(requests.errors, "failed"), (requests.short, "short")] {
        if number > 0 {
            text.push_str(&format!(", {} {what}", count(number)));
        }
    }
    page.paragraph("Requests  ", &text, Tone::Plain);
}

/// Whole requests are enough from 100 on.
pub(crate) fn iops(iops: f64) -> String {
    if iops < 100.0 { format!("{iops:.1}") } else { format!("{iops:.0}") }
}

/// As wide as the titles of the lines at the end.
const BELOW_TITLE: &str = "          ";

fn footing(page: &mut Page, summary: &Summary) {
    page.blank();
    if has_guests_word(summary) {
        clock::clock(page, summary);
    }
    let losses = selection::in_this_part(summary, all_losses(summary));
    page.paragraph("Losses    ", &losses, Tone::Plain);
    let cost = &summary.facts.cost;
    let of_kvm = match cost.kvm_events {
        0 => String::new(),
        kvm_events => format!(" ({} of KVM)", count(kvm_events)),
    };
    let events = match (&summary.facts.sampled, summary.facts.evidence.level) {
        (Some(sampled), _) => sampled::rate(sampled),
        (None, EvidenceLevel::Recorded) => format!("{} host events{of_kvm}", count(cost.events)),
        (None, _) => "no events".to_owned(),
    };
    let cost = format!(
        "{} of CPU time for the collector, {events}, {} written{}",
        duration(cost.collector_cpu_ns),
        bytes(cost.bytes),
        selection::of_whole_run(summary)
    );
    page.paragraph("Own cost  ", &cost, Tone::Plain);
    observed::footing(page, summary);
    let missing = summary.facts.evidence.missing.iter();
    for missing in missing.filter(|missing| !limits_the_answer(summary, &missing.name)) {
        let text = format!("without {}: {}", missing.name, missing.costs);
        page.paragraph(BELOW_TITLE, &text, Tone::Plain);
    }
}

/// The warning that too much of the requests' time has no phase, if there is one.
pub(super) fn phases_warning(summary: &Summary) -> Option<&Warning> {
    summary.facts.warnings.iter().find(|warning| matches!(warning, Warning::UnknownPhases { .. }))
}

fn all_losses(summary: &Summary) -> String {
    let losses = losses(summary);
    match observed::losses(summary) {
        None => losses,
        Some(observed) if losses.starts_with("none: ") => {
            format!("no scheduler event; {observed}")
        }
        Some(observed) => format!("{losses}; {observed}"),
    }
}

fn losses(summary: &Summary) -> String {
    if summary.facts.evidence.level != EvidenceLevel::Recorded {
        return sampled::losses(summary);
    }
    let (lost, requests) = (&summary.facts.lost, &summary.requests);
    if summary.facts.measured_ns == 0 {
        return "nothing was measured".to_owned();
    }
    let is_complete = summary.facts.status == RunStatus::Complete;
    if *lost == Lost::default() && requests.dropped == 0 && !is_complete {
        return "none reported before the recording ends".to_owned();
    }
    if *lost == Lost::default() && requests.dropped == 0 {
        let unfinished = summary.io.classes.all.unphased_by.unfinished;
        if phases_warning(summary).is_some() && unfinished > 0 {
            return format!(
                "no scheduler event and no request; the I/O completion of {} was not seen",
                counted(unfinished, "request")
            );
        }
        let told = if requests.count > 0 {
            "none: every scheduler event and every request was recorded"
        } else {
            "none: every scheduler event was recorded"
        };
        return told.to_owned();
    }
    let host = if lost.records == 0 && lost.intervals == 0 {
        "no scheduler event".to_owned()
    } else {
        let events = counted(lost.records, "scheduler event");
        let intervals = counted(lost.intervals, "interval");
        format!("{events} in {intervals}, {} in all", duration(lost.total_ns))
    };
    if !has_guests_word(summary) {
        return format!("on the host: {host}");
    }
    let guests = if requests.dropped == 0 {
        "no request".to_owned()
    } else {
        let intervals = counted(requests.dropped_intervals, "interval");
        format!("{} in {intervals}", counted(requests.dropped, "request"))
    };
    format!("on the host: {host}; in the guests: {guests}")
}

fn warnings(page: &mut Page, summary: &Summary) {
    if summary.facts.warnings.is_empty() {
        return;
    }
    page.blank();
    for warning in &summary.facts.warnings {
        page.paragraph("warning: ", &warning.to_string(), Tone::Alarm);
    }
}
