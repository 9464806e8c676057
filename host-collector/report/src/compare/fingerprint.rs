//! The conditions under which runs were made, and in which of them they differ. Pure.

use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use vslice_trace::host::DiskFacts;
use vslice_trace::manifest::Manifest;

/// How many differences of a pair of sides are listed at most; a count says how many more there are.
pub const DIFFERENCES_MAX: usize = 8;

/// The value of an object that a run has, so that one which is missing is told once, not key by key.
const THERE: &str = "there";

/// The value of what a run does not have.
const NONE: &str = "none";

/// The value of what a run could not find out.
const NOT_KNOWN: &str = "unknown";

/// Keys below the plan and the environment that no two runs need to share: names of files, processes
/// and texts for people. Of a disk's `storage` see [`storage`].
const ASIDE: [&str; 23] = [
    "agent_socket",
    "aio_missing",
    "contradiction",
    "description",
    "disk_notes",
    "format_missing",
    "host_name",
    "iothreads_missing",
    "is_direct_from",
    "is_direct_missing",
    "is_steal_told",
    "load_socket",
    "memory_bytes",
    "path",
    "pid",
    "qmp_sockets",
    "scheduler_asked",
    "scheduler_before",
    "storage",
    "threads",
    "unknown",
    "unnamed_images",
    "vsock_cid",
];

/// Keys of the environment that [`host_disks`] tells of; the first is that of older runs.
const HOST_DISKS: [&str; 3] = ["disk", "disks", "disks_missing"];

/// What keys of the environment are called.
const LABELS: [(&str, &str); 8] = [
    ("environment.clocksource", "clock source"),
    ("environment.governor", "frequency governor"),
    ("environment.kernel_release", "host kernel"),
    ("environment.pcpus_online", "pCPUs online"),
    ("environment.processor_model", "processor"),
    ("environment.qemu_version", "QEMU"),
    ("environment.slice.expected_ns", "expected timeslice in ns"),
    ("environment.tick_hz", "HZ"),
];

/// What it means if A and B differ in a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionKind {
    /// It is what the original experiment's claim is about: the thread that serves the disk.
    Dataplane,
    /// It concerns the guest's disk, which may be what is compared, but is not part of the claim.
    Disk,
    /// They cannot be compared.
    Other,
}

