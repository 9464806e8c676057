//! Who served the vCPUs.

use super::super::model::Summary;
use super::NAME_CHARS_MAX;
use super::page::{Page, Table, Tone, shorten};
use vslice_spec::quantity::count;

/// Of VMs of which requests are known: what a thread did per request says where the disk is served.
pub(super) fn service(page: &mut Page, summary: &Summary) {
    let requests = summary.requests.count;
    // Who is woken is woken for all requests.
    let is_all = summary.facts.selection.as_ref().is_none_or(|of| !of.has_limits());
    let per_request = |count: u64| match is_all {
        true => format!("{:.2}", count as f64 / requests as f64),
        false => "?".to_owned(),
    };
    if requests == 0 || summary.facts.service.is_empty() {
        return;
    }
    page.heading("VMM threads", "other than vCPUs: how often vCPUs woke them, and they woke vCPUs");
    let mut table = Table::new("l r r r r r");
    table.row(Tone::Dim, ["", "tid", "timeslices", "woken by vCPUs", "per request", "woke vCPUs"]);
    for row in &summary.facts.service {
        let name = format!("{} {}", row.vm, row.role);
        table.row(
            Tone::Plain,
            [
                shorten(&name, NAME_CHARS_MAX),
                row.tid.to_string(),
                count(row.arrivals),
                count(row.woken_by_vcpus),
                per_request(row.woken_by_vcpus),
                count(row.woke_vcpus),
            ],
        );
    }
    page.table(&table);
}
