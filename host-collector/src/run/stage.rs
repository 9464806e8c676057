//! Guests on stage: from the first boot message to the last request.

use super::census::host_threads;
use super::disk_notes;
use super::error::RunError;
use super::evidence::EvidencePlan;
use super::lock_facts;
use super::manifest::{Manifest, ThreadRecord, VmRecord, Window};
use super::observer::{Observer, record_plan};
use super::options::RunOptions;
use super::quota;
use super::seat::Seat;
use super::tsc_watch::TscWatch;
use super::uninterrupted::Before;
use super::watch::Watcher;
use crate::guest::exchange::host_now;
use crate::guest::live::{Glance, Live};
use crate::guest::session::Command;
use crate::lab::launch::{self, Lab, LabConfig};
use crate::lab::plan::{Accelerator, Plan, VmPlan};
use crate::lab::scratch;
use crate::perf::{KvmDetail, Recorder};
use crate::report::evidence::{Evidence, EvidenceLevel};
use crate::store::{EventWriters, RunDir};
use crate::units::{Tid, VcpuId};
use crate::vmm::pin::Pinning;
use crate::vmm::threads::{self, ThreadRole, ThreadsError, VmmThread};
use nix::sys::resource::{UsageWho, getrusage};
use std::thread;
use std::time::{Duration, Instant};
use vslice_wire::DoneReason;

/// Between two looks at guests, sessions and the recorder.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Between two looks for threads that QEMU has started meanwhile.
const THREADS_INTERVAL: Duration = Duration::from_millis(500);
/// How long the workloads may take to stop, and after that the sessions to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Readers that have read nothing for so long are given up: a disk may be slow, but a recording must
/// not go on for ever because a guest says that it lives and never that it is done.
const STALL_MAX: Duration = Duration::from_secs(300);
/// How long a process may take from closing its connections to its end.
const ENDING_TIME: Duration = Duration::from_secs(2);

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
    pub(super) seats: Vec<Seat<'scope>>,
    pub(super) lives: &'run [Live],
}

impl Stage<'_, '_> {
    /// From the first boot message to the last request.
    pub(super) fn play(
        &mut self,
        manifest: &mut Manifest,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        self.wait_until_ready()?;
        watcher.stage("pinning threads, starting to record");
        let mut pinning = Pinning::new(&scratch::parent_dir())?;
        self.pin(&mut pinning, threads::list_with_kernel)?;
        manifest.vms = self.vm_records()?;
        lock_facts::note(&mut manifest.vms, self.lab.guests());
        disk_notes::note(&mut manifest.vms, self.run.plan, self.lab.guests());
        let evidence = self.run.evidence.clone();
        let record = |manifest: &Manifest| self.record(manifest);
        let home = Some(self.run.plan.collector_pcpu);
        let observer = Observer::start(self.run.dir, home, evidence, manifest, record)?;
        let Evidence { level, reason, .. } = &manifest.evidence;
        if *level != EvidenceLevel::Recorded {
            watcher.stage(&format!("no events are recorded, only {}: {reason}", level.name()));
        }
        // After the start, so that the recorder's own threads are in it, and nobody is born between.
        self.run.dir.write_json("threads.json", &host_threads())?;
        quota::note_start(&mut manifest.vms);
        let mut tscs = TscWatch::start(&manifest.vms, self.run.config.accelerator);
        tscs.write(manifest);
        let before = Before::read(&manifest.vms);
        let cpu_before_ns = own_cpu_ns();
        manifest.window = Some(Window { start_ns: host_now(), end_ns: None });
        self.run.dir.write_json("run.json", manifest)?;
        watcher.stage("running the workloads");
        let workload = self.run_workloads(&observer, &mut pinning, &mut tscs, watcher);
        if let Some(window) = &mut manifest.window {
            window.end_ns = Some(host_now());
        }
        before.note(&mut manifest.vms);
        quota::note_end(&mut manifest.vms);
        tscs.finish(manifest);
        if matches!(workload, Err(RunError::Interrupted)) {
            watcher.stage("interrupted, closing the run; interrupt once more not to wait for that");
        }
        let stopped = self.stop_workloads();
        manifest.cost.cpu_ns = own_cpu_ns().saturating_sub(cpu_before_ns);
        let recorded = observer.finish(self.run.dir, manifest);
        // What happened first is what the others follow from.
        workload.and(stopped).and(recorded)
    }

