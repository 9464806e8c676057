//! The tables of a run whose events were not recorded. Each says in its heading what it rests on, so that no
//! share is taken for a count.

use super::page::{Page, Table, Tone};
use super::tables::{share_percent, vcpu_name};
use super::vcpus::more;
use crate::summary::evidence::{Sampled, SampledShare};
use crate::summary::model::Summary;
use crate::summary::totals::sum;
use vslice_spec::quantity::{count, duration, known_duration, percent};
use vslice_trace::evidence::EvidenceLevel;

/// Shares below this are added up in one line; the JSON has them all.
const SHARE_SHOWN_MIN: f64 = 0.001;

/// What a page calls the level in its title; nothing where events were recorded.
pub(super) fn label(level: EvidenceLevel) -> &'static str {
    match level {
        EvidenceLevel::Recorded => "",
        EvidenceLevel::Sampled => " (sampled)",
        EvidenceLevel::Totals => " (totals only)",
    }
}

/// Prints how the vCPUs were scheduled, with at most `rows_max` rows.
pub(super) fn scheduled(page: &mut Page, summary: &Summary, rows_max: usize) {
    if summary.facts.scheduled.is_empty() {
        return;
    }
    let note = "the kernel's own totals, not sampled; share of the vCPU's time";
    page.heading("Run delay", note);
    let mut table = Table::new("l r rr rr r r");
    table.row(
        Tone::Dim,
        ["", "tid", "on pCPU", "share", "run delay", "share", "timeslices", "mean"],
    );
    for vcpu in summary.facts.scheduled.iter().take(rows_max) {
        table.row(
            Tone::Plain,
            [
                vcpu_name(&vcpu.vm, vcpu.vcpu),
                vcpu.tid.to_string(),
                duration(vcpu.on_pcpu_ns),
                share_percent(vcpu.on_pcpu_ns, vcpu.observed_ns),
                duration(vcpu.run_delay_ns),
                share_percent(vcpu.run_delay_ns, vcpu.observed_ns),
                count(vcpu.timeslices),
                known_duration(vcpu.timeslice_mean_ns),
            ],
        );
    }
    page.table(&table);
    more(page, summary.facts.scheduled.len().saturating_sub(rows_max));
}

/// Prints the sampled shares, with at most `rows_max` rows.
pub(super) fn shares(page: &mut Page, summary: &Summary, rows_max: usize) {
    let Some(sampled) = &summary.facts.sampled else { return };
    let note = "shares of the samples of a vCPU, not counts of events";
    page.heading("Sampled reasons", note);
    let mut table = Table::new("ll r rr r l");
    table.row(Tone::Dim, ["", "state", "share", "95 % from", "to", "samples", "lock"]);
    let mut rows = Vec::new();
    for vcpu in &sampled.vcpus {
        let mut name = vcpu_name(&vcpu.vm, vcpu.vcpu);
        let is_shown = |row: &&SampledShare| row.share >= SHARE_SHOWN_MIN;
        for row in vcpu.shares.iter().filter(is_shown) {
            let lock = row.lock_address.map_or_else(String::new, |at| format!("{at:#x}"));
            rows.push((
                Tone::Plain,
                [
                    std::mem::take(&mut name),
                    row.label().to_owned(),
                    percent(row.share),
                    percent(row.low),
                    percent(row.high),
                    count(row.looks),
                    lock,
                ],
            ));
        }
        let rest = vcpu.shares.iter().filter(|row| !is_shown(row)).map(|row| row.looks);
        let rest = sum(rest);
        if rest > 0 {
            let share = share_percent(rest, vcpu.looks);
            let first = std::mem::take(&mut name);
            let empty = String::new;
            let cells = [first, "others".to_owned(), share, empty(), empty(), count(rest), empty()];
            rows.push((Tone::Dim, cells));
        }
    }
    let left_out = rows.len().saturating_sub(rows_max);
    rows.into_iter().take(rows_max).for_each(|(tone, cells)| table.row(tone, cells));
    page.table(&table);
    more(page, left_out);
}

/// The losses of a run whose events were not recorded.
pub(super) fn losses(summary: &Summary) -> String {
    let requests = if summary.requests.dropped == 0 { "no request" } else { "requests" };
    match &summary.facts.sampled {
        None => format!("events were not recorded and nothing was sampled; {requests} dropped"),
        Some(sampled) if sampled.gaps == 0 => {
            format!("events were not recorded; no sample came late; {requests} dropped")
        }
        Some(sampled) => format!(
            "events were not recorded; {} sampling rounds were missed in {} gaps, {} in all; {requests} \
             dropped",
            count(sampled.gap_rounds),
            count(sampled.gaps),
            duration(sampled.gaps_ns)
        ),
    }
}

/// How it was sampled, for the line on the run's own cost.
pub(super) fn rate(sampled: &Sampled) -> String {
    let cost =
        sampled.own_share.map(|share| format!(" at the cost of {} of a pCPU", percent(share)));
    format!("sampled {:.0} times a second{}", sampled.rounds_hz, cost.unwrap_or_default())
}
