//! What bash completes, asked of bash itself.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What bash offers for the last of these words, in a folder.
fn offered(folder: &Path, words: &[&str]) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_vslice"));
    let script = "source <(COMPLETE=bash vslice)\n\
                  COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9\n\
                  _clap_complete_vslice vslice \"${COMP_WORDS[COMP_CWORD]}\" ''\n\
                  printf '%s\\n' \"${COMPREPLY[@]}\"";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = program.parent().expect("a folder").to_owned();
    let path = std::env::join_paths([own].into_iter().chain(std::env::split_paths(&path)));
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .args(words)
        .env("PATH", path.expect("no colon"))
        .current_dir(folder)
        .output()
        .expect("bash starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn bash_completes_runs_plans_options_and_commands() {
    let folder = tempfile::tempdir().expect("a scratch directory");
    for run in ["demo-1", "iothread-2/ide/1"] {
        let run = folder.path().join("runs").join(run);
        fs::create_dir_all(&run).expect("scratch");
        fs::write(run.join("run.json"), "{}").expect("scratch");
    }
    fs::write(folder.path().join("my.toml"), "").expect("scratch");
    let offered = |words: &[&str]| offered(folder.path(), words);
    assert_eq!(offered(&["vslice", "report", "runs/d"]), ["runs/demo-1"]);
    // The latest first, whatever its depth.
    let all = offered(&["vslice", "compare", "runs/demo-1", ""]);
    assert_eq!(all[..2], ["runs/iothread-2/ide/1", "runs/demo-1"], "{all:?}");
    assert_eq!(offered(&["vslice", "report", "runs/i"]), ["runs/iothread-2/ide/1"]);
    fs::create_dir(folder.path().join("copied")).expect("scratch");
    assert_eq!(offered(&["vslice", "report", "co"]), ["copied/"], "a run from elsewhere");
    assert_eq!(offered(&["vslice", "run", "d"]), ["demo"]);
    assert_eq!(offered(&["vslice", "run", "m"]), ["my.toml"]);
    assert_eq!(offered(&["vslice", "report", "--fu"]), ["--full"]);
    assert_eq!(offered(&["vslice", "lis"]), ["list"]);
}
