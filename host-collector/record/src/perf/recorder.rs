//! The recorder as others see it: a plan goes in, events go to a sink, totals come out.

use super::assemble::Assembler;
use super::format::Detail;
use super::groups::Groups;
use super::kernel::process_of;
use super::machine::{Machine, Watch};
use super::reader::{Command, EventSink, Reader, Scratch};
use super::rings::PcpuRing;
use super::source::{SchedulerSource, Source};
use super::totals::{RecordCounters, RecordTotals, SharedCounters};
use super::{RecordError, SinkError};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
use vslice_core::host_event::HostEvent;
use vslice_core::units::{PcpuId, Tid};
use vslice_host::host_clock::host_now;
use vslice_perf::filter::Numbers;
use vslice_trace::evidence::{BPF_PROGRAMS, DISK_PROGRAMS, GroupEvidence, GroupSource};

/// The threads, disks and pCPUs to record, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPlan {
    /// The vCPU threads, of which it is also recorded what KVM does for them.
    pub vcpu_tids: Vec<Tid>,
    /// All threads of the VMs; the vCPU threads may be left out. Where one of them leaves a pCPU,
    /// its kernel stack and the arguments of its system call are recorded.
    pub vm_tids: Vec<Tid>,
    /// The KVM events to record.
    pub kvm: KvmDetail,
    /// The disks whose I/O is recorded, as `dev_t` in the kernel's own form: the major number in
    /// bits 20 and above, the minor number below.
    pub disks: Vec<u32>,
    /// The pCPUs to watch: every switch on them is recorded.
    pub pcpus: Vec<PcpuId>,
    /// Memory for each online pCPU's ring in bytes, rounded up to a power of two of pages.
    pub ring_bytes: usize,
    /// The pCPU of the thread that reads the ring buffers; `None` lets the scheduler choose.
    pub reader_pcpu: Option<PcpuId>,
    /// What records the scheduler's and the disks' events.
    pub scheduler_source: SchedulerSource,
}

/// How much is recorded of KVM's work for vCPU threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvmDetail {
    /// Nothing: the guests do not run under KVM.
    #[default]
    None,
    /// Each time that the VMM is asked to serve a device, and where that device was touched; if disks are recorded,
    /// each interrupt of a vCPU by a thread that runs none.
    DeviceAccess,
    /// Also each entry into the guest and each exit from it, which costs two records for each, and the end
    /// of each halt.
    Exits,
}

impl RecordPlan {
    /// The tracepoints beyond the scheduler's that it needs.
    fn details(&self) -> Vec<Detail> {
        let mut details = Vec::new();
        if self.kvm != KvmDetail::None {
            details.extend(Detail::DEVICE_ACCESS);
        }
        if self.kvm == KvmDetail::Exits {
            details.extend(Detail::EXITS);
            details.extend(Detail::HALTS);
        }
        if !self.disks.is_empty() {
            details.extend(Detail::DISK);
            if self.kvm != KvmDetail::None {
                details.extend(Detail::INTERRUPTS);
            }
        }
        details
    }

    /// Holds some 40 000 switches of one pCPU: half a second of the busiest one seen.
    pub const RING_BYTES_DEFAULT: usize = 4 << 20;
}

impl Default for RecordPlan {
    fn default() -> Self {
        RecordPlan {
            vcpu_tids: Vec::new(),
            vm_tids: Vec::new(),
            kvm: KvmDetail::None,
            disks: Vec::new(),
            pcpus: Vec::new(),
            ring_bytes: RecordPlan::RING_BYTES_DEFAULT,
            reader_pcpu: None,
            scheduler_source: SchedulerSource::default(),
        }
    }
}

/// A running recording. Dropping it stops it and discards the totals.
#[derive(Debug)]
pub struct Recorder {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    counters: Arc<SharedCounters>,
    group_evidence: GroupEvidence,
    /// `None` once it is joined.
    reader: Option<JoinHandle<RecordTotals>>,
}

