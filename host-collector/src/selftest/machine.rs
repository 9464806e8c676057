//! Causes that are injected into real QEMUs with boot-sector guests.

use super::observe::{Departure, Observed, UnknownStack, observe};
use super::score::Score;
use super::truth;
use super::witness::{Testimony, Witness};
use super::{Outcome, SelftestConfig, SelftestError, Skipped};
use crate::host_clock::host_now;
use crate::lab::plan::Accelerator;
use crate::perf::{KvmDetail, RecordPlan};
use crate::rig::boot_sector::Guest;
use crate::rig::frontend::Frontend;
use crate::rig::inject::quota::{CgroupQuota, QuotaConfig};
use crate::rig::inject::realtime::{self, RealtimeConfig};
use crate::rig::inject::rival;
use crate::rig::inject::stopper::Stopper;
use crate::rig::inject::storm::QmpStorm;
use crate::rig::inject::waker::{self, WakerConfig};
use crate::rig::inject::{Episode, InjectError};
use crate::rig::machine::{Machine, MachineConfig, Placement, READER, START_LIMIT};
use crate::timeline::{GuestMode, LockFacts, LockUser, Reason, Vmm, Watched};
use crate::units::{HostNs, Tid};
use crate::vmm::bql;
use crate::vmm::threads::ThreadRole;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How long QEMU is stopped each time, and how long it runs in between.
const STOPPED: Duration = Duration::from_millis(5);
const RUNNING: Duration = Duration::from_millis(8);

/// Whatever is shorter is no quota's work: of 50 ms a thread may run for 20, see [`QuotaConfig`].
const THROTTLED_MIN_NS: u64 = 5_000_000;

/// At the edges of a window, what was there before the injection may still go on.
const MARGIN_NS: u64 = 20_000_000;

/// One accelerator of a self-test.
#[derive(Debug)]
pub struct Stage<'a> {
    /// What the self-test knows.
    pub config: &'a SelftestConfig,
    /// QEMU.
    pub qemu: &'a Path,
    /// What runs the guests.
    pub accelerator: Accelerator,
}

/// A machine, and what is known of it for the timelines.
pub(super) struct Subject {
    pub(super) machine: Machine,
    pub(super) watched: Vec<Watched>,
    pub(super) facts: LockFacts,
}

impl Subject {
    /// Whether the quota of the vCPU thread's group was used up.
    fn throttle(&mut self, was_used_up: bool) {
        for watched in self.watched.iter_mut().filter(|it| it.user == LockUser::Vcpu) {
            watched.is_throttled = was_used_up;
        }
    }
}

/// Everything that can be injected into guests under one accelerator.
///
/// # Errors
/// [`SelftestError`]; what cannot be had here is `skipped` instead.
pub fn machine_scenarios(
    stage: &mut Stage<'_>,
    progress: &mut dyn FnMut(&str),
    outcomes: &mut Vec<Outcome>,
    skipped: &mut Vec<Skipped>,
) -> Result<(), SelftestError> {
    let mut hog = stage.start(Guest::Hog, Frontend::VirtioBlk)?;
    for injection in [rival, waker, realtime, quota, stops] {
        stage.config.check()?;
        let (name, result) = injection(stage, &mut hog);
        let name = stage.named(name);
        progress(&name);
        match result {
            Ok((score, unknown_stacks)) => outcomes.push(Outcome { name, score, unknown_stacks }),
            Err(SelftestError::Inject(
                error @ (InjectError::NoCgroup(_) | InjectError::Scheduling { .. }),
            )) => skipped.push(Skipped { name, reason: error.to_string() }),
            Err(error) => return Err(error),
        }
    }
    drop(hog);
    let sleeps: [(&str, Guest, Frontend, bool); 3] = [
        ("idle guest", Guest::Idle, Frontend::VirtioBlk, false),
        ("QMP storm", Guest::PortReader, Frontend::VirtioBlk, true),
        ("guest that reads from IDE", READER, Frontend::Ide, false),
    ];
    for (name, guest, frontend, has_storm) in sleeps {
        stage.config.check()?;
        let name = stage.named(name);
        progress(&name);
        let mut subject = stage.start(guest, frontend)?;
        let (score, unknown_stacks) = asleep(stage, &mut subject, guest == Guest::Idle, has_storm)?;
        outcomes.push(Outcome { name, score, unknown_stacks });
    }
    Ok(())
}

