//! Causes that are injected by a process that imitates a VMM: those that a real QEMU shows too rarely,
//! and those of other VMMs.

use super::injected_machine::own_tids;
use super::observe::{Departure, observe};
use super::process_run::ProcessRun;
use super::rows::InjectionCount;
use super::score::Score;
use super::{Outcome, SelftestConfig, SelftestError, Skipped, truth};
use crate::rig::inject::Episode;
use crate::rig::scripted_process::{Action, Occurrence, Script, ScriptLog, ScriptedProcess, Step};
use std::time::Duration;
use vslice_core::timeline::Reason;
use vslice_host::host_clock::host_now;
use vslice_host::steal;
use vslice_record::perf::RecordPlan;

/// How often each cause has to happen, proven by the kernel's counts.
const COUNT: u32 = 200;

/// All steps of a script together take some seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// A VMM that is imitated: the names of its program and of its vCPU thread, and the ways in which that
/// thread blocks.
struct Imitation {
    name: &'static str,
    program_name: &'static str,
    thread_name: &'static str,
    actions: &'static [Action],
}

/// The VMMs, named so that an attach recognises them.
const IMITATIONS: [Imitation; 4] = [
    Imitation {
        name: "QEMU",
        program_name: "qemu-system-x86_64",
        thread_name: "CPU 0/KVM",
        actions: &[
            Action::PthreadLock,
            Action::Condition,
            Action::TimedCondition,
            Action::Poll,
            Action::Nanosleep,
            Action::Yield,
            Action::DirectRead,
            Action::Flush,
            Action::Fault,
            Action::FileFault,
        ],
    },
    Imitation {
        name: "Firecracker",
        program_name: "firecracker",
        thread_name: "fc_vcpu 0",
        actions: &[Action::RustLock, Action::Poll],
    },
    Imitation {
        name: "Cloud Hypervisor",
        program_name: "cloud-hypervisor",
        thread_name: "vcpu0",
        actions: &[Action::RustLock],
    },
    Imitation {
        name: "crosvm",
        program_name: "crosvm",
        thread_name: "crosvm_vcpu0",
        actions: &[Action::RustLock],
    },
];

/// Runs all scenarios in which a process imitates a VMM.
///
/// # Errors
/// Fails with [`SelftestError`]. Scenarios that this host does not allow are added to `skipped`.
pub fn imitation_scenarios(
    config: &SelftestConfig,
    progress: &mut dyn FnMut(&str),
    outcomes: &mut Vec<Outcome>,
    skipped: &mut Vec<Skipped>,
) -> Result<(), SelftestError> {
    for imitation in &IMITATIONS {
        config.check()?;
        let name = format!("process imitating {}", imitation.name);
        progress(&name);
        imitate(config, imitation, &name, outcomes, skipped)?;
    }
    Ok(())
}

fn imitate(
    config: &SelftestConfig,
    imitation: &Imitation,
    name: &str,
    outcomes: &mut Vec<Outcome>,
    skipped: &mut Vec<Skipped>,
) -> Result<(), SelftestError> {
    let script = Script {
        program_name: imitation.program_name.to_owned(),
        thread_name: imitation.thread_name.to_owned(),
        pcpu: config.vcpu_pcpu,
        main_pcpu: config.other_pcpu,
        steps: imitation
            .actions
            .iter()
            .map(|action| Step { action: *action, count: COUNT })
            .collect(),
    };
    let process = ScriptedProcess::start(&config.program, &script)?;
    let vcpu = process.vcpu();
    let mut run = ProcessRun::of(process.pid(), &config.host)?;
    let plan = RecordPlan {
        vcpu_tids: vec![vcpu],
        vm_tids: run.tids(),
        pcpus: vec![config.vcpu_pcpu, config.other_pcpu],
        reader_pcpu: Some(config.other_pcpu),
        ..RecordPlan::default()
    };
    let stolen_before = steal::stolen_ns();
    let perform = || -> Result<(ScriptLog, Episode), SelftestError> {
        let start = host_now();
        process.go()?;
        let log = process.finish(LIMIT)?;
        Ok((log, Episode { start, end: host_now() }))
    };
    let (observed, (log, window)) = observe(&plan, perform)?;
    let stolen_ns = steal::stolen_ns().zip(stolen_before);
    let stolen_ns = stolen_ns.map_or(0, |(after, before)| after.saturating_sub(before));
    let mut own = own_tids(&[]);
    own.extend(run.tids());
    own.extend(log.occurrences.iter().filter_map(|occurrence| occurrence.rival));
    let taken_ns = observed.taken_ns(config.vcpu_pcpu, &own, window) + stolen_ns;
    let taken_share = (taken_ns as f64 / window.end.since_ns(window.start).max(1) as f64).min(1.0);
    skipped.extend(log.process.unavailable.iter().map(|unavailable| Skipped {
        name: name.to_owned(),
        reason: unavailable.why.clone(),
        reasons: reason_of(unavailable.action, false).into_iter().collect(),
    }));
    let score = |run: &ProcessRun, is_big_lock| -> Result<_, SelftestError> {
        let departures = observed.departures(vcpu, run.timeline(observed.stacks())?);
        let truth = |it: &Departure| reason_of_departure(it, &log.occurrences, is_big_lock).into();
        let mut score = truth::score(&departures, window, run.bql(), &truth);
        missed(&mut score, &departures, &log.occurrences, is_big_lock);
        Ok(Outcome {
            name: name.to_owned(),
            score,
            unknown_stacks: observed.unknown_stacks(&departures),
            made: injection_counts(&log.occurrences, is_big_lock),
            taken_share,
            untold: None,
        })
    };
    outcomes.push(score(&run, false)?);
    if imitation.actions.contains(&Action::PthreadLock) {
        // The same record once more, with the process's lock treated as the big lock.
        run.set_bql(Some(log.process.pthread_lock_address));
        let outcome = score(&run, true)?;
        let name = format!("{name}, its lock treated as the big lock");
        outcomes.push(Outcome { name, ..outcome });
    }
    Ok(())
}

