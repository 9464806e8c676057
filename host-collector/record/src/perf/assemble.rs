//! Records of the rings -> scheduling events in order of time. Pure: a batch of bytes in, events
//! out.
//!
//! A ring is almost in order of time, but not quite: a record's time is taken before its place in
//! the ring is, so whatever an interrupt writes in between overtakes it. Switches and wakings have
//! interrupts off; births, deaths and names do not. A batch is therefore sorted, and a record that
//! was overtaken by one of an earlier batch is moved up to it, by less than the interrupt took.
//!
//! There are kernels that trace nothing while certain tasks are current (seen in a sandbox's 6.18 guest
//! kernel: threads of init, in perf, ftrace and BPF alike; and of what happens while the idle task of one
//! pCPU is current perf's tracepoint events have no records, although they count it). Then a thread leaves
//! that had not come on. Of a VM's thread a program says how long it was there, so its arrival is told as the
//! switch that it was: from whoever was on last, or from another such task that came after it. Otherwise the
//! timelines see the contradiction, and what lies between is unknown.

use super::RingError;
use super::comms::{Birth, Comms};
use super::event::{Callchain, Record, Records, Sample};
use super::format::Formats;
use super::groups::Groups;
use super::registers;
use super::stacks::{Interned, StackTable};
use perf_event_open_sys::bindings::PERF_RECORD_SAMPLE;
use std::collections::BTreeSet;
use std::ops::Range;
use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_host::threads::role;
use vslice_trace::thread::ThreadRole;

/// What is known of one ring from batch to batch.
#[derive(Debug)]
pub(super) struct RingOrder {
    pcpu: PcpuId,
    /// The latest time of any record so far; at first, when recording started.
    latest: HostNs,
    /// Records that the ring itself said were lost.
    pub(super) lost_count: u64,
    /// Whether every switch of the pCPU is recorded.
    is_watched: bool,
    /// Who came on by the last switch, and when. `None` after a loss, and before the first one.
    on: Option<(Tid, HostNs)>,
}

impl RingOrder {
    pub(super) fn new(pcpu: PcpuId, is_watched: bool, started: HostNs) -> RingOrder {
        RingOrder { pcpu, latest: started, lost_count: 0, is_watched, on: None }
    }

    /// Recording starts.
    pub(super) fn begin(&mut self, started: HostNs) {
        self.latest = started;
    }

    /// The switch by which a thread came on that leaves now, after `stay_ns`, if nothing told of it.
    fn hidden_arrival(&self, tid: Tid, now: HostNs, stay_ns: u64) -> Option<HostEvent> {
        let (on, since) = self.on.filter(|(on, _)| self.is_watched && *on != tid)?;
        let time = HostNs(now.0.checked_sub(stay_ns).filter(|_| stay_ns > 0)?);
        // Idle is always runnable; in which state another stranger left does not matter.
        let state = if on == Tid::IDLE { PrevState::Runnable } else { PrevState::Other(0) };
        let kind = HostEventKind::Switch(Switch::new(on, state, tid));
        (time >= since).then_some(HostEvent { time, pcpu: self.pcpu, kind })
    }

    /// The loss that lasted until the end of recording, so that no record in the ring tells of it.
    pub(super) fn lost_at_the_end(&mut self, until: HostNs, count: u64) -> HostEvent {
        self.lost_count = self.lost_count.saturating_add(count);
        let loss = Loss { since: self.latest, until, count };
        loss.event(self.pcpu, until)
    }
}

/// Records that found no room, and since when.
#[derive(Debug, Clone, Copy)]
struct Loss {
    since: HostNs,
    until: HostNs,
    count: u64,
}

impl Loss {
    /// A record of `next` was written, so from then on recording worked. The kernel writes the
    /// loss in front of the first record that finds room again, with a slightly later time.
    fn event(self, pcpu: PcpuId, next: HostNs) -> HostEvent {
        let until = self.until.min(next).max(self.since);
        HostEvent { time: self.since, pcpu, kind: HostEventKind::Lost { until, count: self.count } }
    }
}

