//! The slowest requests, each with what the vCPUs that it waited for did meanwhile.

use super::name_of;
use crate::summary::observed::model::{Observed, ObservedOperation, WorstObserved};
use crate::summary::text::NAME_CHARS_MAX;
use crate::summary::text::chain::{self, Told};
use crate::summary::text::page::{Page, Tone, shorten};
use vslice_spec::quantity::{bytes, duration};

/// The slowest request of the operation that the answer is about.
pub(super) fn slowest(page: &mut Page, row: &ObservedOperation, spans_max: usize) {
    let Some(request) = row.worst.first() else { return };
    page.heading("Slowest", &heading(row, request));
    chain::chain(page, &told(request), spans_max);
}

pub(super) fn worst(page: &mut Page, observed: &Observed, row: &ObservedOperation, most: usize) {
    if row.worst.is_empty() {
        return;
    }
    let name = name_of(observed, row);
    let note = format!("{name}: time since it was queued, duration, what the vCPUs' threads did");
    page.heading("Slowest", &note);
    for (index, request) in row.worst.iter().take(most).enumerate() {
        let lead = format!("  {}. ", index + 1);
        page.paragraph(&lead, &heading(row, request), Tone::Strong);
        chain::chain(page, &told(request), chain::LINES_MAX);
    }
}

fn heading(row: &ObservedOperation, request: &WorstObserved) -> String {
    heading_of([&row.vm, &row.device, row.label()], request)
}

/// Of a request of this VM and disk, and what it is called.
pub(in crate::summary) fn heading_of(
    [vm, device, label]: [&str; 3],
    request: &WorstObserved,
) -> String {
    let pid = request.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let place = match request.bytes {
        0 => String::new(),
        length => format!(", {} at sector {}", bytes(length), request.sector),
    };
    let flags: Vec<&str> = request.flags.iter().map(String::as_str).collect();
    let told = ["merged", "requeued", "ambiguous", "overlapped", "no_queue_time"];
    let flags: Vec<&str> = flags.into_iter().filter(|flag| told.contains(flag)).collect();
    let flags = if flags.is_empty() {
        String::new()
    } else {
        format!(", {}", flags.join(", ").replace('_', " "))
    };
    format!(
        "{}: {} of {}{pid} on {} {}{place} at {}{flags}{}; {}{}",
        duration(request.latency_ns),
        label,
        shorten(&request.process, NAME_CHARS_MAX),
        shorten(vm, NAME_CHARS_MAX),
        shorten(device, NAME_CHARS_MAX),
        chain::since_start(request.start_ns),
        chain::failure(request.result),
        chain::largest_parts(&request.parts, request.latency_ns),
        chain::unattributable(request.attribution)
    )
}

/// What happened to it, and of which vCPU that is.
pub(in crate::summary) fn told(request: &WorstObserved) -> Told<'_> {
    let WorstObserved { vcpu_queued, vcpu_issued, vcpu_completed, vcpu_interrupted, .. } = *request;
    let mut marks = vec![(0, format!("queued on {vcpu_queued}"))];
    let issued = request.issued_ns.unwrap_or(0);
    let text = if vcpu_queued == vcpu_issued {
        "-> issued to the disk's driver".to_owned()
    } else {
        format!("-> issued to the disk's driver on {vcpu_issued}, which is told of from here")
    };
    marks.push((issued, text));
    marks.extend(chain::io_marks(request.io));
    if vcpu_interrupted.is_none() {
        let (at, what) = match (request.io, marks.last_mut()) {
            (Some(io), Some((_, done))) => {
                done.push_str("; whichever vCPU takes the interrupt has to take it");
                (io.completed_ns, None)
            }
            _ => (request.latency_ns, Some(format!("completed on {vcpu_completed}"))),
        };
        marks.extend(what.map(|what| (at, what)));
    } else if vcpu_completed != vcpu_issued {
        let (at, what) = match (request.io, marks.last_mut()) {
            (Some(io), Some((_, done))) => {
                done.push_str(&format!(
                    "; {vcpu_completed} has to take it, and is told of from here"
                ));
                (io.completed_ns, None)
            }
            _ => (request.latency_ns, Some(format!("completed on {vcpu_completed}"))),
        };
        marks.extend(what.map(|what| (at, what)));
    }
    // One that ended before it was issued, by clocks that differ, says so in order.
    marks.sort_by_key(|(at, _)| *at);
    Told {
        spans: request.chain.iter().map(|span| &span.span).collect(),
        marks,
        cut_count: request.chain_cut_count,
    }
}
