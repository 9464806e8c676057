//! Holds `schema.md` and the model together.

use super::collect::SummaryBuilder;
use super::model::{AttributionName, ClassAntagonist, RunStatus, SCHEMA, Summary};
use super::warning::Warning;
use super::{advice, example, observed};
use crate::summary::io::UnphasedBy;
use crate::summary::observed::model::ObservedHidden;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use vslice_core::join::{Attribution, NoPhase, Part, Phase};
use vslice_core::timeline::LockBehaviour;
use vslice_core::units::VcpuId;
use vslice_trace::evidence::EvidenceLevel;

const SCHEMA_MD: &str = include_str!("schema.md");

/// Key to JSON types, as `schema.md` says.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let rows = SCHEMA_MD.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.filter_map(|line| {
        let [_, key, types, _, _] = line.split('|').collect::<Vec<_>>()[..] else { return None };
        let types = types.trim().split(" or ").map(str::to_owned).collect();
        Some((key.trim().trim_matches('`').to_owned(), types))
    });
    rows.collect()
}

/// What is of the same form as something else is documented there.
fn documented_at(key: &str) -> String {
    let same = [
        ("observed.operations[].latency_ns", "latency_ns"),
        ("observed.operations[].processes[].latency_ns", "latency_ns"),
        ("observed.guests[].reader.before_ns", "latency_ns"),
        ("observed.guests[].reader.after_ns", "latency_ns"),
        ("observed.operations[].unattributable_by", "requests.unattributable_by"),
        ("observed.operations[].parts", "parts"),
        ("observed.operations[].clock_error_ns", "clock_error_ns"),
        ("observed.operations[].classes", "classes"),
        ("observed.operations[].io", "io.classes"),
        ("observed.operations[].causes", "causes"),
        ("observed.operations[].what_if", "what_if"),
        ("what_if.causes[].low_ns", "what_if.causes[].latency_ns"),
        ("what_if.causes[].high_ns", "what_if.causes[].latency_ns"),
        ("what_if.inactivity.latency_ns", "what_if.causes[].latency_ns"),
        ("what_if.inactivity.low_ns", "what_if.causes[].latency_ns"),
        ("what_if.inactivity.high_ns", "what_if.causes[].latency_ns"),
        ("what_if.antagonist_groups[].latency_ns", "what_if.causes[].latency_ns"),
        ("what_if.antagonist_groups[].low_ns", "what_if.causes[].latency_ns"),
        ("what_if.antagonist_groups[].high_ns", "what_if.causes[].latency_ns"),
        ("observed.operations[].other_processes", "observed.operations[].processes[].classes"),
        ("observed.operations[].worst[].parts", "worst[].parts"),
        ("observed.operations[].worst[].io", "worst[].io"),
        ("observed.operations[].worst[].io_unknown", "worst[].io_unknown"),
        ("observed.operations[].worst[].chain", "worst[].chain"),
    ];
    let found = same.iter().find(|(form, _)| *form == key);
    found.map_or(key, |(_, form)| form).to_owned()
}

/// Adds the keys below `value` with the JSON types that they are seen with.
fn visit(key: &str, value: &Value, seen: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut note = |name: &str| {
        seen.entry(key.to_owned()).or_default().insert(name.to_owned());
    };
    if key == "environment.details" {
        return note("any");
    }
    match value {
        Value::Null => note("null"),
        Value::Bool(_) => note("boolean"),
        Value::String(_) => note("string"),
        Value::Number(number) if number.is_f64() => note("number"),
        Value::Number(_) => note("integer"),
        Value::Array(values) => {
            values.iter().for_each(|value| visit(&format!("{key}[]"), value, seen));
        }
        Value::Object(fields) => {
            let is_nullable =
                ["waker", "split", "quota", "behaviour"].iter().any(|end| key.ends_with(end));
            let nullable = [
                "worst[].io",
                "sampled",
                "selection",
                "observed",
                "what_if",
                "what_if.inactivity",
                "observed.guests[].cost",
                "observed.guests[].end",
                "observed.guests[].end.hidden",
                "observed.guests[].reader",
            ];
            if is_nullable || nullable.contains(&key) {
                note("object");
            }
            for (name, value) in fields {
                let is_part = Part::ALL.iter().any(|part| part.name() == name);
                let is_class = ["classes", "parts", "clock_error_ns", "io.classes", "causes"]
                    .contains(&key)
                    || key == "observed.operations[].processes[].classes";
                let is_phase = [".phases_ns", ".parts_ns"].iter().any(|end| key.ends_with(end));
                let is_reason = ["no_end_by", "unknown_by"].iter().any(|end| key.ends_with(end));
                let name = match name.as_str() {
                    _ if is_reason => "<reason>",
                    _ if is_phase => "<phase>",
                    _ if is_part => "<part>",
                    _ if is_class => "<class>",
                    name => name,
                };
                let is_warning = key == "warnings[]" && name != "kind";
                let child = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
                let child = documented_at(&child);
                if !is_warning {
                    visit(&child, value, seen);
                }
            }
        }
    }
}