    fn wait_until_ready(&mut self) -> Result<(), RunError> {
        loop {
            self.look()?;
            if self.seats.iter().all(|seat| seat.is_ready) {
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn run_workloads(
        &mut self,
        observer: &Observer,
        pinning: &mut Pinning,
        tscs: &mut TscWatch,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        self.seats.iter().for_each(|seat| seat.tell(Command::Start));
        let expected_count = self.expected_count();
        let mut threads_at = Instant::now();
        let mut read = (0, Instant::now());
        loop {
            self.look()?;
            let glance = self.glance();
            watcher.progress(&glance, expected_count);
            if glance.requests_count > read.0 {
                read = (glance.requests_count, Instant::now());
            } else if read.1.elapsed() > STALL_MAX {
                return Err(RunError::Stalled { seconds: STALL_MAX.as_secs() });
            }
            if let Some(result) = self.readers_are_done() {
                return result;
            }
            if observer.has_ended() {
                // `Observer::finish` says why.
                return Ok(());
            }
            if threads_at.elapsed() >= THREADS_INTERVAL {
                threads_at = Instant::now();
                self.pin(pinning, threads::list)?;
            }
            tscs.turn();
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// `None` while a reader reads. One that was stopped, and not by this run, has not read all.
    fn readers_are_done(&self) -> Option<Result<(), RunError>> {
        for seat in self.seats.iter().filter(|seat| seat.has_reader) {
            if seat.done?.reason != DoneReason::Completed {
                return Some(Err(RunError::StoppedItself { vm: seat.vm.clone() }));
            }
        }
        Some(Ok(()))
    }

    fn stop_workloads(&mut self) -> Result<(), RunError> {
        self.seats.iter().for_each(|seat| seat.tell(Command::Stop));
        self.wait_for_all("end its workload", |seat| seat.done.is_some() || seat.is_over())
    }

    /// Ends the sessions: in peace with guests that were ready, at once with those that were not.
    /// The first error is the one that counts.
    pub(super) fn end(&mut self, result: Result<(), RunError>) -> Result<(), RunError> {
        for seat in &mut self.seats {
            if seat.is_ready {
                seat.tell(Command::Close);
            } else {
                seat.give_up();
            }
        }
        let closed = self.wait_for_all("close its clock map", |seat| seat.is_over());
        self.seats.iter_mut().for_each(Seat::give_up);
        let joined = self.seats.iter_mut().map(Seat::join).fold(Ok(()), Result::and);
        result.and(closed).and(joined)
    }

    /// Waits until every guest has done what it was told, for [`STOP_TIMEOUT`] at most. A guest that
    /// fails meanwhile does not hinder the others. An interrupt ends the waiting: either it is the
    /// second one, or all that is left to do is to close what has been recorded.
    fn wait_for_all(
        &mut self,
        task: &'static str,
        has_done: impl Fn(&Seat<'_>) -> bool,
    ) -> Result<(), RunError> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut result = Ok(());
        loop {
            result = result.and(self.look_at_sessions());
            let waiting = self.seats.iter().filter(|seat| !has_done(seat));
            let waiting: Vec<&str> = waiting.map(|seat| seat.vm.as_str()).collect();
            if waiting.is_empty() {
                return result;
            }
            if self.run.options.take_interrupt() {
                return result.and(Err(RunError::Interrupted));
            }
            if Instant::now() >= deadline {
                let (waiting, seconds) = (waiting.join(" and "), STOP_TIMEOUT.as_secs());
                return result.and(Err(RunError::Unresponsive { waiting, task, seconds }));
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Whether everything is still as it should be.
    fn look(&mut self) -> Result<(), RunError> {
        if self.run.options.take_interrupt() {
            return Err(RunError::Interrupted);
        }
        // QEMU first: why it ended says more than that its connection did.
        self.lab.check()?;
        let Err(error) = self.look_at_sessions() else { return Ok(()) };
        // A QEMU that is ending closes its connections before its end can be seen.
        let deadline = Instant::now() + ENDING_TIME;
        while error.is_lost_connection() && Instant::now() < deadline {
            self.lab.check()?;
            thread::sleep(LOOK_INTERVAL);
        }
        Err(error)
    }

    /// Takes all sessions' news; the first error of one that has ended before its end.
    fn look_at_sessions(&mut self) -> Result<(), RunError> {
        self.seats.iter_mut().map(Seat::look).fold(Ok(()), Result::and)
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

    fn vm_records(&self) -> Result<Vec<VmRecord>, RunError> {
        let devices = self.lab.guests().iter().map(launch::Guest::device_pid);
        let records = self.guests().zip(devices);
        records.map(|((vm, pid), device)| vm_record(self.run.plan, vm, pid, device)).collect()
    }

    fn record(&self, manifest: &Manifest) -> Result<Recorder, RunError> {
        let kvm = match self.run.config.accelerator {
            Accelerator::Kvm if self.run.plan.exits => KvmDetail::Exits,
            Accelerator::Kvm => KvmDetail::DeviceAccess,
            Accelerator::Tcg => KvmDetail::None,
        };
        let plan = record_plan(manifest, kvm, Some(self.run.plan.collector_pcpu));
        Ok(Recorder::start(&plan, EventWriters::create(self.run.dir)?)?)
    }

    fn expected_count(&self) -> u64 {
        let readers = self.run.plan.vms.iter().filter_map(|vm| vm.reader.as_ref());
        readers.map(|reader| reader.total_bytes.div_ceil(reader.block_bytes.max(1))).sum()
    }

    /// All readers together: their requests, and the percentiles of the slowest.
    fn glance(&self) -> Glance {
        let later = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        self.lives.iter().map(Live::glance).fold(Glance::default(), |sum, one| Glance {
            requests_count: sum.requests_count + one.requests_count,
            p50_ns: later(sum.p50_ns, one.p50_ns),
            p99_ns: later(sum.p99_ns, one.p99_ns),
        })
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
    });
    Ok(VmRecord {
        device_pid,
        block_bytes: vm.reader.as_ref().and_then(|r| u32::try_from(r.block_bytes).ok()),
        reader_vcpu: vm.reader.as_ref().map(|reader| reader.vcpu),
        hogs: vm.hogs.clone(),
        ..VmRecord::new(&vm.name, pid, threads.collect())
    })
}

/// CPU time that this process has used, user and system.
pub(super) fn own_cpu_ns() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0 };
    let ns = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
            + u64::try_from(time.tv_usec()).unwrap_or(0) * 1000
    };
    ns(usage.user_time()) + ns(usage.system_time())
}
