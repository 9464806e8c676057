//! The thread that empties the rings: it waits, drains, hands events to the sink and looks after
//! threads that are born.

use super::RecordError;
use super::assemble::{Assembler, Batch};
use super::kernel::process_of;
use super::machine::{Machine, Watch};
use super::rings::PcpuRing;
use super::source::Source;
use super::totals::{RecordTotals, SharedCounters};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::eventfd::EventFd;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;
use vslice_core::host_event::{HostEvent, StackId};
use vslice_core::units::{PcpuId, Tid};
use vslice_host::host_clock::host_now;
use vslice_perf::filter::Numbers;

/// The rings are read at least this often; earlier when one is a quarter full.
pub const READ_INTERVAL: Duration = Duration::from_millis(100);

/// Why a sink could not keep what it was given.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Whoever takes the recorded events. Called on the reader's thread: while it is busy, rings fill.
///
/// After an error it is not called again, but for [`EventSink::finish`].
pub trait EventSink: Send + 'static {
    /// Takes events of one pCPU, in order of time and after all that were given of it before.
    ///
    /// # Errors
    /// Ends the recording.
    fn batch(&mut self, pcpu: PcpuId, events: &[HostEvent]) -> Result<(), SinkError>;

    /// Takes a stack, innermost frame first, before the first event that names it.
    ///
    /// # Errors
    /// Ends the recording.
    fn stack(&mut self, _id: StackId, _frames: &[u64]) -> Result<(), SinkError> {
        Ok(())
    }

    /// Takes the path of a control group, after the first event that names it by its number; `None` if it was
    /// gone before it was named.
    ///
    /// # Errors
    /// Ends the recording.
    fn group(&mut self, _number: u64, _path: Option<&str>) -> Result<(), SinkError> {
        Ok(())
    }

    /// Is called at least every [`READ_INTERVAL`], also when there are no events.
    ///
    /// # Errors
    /// Ends the recording.
    fn tick(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Is called once, after everything else.
    ///
    /// # Errors
    /// When what was given could not be kept after all.
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

impl<F> EventSink for F
where
    F: FnMut(PcpuId, &[HostEvent]) -> Result<(), SinkError> + Send + 'static,
{
    fn batch(&mut self, pcpu: PcpuId, events: &[HostEvent]) -> Result<(), SinkError> {
        self(pcpu, events)
    }
}

/// What the recorder tells its reader.
#[derive(Debug)]
pub(super) enum Command {
    /// Watch these threads too.
    AddThreads(Vec<Tid>, SyncSender<Result<(), RecordError>>),
    /// Disable, drain and end.
    Stop,
}

/// Events that were opened for threads that were born during the run.
#[derive(Debug)]
struct Newborns {
    tids: Numbers,
    /// For each ring, in the same order.
    events: Vec<Vec<OwnedFd>>,
}

/// The state of the reader's thread.
pub(super) struct Reader<S> {
    pub(super) machine: Machine,
    pub(super) source: Source,
    pub(super) rings: Vec<PcpuRing>,
    pub(super) assembler: Assembler,
    pub(super) sink: S,
    pub(super) watch: Watch,
    pub(super) commands: Receiver<Command>,
    pub(super) wake: Arc<EventFd>,
    pub(super) counters: Arc<SharedCounters>,
    pub(super) totals: RecordTotals,
    /// Events that are open.
    pub(super) opened: usize,
    pub(super) scratch: Scratch,
}

/// What a reader builds up by itself.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    newborns: Vec<Newborns>,
    /// Births and deaths since they were last looked at.
    born: Numbers,
    ended: Numbers,
    /// Rings whose pCPU went offline hang up for good; polling them would spin.
    hung_up: Vec<PcpuId>,
    /// Memory that is used again for each batch.
    bytes: Vec<u8>,
    batch: Batch,
}

