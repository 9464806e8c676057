//! The puppet's tests.

use crate::{Outcome, check, pcpus, wait};
use libtest_mimic::Failed;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use vslice::rig::inject::stopper::{Stop, Stopper};
use vslice::rig::puppet::{Act, Puppet, PuppetLog, Script, Step};

fn play(steps: Vec<Step>, meanwhile: impl FnOnce(&Puppet) -> Outcome) -> Result<PuppetLog, Failed> {
    let (pcpu, main_pcpu) = pcpus();
    let script = Script { thread_name: "CPU 0/KVM".to_owned(), pcpu, main_pcpu, steps };
    let puppet = Puppet::start(Path::new(env!("CARGO_BIN_EXE_vslice")), &script)?;
    puppet.go()?;
    meanwhile(&puppet)?;
    Ok(puppet.finish(Duration::from_secs(60))?)
}

pub(crate) fn puppet_acts() -> Outcome {
    const COUNT: u32 = 20;
    let steps = Act::ALL.map(|act| Step { act, count: COUNT });
    let log = play(steps.to_vec(), |_| Ok(()))?;
    check(log.occurrences.is_sorted_by(|a, b| a.end < b.start), || "they overlap".to_owned())?;
    let mut left_count: BTreeMap<Act, u32> = BTreeMap::new();
    for occurrence in &log.occurrences {
        let count = match occurrence.act {
            Act::Yield => occurrence.involuntary_switches,
            _ => occurrence.voluntary_switches,
        };
        *left_count.entry(occurrence.act).or_default() += u32::from(count > 0);
    }
    check(left_count.len() == Act::ALL.len(), || format!("{left_count:?}"))?;
    for (act, left) in left_count {
        let is_right = match act {
            Act::Spin => left == 0,
            // A thread that others keep from its pCPU finds the lock free again, the read complete:
            // the log says so. What never blocks is broken.
            _ => left * 2 >= COUNT,
        };
        check(is_right, || format!("{act:?} left the pCPU {left} times of {COUNT}"))?;
    }
    let cast = &log.cast;
    check(cast.pid != cast.vcpu && cast.pthread_lock_address % 4 == 0, || format!("{cast:?}"))
}

pub(crate) fn puppet_stopped() -> Outcome {
    let mut stops = Vec::new();
    let log = play(vec![Step { act: Act::Spin, count: 40 }], |puppet| {
        // Let go as soon as all its threads have stopped: were that not waited for, SIGCONT would
        // take back what nobody has come to yet.
        let running = Duration::from_millis(15);
        let stopper = Stopper::start(puppet.pid(), Duration::ZERO, running)?;
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

pub(crate) fn puppet_failed() -> Outcome {
    let too_many = play(vec![Step { act: Act::Fault, count: 1_000_000 }], |_| Ok(()));
    let message = too_many.err().and_then(|failed| failed.message().map(str::to_owned));
    let message = message.ok_or("there are not so many pages")?;
    check(message.contains("2048 faults at most"), || message)
}
