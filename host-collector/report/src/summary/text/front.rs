//! The page that is printed by default: the answer first, and no more than a screenful.

use super::asked::{self, ANTAGONISTS_MAX, Asked, CAUSES_LINES_MAX, WHO_LINES_MAX};
use super::contradiction::contradiction;
use super::page::{Page, Tone, shorten};
use super::{
    NAME_CHARS_MAX, Style, advice, chain, full, host_io, observed, sampled, selection, tables,
    under_way, vcpus, what_if,
};
use crate::summary::model::{Lost, RunStatus, Summary};
use crate::summary::totals::sum;
use crate::summary::verdict::verdict;
use vslice_spec::quantity::{bytes, count, counted, duration};
use vslice_trace::evidence::EvidenceLevel;

/// How many lines a page of at least 100 columns has at most, whatever the run was.
pub const LINES_MAX: usize = 45;

/// Lines of which part of the run it is, of the status, of why a run is partial, and of the sentences, at 100 columns.
const PART_LINES_MAX: usize = 2;
const STATUS_LINES_MAX: usize = 2;
const REASON_LINES_MAX: usize = 2;
const VERDICT_LINES_MAX: usize = 5;

/// Lines of each kind of requests that hang.
const STALLED_LINES_MAX: usize = 3;

/// Lines of the tables with their headings and the blank lines before them, at 100 columns.
pub(super) const OBSERVED_LINES_MAX: usize = 11;
const VCPUS_LINES_MAX: usize = 15;
const ANTAGONISTS_LINES_MAX: usize = 12;
const HOST_IO_LINES_MAX: usize = 9;
const HOST_WORST_LINES_MAX: usize = 7;

/// I/Os of the host that are listed.
const HOST_WORST_MAX: usize = 3;

/// Rows of observed operations.
const OBSERVED_MAX: usize = 6;

/// Warnings that are printed, and lines of each.
const WARNINGS_MAX: usize = 3;
const WARNING_LINES_MAX: usize = 2;

/// Laws that a summary breaks and that are named, and lines of each.
const VIOLATIONS_MAX: usize = 10;
const VIOLATION_LINES_MAX: usize = 2;

/// What a page of this width may have for each so many lines of one of 100 columns.
pub(super) fn lines(lines_count: usize, style: Style) -> usize {
    (lines_count * 100).div_ceil(style.width.clamp(1, 100))
}

/// The answer: what the run was, what the requests waited for and because of whom, the slowest of them, and
/// the limits of all that. At 100 columns it has at most [`LINES_MAX`] lines.
#[must_use]
pub fn render(summary: &Summary, style: Style) -> String {
    let mut page = Page::new(style);
    selection::head(&mut page, summary, lines(PART_LINES_MAX, style));
    status(&mut page, summary, style);
    page.blank();
    if contradiction(&mut page, summary, (VIOLATIONS_MAX, lines(VIOLATION_LINES_MAX, style))) {
        return page.into_text();
    }
    answer(page, summary, style)
}

