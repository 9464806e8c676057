//! What `cargo test` checks: that every rival records what its row says. No time is asserted.

use crate::alternation::order;
use crate::analysing::goal::{Better, Goal, Rival as Beaten, Row};
use crate::machine::Places;
use crate::rivals::{self, Expected, Rival, perf, trace_cmd};
use crate::rounds::{Bench, Schedule};
use crate::statistics::middle;
use crate::{analysing, json, observing, reading, table};
use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

type Outcome = Result<(), Failed>;

const WINDOW: Duration = Duration::from_millis(50);

pub(crate) fn run() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Rivals would record each other.
    arguments.test_threads = Some(1);
    let mut trials = vec![
        Trial::test("medians_and_intervals", medians_and_intervals),
        Trial::test("rounds_go_to_and_fro", rounds_go_to_and_fro),
        Trial::test("counts_are_read", counts_are_read),
        Trial::test("what_fio_says_is_read", what_fio_says_is_read),
        Trial::test("goals_are_met_or_not", goals_are_met_or_not),
        Trial::test("a_document_gets_the_table_anew", a_document_gets_the_table_anew),
        Trial::test("what_a_child_took_is_told", what_a_child_took_is_told),
    ];
    let named =
        |rival: Rival| rival.to_string().replace([',', '[', ']', '+'], "").replace(' ', "_");
    let nowhere = Places::choose().err().map(|error| error.to_string());
    for rival in rivals::ALL {
        let test = move || records(rival);
        let missing = nowhere.clone().or_else(|| rival.missing());
        trials.push(may_be_ignored(&named(rival), missing, test));
    }
    for rival in observing::rivals::ALL {
        let name = format!("observes_with_{rival}").replace(',', "").replace([' ', '-'], "_");
        let missing = nowhere.clone().or_else(|| rival.missing(&agent()));
        trials.push(may_be_ignored(&name, missing, move || observes(rival)));
    }
    for task in reading::task::ALL {
        let name = format!("beside_fio_{task}").replace(',', "").replace(' ', "_");
        let missing = nowhere.clone().or_else(reading::missing);
        trials.push(may_be_ignored(&name, missing, move || reads(task)));
    }
    let missing = nowhere.clone().or_else(analysing::missing);
    trials.push(may_be_ignored("perf_and_trace_cmd_record_at_once", missing, recorded_at_once));
    let missing = nowhere.or_else(|| rivals::ALL[0].missing());
    trials.push(may_be_ignored("a_run_has_a_row_for_everyone", missing, everyone_has_a_row));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn may_be_ignored(
    name: &str,
    missing: Option<String>,
    test: impl FnOnce() -> Outcome + Send + 'static,
) -> Trial {
    let trial = Trial::test(name, test);
    match missing {
        None => trial,
        Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
    }
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

fn records(rival: Rival) -> Outcome {
    let before = instances();
    let mut bench = Bench::start().map_err(|error| format!("{error:#}"))?;
    let result = bench.record(rival, WINDOW);
    let played = result.map_err(|error| format!("{error:#}"))?;
    // Switches of others, and of the ping-pong before and after its window, may be there too; on a
    // full pCPU records may be lost. So it is about magnitudes; half would be all of one direction,
    // or of trace-cmd without stacks.
    let many = played.switches_count * 3 / 4;
    let recorded = played.recorded;
    let of = || format!("{played:?}");
    let (switches, stacks) = (recorded.switches_count, recorded.stacks_count);
    match rival.expected() {
        Expected::Nothing => check(switches == 0, of)?,
        Expected::Switches => {
            check(switches + recorded.lost_count >= many && switches > 0 && stacks == 0, of)?;
        }
        Expected::Stacks => check(stacks + recorded.lost_count >= many && stacks > 0, of)?,
    }
    let after = instances();
    check(before == after, || format!("tracefs instances were {before:?}, are {after:?}"))
}

/// Those of the bench; others come and go as they like.
fn instances() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/tracing/instances").into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.contains(&std::process::id().to_string())).collect()
}

fn everyone_has_a_row() -> Outcome {
    let rivals = rivals::ALL.to_vec();
    let schedule = Schedule { rivals, rounds: 2, window: Duration::from_millis(20) };
    let results = schedule.run(&mut |_| {}).map_err(|error| format!("{error:#}"))?;
    let (text, json) = (table::of(&results), json::of(&results));
    for (rival, row) in rivals::ALL.iter().zip(&results.rows) {
        check(text.contains(&rival.to_string()), || format!("no {rival} in {text}"))?;
        match (&row.measured, rival.missing()) {
            (Ok(windows), None) => check(windows.len() == 2, || format!("{windows:?}"))?,
            (Err(_), Some(_)) => {}
            (measured, missing) => return Err(format!("{measured:?}, {missing:?}").into()),
        }
    }
    check(json["rows"].as_array().is_some_and(|rows| rows.len() == rivals::ALL.len()), || {
        json.to_string()
    })
}

