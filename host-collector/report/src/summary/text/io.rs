//! The I/O phases: how far the host had come, and what the vCPU did meanwhile.

use super::NAME_CHARS_MAX;
use super::page::{Page, Table, Tone, shorten};
use super::tables::share_percent;
use crate::summary::io::IoClass;
use crate::summary::model::{Class, Summary};
use crate::summary::verdict::label;
use std::cmp::Reverse;
use vslice_core::join::{NoPhase, Part, Phase};
use vslice_spec::quantity::{count, counted, duration, percent};

pub(super) fn phases(page: &mut Page, summary: &Summary) {
    let disks = &summary.io.disks;
    if disks.is_empty() {
        return;
    }
    page.heading("I/O phase x vCPU state", "share of the requests' latency");
    for disk in disks {
        let vm = shorten(&disk.vm, NAME_CHARS_MAX);
        if let Some(reason) = &disk.reason {
            page.paragraph("  ", &format!("{vm}: unknown, because {reason}"), Tone::Dim);
        } else if let Some(reason) = &disk.unmapped_reason {
            let text = format!(
                "{vm}: known only for requests that were alone in flight, because {reason}"
            );
            page.paragraph("  ", &text, Tone::Dim);
        }
    }
    if let Some(warning) = super::phases_warning(summary) {
        page.paragraph("  ", &warning.to_string(), Tone::Alarm);
    }
    if disks.iter().any(|disk| disk.reason.is_none()) {
        product(page, summary);
        known(page, summary);
    }
}

/// The phases of the reader's own requests.
const OF_READS: [Phase; 4] = [Phase::Queued, Phase::Device, Phase::Completed, Phase::Unknown];

fn product(page: &mut Page, summary: &Summary) {
    let io = &summary.io.classes;
    let classes = [(&summary.classes.all, &io.all), (&summary.classes.p99, &io.p99)];
    let mut table = Table::new("l rrrr rrrr");
    let names = ["", "all", "", "", "", "above p99"];
    table.row(Tone::Dim, names);
    let phases = || OF_READS.into_iter().map(Phase::name);
    table.row(Tone::Dim, [""].into_iter().chain(phases()).chain(phases()));
    let cells = |of: &dyn Fn(&IoClass, Phase) -> u64| {
        let of_class = |(class, io): (&Class, &IoClass)| {
            OF_READS.map(|phase| match of(io, phase) {
                0 => String::new(),
                length_ns => share_percent(length_ns, class.latency_ns),
            })
        };
        classes.into_iter().flat_map(of_class).collect::<Vec<_>>()
    };
    let row = |name: &str, of: &dyn Fn(&IoClass, Phase) -> u64| {
        [name.to_owned()].into_iter().chain(cells(of)).collect::<Vec<_>>()
    };
    let took_time = |part: &Part| {
        let mut all = classes.iter().flat_map(|(_, io)| OF_READS.map(|phase| io.get(phase, *part)));
        all.any(|length_ns| length_ns > 0)
    };
    for part in Part::ALL.into_iter().filter(took_time) {
        table.row(Tone::Plain, row(label(part), &|io, phase| io.get(phase, part)));
    }
    let total = |io: &IoClass, phase| io.phases_ns.get(&phase).copied().unwrap_or(0);
    table.row(Tone::Dim, row("total", &total));
    page.table(&table);
}

fn known(page: &mut Page, summary: &Summary) {
    let (all, p99) = (&summary.io.classes.all, &summary.io.classes.p99);
    let text = format!(
        "(I/O completed, but the vCPU not on a pCPU to handle it): {}; above p99 {}",
        inactivity(all, summary.classes.all.latency_ns),
        inactivity(p99, summary.classes.p99.latency_ns)
    );
    page.paragraph("  I/O inactivity ", &text, Tone::Plain);
    let mut text = format!("for {}", counted(all.known, "request"));
    if all.unphased > 0 {
        let reasons = all.unphased_by.reasons();
        let said = reasons.map(|(reason, number)| format!("{} {}", count(number), why(reason)));
        let said: Vec<String> = said.collect();
        text.push_str(&format!("; unknown for {}: {}", count(all.unphased), said.join(", ")));
    }
    page.paragraph("  Phases known   ", &text, Tone::Plain);
}

/// The whole of it, and its parts, of a class of this latency.
fn inactivity(io: &IoClass, latency_ns: u64) -> String {
    let mut parts: Vec<_> =
        io.inactivity_parts_ns.iter().filter(|(_, length_ns)| **length_ns > 0).collect();
    parts.sort_by_key(|(part, length_ns)| (Reverse(**length_ns), **part));
    let parts = parts.iter().map(|(part, length_ns)| {
        format!("{} {}", share_percent(**length_ns, latency_ns), label(**part))
    });
    let parts: Vec<String> = parts.collect();
    let split = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    format!(
        "{} in {}, {} of the latency{split}",
        duration(io.inactivity_ns),
        counted(io.inactive, "request"),
        percent(io.inactivity_share)
    )
}

/// Why the phases of requests are unknown, as it follows their number.
#[must_use]
pub fn why(reason: NoPhase) -> &'static str {
    match reason {
        NoPhase::NotRecorded => "whose I/O was not recorded",
        NoPhase::Lost => "that overlap lost records",
        NoPhase::PageCache => "served by the host's page cache",
        NoPhase::NoIo => "for which no host I/O was seen",
        NoPhase::Ambiguous => "whose I/O may be that of another request",
        NoPhase::Unmapped => "whose place on the host's disk is not known",
        NoPhase::UnknownFile => "for which the VMM flushes, and of which file is not known",
        NoPhase::NoWait => {
            "for which the VMM flushes, and no thread of its was seen to wait for that"
        }
        NoPhase::Unfinished => "whose I/O completion was not seen",
        NoPhase::Contradiction => "whose I/O lies outside the request by more than the clock error",
        NoPhase::Forgotten => "with more in flight than vslice keeps",
    }
}
