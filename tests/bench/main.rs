//! What recording costs the threads that are recorded: vslice, perf and trace-cmd in one run.
//!
//! ```text
//! processes    a ping-pong over two pipes, and an idle VM whose threads are watched (children)
//! rivals       nothing, vslice, perf and trace-cmd: started, stopped, and what they recorded
//! alternation  rivals between windows of nothing, forwards and backwards in turn
//! rounds       the rivals' windows on the ping-pong
//! statistics   differences of neighbours, their median and its interval        (pure)
//! table, json  the result
//! observing    the other question: what observing a block request costs in a guest, or here
//! reading      a third: what the guest's reader costs, and how fast it reads, beside fio
//! analysing    every goal in one table: reports, recordings on disk, the reader, and an older vslice
//! trials       what `cargo test` checks: every rival records; no time is asserted
//! ```
//!
//! `cargo bench` passes `--bench`, and then this measures; otherwise it is a test like any other.
//! It is no criterion benchmark because that measures one thing after the other, while a machine
//! that is shared is faster in one minute than in the next: here each difference is between
//! neighbours of half a second.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::print_stderr, reason = "a run takes minutes and says how far it is")]

mod alternation;
mod analysing;
mod json;
mod machine;
mod observing;
mod processes;
mod reading;
mod rivals;
mod rounds;
mod statistics;
mod table;
mod trials;

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;
use vslice_spec::duration;

/// Measures what recording a context switch costs, beside perf and trace-cmd.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds; in each one, every rival has one window.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Length of a window, as 400ms.
    #[arg(long, default_value = "400ms", value_name = "TIME", value_parser = duration::parse)]
    window: Duration,
    /// Two rounds of short windows: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    /// Print every window and the result as JSON.
    #[arg(long)]
    json: bool,
    /// Only rivals whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    #[command(flatten)]
    observed: observing::Observed,
    #[command(flatten)]
    read: reading::Read,
    #[command(flatten)]
    analysed: analysing::Analysed,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if let Some(role) = first.as_deref().and_then(processes::Role::of) {
        return exit_code(processes::run(role, arguments));
    }
    if first.as_deref() == Some(analysing::child::ROLE) {
        return exit_code(analysing::child::play(arguments));
    }
    if std::env::args().any(|argument| argument == "--bench") {
        return exit_code(measure(&Arguments::parse()));
    }
    trials::run()
}

fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recording_cost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let (rounds, window) = match arguments.quick {
        true => (2, Duration::from_millis(50)),
        false => (arguments.rounds, arguments.window),
    };
    if arguments.observed.observing {
        return observe(arguments, rounds, window);
    }
    if arguments.analysed.goals {
        return goals(arguments, rounds, window);
    }
    if arguments.read.reading {
        return read(arguments, rounds, window);
    }
    let wanted = |rival: &rivals::Rival| {
        arguments.only.as_ref().is_none_or(|text| rival.to_string().contains(text))
    };
    let rivals = rivals::ALL.into_iter().filter(wanted).collect();
    let schedule = rounds::Schedule { rivals, rounds, window };
    let mut told = |round| eprint!("\rround {round} of {rounds}");
    let results = schedule.run(&mut told)?;
    eprint!("\r                              \r");
    if arguments.json {
        println!("{:#}", json::of(&results));
    } else {
        print!("{}", table::of(&results));
    }
    Ok(())
}

fn observe(arguments: &Arguments, rounds: usize, window: Duration) -> anyhow::Result<()> {
    let only = arguments.only.as_ref();
    let wanted =
        |rival: &observing::rivals::Rival| only.is_none_or(|text| rival.to_string().contains(text));
    let schedule = observing::rounds::Schedule {
        rivals: observing::rivals::ALL.into_iter().filter(wanted).collect(),
        rounds,
        window,
        device: arguments.observed.device.clone(),
        agent: arguments.observed.agent.clone(),
    };
    let results = schedule.run(&mut |round| eprint!("\rround {round} of {rounds}"))?;
    eprint!("\r                              \r");
    print!("{}", observing::table::of(&results));
    Ok(())
}

fn read(arguments: &Arguments, rounds: usize, window: Duration) -> anyhow::Result<()> {
    let only = arguments.only.as_ref();
    let wanted =
        |task: &reading::task::Task| only.is_none_or(|text| task.to_string().contains(text));
    let schedule = reading::rounds::Schedule {
        tasks: reading::task::ALL.into_iter().filter(wanted).collect(),
        rounds,
        window,
        target: arguments.read.target.clone(),
        older: None,
    };
    let results = schedule.run(&mut |round| eprint!("\rround {round} of {rounds}"))?;
    eprint!("\r                              \r");
    if arguments.json {
        println!("{:#}", reading::table::json_of(&results));
    } else {
        print!("{}", reading::table::of(&results));
    }
    Ok(())
}

fn goals(arguments: &Arguments, rounds: usize, window: Duration) -> anyhow::Result<()> {
    let mut asked = arguments.analysed.clone();
    if arguments.quick {
        (asked.recordings, asked.total) = (1, "8MiB".to_owned());
    }
    let mut told = |what| eprint!("\r{what:<30}");
    let (results, read) = analysing::rounds::run(&asked, rounds, window, &mut told)?;
    eprint!("\r                              \r");
    let table = analysing::table::of(&results);
    if arguments.json {
        let mut value = analysing::table::json_of(&results);
        value["reading"] = read.as_ref().map(reading::table::json_of).into();
        println!("{value:#}");
    } else {
        if let Some(read) = &read {
            println!("{}", reading::table::of(read));
        }
        print!("{table}");
    }
    match &asked.document {
        Some(path) => analysing::table::write_into(path, &table),
        None => Ok(()),
    }
}