impl Recorder {
    /// Opens everything, starts the reader's thread and then enables all events.
    ///
    /// # Errors
    /// Fails if the host or missing privileges do not allow it; nothing is left open then.
    pub fn start(plan: &RecordPlan, sink: impl EventSink) -> Result<Recorder, RecordError> {
        let machine = Machine::ask(&plan.details())?;
        let watch = watch_of(plan);
        let offline = plan.pcpus.iter().chain(&plan.reader_pcpu);
        if let Some(pcpu) = offline.into_iter().find(|pcpu| !machine.online.contains(pcpu)) {
            return Err(RecordError::PcpuOffline(*pcpu));
        }
        let mut opened = 0;
        let ring_bytes = machine.ring_bytes(plan.ring_bytes);
        let (mut source, mut refusal) = Source::choose(&machine, &watch, plan.scheduler_source);
        if let Err(error) = source.attach() {
            (source, refusal) = (Source::Tracepoints, Some(error));
        }
        let open = |pcpu: &PcpuId| {
            PcpuRing::open(&machine, &source, &watch, *pcpu, ring_bytes, &mut opened)
        };
        let mut rings = machine.online.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let evidence = source.group_evidence(&machine.groups);
        let are_told = evidence.source == GroupSource::Events;
        let groups = Groups::new(machine.groups.clone().ok().filter(|_| are_told));
        let mut assembler = Assembler::new(machine.formats.clone(), source.code(), groups);
        for tid in &watch.threads {
            assembler.add_thread(*tid, process_of(Tid(*tid)));
        }
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let wake = Arc::new(wake.map_err(|error| host("make an eventfd", error.into()))?);
        let (commands, orders) = channel();
        let counters = Arc::new(SharedCounters::default());
        for ring in &mut rings {
            ring.enable(host_now())?;
        }
        let mut missing = machine.missing.clone();
        let has_none = refusal.is_some();
        missing.extend(refusal.map(|_| BPF_PROGRAMS));
        let is_by_programs = plan.scheduler_source == SchedulerSource::Programs;
        // Where a tracepoint is missing nothing else tells of disks, and that is said of the tracepoint.
        let are_refused = has_none || matches!(source.disks(), Err(Some(_)));
        if is_by_programs && !plan.disks.is_empty() && are_refused {
            missing.push(DISK_PROGRAMS);
        }
        let totals = RecordTotals { started: host_now(), missing, ..RecordTotals::default() };
        let reader = Reader {
            machine,
            source,
            rings,
            assembler,
            sink,
            watch,
            commands: orders,
            wake: Arc::clone(&wake),
            counters: Arc::clone(&counters),
            totals,
            opened,
            scratch: Scratch::default(),
        };
        let reader = spawn(reader, plan.reader_pcpu)?;
        Ok(Recorder { commands, wake, counters, group_evidence: evidence, reader: Some(reader) })
    }

    /// Also records these threads wherever they are. Threads that are born to the VMs' processes need
    /// no call. Without programs each call costs up to two events on each pCPU, so say many threads at
    /// once.
    ///
    /// # Errors
    /// When the events cannot be opened; the recording goes on without them.
    pub fn add_threads(&self, tids: &[Tid]) -> Result<(), RecordError> {
        let (answer, answered) = sync_channel(1);
        self.send(Command::AddThreads(tids.to_vec(), answer))?;
        answered.recv().map_err(|_| RecordError::ReaderGone)?
    }

    /// How the control groups of threads are known.
    #[must_use]
    pub fn group_evidence(&self) -> &GroupEvidence {
        &self.group_evidence
    }

    /// The counters as of the last time the ring buffers were read.
    #[must_use]
    pub fn counters(&self) -> RecordCounters {
        self.counters.snapshot()
    }

    /// Whether recording has ended by itself; [`Recorder::stop`] then says why.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Disables all events, hands the rest to the sink, finishes it and closes everything.
    ///
    /// # Errors
    /// [`RecordError::ReaderGone`] if the reader's thread has panicked. Other failures are in
    /// [`RecordTotals::ended_early`], because what was recorded before them is worth keeping.
    pub fn stop(mut self) -> Result<RecordTotals, RecordError> {
        self.join().ok_or(RecordError::ReaderGone)
    }

    fn join(&mut self) -> Option<RecordTotals> {
        // A reader that has ended by itself takes no command, and needs none.
        let _ = self.send(Command::Stop);
        self.reader.take()?.join().ok()
    }

    fn send(&self, command: Command) -> Result<(), RecordError> {
        self.commands.send(command).map_err(|_| RecordError::ReaderGone)?;
        self.wake.write(1).map_err(|error| host("wake the reader", error.into()))?;
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.join();
    }
}

/// Whether this process may record what [`Recorder::start`] records: tries it with one small ring
/// for each pCPU and no threads, and undoes it.
///
/// # Errors
/// What is missing, as a sentence.
pub fn check_rights() -> Result<(), RecordError> {
    let nobody = |_: PcpuId, _: &[HostEvent]| -> Result<(), SinkError> { Ok(()) };
    let plan = RecordPlan { ring_bytes: 1, ..RecordPlan::default() };
    Recorder::start(&plan, nobody)?.stop().map(drop)
}

fn watch_of(plan: &RecordPlan) -> Watch {
    let numbers = |tids: &[Tid]| tids.iter().map(|tid| tid.0).collect::<Numbers>();
    let vcpus = numbers(&plan.vcpu_tids);
    let threads = &numbers(&plan.vm_tids) | &vcpus;
    let pcpus = plan.pcpus.iter().map(|pcpu| pcpu.0).collect();
    let disks = plan.disks.iter().copied().collect();
    Watch { vcpus, stacked: threads.clone(), threads, disks, pcpus }
}

fn spawn<S: EventSink>(
    reader: Reader<S>,
    pcpu: Option<PcpuId>,
) -> Result<JoinHandle<RecordTotals>, RecordError> {
    let builder = Builder::new().name("vslice-perf".into());
    let run = move || {
        if let Some(pcpu) = pcpu {
            pin(pcpu);
        }
        reader.run()
    };
    builder.spawn(run).map_err(|source| host("start the reader's thread", source))
}

/// Pins the calling thread. The pCPU was online a moment ago; where that fails nevertheless, the
/// reader runs anywhere rather than not at all.
fn pin(pcpu: PcpuId) {
    let mut pcpus = CpuSet::new();
    let place = usize::try_from(pcpu.0).unwrap_or(usize::MAX);
    if pcpus.set(place).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(0), &pcpus);
    }
}

fn host(doing: &'static str, source: io::Error) -> RecordError {
    RecordError::Host { doing, source }
}
