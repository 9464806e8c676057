//! The load in guests that run already: agents are started through qemu-ga, and meet the collector in
//! the way that each VM has.

use super::super::error::RunError;
use super::super::seat::{SeatPlan, session_plan};
use super::roles::Casting;
use crate::guest::connection::GuestListener;
use crate::guest::start::{self, StartedAgent};
use crate::lab::plan::{Accelerator, VmPlan};
use crate::lab::vsock;
use crate::vmm::found::FoundVm;
use crate::vmm::qemu_args::LOAD_PORT;
use crate::vmm::qga::Qga;
use crate::vmm::way::Way;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an agent that was started may take to connect. It tries for as long itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What agents do in the guests.
#[derive(Debug, Clone)]
pub struct Load {
    /// The plan, and who plays which part of it.
    pub casting: Casting,
    /// The agent to upload; `None` to take the guests' own.
    pub agent: Option<PathBuf>,
    /// What the readers read in their guests, instead of the only disk.
    pub target: Option<String>,
}

/// Where one guest's agent meets the collector.
#[derive(Debug)]
pub(super) struct Meeting {
    pub(super) listener: GuestListener,
    /// In the words of the agent's `--connect`.
    pub(super) address: String,
}

impl Meeting {
    /// Prepares it in the way that the VM has.
    pub(super) fn of_vm(vm: &FoundVm, index: u8) -> Result<Meeting, RunError> {
        match Way::of_vm(vm).ok_or_else(|| RunError::NoWay { vm: vm.label() })? {
            Way::Vsock { cid } => {
                let port = vsock::own_port(index, std::process::id());
                let path = || PathBuf::from(format!("vsock port {port}"));
                let listener = GuestListener::vsock(port, cid)
                    .map_err(|source| RunError::Listen { vm: vm.label(), path: path(), source })?;
                Ok(Meeting { listener, address: format!("vsock:2:{port}") })
            }
            Way::Serial { path } => Ok(Meeting {
                listener: GuestListener::VirtioSerial(path),
                address: format!("virtio:{LOAD_PORT}"),
            }),
        }
    }
}

impl Load {
    /// What the session with one VM's agent needs to know.
    pub(super) fn seat_plan(
        &self,
        vm: &FoundVm,
        part: &VmPlan,
        name: &str,
        listener: GuestListener,
    ) -> SeatPlan {
        let mut spec = self.casting.plan.workload_spec(part, accelerator_of(vm));
        // That scheduler is for the disk that a run brings along.
        spec.io_scheduler = None;
        if let (Some(reader), Some(target)) = (&mut spec.reader, &self.target) {
            reader.target.clone_from(target);
        }
        SeatPlan {
            vm: name.to_owned(),
            listener,
            session: session_plan(part, &spec),
            boot_timeout: CONNECT_TIMEOUT,
            has_reader: part.reader.is_some(),
        }
    }

    /// Starts the agent in one VM's guest.
    pub(super) fn start(&self, vm: &FoundVm, address: &str) -> Result<StartedAgent, RunError> {
        let failed = |source| RunError::AgentStart { vm: vm.label(), source };
        let qga = Qga::of_vm(vm).map_err(|error| failed(error.into()))?;
        let agent: Option<&Path> = self.agent.as_deref();
        start::start(qga, agent, address).map_err(failed)
    }
}

/// What runs a VM; what is not KVM is taken for a translator.
pub(super) fn accelerator_of(vm: &FoundVm) -> Accelerator {
    if vm.accelerator.as_deref() == Some("kvm") { Accelerator::Kvm } else { Accelerator::Tcg }
}