impl<S: EventSink> Reader<S> {
    /// Reads until it is told to stop or something fails; everything that was opened is closed
    /// when this returns.
    pub(super) fn run(mut self) -> RecordTotals {
        let reading = self.read_until_stopped();
        self.totals.stopped = host_now();
        // Whatever failed, the events are disabled and the sink is finished; but a sink that has
        // failed gets nothing more, and a ring that is corrupt is not read again.
        let disabled = self.disable();
        let failure = reading.and(disabled).and_then(|()| self.drain_the_end()).err();
        let finished = self.sink.finish().map_err(RecordError::Sink);
        self.totals.ended_early = failure.or(finished.err());
        self.totals.counters = self.counters.snapshot();
        self.totals.stacks = std::mem::take(&mut self.assembler.stacks);
        self.totals.reader_cpu_ns = own_cpu_ns();
        self.totals
    }

    fn read_until_stopped(&mut self) -> Result<(), RecordError> {
        // Threads that were born after the plan was made and before births were recorded.
        self.scratch.born.extend(self.assembler.processes().flat_map(threads_of));
        loop {
            self.wait()?;
            self.drain()?;
            self.name_groups(false)?;
            if self.obey()? {
                return Ok(());
            }
            self.look_after_newborns();
            self.sink.tick().map_err(RecordError::Sink)?;
        }
    }

    /// Disables everything; where that fails, still all the others.
    fn disable(&mut self) -> Result<(), RecordError> {
        let disabled: Vec<_> = self.rings.iter().map(PcpuRing::disable).collect();
        for group in self.scratch.newborns.drain(..) {
            for (ring, events) in self.rings.iter_mut().zip(&group.events) {
                ring.note_closing(events);
            }
        }
        disabled.into_iter().collect()
    }

    /// Drains what is left and tells the losses that no record tells of.
    fn drain_the_end(&mut self) -> Result<(), RecordError> {
        self.drain()?;
        self.name_groups(true)?;
        let until = host_now();
        for ring in &mut self.rings {
            let count = ring.untold_lost_count();
            if count > 0 {
                let event = ring.order.lost_at_the_end(until, count);
                self.counters.count(std::slice::from_ref(&event), 0);
                self.sink.batch(ring.pcpu, &[event]).map_err(RecordError::Sink)?;
            }
        }
        Ok(())
    }

