//! The VMs' I/O as the host alone saw it.

use super::NAME_CHARS_MAX;
use super::page::{Page, Table, Tone, shorten};
use crate::summary::host_io::{HostIoDisk, HostIoOperation, WorstHostIo, range};
use crate::summary::model::Summary;
use vslice_spec::quantity::{count, duration, known_duration};

/// Columns of a disk's label.
const DISK_CHARS_MAX: usize = 44;

/// Whether there is anything to say of it.
pub(super) fn is_there(summary: &Summary) -> bool {
    summary.facts.host_io.disks.iter().any(|disk| !disk.operations.is_empty())
}

/// Latency and inactivity of each disk and operation, of so many rows at most.
pub(super) fn disks(page: &mut Page, summary: &Summary, rows_max: usize) {
    if !is_there(summary) || rows_max == 0 {
        return;
    }
    page.heading(
        "Host's view of the disks",
        "I/O as the host had it; inactivity: done, and until a vCPU that could take it was on a pCPU",
    );
    let mut table = Table::new("l lr rrr rr");
    let head = ["", "", "ended", "p50", "p99", "max", "inactivity", "p99"];
    table.row(Tone::Dim, head);
    let rows = summary.facts.host_io.disks.iter().flat_map(|disk| {
        let mut label = label(disk, &summary.facts.host_io.disks);
        disk.operations.iter().map(move |row| self::row(std::mem::take(&mut label), row))
    });
    let rows: Vec<_> = rows.collect();
    let left_out = rows.len().saturating_sub(rows_max);
    rows.into_iter().take(rows_max).for_each(|row| table.row(Tone::Plain, row));
    page.table(&table);
    if left_out > 0 {
        page.paragraph("  ", &format!("{left_out} more with --full"), Tone::Dim);
    }
    if let Some(evidence) = evidence(summary) {
        page.paragraph("  ", &evidence, Tone::Dim);
    }
}

/// What the inactivity rests on, if an interrupt told any of it.
fn evidence(summary: &Summary) -> Option<String> {
    let rows = || summary.facts.host_io.disks.iter().flat_map(|disk| &disk.operations);
    let by_interrupt: u64 = rows().map(|row| row.by_interrupt).sum();
    let known: u64 = rows().map(|row| row.known).sum();
    (by_interrupt > 0).then(|| {
        format!(
            "inactivity of {} of {} by the interrupt for it, inferred to be the disk's; of the others by what all \
             vCPUs did",
            count(by_interrupt),
            count(known)
        )
    })
}

/// What is not known of them, and why.
pub(super) fn limits(page: &mut Page, summary: &Summary) {
    for disk in &summary.facts.host_io.disks {
        let vm = shorten(&disk.vm, NAME_CHARS_MAX);
        let label = disk.disk.as_deref().unwrap_or_default();
        let label = shorten(label, DISK_CHARS_MAX);
        if let Some(reason) = &disk.reason {
            let text = format!("{vm} {label}: the host's I/O is unknown, because {reason}");
            page.paragraph("  ", &text, Tone::Dim);
        } else if disk.disk.is_some() && disk.is_direct != Some(true) && has_any(disk) {
            let text = format!(
                "{vm} {label}: it goes through the host's page cache, so this is what the VM's own threads handed over, \
                 and not what the kernel wrote back for them"
            );
            page.paragraph("  ", &text, Tone::Dim);
        }
        if let Some(reason) = disk.interrupts_missing.as_ref().filter(|_| has_any(disk)) {
            let text =
                format!("{vm} {label}: which vCPU took its I/O is unknown, because {reason}");
            page.paragraph("  ", &text, Tone::Dim);
        }
        let of = self::label(disk, &summary.facts.host_io.disks);
        for row in &disk.operations {
            for (why, number) in row.unknown_by.iter().filter(|(why, _)| *why != "no_end") {
                let text = format!(
                    "{of} {}: inactivity unknown for {}, {}",
                    row.operation,
                    count(*number),
                    why_unknown(why)
                );
                page.paragraph("  ", &text, Tone::Dim);
            }
            for (why, number) in &row.no_end_by {
                let text =
                    format!("{of} {}: {} {}", row.operation, count(*number), why_no_end(why));
                page.paragraph("  ", &text, Tone::Dim);
            }
        }
    }
}

