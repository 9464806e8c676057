//! One run of a plan: guests up, recording on, workload through, everything down again.

use crate::accelerator::{self, AcceleratorChoice, AcceleratorError};
use crate::image::{ImageError, MicroImage};
use crate::launch::LabConfig;
use crate::plan::{AcceleratorSetting, LabAccelerator, Plan, PlanError, VsockSetting};
use crate::tools;
use crate::vsock::{TransportKind, VsockChoice, VsockError, VsockOffer};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use vslice_host::host::{self, HostPcpusError};
use vslice_host::io_scheduler::{HeldIoScheduler, IoSchedulerError};
use vslice_host::{host_disks, scratch};
use vslice_record::interrupt::take_interrupt;
use vslice_record::watcher::Watcher;
use vslice_record::{
    EndedEarly, EvidencePlan, EvidenceSetting, Recording, RecordingError, RecordingFacts,
    RecordingOptions, UntilOver, leftovers,
};
use vslice_trace::manifest::NO_EXITS_UNDER_TCG;

mod launched;

use launched::LaunchedVms;

/// Where a run reads and writes, and how it is interrupted.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions<'a> {
    /// The run directory, made by the run.
    pub output: &'a Path,
    /// The guest image's directory.
    pub image: &'a Path,
    /// How well the guests' threads must be seen.
    pub evidence: EvidenceSetting,
    /// Set from outside when the run shall end.
    pub interrupted: &'a AtomicBool,
}

/// Why a plan cannot be run, as a sentence for the person who wants it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message or its source's")]
pub enum RunError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    HostPcpus(#[from] HostPcpusError),
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    #[error(transparent)]
    Vsock(#[from] VsockError),
    #[error(
        "{source}; to leave the host's disk as it is, use `--host-io-scheduler keep`, or remove \
        host_io_scheduler from the plan"
    )]
    IoScheduler { source: IoSchedulerError },
    #[error("{source}; in a checkout of vslice, run `make image`")]
    Image { source: ImageError },
    #[error(
        "qemu-system-x86_64 is not on the PATH: `apt-get install qemu-system-x86`, or see `vslice \
        doctor`"
    )]
    NoQemu,
    #[error(transparent)]
    Recording(#[from] RecordingError),
    #[error(transparent)]
    EndedEarly(#[from] EndedEarly),
}

impl RunError {
    /// Whether it was interrupted, rather than that anything failed.
    #[must_use]
    pub fn is_interrupt(&self) -> bool {
        match self {
            RunError::Recording(error) => matches!(error, RecordingError::Interrupted),
            RunError::EndedEarly(ended) => matches!(*ended.error, RecordingError::Interrupted),
            _ => false,
        }
    }
}

/// A run that this host can make, and the directory that is now its own.
#[derive(Debug)]
pub struct Prepared<'a> {
    plan: &'a Plan,
    interrupted: &'a AtomicBool,
    image: MicroImage,
    qemu: PathBuf,
    vsock: VsockChoice,
    scratch: PathBuf,
    choice: AcceleratorChoice,
    /// The host's disk has what the plan asks for as long as this is there.
    io_scheduler: Option<HeldIoScheduler>,
    recording: Recording<'a>,
    output: &'a Path,
}

