//! The crates' order, as ARCHITECTURE.md draws it: what `cargo metadata` says of them is held against it.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each crate of the collector with the crates of ours that it may use, those below first.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("vslice-core", &["vslice-spec", "vslice-wire"]),
    ("vslice-trace", &["vslice-core", "vslice-spec", "vslice-wire"]),
    ("vslice-report", &["vslice-core", "vslice-trace", "vslice-spec", "vslice-wire"]),
    (
        "vslice-export",
        &["vslice-core", "vslice-trace", "vslice-report", "vslice-spec", "vslice-wire"],
    ),
    (
        "vslice-fleet",
        &["vslice-core", "vslice-trace", "vslice-report", "vslice-spec", "vslice-wire"],
    ),
    ("vslice-perf", &[]),
    (
        "vslice-host",
        &["vslice-core", "vslice-trace", "vslice-perf", "vslice-spec", "vslice-workload"],
    ),
    (
        "vslice-record",
        &[
            "vslice-core",
            "vslice-trace",
            "vslice-host",
            "vslice-perf",
            "vslice-spec",
            "vslice-wire",
        ],
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
            "vslice-export",
            "vslice-fleet",
            "vslice-spec",
        ],
    ),
];

/// The crates that any machine with a run directory can use.
const PURE: [&str; 6] =
    ["vslice-wire", "vslice-spec", "vslice-core", "vslice-trace", "vslice-report", "vslice-export"];

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

/// Modules of the standard library by which a result depends on more than its input.
const IMPURE: [&str; 4] = ["thread", "net", "process", "env"];

/// Where an analysis has threads of its own, which nothing that comes out depends on.
const WITH_THREADS: [&str; 2] = ["trace/src/ahead.rs", "report/src/analyse/pass.rs"];

/// Who asks a clock.
const CLOCKS: [&str; 2] = ["Instant::now(", "SystemTime::now("];

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
    let others = [
        "vslice-wire",
        "vslice-spec",
        "vslice-workload",
        "vslice-observe",
        "vslice-agent",
        "vslice-tests",
    ];
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
        ("vslice-export", "host-collector/export"),
        ("vslice-fleet", "host-collector/fleet"),
    ] {
        let source = root.join(directory).join("src");
        let lib = std::fs::read_to_string(source.join("lib.rs")).expect("a crate has one");
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{package} may have unsafe code");
        for (path, text) in sources(&source) {
            let has_threads = WITH_THREADS.into_iter().any(|file| path.ends_with(file));
            for word in IMPURE.into_iter().filter(|word| !(has_threads && *word == "thread")) {
                assert!(!has_module(&text, word), "{} has {word}", path.display());
            }
            // A stream that is written is flushed by the clock; what is read of it knows none.
            let asks = CLOCKS.into_iter().any(|clock| text.contains(clock));
            assert!(!asks || package == "vslice-trace", "{} asks a clock", path.display());
            let is_core = package == "vslice-core";
            assert!(!(is_core && has_module(&text, "fs")), "{} has files", path.display());
        }
    }
}

/// Whether a source uses this module of `std`, alone or in braces.
fn has_module(text: &str, name: &str) -> bool {
    let uses = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let is_word = |part: &str| part.trim() == name || part.trim().starts_with(&format!("{name}::"));
    uses.filter_map(|line| line.split_once("std::")).any(|(_, rest)| {
        let rest = rest.trim_end_matches(';');
        let parts = rest.trim_start_matches('{').trim_end_matches('}');
        parts.split([',', '(', ' ']).any(is_word)
    })
}

#[test]
fn impure_modules_are_found_in_each_form() {
    for text in ["use std::thread;", "use std::{fs, thread};", "std::thread::spawn(work);"] {
        assert!(has_module(text, "thread"), "{text}");
    }
    assert!(!has_module("use std::time::Duration;", "thread"));
    assert!(!has_module("//! no std::thread here", "thread"));
}

/// The sources below a directory, without what is only for tests.
fn sources(directory: &std::path::Path) -> Vec<(std::path::PathBuf, String)> {
    let all = files(directory);
    let of_tests: BTreeSet<String> = all.iter().flat_map(|(_, text)| test_modules(text)).collect();
    let is_product = |path: &std::path::Path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        !stem.ends_with("tests") && !of_tests.contains(&stem)
    };
    let product = all.into_iter().filter(|(path, _)| is_product(path));
    product
        .map(|(path, text)| {
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
            (path, text)
        })
        .collect()
}

/// The modules that a source has for its tests only.
fn test_modules(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().zip(text.lines().skip(1));
    lines.filter(|(attribute, _)| attribute.trim() == "#[cfg(test)]").filter_map(|(_, module)| {
        Some(module.trim().strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    })
}

fn files(directory: &std::path::Path) -> Vec<(std::path::PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            found.push((path, text));
        }
    }
    found
}
