//! Runs as one would draw them: ticks are nanoseconds.

use super::super::steal::VcpuTimes;
use super::*;
use serde_json::Value;
use std::collections::BTreeSet;
use vslice_workload::gap::{Counters, LostGaps, Outcome, SchedStat};
use vslice_workload::reader::ReaderEnd;
use vslice_workload::ring::Record;

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;

/// Where the clock is when a run begins: not at 0, as no TSC is.
const BEGUN: u64 = 7_000_000_000;

fn solo(value: &str) -> Solo {
    Solo::from_kernel_parameter(value).unwrap()
}

fn counters(at_ns: u64, cpu_ns: u64, run_delay_ns: u64, involuntary: u64) -> Counters {
    let schedstat = Some(SchedStat { ran_ns: cpu_ns, run_delay_ns });
    Counters { at: BEGUN + at_ns, cpu_ns, schedstat, voluntary: 0, involuntary }
}

/// A gap in which the loop ran, as far as the guest knows, and no tick was seen.
fn host_gap(start_ns: u64, length_ns: u64) -> RawGap {
    let end_ns = start_ns + length_ns;
    let before = counters(start_ns, start_ns, 0, 0);
    let after = Counters { schedstat: before.schedstat, ..counters(end_ns, end_ns, 0, 0) };
    RawGap { start: BEGUN + start_ns, end: BEGUN + end_ns, before, after }
}

/// A gap in which the loop waited for another thread.
fn switch_gap(start_ns: u64, length_ns: u64) -> RawGap {
    let end_ns = start_ns + length_ns;
    let after = counters(end_ns, start_ns, length_ns, 1);
    RawGap { after, ..host_gap(start_ns, length_ns) }
}

fn outcome(gaps: Vec<RawGap>, lost: Option<LostGaps>) -> Outcome {
    Outcome {
        gaps,
        begun: BEGUN,
        ended: BEGUN + 100 * MS,
        iterations: 1_000,
        counter_reads: 3,
        blind_ticks: 9 * US,
        blind_longest_ticks: 4 * US,
        lost,
        first: counters(0, 0, 5 * MS, 0),
        last: counters(100 * MS, 90 * MS, 13 * MS, 1),
    }
}

fn measured(outcome: Outcome) -> Measured {
    let times = VcpuTimes { steal_ns: 0, irq_ns: 0 };
    Measured {
        vcpus: vec![MeasuredVcpu { vcpu: 1, outcome, times: Some((times, times)) }],
        rate: TickRate::new(1, 1),
        has_schedstat: true,
        step_ns: 10 * MS,
        reading: None,
        wall_start_ms: 0,
        interrupted: false,
    }
}

/// Two gaps of the host's, one of the guest's between them, and a blip.
fn contended() -> Measured {
    measured(outcome(
        vec![
            host_gap(10 * MS, 4 * MS),
            switch_gap(20 * MS, 8 * MS),
            host_gap(50 * MS, 6 * MS),
            host_gap(70 * MS, 30 * US),
        ],
        None,
    ))
}

fn report(value: &str, measured: &Measured) -> Report {
    analyse(&solo(value), measured).report
}

#[test]
fn gaps_are_the_hosts_the_guests_or_unknown() {
    let report = report("", &contended());
    let vcpu = &report.vcpus[0];
    assert_eq!(vcpu.measured_ns, 100 * MS);
    assert_eq!((vcpu.host_gaps.count, vcpu.host_gaps.total_ns), (2, 10 * MS));
    assert!((vcpu.host_share - 0.1).abs() < 1e-9 && (vcpu.host_gaps_per_s - 20.0).abs() < 1e-9);
    let counts: Vec<_> = vcpu.gaps.iter().map(|(kind, gaps)| (*kind, gaps.count)).collect();
    assert_eq!(counts, [("guest_switch", 1), ("host", 2), ("unknown", 1)]);
    assert_eq!(vcpu.parts_ns["guest_switch"], 8 * MS);
    assert_eq!(vcpu.run_delay_ns, Some(8 * MS), "the kernel's own sum");
    assert_eq!(vcpu.steal.told, "never");
    assert!(report.missing.iter().any(|line| line.contains("steal has been 0 since boot")));
    assert_eq!(vcpu.cost.blind_ns, 9 * US);
}