/// The rest of the page, of a summary that does not contradict itself.
fn answer(mut page: Page, summary: &Summary, style: Style) -> String {
    page.short_paragraph("", &verdict(summary), Tone::Strong, lines(VERDICT_LINES_MAX, style));
    under_way::stalled(&mut page, summary, lines(STALLED_LINES_MAX, style));
    let mut limits = Page::new(style);
    self::limits(&mut limits, summary, style);
    let limits_count = limits.lines_count();
    // However much there is to tell, what limits it has its room.
    let left = |page: &Page, lines_max: usize| {
        let taken = page.lines_count() + limits_count;
        lines(lines_max, style).min(lines(LINES_MAX, style).saturating_sub(taken))
    };
    let has_events = summary.facts.evidence.level == EvidenceLevel::Recorded;
    if summary.requests.count > 0 {
        latency(&mut page, summary);
    }
    if summary.observed.is_some() {
        let has_front = has_events && summary.requests.count == 0;
        let room = observed::short_lines(summary, has_front, left(&page, LINES_MAX));
        let room = room.min(left(&page, OBSERVED_LINES_MAX));
        page.fitting(room, OBSERVED_MAX, |page, rows| observed::short(page, summary, rows));
    }
    match (has_events, summary.requests.count > 0) {
        // Without a window there is nothing that shares could be of.
        _ if summary.facts.measured_ns == 0 => {}
        (true, true) => {
            let asked = Asked::of_readers(summary);
            let room = left(&page, CAUSES_LINES_MAX);
            let causes_max = advice::causes_max(summary);
            page.fitting(room, causes_max, |page, rows| asked::causes(page, &asked, rows));
            let room = left(&page, WHO_LINES_MAX);
            page.fitting(room, ANTAGONISTS_MAX, |page, rows| asked::who(page, &asked, rows));
            let told = what_if::Told::of_readers(summary);
            let slowest = lines(chain::LINES_MIN, style);
            let room = left(&page, LINES_MAX).saturating_sub(slowest);
            advice::beside_what_if(&mut page, summary, told.as_ref(), (room, style));
            let room = left(&page, LINES_MAX);
            page.fitting(room, chain::LINES_MAX, |page, rows| chain::slowest(page, summary, rows));
        }
        (true, false) if observed::answer(summary).is_some() => {
            observed::front(&mut page, summary, style, |page, lines_max| left(page, lines_max));
        }
        (true, false) => {
            let room = left(&page, HOST_IO_LINES_MAX);
            page.fitting(room, room, |page, rows| host_io::disks(page, summary, rows));
            let room = left(&page, HOST_WORST_LINES_MAX);
            page.fitting(room, HOST_WORST_MAX, |page, rows| host_io::worst(page, summary, rows));
            let room = left(&page, VCPUS_LINES_MAX);
            page.fitting(room, room, |page, rows| vcpus::off_cpu(page, summary, rows));
            let room = left(&page, ANTAGONISTS_LINES_MAX);
            page.fitting(room, room, |page, rows| vcpus::antagonists(page, summary, rows));
        }
        (false, _) => {
            let room = left(&page, ANTAGONISTS_LINES_MAX);
            page.fitting(room, room, |page, rows| sampled::scheduled(page, summary, rows));
            let room = left(&page, VCPUS_LINES_MAX);
            page.fitting(room, room, |page, rows| sampled::shares(page, summary, rows));
        }
    }
    page.append(limits);
    page.into_text()
}

/// What the run was and how far it may be believed, in a line.
fn status(page: &mut Page, summary: &Summary, style: Style) {
    let is_partial = summary.facts.status != RunStatus::Complete;
    let pieces = [
        Some(format!(
            "{}{}, {} under {}, {} {}",
            if is_partial { "PARTIAL" } else { "complete" },
            sampled::label(summary.facts.evidence.level),
            guests(summary),
            shorten(&summary.facts.accelerator.name, NAME_CHARS_MAX),
            duration(summary.facts.whole_ns()),
            match summary.facts.evidence.level {
                EvidenceLevel::Recorded => "recorded",
                EvidenceLevel::Sampled | EvidenceLevel::Totals => "measured",
            },
        )),
        clock(summary),
        Some(selection::in_this_part(summary, losses(summary))),
    ];
    let pieces: Vec<String> = pieces.into_iter().flatten().collect();
    let lead = format!("vslice {}: ", shorten(&summary.facts.plan, NAME_CHARS_MAX));
    let text = format!("{lead}{}", pieces.join("; "));
    let tone = if is_partial { Tone::Alarm } else { Tone::Plain };
    page.short_paragraph("", &text, tone, lines(STATUS_LINES_MAX, style));
    if let RunStatus::Partial { reason } = &summary.facts.status {
        let text = format!("the run ended early: {reason}");
        page.short_paragraph("  ", &text, Tone::Alarm, lines(REASON_LINES_MAX, style));
    }
}

/// How many VMs.
fn guests(summary: &Summary) -> String {
    let mut vms: Vec<&str> = summary.vcpus.iter().map(|vcpu| vcpu.vm.as_str()).collect();
    vms.extend(summary.facts.scheduled.iter().map(|vcpu| vcpu.vm.as_str()));
    vms.sort_unstable();
    vms.dedup();
    counted(vms.len() as u64, "guest")
}

