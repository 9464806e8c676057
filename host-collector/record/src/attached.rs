//! VMs that run already. Unless a load is asked for, nothing of them is changed and nothing is asked of them:
//! without an agent in the guest there are no requests, but why each vCPU left its pCPU, and who had it
//! instead. With one, agents are started through qemu-ga, and meet the collector in the way that each VM
//! has.

use crate::error::RecordingError;
use crate::guest::agent_file::AgentFile;
use crate::guest::connection::GuestListener;
use crate::guest::start::{self, StartedAgent};
use crate::guests::{GuestPlan, Guests, RecordedVm, StartedAgents};
use crate::names::names_of;
use crate::plugged_ports::PluggedPorts;
use crate::recording::RecordingFacts;
use crate::watcher::Watcher;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use vslice_core::units::PcpuId;
use vslice_host::agent_transport::{AgentTransport, own_port};
use vslice_host::procfs::{self, StartTicks};
use vslice_host::qemu_args::LOAD_PORT;
use vslice_host::qga::Qga;
use vslice_host::tsc::KvmDebugfs;
use vslice_host::vm::{self, NO_ACCELERATOR, Vm};
use vslice_host::{host, host_disks};
use vslice_spec::WorkloadSpec;
use vslice_trace::host::HostPcpus;

/// How long an agent that was started may take to connect. It tries for as long itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The transport that a run reports until its agents are started.
const NO_AGENT: &str = "no agent was started, so there are no requests";

/// The load that agents run in guests that are already running.
#[derive(Debug, Clone)]
pub struct AgentLoad {
    /// The workload of each VM's agent, in the order of the VMs.
    pub workloads: Vec<WorkloadSpec>,
    /// An agent to upload; `None` to start the one installed in the guests.
    pub agent: Option<AgentFile>,
    /// Whether to plug a port into a VM that has no transport to this host.
    pub plug: bool,
}

/// The VMs of an attached recording.
#[derive(Debug)]
pub struct AttachedVms {
    vms: Vec<RecordedVm>,
    /// Where each VM's process began, to know it from a later one of its id.
    starts: Vec<StartTicks>,
    load: Option<AgentLoad>,
    ports: PluggedPorts,
    /// Where each agent is to connect, as the agent knows it.
    addresses: Vec<String>,
    agents: Vec<StartedAgent>,
    /// Whether the recording goes on without those that have ended, until none is left.
    outlives_vms: bool,
}

impl AttachedVms {
    /// Checks that these VMs can be recorded.
    ///
    /// # Errors
    /// Fails with the reason why one of them cannot; none was changed.
    pub fn new(
        vms: &[Vm],
        load: Option<AgentLoad>,
        watcher: &mut dyn Watcher,
    ) -> Result<AttachedVms, RecordingError> {
        if let Some(vm) = vms.iter().find(|vm| vm.vcpus().next().is_none()) {
            let advice = vm.unseen_vcpus_advice();
            return Err(RecordingError::UnseenVcpus { vm: vm.label(), advice });
        }
        for notice in vms.iter().filter_map(Vm::stopped_notice) {
            watcher.stage(&notice);
        }
        let start = |vm: &Vm| {
            let gone = RecordingError::VmEnded { vm: vm.label(), pid: vm.pid };
            procfs::start_ticks(vm.pid).ok_or(gone)
        };
        let starts = vms.iter().map(start).collect::<Result<_, RecordingError>>()?;
        Ok(AttachedVms::started_at(vms, starts, load))
    }

    fn started_at(vms: &[Vm], starts: Vec<StartTicks>, load: Option<AgentLoad>) -> AttachedVms {
        let workload = |place: usize| Some(load.as_ref()?.workloads.get(place)?.clone());
        let recorded = vms.iter().zip(names_of(vms)).zip(0..);
        let vms = recorded
            .map(|((vm, name), place)| RecordedVm {
                name,
                vm: vm.clone(),
                workload: workload(place),
            })
            .collect();
        let (ports, addresses, agents) = (PluggedPorts::default(), Vec::new(), Vec::new());
        AttachedVms { vms, starts, load, ports, addresses, agents, outlives_vms: false }
    }