/// Finds out whether `plan` can be run here, and how; makes the run directory last.
///
/// # Errors
/// Why it cannot be run. Nothing was made then, and nothing is there to report on.
pub fn prepare<'a>(
    plan: &'a Plan,
    options: RunOptions<'a>,
    watcher: &mut dyn Watcher,
) -> Result<Prepared<'a>, RunError> {
    plan.check_host(&host::online_pcpus()?)?;
    let evidence = EvidencePlan::of_host(options.evidence)?;
    let image =
        MicroImage::in_directory(options.image).map_err(|source| RunError::Image { source })?;
    let qemu = tools::find(tools::QEMU).ok_or(RunError::NoQemu)?;
    let vsock = VsockOffer::of_host().choose(plan.vsock)?;
    let scratch = scratch::parent_dir();
    scratch::sweep_stale(&scratch);
    leftovers::undo(watcher);
    watcher.stage("testing whether KVM runs a stock kernel here");
    let choice = accelerator::choose(plan.accelerator, &qemu, &image, &scratch)?;
    watcher.stage(&format!("guests run under {}: {}", choice.accelerator.title(), choice.reason));
    if plan.exits && choice.accelerator == LabAccelerator::Tcg {
        watcher.stage(NO_EXITS_UNDER_TCG);
    }
    if take_interrupt(options.interrupted) {
        return Err(RecordingError::Interrupted.into());
    }
    let wanted = plan.host_io_scheduler();
    let held = wanted.map(|wanted| HeldIoScheduler::set(&scratch, &scratch, wanted));
    let io_scheduler = held.transpose().map_err(|source| RunError::IoScheduler { source })?;
    let interrupted = options.interrupted;
    let recording =
        Recording::prepare(recording_options(plan, evidence, interrupted), options.output)?;
    Ok(Prepared {
        plan,
        interrupted,
        image,
        qemu,
        vsock,
        scratch,
        choice,
        io_scheduler,
        recording,
        output: options.output,
    })
}

fn recording_options<'a>(
    plan: &Plan,
    evidence: EvidencePlan,
    interrupted: &'a AtomicBool,
) -> RecordingOptions<'a> {
    RecordingOptions {
        evidence,
        exits: plan.exits,
        pcpus: plan.pcpus().into_iter().collect(),
        collector_pcpu: Some(plan.collector_pcpu),
        pins: Some(plan.vms.iter().map(|vm| plan.pins(vm)).collect()),
        asks_monitors: true,
        live: None,
        until: UntilOver {
            duration: None,
            is_interrupt_the_end: false,
            announcement: "running the workloads".to_owned(),
        },
        interrupted,
    }
}

impl Prepared<'_> {
    /// Makes the run.
    ///
    /// # Errors
    /// Why it ended early. What was recorded until then is in the run directory, which says so and
    /// can be reported on; guests, sockets, affinities and tracing are as before.
    pub fn conduct(&self, watcher: &mut dyn Watcher) -> Result<(), RunError> {
        let config = LabConfig {
            plan: self.plan,
            image: &self.image,
            qemu: &self.qemu,
            accelerator: self.choice.accelerator,
            kind: &self.vsock.kind,
            logs: self.output,
            scratch: &self.scratch,
            interrupted: self.interrupted,
        };
        let mut vms = LaunchedVms::new(config);
        Ok(self.recording.record(self.facts(), &mut vms, watcher)?)
    }

    /// The plan with what was found where it says `auto`. The device process of vhost-user is of vslice's own
    /// runs only, so a plan that goes its way keeps what it said.
    #[must_use]
    pub fn settled_plan(&self) -> Plan {
        let mut plan = self.plan.clone();
        plan.accelerator = match self.choice.accelerator {
            LabAccelerator::Kvm => AcceleratorSetting::Kvm,
            LabAccelerator::Tcg => AcceleratorSetting::Tcg,
        };
        plan.vsock = match self.vsock.kind {
            TransportKind::Vhost => VsockSetting::Vhost,
            TransportKind::VirtioSerial => VsockSetting::VirtioSerial,
            TransportKind::VhostUser { .. } => plan.vsock,
        };
        plan
    }

    fn facts(&self) -> RecordingFacts {
        let mut environment = host::facts(&self.qemu, host_disks::under_directory(&self.scratch));
        let disk = environment.host_disks.disks.first_mut();
        if let (Some(disk), Some(held)) = (disk, &self.io_scheduler) {
            disk.scheduler_asked = self.plan.host_io_scheduler().map(str::to_owned);
            disk.scheduler_before = held.previous().map(str::to_owned);
        }
        RecordingFacts {
            plan: serde_json::to_value(self.plan).unwrap_or_default(),
            plan_name: self.plan.name.clone(),
            accelerator_chosen: Some(self.choice.accelerator.into()),
            accelerator_reason: self.choice.reason.clone(),
            vsock_way: self.vsock.reason.clone(),
            environment_lines: environment.lines(),
            environment,
            image: self.image.manifest.clone(),
        }
    }
}
