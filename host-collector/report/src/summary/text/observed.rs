//! The observed requests: by device and operation, by process, the slowest.

mod guest;
mod phases;
mod slowest;
mod suffered;

pub(super) use guest::{footing, hidden_events, losses};

use super::asked::{self, Asked};
use super::page::{Page, Table, Tone, shorten};
use super::tables::share_percent;
use super::{NAME_CHARS_MAX, Style, advice, chain, io, what_if};
use crate::summary::io::IoClass;
use crate::summary::model::{Class, LatencyNs, Summary};
use crate::summary::observed::answer::slower_than;
use crate::summary::observed::model::{Observed, ObservedOperation};
use crate::summary::observed::subject;
use crate::summary::totals::sum;
use crate::summary::what_if::Percentiles;
use guest::said_of;
pub use phases::phase_name;
use phases::phases;
pub(in crate::summary) use slowest::{heading_of as heading, told};
use slowest::{slowest, worst};
use suffered::suffered;
use vslice_core::join::Phase;
use vslice_spec::quantity::{bytes, count, counted, duration, known_duration};
use vslice_trace::evidence::EvidenceLevel;

/// Processes that the first page lists, and lines that they have there.
const PROCESSES_MAX: usize = 4;
const PROCESSES_LINES_MAX: usize = 7;

/// Lines that are left for each table of the first page, whatever is told before it: the blank one, its headings, what
/// is first, and the others; of the slowest request, where the time went.
const PROCESSES_LINES_MIN: usize = 4;
const CAUSES_LINES_MIN: usize = 5;
const WHO_LINES_MIN: usize = 4;
const SLOWEST_LINES_MIN: usize = chain::LINES_MIN;
const FRONT_LINES_MIN: usize =
    PROCESSES_LINES_MIN + CAUSES_LINES_MIN + WHO_LINES_MIN + SLOWEST_LINES_MIN;

/// Lines that the operations have at least.
const OPERATIONS_LINES_MIN: usize = 7;

/// Slowest requests that are shown of an operation that the answer is not about.
const OTHERS_WORST_MAX: usize = 1;

/// The operation that the answer is about.
pub(super) fn answer(summary: &Summary) -> Option<&ObservedOperation> {
    subject(summary).map(|(row, _)| row)
}

/// The first page's tables of the operation that the answer is about; `room` says how many of so many lines
/// there are left.
pub(super) fn front(
    page: &mut Page,
    summary: &Summary,
    style: Style,
    room: impl Fn(&Page, usize) -> usize,
) {
    let Some(row) = answer(summary) else { return };
    let asked = Asked::of(row.plural().to_owned(), &row.classes, &row.causes);
    // However much there is to tell, what comes later has its room.
    let beside = |page: &Page, lines_max: usize, kept: usize| {
        lines_max.min(room(page, super::LINES_MAX).saturating_sub(kept))
    };
    let (of_slowest, of_who) = (SLOWEST_LINES_MIN, SLOWEST_LINES_MIN + WHO_LINES_MIN);
    let lines = beside(page, PROCESSES_LINES_MAX, of_who + CAUSES_LINES_MIN);
    page.fitting(lines, PROCESSES_MAX, |page, rows| suffered(page, summary, row, rows));
    let lines = beside(page, asked::CAUSES_LINES_MAX, of_who);
    let causes_max = advice::causes_max(summary);
    page.fitting(lines, causes_max, |page, rows| asked::causes(page, &asked, rows));
    let lines = beside(page, asked::WHO_LINES_MAX, of_slowest);
    page.fitting(lines, asked::ANTAGONISTS_MAX, |page, rows| asked::who(page, &asked, rows));
    let of_operation = summary.observed.as_ref().and_then(|observed| told_without(observed, row));
    let lines = beside(page, super::LINES_MAX, of_slowest);
    advice::beside_what_if(page, summary, of_operation.as_ref(), (lines, style));
    let lines = room(page, super::LINES_MAX);
    page.fitting(lines, chain::LINES_MAX, |page, spans| slowest(page, row, spans));
}

/// What its percentiles would be without a cause.
fn told_without<'a>(observed: &Observed, row: &'a ObservedOperation) -> Option<what_if::Told<'a>> {
    let measured = Percentiles::from(&row.latency_ns);
    let (name, limit) = (Some(name_of(observed, row)), limit_of(observed, row));
    Some(what_if::Told { name, what_if: row.what_if.as_ref()?, measured, limit })
}