type Scored = (Score, Vec<UnknownStack>);
type Injected = (&'static str, Result<Scored, SelftestError>);

fn rival(stage: &Stage<'_>, subject: &mut Subject) -> Injected {
    let inject = || {
        let rival = rival::start(stage.config.vcpu_pcpu)?;
        let tid = rival.tid();
        let (observed, window) = stage.watch(subject, || stage.wait())?;
        drop(rival);
        let truth = |it: &Departure| truth::taken_by(it, tid, Reason::Timeslice);
        Ok(stage.score(subject, &observed, window, &truth))
    };
    ("rival hog", inject())
}

fn waker(stage: &Stage<'_>, subject: &mut Subject) -> Injected {
    let inject = || {
        let config = WakerConfig::new(stage.config.vcpu_pcpu);
        let waker = waker::start(config)?;
        let (observed, window) = stage.watch(subject, || stage.wait())?;
        let log = waker.log();
        let sleep_ns = u64::try_from(config.sleep.as_nanos()).unwrap_or(u64::MAX);
        let truth = |it: &Departure| truth::woken_by(it, log.tid, &log.episodes, sleep_ns);
        Ok(stage.score(subject, &observed, window, &truth))
    };
    ("task that wakes often", inject())
}

fn realtime(stage: &Stage<'_>, subject: &mut Subject) -> Injected {
    let inject = || {
        let task = realtime::start(RealtimeConfig::new(stage.config.vcpu_pcpu))?;
        let tid = task.tid();
        let (observed, window) = stage.watch(subject, || stage.wait())?;
        drop(task);
        let truth = |it: &Departure| truth::taken_by(it, tid, Reason::PreemptRtOrStop);
        Ok(stage.score(subject, &observed, window, &truth))
    };
    ("real-time task", inject())
}

fn quota(stage: &Stage<'_>, subject: &mut Subject) -> Injected {
    let mut inject = || {
        let config = QuotaConfig::new(subject.machine.pid(), subject.machine.vcpu());
        let quota = CgroupQuota::start(&config)?;
        let (observed, window) = stage.watch(subject, || stage.wait())?;
        let log = quota.stop()?;
        let was_used_up = log.after.throttled_count > log.before.throttled_count;
        subject.throttle(was_used_up);
        let truth = |it: &Departure| truth::throttled(it, THROTTLED_MIN_NS);
        let score = stage.score(subject, &observed, window, &truth);
        subject.throttle(false);
        Ok(score)
    };
    ("control group with a quota", inject())
}

fn stops(stage: &Stage<'_>, subject: &mut Subject) -> Injected {
    let inject = || {
        let stopper = Stopper::start(subject.machine.pid(), STOPPED, RUNNING)?;
        let (observed, window) = stage.watch(subject, || stage.wait())?;
        let stops = stopper.stop()?;
        let truth = |it: &Departure| truth::stopped(it, &stops);
        Ok(stage.score(subject, &observed, window, &truth))
    };
    ("SIGSTOP", inject())
}

/// A guest whose vCPU thread sleeps: which lock or condition it sleeps on is told by the witness,
/// and under KVM what is no call of `futex(2)` is a halt of an idle guest.
fn asleep(
    stage: &Stage<'_>,
    subject: &mut Subject,
    is_idle: bool,
    has_storm: bool,
) -> Result<Scored, SelftestError> {
    let tids: Vec<Tid> = subject.watched.iter().map(|watched| watched.tid).collect();
    let storm = has_storm
        .then(|| {
            let socket = subject.machine.second_monitor();
            QmpStorm::start(&socket, stage.config.other_pcpu)
        })
        .transpose()?;
    let witness = Witness::start(&tids)?;
    let (observed, window) = stage.watch(subject, || stage.wait())?;
    let testimony = witness.finish()?;
    drop(storm);
    let vcpu = subject.machine.vcpu();
    let own: Vec<_> = testimony.calls.iter().copied().filter(|call| call.tid == vcpu).collect();
    let bql = big_lock(subject, &testimony);
    let mode = stage.mode();
    let truth = |it: &Departure| {
        let idle = || if is_idle { truth::idle(it, mode) } else { None };
        truth::futex(it, &own, bql).or_else(idle)
    };
    Ok(stage.score(subject, &observed, window, &truth))
}

/// The big lock by what it is for: the one that the main loop and the vCPU both wait for. Where they
/// did not both wait, the one that was found in QEMU's code must do.
fn big_lock(subject: &Subject, testimony: &Testimony) -> Option<u64> {
    testimony.most_shared_mutex(subject.machine.pid(), subject.machine.vcpu()).or(subject.facts.bql)
}

impl Stage<'_> {
    fn mode(&self) -> GuestMode {
        match self.accelerator {
            Accelerator::Kvm => GuestMode::Kvm,
            Accelerator::Tcg => GuestMode::Tcg,
        }
    }

    pub(super) fn named(&self, name: &str) -> String {
        match self.accelerator {
            Accelerator::Kvm => format!("{name}, KVM"),
            Accelerator::Tcg => format!("{name}, TCG"),
        }
    }

    pub(super) fn start(&self, guest: Guest, frontend: Frontend) -> Result<Subject, SelftestError> {
        let config = self.config;
        let machine = Machine::start(&MachineConfig {
            qemu: self.qemu.to_owned(),
            accelerator: self.accelerator,
            guest,
            frontend,
            placement: Some(Placement { vcpu: config.vcpu_pcpu, others: config.other_pcpu }),
            start_limit: START_LIMIT,
        })?;
        let user = |role: &ThreadRole| match role {
            ThreadRole::Vcpu(_) => LockUser::Vcpu,
            ThreadRole::MainLoop => LockUser::MainLoop,
            _ => LockUser::Other,
        };
        let threads = machine.threads()?;
        let watched = threads.iter().map(|thread| Watched {
            tid: thread.tid,
            vm: 0,
            user: user(&thread.role),
            is_throttled: false,
        });
        let facts = LockFacts {
            vmm: Vmm::Qemu,
            mode: Some(self.mode()),
            bql: bql::locate(machine.pid()).ok().map(|bql| bql.address),
            exe_data: bql::exe_data(machine.pid()).ok().map(|data| (data.start, data.end)),
        };
        let watched = watched.collect();
        Ok(Subject { machine, watched, facts })
    }

    /// Records while `during` goes on; the window is what it was busy for, less its edges.
    pub(super) fn watch(
        &self,
        subject: &Subject,
        during: impl FnOnce(),
    ) -> Result<(Observed, Episode), SelftestError> {
        let plan = RecordPlan {
            vcpu_tids: vec![subject.machine.vcpu()],
            vm_tids: subject.watched.iter().map(|watched| watched.tid).collect(),
            pcpus: vec![self.config.vcpu_pcpu, self.config.other_pcpu],
            reader_pcpu: Some(self.config.other_pcpu),
            kvm: match self.accelerator {
                Accelerator::Kvm => KvmDetail::DeviceAccess,
                Accelerator::Tcg => KvmDetail::None,
            },
            ..RecordPlan::default()
        };
        let busy = || -> Result<(HostNs, HostNs), SelftestError> {
            let start = host_now();
            during();
            Ok((start, host_now()))
        };
        let (observed, (start, end)) = observe(&plan, busy)?;
        Ok((observed, truth::settled(Episode { start, end }, MARGIN_NS)))
    }

    pub(super) fn wait(&self) {
        thread::sleep(self.config.window);
    }

    fn score(
        &self,
        subject: &Subject,
        observed: &Observed,
        window: Episode,
        truth: truth::Truth<'_>,
    ) -> Scored {
        let (vcpu, slice_ns) = (subject.machine.vcpu(), self.config.slice_ns);
        let departures = observed.departures(vcpu, &subject.watched, subject.facts, slice_ns);
        let mut score = truth::score(&departures, window, subject.facts.bql, truth);
        let lost_ns = observed.lost_ns(window.start, window.end);
        score.off_ns += lost_ns;
        score.unknown_ns += lost_ns;
        (score, observed.unknown_stacks(&departures))
    }
}
