//! Causes that are injected into real QEMUs with boot-sector guests.

use super::injected_machine::{InjectedMachine, Recorded, Scored};
use super::observe::Departure;
use super::rows::{InjectionCount, Promise, promise};
use super::setting::Setting;
use super::truth::{self, Cause, Shared};
use super::witness::{Testimony, Witness};
use super::{Outcome, SelftestError, Skipped};
use crate::rig::boot_sector::Guest;
use crate::rig::frontend::Frontend;
use crate::rig::inject::quota::{CgroupQuota, QuotaConfig};
use crate::rig::inject::realtime::{self, RealtimeConfig};
use crate::rig::inject::stopper::Stopper;
use crate::rig::inject::storm::QmpStorm;
use crate::rig::inject::waker::{self, WakerConfig};
use crate::rig::inject::{InjectError, rival};
use crate::rig::machine::READER;
use std::time::Duration;
use vslice_core::timeline::{FoundLock, GuestMode, Reason};

/// How long QEMU is stopped each time, and how long it runs in between.
const STOPPED: Duration = Duration::from_millis(5);
const RUNNING: Duration = Duration::from_millis(8);

/// Whatever is shorter is no quota's work: of 50 ms a thread may run for 20, see [`QuotaConfig`].
const THROTTLED_MIN_NS: u64 = 5_000_000;

/// So many windows a scenario gets to make its cases where others have the pCPU too. All of them count,
/// whatever they show.
const WINDOWS_MAX: u32 = 4;

