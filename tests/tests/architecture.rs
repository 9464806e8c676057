//! The crates' order, as ARCHITECTURE.md draws it: what `cargo metadata` says of them is held against it.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each crate of the collector with the crates of ours that it may use, those below first.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("vslice-core", &["vslice-spec", "vslice-wire"]),
    ("vslice-trace", &["vslice-core", "vslice-spec", "vslice-wire"]),
    ("vslice-report", &["vslice-core", "vslice-trace", "vslice-spec", "vslice-wire"]),
    ("vslice-host", &["vslice-core", "vslice-trace", "vslice-spec", "vslice-workload"]),
    (
        "vslice-record",
        &["vslice-core", "vslice-trace", "vslice-host", "vslice-spec", "vslice-wire"],
    ),
    (
        "vslice-lab",
        &[
            "vslice-core",
            "vslice-trace",
            "vslice-report",
            "vslice-host",
            "vslice-record",
            "vslice-spec",
            "vslice-wire",
        ],
    ),
    (
        "vslice-selftest",
        &[
            "vslice-core",
            "vslice-trace",
            "vslice-report",
            "vslice-host",
            "vslice-record",
            "vslice-lab",
            "vslice-spec",
        ],
    ),
    (
        "vslice",
        &[
            "vslice-core",
            "vslice-trace",
            "vslice-report",
            "vslice-host",
            "vslice-record",
            "vslice-lab",
            "vslice-selftest",
            "vslice-spec",
        ],
    ),
];

/// The crates that any machine with a run directory can use.
const PURE: [&str; 5] =
    ["vslice-wire", "vslice-spec", "vslice-core", "vslice-trace", "vslice-report"];

/// What makes a crate one of Linux, of sockets or of threads.
const NOT_PURE: [&str; 10] = [
    "libc",
    "nix",
    "vsock",
    "io-uring",
    "perf-event-open-sys",
    "core_affinity",
    "signal-hook",
    "rayon",
    "tokio",
    "mio",
];

/// For each package: the packages that it uses when it is built for Linux, without its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let nodes = list(&metadata["resolve"]["nodes"]);
    let uses = nodes.iter().map(|node| {
        // `kind` is null for what is no dependency of tests or build scripts only.
        let is_normal = |dependency: &&Value| {
            list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null())
        };
        let used = list(&node["deps"]);
        let used = used.iter().filter(is_normal).map(|used| names[&text(&used["pkg"])].clone());
        (names[&text(&node["id"])].clone(), used.collect())
    });
    uses.collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// All that a package uses, directly or not.
fn closure(of: &str, all: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![of.to_owned()];
    while let Some(package) = left.pop() {
        for used in all.get(&package).into_iter().flatten() {
            if found.insert(used.clone()) {
                left.push(used.clone());
            }
        }
    }
    found
}

#[test]
fn no_crate_uses_one_above_it() {
    let all = dependencies();
    for (package, allowed) in ALLOWED {
        let ours = all[package].iter().filter(|used| used.starts_with("vslice"));
        let upward: Vec<&String> = ours.filter(|used| !allowed.contains(&used.as_str())).collect();
        assert!(upward.is_empty(), "{package} must not use {upward:?}");
    }
    let known: BTreeSet<&str> = ALLOWED.iter().map(|(package, _)| *package).collect();
    let others = ["vslice-wire", "vslice-spec", "vslice-workload", "vslice-agent", "vslice-tests"];
    let unknown: Vec<&String> = all
        .keys()
        .filter(|name| name.starts_with("vslice"))
        .filter(|name| !known.contains(name.as_str()) && !others.contains(&name.as_str()))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?} have no place in the order of the crates");
}

#[test]
fn the_pure_crates_know_no_linux_no_sockets_and_no_threads() {
    let all = dependencies();
    for package in PURE {
        let used = closure(package, &all);
        let forbidden: Vec<&str> =
            NOT_PURE.into_iter().filter(|name| used.contains(*name)).collect();
        assert!(forbidden.is_empty(), "{package} uses {forbidden:?}");
    }
}

#[test]
fn the_pure_crates_forbid_unsafe_code_and_start_no_threads() {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for (package, directory) in [
        ("vslice-wire", "agent/wire"),
        ("vslice-spec", "workload/spec"),
        ("vslice-core", "host-collector/core"),
        ("vslice-trace", "host-collector/trace"),
        ("vslice-report", "host-collector/report"),
    ] {
        let source = root.join(directory).join("src");
        let lib = std::fs::read_to_string(source.join("lib.rs")).expect("a crate has one");
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{package} may have unsafe code");
        for (path, text) in sources(&source) {
            for word in ["std::thread", "std::net", "std::process::Command", "std::env::var"] {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

/// The sources below a directory, without what is only for tests.
fn sources(directory: &std::path::Path) -> Vec<(std::path::PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            found.push((path, product.to_owned()));
        }
    }
    found
}