/// What came out of one batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In order of time, and not before any earlier batch of the ring.
    pub(super) events: Vec<HostEvent>,
    /// Stacks that the events name for the first time.
    pub(super) new_stacks: Vec<StackId>,
    /// Threads of the VMs' processes that were born.
    pub(super) born: Vec<Tid>,
    /// Threads that have ended.
    pub(super) ended: Vec<Tid>,
    /// Records that were moved up to the end of the batch before.
    pub(super) moved_count: u64,
    /// Records of kinds that were not asked for.
    pub(super) unknown_count: u64,
    /// Names as those of vCPUs' threads, of threads that are none of the VMs'.
    pub(super) strange_vcpus_count: u64,
}

impl Batch {
    /// Empties it but keeps its memory.
    pub(super) fn clear(&mut self) {
        let mut kept = std::mem::take(self);
        kept.events.clear();
        kept.new_stacks.clear();
        kept.born.clear();
        kept.ended.clear();
        let Batch { events, new_stacks, born, ended, .. } = kept;
        *self = Batch { events, new_stacks, born, ended, ..Batch::default() };
    }
}

/// Turns records into events; holds what all rings have in common.
#[derive(Debug)]
pub(super) struct Assembler {
    formats: Formats,
    /// The processes of the VMs.
    processes: BTreeSet<u32>,
    /// The threads of the VMs, those that have ended included.
    threads: BTreeSet<u32>,
    comms: Comms,
    pub(super) groups: Groups,
    pub(super) stacks: StackTable,
    /// Where the machine code of our own recording is; `None` if that is not programs.
    own_code: Option<Vec<Range<u64>>>,
    /// Reused from stack to stack.
    frames: Vec<u64>,
}

impl Assembler {
    pub(super) fn new(
        formats: Formats,
        own_code: Option<Vec<Range<u64>>>,
        groups: Groups,
    ) -> Assembler {
        let (comms, stacks) = (Comms::default(), StackTable::default());
        let (processes, threads) = (BTreeSet::new(), BTreeSet::new());
        let frames = Vec::new();
        Assembler { formats, processes, threads, comms, groups, stacks, own_code, frames }
    }

    /// A thread is a VM's, and so is its process, where that is known.
    pub(super) fn add_thread(&mut self, tid: u32, process: Option<u32>) {
        self.threads.insert(tid);
        self.processes.extend(process);
    }

    /// The processes of the VMs.
    pub(super) fn processes(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().copied()
    }

    /// Appends the events of a batch of one ring to `batch`.
    pub(super) fn assemble(
        &mut self,
        bytes: &[u8],
        order: &mut RingOrder,
        batch: &mut Batch,
    ) -> Result<(), RingError> {
        let floor = order.latest;
        let first = batch.events.len();
        let mut loss: Option<Loss> = None;
        for record in Records::new(bytes) {
            let record = record?;
            let Some(time) = time_of(&record) else {
                batch.unknown_count += u64::from(matches!(record, Record::Other));
                continue;
            };
            if let Record::Lost { count, .. } = record {
                order.lost_count = order.lost_count.saturating_add(count);
                let earlier = loss.map_or(0, |loss| loss.count);
                loss = Some(Loss {
                    since: order.latest,
                    until: time,
                    count: earlier.saturating_add(count),
                });
                order.on = None;
                continue;
            }
            batch.events.extend(loss.take().map(|loss| loss.event(order.pcpu, time)));
            self.record(&record, order, batch)?;
            order.latest = order.latest.max(time);
        }
        batch.events.extend(loss.map(|loss| loss.event(order.pcpu, loss.until)));
        batch.moved_count += settle(&mut batch.events[first..], floor);
        if let Some(HostEvent { time, .. }) = batch.events.last() {
            order.latest = order.latest.max(*time);
        }
        Ok(())
    }

