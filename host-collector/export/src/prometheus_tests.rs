use super::*;
use std::collections::BTreeSet;
use vslice_report::live::example::second;
use vslice_report::live::second::GroupSecond;
use vslice_report::summary::group::GroupKind;

fn metrics(seconds: impl Iterator<Item = Second>) -> Metrics {
    let mut metrics = Metrics::default();
    seconds.for_each(|second| metrics.add(&second));
    metrics
}

fn value(text: &str, line: &str) -> String {
    let found = text.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in {text}")).to_owned()
}

#[test]
fn the_text_is_as_it_was() {
    let text = metrics((0..2).map(second)).text();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/prometheus.golden");
    if std::env::var_os("VSLICE_BLESS").is_some() {
        std::fs::write(golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(golden).unwrap());
}

#[test]
fn counters_add_up_and_only_grow() {
    let (one, two) = (metrics((0..1).map(second)).text(), metrics((0..2).map(second)).text());
    let ready = r#"vslice_vcpu_ready_seconds_total{vm="db1",vcpu="0"}"#;
    assert_eq!((value(&one, ready), value(&two, ready)), ("0.3".to_owned(), "0.62".to_owned()));
    let count =
        r#"vslice_vm_host_io_latency_seconds_count{vm="db1",device="nvme0n1",operation="read"}"#;
    assert_eq!(value(&two, count), "200");
    let bucket = r#"vslice_vm_host_io_latency_seconds_bucket{vm="db1",device="nvme0n1",operation="read",le="0.001"}"#;
    assert_eq!(value(&two, bucket), "20");
}

/// Each vCPU's times are all the time.
#[test]
fn the_times_of_each_vcpu_add_up_to_all_that_was_observed() {
    let metrics = metrics((0..3).map(second));
    let mut sums = BTreeMap::<&str, u64>::new();
    for ((name, labels), ns) in &metrics.values {
        let is_part = ["running", "ready", "asleep", "throttled", "unknown"]
            .iter()
            .any(|part| *name == format!("vslice_vcpu_{part}_seconds_total"));
        let vcpu = labels.split(",reason").next().unwrap().split(",cause").next().unwrap();
        if is_part {
            *sums.entry(vcpu).or_default() += ns;
        }
    }
    assert_eq!(sums.len(), 5);
    assert!(sums.values().all(|ns| *ns == 3_000_000_000), "{sums:?}");
}

#[test]
fn every_metric_that_is_written_is_in_the_table_with_its_labels() {
    let metrics = metrics((0..1).map(second));
    let written = metrics.values.keys().chain(metrics.histograms.keys());
    let mut names = BTreeSet::new();
    for (name, labels) in written {
        names.insert(*name);
        let metric = METRICS.iter().find(|metric| metric.name == *name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not in the table"));
        let keys: Vec<&str> =
            labels.split("\",").filter_map(|label| label.split("=\"").next()).collect();
        let keys: Vec<&str> = keys.into_iter().filter(|key| !key.is_empty()).collect();
        assert_eq!(keys, metric.labels, "{name}");
    }
    let all: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names, all, "the example has all of them");
}

#[test]
fn the_document_has_every_metric_as_it_is() {
    let document = include_str!("../../../docs/top.md");
    let rows = document.lines().filter(|line| line.starts_with("| `vslice_"));
    let documented: Vec<Vec<String>> =
        rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect();
    let expected: Vec<Vec<String>> = METRICS
        .iter()
        .map(|metric| {
            let kind = match metric.metric_type {
                MetricType::Seconds | MetricType::Count => "counter",
                MetricType::Gauge => "gauge",
                MetricType::Histogram => "histogram",
            };
            let cells = ["", metric.name, kind, &metric.labels.join(", "), metric.help, ""];
            cells.map(str::to_owned).to_vec()
        })
        .collect();
    assert_eq!(documented, expected);
}

#[test]
fn labels_are_text_and_groups_are_bounded() {
    let mut many = second(0);
    let group = |number: usize| GroupSecond {
        kind: GroupKind::ControlGroup,
        name: format!("a\"b\\c\n\u{1b}{number}"),
        ran_ns: 1,
    };
    many.vms[0].antagonists = (0..GROUPS_MAX + 5).map(group).collect();
    let text = metrics(std::iter::once(many)).text();
    assert!(text.contains(r#"group="a\"b\\c??0""#), "{text}");
    let groups = text.lines().filter(|line| line.contains("group=\"a")).count();
    assert_eq!(groups, GROUPS_MAX);
    let others = r#"vslice_vm_antagonist_seconds_total{vm="db1",kind="others",group=""}"#;
    assert_eq!(value(&text, others), "0.000000005");
}
