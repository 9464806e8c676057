//! Causes that a process plays which acts as a VMM: those that a real QEMU shows too rarely, and those of
//! other VMMs.

use super::observe::{Departure, observe};
use super::process_run::ProcessRun;
use super::rows::Made;
use super::score::Score;
use super::subject::own_tids;
use super::{Outcome, SelftestConfig, SelftestError, Skipped, truth};
use crate::rig::inject::Episode;
use crate::rig::puppet::{Act, Occurrence, Puppet, PuppetLog, Script, Step};
use std::time::Duration;
use vslice_core::timeline::Reason;
use vslice_host::host_clock::host_now;
use vslice_host::steal;
use vslice_record::perf::RecordPlan;

/// How often each cause is played, proven to have happened.
const COUNT: u32 = 200;

/// All steps of a script together take some seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// A VMM's way with locks, by what its program and its thread are called.
struct Role {
    name: &'static str,
    program_name: &'static str,
    thread_name: &'static str,
    acts: &'static [Act],
}

/// As an attach finds them.
const ROLES: [Role; 4] = [
    Role {
        name: "QEMU",
        program_name: "qemu-system-x86_64",
        thread_name: "CPU 0/KVM",
        acts: &[
            Act::PthreadLock,
            Act::Condition,
            Act::TimedCondition,
            Act::Poll,
            Act::Nanosleep,
            Act::Yield,
            Act::DirectRead,
            Act::Flush,
            Act::Fault,
            Act::FileFault,
        ],
    },
    Role {
        name: "Firecracker",
        program_name: "firecracker",
        thread_name: "fc_vcpu 0",
        acts: &[Act::RustLock, Act::Poll],
    },
    Role {
        name: "Cloud Hypervisor",
        program_name: "cloud-hypervisor",
        thread_name: "vcpu0",
        acts: &[Act::RustLock],
    },
    Role {
        name: "crosvm",
        program_name: "crosvm",
        thread_name: "crosvm_vcpu0",
        acts: &[Act::RustLock],
    },
];

/// Everything that the puppet plays.
///
/// # Errors
/// [`SelftestError`]; what this host does not let it play is `skipped`.
pub fn puppet_scenarios(
    config: &SelftestConfig,
    progress: &mut dyn FnMut(&str),
    outcomes: &mut Vec<Outcome>,
    skipped: &mut Vec<Skipped>,
) -> Result<(), SelftestError> {
    for role in &ROLES {
        config.check()?;
        let name = format!("process imitating {}", role.name);
        progress(&name);
        play(config, role, &name, outcomes, skipped)?;
    }
    Ok(())
}

fn play(
    config: &SelftestConfig,
    role: &Role,
    name: &str,
    outcomes: &mut Vec<Outcome>,
    skipped: &mut Vec<Skipped>,
) -> Result<(), SelftestError> {
    let script = Script {
        program_name: role.program_name.to_owned(),
        thread_name: role.thread_name.to_owned(),
        pcpu: config.vcpu_pcpu,
        main_pcpu: config.other_pcpu,
        steps: role.acts.iter().map(|act| Step { act: *act, count: COUNT }).collect(),
    };
    let puppet = Puppet::start(&config.program, &script)?;
    let vcpu = puppet.vcpu();
    let mut run = ProcessRun::of(puppet.pid(), &config.host)?;
    let plan = RecordPlan {
        vcpu_tids: vec![vcpu],
        vm_tids: run.tids(),
        pcpus: vec![config.vcpu_pcpu, config.other_pcpu],
        reader_pcpu: Some(config.other_pcpu),
        ..RecordPlan::default()
    };
    let stolen_before = steal::stolen_ns();
    let perform = || -> Result<(PuppetLog, Episode), SelftestError> {
        let start = host_now();
        puppet.go()?;
        let log = puppet.finish(LIMIT)?;
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
    skipped.extend(log.cast.refused.iter().map(|refusal| Skipped {
        name: name.to_owned(),
        reason: refusal.why.clone(),
        reasons: reason_of(refusal.act, false).into_iter().collect(),
    }));
    let score = |run: &ProcessRun, is_big_lock| -> Result<_, SelftestError> {
        let departures = observed.departures(vcpu, run.timeline(observed.stacks())?);
        let truth = |it: &Departure| of_act(it, &log.occurrences, is_big_lock).into();
        let mut score = truth::score(&departures, window, run.bql(), &truth);
        missed(&mut score, &departures, &log.occurrences, is_big_lock);
        Ok(Outcome {
            name: name.to_owned(),
            score,
            unknown_stacks: observed.unknown_stacks(&departures),
            made: made(&log.occurrences, is_big_lock),
            taken_share,
            untold: None,
        })
    };
    outcomes.push(score(&run, false)?);
    if role.acts.contains(&Act::PthreadLock) {
        // The same record once more, with the puppet's lock taken for the big one.
        run.set_bql(Some(log.cast.pthread_lock_address));
        let outcome = score(&run, true)?;
        let name = format!("{name}, its lock treated as the big lock");
        outcomes.push(Outcome { name, ..outcome });
    }
    Ok(())
}

/// What happened by the kernel's counts, for each reason.
fn made(occurrences: &[Occurrence], is_big_lock: bool) -> Vec<Made> {
    let mut all: Vec<Made> = Vec::new();
    for occurrence in occurrences {
        let Some(reason) = reason_of(occurrence.act, is_big_lock) else { continue };
        let proven = u64::from(occurrence.is_proven());
        match all.iter_mut().find(|made| made.reason == reason) {
            Some(made) => {
                made.tried_count += 1;
                made.made_count += proven;
            }
            None => all.push(Made { reason, tried_count: 1, made_count: proven }),
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
                && departure.state.is_runnable() == (occurrence.act == Act::Yield)
        });
        if !is_seen && let Some(reason) = reason_of(occurrence.act, is_big_lock) {
            score.add(reason, Reason::Unknown);
        }
    }
}