/// Some runs that between them have every key and every null.
fn summaries() -> [Summary; 15] {
    let empty = SummaryBuilder::new(example::START, example::vms());
    let empty = empty.finish(example::facts(), &example::names());
    let mut killed = example::sampled();
    killed.facts.scheduled[0].timeslice_mean_ns = None;
    killed.facts.sampled.iter_mut().for_each(|sampled| sampled.own_share = None);
    let mut partial = example::summary();
    partial.facts.host_io = example::host_io();
    partial.facts.status = RunStatus::Partial { reason: "interrupted".to_owned() };
    partial.clock.bound_ns = None;
    partial.vcpus[0].halt_poll_ns = Some(7);
    let disk = &mut partial.io.disks[0];
    (disk.reason, disk.device) = (Some("it is in memory".to_owned()), None);
    disk.unmapped_reason = Some("the file system does not map it".to_owned());
    partial.facts.big_locks[0].behaviour = Some(LockBehaviour::default());
    partial.lock_waits.iter_mut().for_each(|waits| waits.device = None);
    let ClassAntagonist { antagonist, .. } = &mut partial.classes.all.antagonists[0];
    (antagonist.pid, antagonist.command, antagonist.group) = (None, None, None);
    let ran = partial.worst[0].chain.iter_mut().flat_map(|span| &mut span.antagonists);
    ran.for_each(|antagonist| {
        (antagonist.pid, antagonist.command, antagonist.group) = (None, None, None);
    });
    let unsound = example::unsound_clock();
    let mut bare_part = example::part();
    bare_part.facts.selection.iter_mut().for_each(|of| of.slower_than_ns = None);
    let mut unread = observed::example::with_reader();
    let guests = unread.observed.iter_mut().flat_map(|observed| &mut observed.guests);
    for guest in guests {
        guest.reader.iter_mut().for_each(|check| check.unchecked = Some("no disk".to_owned()));
    }
    [
        advice::tests::with_a_command(),
        example::summary(),
        partial,
        example::with_exits(),
        example::sampled(),
        killed,
        unsound,
        empty,
        observed_bare(),
        unread,
        observed::example::with_reader(),
        observed::example::stalled(),
        observed::example::summary(),
        example::part(),
        bare_part,
    ]
}

/// Of which as little is known as may be.
fn observed_bare() -> Summary {
    let mut summary = observed::example::slower_than();
    let observed = summary.observed.as_mut().unwrap();
    observed.answer = None;
    let guest = &mut observed.guests[0];
    guest.cost.iter_mut().for_each(|cost| cost.cpu_ns_per_request = None);
    guest.end = Some(observed::model::ObservedEnd::default());
    guest.devices[0] = observed::model::ObservedDisk {
        name: "vdb".to_owned(),
        size_bytes: None,
        io_scheduler: None,
        hardware_queues: None,
        completion_vcpu: "unknown".to_owned(),
        host_disk: None,
        host_disk_unknown: Some("it is in memory".to_owned()),
    };
    let guest = observed::model::ObservedGuest {
        cost: None,
        unobserved: Some("it has no disk".to_owned()),
        ..guest.clone()
    };
    observed.guests.push(guest);
    let row = observed.operations.iter_mut().find(|row| !row.worst.is_empty()).unwrap();
    row.bound_ns = None;
    row.processes[0].pid = None;
    let worst = &mut row.worst[0];
    (worst.pid, worst.issued_ns, worst.chain[0].vcpu) = (None, None, None);
    worst.vcpu_interrupted = None;
    summary
}

#[test]
fn every_key_is_documented_with_its_type_and_none_beside() {
    let mut seen = BTreeMap::new();
    for summary in summaries() {
        visit("", &serde_json::to_value(&summary).unwrap(), &mut seen);
    }
    let documented = documented();
    for (key, types) in &seen {
        assert_eq!(documented.get(key), Some(types), "`{key}` in schema.md");
    }
    let unseen: Vec<_> = documented.keys().filter(|key| !seen.contains_key(*key)).collect();
    assert!(unseen.is_empty(), "documented but not there: {unseen:?}");
}

