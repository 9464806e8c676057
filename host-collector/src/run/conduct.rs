//! Conducts a run: every step in its order, and everything undone whichever way it ends.

use super::error::RunError;
use super::evidence::EvidencePlan;
use super::options::RunOptions;
use super::seat::{SeatPlan, session_plan};
use super::seats::seated;
use super::stage::{Run, Stage};
use super::watch::Watcher;
use super::{close, leftovers, new_directory, reserve};
use crate::guest::connection::GuestListener;
use crate::lab::accelerator::{self, AcceleratorChoice};
use crate::lab::image::MicroImage;
use crate::lab::launch::{Lab, LabConfig};
use crate::lab::plan::{Accelerator, AcceleratorSetting, Plan, VmPlan, VsockSetting};
use crate::lab::tools;
use crate::lab::vsock::{GuestEndpoint, VsockChoice, VsockOffer, VsockWay};
use std::path::PathBuf;
use std::time::Duration;
use vslice_core::units::Tid;
use vslice_host::collector_affinity::CollectorAffinity;
use vslice_host::host;
use vslice_host::io_scheduler::HeldIoScheduler;
use vslice_host::scratch;
use vslice_trace::RunDir;
use vslice_trace::host::FrequencyRecord;
use vslice_trace::manifest::{Cost, Manifest, NO_EXITS_UNDER_TCG, SCHEMA, Status};

/// How long guests may take to power off before QEMU is ended.
const POWER_OFF_GRACE: Duration = Duration::from_secs(3);
/// A run that this host can make, and the directory that is now its own.
#[derive(Debug)]
pub struct Prepared<'a> {
    plan: &'a Plan,
    options: RunOptions<'a>,
    image: MicroImage,
    qemu: PathBuf,
    vsock: VsockChoice,
    scratch: PathBuf,
    choice: AcceleratorChoice,
    evidence: EvidencePlan,
    /// The host's disk has what the plan asks for as long as this is there.
    io_scheduler: Option<HeldIoScheduler>,
    dir: RunDir,
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
    plan.check_host(&vslice_host::host::online_pcpus()?)?;
    let evidence = EvidencePlan::of_host(options.evidence)?;
    let image =
        MicroImage::in_directory(options.image).map_err(|source| RunError::Image { source })?;
    let qemu = tools::find(tools::QEMU).ok_or(RunError::NoQemu)?;
    let vsock = VsockOffer::of_host().choose(plan.vsock)?;
    let scratch = scratch::parent_dir();
    scratch::sweep_stale(&scratch);
    leftovers::undo(watcher);
    watcher.stage("asking whether KVM runs a stock kernel here");
    let choice = accelerator::choose(plan.accelerator, &qemu, &image, &scratch)?;
    watcher.stage(&format!("guests run under {}: {}", name_of(choice.accelerator), choice.reason));
    if plan.exits && choice.accelerator == Accelerator::Tcg {
        watcher.stage(NO_EXITS_UNDER_TCG);
    }
    if options.take_interrupt() {
        return Err(RunError::Interrupted);
    }
    let wanted = plan.host_io_scheduler();
    let held = wanted.map(|wanted| HeldIoScheduler::set(&scratch, &scratch, wanted));
    let io_scheduler = held.transpose().map_err(|source| RunError::IoScheduler { source })?;
    let dir = new_directory(options.output)?;
    Ok(Prepared { plan, options, image, qemu, vsock, scratch, choice, evidence, io_scheduler, dir })
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
            way: &self.vsock.way,
            logs: self.dir.path(),
            scratch: &self.scratch,
            interrupted: self.options.interrupted,
        };
        let mut manifest = self.manifest();
        let run = Run {
            plan: self.plan,
            options: &self.options,
            config: &config,
            evidence: &self.evidence,
            dir: &self.dir,
        };
        let result = run.make(&mut manifest, watcher);
        close(&self.dir, &mut manifest, result)
    }

    /// The plan with what was found where it says `auto`. The device process of vhost-user is of vslice's own
    /// runs only, so a plan that goes its way keeps what it said.
    #[must_use]
    pub fn settled_plan(&self) -> Plan {
        let mut plan = self.plan.clone();
        plan.accelerator = match self.choice.accelerator {
            Accelerator::Kvm => AcceleratorSetting::Kvm,
            Accelerator::Tcg => AcceleratorSetting::Tcg,
        };
        plan.vsock = match self.vsock.way {
            VsockWay::Vhost => VsockSetting::Vhost,
            VsockWay::VirtioSerial => VsockSetting::VirtioSerial,
            VsockWay::VhostUser { .. } => plan.vsock,
        };
        plan
    }

    fn manifest(&self) -> Manifest {
        let mut facts =
            host::facts(&self.qemu, vslice_host::host_disks::under_directory(&self.scratch));
        if let (Some(disk), Some(held)) = (facts.host_disks.disks.first_mut(), &self.io_scheduler) {
            disk.scheduler_asked = self.plan.host_io_scheduler().map(str::to_owned);
            disk.scheduler_before = held.previous().map(str::to_owned);
        }
        Manifest {
            schema: SCHEMA.to_owned(),
            status: Status::Recording,
            plan: serde_json::to_value(self.plan).unwrap_or_default(),
            plan_name: self.plan.name.clone(),
            accelerator: name_of(self.choice.accelerator).to_lowercase(),
            accelerator_reason: self.choice.reason.clone(),
            vsock_way: self.vsock.reason.clone(),
            environment_lines: facts.lines(),
            environment: serde_json::to_value(facts).unwrap_or_default(),
            collector_pid: Tid(std::process::id()),
            image: self.image.manifest.clone(),
            window: None,
            vms: Vec::new(),
            pcpus: self.plan.pcpus().into_iter().collect(),
            evidence: self.evidence.planned(),
            sampling: None,
            cost: Cost::default(),
            host_tsc: Vec::new(),
            stolen_ns: None,
            frequency: FrequencyRecord::default(),
        }
    }
}

