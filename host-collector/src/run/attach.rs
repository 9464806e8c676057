//! A recording of VMs that are there already. Nothing of them is changed and nothing is asked of them:
//! without an agent in the guest there are no requests, but why each vCPU left its pCPU, and who had
//! it instead.

use super::census::host_threads;
use super::error::RunError;
use super::evidence::{EvidencePlan, EvidenceSetting};
use super::home::HomePcpu;
use super::lock_facts;
use super::manifest::{Cost, Manifest, SCHEMA, Status, ThreadRecord, VmRecord, Window};
use super::observer::{Observer, record_plan};
use super::stage::own_cpu_ns;
use super::uninterrupted::Before;
use super::watch::Watcher;
use super::{close, quota, reserve};
use crate::guest::exchange::host_now;
use crate::lab::scratch;
use crate::perf::{KvmDetail, Recorder};
use crate::report::evidence::{Evidence, EvidenceLevel};
use crate::store::{EventWriters, RunDir, VmName};
use crate::units::{PcpuId, Tid};
use crate::vmm::found::FoundVm;
use crate::vmm::host::{self, HostPcpus};
use crate::vmm::procfs::{self, StartTicks};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the VMs and the recorder.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What a name in the run directory has room for.
const NAME_CHARS_MAX: usize = 32;

/// What is recorded, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct AttachOptions<'a> {
    /// The VMs.
    pub vms: &'a [FoundVm],
    /// The run directory, made by the recording.
    pub output: &'a Path,
    /// How long; `None` until it is interrupted or a VM ends.
    pub duration: Option<Duration>,
    /// How well the VMs' threads must be seen.
    pub evidence: EvidenceSetting,
    /// Whether every exit is recorded, which costs.
    pub exits: bool,
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

