//! The trace of a real run: how large it is, and what Perfetto's own trace processor says of it.

use crate::Case;
use libtest_mimic::Failed;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vslice_tests::{Lab, not_judged};
use vslice_trace::{EventMerge, RunDir};

pub(crate) const CASES: &[Case] = &[("a_trace_is_small_and_perfetto_takes_it", small_and_taken)];

/// Enough reads that the run's events outweigh what the collector says of host and guests.
const TOTAL: &str = "32MiB";

/// What a trace takes at most for each event of a recorded run, with its spans and requests.
const BYTES_AN_EVENT_MAX: u64 = 18;

fn events_in(directory: &Path) -> Result<u64, Failed> {
    let events = EventMerge::open(&RunDir::open(directory)?)?;
    let mut count = 0;
    for event in events {
        event?;
        count += 1;
    }
    Ok(count)
}

fn small_and_taken(lab: &Lab) -> Result<(), Failed> {
    let scratch = tempfile::tempdir()?;
    let trace = scratch.path().join("run.pftrace");
    let path = trace.to_str().ok_or("a path that is no text")?;
    let run = lab.run(&["demo", "--total", TOTAL, "--perfetto", path])?;
    if run.code() != Some(0) {
        return Err(format!("exit code {:?}:\n{}", run.code(), run.said()).into());
    }
    let (trace_bytes, events) = (fs::metadata(&trace)?.len(), events_in(&run.run_dir())?);
    if trace_bytes > events * BYTES_AN_EVENT_MAX {
        return Err(format!("{trace_bytes} bytes of trace for {events} events").into());
    }
    let Some(processor) = processor() else {
        return not_judged(
            "a_trace_is_small_and_perfetto_takes_it",
            "VSLICE_READERS has no trace processor: only the size was looked at",
        );
    };
    taken(&processor, &trace, &run.summary()?)
}

fn processor() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("VSLICE_READERS")?).join("processor");
    folder.exists().then_some(folder)
}

/// It finds no error but that records are missing, the run's requests, and arrows of both kinds that lead forward.
fn taken(processor: &Path, trace: &Path, summary: &Value) -> Result<(), Failed> {
    let queries = [
        "select name, value from stats where severity in ('error', 'data_loss') and value > 0 \
         and name not in ('task_state_invalid', 'ftrace_cpu_has_data_loss')",
        "select (select value from stats where name = 'task_state_invalid') as told, \
         (select count(*) from sched where end_state is null and dur >= 0) as unknown",
        "select count(*) as n from slice where category = 'request'",
        "select count(*) as n from flow join slice on slice_in = slice.id \
         where category = 'waits for a pCPU' and dur < 100000",
        "select count(*) as n from flow join slice a on slice_out = a.id \
         join slice b on slice_in = b.id where a.ts != b.ts",
        "select count(*) as n from flow join slice on slice_out = slice.id where category = 'delay'",
        "select count(*) as n from slice where dur < 0",
    ];
    let answers = queried(processor, trace, &queries)?;
    let [errors, states, requests, short, apart, delays, open] = &answers[..] else {
        return Err(format!("{answers:?}").into());
    };
    let is_sound = errors.as_array().is_some_and(Vec::is_empty)
        && states[0]["told"] == states[0]["unknown"]
        && requests[0]["n"] == summary["requests"]["count"]
        && [short, apart, open].iter().all(|none| none[0]["n"] == 0)
        && delays[0]["n"].as_u64() > Some(0);
    let why = || format!("{answers:?}, and {} requests", summary["requests"]["count"]).into();
    is_sound.then_some(()).ok_or_else(why)
}

fn queried(processor: &Path, trace: &Path, queries: &[&str]) -> Result<Vec<Value>, Failed> {
    let script = "../host-collector/export/tests/query_perfetto.mjs";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let mut node = Command::new("node");
    let node = node.arg(script).arg(processor).arg(trace);
    let mut child = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut questions = child.stdin.take().ok_or("no pipe")?;
    questions.write_all(queries.join("\n").as_bytes())?;
    drop(questions);
    let output = child.wait_with_output()?;
    let answers = String::from_utf8(output.stdout)?;
    Ok(answers.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}
