//! Guests on stage: from the first boot message to the last request.

use super::error::RunError;
use super::evidence::EvidencePlan;
use super::measurement::{Measurement, Work};
use super::observer::Observer;
use super::options::RunOptions;
use super::seats::{LOOK_INTERVAL, Seats};
use super::tsc_watch::TscWatch;
use super::watch::Watcher;
use super::{disk_notes, lock_facts};
use crate::lab::launch::{self, Lab, LabConfig};
use crate::lab::plan::{Plan, VmPlan};
use std::thread;
use std::time::{Duration, Instant};
use vslice_core::units::{Tid, VcpuId};
use vslice_host::pin::Pinning;
use vslice_host::scratch;
use vslice_host::threads::{self, ThreadRole, ThreadsError, VmmThread};
use vslice_trace::RunDir;
use vslice_trace::manifest::{Manifest, VmRecord};
use vslice_trace::thread::ThreadRecord;
use vslice_trace::vmm::Vmm;

/// Between two looks for threads that QEMU has started meanwhile.
pub(super) const THREADS_INTERVAL: Duration = Duration::from_millis(500);
/// Readers that have read nothing for so long are given up: a disk may be slow, but a recording must
/// not go on for ever because a guest says that it lives and never that it is done.
const STALL_MAX: Duration = Duration::from_secs(300);

/// What does not change during a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) plan: &'a Plan,
    pub(super) options: &'a RunOptions<'a>,
    pub(super) config: &'a LabConfig<'a>,
    pub(super) evidence: &'a EvidencePlan,
    pub(super) dir: &'a RunDir,
}

/// Guests that have been started, with a session each.
pub(super) struct Stage<'run, 'scope> {
    pub(super) run: &'run Run<'run>,
    pub(super) lab: &'run mut Lab,
    pub(super) seats: &'run mut Seats<'scope>,
}

/// What goes on while it is recorded.
struct Play<'stage, 'run, 'scope> {
    stage: &'stage mut Stage<'run, 'scope>,
    pinning: Pinning,
}

impl Stage<'_, '_> {
    /// From the first boot message to the last request.
    pub(super) fn play(
        &mut self,
        manifest: &mut Manifest,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        self.seats.wait_until_ready(|| Ok(self.lab.check()?))?;
        watcher.stage("pinning threads, starting to record");
        let mut pinning = Pinning::new(&scratch::parent_dir())?;
        self.pin(&mut pinning, threads::list_with_kernel)?;
        manifest.vms = self.vm_records()?;
        lock_facts::note(&mut manifest.vms, self.lab.guests());
        self.note_disks(&mut manifest.vms);
        let measurement = Measurement {
            dir: self.run.dir,
            home: Some(self.run.plan.collector_pcpu),
            evidence: self.run.evidence,
            accelerator: self.run.config.accelerator,
            exits: self.run.plan.exits,
        };
        measurement.make(manifest, watcher, &mut Play { stage: self, pinning })
    }

    fn pin(
        &self,
        pinning: &mut Pinning,
        list: impl Fn(Tid) -> Result<Vec<VmmThread>, ThreadsError>,
    ) -> Result<(), RunError> {
        for (vm, pid) in self.guests() {
            pinning.apply(&launch::pins(self.run.plan, vm, &list(pid)?))?;
        }
        Ok(())
    }

    /// The plan's VMs with the processes of their QEMUs.
    fn guests(&self) -> impl Iterator<Item = (&VmPlan, Tid)> {
        let guests = self.run.plan.vms.iter().zip(self.lab.guests());
        guests.filter_map(|(vm, guest)| Some((vm, guest.qemu_pid()?)))
    }

    fn note_disks(&self, vms: &mut [VmRecord]) {
        let guests = self.run.plan.vms.iter().zip(self.lab.guests()).zip(self.seats.ready());
        for (vm, ((planned, guest), said)) in vms.iter_mut().zip(guests) {
            if let Some(reader) = &planned.reader {
                let images = disk_notes::images_of_lab(planned, guest);
                disk_notes::note(vm, reader, Ok(images), said);
            }
        }
    }

    fn vm_records(&self) -> Result<Vec<VmRecord>, RunError> {
        let devices = self.lab.guests().iter().map(launch::Guest::device_pid);
        let records = self.guests().zip(devices);
        records.map(|((vm, pid), device)| vm_record(self.run.plan, vm, pid, device)).collect()
    }
}