#[test]
fn a_timeslice_is_not_ended_by_the_guest() {
    let report = report("", &contended());
    let timeslices = report.vcpus[0].timeslices;
    assert_eq!((timeslices.count, timeslices.p50_ns), (1, 36 * MS));
    let timeline = &report.vcpus[0].timeline;
    assert_eq!((timeline.len(), report.vcpus[0].timeline_cell_ns), (80, 1_250 * US));
    assert_eq!((timeline[8], timeline[9], timeline[12]), (1.0, 1.0, 0.0));
}

#[test]
fn a_timeslice_begins_before_the_handler_of_a_pending_tick() {
    // The tick came 40 us before the first gap's end: by then the vCPU was back.
    let mut first = host_gap(10 * MS, 4 * MS);
    let ran_ns = 14 * MS - 40 * US;
    first.after.schedstat = Some(SchedStat { ran_ns, run_delay_ns: 0 });
    let measured = measured(outcome(vec![first, host_gap(50 * MS, 6 * MS)], None));
    let report = report("", &measured);
    let vcpu = &report.vcpus[0];
    assert_eq!(vcpu.timeslices.p50_ns, 36 * MS + 40 * US);
    assert_eq!(vcpu.parts_ns["guest_interrupt"], 40 * US);
    assert_eq!(vcpu.parts_ns["host"], 10 * MS - 40 * US);
}

#[test]
fn bins_have_no_holes() {
    let report = report("", &contended());
    let bins = &report.vcpus[0].bins;
    let edges: Vec<u64> = bins.iter().map(|bin| bin.from_ns / US).collect();
    assert_eq!(edges, [20, 50, 100, 200, 500, 1_000, 2_000, 5_000]);
    assert_eq!(bins[0].counts["unknown"], 1);
    assert_eq!(bins[1].counts.len(), 0);
    assert_eq!(bins[6].counts["host"], 1);
    assert_eq!((bins[7].counts["host"], bins[7].counts["guest_switch"]), (1, 1));
    assert_eq!((bin_from(0), bin_from(1), bin_from(u64::MAX)), (1, 1, 5_000_000_000_000_000_000));
}

#[test]
fn a_steal_clock_that_stands_still_names_waits_in_the_vmm() {
    let mut measured = contended();
    let times = VcpuTimes { steal_ns: 500 * MS, irq_ns: 0 };
    measured.vcpus[0].times = Some((times, times));
    let vcpu = &report("", &measured).vcpus[0];
    // 10 ms of gaps are less than the steps of /proc/stat can exclude.
    assert_eq!((vcpu.steal.told, vcpu.host_gaps.count), ("total", 2));
    measured.step_ns = MS;
    let vcpu = &report("", &measured).vcpus[0];
    assert_eq!((vcpu.steal.told, vcpu.gaps["host_no_steal"].count), ("stood_still", 2));
    measured.vcpus[0].times = None;
    let report = report("", &measured);
    assert_eq!((report.vcpus[0].steal.told, report.vcpus[0].steal.moved_ns), ("untold", None));
    assert_eq!(report.vcpus[0].gaps["host"].count, 2);
}

#[test]
fn every_gap_is_listed_when_asked_for() {
    let json = solo("json,gaps");
    let report = analyse(&json, &contended()).report;
    let gaps = report.vcpus[0].gap_list.as_ref().unwrap();
    assert_eq!(gaps.len(), 4);
    assert_eq!((gaps[1].start_ticks, gaps[1].start_ns), (BEGUN + 20 * MS, 20 * MS));
    assert_eq!((gaps[1].kind, gaps[1].length_ns), ("guest_switch", 8 * MS));
    for gap in gaps {
        assert_eq!(gap.parts_ns.values().sum::<u64>(), gap.length_ns);
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["schema"], "vslice.solo/1");
    assert_eq!(json["vcpus"][0]["gap_list"][1]["parts_ns"]["guest_switch"], 8 * MS);
    assert!(report_without_list()["vcpus"][0].get("gap_list").is_none());
}

fn report_without_list() -> serde_json::Value {
    serde_json::to_value(report("", &contended())).unwrap()
}