/// How often each reason was tried and, by the kernel's counts, happened.
fn injection_counts(occurrences: &[Occurrence], is_big_lock: bool) -> Vec<InjectionCount> {
    let mut all: Vec<InjectionCount> = Vec::new();
    for occurrence in occurrences {
        let Some(reason) = reason_of(occurrence.action, is_big_lock) else { continue };
        let proven = u64::from(occurrence.is_proven());
        match all.iter_mut().find(|made| made.reason == reason) {
            Some(made) => {
                made.tried_count += 1;
                made.made_count += proven;
            }
            None => all.push(InjectionCount { reason, tried_count: 1, made_count: proven }),
        }
    }
    all
}

/// Occurrences that the kernel's own counts prove, and of which the record has no departure, are missed.
fn missed(
    score: &mut Score,
    departures: &[Departure],
    occurrences: &[Occurrence],
    is_big_lock: bool,
) {
    for occurrence in occurrences.iter().filter(|occurrence| occurrence.is_proven()) {
        let is_seen = departures.iter().any(|departure| {
            (occurrence.start..=occurrence.end).contains(&departure.time)
                && departure.state.is_runnable() == (occurrence.action == Action::Yield)
        });
        if !is_seen && let Some(reason) = reason_of(occurrence.action, is_big_lock) {
            score.add(reason, Reason::Unknown);
        }
    }
}

/// The reason for a departure by the process's own log, if the kernel's counts prove that it happened.
fn reason_of_departure(
    departure: &Departure,
    occurrences: &[Occurrence],
    is_big_lock: bool,
) -> Option<Reason> {
    let after = occurrences.partition_point(|it| it.start <= departure.time);
    let occurrence = occurrences.get(after.checked_sub(1)?)?;
    if departure.time > occurrence.end || !occurrence.is_proven() {
        return None;
    }
    let is_runnable = departure.state.is_runnable();
    let is_it = match occurrence.action {
        // Whoever else came on had woken: then the thread was preempted while it yielded.
        Action::Yield => is_runnable && Some(departure.next) == occurrence.rival,
        _ => !is_runnable,
    };
    reason_of(occurrence.action, is_big_lock).filter(|_| is_it)
}