/// Something that is done to a machine for a window.
struct Scenario {
    name: &'static str,
    reason: Reason,
    inject: fn(&Setting<'_>, &mut InjectedMachine) -> Result<Scored, SelftestError>,
}

const HOG_SCENARIOS: [Scenario; 5] = [
    Scenario { name: "rival hog", reason: Reason::Timeslice, inject: rival },
    Scenario { name: "frequently waking task", reason: Reason::PreemptWakeup, inject: waker },
    Scenario { name: "real-time task", reason: Reason::PreemptRtOrStop, inject: realtime },
    Scenario { name: "control group with a CPU quota", reason: Reason::Throttle, inject: quota },
    Scenario { name: "SIGSTOP", reason: Reason::Stopped, inject: stops },
];

/// Everything that can be injected into guests under one accelerator.
///
/// # Errors
/// [`SelftestError`]; what cannot be had here is `skipped` instead.
pub fn machine_scenarios(
    setting: &mut Setting<'_>,
    progress: &mut dyn FnMut(&str),
    outcomes: &mut Vec<Outcome>,
    skipped: &mut Vec<Skipped>,
) -> Result<(), SelftestError> {
    let mut hog = InjectedMachine::start(setting, Guest::Hog, Frontend::VirtioBlk)?;
    for Scenario { name, reason, inject } in HOG_SCENARIOS {
        let name = setting.named(name);
        progress(&name);
        match repeated(reason, || setting.config.check().and_then(|()| inject(setting, &mut hog))) {
            Ok(scored) => outcomes.push(Outcome::new(name, scored)),
            Err(SelftestError::Inject(
                error @ (InjectError::NoCgroup(_) | InjectError::Scheduling { .. }),
            )) => skipped.push(Skipped { name, reason: error.to_string(), reasons: vec![reason] }),
            Err(error) => return Err(error),
        }
    }
    drop(hog);
    sleeping_scenarios(setting, progress, outcomes, skipped)
}

/// Guests whose vCPU threads sleep, each for another reason.
fn sleeping_scenarios(
    setting: &Setting<'_>,
    progress: &mut dyn FnMut(&str),
    outcomes: &mut Vec<Outcome>,
    skipped: &mut Vec<Skipped>,
) -> Result<(), SelftestError> {
    let idle = match setting.mode() {
        GuestMode::Kvm => Reason::Halt,
        GuestMode::Tcg => Reason::HaltUser,
    };
    let sleeps: [(&str, Guest, Frontend, Reason); 3] = [
        ("idle guest", Guest::Idle, Frontend::VirtioBlk, idle),
        ("QMP storm", Guest::PortReader, Frontend::VirtioBlk, Reason::Bql),
        ("guest reading from IDE", READER, Frontend::Ide, Reason::Bql),
    ];
    for (name, guest, frontend, reason) in sleeps {
        setting.config.check()?;
        let name = setting.named(name);
        progress(&name);
        let mut injected = InjectedMachine::start(setting, guest, frontend)?;
        let slept = Slept::watch(setting, &mut injected, guest == Guest::PortReader)?;
        let scored = slept.score(setting, &injected, reason)?;
        outcomes.push(Outcome::new(name.clone(), scored));
        // The same record again, as of a QEMU whose code does not tell the lock: what is known once both wait
        // for it, and what its behaviour tells.
        let reasons: &[Reason] = match (guest, frontend) {
            (_, Frontend::Ide) => &[Reason::BqlInferred, Reason::BqlFoundByBehaviour],
            (Guest::PortReader, _) => &[Reason::BqlFoundByBehaviour],
            _ => &[],
        };
        injected.run.set_bql(None);
        for reason in reasons {
            let mut name = format!("{name}, big lock not found");
            if *reason == Reason::BqlFoundByBehaviour {
                injected.run.find_bql(&slept.recorded.observed)?;
                name.push_str(" but by behaviour");
                if let Some(why) = untold_by_behaviour(injected.run.found_bql()) {
                    skipped.push(Skipped { name, reason: why, reasons: vec![*reason] });
                    continue;
                }
            }
            outcomes.push(Outcome::new(name, slept.score(setting, &injected, *reason)?));
        }
    }
    Ok(())
}

/// Injects until there are cases enough, or [`WINDOWS_MAX`] windows are over.
fn repeated(
    reason: Reason,
    mut inject: impl FnMut() -> Result<Scored, SelftestError>,
) -> Result<Scored, SelftestError> {
    let mut all = inject()?;
    let Promise::Cases(cases_min) = promise(reason) else { return Ok(all) };
    for _ in 1..WINDOWS_MAX {
        if all.score.injected(reason) >= cases_min {
            break;
        }
        all.merge(inject()?);
    }
    Ok(all)
}

fn rival(setting: &Setting<'_>, injected: &mut InjectedMachine) -> Result<Scored, SelftestError> {
    let rival = rival::start(setting.config.vcpu_pcpu)?;
    let tid = rival.tid();
    let recorded = injected.watch(setting, || setting.wait())?;
    drop(rival);
    // The vCPU never sleeps: it was taken off so often.
    let made = made(Reason::Timeslice, recorded.runnable_count, recorded.runnable_count);
    injected.score(&recorded, made, &|it| truth::taken_by(it, tid, Reason::Timeslice).into())
}

fn waker(setting: &Setting<'_>, injected: &mut InjectedMachine) -> Result<Scored, SelftestError> {
    let config = WakerConfig::new(setting.config.vcpu_pcpu);
    let waker = waker::start(config)?;
    let recorded = injected.watch(setting, || setting.wait())?;
    let log = waker.log();
    let wakings = truth::Wakings {
        tid: log.tid,
        sleep_ns: u64::try_from(config.sleep.as_nanos()).unwrap_or(u64::MAX),
        slice_ns: setting.config.slice_ns(),
        episodes: log.episodes,
    };
    let tried_count = wakings.episodes.len() as u64;
    let made_count = tried_count.min(recorded.runnable_count);
    let made = made(Reason::PreemptWakeup, tried_count, made_count);
    injected.score(&recorded, made, &|it| wakings.woken_by(it).into())
}

fn realtime(
    setting: &Setting<'_>,
    injected: &mut InjectedMachine,
) -> Result<Scored, SelftestError> {
    let task = realtime::start(RealtimeConfig::new(setting.config.vcpu_pcpu))?;
    let recorded = injected.watch(setting, || setting.wait())?;
    let log = task.log();
    let tried_count = log.episodes.len() as u64;
    let made_count = tried_count.min(recorded.runnable_count);
    let made = made(Reason::PreemptRtOrStop, tried_count, made_count);
    injected
        .score(&recorded, made, &|it| truth::taken_by(it, log.tid, Reason::PreemptRtOrStop).into())
}

fn quota(setting: &Setting<'_>, injected: &mut InjectedMachine) -> Result<Scored, SelftestError> {
    let config = QuotaConfig::new(injected.machine.pid(), injected.machine.vcpu());
    let quota = CgroupQuota::start(&config)?;
    let recorded = injected.watch(setting, || setting.wait())?;
    let log = quota.stop()?;
    let periods_count = recorded.window.end.since_ns(recorded.window.start)
        / u64::try_from(config.period.as_nanos()).unwrap_or(u64::MAX);
    let throttled_count = log.after.throttled_count.saturating_sub(log.before.throttled_count);
    let made = made(Reason::Throttle, periods_count.max(throttled_count), throttled_count);
    injected.score(&recorded, made, &|it| truth::throttled(it, THROTTLED_MIN_NS).into())
}

fn stops(setting: &Setting<'_>, injected: &mut InjectedMachine) -> Result<Scored, SelftestError> {
    let stopper = Stopper::start(injected.machine.pid(), STOPPED, RUNNING)?;
    let recorded = injected.watch(setting, || setting.wait())?;
    let stops = stopper.stop()?;
    // Each was waited for until the kernel said that all threads had stopped.
    let count = stops.len() as u64;
    let made = made(Reason::Stopped, count, count);
    injected.score(&recorded, made, &|it| truth::stopped(it, &stops).into())
}

fn made(reason: Reason, tried_count: u64, made_count: u64) -> InjectionCount {
    InjectionCount { reason, tried_count, made_count }
}

/// A guest whose vCPU thread sleeps: which lock or condition it sleeps on is known from the witness, and
/// under KVM what is no call of `futex(2)` is a halt of an idle guest.
struct Slept {
    recorded: Recorded,
    testimony: Testimony,
    /// The big lock by what it is for: the one that the main loop and the vCPU both wait for. Where they
    /// did not both wait, it is not known: what vslice found in QEMU's code is what is judged.
    bql: Option<u64>,
}

impl Slept {
    fn watch(
        setting: &Setting<'_>,
        injected: &mut InjectedMachine,
        has_storm: bool,
    ) -> Result<Slept, SelftestError> {
        let storm = has_storm
            .then(|| {
                let socket = injected.machine.second_monitor();
                QmpStorm::start(&socket, setting.config.other_pcpu)
            })
            .transpose()?;
        let witness = Witness::start(&injected.run.tids())?;
        let recorded = injected.watch(setting, || setting.wait())?;
        let testimony = witness.finish()?;
        drop(storm);
        let (pid, vcpu) = (injected.machine.pid(), injected.machine.vcpu());
        let bql = testimony.most_shared_mutex(pid, vcpu);
        Ok(Slept { recorded, testimony, bql })
    }

