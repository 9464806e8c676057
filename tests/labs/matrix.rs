//! An experiment of two conditions: its runs alternate, its iothread is proven, and it goes on where it
//! was.

use crate::Case;
use libtest_mimic::Failed;
use serde_json::Value;
use std::fs;
use std::path::Path;
use vslice_tests::{Lab, processes_with};

pub(crate) const CASES: &[Case] = &[("an_experiment_alternates_and_goes_on", alternates)];

const MATRIX: &str = r#"
name = "two"
plan = "demo"
repeat = 2
total = "1MiB"
disk = ["virtio-blk"]
dataplane = ["off", "iothread"]
"#;

const OFF: &str = "virtio-blk.off.native.none";
const IOTHREAD: &str = "virtio-blk.iothread.native.none";

fn alternates(lab: &Lab) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let matrix = dir.path().join("two.toml");
    fs::write(&matrix, MATRIX)?;
    let (output, html) = (dir.path().join("two"), dir.path().join("two.html"));
    let experiment = || -> Result<Value, Failed> {
        let command = [
            "experiment".as_ref(),
            matrix.as_os_str(),
            "--json".as_ref(),
            "--accelerator".as_ref(),
            "tcg".as_ref(),
        ];
        let mut command = lab.command(&command);
        let ended = command.arg("--output").arg(&output).arg("--html").arg(&html).output()?;
        if !ended.status.success() {
            return Err(String::from_utf8_lossy(&ended.stderr).into_owned().into());
        }
        Ok(serde_json::from_slice(&ended.stdout)?)
    };

    let first = experiment()?;
    let order = [(OFF, 1), (IOTHREAD, 1), (IOTHREAD, 2), (OFF, 2)];
    let starts = order.map(|(cell, number)| window_start(&output, cell, number));
    let starts = starts.into_iter().collect::<Result<Vec<u64>, Failed>>()?;
    check(starts.is_sorted(), || format!("they do not alternate: {starts:?}"))?;
    are_complete(&first)?;
    let page = fs::read_to_string(&html)?;
    for cell in [OFF, IOTHREAD] {
        let path = output.join(cell).join("run-2").display().to_string();
        check(page.contains(&path), || format!("{path} is not on the page"))?;
    }
    let emitted = fs::read_to_string(output.join(IOTHREAD).join("vm1.qemu"))?;
    check(emitted.contains("iothread=io0"), || emitted.clone())?;
    let emitted = fs::read_to_string(output.join(IOTHREAD).join("vm1.xml"))?;
    check(emitted.contains("iothread='1'"), || emitted.clone())?;
    check(emitted.contains("<domain type='qemu'"), || emitted.clone())?;

    // As if the experiment had been killed in the middle of this one.
    let killed = output.join(IOTHREAD).join("run-2");
    let run_json = fs::read_to_string(killed.join("run.json"))?;
    let mut run: Value = serde_json::from_str(&run_json)?;
    run["status"] = serde_json::json!({"state": "recording"});
    fs::write(killed.join("run.json"), run.to_string())?;
    are_complete(&experiment()?)?;
    let kept = [(OFF, 1), (IOTHREAD, 1), (OFF, 2)]
        .map(|(cell, number)| window_start(&output, cell, number).ok());
    let before = [starts[0], starts[1], starts[3]].map(Some);
    check(kept == before, || format!("complete runs were made again: {kept:?}, {before:?}"))?;
    let again = window_start(&output, IOTHREAD, 2)?;
    check(again > starts[3], || "the one that was killed was not made again".to_owned())?;
    let aside = output.join(IOTHREAD).join("ended-early/run-2-1/run.json");
    check(aside.exists(), || format!("{} is gone", aside.display()))?;
    let left = processes_with(dir.path());
    check(left.is_empty(), || format!("left behind: {left:?}"))
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what().into()) }
}

/// Both conditions have both runs, and the iothread was woken by doorbells: under TCG, by those only.
fn are_complete(experiment: &Value) -> Result<(), Failed> {
    for (name, engaged) in [(OFF, Value::Null), (IOTHREAD, "submission_only".into())] {
        let mut cells = experiment["cells"].as_array().into_iter().flatten();
        let cell = cells.find(|cell| cell["name"] == name).ok_or("no such cell")?;
        let expected = |number: u16| serde_json::json!({"number": number, "ended_early": null, "engaged": engaged});
        let runs = serde_json::json!([expected(1), expected(2)]);
        check(cell["runs"] == runs, || format!("{name}: {:#}", cell["runs"]))?;
    }
    Ok(())
}

fn window_start(output: &Path, cell: &str, number: u16) -> Result<u64, Failed> {
    let path = output.join(cell).join(format!("run-{number}/run.json"));
    let run: Value = serde_json::from_slice(&fs::read(path)?)?;
    Ok(run["window"]["start_ns"].as_u64().ok_or("no window")?)
}