    /// The recording goes on when one of them ends, until none is left.
    #[must_use]
    pub fn until_none_is_left(self) -> AttachedVms {
        AttachedVms { outlives_vms: true, ..self }
    }

    /// The pCPUs on which their vCPUs may run, and another one for the collector, if there is one.
    #[must_use]
    pub fn pcpus(&self, online: &HostPcpus) -> (BTreeSet<PcpuId>, Option<PcpuId>) {
        let vcpus = self.vms.iter().flat_map(|vm| vm.vm.vcpus());
        let pcpus: BTreeSet<PcpuId> =
            vcpus.flat_map(|thread| thread.affinity.iter().copied()).collect();
        let collector = online.iter().find(|pcpu| !pcpus.contains(pcpu));
        (pcpus, collector)
    }

    /// The manifest's facts about them; `plans` are the plans of their load and their pins.
    #[must_use]
    pub fn facts(&self, plans: AttachedPlans) -> RecordingFacts {
        let vms: Vec<Vm> = self.vms.iter().map(|vm| vm.vm.clone()).collect();
        let exe = |vm: &Vm| std::fs::read_link(format!("/proc/{}/exe", vm.pid)).ok();
        let program: PathBuf = vms.iter().find_map(exe).unwrap_or_default();
        let environment = host::facts(&program, host_disks::under_vms(&vms));
        let found = "the VMs were found running".to_owned();
        let are_known = vms.iter().all(|vm| vm.accelerator.is_some());
        RecordingFacts {
            plan: serde_json::json!({ "attached": vms, "load": plans.load, "pin": plans.pin }),
            plan_name: "attach".to_owned(),
            accelerator_chosen: None,
            accelerator_reason: match are_known {
                true => found,
                false => format!("{found}; {NO_ACCELERATOR}"),
            },
            vsock_way: NO_AGENT.to_owned(),
            environment_lines: [environment.lines(), plans.roles].concat(),
            environment,
            image: serde_json::Value::Null,
        }
    }

    fn listen(&mut self, watcher: &mut dyn Watcher) -> Result<Vec<GuestPlan>, RecordingError> {
        let Some(load) = &self.load else { return Ok(Vec::new()) };
        if load.plug {
            check_agents(load, &self.vms)?;
        }
        let mut plans = Vec::new();
        for (recorded, index) in self.vms.iter().zip(0..) {
            let Some(workload) = recorded.workload.clone() else { continue };
            let transport = self.ports.transport_of(&recorded.vm, load.plug, watcher)?;
            let (listener, address) = listener(transport, &recorded.vm, index)?;
            self.addresses.push(address);
            let vm = recorded.name.clone();
            plans.push(GuestPlan { vm, listener, workload, connect_timeout: CONNECT_TIMEOUT });
        }
        Ok(plans)
    }
}

/// The plans of an attached recording, as the manifest stores them.
#[derive(Debug, Clone, Default)]
pub struct AttachedPlans {
    /// The plan of the load, or null.
    pub load: serde_json::Value,
    /// The plan of the pins, or null.
    pub pin: serde_json::Value,
    /// The role of each VM in the plans, as lines for the report.
    pub roles: Vec<String>,
}

impl Guests for AttachedVms {
    fn open(&mut self, watcher: &mut dyn Watcher) -> Result<Vec<GuestPlan>, RecordingError> {
        self.listen(watcher)
    }

    fn start_agents(&mut self, watcher: &mut dyn Watcher) -> Result<StartedAgents, RecordingError> {
        let Some(load) = &self.load else { return Ok(StartedAgents::default()) };
        let mut images = serde_json::Value::Null;
        for (RecordedVm { name, vm, .. }, address) in self.vms.iter().zip(&self.addresses) {
            let label = vm.label();
            watcher.stage(&format!("starting the agent in {label} through its qemu-ga"));
            let failed = |source| RecordingError::AgentStart { vm: vm.label(), source };
            let qga =
                Qga::of_vm_within(vm, start::WORD_TIMEOUT).map_err(|error| failed(error.into()))?;
            let agent = start::start(qga, load.agent.as_ref(), address).map_err(failed)?;
            images[name.as_str()] = agent.image.clone().unwrap_or_default();
            self.agents.push(agent);
        }
        Ok(StartedAgents {
            images: Some(images),
            transport: Some(agents_started(self.ports.count())),
        })
    }

