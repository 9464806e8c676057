//! How the vCPUs fared, for the page of a run without requests: those that were held up most come first.

use super::page::{Page, Table, Tone};
use super::tables::{self, share_percent, vcpu_name};
use crate::summary::hindrance::hindered_share;
use crate::summary::model::{OffCpu, Summary, Vcpu};
use crate::summary::totals::share;
use std::cmp::Reverse;
use vslice_spec::quantity::{count, duration, known_duration};

/// Reasons and antagonists that are listed of one vCPU.
const ROWS_OF_VCPU_MAX: usize = 3;

/// Below this share of a vCPU's time a reason is not listed.
const REASON_SHARE_MIN: f64 = 0.001;

/// The vCPUs, those first that have the most of this.
fn ranked(summary: &Summary, share_of: impl Fn(&Vcpu) -> f64) -> Vec<&Vcpu> {
    let mut vcpus: Vec<&Vcpu> = summary.vcpus.iter().collect();
    vcpus.sort_by(|one, other| share_of(other).total_cmp(&share_of(one)));
    vcpus
}

/// Why each was off its pCPU; of so many rows at most.
pub(super) fn off_cpu(page: &mut Page, summary: &Summary, rows_max: usize) {
    let mut rows = Vec::new();
    for vcpu in ranked(summary, hindered_share) {
        let mut reasons: Vec<&OffCpu> = vcpu.off_cpu.iter().filter(|row| row.count > 0).collect();
        reasons.sort_by_key(|row| Reverse(row.total_ns));
        let is_listed = |row: &&OffCpu| share(row.total_ns, vcpu.observed_ns) >= REASON_SHARE_MIN;
        let mut names =
            [vcpu_name(&vcpu.vm, vcpu.vcpu), share_percent(vcpu.on_pcpu_ns, vcpu.observed_ns)];
        let polled_ns = vcpu.halt_poll_ns.unwrap_or(0);
        if share(polled_ns, vcpu.observed_ns) >= REASON_SHARE_MIN {
            let [name, on_pcpu] = std::mem::take(&mut names);
            let (share, total) = (share_percent(polled_ns, vcpu.observed_ns), duration(polled_ns));
            let what = "(halt polling, on a pCPU)".to_owned();
            rows.push([name, on_pcpu, what, share, total, String::new(), String::new()]);
        }
        for row in reasons.into_iter().filter(is_listed).take(ROWS_OF_VCPU_MAX) {
            let [name, on_pcpu] = std::mem::take(&mut names);
            rows.push([
                name,
                on_pcpu,
                row.reason.label().to_owned(),
                share_percent(row.total_ns, vcpu.observed_ns),
                duration(row.total_ns),
                count(row.count),
                known_duration(row.max_ns),
            ]);
        }
    }
    if rows.is_empty() {
        return;
    }
    page.heading("vCPUs", "share of their time on a pCPU, and why they were off");
    let mut table = Table::new("lr l r r r r");
    table.row(Tone::Dim, ["", "on pCPU", "off-CPU reason", "share", "total", "count", "max"]);
    let left_out = rows.len().saturating_sub(rows_max);
    rows.into_iter().take(rows_max).for_each(|row| table.row(Tone::Plain, row));
    page.table(&table);
    more(page, left_out);
}

/// Who ran while they waited; of so many rows at most.
pub(super) fn antagonists(page: &mut Page, summary: &Summary, rows_max: usize) {
    let mut rows = Vec::new();
    let waited = |vcpu: &Vcpu| share(vcpu.wait_ns, vcpu.observed_ns);
    for vcpu in ranked(summary, waited).into_iter().filter(|vcpu| vcpu.wait_ns > 0) {
        let waited = share_percent(vcpu.wait_ns, vcpu.observed_ns);
        let mut names = [vcpu_name(&vcpu.vm, vcpu.vcpu), waited];
        for row in vcpu.antagonist_groups.iter().take(ROWS_OF_VCPU_MAX) {
            let name = tables::group_name(row);
            let [name_of_vcpu, waited] = std::mem::take(&mut names);
            rows.push([
                name_of_vcpu,
                waited,
                name,
                duration(row.ran_ns),
                share_percent(row.ran_ns, vcpu.wait_ns),
            ]);
        }
        let cut = vcpu.antagonist_groups.iter().skip(ROWS_OF_VCPU_MAX).map(|row| row.ran_ns);
        let others_ns = cut.fold(vcpu.other_groups_ns, u64::saturating_add);
        for (who, length_ns) in [
            ("others", others_ns),
            ("nobody (pCPU idle)", vcpu.idle_ns),
            ("not seen", vcpu.unseen_ns),
        ] {
            if share(length_ns, vcpu.wait_ns) >= REASON_SHARE_MIN {
                let [name_of_vcpu, waited] = std::mem::take(&mut names);
                let ran = duration(length_ns);
                let of_waits = share_percent(length_ns, vcpu.wait_ns);
                rows.push([name_of_vcpu, waited, who.to_owned(), ran, of_waits]);
            }
        }
    }
    if rows.is_empty() {
        return;
    }
    page.heading(
        "Who ran",
        "while vCPUs waited for a pCPU: share of the vCPU's time, then of its waits",
    );
    let mut table = Table::new("lr l rr");
    table.row(Tone::Dim, ["", "waited", "who ran", "total", "share"]);
    let left_out = rows.len().saturating_sub(rows_max);
    rows.into_iter().take(rows_max).for_each(|row| table.row(Tone::Plain, row));
    page.table(&table);
    more(page, left_out);
}

/// Prints how many rows are not shown.
pub(super) fn more(page: &mut Page, rows_count: usize) {
    if rows_count > 0 {
        let rows = vslice_spec::quantity::counted(rows_count as u64, "more row");
        page.paragraph("  ", &format!("[{rows}]"), Tone::Dim);
    }
}
