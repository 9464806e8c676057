//! A recording of VMs that are there already. Unless it is asked for, nothing of them is changed and
//! nothing is asked of them: without an agent in the guest there are no requests, but why each vCPU
//! left its pCPU, and who had it instead.

mod load;
mod names;
mod roles;
mod ways;
mod work;

pub use load::Load;
pub use roles::Casting;

use super::error::RunError;
use super::evidence::{EvidencePlan, EvidenceSetting};
use super::measurement::Measurement;
use super::seats::{Seats, seated};
use super::stage::ReadProgress;
use super::watch::Watcher;
use super::{close, disk_notes, leftovers, lock_facts, new_directory, reserve};
use crate::guest::start::StartedAgent;
use crate::lab::plan::{Accelerator, VmPlan};
use load::{Meeting, accelerator_of};
use names::names_of;
use roles::Pinned;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use vslice_core::units::{PcpuId, Tid};
use vslice_host::collector_affinity::CollectorAffinity;
use vslice_host::image::Image;
use vslice_host::pin::{Pin, Pinning};
use vslice_host::procfs::{self, StartTicks};
use vslice_host::scratch;
use vslice_host::vm::{NO_ACCELERATOR, Vm};
use vslice_host::{host, threads};
use vslice_trace::host::FrequencyRecord;
use vslice_trace::manifest::{Cost, Manifest, SCHEMA, Status, VmRecord};
use vslice_trace::thread::ThreadRecord;
use vslice_trace::{RunDir, VmName};
use ways::PluggedPorts;
use work::Attached;

/// What a run says of the way to its guests until there is one.
const NO_AGENT: &str = "no agent was started, so there are no requests";

/// What it says then.
fn agents_started(plugged_count: usize) -> String {
    let started = "their agents were started through qemu-ga";
    match plugged_count {
        0 => started.to_owned(),
        1 => format!("{started}, and meet vslice over a port that was plugged in for it"),
        count => {
            format!("{started}, and meet vslice over {count} ports that were plugged in for it")
        }
    }
}

/// What is recorded, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct AttachOptions<'a> {
    /// The VMs.
    pub vms: &'a [Vm],
    /// The run directory, made by the recording.
    pub output: &'a Path,
    /// How long; `None` until the readers have read all, it is interrupted or a VM ends.
    pub duration: Option<Duration>,
    /// How well the VMs' threads must be seen.
    pub evidence: EvidenceSetting,
    /// Whether every exit is recorded, which costs.
    pub exits: bool,
    /// What agents do in the guests; `None` to start none.
    pub load: Option<&'a Load>,
    /// Where the VMs' threads are pinned to meanwhile; `None` to leave them where they are.
    pub pin: Option<&'a Casting>,
    /// Set from outside when the recording shall end, which is no failure.
    pub interrupted: &'a AtomicBool,
}

/// A recording that this host allows, and the directory that is now its own.
#[derive(Debug)]
pub struct Attachment<'a> {
    options: AttachOptions<'a>,
    evidence: EvidencePlan,
    /// The VMs with their names in the run directory.
    names: Vec<VmName>,
    /// Where each VM's process began, to know it from a later one of its id.
    starts: Vec<(Tid, StartTicks)>,
    /// On these pCPUs every switch is recorded: wherever a vCPU may run.
    pcpus: BTreeSet<PcpuId>,
    /// Where the collector stays, if there is a pCPU that no vCPU may run on.
    home: Option<PcpuId>,
    dir: RunDir,
}

/// Why a recording ended before anything was measured.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NotMeasured(pub RunError);

