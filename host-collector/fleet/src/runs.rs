//! Rows of `runs` and `vcpus`, which are the summary's.

use crate::place::Place;
use crate::table::{Cell, TableError, TableWriter};
use vslice_core::text::harmless;
use vslice_core::units::HostNs;
use vslice_report::summary::Summary;
use vslice_report::summary::model::RunStatus;
use vslice_trace::evidence::EvidenceLevel;
use vslice_trace::host::{HostFacts, HostPcpus};

/// Writes the row of a run that began then, on this host, with so many VMs.
pub(crate) fn write(
    summary: &Summary,
    host: Option<&HostFacts>,
    vms_count: usize,
    start: HostNs,
    place: &Place,
    table: &mut TableWriter,
) -> Result<(), TableError> {
    let facts = &summary.facts;
    let (status, reason) = match &facts.status {
        RunStatus::Complete => ("complete", None),
        RunStatus::Partial { reason } => ("partial", Some(harmless(reason))),
    };
    let told = |of: fn(&HostFacts) -> &Option<String>| {
        host.and_then(|host| of(host).as_deref()).map(harmless)
    };
    let kernel_release = told(|host| &host.kernel_release);
    let qemu_version = told(|host| &host.qemu_version);
    let processor_model = told(|host| &host.processor_model);
    let pcpus = host.and_then(|host| host.pcpus_online.as_ref()).map(HostPcpus::count);
    let (plan, accelerator) = (harmless(&facts.plan), harmless(&facts.accelerator.name));
    let (requests, latency) = (&summary.requests, &summary.latency_ns);
    let observed = summary.observed.as_ref();
    let observed = observed.map(|of| of.guests.iter().map(|guest| guest.count).sum::<u64>());
    table.push(&[
        Cell::Text(&place.run),
        place.time(start),
        Cell::count(facts.measured_ns),
        Cell::Text(&plan),
        Cell::Text(status),
        reason.as_deref().into(),
        Cell::Text(facts.evidence.level.name()),
        Cell::Text(&accelerator),
        kernel_release.as_deref().into(),
        qemu_version.as_deref().into(),
        processor_model.as_deref().into(),
        Cell::maybe(pcpus.map(|count| count as u64)),
        Cell::maybe(host.and_then(|host| host.tick_hz).map(u64::from)),
        Cell::count(vms_count as u64),
        Cell::count(requests.count),
        Cell::count(requests.unattributable),
        Cell::count(requests.dropped),
        Cell::maybe(latency.mean),
        Cell::maybe(latency.p50),
        Cell::maybe(latency.p99),
        Cell::maybe(latency.p999),
        Cell::maybe(latency.max),
        Cell::maybe(observed),
        Cell::maybe(summary.clock.bound_ns),
        Cell::count(facts.cost.events),
        Cell::count(facts.lost.records),
        Cell::count(facts.warnings.len() as u64),
    ])
}

/// Writes the rows of its vCPUs: by their events, or by the scheduler's own counters where no events were recorded.
pub(crate) fn write_vcpus(
    summary: &Summary,
    place: &Place,
    table: &mut TableWriter,
) -> Result<(), TableError> {
    let run = Cell::Text(&place.run);
    if summary.facts.evidence.level == EvidenceLevel::Recorded {
        for of in &summary.vcpus {
            let (vm, slices) = (harmless(&of.vm), &of.timeslices);
            table.push(&[
                run,
                Cell::Text(&vm),
                Cell::Integer(of.vcpu.0.into()),
                Cell::count(of.observed_ns),
                Cell::count(of.on_pcpu_ns),
                Cell::count(of.wait_ns),
                Cell::count(slices.count),
                Cell::maybe(slices.mean_ns),
                Cell::maybe(slices.p50_ns),
                Cell::maybe(slices.p99_ns),
                Cell::maybe(slices.max_ns),
            ])?;
        }
        return Ok(());
    }
    for of in &summary.facts.scheduled {
        let (vm, none) = (harmless(&of.vm), Cell::None);
        table.push(&[
            run,
            Cell::Text(&vm),
            Cell::Integer(of.vcpu.0.into()),
            Cell::count(of.observed_ns),
            Cell::count(of.on_pcpu_ns),
            Cell::count(of.run_delay_ns),
            Cell::count(of.timeslices),
            Cell::maybe(of.timeslice_mean_ns),
            none,
            none,
            none,
        ])?;
    }
    Ok(())
}
