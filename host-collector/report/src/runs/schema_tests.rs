//! Holds `schema.md` and the list together.

use super::example::{folder, listed};
use super::{Outcome, SCHEMA};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const SCHEMA_MD: &str = include_str!("schema.md");

type Keys = BTreeMap<String, BTreeSet<String>>;

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
            if key.ends_with("first_cause") {
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
    let (runs, _) = listed(folder().path());
    let mut other = runs.clone();
    other.incomplete = Some("no more than 4 runs are listed".to_owned());
    (other.runs[0].written_s, other.runs[0].bytes) = (None, None);
    if let Outcome::Complete(figures) = &mut other.runs[0].outcome {
        (figures.p50_ns, figures.p99_ns, figures.first_cause) = (None, None, None);
    }
    let mut seen = Keys::new();
    for runs in [&runs, &other] {
        visit("", &serde_json::to_value(runs).unwrap(), &mut seen);
    }
    assert_eq!(documented(), seen);
    assert!(SCHEMA_MD.starts_with(&format!("# `{SCHEMA}`\n")));
}

#[test]
fn a_run_without_a_report_has_no_figures() {
    let (runs, _) = listed(folder().path());
    let json = serde_json::to_value(&runs).unwrap();
    let broken = json["runs"][2].as_object().unwrap();
    let keys: Vec<&String> = broken.keys().collect();
    assert_eq!(keys.len(), 5, "{keys:?}");
    assert_eq!(broken["state"], "unreadable");
    assert_eq!(json["runs"][1]["state"], "partial");
    assert!(json["runs"][1]["p99_ns"].is_u64());
}
