//! A recording of VMs, from an empty run directory to a whole one: the same whether the VMs were launched
//! for it or found running.

use crate::error::RecordingError;
use crate::evidence::EvidencePlan;
use crate::guest_sessions::{GuestSessions, SessionsEnd, with_sessions};
use crate::guests::{Guests, RecordedVm};
use crate::kept::Kept;
use crate::live::LiveTap;
use crate::measurement::Measurement;
use crate::pins::KeptPins;
use crate::recorded_work::RecordedWork;
use crate::until::UntilOver;
use crate::vm_record::vm_record;
use crate::watcher::Watcher;
use crate::{disk_notes, image_notes, lock_facts};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use vslice_core::text::sentence;
use vslice_core::units::{PcpuId, Tid};
use vslice_host::collector_affinity::CollectorAffinity;
use vslice_host::pin::VmPins;
use vslice_trace::host::HostFacts;
use vslice_trace::manifest::{Manifest, Status};
use vslice_trace::vmm::Accelerator;
use vslice_trace::{RunDir, StoreError};

/// What is recorded, and for how long.
#[derive(Debug, Clone)]
pub struct RecordingOptions<'a> {
    /// How the VMs' threads are seen.
    pub evidence: EvidencePlan,
    /// Whether every exit is recorded where there are any, which costs.
    pub exits: bool,
    /// On these pCPUs every switch is recorded: wherever a vCPU may run.
    pub pcpus: BTreeSet<PcpuId>,
    /// Where the collector stays, if there is a pCPU for it.
    pub collector_pcpu: Option<PcpuId>,
    /// Where the threads of each VM are pinned to meanwhile; `None` to leave them where they are.
    pub pins: Option<Vec<VmPins>>,
    /// Whether each QEMU is asked by its monitor for the addresses of its devices.
    pub asks_monitors: bool,
    /// Whoever looks on meanwhile.
    pub live: Option<LiveTap>,
    /// When it is over.
    pub until: UntilOver,
    /// Set from outside when it shall end.
    pub interrupted: &'a AtomicBool,
}

/// What the manifest says of a recording that nobody has to find out.
#[derive(Debug, Clone)]
pub struct RecordingFacts {
    /// The plan as it is run, overrides applied; or what stands for it.
    pub plan: serde_json::Value,
    /// The plan's name.
    pub plan_name: String,
    /// What vslice launches the guests under; `None` if they were found running.
    pub accelerator_chosen: Option<Accelerator>,
    /// Why the guests run under what they run under.
    pub accelerator_reason: String,
    /// How the guests are reached.
    pub vsock_way: String,
    /// The host.
    pub environment: HostFacts,
    /// The few lines of it that a report shows.
    pub environment_lines: Vec<String>,
    /// The guests' image, if they came with one.
    pub image: serde_json::Value,
}

/// A recording that this host allows, and the directory that is now its own, if it has one.
#[derive(Debug)]
pub struct Recording<'a> {
    options: RecordingOptions<'a>,
    kept: Kept,
}

