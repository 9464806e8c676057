//! Under which conditions a run was made, and in which of them runs differ. Pure.

use crate::run::manifest::Manifest;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Differences that are told of one pair of sides at most; a count says how many more there are.
pub const DIFFERENCES_MAX: usize = 12;

/// Keys below the plan and the environment that no two runs need to share: names of files, processes
/// and texts for people.
const ASIDE: [&str; 9] = [
    "agent_socket",
    "description",
    "load_socket",
    "memory_bytes",
    "path",
    "pid",
    "qmp_sockets",
    "threads",
    "vsock_cid",
];

/// What keys of the environment are called.
const LABELS: [(&str, &str); 9] = [
    ("environment.clocksource", "clock source"),
    ("environment.disk.device", "host disk"),
    ("environment.disk.scheduler", "host I/O scheduler"),
    ("environment.governor", "frequency governor"),
    ("environment.kernel_release", "host kernel"),
    ("environment.pcpus_online", "pCPUs online"),
    ("environment.processor_model", "processor"),
    ("environment.qemu_version", "QEMU"),
    ("environment.tick_hz", "HZ"),
];

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Condition {
    /// What it is: `QEMU`, `plan vm1.hogs`.
    pub name: String,
    /// How it was.
    pub value: String,
    /// Whether it is one of the guest's disk, in which A and B may differ.
    pub is_of_disk: bool,
}

/// The conditions of a run, from its manifest.
#[must_use]
pub fn conditions(manifest: &Manifest) -> Vec<Condition> {
    let mut leaves = BTreeMap::new();
    flatten("environment", &manifest.environment, &mut leaves);
    flatten("plan", &manifest.plan, &mut leaves);
    let of_leaf = |(key, value): (String, String)| {
        let label = LABELS.iter().find(|(known, _)| *known == key).map(|(_, label)| *label);
        Condition {
            is_of_disk: key.starts_with("plan.")
                && key.split('.').any(|word| word == "disk" || word.starts_with("disks")),
            name: label.map_or_else(|| key.replacen('.', " ", 1), str::to_owned),
            value: value.trim_start_matches("QEMU emulator version ").to_owned(),
        }
    };
    let condition = |name: &str, value: &str| Condition {
        name: name.to_owned(),
        value: value.to_owned(),
        is_of_disk: false,
    };
    let mut conditions = vec![
        condition("plan", &manifest.plan_name),
        condition("accelerator", &manifest.accelerator),
        condition("evidence", manifest.evidence.level.name()),
    ];
    conditions.extend(leaves.into_iter().map(of_leaf));
    for vm in &manifest.vms {
        for thread in &vm.threads {
            if let (Some(vcpu), Some(pcpu)) = (thread.vcpu, thread.pinned.or(thread.kept)) {
                conditions.push(condition(&format!("{}'s {vcpu} on", vm.name), &pcpu.to_string()));
            }
        }
        let Some(guest) = &vm.guest else { continue };
        let name = &vm.name;
        conditions.push(condition(&format!("{name}'s kernel"), &guest.kernel_release));
        conditions.push(condition(&format!("{name}'s agent"), &guest.agent_version));
        conditions.push(condition(&format!("{name}'s clock"), &format!("{:?}", guest.clock)));
    }
    conditions
}

/// Every scalar below `value`, by its path; what is in a list of objects by its name, or its place.
fn flatten(key: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| !ASIDE.contains(&name.as_str())) {
                flatten(&format!("{key}.{name}"), value, leaves);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (at, item) in items.iter().enumerate() {
                let name = item["name"].as_str().map_or_else(|| at.to_string(), str::to_owned);
                flatten(&format!("{key}[{name}]"), item, leaves);
            }
        }
        Value::Null => {}
        Value::String(text) => {
            leaves.insert(key.to_owned(), text.clone());
        }
        other => {
            leaves.insert(key.to_owned(), other.to_string());
        }
    }
}

/// What makes two sides, given by the conditions of their runs, not comparable, as sentences without
/// their end.
#[must_use]
pub fn differences(a: &[Vec<Condition>], b: &[Vec<Condition>]) -> Vec<String> {
    let mut found = Vec::new();
    for (side, runs) in [("A", a), ("B", b)] {
        let within = names(runs).into_iter().filter_map(|name| {
            let values = values(runs, name);
            let text = join(&values);
            (values.len() > 1).then(|| format!("the runs of {side} differ: {name} {text}"))
        });
        found.extend(limited(within.collect()));
    }
    if a.is_empty() || b.is_empty() {
        return found;
    }
    let is_of_disk = |wanted: &str| {
        a.iter()
            .chain(b)
            .flatten()
            .any(|condition| condition.name == wanted && condition.is_of_disk)
    };
    let all: BTreeSet<&str> = names(a).union(&names(b)).copied().collect();
    let between = all.into_iter().filter(|name| !is_of_disk(name)).filter_map(|name| {
        let (left, right) = (values(a, name), values(b, name));
        let text = || format!("not comparable: {name} {} against {}", join(&left), join(&right));
        (left != right).then(text)
    });
    found.extend(limited(between.collect()));
    found
}

fn names(runs: &[Vec<Condition>]) -> BTreeSet<&str> {
    runs.iter().flatten().map(|condition| condition.name.as_str()).collect()
}

/// The values of one condition in these runs.
fn values<'a>(runs: &'a [Vec<Condition>], name: &str) -> BTreeSet<&'a str> {
    let value = |run: &'a Vec<Condition>| {
        run.iter().find(|condition| condition.name == name).map_or("none", |found| &found.value)
    };
    runs.iter().map(value).collect()
}

fn join(values: &BTreeSet<&str>) -> String {
    values.iter().copied().collect::<Vec<_>>().join(" and ")
}

/// The first [`DIFFERENCES_MAX`], and how many more there are.
fn limited(mut sentences: Vec<String>) -> Vec<String> {
    let more = sentences.len().saturating_sub(DIFFERENCES_MAX);
    if more > 0 {
        sentences.truncate(DIFFERENCES_MAX);
        sentences.push(format!("and {more} conditions more that differ"));
    }
    sentences
}

/// Whether the disks of the run's readers are served by an iothread, if the plan tells: what the seed's
/// claim is about.
#[must_use]
pub fn has_iothread(manifest: &Manifest) -> Option<bool> {
    let reader = manifest.vms.iter().find(|vm| vm.reader_vcpu.is_some())?;
    let planned = manifest.plan["vm"].as_array().into_iter().flatten();
    let attached = manifest.plan["attached"].as_array().into_iter().flatten();
    let mut of_reader = planned.chain(attached).filter(|vm| vm["name"] == reader.name.as_str());
    let vm = of_reader.next()?;
    if let Some(iothread) = vm["disk"]["iothread"].as_bool() {
        return Some(iothread);
    }
    let disks = vm["disks"].as_array()?;
    let iothreads = disks.iter().map(|disk| disk["iothreads"].as_array().map_or(0, Vec::len));
    Some(iothreads.sum::<usize>() > 0)
}

#[cfg(test)]
#[path = "fingerprint_tests.rs"]
mod tests;