    /// From then on qemu-ga is not needed any more.
    fn agents_met(&mut self, met: Result<(), RecordingError>) -> Result<(), RecordingError> {
        let mut result = Ok(());
        let agents = self.agents.drain(..).zip(&self.vms).zip(&self.addresses);
        for ((agent, RecordedVm { vm, .. }), address) in agents {
            match &met {
                Err(error) if error.silent_vm().is_some() => {
                    let (vm, address) = (vm.label(), address.clone());
                    let words = agent.never_connected();
                    result = result.and(Err(RecordingError::AgentLost { vm, address, words }));
                }
                _ => drop(agent),
            }
        }
        result.and(met)
    }

    fn check(&mut self) -> Result<(), RecordingError> {
        let is_gone = |recorded: &RecordedVm, start| !procfs::is_alive(recorded.vm.pid, start);
        let mut vms = self.vms.iter().zip(&self.starts);
        let mut gone = vms.clone().filter(|(recorded, start)| is_gone(recorded, **start));
        let is_over = !self.outlives_vms || vms.all(|(recorded, start)| is_gone(recorded, *start));
        match gone.next().filter(|_| is_over) {
            Some((RecordedVm { vm, .. }, _)) => {
                Err(RecordingError::VmEnded { vm: vm.label(), pid: vm.pid })
            }
            None => Ok(()),
        }
    }

    fn vms(&mut self) -> Result<Vec<RecordedVm>, RecordingError> {
        let debugfs = KvmDebugfs::find().ok();
        for recorded in &mut self.vms {
            // One that cannot be looked at any more stays as it was; `check` says why.
            if let Some(vm) = vm::look_at(recorded.vm.pid, debugfs.as_ref()) {
                recorded.vm = vm;
            }
        }
        Ok(self.vms.clone())
    }

    fn close(&mut self, _all_were_told: bool, watcher: &mut dyn Watcher) {
        self.agents.clear();
        std::mem::take(&mut self.ports).take_out(watcher);
    }
}

/// That the agents can be started at all, before a VM is changed for them.
fn check_agents(load: &AgentLoad, vms: &[RecordedVm]) -> Result<(), RecordingError> {
    vms.iter().try_for_each(|RecordedVm { vm, .. }| {
        let failed = |source| RecordingError::AgentStart { vm: vm.label(), source };
        let qga =
            Qga::of_vm_within(vm, start::WORD_TIMEOUT).map_err(|error| failed(error.into()))?;
        start::check(qga, load.agent.as_ref()).map_err(failed)
    })
}

/// Where one guest's agent meets the collector, and that place as the agent knows it.
fn listener(
    transport: AgentTransport,
    vm: &Vm,
    index: u8,
) -> Result<(GuestListener, String), RecordingError> {
    match transport {
        AgentTransport::Vsock { cid } => {
            let port = own_port(index, std::process::id());
            let path = || PathBuf::from(format!("vsock port {port}"));
            let listener = GuestListener::vsock(port, cid).map_err(|source| {
                RecordingError::Listen { vm: vm.label(), path: path(), source }
            })?;
            Ok((listener, format!("vsock:2:{port}")))
        }
        AgentTransport::Serial { path } => {
            Ok((GuestListener::VirtioSerial(path), format!("virtio:{LOAD_PORT}")))
        }
    }
}

fn agents_started(plugged_count: usize) -> String {
    let started = "their agents were started through qemu-ga";
    match plugged_count {
        0 => started.to_owned(),
        1 => format!("{started}, and connect over a port that was plugged in for this"),
        count => {
            format!("{started}, and connect over {count} ports that were plugged in for this")
        }
    }
}

#[cfg(test)]
#[path = "attached_tests.rs"]
mod tests;