    /// Until a ring is a quarter full, a command comes or the interval is over.
    fn wait(&mut self) -> Result<(), RecordError> {
        let hung_up = &self.scratch.hung_up;
        let polled = || self.rings.iter().filter(|ring| !hung_up.contains(&ring.pcpu));
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(polled().map(|ring| PollFd::new(ring.poll_fd(), PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(READ_INTERVAL).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                return Err(RecordError::Host { doing: "wait for events", source: error.into() });
            }
        }
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let is_gone = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| events.intersects(gone));
        let woken = fds[0].any().unwrap_or(false);
        let rings = polled().zip(&fds[1..]);
        let gone: Vec<PcpuId> =
            rings.filter(|(_, fd)| is_gone(fd)).map(|(ring, _)| ring.pcpu).collect();
        self.scratch.hung_up.extend(gone);
        if woken {
            // It only wakes; what is wanted is in the channel.
            let _ = self.wake.read();
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), RecordError> {
        let Scratch { bytes, batch, born, ended, .. } = &mut self.scratch;
        for ring in &mut self.rings {
            let pcpu = ring.pcpu;
            let corrupt = |source| RecordError::CorruptRing { pcpu, source };
            bytes.clear();
            batch.clear();
            ring.ring.drain(bytes).map_err(corrupt)?;
            self.assembler.assemble(bytes, &mut ring.order, batch).map_err(corrupt)?;
            born.extend(batch.born.iter().map(|tid| tid.0));
            ended.extend(batch.ended.iter().map(|tid| tid.0));
            self.totals.moved_count += batch.moved_count;
            self.totals.unknown_count += batch.unknown_count;
            self.counters.count_strange_vcpus(batch.strange_vcpus_count);
            self.counters.count(&batch.events, bytes.len());
            for id in &batch.new_stacks {
                let frames = self.assembler.stacks.frames(*id).unwrap_or_default();
                self.sink.stack(*id, frames).map_err(RecordError::Sink)?;
            }
            if !batch.events.is_empty() {
                self.sink.batch(pcpu, &batch.events).map_err(RecordError::Sink)?;
            }
        }
        Ok(())
    }

    /// Says the paths of the control groups that were seen, as far as they are known now.
    fn name_groups(&mut self, is_end: bool) -> Result<(), RecordError> {
        for (number, path) in self.assembler.groups.settle(is_end) {
            self.sink.group(number, path.as_deref()).map_err(RecordError::Sink)?;
        }
        Ok(())
    }

    /// Does what the recorder asked for; says whether that was to stop.
    fn obey(&mut self) -> Result<bool, RecordError> {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop => return Ok(true),
                Command::AddThreads(tids, answer) => {
                    let new = tids.iter().map(|tid| tid.0).collect();
                    for tid in &tids {
                        self.assembler.add_thread(tid.0, process_of(*tid));
                    }
                    // Whoever asked may have given up waiting.
                    let _ = answer.send(self.add(new));
                }
            }
        }
        Ok(false)
    }

    /// Opens events for threads that nobody asked for yet.
    fn add(&mut self, mut tids: Numbers) -> Result<(), RecordError> {
        tids.retain(|tid| !self.watch.threads.contains(tid));
        if tids.is_empty() {
            return Ok(());
        }
        self.source.want(&tids)?;
        let before = self.opened;
        let (machine, source, watch) = (&self.machine, &self.source, &self.watch);
        let open =
            |ring: &PcpuRing| ring.open_more(machine, source, watch, &tids, &mut self.opened);
        let opened = self.rings.iter().map(open);
        let events = opened.collect::<Result<Vec<_>, _>>().inspect_err(|_| {
            // Those that could be opened are closed again: all or nothing.
            self.opened = before;
        })?;
        self.watch.threads.extend(&tids);
        self.scratch.newborns.push(Newborns { tids, events });
        Ok(())
    }

    /// Watches threads of the VMs that were born, and forgets those that have ended.
    fn look_after_newborns(&mut self) {
        let ended = std::mem::take(&mut self.scratch.ended);
        let mut born = std::mem::take(&mut self.scratch.born);
        born.retain(|tid| !ended.contains(tid));
        for group in &mut self.scratch.newborns {
            for tid in group.tids.extract_if(.., |tid| ended.contains(tid)) {
                self.watch.threads.remove(&tid);
            }
        }
        self.source.forget(&ended);
        let over = self.scratch.newborns.extract_if(.., |group| group.tids.is_empty());
        for group in over {
            self.opened -= group.events.iter().map(Vec::len).sum::<usize>();
            for (ring, events) in self.rings.iter_mut().zip(&group.events) {
                ring.note_closing(events);
            }
        }
        born.retain(|tid| !self.watch.threads.contains(tid));
        if matches!(self.source, Source::Tracepoints) {
            born.retain(|tid| may_leave(*tid, &self.watch, &self.machine));
        }
        let count = born.len() as u64;
        if self.add(born).is_err() {
            // No descriptors are left, say. The run goes on; those threads are not told of.
            self.totals.uncovered_threads_count += count;
        }
    }
}

/// Whether a thread may run on a pCPU where not every switch is recorded anyhow.
fn may_leave(tid: u32, watch: &Watch, machine: &Machine) -> bool {
    let Ok(pid) = i32::try_from(tid) else { return false };
    match sched_getaffinity(Pid::from_raw(pid)) {
        Ok(allowed) => machine.online.iter().any(|pcpu| {
            let place = usize::try_from(pcpu.0).unwrap_or(usize::MAX);
            let here = place >= CpuSet::count() || allowed.is_set(place).unwrap_or(true);
            here && !watch.pcpus.contains(&pcpu.0)
        }),
        // It is gone already.
        Err(Errno::ESRCH) => false,
        Err(_) => true,
    }
}

/// The threads that a process has now.
fn threads_of(process: u32) -> Numbers {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Numbers::new();
    };
    tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// User and system time of the calling thread.
fn own_cpu_ns() -> u64 {
    let time_ns = |time: TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_usec()).unwrap_or(0) * 1000
    };
    getrusage(UsageWho::RUSAGE_THREAD)
        .map_or(0, |usage| time_ns(usage.user_time()) + time_ns(usage.system_time()))
}
