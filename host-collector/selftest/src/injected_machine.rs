//! A machine into which causes are injected, and what is recorded of it meanwhile.

use super::SelftestError;
use super::observe::{Observed, UnknownStack, observe};
use super::process_run::ProcessRun;
use super::rows::InjectionCount;
use super::score::Score;
use super::setting::Setting;
use super::truth::{self, Cause};
use crate::rig::boot_sector::Guest;
use crate::rig::frontend::Frontend;
use crate::rig::inject::Episode;
use crate::rig::machine::{Machine, MachineConfig, Placement, START_LIMIT};
use std::collections::HashSet;
use vslice_core::units::Tid;
use vslice_host::host_clock::host_now;
use vslice_host::{procfs, steal};
use vslice_lab::plan::LabAccelerator;
use vslice_record::perf::{KvmDetail, RecordPlan};
use vslice_record::quota;

/// At the edges of a window, what was there before the injection may still go on.
const MARGIN_NS: u64 = 20_000_000;

/// A machine, and what is known of it beside the events.
pub(super) struct InjectedMachine {
    pub(super) machine: Machine,
    pub(super) run: ProcessRun,
}

/// What one window of a scenario came to.
#[derive(Debug)]
pub(super) struct Scored {
    pub(super) score: Score,
    pub(super) unknown_stacks: Vec<UnknownStack>,
    pub(super) made: Vec<InjectionCount>,
    pub(super) taken_share: f64,
    /// Why there is no truth, as a sentence without its end; `None` if there is one.
    pub(super) untold: Option<String>,
}

impl Scored {
    /// Adds another window of the same.
    pub(super) fn merge(&mut self, other: Scored) {
        self.score.merge(&other.score);
        self.unknown_stacks.extend(other.unknown_stacks);
        for made in other.made {
            match self.made.iter_mut().find(|own| own.reason == made.reason) {
                Some(own) => {
                    own.tried_count += made.tried_count;
                    own.made_count += made.made_count;
                }
                None => self.made.push(made),
            }
        }
        self.taken_share = self.taken_share.max(other.taken_share);
        self.untold = self.untold.take().or(other.untold);
    }
}

/// What was recorded while something was injected.
pub(super) struct Recorded {
    pub(super) observed: Observed,
    /// What the injection was busy for, less its edges.
    pub(super) window: Episode,
    /// How often the vCPU thread left its pCPU meanwhile by the kernel's own counts.
    pub(super) asleep_count: u64,
    pub(super) runnable_count: u64,
    /// The share of the vCPU's pCPU that neither the machine nor this process had.
    pub(super) taken_share: f64,
}

impl InjectedMachine {
    pub(super) fn start(
        setting: &Setting<'_>,
        guest: Guest,
        frontend: Frontend,
    ) -> Result<InjectedMachine, SelftestError> {
        let config = setting.config;
        let machine = Machine::start(&MachineConfig {
            qemu: setting.qemu.to_owned(),
            accelerator: setting.accelerator,
            guest,
            frontend,
            placement: Some(Placement { vcpu: config.vcpu_pcpu, others: config.other_pcpu }),
            start_limit: START_LIMIT,
        })?;
        let run = ProcessRun::of(machine.pid(), &config.host)?;
        Ok(InjectedMachine { machine, run })
    }

    /// Records while `during` goes on, with the quotas of the vCPU's control groups read before and
    /// after, as every run does.
    pub(super) fn watch(
        &mut self,
        setting: &Setting<'_>,
        during: impl FnOnce(),
    ) -> Result<Recorded, SelftestError> {
        let config = setting.config;
        let (pid, vcpu) = (self.machine.pid(), self.machine.vcpu());
        let plan = RecordPlan {
            vcpu_tids: vec![vcpu],
            vm_tids: self.run.tids(),
            pcpus: vec![config.vcpu_pcpu, config.other_pcpu],
            reader_pcpu: Some(config.other_pcpu),
            kvm: match setting.accelerator {
                LabAccelerator::Kvm => KvmDetail::DeviceAccess,
                LabAccelerator::Tcg => KvmDetail::None,
            },
            ..RecordPlan::default()
        };
        quota::note_start(self.run.vms_mut());
        let stolen_before = steal::stolen_ns();
        let counts_before = procfs::switch_counts(pid, vcpu).unwrap_or_default();
        let busy = || -> Result<_, SelftestError> {
            let start = host_now();
            during();
            // Whoever injects is still there.
            Ok((Episode { start, end: host_now() }, own_tids(&[pid])))
        };
        let (observed, (episode, mut own)) = observe(&plan, busy)?;
        let counts = procfs::switch_counts(pid, vcpu).unwrap_or_default();
        quota::note_end(self.run.vms_mut());
        own.extend(self.run.tids());
        let stolen_ns = steal::stolen_ns().zip(stolen_before);
        let stolen_ns = stolen_ns.map_or(0, |(after, before)| after.saturating_sub(before));
        let taken_ns = observed.taken_ns(config.vcpu_pcpu, &own, episode) + stolen_ns;
        let length_ns = episode.end.since_ns(episode.start).max(1);
        Ok(Recorded {
            observed,
            window: truth::settled(episode, MARGIN_NS),
            asleep_count: counts.voluntary.saturating_sub(counts_before.voluntary),
            runnable_count: counts.involuntary.saturating_sub(counts_before.involuntary),
            taken_share: (taken_ns as f64 / length_ns as f64).min(1.0),
        })
    }

    pub(super) fn score(
        &self,
        recorded: &Recorded,
        made: InjectionCount,
        truth: truth::Truth<'_>,
    ) -> Result<Scored, SelftestError> {
        let Recorded { observed, window, .. } = recorded;
        let timeline = self.run.timeline(observed.stacks())?;
        let departures = observed.departures(self.machine.vcpu(), timeline);
        // What was not made is not scored, whatever it looks like.
        let truth = |it: &_| if made.made_count > 0 { truth(it) } else { Cause::NotInjected };
        let mut score = truth::score(&departures, *window, self.run.bql(), &truth);
        let lost_ns = observed.lost_ns(window.start, window.end);
        score.off_ns += lost_ns;
        score.unknown_ns += lost_ns;
        Ok(Scored {
            score,
            unknown_stacks: observed.unknown_stacks(&departures),
            made: vec![made],
            taken_share: recorded.taken_share,
            untold: None,
        })
    }
}

/// The threads of these processes and of this one.
pub(super) fn own_tids(pids: &[Tid]) -> HashSet<Tid> {
    let own = Tid(std::process::id());
    let tids = pids.iter().chain([&own]).flat_map(|pid| procfs::tids(*pid).unwrap_or_default());
    tids.collect()
}