    fn record(
        &mut self,
        record: &Record<'_>,
        order: &mut RingOrder,
        batch: &mut Batch,
    ) -> Result<(), RingError> {
        let pcpu = order.pcpu;
        match *record {
            Record::Sample(sample) => {
                let size_bytes = sample.raw.len();
                let short = RingError::RecordShort { kind: PERF_RECORD_SAMPLE, size_bytes };
                self.sample(&sample, order, batch).ok_or(short)?;
            }
            Record::Comm { time, pid, tid, comm } => {
                // A thread that was in no switch yet is named by its first one.
                if self.comms.knows(Tid(tid)) || self.processes.contains(&pid) {
                    self.name(Tid(tid), time, comm, pcpu, batch);
                }
            }
            Record::Fork { time, pid, tid, parent_pid } => {
                let is_reused = self.comms.knows(Tid(tid));
                self.comms.born(Tid(tid));
                if self.processes.contains(&pid) {
                    self.threads.insert(tid);
                    batch.born.push(Tid(tid));
                }
                let is_concerned = is_reused || self.concerns(pid) || self.concerns(parent_pid);
                let (pid, tid, parent_pid) = (Tid(pid), Tid(tid), Tid(parent_pid));
                if !is_concerned {
                    self.comms.hold_back(tid, Birth { pid, parent_pid });
                } else {
                    let kind = HostEventKind::Fork { pid, tid, parent_pid };
                    batch.events.push(HostEvent { time, pcpu, kind });
                }
            }
            Record::Exit { time, pid, tid } => {
                batch.ended.push(Tid(tid));
                self.comms.ended(Tid(tid));
                if self.processes.contains(&pid) || self.comms.knows(Tid(tid)) {
                    let kind = HostEventKind::Exit { tid: Tid(tid) };
                    batch.events.push(HostEvent { time, pcpu, kind });
                }
            }
            Record::Group { number, path, .. } => self.groups.made(number, path),
            Record::Lost { .. } | Record::Other => {}
        }
        Ok(())
    }

    /// Whether a process is one of the VMs' or has been seen on a pCPU. All others on the machine
    /// are nobody's business, and their births are many; whoever of those comes onto a pCPU is said to
    /// be born then.
    fn concerns(&self, pid: u32) -> bool {
        self.processes.contains(&pid) || self.comms.knows(Tid(pid))
    }

    /// `None` where the raw data is too short for its fields.
    fn sample(
        &mut self,
        sample: &Sample<'_>,
        order: &mut RingOrder,
        batch: &mut Batch,
    ) -> Option<()> {
        let id = self.formats.switch.common_type.number(sample.raw)?;
        if id == u64::from(self.formats.switch.id) {
            self.switch(sample, order, batch)
        } else if id == u64::from(self.formats.waking.id) {
            self.waking(sample, order.pcpu, batch)
        } else if let Some(format) =
            self.formats.details.iter().find(|format| u64::from(format.id) == id)
        {
            let kind = format.event(sample.raw)?;
            batch.events.push(HostEvent { time: sample.time, pcpu: order.pcpu, kind });
            Some(())
        } else {
            batch.unknown_count += 1;
            Some(())
        }
    }

    fn switch(
        &mut self,
        sample: &Sample<'_>,
        order: &mut RingOrder,
        batch: &mut Batch,
    ) -> Option<()> {
        let Sample { time, chain, raw, call_args } = *sample;
        let pcpu = order.pcpu;
        let format = &self.formats.switch;
        let format_bytes = format.bytes();
        let prev = thread(format.prev_pid.number(raw)?)?;
        let next = thread(format.next_pid.number(raw)?)?;
        let prev_state = format.states.state(format.prev_state.number(raw)?);
        let next_priority = priority(format.next_prio.number(raw)?);
        let (prev_comm, next_comm) = (format.prev_comm.bytes(raw)?, format.next_comm.bytes(raw)?);
        self.name(prev, time, prev_comm, pcpu, batch);
        self.name(next, time, next_comm, pcpu, batch);
        // Behind the tracepoint's own data a program writes the group, and what it has of prev. Where perf writes
        // the record, these are fields that a kernel has and vslice does not know.
        let beside = self.own_code.as_ref().and_then(|_| raw.get(format_bytes..));
        let beside = beside.unwrap_or_default();
        if let Some(group) = vslice_perf::bytes::u64_at(beside, 0).filter(|group| *group > 0) {
            self.enters(next, time, group, pcpu, batch);
        }
        let stack = self.stack(chain, batch);
        let words = beside.get(registers::GROUP_BYTES..).unwrap_or_default();
        let call_args = call_args.or_else(|| registers::call_args(words));
        // A VM's thread is never hidden where it leaves, so whoever was on before was none.
        let stay_ns = vslice_perf::bytes::u64_at(words, registers::WORDS * 8);
        let is_hidden = order.on.is_some_and(|(on, _)| !self.threads.contains(&on.0));
        if let Some(stay_ns) = stay_ns.filter(|_| is_hidden && self.threads.contains(&prev.0)) {
            batch.events.extend(order.hidden_arrival(prev, time, stay_ns));
        }
        let switch = Switch { prev, prev_state, next, next_priority, stack, call_args };
        batch.events.push(HostEvent { time, pcpu, kind: HostEventKind::Switch(switch) });
        order.on = Some((next, time));
        Some(())
    }

