//! The VMs of a plan, launched for one recording.

use crate::launch::{Guest, Lab, LabConfig};
use crate::plan::VmPlan;
use crate::process;
use crate::vsock::GuestEndpoint;
use std::path::PathBuf;
use std::time::Duration;
use vslice_core::units::VcpuId;
use vslice_host::vm::{self, Vm};
use vslice_record::RecordingError;
use vslice_record::guest::connection::GuestListener;
use vslice_record::guests::{GuestPlan, Guests, RecordedVm, StartedAgents};
use vslice_record::interrupt::take_interrupt;
use vslice_record::watcher::Watcher;
use vslice_spec::WorkloadSpec;
use vslice_trace::VmName;

/// How long guests may take to power off before QEMU is ended.
const POWER_OFF_GRACE: Duration = Duration::from_secs(3);

/// The VMs, which end when this is dropped.
#[derive(Debug)]
pub(super) struct LaunchedVms<'a> {
    config: LabConfig<'a>,
    lab: Option<Lab>,
}

/// A thread for each vCPU is what everything rests on.
#[derive(Debug, thiserror::Error)]
#[error(
    "{vm}: QEMU has no thread for {missing}; vslice needs `-name ...,debug-threads=on` and one thread \
    per vCPU"
)]
struct NoVcpuThread {
    vm: String,
    missing: VcpuId,
}

/// The process of a VM has ended, or is no VM.
#[derive(Debug, thiserror::Error)]
#[error("{vm}: its QEMU is not visible in /proc")]
struct NotSeen {
    vm: String,
}

/// A guest from which nothing came; how far it got is said at once, as the run directory may not last.
#[derive(Debug, thiserror::Error)]
#[error("{error}; the last line there: {console}")]
struct SilentGuest {
    error: RecordingError,
    console: String,
}

impl<'a> LaunchedVms<'a> {
    /// The VMs of a plan, which do not run yet.
    pub(super) fn new(config: LabConfig<'a>) -> LaunchedVms<'a> {
        LaunchedVms { config, lab: None }
    }

    fn workload(&self, vm: &VmPlan) -> WorkloadSpec {
        self.config.plan.workload_spec(vm, self.config.accelerator)
    }

    fn guest_plan(
        &self,
        vm: &VmPlan,
        endpoint: &GuestEndpoint,
    ) -> Result<GuestPlan, RecordingError> {
        let (listener, path) = match endpoint {
            GuestEndpoint::UnixListener { path } => {
                (GuestListener::hybrid_unix(path), path.clone())
            }
            GuestEndpoint::Vsock { cid, port } => {
                let path = PathBuf::from(format!("vsock port {port}"));
                (GuestListener::vsock(*port, *cid), path)
            }
            GuestEndpoint::VirtioSerial { path } => {
                (Ok(GuestListener::VirtioSerial(path.clone())), path.clone())
            }
        };
        let listener = listener.map_err(|source| RecordingError::Listen {
            vm: vm.name.clone(),
            path,
            source,
        })?;
        Ok(GuestPlan {
            vm: VmName::try_from(vm.name.as_str())?,
            listener,
            workload: self.workload(vm),
            connect_timeout: Duration::from_millis(self.config.plan.boot_timeout_ms),
        })
    }

    /// The last line of the console of the guest that said nothing, if that is what is wrong.
    fn console_of_silent(&self, error: &RecordingError) -> Option<String> {
        let vm = error.silent_vm()?;
        let guest = self.lab.iter().flat_map(Lab::guests).find(|guest| guest.name() == vm)?;
        Some(process::last_line(guest.console()).unwrap_or_else(|| "it is empty".to_owned()))
    }

    fn recorded_vm(&self, vm: &VmPlan, guest: &Guest) -> Result<RecordedVm, RecordingError> {
        let not_seen = || failed(NotSeen { vm: vm.name.clone() });
        let pid = guest.qemu_pid().ok_or_else(not_seen)?;
        let seen = vm::look_at(pid, None).ok_or_else(not_seen)?;
        let has = |vcpu| seen.vcpus().any(|thread| thread.vcpu == Some(vcpu));
        if let Some(missing) = (0..vm.vcpus).map(VcpuId).find(|vcpu| !has(*vcpu)) {
            return Err(failed(NoVcpuThread { vm: vm.name.clone(), missing }));
        }
        Ok(RecordedVm {
            name: VmName::try_from(vm.name.as_str())?,
            vm: Vm { device_pid: guest.device_pid(), ..seen },
            workload: Some(self.workload(vm)),
        })
    }
}

impl Guests for LaunchedVms<'_> {
    fn open(&mut self, watcher: &mut dyn Watcher) -> Result<Vec<GuestPlan>, RecordingError> {
        watcher.stage("writing the guests' disks");
        let lab = Lab::prepare(&self.config);
        if take_interrupt(self.config.interrupted) {
            return Err(RecordingError::Interrupted);
        }
        let lab = self.lab.insert(lab.map_err(failed)?);
        let guests: Vec<GuestEndpoint> =
            lab.guests().iter().map(|guest| guest.endpoint().clone()).collect();
        // What guests connect to is there before they start.
        let vms = self.config.plan.vms.iter().zip(&guests);
        let plans =
            vms.map(|(vm, endpoint)| self.guest_plan(vm, endpoint)).collect::<Result<_, _>>()?;
        watcher.stage(&booting(guests.len()));
        self.lab.iter_mut().try_for_each(Lab::start).map_err(failed)?;
        Ok(plans)
    }

    /// They start with their guests.
    fn start_agents(&mut self, _: &mut dyn Watcher) -> Result<StartedAgents, RecordingError> {
        Ok(StartedAgents::default())
    }

    fn agents_met(&mut self, met: Result<(), RecordingError>) -> Result<(), RecordingError> {
        met.map_err(|error| match self.console_of_silent(&error) {
            Some(console) => failed(SilentGuest { error, console }),
            None => error,
        })
    }

    fn check(&mut self) -> Result<(), RecordingError> {
        self.lab.iter_mut().try_for_each(Lab::check).map_err(failed)
    }

    fn vms(&mut self) -> Result<Vec<RecordedVm>, RecordingError> {
        let guests = self.lab.iter().flat_map(Lab::guests);
        let vms = self.config.plan.vms.iter().zip(guests);
        vms.map(|(vm, guest)| self.recorded_vm(vm, guest)).collect()
    }

    fn close(&mut self, all_were_told: bool, watcher: &mut dyn Watcher) {
        let Some(lab) = self.lab.take() else { return };
        watcher.stage("ending the guests");
        // Who was never ready has not been told to power off.
        lab.stop(if all_were_told { POWER_OFF_GRACE } else { Duration::ZERO });
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> RecordingError {
    RecordingError::Guests(Box::new(error))
}

/// What is said while guests boot.
fn booting(guests_count: usize) -> String {
    let plural = if guests_count == 1 { "" } else { "s" };
    format!("booting {guests_count} guest{plural}, which takes some seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_guest_is_no_guests() {
        assert_eq!(booting(1), "booting 1 guest, which takes some seconds");
        assert_eq!(booting(2), "booting 2 guests, which takes some seconds");
    }
}