fn clock(summary: &Summary) -> Option<String> {
    let clock = &summary.clock;
    let violations = [
        clock.check.violations,
        clock.kvm_check().violations,
        clock.ptp_check().violations,
        clock.hog_check().violations,
    ];
    if violations.iter().any(|count| *count > 0) {
        return Some("clock VIOLATED".to_owned());
    }
    clock.bound_ns.map(|bound_ns| format!("clock within {}", duration(bound_ns)))
}

/// What was lost, in a few words.
fn losses(summary: &Summary) -> String {
    if summary.facts.measured_ns == 0 {
        return "nothing was measured".to_owned();
    }
    let (lost, dropped) = (&summary.facts.lost, summary.requests.dropped);
    let mut words = Vec::new();
    if *lost != Lost::default() {
        words.push(format!("{} lost", counted(lost.records, "scheduler event")));
    }
    if dropped > 0 {
        words.push(format!("{} dropped", counted(dropped, "request")));
    }
    let observed = summary.observed.iter().flat_map(|observed| &observed.guests);
    let unobserved = sum(observed.map(|guest| guest.lost_events));
    if unobserved > 0 {
        words.push(format!("{} of guests' block requests lost", counted(unobserved, "event")));
    }
    let hidden = observed::hidden_events(summary);
    if hidden > 0 {
        words.push(format!("{} of guests' block requests hidden", counted(hidden, "event")));
    }
    if let Some(sampled) = summary.facts.sampled.as_ref().filter(|sampled| sampled.gap_rounds > 0) {
        words.push(format!("{} missed", counted(sampled.gap_rounds, "sampling round")));
    }
    match summary.facts.status {
        _ if !words.is_empty() => words.join(", "),
        RunStatus::Complete => "nothing lost".to_owned(),
        RunStatus::Partial { .. } => "no loss reported before it ended".to_owned(),
    }
}

fn latency(page: &mut Page, summary: &Summary) {
    let requests = &summary.requests;
    let mut note = counted(requests.count, "request");
    if let Some((rate, elapsed_ns)) = requests.iops.zip(requests.elapsed_ns) {
        let (rate, bytes) = (full::iops(rate), bytes(requests.bytes));
        note.push_str(&format!(", {rate} IOPS, {bytes} in {}", duration(elapsed_ns)));
    }
    if requests.unattributable > 0 && summary.facts.evidence.level == EvidenceLevel::Recorded {
        note.push_str(&format!("; {} not attributed to causes", count(requests.unattributable)));
    }
    page.heading("Latency", &note);
    tables::percentiles(page, summary);
}

/// What the reader of the answer should know before believing it, and where the rest is.
fn limits(page: &mut Page, summary: &Summary, style: Style) {
    page.blank();
    for warning in summary.facts.warnings.iter().take(WARNINGS_MAX) {
        let lines_max = lines(WARNING_LINES_MAX, style);
        page.short_paragraph("warning: ", &warning.to_string(), Tone::Alarm, lines_max);
    }
    let told = summary.facts.big_locks.iter().filter(|lock| lock.is_told_by_behaviour(summary));
    for lock in told.take(WARNINGS_MAX) {
        let lines_max = lines(WARNING_LINES_MAX, style);
        page.short_paragraph("big lock: ", &lock.sentence(), Tone::Plain, lines_max);
    }
    let more = summary.facts.warnings.len().saturating_sub(WARNINGS_MAX);
    let text = match more {
        0 => "--full shows every table".to_owned(),
        more => format!("--full shows every table and {}", counted(more as u64, "more warning")),
    };
    page.paragraph("", &text, if more == 0 { Tone::Dim } else { Tone::Alarm });
}

/// The page of a summary that no run could have: as much of everything as there may be.
#[cfg(test)]
pub(super) fn unchecked(summary: &Summary, style: Style) -> String {
    let mut page = Page::new(style);
    selection::head(&mut page, summary, lines(PART_LINES_MAX, style));
    status(&mut page, summary, style);
    page.blank();
    answer(page, summary, style)
}