    fn score(
        &self,
        setting: &Setting<'_>,
        injected: &InjectedMachine,
        reason: Reason,
    ) -> Result<Scored, SelftestError> {
        let (vcpu, mode) = (injected.machine.vcpu(), setting.mode());
        let calls = self.testimony.calls.iter().copied();
        let own: Vec<_> = calls.filter(|call| call.tid == vcpu).collect();
        let is_idle = reason == Reason::Halt;
        let shared = self.shared(injected);
        let truth = |it: &Departure| match truth::futex(it, &own, self.bql) {
            // Until both have waited for it, nobody can tell it from another lock.
            Cause::Injected(Reason::Bql) if reason == Reason::BqlInferred => {
                shared.of_wait(it.time)
            }
            Cause::Injected(Reason::Bql) if reason == Reason::BqlFoundByBehaviour => {
                Cause::Injected(reason)
            }
            Cause::NotInjected if is_idle => truth::idle(it, mode).into(),
            cause => cause,
        };
        let asleep_count = self.recorded.asleep_count;
        let slept = self.testimony.sleeps.iter().filter(|sleep| sleep.tid == vcpu).count() as u64;
        let made_count = if is_idle { asleep_count } else { slept };
        let made = made(reason, asleep_count.max(made_count), made_count);
        let scored = injected.score(&self.recorded, made, &truth)?;
        Ok(Scored { untold: self.untold(reason, shared, injected), ..scored })
    }

    /// Since when the record shows that main loop and vCPU wait for the same lock.
    fn shared(&self, injected: &InjectedMachine) -> Shared {
        let (main_loop, vcpu) = (injected.machine.pid(), injected.machine.vcpu());
        let Recorded { observed, window, .. } = &self.recorded;
        // The witness is there before the record begins, which knows nothing of what was then.
        let (maybe, surely) = (observed.begun(), window.start);
        let testimony = &self.testimony;
        Shared {
            maybe: self.bql.and_then(|bql| testimony.maybe_shared_from(maybe, bql, vcpu)),
            surely: self.bql.and_then(|bql| testimony.shared_from(surely, bql, main_loop, vcpu)),
        }
    }

    /// Why nothing is known of waits for the big lock, if that is what was to be known.
    fn untold(&self, reason: Reason, shared: Shared, injected: &InjectedMachine) -> Option<String> {
        let is_told = match reason {
            Reason::Bql => self.bql.is_some(),
            Reason::BqlInferred => shared.surely.is_some(),
            _ => true,
        };
        let sleeps = |tid| self.testimony.mutex_sleeps_count(tid);
        (!is_told).then(|| {
            format!(
                "according to the kernel's tracepoints, the main loop and the vCPU had no lock in \
                common: they slept {} and {} times on contended locks",
                sleeps(injected.machine.pid()),
                sleeps(injected.machine.vcpu())
            )
        })
    }
}

/// Why the behaviour of a QEMU does not tell its big lock, if it does not.
fn untold_by_behaviour(shown: Option<FoundLock>) -> Option<String> {
    match shown {
        Some(FoundLock::Found(_)) => None,
        Some(FoundLock::Ambiguous { mutexes_count }) => {
            Some(format!("main loop and vCPU woke each other from {mutexes_count} locks of QEMU"))
        }
        Some(FoundLock::TooFew { wakings_count }) => Some(format!(
            "main loop and vCPU woke each other from a lock of QEMU {wakings_count} times only"
        )),
        None => Some("it was not looked for".to_owned()),
    }
}