/// Requests of 1 ms each every 2 ms, with exceptions.
fn reading() -> Reading {
    let record = |index, submitted_ns, latency_ns| Record {
        index,
        submitted: BEGUN + submitted_ns,
        completed: BEGUN + submitted_ns + latency_ns,
        vcpu_submitted: 1,
        vcpu_completed: 1,
        result: 4096,
    };
    let requests = vec![
        record(0, 2 * MS, MS),
        record(1, 9 * MS, 6 * MS),
        record(2, 21 * MS, 5 * MS),
        record(3, 52 * MS, 5 * MS),
    ];
    let end = ReaderEnd { requests: 4, dropped: 0, completed: false, io_errors: 0, short_reads: 0 };
    Reading { vcpu: 1, target: "/data".to_owned(), requests, dropped: 0, end }
}

#[test]
fn slow_requests_are_overlapped_by_the_hosts_gaps_only() {
    let measured = Measured { reading: Some(reading()), ..contended() };
    let reading = report("read=/data,slow=2ms", &measured).reading.unwrap();
    let slow = SlowReport {
        count: 3,
        latency_ns: 16 * MS,
        host_ns: 8 * MS,
        mostly_host: 2,
        unattributable: 0,
    };
    assert_eq!(reading.slow, slow);
    let host_ns: Vec<u64> = reading.slowest.iter().map(|request| request.host_ns).collect();
    assert_eq!(host_ns, [4 * MS, 0, 4 * MS]);
    // The 99th percentile of four is the slowest: none is slower.
    assert_eq!(report("read=/data", &measured).reading.unwrap().slow.count, 0);
}

#[test]
fn nothing_is_said_of_what_comes_after_a_loss() {
    let lost = LostGaps { count: 9, first: BEGUN + 51 * MS, last: BEGUN + 90 * MS };
    let mut measured = measured(outcome(vec![host_gap(10 * MS, 4 * MS)], Some(lost)));
    measured.reading = Some(reading());
    let report = report("read=/data,slow=2ms", &measured);
    assert_eq!(report.vcpus[0].measured_ns, 51 * MS);
    assert_eq!(report.vcpus[0].lost.unwrap().count, 9);
    let slow = report.reading.unwrap().slow;
    assert_eq!((slow.count, slow.unattributable), (2, 1));
}

/// The types of a JSON by key, with `schema.md`'s words for kinds and distributions.
fn visit(key: &str, value: &Value, seen: &mut BTreeMap<String, BTreeSet<String>>) {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Array(values) => {
            return values.iter().for_each(|value| visit(&format!("{key}[]"), value, seen));
        }
        Value::Object(fields) if fields.contains_key("p999_ns") => "distribution",
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_kind = ["counts", "parts_ns", "gaps"].iter().any(|map| key.ends_with(map));
                let name = if is_kind { "<kind>" } else { name };
                visit(&format!("{key}.{name}"), value, seen);
            }
            "object"
        }
    };
    seen.entry(key.trim_start_matches('.').to_owned()).or_default().insert(name.to_owned());
}

#[test]
fn every_key_is_documented_with_its_type_and_none_beside() {
    let whole = Measured { reading: Some(reading()), ..contended() };
    let lost = LostGaps { count: 9, first: BEGUN + 51 * MS, last: BEGUN + 90 * MS };
    let mut untold = measured(outcome(vec![host_gap(10 * MS, 4 * MS)], Some(lost)));
    untold.vcpus[0].times = None;
    untold.vcpus[0].outcome.last.schedstat = None;
    let mut ticked = host_gap(10 * MS, 4 * MS);
    ticked.after.schedstat = Some(SchedStat { ran_ns: 14 * MS - 40 * US, run_delay_ns: 0 });
    let ticked = measured(outcome(vec![ticked, host_gap(50 * MS, 6 * MS)], None));
    let mut seen = BTreeMap::new();
    for (options, measured) in
        [("json,gaps,read=/data,slow=2ms", whole), ("json", untold), ("json,gaps", ticked)]
    {
        visit("", &serde_json::to_value(report(options, &measured)).unwrap(), &mut seen);
    }
    // An object is documented by its keys, and where it can be absent.
    seen.retain(|_, types| !types.contains("object") || types.contains("null"));
    let rows = include_str!("schema.md").lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeMap<String, BTreeSet<String>> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let types = cells[2].split(" or ").map(str::to_owned).collect();
            (cells[1].trim_matches('`').to_owned(), types)
        })
        .collect();
    assert_eq!(seen, documented, "left: the JSON; right: schema.md");
}
