//! The guests of a recording: where their VMs come from, and how their agents meet the collector.

use crate::error::RecordingError;
use crate::guest::connection::GuestListener;
use crate::watcher::Watcher;
use std::time::Duration;
use vslice_host::vm::Vm;
use vslice_spec::WorkloadSpec;
use vslice_trace::VmName;

/// The VMs of a recording, launched for it or found running. A [`Recording`](crate::Recording) calls these
/// in this order: `check` while it waits for agents and while it records, `vms` again when threads may have been
/// started, and `close` whichever way it ends.
pub trait Guests {
    /// Binds what agents will connect to, and starts VMs that do not run yet. What it returns is a session
    /// for each VM, in the order of [`Guests::vms`], or nothing if no agent is to be met.
    ///
    /// # Errors
    /// Why the recording cannot begin.
    fn open(&mut self, watcher: &mut dyn Watcher) -> Result<Vec<GuestPlan>, RecordingError>;

    /// Starts the agents that do not start with their guests, now that the collector listens.
    ///
    /// # Errors
    /// Why one does not start.
    fn start_agents(&mut self, watcher: &mut dyn Watcher) -> Result<StartedAgents, RecordingError>;

    /// Is told whether all agents have met the collector and are ready, and may say more of a failure.
    ///
    /// # Errors
    /// The failure.
    fn agents_met(&mut self, met: Result<(), RecordingError>) -> Result<(), RecordingError>;

    /// That all VMs run.
    ///
    /// # Errors
    /// Which one does not, and why.
    fn check(&mut self) -> Result<(), RecordingError>;

    /// The VMs as they are now.
    ///
    /// # Errors
    /// Why one cannot be recorded.
    fn vms(&mut self) -> Result<Vec<RecordedVm>, RecordingError>;

    /// The recording is over. `all_were_told` says whether every agent knows; one that was never ready does
    /// not.
    fn close(&mut self, all_were_told: bool, watcher: &mut dyn Watcher);
}

/// A VM under its name in the run directory.
#[derive(Debug, Clone)]
pub struct RecordedVm {
    /// Its name there.
    pub name: VmName,
    /// The VM.
    pub vm: Vm,
    /// The workload of its agent, if it has one.
    pub workload: Option<WorkloadSpec>,
}

/// What is needed to start the session with a guest's agent.
#[derive(Debug)]
pub struct GuestPlan {
    /// The VM's name in the run directory.
    pub vm: VmName,
    /// The endpoint to which the agent connects.
    pub listener: GuestListener,
    /// The workload of the agent.
    pub workload: WorkloadSpec,
    /// The time limit for it to connect.
    pub connect_timeout: Duration,
}

/// Facts about agents that were started.
#[derive(Debug, Default)]
pub struct StartedAgents {
    /// The image of each VM's guest by the VM's name, as its agent's host tells it; `None` where the VMs
    /// came with their image.
    pub images: Option<serde_json::Value>,
    /// Their transport to the collector, if that is known only now.
    pub transport: Option<String>,
}