    fn waking(&mut self, sample: &Sample<'_>, pcpu: PcpuId, batch: &mut Batch) -> Option<()> {
        let Sample { time, raw, .. } = *sample;
        let format = &self.formats.waking;
        let tid = thread(format.pid.number(raw)?)?;
        let waker = thread(format.common_pid.number(raw)?)?;
        let target = PcpuId(u32::try_from(format.target_cpu.number(raw)?).ok()?);
        let comm = format.comm.bytes(raw)?;
        self.name(tid, time, comm, pcpu, batch);
        let kind = HostEventKind::Waking { tid, target, waker };
        batch.events.push(HostEvent { time, pcpu, kind });
        Some(())
    }

    fn name(&mut self, tid: Tid, time: HostNs, comm: &[u8], pcpu: PcpuId, batch: &mut Batch) {
        if let Some(comm) = self.comms.sighted(tid, time, comm) {
            let is_strange = is_vcpu(&comm) && !self.threads.contains(&tid.0);
            batch.strange_vcpus_count += u64::from(is_strange);
            let birth = self.comms.take_birth(tid).map(|Birth { pid, parent_pid }| {
                let kind = HostEventKind::Fork { pid, tid, parent_pid };
                HostEvent { time, pcpu, kind }
            });
            batch.events.extend(birth);
            batch.events.push(HostEvent { time, pcpu, kind: HostEventKind::Comm { tid, comm } });
        }
    }

    fn enters(&mut self, tid: Tid, time: HostNs, group: u64, pcpu: PcpuId, batch: &mut Batch) {
        if self.comms.is_elsewhere(tid, time, group) {
            self.groups.seen(group);
            batch.events.push(HostEvent { time, pcpu, kind: HostEventKind::Group { tid, group } });
        }
    }

    fn stack(&mut self, chain: Callchain<'_>, batch: &mut Batch) -> Option<StackId> {
        if chain.is_empty() {
            return None;
        }
        self.frames.clear();
        self.frames.extend(chain.frames());
        let is_own = |frame: &u64| self.own_code.iter().flatten().any(|code| code.contains(frame));
        if let Some(last) = self.frames.iter().rposition(is_own) {
            self.frames.drain(..=last);
        }
        match self.stacks.intern(&self.frames) {
            Interned::Known(id) => Some(id),
            Interned::New(id) => {
                batch.new_stacks.push(id);
                Some(id)
            }
            Interned::Refused => None,
        }
    }
}

/// Whether VMMs call the threads of vCPUs so.
fn is_vcpu(comm: &str) -> bool {
    // Of any thread but the first of its process.
    matches!(role(Tid(0), Tid(1), comm), ThreadRole::Vcpu(_))
}

/// A priority is a C int; none of the kernel's is out of range.
fn priority(number: u64) -> Option<i16> {
    i16::try_from(u32::try_from(number).ok()?.cast_signed()).ok()
}

fn thread(number: u64) -> Option<Tid> {
    u32::try_from(number).ok().map(Tid)
}

fn time_of(record: &Record<'_>) -> Option<HostNs> {
    match record {
        Record::Sample(Sample { time, .. })
        | Record::Lost { time, .. }
        | Record::Comm { time, .. }
        | Record::Fork { time, .. }
        | Record::Exit { time, .. }
        | Record::Group { time, .. } => Some(*time),
        Record::Other => None,
    }
}

/// Sorts the events of one batch and moves those up that lie before the batch's beginning; says
/// how many those were. Equal times keep their order: a name stays before its switch, and a loss
/// behind the last event before it.
fn settle(events: &mut [HostEvent], floor: HostNs) -> u64 {
    events.sort_by_key(|event| event.time);
    let mut moved_count = 0;
    for event in events.iter_mut().take_while(|event| event.time < floor) {
        event.time = floor;
        if let HostEventKind::Lost { until, .. } = &mut event.kind {
            *until = (*until).max(floor);
        }
        moved_count += 1;
    }
    moved_count
}

#[cfg(test)]
mod tests;