/// How many of the lines that are left the operations may have.
pub(super) fn short_lines(summary: &Summary, has_front: bool, left: usize) -> usize {
    match answer(summary) {
        Some(_) if has_front => left.saturating_sub(FRONT_LINES_MIN).max(OPERATIONS_LINES_MIN),
        _ => left,
    }
}

/// The operations in a few lines.
pub(super) fn short(page: &mut Page, summary: &Summary, rows_max: usize) {
    let Some(observed) = &summary.observed else { return };
    let made = sum(observed.guests.iter().map(|guest| guest.count));
    let faster = sum(observed.guests.iter().map(|guest| guest.faster));
    let mut note = format!("{} of the guests' kernels", counted(made, "block request"));
    if faster > 0 {
        note.push_str(&format!(", {} faster ones not sent", count(faster)));
    }
    let left_out = sum(observed.operations.iter().map(|row| row.unattributable_by.total()));
    if left_out > 0 {
        note.push_str(&format!("; {} not attributed to causes", count(left_out)));
    }
    let unobserved = observed.guests.iter().filter(|guest| guest.unobserved.is_some());
    let unobserved: Vec<String> =
        unobserved.map(|guest| shorten(&guest.vm, NAME_CHARS_MAX)).collect();
    if unobserved.len() == observed.guests.len() {
        note = "nothing: no guest could be looked at".to_owned();
    } else if !unobserved.is_empty() {
        note.push_str(&format!("; nothing of {}", unobserved.join(", ")));
    }
    page.heading("Observed", &note);
    if observed.operations.is_empty() {
        return;
    }
    let mut table = Table::new("l rrrr rrrr");
    let names =
        ["", "requests", "p50", "p99", "max", "above p99", "guest queue", "disk", "inactivity"];
    table.row(Tone::Dim, names);
    for row in observed.operations.iter().take(rows_max) {
        let (class, of_io) = asked_of(row);
        let LatencyNs { p50, p99, max, .. } = row.latency_ns;
        let limit = limit_of(observed, row);
        let latency = [p50, p99, max].map(|length_ns| told_duration(length_ns, limit.as_deref()));
        let made = row.count.saturating_add(row.faster);
        let cells = [name_of(observed, row), count(made)].into_iter().chain(latency);
        table.row(Tone::Plain, cells.chain(above(row, class, of_io)));
    }
    let more = observed.operations.len().saturating_sub(rows_max);
    if more > 0 {
        table.row(Tone::Dim, [format!("{} more", count(more as u64))]);
    }
    page.table(&table);
    why_unknown(page, observed, rows_max);
}

/// Why the figures of an operation that have the host's disk in them are unknown.
fn why_unknown(page: &mut Page, observed: &Observed, rows_max: usize) {
    let unknown = observed.operations.iter().take(rows_max).filter_map(|row| {
        let (class, of_io) = asked_of(row);
        let is_unknown = class.count > 0 && of_io.known == 0 && of_io.unphased > 0;
        is_unknown.then(|| (name_of(observed, row), unphased(of_io)))
    });
    let said: Vec<String> = unknown.map(|(name, why)| format!("{name}: {why}")).collect();
    if !said.is_empty() {
        page.paragraph("  ", &format!("unknown for {}", said.join("; ")), Tone::Dim);
    }
}

/// Of how many requests the phases are unknown, and why.
fn unphased(of_io: &IoClass) -> String {
    let reasons = of_io.unphased_by.reasons();
    let said = reasons.map(|(reason, number)| format!("{} {}", count(number), io::why(reason)));
    said.collect::<Vec<String>>().join(", ")
}

/// What the answer goes by, and where it went.
fn above(row: &ObservedOperation, class: &Class, of_io: &IoClass) -> [String; 4] {
    if class.count == 0 {
        return ["", "", "", ""].map(str::to_owned);
    }
    let of = |phase| of_io.phases_ns.get(&phase).copied().unwrap_or(0);
    let lengths = [of(Phase::GuestQueue), of(Phase::Device), of_io.inactivity_ns];
    let [queue, device, inactivity] =
        lengths.map(|length_ns| share_percent(length_ns, class.latency_ns));
    // Whose phases are unknown has no figures that could be compared.
    let known = |text: String| if of_io.known == 0 { "unknown".to_owned() } else { text };
    let total = match row.has_tail() {
        true => duration(class.latency_ns),
        false if class.count < row.count => {
            format!("{} of {}", count(class.count), count(row.count))
        }
        false => format!("all {}", duration(class.latency_ns)),
    };
    let inactivity = if knows_inactivity(of_io) { inactivity } else { "unknown".to_owned() };
    [total, queue, known(device), inactivity]
}

