//! Tests of the scripted process.

use crate::{Outcome, check, not_judged, pcpus, wait};
use libtest_mimic::Failed;
use std::path::Path;
use std::time::Duration;
use vslice_selftest::rig::inject::stopper::{Stop, Stopper};
use vslice_selftest::rig::scripted_process::{Action, Script, ScriptLog, ScriptedProcess, Step};

fn run_steps(
    steps: Vec<Step>,
    meanwhile: impl FnOnce(&ScriptedProcess) -> Outcome,
) -> Result<ScriptLog, Failed> {
    let (pcpu, main_pcpu) = pcpus();
    let (program_name, thread_name) = ("qemu-system-x86_64".to_owned(), "CPU 0/KVM".to_owned());
    let script = Script { program_name, thread_name, pcpu, main_pcpu, steps };
    let process = ScriptedProcess::start(Path::new(env!("CARGO_BIN_EXE_vslice")), &script)?;
    process.go()?;
    meanwhile(&process)?;
    Ok(process.finish(Duration::from_secs(60))?)
}

pub(crate) fn scripted_actions() -> Outcome {
    const COUNT: u32 = 20;
    let steps = Action::ALL.map(|action| Step { action, count: COUNT });
    let log = run_steps(steps.to_vec(), |_| Ok(()))?;
    check(log.occurrences.is_sorted_by(|a, b| a.end < b.start), || "they overlap".to_owned())?;
    let is_refused =
        |action| log.process.unavailable.iter().any(|unavailable| unavailable.action == action);
    for unavailable in &log.process.unavailable {
        not_judged(&format!("{}: {:?}", unavailable.why, unavailable.action));
    }
    for action in Action::ALL.into_iter().filter(|action| !is_refused(*action)) {
        let all = log.occurrences.iter().filter(|occurrence| occurrence.action == action);
        let (tried_count, proven_count) =
            (all.clone().count(), all.clone().filter(|it| it.is_proven()).count());
        let what = || format!("{action:?} left the pCPU {proven_count} times of {tried_count}");
        match action {
            Action::Spin => check(all.clone().all(|spin| spin.voluntary_switches == 0), || {
                format!("a spinning thread slept: {log:?}")
            })?,
            // A disk may have read before the thread comes to sleep: that is seen where others, or a
            // hypervisor below, keep the pCPU from it.
            Action::DirectRead | Action::FileFault if proven_count < COUNT as usize => {
                not_judged(&format!("the disk was faster: {}", what()));
            }
            _ => check(proven_count == COUNT as usize, what)?,
        }
    }
    let process = &log.process;
    check(process.pid != process.vcpu && process.pthread_lock_address % 4 == 0, || {
        format!("{process:?}")
    })
}

pub(crate) fn process_stopped() -> Outcome {
    let mut stops = Vec::new();
    let log = run_steps(vec![Step { action: Action::Spin, count: 40 }], |process| {
        // Let go as soon as all its threads have stopped: were that not waited for, SIGCONT would
        // take back what nobody has come to yet.
        let running = Duration::from_millis(15);
        let stopper = Stopper::start(process.pid(), Duration::ZERO, running)?;
        wait()?;
        stops = stopper.stop()?;
        Ok(())
    })?;
    let (Some(first), Some(last)) = (log.occurrences.first(), log.occurrences.last()) else {
        return Err("nothing was played".into());
    };
    let inside = |stop: &&Stop| stop.start > first.start && stop.end < last.end;
    let stop_count = stops.iter().filter(inside).count() as u64;
    let sleep_count: u64 = log.occurrences.iter().map(|spin| spin.voluntary_switches).sum();
    check(
        stops.iter().all(|stop| stop.start < stop.complete && stop.complete <= stop.end),
        || format!("{stops:?}"),
    )?;
    // A stop that hits between two spins is counted in neither. And the kernel says that the last
    // thread has stopped just before that gives up its pCPU (do_signal_stop, kernel/signal.c), so
    // that one which is let go at once need not leave it: 10 sleeps of 13 stops were seen.
    check(stop_count > 0 && sleep_count * 2 >= stop_count && sleep_count <= stop_count + 2, || {
        format!("{stop_count} stops, {sleep_count} sleeps")
    })
}

pub(crate) fn process_failed() -> Outcome {
    let too_many = run_steps(vec![Step { action: Action::Fault, count: 1_000_000 }], |_| Ok(()));
    let message = too_many.err().and_then(|failed| failed.message().map(str::to_owned));
    let message = message.ok_or("there are not so many pages")?;
    check(message.contains("at most 2048 faults"), || message)
}
