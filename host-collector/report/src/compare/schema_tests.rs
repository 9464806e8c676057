//! Holds `schema.md` and the outcome together.

use super::example::{attached, doubtful, held, neighbour, side, thin, vcpu};
use super::metrics::Metric;
use super::{Comparison, LeftOut, SCHEMA};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use vslice_core::join::Part;

const SCHEMA_MD: &str = include_str!("schema.md");

/// The rows of the table with this heading, as cells without backticks.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let (_, table) = SCHEMA_MD.split_once(heading).unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|')).skip(1);
    let cell = |text: &str| text.trim().trim_matches('`').to_owned();
    rows.map(|row| row.trim_matches('|').split('|').map(cell).collect()).collect()
}

fn visit(key: &str, value: &Value, seen: &mut BTreeMap<String, BTreeSet<String>>) {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Array(values) => {
            return values.iter().for_each(|value| visit(&format!("{key}[]"), value, seen));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let child = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
                visit(&child, value, seen);
            }
            "object"
        }
    };
    seen.entry(key.to_owned()).or_default().insert(name.to_owned());
}

/// Some comparisons that between them have every key and every null.
fn comparisons() -> [Comparison; 9] {
    let (a, mut b) = held();
    let left_out = || LeftOut { path: "7".to_owned(), reason: "it ended early".to_owned() };
    b.left_out.push(left_out());
    let (_, mut other) = held();
    other.left_out.push(left_out());
    let from_nothing = Comparison::new(side("a", false, &[(1.0, 0.0); 4]), b.clone());
    let swapped = Comparison::new(other, thin_side());
    let few = Comparison::new(side("a", false, &[(1.0, 1.0), (1.1, 1.2)]), b);
    let (quiet, busy) = neighbour();
    let repeated =
        |name| attached(name, &[1e6, 2e6, 3e6, 9e6].map(|wait| vcpu("vm1", wait, &[], &[])));
    let attaches = [Comparison::new(quiet, busy), Comparison::new(repeated("a"), repeated("b"))];
    // Whom a side does not list has no value there: once in A, once in B.
    let (quiet, busy) = neighbour();
    let swapped_attach = Comparison::new(busy, quiet);
    let [single, several] = attaches;
    let same = Comparison::new(a.clone(), a);
    [same, few, from_nothing, swapped, doubtful(), thin(), single, several, swapped_attach]
}

fn thin_side() -> super::Side {
    let mut thin = side("thin", true, &[(1.0, 1.0)]);
    thin.runs[0].values.truncate(2);
    thin
}

#[test]
fn every_key_is_documented_with_its_type_and_none_beside() {
    let mut seen = BTreeMap::new();
    for comparison in comparisons() {
        visit("", &serde_json::to_value(&comparison).unwrap(), &mut seen);
    }
    // What is always an object has no row of its own.
    seen.retain(|_, types| *types != BTreeSet::from(["object".to_owned()]));
    let types = |row: &Vec<String>| row[1].split(" or ").map(str::to_owned).collect();
    let documented: BTreeMap<String, BTreeSet<String>> =
        rows("| key | type | meaning |").iter().map(|row| (row[0].clone(), types(row))).collect();
    assert_eq!(documented, seen);
}

#[test]
fn every_metric_is_documented_with_its_unit() {
    let is_share = |metric: &Metric| matches!(metric, Metric::Share(_));
    let row = |metric: Metric| {
        let unit = serde_json::to_value(metric.unit()).unwrap();
        (metric.key(), unit.as_str().unwrap().to_owned())
    };
    let mut expected: Vec<_> = Metric::all().filter(|metric| !is_share(metric)).map(row).collect();
    let (key, unit) = row(Metric::Share(Part::Halt));
    expected.push((key.replace("halt", "<part>"), unit));
    let documented = rows("| metric | unit | of one run |");
    let documented: Vec<_> =
        documented.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(documented, expected);
    assert!(SCHEMA_MD.starts_with(&format!("# `{SCHEMA}`")));
}

#[test]
fn parts_that_no_run_has_are_left_out() {
    let (a, b) = held();
    let metrics = Comparison::new(a, b).metrics;
    let is_there = |key: &str| metrics.iter().any(|record| record.metric == key);
    assert!(is_there("share_bql_wait") && !is_there("share_throttled"));
}

#[test]
fn each_number_has_the_place_of_its_run() {
    let (mut a, b) = held();
    a.runs[2].values.retain(|(metric, _)| *metric != Metric::Iops);
    a.runs[4].timeslices = None;
    let expected = a.runs[3].values.iter().find(|(metric, _)| *metric == Metric::Iops).unwrap().1;
    let comparison = Comparison::new(a, b);
    let iops = comparison.metrics.iter().find(|record| record.metric == "iops").unwrap();
    assert_eq!(iops.compared.a.runs, [0, 1, 3, 4, 5]);
    assert_eq!(iops.compared.a.values[2], expected);
    assert_eq!(iops.compared.b.runs, [0, 1, 2, 3, 4, 5]);
    let places: Vec<usize> = comparison.a.timeslices.iter().map(|record| record.run).collect();
    assert_eq!(places, [0, 1, 2, 3, 5]);
}
