//! `vslice ps` for real: sleeping processes with the command lines, thread names and affinities of VMMs, and what
//! it says of them.
//!
//! A case that needs no more than that is a row of `cases.rs`. The processes are this binary again, see `actor`.

mod actor;
mod cases;
mod disk_cases;

use actor::{ACTS, Actor, KVM};
use cases::CASES;
use disk_cases::DISKS;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::fs::File;
use std::process::{Command, ExitCode};

/// A VMM that is acted, and what has to be said of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// The name of the test.
    pub name: &'static str,
    /// The command line, the program first; single quotes keep a word together.
    pub line: &'static str,
    /// The program's file is called so, where that is not what the command line begins with.
    pub exe: Option<&'static str>,
    /// The names of its threads, separated by semicolons, each with the pCPU that it is pinned to after an @.
    pub threads: &'static str,
    /// Whether it has a VM of KVM open.
    pub kvm: Kvm,
    /// The VM by `vslice ps --json`, or a part of it: of an object the keys that matter, of a list all items.
    /// `None` if the process is not one.
    pub vm: Option<&'static str>,
    /// Of each warning about it a part, in their order.
    pub warnings: &'static [&'static str],
}

/// Whether an actor has a VM of KVM open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kvm {
    /// It has none.
    Unused,
    /// It has one, with a vCPU.
    Opened,
}

impl Case {
    /// One with a vCPU under KVM, of which nothing is warned.
    pub(crate) const OF_KVM: Case = Case {
        name: "",
        line: "",
        exe: None,
        threads: "CPU 0/KVM",
        kvm: Kvm::Unused,
        vm: Some("{}"),
        warnings: &[],
    };
}

fn main() -> ExitCode {
    if std::env::var_os(ACTS).is_some() {
        return actor::act();
    }
    // Beside each other they would be warned of for each other's pCPUs, and have the same names.
    let _others_wait = match alone() {
        Ok(lock) => lock,
        Err(error) => {
            let failed = Trial::test("the_lock", move || Err(error.to_string().into()));
            return libtest_mimic::run(&Arguments::from_args(), vec![failed]).exit_code();
        }
    };
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let is_usable = |path| File::options().read(true).write(true).open(path).is_ok();
    let trial = |case: &'static Case| match case.kvm {
        Kvm::Opened if !is_usable(KVM) => {
            Trial::test(format!("{} (needs {KVM})", case.name), || Ok(())).with_ignored_flag(true)
        }
        _ => Trial::test(case.name, move || try_case(case)),
    };
    libtest_mimic::run(&arguments, CASES.iter().chain(DISKS).map(trial).collect()).exit_code()
}

/// Waits for other runs of this test on this host.
fn alone() -> std::io::Result<File> {
    let file = File::create(std::env::temp_dir().join("vslice-ps-real.lock"))?;
    file.lock()?;
    Ok(file)
}

fn try_case(case: &Case) -> Result<(), Failed> {
    let actor = Actor::start(case)?;
    let pid = actor.pid().to_string();
    let output =
        Command::new(env!("CARGO_BIN_EXE_vslice")).args(["ps", &pid, "--json"]).output()?;
    let Some(wanted) = case.vm else {
        let said = String::from_utf8_lossy(&output.stdout);
        return check(!output.status.success(), || format!("it is no VM: {said}"));
    };
    let said = String::from_utf8_lossy(&output.stderr);
    check(output.status.success(), || format!("vslice ps {pid}: {said}"))?;
    let listing: Value = serde_json::from_slice(&output.stdout)?;
    let vm = &listing["vms"][0];
    let differing = difference(&serde_json::from_str(wanted)?, vm, "the VM");
    check(differing.is_none(), || format!("{}\nof {vm:#}", differing.unwrap_or_default()))?;
    let page = Command::new(env!("CARGO_BIN_EXE_vslice")).args(["ps", &pid]).output()?;
    let page = String::from_utf8_lossy(&page.stdout);
    // Of other VMs that run meanwhile.
    let of_others = [" vCPUs share ", "are pinned to the same pCPU", "threads of one core"];
    let is_own = |line: &&str| !of_others.iter().any(|part| line.contains(part));
    let warnings: Vec<&str> =
        page.lines().filter(|line| line.starts_with("warning: ")).filter(is_own).collect();
    let is_right = warnings.len() == case.warnings.len()
        && warnings.iter().zip(case.warnings).all(|(said, part)| said.contains(part));
    check(is_right, || format!("warned {warnings:?}, not {:?}", case.warnings))
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// Where a value differs from the part of it that is wanted.
fn difference(wanted: &Value, found: &Value, place: &str) -> Option<String> {
    match (wanted, found) {
        (Value::Object(keys), Value::Object(_)) => keys
            .iter()
            .find_map(|(key, wanted)| difference(wanted, &found[key], &format!("{place}.{key}"))),
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            let mut pairs = items.iter().zip(others).enumerate();
            pairs.find_map(|(index, (wanted, found))| {
                difference(wanted, found, &format!("{place}[{index}]"))
            })
        }
        _ if wanted == found => None,
        _ => Some(format!("{place} is {found}, not {wanted}")),
    }
}

/// The words of a command line.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (place, part) in line.split('\'').enumerate() {
        if place % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