/// Those that waited longest, so many at most.
pub(super) fn worst(page: &mut Page, summary: &Summary, rows_max: usize) {
    let worst = &summary.facts.host_io.worst;
    if worst.is_empty() || rows_max == 0 {
        return;
    }
    page.heading("I/Os that waited longest for a vCPU", "who had its pCPU meanwhile");
    let mut table = Table::new("r l l r r l");
    table.row(Tone::Dim, ["at", "VM", "", "on the host", "inactivity", "who"]);
    for io in worst.iter().take(rows_max) {
        table.row(Tone::Plain, worst_row(io));
    }
    page.table(&table);
}

fn has_any(disk: &HostIoDisk) -> bool {
    !disk.operations.is_empty()
}

/// The disk without what it lies on, if that is enough to tell it from others of its VM.
fn label(disk: &HostIoDisk, all: &[HostIoDisk]) -> String {
    let vm = shorten(&disk.vm, NAME_CHARS_MAX);
    let Some(label) = &disk.disk else { return format!("{vm} no known disk") };
    let short = short(label);
    let is_it = |other: &&HostIoDisk| {
        other.vm == disk.vm
            && other.disk.as_deref().is_some_and(|other| self::short(other) == short)
    };
    let label = if all.iter().filter(is_it).count() == 1 { short } else { label };
    format!("{vm} {}", shorten(label, DISK_CHARS_MAX))
}

/// What the guest sees of it, and its id.
fn short(label: &str) -> &str {
    label.split(" on ").next().unwrap_or(label)
}

fn row(label: String, row: &HostIoOperation) -> [String; 8] {
    [
        label,
        row.operation.clone(),
        count(row.ended),
        known_duration(row.p50_ns),
        known_duration(row.p99_ns),
        known_duration(row.max_ns),
        if row.known == 0 { String::new() } else { range(row.least_ns, row.most_ns) },
        match (row.least_p99_ns, row.most_p99_ns) {
            (Some(least_ns), Some(most_ns)) => range(least_ns, most_ns),
            _ => String::new(),
        },
    ]
}

fn worst_row(io: &WorstHostIo) -> [String; 6] {
    let vcpu = io.vcpu.map(|vcpu| format!(" vCPU{vcpu}")).unwrap_or_default();
    [
        duration(io.submitted_ns),
        format!("{}{vcpu}", shorten(&io.vm, NAME_CHARS_MAX)),
        io.operation.clone(),
        duration(io.latency_ns),
        range(io.least_ns, io.most_ns),
        shorten(io.who.as_deref().unwrap_or("not for a pCPU, or not known"), NAME_CHARS_MAX),
    ]
}

fn why_unknown(why: &str) -> &'static str {
    match why {
        "vcpu_unknown" => "as records were lost, or what a vCPU did was not yet seen",
        "never_quiet" => "as the VMM's threads never all slept after them",
        "not_traced" => "as it was not seen when the host's kernel handed them to the VMM",
        "nobody_told" => "as no vCPU was woken for it alone",
        _ => "for a reason that this vslice does not know",
    }
}

fn why_no_end(why: &str) -> &'static str {
    match why {
        "lost" => "have no known end, as records were lost",
        "ambiguous" => {
            "have no known end, as another I/O for the same sectors may have been in flight"
        }
        "unfinished" => "were not seen to end",
        "no_sectors" => "have no sectors, by which an end is known",
        _ => "have no known end, for a reason that this vslice does not know",
    }
}