impl<'a> Recording<'a> {
    /// Makes the run directory.
    ///
    /// # Errors
    /// [`RecordingError::Output`].
    pub fn prepare(
        options: RecordingOptions<'a>,
        output: &Path,
    ) -> Result<Recording<'a>, RecordingError> {
        let dir = RunDir::create(output).map_err(|source| match source {
            StoreError::Io { .. } => RecordingError::Output { source },
            other => other.into(),
        })?;
        Ok(Recording { options, kept: Kept::in_directory(dir) })
    }

    /// One of which nothing is kept: it is for whoever looks on.
    #[must_use]
    pub fn without_directory(options: RecordingOptions<'a>) -> Recording<'a> {
        Recording { options, kept: Kept::nothing() }
    }

    /// Its directory, if it has one.
    #[must_use]
    pub fn dir(&self) -> Option<&RunDir> {
        self.kept.dir()
    }

    /// Records. Guests, sockets, affinities and tracing are as before, whichever way it ends.
    ///
    /// # Errors
    /// Why it ended early, and whether anything was measured until then, which is in the run directory.
    pub fn record(
        &self,
        facts: RecordingFacts,
        guests: &mut dyn Guests,
        watcher: &mut dyn Watcher,
    ) -> Result<(), EndedEarly> {
        let mut manifest = self.manifest(facts);
        let result = self.make(&mut manifest, guests, watcher);
        self.close(&mut manifest, result).map_err(|error| EndedEarly {
            error: Box::new(error),
            is_measured: manifest.window.is_some(),
        })
    }

    fn manifest(&self, facts: RecordingFacts) -> Manifest {
        Manifest {
            plan: facts.plan,
            plan_name: facts.plan_name,
            accelerator_chosen: facts.accelerator_chosen,
            accelerator_reason: facts.accelerator_reason,
            vsock_way: facts.vsock_way,
            environment: Some(facts.environment),
            environment_lines: facts.environment_lines,
            image: facts.image,
            exits_asked: Some(self.options.exits),
            pcpus: self.options.pcpus.iter().copied().collect(),
            evidence: self.options.evidence.planned(),
            ..Manifest::begun(Tid(std::process::id()))
        }
    }

    fn make(
        &self,
        manifest: &mut Manifest,
        guests: &mut dyn Guests,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RecordingError> {
        self.kept.write_manifest(manifest)?;
        self.kept.take_room()?;
        let opened = guests.open(watcher);
        // Sessions inherit it; the threads of VMMs that were started now are there already.
        let affinity = self.options.collector_pcpu.map(CollectorAffinity::move_to);
        let end = opened.and_then(|plans| {
            if plans.is_empty() {
                let result = self.measure(manifest, guests, None, watcher);
                return Ok(SessionsEnd { result, all_were_told: true });
            }
            with_sessions(
                &self.kept,
                plans,
                self.options.interrupted,
                manifest,
                |sessions, manifest| {
                    self.meet(sessions, manifest, guests, watcher)?;
                    self.measure(manifest, guests, Some(sessions), watcher)
                },
            )
        });
        drop(affinity);
        guests.close(end.as_ref().is_ok_and(|end| end.all_were_told), watcher);
        end?.result
    }

    /// Waits until every agent is ready.
    fn meet(
        &self,
        sessions: &mut GuestSessions<'_>,
        manifest: &mut Manifest,
        guests: &mut dyn Guests,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RecordingError> {
        let started = guests.start_agents(watcher)?;
        if let Some(images) = started.images {
            manifest.image = images;
        }
        let met = sessions.wait_until_ready(|| guests.check(), watcher);
        guests.agents_met(met)?;
        if let Some(transport) = started.transport {
            manifest.vsock_way = transport;
        }
        Ok(())
    }

    fn measure(
        &self,
        manifest: &mut Manifest,
        guests: &mut dyn Guests,
        sessions: Option<&mut GuestSessions<'_>>,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RecordingError> {
        // Why a VMM has ended it says itself; that its threads are gone says less.
        guests.check()?;
        let mut vms = guests.vms()?;
        let pins = match &self.options.pins {
            Some(pins) => {
                watcher.stage("pinning threads and starting to record");
                let kept = KeptPins::apply(pins, &vms)?;
                // QEMU may have started threads meanwhile.
                guests.check()?;
                vms = guests.vms()?;
                Some(kept)
            }
            None => None,
        };
        manifest.vms = vms.iter().map(vm_record).collect();
        if let Some(pins) = &pins {
            pins.note(&mut manifest.vms);
        }
        lock_facts::note(&mut manifest.vms, self.options.asks_monitors.then_some(&vms[..]));
        for (record, vm) in manifest.vms.iter_mut().zip(&vms) {
            image_notes::note(record, &vm.vm);
        }
        if let Some(sessions) = &sessions {
            note_disks(manifest, &vms, sessions);
        }
        let measurement = Measurement {
            kept: &self.kept,
            live: self.options.live.as_ref(),
            collector_pcpu: self.options.collector_pcpu,
            evidence: &self.options.evidence,
            exits: self.options.exits,
        };
        let workloads = vms.into_iter().filter_map(|vm| vm.workload);
        let mut work = RecordedWork::new(
            &self.options.until,
            self.options.interrupted,
            self.options.live.as_ref(),
            workloads,
            guests,
            sessions,
            pins,
        );
        measurement.make(manifest, watcher, &mut work)
    }

    /// Writes the last word of the run into its directory: how it ended, which is returned.
    fn close(
        &self,
        manifest: &mut Manifest,
        result: Result<(), RecordingError>,
    ) -> Result<(), RecordingError> {
        manifest.status = match &result {
            Ok(()) => Status::Complete,
            Err(error) => Status::Partial { why: sentence(error) },
        };
        self.kept.release_room();
        manifest.cost.written_bytes = self.kept.streams_bytes();
        // What the manifest calls complete is on the disk by then, also if the host dies in the next moment.
        let written = self.kept.sync_streams().and_then(|()| self.kept.write_manifest(manifest));
        result?;
        Ok(written?)
    }
}

/// A recording that ended before its end.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct EndedEarly {
    /// Why.
    #[source]
    pub error: Box<RecordingError>,
    /// Whether the measured window had begun, so that there is something to report on.
    pub is_measured: bool,
}

fn note_disks(manifest: &mut Manifest, vms: &[RecordedVm], sessions: &GuestSessions<'_>) {
    for ((record, vm), said) in manifest.vms.iter_mut().zip(vms).zip(sessions.ready()) {
        if let Some(reader) = vm.workload.as_ref().and_then(|workload| workload.reader.as_ref()) {
            let images = vslice_host::image::Image::of_vm(&vm.vm);
            disk_notes::note(record, reader, images, said);
        }
    }
}