impl<'a> Attachment<'a> {
    /// Finds out whether the VMs can be recorded; makes the run directory last.
    ///
    /// # Errors
    /// Why they cannot. Nothing was made then.
    pub fn prepare(
        options: AttachOptions<'a>,
        watcher: &mut dyn Watcher,
    ) -> Result<Attachment<'a>, RunError> {
        if let Some(vm) = options.vms.iter().find(|vm| vm.vcpus().next().is_none()) {
            return Err(RunError::UnseenVcpus { vm: vm.label() });
        }
        if let Some(load) = options.load {
            load.check(options.vms)?;
        }
        for word in options.vms.iter().filter_map(Vm::stop_word) {
            watcher.stage(&word);
        }
        leftovers::undo(watcher);
        let evidence = EvidencePlan::of_host(options.evidence)?;
        let online = vslice_host::host::online_pcpus()?;
        let (pcpus, home) = match options.pin {
            Some(casting) => {
                casting.check_pins(options.vms)?;
                casting.plan.check_host(&online)?;
                let vcpus = casting.parts().flat_map(|part| part.vcpu_pcpus.iter().copied());
                (vcpus.collect::<BTreeSet<PcpuId>>(), Some(casting.plan.collector_pcpu))
            }
            None => {
                let vcpus = options.vms.iter().flat_map(Vm::vcpus);
                let pcpus: BTreeSet<PcpuId> =
                    vcpus.flat_map(|thread| thread.affinity.iter().copied()).collect();
                let home = online.iter().find(|pcpu| !pcpus.contains(pcpu));
                (pcpus, home)
            }
        };
        let names = names_of(options.vms);
        let start = |vm: &Vm| {
            let gone = RunError::VmEnded { vm: vm.label(), pid: vm.pid };
            Ok((vm.pid, procfs::start_ticks(vm.pid).ok_or(gone)?))
        };
        let starts = options.vms.iter().map(start).collect::<Result<_, RunError>>()?;
        let dir = new_directory(options.output)?;
        Ok(Attachment { options, evidence, names, starts, pcpus, home, dir })
    }

    /// Records until the time is over, everything is read, an interrupt comes or a VM ends. What is
    /// returned says how that went once it was measured.
    ///
    /// # Errors
    /// Why nothing was measured. There is no file of a run then, and no directory that was not there before.
    pub fn record(&self, watcher: &mut dyn Watcher) -> Result<Result<(), RunError>, NotMeasured> {
        let mut manifest = self.manifest();
        let result = self.make(&mut manifest, watcher);
        let closed = close(&self.dir, &mut manifest, result);
        match closed {
            Err(error) if manifest.window.is_none() => {
                self.dir.discard();
                Err(NotMeasured(error))
            }
            closed => Ok(closed),
        }
    }

    fn make(&self, manifest: &mut Manifest, watcher: &mut dyn Watcher) -> Result<(), RunError> {
        self.dir.write_json("run.json", manifest)?;
        reserve::take(&self.dir)?;
        let home = self.home.map(CollectorAffinity::move_to);
        let result = match self.options.load {
            None => self.measure(manifest, watcher, None),
            Some(load) => self.make_with_load(load, manifest, watcher),
        };
        drop(home);
        result
    }

    fn make_with_load(
        &self,
        load: &Load,
        manifest: &mut Manifest,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        let mut ports = PluggedPorts::default();
        let result = self.make_over(&mut ports, load, manifest, watcher);
        ports.take_out(watcher);
        result
    }

    fn make_over(
        &self,
        ports: &mut PluggedPorts,
        load: &Load,
        manifest: &mut Manifest,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        if load.plug {
            load.check_agents(self.options.vms)?;
        }
        let (mut plans, mut addresses) = (Vec::new(), Vec::new());
        let vms = self.options.vms.iter().zip(load.casting.parts()).zip(&self.names);
        for (((vm, part), name), index) in vms.zip(0..) {
            let way = ports.way_of(vm, load.plug, watcher)?;
            let Meeting { listener, address } = Meeting::on(way, vm, index)?;
            plans.push(load.seat_plan(vm, part, name.as_str(), listener));
            addresses.push(address);
        }
        let seated =
            seated(&self.dir, plans, self.options.interrupted, manifest, |seats, manifest| {
                let mut agents = Vec::new();
                for (vm, address) in self.options.vms.iter().zip(&addresses) {
                    watcher.stage(&format!(
                        "starting the agent in {} through its qemu-ga",
                        vm.label()
                    ));
                    let agent = load.start(vm, address)?;
                    manifest.image[vm.label()] = agent.image.clone().unwrap_or_default();
                    agents.push(agent);
                }
                self.meet(seats, agents, &addresses)?;
                manifest.vsock_way = agents_started(ports.count());
                self.measure(manifest, watcher, Some((load, seats)))
            });
        seated?.result
    }

    /// Waits until every agent has connected and is ready; from then on qemu-ga is not needed any more.
    fn meet(
        &self,
        seats: &mut Seats<'_>,
        agents: Vec<StartedAgent>,
        addresses: &[String],
    ) -> Result<(), RunError> {
        let met = seats.wait_until_ready(|| self.check_vms());
        let mut result = Ok(());
        for ((agent, vm), address) in agents.into_iter().zip(self.options.vms).zip(addresses) {
            match &met {
                Err(error) if error.is_silence() => {
                    let (vm, address) = (vm.label(), address.clone());
                    let words = agent.never_connected();
                    result = result.and(Err(RunError::AgentLost { vm, address, words }));
                }
                _ => drop(agent),
            }
        }
        result.and(met)
    }

    fn measure(
        &self,
        manifest: &mut Manifest,
        watcher: &mut dyn Watcher,
        load: Option<(&Load, &mut Seats<'_>)>,
    ) -> Result<(), RunError> {
        let pinned = self.options.pin.map(|casting| self.pin(casting, manifest)).transpose()?;
        lock_facts::note_locks(&mut manifest.vms);
        if let Some((load, seats)) = &load {
            self.note_disks(&mut manifest.vms, load, seats);
        }
        let is_kvm = |vm: &Vm| accelerator_of(vm) == Accelerator::Kvm;
        let measurement = Measurement {
            dir: &self.dir,
            home: self.home,
            evidence: &self.evidence,
            accelerator: if self.options.vms.iter().any(is_kvm) {
                Accelerator::Kvm
            } else {
                Accelerator::Tcg
            },
            exits: self.options.exits,
        };
        let parts = load.iter().flat_map(|(load, _)| load.casting.parts());
        let progress = ReadProgress::new(parts);
        let seats = load.map(|(_, seats)| seats);
        measurement.make(manifest, watcher, &mut Attached { of: self, seats, progress, pinned })
    }

    fn note_disks(&self, vms: &mut [VmRecord], load: &Load, seats: &Seats<'_>) {
        let attached = self.options.vms.iter().zip(load.casting.parts()).zip(seats.ready());
        for (vm, ((found, part), said)) in vms.iter_mut().zip(attached) {
            if let Some(reader) = &part.reader {
                disk_notes::note(vm, reader, Image::of_vm(found), said);
            }
        }
    }

    /// Pins the VMs' threads until what it returns is dropped.
    fn pin<'s>(
        &'s self,
        casting: &'s Casting,
        manifest: &mut Manifest,
    ) -> Result<Pinned<'s>, RunError> {
        let mut pinning = Pinning::new(&scratch::parent_dir())?;
        let pins = casting.pins(self.options.vms, threads::list_with_kernel)?;
        pinning.apply(&pins)?;
        let pcpu_of = |tid: Tid| pins.iter().find(|pin: &&Pin| pin.tid == tid).map(|pin| pin.pcpu);
        for thread in manifest.vms.iter_mut().flat_map(|vm| &mut vm.threads) {
            thread.pinned = pcpu_of(thread.tid);
        }
        Ok(Pinned { casting, vms: self.options.vms, pinning })
    }

    /// Whether all VMs are there.
    fn check_vms(&self) -> Result<(), RunError> {
        let mut vms = self.options.vms.iter().zip(&self.starts);
        match vms.find(|(_, (pid, start))| !procfs::is_alive(*pid, *start)) {
            Some((vm, _)) => Err(RunError::VmEnded { vm: vm.label(), pid: vm.pid }),
            None => Ok(()),
        }
    }

    fn what_goes_on(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(VmName::as_str).collect();
        let until = match (self.options.duration, self.options.load) {
            (Some(duration), _) => {
                format!("for {} s; Ctrl-C ends it earlier", duration.as_secs_f64())
            }
            (None, Some(_)) => "until the readers have read all; Ctrl-C ends it earlier".to_owned(),
            (None, None) => "until Ctrl-C".to_owned(),
        };
        format!("recording {} {until}", names.join(" and "))
    }

    /// Who played which part, and what of it.
    fn casting_lines(&self) -> Vec<String> {
        let load = self.options.load.map(|load| ("load", &load.casting));
        let pin = self.options.pin.map(|casting| ("pins", casting));
        let line = |(what, casting): (&str, &Casting)| {
            let parts = self.names.iter().zip(casting.parts());
            let parts: Vec<String> =
                parts.map(|(name, part)| format!("{} is {}", name.as_str(), part.name)).collect();
            format!("{what} of the plan {}: {}", casting.plan.name, parts.join(", "))
        };
        load.into_iter().chain(pin).map(line).collect()
    }

    fn manifest(&self) -> Manifest {
        let vms = self.options.vms;
        let exe = |vm: &Vm| std::fs::read_link(format!("/proc/{}/exe", vm.pid)).ok();
        let program: PathBuf = vms.iter().find_map(exe).unwrap_or_default();
        let facts = host::facts(&program, vslice_host::host_disks::under_vms(vms));
        let accelerators: BTreeSet<&str> = vms
            .iter()
            .map(|vm| vm.accelerator.as_deref().unwrap_or("an unknown accelerator"))
            .collect();
        let are_known = vms.iter().all(|vm| vm.accelerator.is_some());
        let found = "the VMs were found running".to_owned();
        let parts: Vec<Option<&VmPlan>> = match self.options.load {
            Some(load) => load.casting.parts().map(Some).collect(),
            None => vec![None; vms.len()],
        };
        let records = vms.iter().zip(&self.names).zip(parts);
        Manifest {
            schema: SCHEMA.to_owned(),
            status: Status::Recording,
            plan: serde_json::json!({
                "attached": vms,
                "exits": self.options.exits,
                "load": self.options.load.map(|load| &load.casting.plan),
                "pin": self.options.pin.map(|casting| &casting.plan),
            }),
            plan_name: "attach".to_owned(),
            accelerator: accelerators.into_iter().collect::<Vec<_>>().join(" and "),
            accelerator_reason: if are_known {
                found
            } else {
                format!("{found}; {NO_ACCELERATOR}")
            },
            vsock_way: NO_AGENT.to_owned(),
            environment_lines: [facts.lines(), self.casting_lines()].concat(),
            environment: serde_json::to_value(facts).unwrap_or_default(),
            collector_pid: Tid(std::process::id()),
            image: serde_json::Value::Null,
            window: None,
            vms: records.map(|((vm, name), part)| record_of(vm, name, part)).collect(),
            pcpus: self.pcpus.iter().copied().collect(),
            evidence: self.evidence.planned(),
            sampling: None,
            cost: Cost::default(),
            host_tsc: Vec::new(),
            stolen_ns: None,
            frequency: FrequencyRecord::default(),
        }
    }
}

fn record_of(vm: &Vm, name: &VmName, part: Option<&VmPlan>) -> VmRecord {
    let threads = vm.threads.iter().map(|thread| ThreadRecord {
        tid: thread.tid,
        comm: thread.comm.clone(),
        role: thread.role.clone(),
        vcpu: thread.vcpu,
        pinned: None,
        kept: None,
        scheduling: vslice_host::scheduling::scheduling_of(thread.tid),
    });
    let record = VmRecord::new(name.as_str(), vm.vmm, vm.pid, threads.collect());
    match part {
        Some(part) => crate::run::stage::with_load(record, part),
        None => record,
    }
}

/// What an attach knows of VMs beside what it records: who runs them, their threads and their locks.
pub(crate) fn records_of(vms: &[Vm]) -> Vec<VmRecord> {
    let named = vms.iter().zip(names_of(vms));
    let mut records: Vec<VmRecord> = named.map(|(vm, name)| record_of(vm, &name, None)).collect();
    lock_facts::note_locks(&mut records);
    records
}

#[cfg(test)]
mod tests;