/// What the puppet was doing by its own log, if the kernel's counts prove that it happened.
fn of_act(departure: &Departure, occurrences: &[Occurrence], is_big_lock: bool) -> Option<Reason> {
    let after = occurrences.partition_point(|it| it.start <= departure.time);
    let occurrence = occurrences.get(after.checked_sub(1)?)?;
    if departure.time > occurrence.end || !occurrence.is_proven() {
        return None;
    }
    let is_runnable = departure.state.is_runnable();
    let is_it = match occurrence.act {
        // Whoever else came on had woken: then the thread was preempted while it yielded.
        Act::Yield => is_runnable && Some(departure.next) == occurrence.rival,
        _ => !is_runnable,
    };
    reason_of(occurrence.act, is_big_lock).filter(|_| is_it)
}

/// For what reason a thread leaves that does this.
fn reason_of(act: Act, is_big_lock: bool) -> Option<Reason> {
    Some(match act {
        Act::PthreadLock if is_big_lock => Reason::Bql,
        Act::PthreadLock => Reason::QemuLock,
        Act::Condition | Act::TimedCondition => Reason::HaltUser,
        Act::RustLock => Reason::VmmLock,
        Act::Poll | Act::Nanosleep => Reason::PollSleep,
        Act::DirectRead | Act::Flush => Reason::IoSubmit,
        Act::Fault | Act::FileFault => Reason::HostFault,
        Act::Yield => Reason::Yield,
        Act::Spin => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::host_event::PrevState;
    use vslice_core::units::{HostNs, Tid};

    fn occurrence(act: Act, start: u64, end: u64) -> Occurrence {
        let (voluntary_switches, involuntary_switches) =
            if act == Act::Yield { (0, 1) } else { (1, 0) };
        Occurrence {
            act,
            start: HostNs(start),
            end: HostNs(end),
            voluntary_switches,
            involuntary_switches,
            major_faults: 0,
            rival: (act == Act::Yield).then_some(RIVAL),
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
            said: Reason::Unknown,
            lock: None,
            stack: None,
        }
    }

    #[test]
    fn a_departure_is_what_the_puppet_was_doing_then() {
        let log = [occurrence(Act::PthreadLock, 10, 20), occurrence(Act::Yield, 30, 40)];
        let of =
            |time, state, is_big_lock| of_act(&departure(time, state, RIVAL), &log, is_big_lock);
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
        let log = [occurrence(Act::Yield, 30, 40)];
        let stranger = departure(35, PrevState::Runnable, Tid(77));
        assert_eq!(of_act(&stranger, &log, false), None);
        // Preempted and yielded in one call, in whatever order.
        let twice = [Occurrence { involuntary_switches: 2, ..log[0] }];
        let rival = departure(35, PrevState::Runnable, RIVAL);
        assert_eq!(of_act(&rival, &log, false), Some(Reason::Yield));
        assert_eq!(of_act(&rival, &twice, false), None);
    }

    #[test]
    fn what_the_kernel_did_not_count_did_not_happen() {
        let fault = |major_faults, voluntary_switches| Occurrence {
            major_faults,
            voluntary_switches,
            ..occurrence(Act::FileFault, 10, 20)
        };
        let of = |fault| of_act(&departure(12, PrevState::DiskSleep, RIVAL), &[fault], false);
        assert_eq!(of(fault(1, 1)), Some(Reason::HostFault));
        assert_eq!(of(fault(0, 1)), None, "the page was in memory");
        assert_eq!(of(fault(1, 0)), None, "the disk had read before the thread slept");
    }

    #[test]
    fn what_was_made_is_what_the_kernel_counted() {
        let proven = occurrence(Act::FileFault, 10, 20);
        let proven = Occurrence { major_faults: 1, ..proven };
        let log = [proven, occurrence(Act::FileFault, 30, 40), occurrence(Act::Spin, 50, 60)];
        let reason = Reason::HostFault;
        assert_eq!(made(&log, false), [Made { reason, tried_count: 2, made_count: 1 }]);
    }

    #[test]
    fn what_the_kernel_counted_and_the_record_lacks_is_missed() {
        let log = [occurrence(Act::PthreadLock, 10, 20), occurrence(Act::Yield, 30, 40)];
        let missed = |departures: &[Departure]| {
            let mut score = Score::default();
            super::missed(&mut score, departures, &log, false);
            let count = |reason| score.count(reason, Reason::Unknown);
            (count(Reason::QemuLock), count(Reason::Yield))
        };
        assert_eq!(missed(&[]), (1, 1));
        let stranger = departure(35, PrevState::Runnable, Tid(77));
        assert_eq!(missed(&[departure(12, PrevState::Sleep, RIVAL), stranger]), (0, 0));
        let spin = Occurrence { act: Act::Spin, ..log[0] };
        let mut score = Score::default();
        super::missed(&mut score, &[], &[spin], false);
        assert_eq!(score, Score::default());
    }
}