impl Work for Play<'_, '_, '_> {
    fn go_on(
        &mut self,
        observer: &Observer,
        tscs: &mut TscWatch,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        watcher.stage("running the workloads");
        let stage = &mut *self.stage;
        stage.seats.start();
        let mut progress = ReadProgress::new(stage.run.plan.vms.iter());
        let mut threads_at = Instant::now();
        loop {
            stage.seats.look(|| Ok(stage.lab.check()?))?;
            progress.look(stage.seats, watcher)?;
            if let Some(result) = stage.seats.readers_are_done() {
                return result;
            }
            if observer.has_ended() {
                return Ok(());
            }
            if threads_at.elapsed() >= THREADS_INTERVAL {
                threads_at = Instant::now();
                stage.pin(&mut self.pinning, threads::list)?;
            }
            tscs.turn();
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn wind_down(&mut self) -> Result<(), RunError> {
        self.stage.seats.stop()
    }
}

/// How far readers have come, for whoever watches.
#[derive(Debug)]
pub(super) struct ReadProgress {
    expected_count: u64,
    /// The requests at the last progress, and when that was.
    read: (u64, Instant),
}

impl ReadProgress {
    /// The readers of these VMs, before they begin.
    pub(super) fn new<'a>(vms: impl Iterator<Item = &'a VmPlan>) -> ReadProgress {
        let readers = vms.filter_map(|vm| vm.reader.as_ref());
        let counts = readers.map(|reader| reader.total_bytes.div_ceil(reader.block_bytes.max(1)));
        ReadProgress { expected_count: counts.sum(), read: (0, Instant::now()) }
    }

    /// Tells the watcher.
    ///
    /// # Errors
    /// [`RunError::Stalled`] once nothing has been read for [`STALL_MAX`].
    pub(super) fn look(
        &mut self,
        seats: &Seats<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        let glance = seats.glance();
        watcher.progress(&glance, self.expected_count);
        if glance.requests_count > self.read.0 {
            self.read = (glance.requests_count, Instant::now());
        } else if self.read.1.elapsed() > STALL_MAX {
            return Err(RunError::Stalled { seconds: STALL_MAX.as_secs() });
        }
        Ok(())
    }
}

/// The threads of one VM as they are now, with what the plan says of them.
fn vm_record(
    plan: &Plan,
    vm: &VmPlan,
    pid: Tid,
    device_pid: Option<Tid>,
) -> Result<VmRecord, RunError> {
    let threads = threads::list_with_kernel(pid)?;
    let pins = launch::pins(plan, vm, &threads);
    let pinned = |tid| pins.iter().find(|pin| pin.tid == tid).map(|pin| pin.pcpu);
    let has = |vcpu| threads.iter().any(|thread| thread.role == ThreadRole::Vcpu(vcpu));
    if let Some(vcpu) = (0..vm.vcpus).map(VcpuId).find(|vcpu| !has(*vcpu)) {
        return Err(RunError::NoVcpuThread { vm: vm.name.clone(), missing: vcpu.to_string() });
    }
    let threads = threads.iter().map(|thread| ThreadRecord {
        tid: thread.tid,
        comm: thread.comm.clone(),
        role: thread.role.to_string(),
        vcpu: match &thread.role {
            ThreadRole::Vcpu(vcpu) => Some(*vcpu),
            _ => None,
        },
        pinned: pinned(thread.tid),
        kept: None,
        scheduling: vslice_host::scheduling::scheduling_of(thread.tid),
    });
    Ok(VmRecord {
        device_pid,
        ..with_load(VmRecord::new(&vm.name, Vmm::Qemu, pid, threads.collect()), vm)
    })
}

/// The same VM, with what a plan lets its agent do.
#[must_use]
pub(super) fn with_load(record: VmRecord, plan: &VmPlan) -> VmRecord {
    let reader = plan.reader.as_ref();
    VmRecord {
        block_bytes: reader.and_then(|reader| u32::try_from(reader.block_bytes).ok()),
        reader_vcpu: reader.map(|reader| reader.vcpu),
        hogs: plan.hogs.clone(),
        ..record
    }
}