#[test]
fn the_keys_that_users_rely_on_are_there() {
    let json = serde_json::to_value(example::summary()).unwrap();
    assert_eq!(json["schema"], SCHEMA);
    for pointer in [
        "/requests/count",
        "/requests/dropped",
        "/requests/unattributable",
        "/latency_ns/p50",
        "/latency_ns/p99",
        "/latency_ns/p999",
        "/latency_ns/max",
        "/vcpus/0/vcpu",
        "/vcpus/1/timeslices/count",
        "/vcpus/1/timeslices/mean_ns",
        "/vcpus/1/timeslices/p50_ns",
        "/vcpus/1/timeslices/p99_ns",
        "/vcpus/1/timeslices/max_ns",
        "/vcpus/0/off_cpu/0/count",
        "/vcpus/0/off_cpu/0/total_ns",
        "/clock/bound_ns",
        "/lost/records",
        "/lost/intervals",
    ] {
        assert!(json.pointer(pointer).is_some_and(Value::is_u64), "{pointer}");
    }
    for pointer in ["/vcpus/0/vm", "/vcpus/0/off_cpu/0/reason", "/clock/method"] {
        assert!(json.pointer(pointer).is_some_and(Value::is_string), "{pointer}");
    }
    assert!(json["vcpus"][1]["timeslices"]["cv"].is_f64());
    for class in ["all", "p99", "p999"] {
        for part in Part::ALL {
            assert!(json["parts"][class][part.name()].is_u64(), "parts.{class}.{}", part.name());
        }
        let parts_ns: u64 =
            json["parts"][class].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(json["classes"][class]["latency_ns"], parts_ns);
        let io = &json["io"]["classes"][class];
        for part in Part::ALL {
            let of_phase = |phase: Phase| io["parts_ns"][phase.name()][part.name()].as_u64();
            let over_phases = Phase::ALL.into_iter().filter_map(of_phase).sum::<u64>();
            assert_eq!(json["parts"][class][part.name()], over_phases, "{class} {part:?}");
        }
        let phases_ns: u64 =
            io["phases_ns"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(phases_ns, parts_ns);
    }
}

/// One warning of every kind.
fn warnings() -> Vec<Warning> {
    let (count, records, intervals, share) = (1, 1, 1, 0.5);
    let (vm, vcpu) = ("vm1".to_owned(), VcpuId(0));
    vec![
        Warning::NoRequests,
        Warning::LostRecords { records, intervals },
        Warning::DroppedRequests { count, intervals },
        Warning::ObservedLost { vm: vm.clone(), events: count, intervals },
        Warning::ObservedHidden {
            vm: vm.clone(),
            hidden: ObservedHidden { completed: count, ..ObservedHidden::default() },
            may_have_ended: count,
        },
        Warning::ObservedUnattributable {
            vm: vm.clone(),
            device: "vdb".to_owned(),
            operation: "flushes".to_owned(),
            count,
            share,
        },
        Warning::ReaderContradicted { vm: vm.clone(), count, worst_ns: 1_000 },
        Warning::NotRecorded { level: EvidenceLevel::Sampled, reason: "not allowed".to_owned() },
        Warning::SampleBias { vm: vm.clone(), vcpu, sampled: 0.25, counted: 0.5 },
        Warning::MissingEvidence {
            name: "kvm/kvm_pio".to_owned(),
            costs: "devices have no names".to_owned(),
        },
        Warning::Unattributable { count, share },
        Warning::Unplaced { count },
        Warning::FailedRequests { errors: count, short: 0 },
        Warning::UnknownTail { share },
        Warning::UnknownPhases {
            share,
            p99_share: share,
            requests: count,
            by: UnphasedBy { unfinished: count, ..UnphasedBy::default() },
            hidden: vec![],
        },
        Warning::ThinTail { class: "p99".to_owned(), count },
        Warning::ClockBound { bound_ns: 1_000, p99_ns: 2_000 },
        Warning::ClockViolated { count, worst_ns: 1_000 },
        Warning::KvmClockViolated { count, worst_ns: 1_000 },
        Warning::PtpClockViolated { count, worst_ns: 1_000 },
        Warning::HogClockViolated { count, worst_ns: 1_000 },
        Warning::ClockStepped { vm: vm.clone(), vcpu, count, step_ns: 0 },
        Warning::ClocksApart { vm: vm.clone(), vcpu, other_vcpu: VcpuId(1), apart_ns: 15_700_000 },
        Warning::HogDidNotCount { vm: vm.clone(), vcpu },
        Warning::CollectorRan { vm: vm.clone(), vcpu, share },
        Warning::CollectorWaited { waited_ns: 2_900_000_000, measured_ns: 3_000_000_000 },
        Warning::Throttled {
            vm,
            count: 37,
            throttled_ns: 1_200_000_000,
            group: "/sys/fs/cgroup/vm1".to_owned(),
            quota_ns: Some(20_000_000),
            period_ns: Some(50_000_000),
        },
        Warning::Notice { text: "vm1: the disk is slow".to_owned() },
    ]
}

#[test]
fn every_warning_is_documented_with_its_fields() {
    let rows: Vec<String> = warnings()
        .iter()
        .map(|warning| {
            let json = serde_json::to_value(warning).unwrap();
            let fields = json.as_object().unwrap().keys().filter(|key| *key != "kind");
            let fields: Vec<_> = fields.map(|key| format!("`{key}`")).collect();
            let row = format!("| `{}` | {} |", json["kind"].as_str().unwrap(), fields.join(", "));
            row.replace("|  |", "| |")
        })
        .collect();
    let (_, table) = SCHEMA_MD.split_once("| kind | fields |").unwrap();
    let table: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(table, rows);
}

#[test]
fn every_warning_reads_as_a_sentence() {
    let sentences: Vec<String> = warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        sentences,
        [
            "no request was recorded",
            "the kernel dropped 1 scheduler event in 1 interval; requests that overlap such a loss are not \
             attributed to causes",
            "the guests dropped the records of 1 request in 1 interval; their latencies are missing from \
             this report",
            "the kernel of vm1 lost 1 event of its block requests in 1 interval; requests that overlap such a \
             loss are missing or not attributed to causes",
            "the kernel of vm1 hid at least 1 completion of block requests from perf: as many requests may be \
             missing, and 1 request that seems to be under way at the end may have ended",
            "1 (50.0 %) of the flushes of vm1 vdb could not be attributed to causes: the latencies include \
             them, the answer does not",
            "the reader of vm1 and its kernel contradict each other on 1 request by up to 1.00 us more than \
             the clock error: times of observed requests may be wrong",
            "events were not recorded, only sampled: shares are estimates; lengths and counts of waits, \
             and causes of single requests, are unknown (not allowed)",
            "the samples of vm1 vCPU0 are biased: they show it running or waiting for 25.0 % of its \
             time, but the kernel counted 50.0 %; does it share the collector's pCPU?",
            "without kvm/kvm_pio: devices have no names",
            "1 request (50.0 %) could not be attributed to causes: the latencies include them, the answer \
             does not",
            "the latency of 1 request is unknown: a guest's clock stepped, or is unknown",
            "1 request failed, 0 read less than asked for",
            "50.0 % of the time of requests above the 99th percentile is unknown and may hide another cause",
            "the I/O phase is unknown for 50.0 % of the requests' time (50.0 % above p99), so queued, \
             device and completed cover only the rest: 1 request (1 whose I/O completion was not seen)",
            "the answer rests on only 1 request above the 99th percentile, so it may be chance",
            "request times may be off by 1.00 us on the host's clock, which is large compared with a 99th \
             percentile of 2.00 us",
            "the clock is wrong: the host I/O for 1 request lies outside the request as the guest timed it, by up to 1.00 us more than the stated clock error",
            "KVM's TSC offsets contradict the clock round trips with the guests 1 time, by up to 1.00 us: \
             request times may be off by more than stated",
            "the host's clock, as guests read it through KVM, contradicts the clock round trips with them \
             1 time, by up to 1.00 us: request times may be off by more than stated",
            "the clock is wrong: hogs ran 1 time while their vCPUs were off their pCPUs, by up to 1.00 us more than the stated clock error",
            "the clock of vm1 vCPU0 stepped 1 time, or its rate changed; requests at a step are \
             left out",
            "the clocks of vm1 vCPU0 and vCPU1 are at least 15.7 ms apart",
            "the hog on vm1 vCPU0 made no progress, so this vCPU was not kept busy",
            "vslice itself ran on the pCPU that vm1 vCPU0 waited for, for 50.0 % of its time: that much of \
             the wait was caused by measuring it",
            "vslice's own threads waited 2.90 s of 3.00 s for a pCPU, and a guest that does not hear from \
             it in time stops its load: give vslice a pCPU with room (collector_pcpu), or give its control \
             group or session a larger share",
            "the CPU quota of vm1 (20.0 ms per 50.0 ms, /sys/fs/cgroup/vm1) was used up 37 times; its \
             threads were throttled for 1.20 s, over all pCPUs",
            "vm1: the disk is slow",
        ]
    );
}

#[test]
fn reasons_are_called_alike_wherever_they_are_told() {
    for why in NoPhase::ALL {
        assert_eq!(serde_json::to_value(why).unwrap(), why.name());
    }
    for of in Attribution::ALL {
        assert_eq!(serde_json::to_value(AttributionName::from(of)).unwrap(), of.name());
    }
}