fn name_of(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "KVM",
        Accelerator::Tcg => "TCG",
    }
}

/// What is said while guests boot.
fn booting(guests_count: usize, accelerator: Accelerator) -> String {
    let plural = if guests_count == 1 { "" } else { "s" };
    let time = if accelerator == Accelerator::Tcg { "15 s" } else { "3 s" };
    format!("booting {guests_count} guest{plural}, which takes {time} or so")
}

impl Run<'_> {
    fn make(&self, manifest: &mut Manifest, watcher: &mut dyn Watcher) -> Result<(), RunError> {
        self.dir.write_json("run.json", manifest)?;
        reserve::take(self.dir)?;
        watcher.stage("writing the guests' disks");
        let lab = Lab::prepare(self.config);
        if self.options.take_interrupt() {
            return Err(RunError::Interrupted);
        }
        let mut lab = lab?;
        let seats = self.listeners(&lab)?;
        watcher.stage(&booting(lab.guests().len(), self.config.accelerator));
        lab.start()?;
        // The sessions' threads inherit it; QEMU's are there already, and boot on all pCPUs.
        let home = CollectorAffinity::move_to(self.plan.collector_pcpu);
        let interrupted = self.options.interrupted;
        let parted = seated(self.dir, seats, interrupted, manifest, |seats, manifest| {
            Stage { run: self, lab: &mut lab, seats }.play(manifest, watcher)
        })?;
        drop(home);
        watcher.stage("ending the guests");
        // Who was never ready has not been told to power off.
        lab.stop(if parted.all_were_told { POWER_OFF_GRACE } else { Duration::ZERO });
        parted.result
    }

    /// Binds what the guests connect to, before they start.
    fn listeners(&self, lab: &Lab) -> Result<Vec<SeatPlan>, RunError> {
        let seats = self.plan.vms.iter().zip(lab.guests());
        seats.map(|(vm, guest)| self.seat_plan(vm, guest.endpoint())).collect()
    }

    fn seat_plan(&self, vm: &VmPlan, endpoint: &GuestEndpoint) -> Result<SeatPlan, RunError> {
        let (listener, path) = match endpoint {
            GuestEndpoint::UnixListener { path } => {
                (GuestListener::hybrid_unix(path), path.clone())
            }
            GuestEndpoint::Vsock { cid, port } => {
                (GuestListener::vsock(*port, *cid), format!("vsock port {port}").into())
            }
            GuestEndpoint::VirtioSerial { path } => {
                (Ok(GuestListener::VirtioSerial(path.clone())), path.clone())
            }
        };
        let vm_name = || vm.name.clone();
        let listener =
            listener.map_err(|source| RunError::Listen { vm: vm_name(), path, source })?;
        let spec = self.plan.workload_spec(vm, self.config.accelerator);
        Ok(SeatPlan {
            vm: vm_name(),
            listener,
            session: session_plan(vm, &spec),
            boot_timeout: Duration::from_millis(self.plan.boot_timeout_ms),
            has_reader: vm.reader.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_guest_is_no_guests() {
        assert_eq!(booting(1, Accelerator::Tcg), "booting 1 guest, which takes 15 s or so");
        assert_eq!(booting(2, Accelerator::Kvm), "booting 2 guests, which takes 3 s or so");
    }
}