/// The agent that lies beside the `vslice` that tests are told of.
fn agent() -> PathBuf {
    let built = std::env::var_os("VSLICE_BIN").unwrap_or_default();
    Path::new(&built).with_file_name("vslice-agent")
}

/// It sees every request that the bench makes; the agent, which is told of a disk, no others.
fn observes(rival: observing::rivals::Rival) -> Outcome {
    let before = instances();
    let (rivals, device, agent) = (vec![rival], None, agent());
    let schedule = observing::rounds::Schedule { rivals, rounds: 1, window: WINDOW, device, agent };
    let results = schedule.run(&mut |_| {}).map_err(|error| format!("{error:#}"))?;
    let [row] = &results.rows[..] else { return Err(format!("{results:?}").into()) };
    let seen = row.recorded_permille();
    let is_agent = matches!(rival, observing::rivals::Rival::Each | observing::rivals::Rival::Slow);
    let is_right = seen >= 950 && (seen <= 1001 || !is_agent) && row.lost_count() == 0;
    check(is_right, || format!("{row:?}"))?;
    check(observing::table::of(&results).contains(&rival.to_string()), || "no row".into())?;
    let after = instances();
    check(before == after, || format!("tracefs instances were {before:?}, are {after:?}"))
}

/// vslice's reader and fio do the same, and of vslice's requests every one is recorded.
fn reads(task: reading::task::Task) -> Outcome {
    let (tasks, target) = (vec![task], None);
    let schedule =
        reading::rounds::Schedule { tasks, rounds: 2, window: WINDOW, target, older: None };
    let results = schedule.run(&mut |_| {}).map_err(|error| format!("{error:#}"))?;
    let [row] = &results.rows[..] else { return Err(format!("{results:?}").into()) };
    let is_whole = row.measured.as_ref().is_ok_and(|pairs| pairs.len() == 2);
    check(is_whole && row.recorded_permille() == 1000, || format!("{row:?}"))?;
    let (text, json) = (reading::table::of(&results), reading::table::json_of(&results));
    check(text.contains(&task.to_string()), || format!("no {task} in {text}"))?;
    check(json["rows"][0]["ratio"]["median"].is_number(), || json.to_string())
}

fn what_fio_says_is_read() -> Outcome {
    let of = |error: u32, ios: u32| {
        format!(
            "fio: a remark\n{{\"jobs\": [{{\"error\": {error}, \
             \"read\": {{\"total_ios\": {ios}, \"runtime\": 500}}, \
             \"job_runtime\": 600, \"usr_cpu\": 10.0, \"sys_cpu\": 40.0}}]}}"
        )
    };
    let rate = reading::of_json(&of(0, 1000)).map_err(|error| format!("{error:#}"))?;
    check((rate.per_second, rate.processor_ns) == (2000.0, 300_000.0), || format!("{rate:?}"))?;
    for wrong in [of(5, 1000), of(0, 0), String::new()] {
        check(reading::of_json(&wrong).is_err(), || wrong.clone())?;
    }
    Ok(())
}

fn goals_are_met_or_not() -> Outcome {
    let row = |better, goal, now: f64, of_rival: f64| Row {
        name: "a row".to_owned(),
        better,
        goal,
        places: 1,
        parent: vec![2.0],
        now: vec![now],
        rival: Some(Beaten { name: "a rival", values: vec![of_rival] }),
        missing: None,
    };
    let rows = [
        (row(Better::More, Goal::Figure(3.0), 4.0, 8.0), Some(true), 0.5, 2.0),
        (row(Better::Less, Goal::Figure(3.0), 4.0, 8.0), Some(false), 2.0, 0.5),
        (row(Better::More, Goal::Ratio(1.0), 4.0, 8.0), Some(false), 0.5, 2.0),
        (row(Better::Less, Goal::Ratio(1.5), 4.0, 8.0), Some(true), 2.0, 0.5),
    ];
    for (row, is_met, ratio, gain) in rows {
        let found = (row.is_met(), row.ratio(), row.gain());
        let medians = [found.1, found.2].map(|middle| middle.map(|middle| middle.median));
        let is_right = found.0 == is_met && medians == [Some(ratio), Some(gain)];
        check(is_right, || format!("{row:?}: {found:?}"))?;
    }
    let nothing = Row { now: vec![], ..row(Better::More, Goal::Figure(3.0), 4.0, 8.0) };
    check(nothing.is_met().is_none(), || format!("{nothing:?}"))
}

