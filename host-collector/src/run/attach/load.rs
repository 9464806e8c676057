//! The load in guests that run already: agents are started through qemu-ga, and meet the collector in
//! the way that each VM has.

use super::super::error::RunError;
use super::super::seat::{SeatPlan, session_plan};
use super::roles::Casting;
use crate::guest::agent_file::AgentFile;
use crate::guest::connection::GuestListener;
use crate::guest::start::{self, StartedAgent};
use crate::lab::plan::{Accelerator, VmPlan};
use crate::lab::vsock;
use std::path::PathBuf;
use std::time::Duration;
use vslice_host::qemu_args::LOAD_PORT;
use vslice_host::qga::Qga;
use vslice_host::vm::Vm;
use vslice_host::way::Way;
use vslice_spec::WorkloadSpec;

/// How long an agent that was started may take to connect. It tries for as long itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What agents do in the guests.
#[derive(Debug, Clone)]
pub struct Load {
    /// The plan, and who plays which part of it.
    pub casting: Casting,
    /// The agent to upload; `None` to take the guests' own.
    pub agent: Option<AgentFile>,
    /// What the readers read in their guests, instead of the only disk.
    pub target: Option<String>,
    /// Whether a VM that has no way to this host gets one plugged in for the time of the recording.
    pub plug: bool,
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
    pub(super) fn on(way: Way, vm: &Vm, index: u8) -> Result<Meeting, RunError> {
        match way {
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
    /// Whether each VM's agent will do what it is asked for, by its own rules.
    ///
    /// # Errors
    /// [`RunError::Workload`].
    pub(super) fn check(&self, vms: &[Vm]) -> Result<(), RunError> {
        for (vm, part) in vms.iter().zip(self.casting.parts()) {
            let vcpus = u16::try_from(vm.vcpus().count()).unwrap_or(u16::MAX);
            self.spec(vm, part).validate(vcpus).map_err(|source| {
                let (vm, part) = (vm.label(), part.name.clone());
                RunError::Workload { vm, part, source }
            })?;
        }
        Ok(())
    }

    /// Whether an agent can be started in each guest, before anything is plugged in for it.
    ///
    /// # Errors
    /// [`RunError::AgentStart`].
    pub(super) fn check_agents(&self, vms: &[Vm]) -> Result<(), RunError> {
        vms.iter().try_for_each(|vm| {
            let failed = |source| RunError::AgentStart { vm: vm.label(), source };
            let qga = Qga::of_vm(vm).map_err(|error| failed(error.into()))?;
            start::check(qga, self.agent.as_ref()).map_err(failed)
        })
    }

    /// What a VM's agent is asked for.
    fn spec(&self, vm: &Vm, part: &VmPlan) -> WorkloadSpec {
        let mut spec = self.casting.plan.workload_spec(part, accelerator_of(vm));
        // That scheduler is for the disk that a run brings along.
        spec.io_scheduler = None;
        if let (Some(reader), Some(target)) = (&mut spec.reader, &self.target) {
            reader.target.clone_from(target);
        }
        spec
    }

    /// What the session with one VM's agent needs to know.
    pub(super) fn seat_plan(
        &self,
        vm: &Vm,
        part: &VmPlan,
        name: &str,
        listener: GuestListener,
    ) -> SeatPlan {
        SeatPlan {
            vm: name.to_owned(),
            listener,
            session: session_plan(part, &self.spec(vm, part)),
            boot_timeout: CONNECT_TIMEOUT,
            has_reader: part.reader.is_some(),
        }
    }

    /// Starts the agent in one VM's guest.
    pub(super) fn start(&self, vm: &Vm, address: &str) -> Result<StartedAgent, RunError> {
        let failed = |source| RunError::AgentStart { vm: vm.label(), source };
        let qga = Qga::of_vm(vm).map_err(|error| failed(error.into()))?;
        start::start(qga, self.agent.as_ref(), address).map_err(failed)
    }
}

/// What runs a VM; what is known not to be KVM is taken for a translator. Of one that is not known, KVM's events
/// are recorded: there are none if it is not KVM.
pub(super) fn accelerator_of(vm: &Vm) -> Accelerator {
    match vm.accelerator.as_deref() {
        Some("kvm") | None => Accelerator::Kvm,
        Some(_) => Accelerator::Tcg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::Plan;
    use vslice_core::units::{Tid, VcpuId};
    use vslice_host::vm::VmThread;

    fn vm_with(vcpus: u16) -> Vm {
        let thread = |vcpu| VmThread {
            tid: Tid(100 + u32::from(vcpu)),
            comm: format!("CPU {vcpu}/KVM"),
            role: VcpuId(vcpu).to_string(),
            vcpu: Some(VcpuId(vcpu)),
            iothread: None,
            affinity: vec![],
        };
        Vm { threads: (0..vcpus).map(thread).collect(), ..Vm::named("web") }
    }

    /// The demo's vm1, its reader on vCPU1, as a VM with so many vCPUs is asked for it.
    fn checked(vcpus: u16, change: impl FnOnce(&mut Load)) -> Result<(), String> {
        let vms = [vm_with(vcpus)];
        let plan = Plan::load("demo").expect("built in");
        let casting = Casting::new(plan, &vms, &[None]).expect("it has a part");
        let mut load = Load { casting, agent: None, target: None, plug: false };
        change(&mut load);
        load.check(&vms).map_err(|error| error.to_string())
    }

    #[test]
    fn of_a_vm_whose_accelerator_is_not_known_no_kvm_event_is_lost() {
        for (accelerator, taken_for) in [
            (None, Accelerator::Kvm),
            (Some("kvm"), Accelerator::Kvm),
            (Some("tcg"), Accelerator::Tcg),
            (Some("mshv"), Accelerator::Tcg),
        ] {
            let accelerator = accelerator.map(str::to_owned);
            let vm = Vm { accelerator, ..Vm::named("web") };
            assert_eq!(accelerator_of(&vm), taken_for, "{:?}", vm.accelerator);
        }
    }

    #[test]
    fn what_an_agent_would_refuse_is_refused_before_it_is_started() {
        assert_eq!(checked(2, |_| {}), Ok(()));
        let unlike = |checked: Result<(), String>, words: &str| {
            let message = checked.expect_err(words);
            assert!(message.starts_with("web cannot be 'vm1' of the plan: "), "{message}");
            assert!(message.contains(words), "{message}");
        };
        unlike(checked(1, |_| {}), "a hog is pinned to vCPU1, but the machine has 1 vCPUs");
        unlike(checked(2, |load| load.target = Some(String::new())), "is no path");
        let vcpu7 = |load: &mut Load| load.casting.plan.vms[0].housekeeping_vcpu = VcpuId(7);
        unlike(checked(4, vcpu7), "the housekeeping is pinned to vCPU7");
        let vcpu1 = |load: &mut Load| load.casting.plan.vms[0].housekeeping_vcpu = VcpuId(1);
        unlike(checked(2, vcpu1), "the reader is pinned to vCPU1, where the housekeeping runs");
        // A run gives its own disk that scheduler; here nobody asks for it.
        let scheduler = |load: &mut Load| {
            let disk = load.casting.plan.vms[0].disk.as_mut().expect("it has one");
            disk.guest_io_scheduler = "of another guest".to_owned();
        };
        assert_eq!(checked(2, scheduler), Ok(()));
    }
}