impl<'a> Attachment<'a> {
    /// Finds out whether the VMs can be recorded; makes the run directory last.
    ///
    /// # Errors
    /// Why they cannot. Nothing was made then.
    pub fn prepare(options: AttachOptions<'a>) -> Result<Attachment<'a>, RunError> {
        if let Some(vm) = options.vms.iter().find(|vm| vm.vcpus().next().is_none()) {
            return Err(RunError::UnseenVcpus { vm: vm.label() });
        }
        let evidence = EvidencePlan::of_host(options.evidence)?;
        let online: BTreeSet<PcpuId> = HostPcpus::online()?.iter().collect();
        let vcpus = options.vms.iter().flat_map(FoundVm::vcpus);
        let pcpus: BTreeSet<PcpuId> =
            vcpus.flat_map(|thread| thread.affinity.iter().copied()).collect();
        let home = online.difference(&pcpus).next().copied();
        let names = names_of(options.vms);
        let start = |vm: &FoundVm| {
            let gone = RunError::VmEnded { vm: vm.label(), pid: vm.pid };
            Ok((vm.pid, procfs::start_ticks(vm.pid).ok_or(gone)?))
        };
        let starts = options.vms.iter().map(start).collect::<Result<_, RunError>>()?;
        let dir = RunDir::create(options.output)?;
        Ok(Attachment { options, evidence, names, starts, pcpus, home, dir })
    }

    /// Records until the time is over, an interrupt comes or a VM ends.
    ///
    /// # Errors
    /// Why it ended early; what was recorded until then is in the run directory.
    pub fn record(&self, watcher: &mut dyn Watcher) -> Result<(), RunError> {
        let mut manifest = self.manifest();
        let result = self.make(&mut manifest, watcher);
        close(&self.dir, &mut manifest, result)
    }

    fn make(&self, manifest: &mut Manifest, watcher: &mut dyn Watcher) -> Result<(), RunError> {
        self.dir.write_json("run.json", manifest)?;
        reserve::take(&self.dir)?;
        let home = self.home.map(HomePcpu::move_to);
        lock_facts::note_locks(&mut manifest.vms);
        let recorder = |manifest: &Manifest| self.recorder(manifest);
        let observer =
            Observer::start(&self.dir, self.home, self.evidence.clone(), manifest, recorder)?;
        let Evidence { level, reason, .. } = &manifest.evidence;
        if *level != EvidenceLevel::Recorded {
            watcher.stage(&format!("no events are recorded, only {}: {reason}", level.name()));
        }
        // After the start, so that the recorder's own threads are in it, and nobody is born between.
        self.dir.write_json("threads.json", &host_threads())?;
        quota::note_start(&mut manifest.vms);
        let before = Before::read(&manifest.vms);
        let cpu_before_ns = own_cpu_ns();
        manifest.window = Some(Window { start_ns: host_now(), end_ns: None });
        self.dir.write_json("run.json", manifest)?;
        watcher.stage(&self.what_goes_on());
        let waited = self.wait(&observer);
        if let Some(window) = &mut manifest.window {
            window.end_ns = Some(host_now());
        }
        before.note(&mut manifest.vms);
        quota::note_end(&mut manifest.vms);
        manifest.cost.cpu_ns = own_cpu_ns().saturating_sub(cpu_before_ns);
        let recorded = observer.finish(&self.dir, manifest);
        drop(home);
        // What happened first is what the other follows from.
        waited.and(recorded)
    }

    fn wait(&self, observer: &Observer) -> Result<(), RunError> {
        let begun = Instant::now();
        let is_over = || self.options.duration.is_some_and(|duration| begun.elapsed() >= duration);
        // An observer that has ended says why when it is finished.
        while !is_over() && !observer.has_ended() {
            if self.options.interrupted.swap(false, Ordering::Relaxed) {
                return Ok(());
            }
            let mut vms = self.options.vms.iter().zip(&self.starts);
            if let Some((vm, _)) = vms.find(|(_, (pid, start))| !procfs::is_alive(*pid, *start)) {
                return Err(RunError::VmEnded { vm: vm.label(), pid: vm.pid });
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn what_goes_on(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(VmName::as_str).collect();
        let until = match self.options.duration {
            Some(duration) => format!("for {} s; Ctrl-C ends it earlier", duration.as_secs_f64()),
            None => "until Ctrl-C".to_owned(),
        };
        format!("recording {} {until}", names.join(" and "))
    }

    fn recorder(&self, manifest: &Manifest) -> Result<Recorder, RunError> {
        let is_kvm = self.options.vms.iter().any(|vm| vm.accelerator.as_deref() == Some("kvm"));
        let kvm = match (is_kvm, self.options.exits) {
            (true, true) => KvmDetail::Exits,
            (true, false) => KvmDetail::DeviceAccess,
            (false, _) => KvmDetail::None,
        };
        let plan = record_plan(manifest, kvm, self.home);
        Ok(Recorder::start(&plan, EventWriters::create(&self.dir)?)?)
    }

    fn manifest(&self) -> Manifest {
        let vms = self.options.vms;
        let exe = |vm: &FoundVm| std::fs::read_link(format!("/proc/{}/exe", vm.pid)).ok();
        let program: PathBuf = vms.iter().find_map(exe).unwrap_or_default();
        let facts = host::facts(&program, &scratch::parent_dir());
        let accelerators: BTreeSet<&str> =
            vms.iter().filter_map(|vm| vm.accelerator.as_deref()).collect();
        Manifest {
            schema: SCHEMA.to_owned(),
            status: Status::Recording,
            plan: serde_json::json!({ "attached": vms, "exits": self.options.exits }),
            plan_name: "attach".to_owned(),
            accelerator: accelerators.into_iter().collect::<Vec<_>>().join(" and "),
            accelerator_reason: "the VMs were found running".to_owned(),
            vsock_way: "no agent was started, so there are no requests".to_owned(),
            environment_lines: facts.lines(),
            environment: serde_json::to_value(facts).unwrap_or_default(),
            collector_pid: Tid(std::process::id()),
            image: serde_json::Value::Null,
            window: None,
            vms: vms.iter().zip(&self.names).map(|(vm, name)| record_of(vm, name)).collect(),
            pcpus: self.pcpus.iter().copied().collect(),
            evidence: self.evidence.planned(),
            sampling: None,
            cost: Cost::default(),
            host_tsc: Vec::new(),
        }
    }
}

fn record_of(vm: &FoundVm, name: &VmName) -> VmRecord {
    let threads = vm.threads.iter().map(|thread| ThreadRecord {
        tid: thread.tid,
        comm: thread.comm.clone(),
        role: thread.role.clone(),
        vcpu: thread.vcpu,
        pinned: None,
        kept: None,
    });
    VmRecord::new(name.as_str(), vm.pid, threads.collect())
}

/// Names for files, each once: what cannot be in one is a dash there, and VMs that would have one name
/// are called by their processes.
fn names_of(vms: &[FoundVm]) -> Vec<VmName> {
    let own = |vm: &FoundVm| {
        let letters = vm.name.as_deref()?.chars().take(NAME_CHARS_MAX).map(|letter| {
            if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' }
        });
        VmName::try_from(letters.collect::<String>()).ok()
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in vms.iter().filter_map(own) {
        *counts.entry(name.as_str().to_owned()).or_default() += 1;
    }
    let name = |vm: &FoundVm| {
        let single = own(vm).filter(|name| counts.get(name.as_str()) == Some(&1));
        let by_process = || VmName::try_from(format!("pid-{}", vm.pid).as_str());
        single.unwrap_or_else(|| by_process().expect("letters, digits and a dash"))
    };
    vms.iter().map(name).collect()
}