fn a_document_gets_the_table_anew() -> Outcome {
    let document = std::fs::read_to_string("../docs/costs.md")?;
    let inserted = |document: &str, table| {
        analysing::table::inserted(document, table).ok_or("docs/costs.md has no place for it")
    };
    let once = inserted(&document, "a table of today\n")?;
    check(once.matches("\n```\na table of today\n```\n").count() == 1, || once.clone())?;
    check(inserted(&once, "another one")?.matches("a table of today").count() == 0, || once)
}

/// A child that needs memory, and one that fails.
fn what_a_child_took_is_told() -> Outcome {
    let of = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(arguments);
        analysing::child::run(&command, None).map_err(|error| format!("{error:#}"))
    };
    // dd takes as much memory as a block has.
    let took = of("dd", &["if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"])?;
    let is_right = took.peak_mib > 64.0
        && took.peak_mib < 128.0
        && took.seconds > 0.0
        && took.processor_seconds > 0.0;
    check(is_right, || format!("{took:?}"))?;
    check(of("false", &[]).is_err(), || "a failure is none".into())
}

fn recorded_at_once() -> Outcome {
    const SLEEPS: u64 = 1000;
    let before = instances();
    let scratch = tempfile::tempdir_in("/var/tmp")?;
    let beside = || -> anyhow::Result<_> {
        let mounts = crate::machine::Mounts::note();
        let tools = analysing::Beside::start(scratch.path())?;
        for _ in 0..SLEEPS {
            std::thread::sleep(Duration::from_micros(50));
        }
        let recorded = tools.stop(scratch.path())?;
        drop(mounts);
        Ok(recorded)
    };
    let recorded = beside().map_err(|error| format!("{error:#}"))?;
    let [perf, trace_cmd] = recorded.map(|one| one.events_count);
    // To sleep is to be switched away from.
    check(perf >= SLEEPS && trace_cmd >= SLEEPS, || format!("{recorded:?}"))?;
    check(recorded.iter().all(|one| one.bytes > 0 && one.processor_ns > 0), || {
        format!("{recorded:?}")
    })?;
    let after = instances();
    check(before == after, || format!("tracefs instances were {before:?}, are {after:?}"))
}

fn medians_and_intervals() -> Outcome {
    let of = |count: u32| middle((1..=count).rev().map(f64::from));
    check(of(0).is_none(), || "a median of nothing".into())?;
    // Tables of the sign test: ranks 1 of 5 (no interval of 95 %), 1 of 6, 4 of 15, 6 of 20.
    for (count, median, interval) in [
        (1, 1.0, (1.0, 1.0)),
        (5, 3.0, (1.0, 5.0)),
        (6, 3.5, (1.0, 6.0)),
        (15, 8.0, (4.0, 12.0)),
        (20, 10.5, (6.0, 15.0)),
    ] {
        let found = of(count);
        let right = found.is_some_and(|found| found.median == median && found.interval == interval);
        check(right, || format!("of {count}: {found:?}"))?;
    }
    Ok(())
}

fn rounds_go_to_and_fro() -> Outcome {
    let orders = [order(3, 0), order(3, 1)];
    check(orders == [vec![0, 1, 2], vec![2, 1, 0]], || format!("{orders:?}"))
}

fn counts_are_read() -> Outcome {
    let report = "Aggregated stats:\n  SAMPLE events: 9 (1.0%)\n\
        sched:sched_waking stats:\n   SAMPLE events:   4\n\
        sched:sched_switch stats:\n   SAMPLE events:   5\n\
        dummy:HG stats:\n   SAMPLE events: 7\n";
    let of = |report| perf::samples_of(report, "sched:sched_switch");
    let found = (of(report), of("Aggregated stats:\n SAMPLE events: 9"));
    check(found == (5, 0), || format!("{found:?}"))?;
    let events =
        |kinds| format!("sched:sched_switch: type: 2, sample_type: IP|{kinds}RAW, disabled: 1");
    let found = (perf::has_stacks(&events("CALLCHAIN|")), perf::has_stacks(&events("")));
    check(found == (true, false), || format!("{found:?}"))?;
    let stats = "entries: 2\noverrun: 3\ncommit overrun: 0\nread events: 7\n";
    let found =
        ["entries", "overrun", "read events", "none"].map(|name| trace_cmd::count_of(stats, name));
    check(found == [2, 3, 7, 0], || format!("{found:?}"))
}
