//! Holds `schema.md` and a second together.

use super::example::second;
use super::second::{LatencySecond, SCHEMA};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const SCHEMA_MD: &str = include_str!("schema.md");

type Keys = BTreeMap<String, BTreeSet<String>>;

/// Keys whose value is an object or nothing; all others are told by their fields.
const OPTIONAL: [&str; 5] = ["modes", "worst_wait", "by", "worst", "observed"];

fn documented() -> Keys {
    let rows = SCHEMA_MD.lines().filter(|line| line.starts_with("| `"));
    let key = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let types = cells[2].split(" or ").map(str::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), types)
    };
    rows.map(key).collect()
}

fn visit(key: &str, value: &Value, seen: &mut Keys) {
    let mut note = |name: &str| {
        seen.entry(key.to_owned()).or_default().insert(name.to_owned());
    };
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
            if OPTIONAL.contains(&key.rsplit('.').next().unwrap_or_default()) {
                note("object");
            }
            for (name, value) in fields {
                let child = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
                visit(&child, value, seen);
            }
        }
    }
}

#[test]
fn every_key_is_documented_with_its_type_and_none_beside() {
    let mut empty = second(1);
    (empty.realtime_ns, empty.stolen_ns, empty.cost.cpu_ns) = (None, None, None);
    let vm = &mut empty.vms[0];
    vm.vcpus[0].steal_ns = None;
    (vm.host_io[0].disk, vm.host_io[0].device) = (None, None);
    vm.host_io[0].latency = LatencySecond::default();
    for operation in vm.observed.iter_mut().flat_map(|observed| &mut observed.operations) {
        operation.latency = LatencySecond::default();
    }
    let mut seen = Keys::new();
    for second in [second(0), empty] {
        visit("", &serde_json::to_value(second).expect("JSON"), &mut seen);
    }
    assert_eq!(documented(), seen);
    assert!(SCHEMA_MD.starts_with(&format!("# `{SCHEMA}`\n")));
}

#[test]
fn the_example_adds_up() {
    for second in (0..5).map(second) {
        let vcpus = second.vms.iter().flat_map(|vm| &vm.vcpus);
        vcpus.for_each(|vcpu| assert_eq!(vcpu.total_ns(), second.length_ns, "{vcpu:?}"));
    }
}