/// The reason for which a thread leaves its pCPU when it does this.
fn reason_of(action: Action, is_big_lock: bool) -> Option<Reason> {
    Some(match action {
        Action::PthreadLock if is_big_lock => Reason::Bql,
        Action::PthreadLock => Reason::QemuLock,
        Action::Condition | Action::TimedCondition => Reason::HaltUser,
        Action::RustLock => Reason::VmmLock,
        Action::Poll | Action::Nanosleep => Reason::PollSleep,
        Action::DirectRead | Action::Flush => Reason::IoSubmit,
        Action::Fault | Action::FileFault => Reason::HostFault,
        Action::Yield => Reason::Yield,
        Action::Spin => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::host_event::PrevState;
    use vslice_core::units::{HostNs, Tid};

    fn occurrence(action: Action, start: u64, end: u64) -> Occurrence {
        let (voluntary_switches, involuntary_switches) =
            if action == Action::Yield { (0, 1) } else { (1, 0) };
        Occurrence {
            action,
            start: HostNs(start),
            end: HostNs(end),
            voluntary_switches,
            involuntary_switches,
            major_faults: 0,
            rival: (action == Action::Yield).then_some(RIVAL),
        }
    }

    const RIVAL: Tid = Tid(9);

    fn departure(time: u64, state: PrevState, next: Tid) -> Departure {
        Departure {
            time: HostNs(time),
            until: HostNs(time + 5),
            state,
            next,
            ran_ns: None,
            reason: Reason::Unknown,
            lock: None,
            stack: None,
        }
    }

    #[test]
    fn a_departure_is_what_the_process_was_doing_then() {
        let log = [occurrence(Action::PthreadLock, 10, 20), occurrence(Action::Yield, 30, 40)];
        let of = |time, state, is_big_lock| {
            reason_of_departure(&departure(time, state, RIVAL), &log, is_big_lock)
        };
        assert_eq!(of(5, PrevState::Sleep, false), None);
        assert_eq!(of(12, PrevState::Sleep, false), Some(Reason::QemuLock));
        assert_eq!(of(12, PrevState::Sleep, true), Some(Reason::Bql));
        assert_eq!(of(12, PrevState::Runnable, false), None, "somebody took its pCPU");
        assert_eq!(of(25, PrevState::Sleep, false), None);
        assert_eq!(of(35, PrevState::Runnable, false), Some(Reason::Yield));
        assert_eq!(of(35, PrevState::Sleep, false), None);
    }

    #[test]
    fn who_preempts_a_thread_that_yields_is_not_yielded_to() {
        let log = [occurrence(Action::Yield, 30, 40)];
        let stranger = departure(35, PrevState::Runnable, Tid(77));
        assert_eq!(reason_of_departure(&stranger, &log, false), None);
        // Preempted and yielded in one call, in whatever order.
        let twice = [Occurrence { involuntary_switches: 2, ..log[0] }];
        let rival = departure(35, PrevState::Runnable, RIVAL);
        assert_eq!(reason_of_departure(&rival, &log, false), Some(Reason::Yield));
        assert_eq!(reason_of_departure(&rival, &twice, false), None);
    }

    #[test]
    fn what_the_kernel_did_not_count_did_not_happen() {
        let fault = |major_faults, voluntary_switches| Occurrence {
            major_faults,
            voluntary_switches,
            ..occurrence(Action::FileFault, 10, 20)
        };
        let of = |fault| {
            reason_of_departure(&departure(12, PrevState::DiskSleep, RIVAL), &[fault], false)
        };
        assert_eq!(of(fault(1, 1)), Some(Reason::HostFault));
        assert_eq!(of(fault(0, 1)), None, "the page was in memory");
        assert_eq!(of(fault(1, 0)), None, "the disk had read before the thread slept");
    }

    #[test]
    fn what_was_made_is_what_the_kernel_counted() {
        let proven = occurrence(Action::FileFault, 10, 20);
        let proven = Occurrence { major_faults: 1, ..proven };
        let log = [proven, occurrence(Action::FileFault, 30, 40), occurrence(Action::Spin, 50, 60)];
        let reason = Reason::HostFault;
        assert_eq!(
            injection_counts(&log, false),
            [InjectionCount { reason, tried_count: 2, made_count: 1 }]
        );
    }

    #[test]
    fn what_the_kernel_counted_and_the_record_lacks_is_missed() {
        let log = [occurrence(Action::PthreadLock, 10, 20), occurrence(Action::Yield, 30, 40)];
        let missed = |departures: &[Departure]| {
            let mut score = Score::default();
            super::missed(&mut score, departures, &log, false);
            let count = |reason| score.count(reason, Reason::Unknown);
            (count(Reason::QemuLock), count(Reason::Yield))
        };
        assert_eq!(missed(&[]), (1, 1));
        let stranger = departure(35, PrevState::Runnable, Tid(77));
        assert_eq!(missed(&[departure(12, PrevState::Sleep, RIVAL), stranger]), (0, 0));
        let spin = Occurrence { action: Action::Spin, ..log[0] };
        let mut score = Score::default();
        super::missed(&mut score, &[], &[spin], false);
        assert_eq!(score, Score::default());
    }
}