impl ConditionKind {
    /// Of the value at this path.
    fn of(key: &str) -> ConditionKind {
        let is_of_disk = key.starts_with("plan.")
            && key.split('.').any(|word| word == "disk" || word.starts_with("disks"));
        let last = key.rsplit('.').next().unwrap_or(key);
        match last {
            "iothread" | "iothreads" if is_of_disk => ConditionKind::Dataplane,
            // Its queue is the guest's business.
            "guest_io_scheduler" => ConditionKind::Other,
            _ if is_of_disk => ConditionKind::Disk,
            _ => ConditionKind::Other,
        }
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Condition {
    /// What it is: `QEMU`, `plan vm1.hogs`.
    pub name: String,
    /// How it was.
    pub value: String,
    /// What a difference between A and B means.
    pub kind: ConditionKind,
}

/// The conditions of a run, from its manifest.
#[must_use]
pub fn conditions(manifest: &Manifest) -> Vec<Condition> {
    let mut leaves = BTreeMap::new();
    let mut environment = serde_json::to_value(&manifest.environment).unwrap_or_default();
    if let Some(fields) = environment.as_object_mut() {
        HOST_DISKS.iter().for_each(|key| drop(fields.remove(*key)));
    }
    flatten("environment", &environment, &mut leaves);
    flatten("plan", &manifest.plan, &mut leaves);
    let of_leaf = |(key, value): (String, String)| {
        let label = LABELS.iter().find(|(known, _)| *known == key).map(|(_, label)| *label);
        Condition {
            kind: ConditionKind::of(&key),
            name: label.map_or_else(|| key.replacen('.', " ", 1), str::to_owned),
            value: value.trim_start_matches("QEMU emulator version ").to_owned(),
        }
    };
    let condition = |name: &str, value: &str| Condition {
        name: name.to_owned(),
        value: value.to_owned(),
        kind: ConditionKind::Other,
    };
    let mut conditions = vec![
        condition("plan", &manifest.plan_name),
        condition("accelerator", &manifest.accelerators_label()),
        condition("evidence", manifest.evidence.level.name()),
    ];
    conditions.extend(leaves.into_iter().map(of_leaf));
    conditions.extend(host_disks(manifest).iter().map(|(name, value)| condition(name, value)));
    for vm in &manifest.vms {
        for thread in &vm.threads {
            if let (Some(vcpu), Some(pcpu)) = (thread.vcpu, thread.pinned.or(thread.kept)) {
                conditions.push(condition(&format!("{}'s {vcpu} on", vm.name), &pcpu.to_string()));
            }
        }
        // Which threads there are beside the vCPUs differs with the disk, so those are told together.
        for (are_vcpus, what) in [(true, "vCPU threads"), (false, "other threads")] {
            let of_kind = vm.threads.iter().filter(|thread| thread.vcpu.is_some() == are_vcpus);
            let schedulings: BTreeSet<String> = of_kind
                .filter_map(|thread| Some(thread.scheduling.as_ref()?.to_string()))
                .collect();
            if !schedulings.is_empty() {
                let value = schedulings.into_iter().collect::<Vec<_>>().join(", ");
                conditions.push(condition(&format!("{}'s {what}", vm.name), &value));
            }
        }
        let Some(guest) = &vm.guest else { continue };
        let name = &vm.name;
        conditions.push(condition(&format!("{name}'s kernel"), &guest.kernel_release));
        conditions.push(condition(&format!("{name}'s agent"), &guest.agent_version));
        let guests_own =
            [("I/O scheduler", &guest.io_scheduler), ("clock source", &guest.clock_source)];
        for (what, value) in guests_own {
            if let Some(value) = value {
                conditions.push(condition(&format!("{name}'s {what}"), value));
            }
        }
        let clock = serde_json::to_value(guest.clock).unwrap_or_default();
        conditions.push(condition(&format!("{name}'s clock"), clock.as_str().unwrap_or(NONE)));
    }
    conditions
}

/// The disks under the guests' images: which, how they are scheduled, and whether they rotate.
fn host_disks(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let Some(host) = &manifest.environment else { return Vec::new() };
    let is_attached = manifest.plan.get("attached").is_some();
    let not_known =
        || ["host disk", "host I/O scheduler"].map(|name| (name, NOT_KNOWN.to_owned())).to_vec();
    let disks: Vec<&DiskFacts> = match (&host.host_disks.disks[..], &host.disk_before) {
        ([], None) => return not_known(),
        // Older runs had the disk under vslice's own files there, which of an attached VM says nothing.
        ([], Some(_)) if is_attached => return not_known(),
        ([], Some(before)) => vec![before],
        (disks, _) => disks.iter().collect(),
    };
    let of_each = |told: fn(&DiskFacts) -> Option<String>| {
        let one = |disk: &&DiskFacts| {
            let value = told(disk)?;
            Some(if disks.len() == 1 { value } else { format!("{value} of {}", disk.device) })
        };
        disks.iter().filter_map(one).collect::<Vec<_>>().join(" and ")
    };
    let names: Vec<&str> = disks.iter().map(|disk| disk.device.as_str()).collect();
    let mut told = vec![("host disk", names.join(" and "))];
    let scheduler = of_each(|disk| disk.scheduler.clone());
    let rotates = of_each(|disk| disk.rotational.map(|rotational| rotational.to_string()));
    for (name, value) in [("host I/O scheduler", scheduler), ("host disk rotates", rotates)] {
        told.extend(Some((name, value)).filter(|(_, value)| !value.is_empty()));
    }
    told
}

/// Every scalar and object below `value`, by its path; what is in a list of objects by its name, or its
/// place.
fn flatten(key: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    if value.is_object() && key.contains('.') {
        leaves.insert(key.to_owned(), THERE.to_owned());
    }
    match value {
        Value::Object(fields) => {
            let storage = storage(fields);
            leaves.extend(storage.map(|storage| (format!("{key}.storage"), storage)));
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

/// Where the data of a disk are: in which kind of place, and by which driver, but not at which. Older runs have
/// only the path of a file.
fn storage(fields: &serde_json::Map<String, Value>) -> Option<String> {
    fields.get("bus")?;
    let text = |name: &str| fields.get("storage")?.get(name)?.as_str();
    let is_file = fields.get("path").is_some_and(Value::is_string);
    match (text("kind"), text("driver")) {
        (Some("unknown"), _) => None,
        (Some(kind), None) => Some(kind.to_owned()),
        (Some(kind), Some(driver)) => Some(format!("{kind} {driver}")),
        (None, _) => is_file.then(|| "file".to_owned()),
    }
}

/// What makes two sides incomparable, given the conditions of their runs, as sentences without full stops.
#[must_use]
pub fn differences(a: &[Vec<Condition>], b: &[Vec<Condition>]) -> Vec<String> {
    let mut found = Vec::new();
    for (side, runs) in [("A", a), ("B", b)] {
        let differing = names(runs).into_iter().filter(|name| values(runs, name).len() > 1);
        let tell =
            |name: &str| format!("the runs of {side} differ: {name} {}", join(&values(runs, name)));
        let is_missing = |name: &str| values(runs, name).contains(NONE);
        found.extend(limited(&outermost(differing.collect(), is_missing), tell));
    }
    if a.is_empty() || b.is_empty() {
        return found;
    }
    let kind = |wanted: &str| {
        let mut all = a.iter().chain(b).flatten();
        all.find(|condition| condition.name == wanted).map(|condition| condition.kind)
    };
    let all: BTreeSet<&str> = names(a).union(&names(b)).copied().collect();
    let differing = all.into_iter().filter(|name| values(a, name) != values(b, name));
    let differing = differing.filter(|name| kind(name) != Some(ConditionKind::Dataplane));
    let is_missing =
        |name: &str| values(a, name).union(&values(b, name)).any(|value| *value == NONE);
    let tell = |name: &str| {
        let what = match kind(name) {
            Some(ConditionKind::Disk) => "A and B differ in the disk",
            _ => "not comparable",
        };
        format!("{what}: {name} {} against {}", join(&values(a, name)), join(&values(b, name)))
    };
    found.extend(limited(&outermost(differing.collect(), is_missing), tell));
    found
}

/// A condition, as it was in the runs of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConditionRow {
    /// What it is.
    pub name: String,
    /// Whether not all runs of all sides have the same.
    pub differs: bool,
    /// How it was in the runs of each side: one value, or all that there were.
    pub values: Vec<Vec<String>>,
}

/// Every condition that runs of these sides tell, those that differ first. Empty sides have no part in it.
#[must_use]
pub fn side_by_side(sides: &[&[Vec<Condition>]]) -> Vec<ConditionRow> {
    let all: BTreeSet<&str> = sides.iter().flat_map(|runs| names(runs)).collect();
    let row = |name: &str| {
        let of_sides: Vec<BTreeSet<&str>> = sides.iter().map(|runs| values(runs, name)).collect();
        let seen: BTreeSet<&str> = of_sides.iter().flatten().copied().collect();
        let told = |of: &BTreeSet<&str>| of.iter().map(|value| (*value).to_owned()).collect();
        let row = ConditionRow {
            name: name.to_owned(),
            differs: seen.len() > 1,
            values: of_sides.iter().map(told).collect(),
        };
        // That an object is there is told by what is in it.
        Some(row).filter(|_| !seen.iter().all(|value| *value == THERE))
    };
    let mut rows: Vec<ConditionRow> = all.into_iter().filter_map(row).collect();
    rows.sort_by_key(|row| !row.differs);
    rows
}

/// The names without those below another one that is missing somewhere.
fn outermost(names: Vec<&str>, is_missing: impl Fn(&str) -> bool) -> Vec<&str> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| is_missing(name)).collect();
    let is_below = |name: &str, outer: &str| {
        name.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '[']))
    };
    let is_reported = |name: &&str| !missing.iter().any(|outer| is_below(name, outer));
    names.into_iter().filter(is_reported).collect()
}

fn names(runs: &[Vec<Condition>]) -> BTreeSet<&str> {
    runs.iter().flatten().map(|condition| condition.name.as_str()).collect()
}

/// The values of one condition in these runs.
fn values<'a>(runs: &'a [Vec<Condition>], name: &str) -> BTreeSet<&'a str> {
    let value = |run: &'a Vec<Condition>| {
        run.iter().find(|condition| condition.name == name).map_or(NONE, |found| &found.value)
    };
    runs.iter().map(value).collect()
}

fn join(values: &BTreeSet<&str>) -> String {
    values.iter().copied().collect::<Vec<_>>().join(" and ")
}

/// Sentences of the first [`DIFFERENCES_MAX`], and how many more there are.
fn limited(names: &[&str], tell: impl Fn(&str) -> String) -> Vec<String> {
    let told = names.iter().take(DIFFERENCES_MAX).map(|name| tell(name));
    let more = match names.len().saturating_sub(DIFFERENCES_MAX) {
        0 => None,
        more => Some(format!("and {more} more conditions that differ")),
    };
    told.chain(more).collect()
}

/// Whether an iothread serves the disks of the run's readers, which is what the original experiment's claim
/// is about; `None` if the plan does not tell.
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
