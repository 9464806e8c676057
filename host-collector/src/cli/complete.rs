//! What the shell completes: runs, VMs and plans by their names, beside options and files.
//!
//! `source <(COMPLETE=bash vslice)` has bash ask this program; zsh, fish and others likewise.

use super::list::RUNS;
use clap_complete::CompletionCandidate;
use clap_complete::engine::{PathCompleter, ValueCompleter};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use vslice_host::vm::find_all;
use vslice_lab::plan::BUILT_IN;
use vslice_report::runs;

/// The runs below `runs/`, the latest first; directories where none of them is meant.
pub(super) fn run_directories(typed: &OsStr) -> Vec<CompletionCandidate> {
    let found = runs::find(Path::new(RUNS)).unwrap_or_default();
    let meant = beginning_with(typed, found.paths.into_iter().rev().map(PathBuf::into_os_string));
    if meant.is_empty() { PathCompleter::dir().complete(typed) } else { meant }
}

/// The VMs of this host, as far as they have names.
pub(super) fn vms(typed: &OsStr) -> Vec<CompletionCandidate> {
    beginning_with(typed, find_all().into_iter().filter_map(|vm| vm.name))
}

/// The VMs of the run that is reported on: the one that is named, else the latest below `runs/`.
pub(super) fn recorded_vms(typed: &OsStr) -> Vec<CompletionCandidate> {
    let named = std::env::args_os().map(PathBuf::from).find(|word| runs::is_run(word));
    let latest = || runs::find(Path::new(RUNS)).ok()?.paths.pop();
    let Some(run) = named.or_else(latest) else { return Vec::new() };
    beginning_with(typed, runs::vms(&run))
}

/// The built-in plans and TOML files.
pub(super) fn plans(typed: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = beginning_with(typed, BUILT_IN.map(|(name, _)| name));
    let is_plan = |path: &Path| path.extension().is_some_and(|ending| ending == "toml");
    all.extend(PathCompleter::any().filter(is_plan).complete(typed));
    all
}

fn beginning_with<Name: AsRef<OsStr>>(
    typed: &OsStr,
    names: impl IntoIterator<Item = Name>,
) -> Vec<CompletionCandidate> {
    let is_meant =
        |name: &Name| name.as_ref().as_encoded_bytes().starts_with(typed.as_encoded_bytes());
    let names = names.into_iter().filter(is_meant);
    names.map(|name| CompletionCandidate::new(name.as_ref().to_owned())).collect()
}