/// Whether anything is known of their I/O inactivity: where no known vCPU was late, an unknown one may have been.
fn knows_inactivity(of_io: &IoClass) -> bool {
    of_io.known > 0 && (of_io.inactive > 0 || of_io.steered == 0)
}

/// How long the requests of the class that is told of took together, and of how many of them that is known, if not of
/// all.
fn total_of(row: &ObservedOperation, class: &Class) -> String {
    let total = duration(class.latency_ns);
    let all = match row.has_tail() {
        true => class.count.saturating_add(class.unattributable),
        false => row.count,
    };
    if class.count < all {
        return format!("{} of {}: {total}", count(class.count), count(all));
    }
    total
}

/// The class that is told of an operation: the slow ones, or all where none is slower than the others.
fn asked_of(row: &ObservedOperation) -> (&Class, &IoClass) {
    if row.has_tail() { (&row.classes.p99, &row.io.p99) } else { (&row.classes.all, &row.io.all) }
}

/// `vm1 vdb flush`; without the VM where there is only one.
fn name_of(observed: &Observed, row: &ObservedOperation) -> String {
    let device = shorten(&row.device, NAME_CHARS_MAX);
    match observed.guests.len() {
        1 => format!("{device} {}", row.label()),
        _ => format!("{} {device} {}", shorten(&row.vm, NAME_CHARS_MAX), row.label()),
    }
}

/// The limit below which requests of this guest were not sent.
fn limit_of(observed: &Observed, row: &ObservedOperation) -> Option<String> {
    let guest = observed.guests.iter().find(|guest| guest.vm == row.vm)?;
    slower_than(guest).filter(|_| row.faster > 0)
}

/// A latency; one that is unknown is below the limit, if there is one.
fn told_duration(length_ns: Option<u64>, limit: Option<&str>) -> String {
    match (length_ns, limit) {
        (None, Some(limit)) => format!("<{limit}"),
        (length_ns, _) => known_duration(length_ns),
    }
}

/// All that there is to tell.
pub(super) fn observed(page: &mut Page, summary: &Summary) {
    let Some(observed) = &summary.observed else { return };
    page.heading("Observed requests", "block requests of the guests' kernels, whoever made them");
    for guest in &observed.guests {
        page.paragraph(
            "  ",
            &said_of(guest, observed, summary.facts.selection.is_some()),
            Tone::Plain,
        );
    }
    latencies(page, observed);
    let has_events = summary.facts.evidence.level == EvidenceLevel::Recorded;
    for row in observed.operations.iter().filter(|row| has_events && row.classes.all.count > 0) {
        phases(page, observed, row);
        suffered(page, summary, row, usize::MAX);
        told_without(observed, row).iter().for_each(|told| what_if::full(page, told));
    }
    if let Some(row) = answer(summary).filter(|_| has_events) {
        let asked = Asked::of(row.plural().to_owned(), &row.classes, &row.causes);
        asked::causes(page, &asked, usize::MAX);
        asked::who(page, &asked, usize::MAX);
    }
    if !has_events {
        return;
    }
    for (place, row) in observed.operations.iter().enumerate() {
        let most = if observed.answer == Some(place) { usize::MAX } else { OTHERS_WORST_MAX };
        worst(page, observed, row, most);
    }
}

fn latencies(page: &mut Page, observed: &Observed) {
    if observed.operations.is_empty() {
        return;
    }
    let mut table = Table::new("l rrr rrrrrrrr");
    let names = [
        "", "requests", "not sent", "bytes", "min", "mean", "p50", "p90", "p99", "p99.9", "p99.99",
        "max",
    ];
    table.row(Tone::Dim, names);
    for row in &observed.operations {
        let LatencyNs { min, mean, p50, p90, p99, p999, p9999, max } = row.latency_ns;
        let limit = limit_of(observed, row);
        let quantiles = [p50, p90, p99, p999, p9999, max];
        let quantiles = quantiles.map(|length_ns| told_duration(length_ns, limit.as_deref()));
        let not_sent = if row.faster > 0 { count(row.faster) } else { String::new() };
        let head = [name_of(observed, row), count(row.count), not_sent, bytes(row.bytes)];
        let of_all = [min, mean].map(|length_ns| match (length_ns, &limit) {
            (None, Some(_)) => "?".to_owned(),
            (length_ns, _) => known_duration(length_ns),
        });
        table.row(Tone::Plain, head.into_iter().chain(of_all).chain(quantiles));
    }
    page.table(&table);
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
