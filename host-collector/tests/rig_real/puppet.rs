//! The puppet's tests.

use crate::{Outcome, check, not_judged, pcpus, wait};
use libtest_mimic::Failed;
use std::path::Path;
use std::time::Duration;
use vslice_selftest::rig::inject::stopper::{Stop, Stopper};
use vslice_selftest::rig::puppet::{Act, Puppet, PuppetLog, Script, Step};

fn play(steps: Vec<Step>, meanwhile: impl FnOnce(&Puppet) -> Outcome) -> Result<PuppetLog, Failed> {
    let (pcpu, main_pcpu) = pcpus();
    let (program_name, thread_name) = ("qemu-system-x86_64".to_owned(), "CPU 0/KVM".to_owned());
    let script = Script { program_name, thread_name, pcpu, main_pcpu, steps };
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
    let is_refused = |act| log.cast.refused.iter().any(|refusal| refusal.act == act);
    for refusal in &log.cast.refused {
        not_judged(&format!("{}: {:?}", refusal.why, refusal.act));
    }
    for act in Act::ALL.into_iter().filter(|act| !is_refused(*act)) {
        let all = log.occurrences.iter().filter(|occurrence| occurrence.act == act);
        let (tried_count, proven_count) =
            (all.clone().count(), all.clone().filter(|it| it.is_proven()).count());
        let what = || format!("{act:?} left the pCPU {proven_count} times of {tried_count}");
        match act {
            Act::Spin => check(all.clone().all(|spin| spin.voluntary_switches == 0), || {
                format!("a spinning thread slept: {log:?}")
            })?,
            // A disk may have read before the thread comes to sleep: that is seen where others, or a
            // hypervisor below, keep the pCPU from it.
            Act::DirectRead | Act::FileFault if proven_count < COUNT as usize => {
                not_judged(&format!("the disk was faster: {}", what()));
            }
            _ => check(proven_count == COUNT as usize, what)?,
        }
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
    check(message.contains("at most 2048 faults"), || message)
}
