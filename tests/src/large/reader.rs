//! A vCPU that reads one block after the other, and what the host does to it meanwhile.

use super::expected::{Expected, VcpuExpected};
use super::strangers::any_on;
use super::{
    BLOCK_BYTES, BQL, DISK_BYTES, Events, IN_FUTEX, IN_HALT, READING_VCPU, Random, Requests,
    START_NS, TURN_NS, VCPUS, device, main_loop, pcpu_of, switch, vcpu_thread, vm_name,
};
use vslice_core::host_event::{
    BlockEvent, BlockStep, HostEvent, HostEventKind, PrevState, StackId, Switch,
};
use vslice_core::units::{GuestTicks, HostNs, PcpuId, Tid};
use vslice_trace::{RequestItem, RunDir, StoreError, StreamWriter, VmName};
use vslice_wire::{BlockOperation, Request};

const SECTOR_BYTES: u64 = 512;

/// What becomes of the vCPU's thread after it has submitted a request.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It keeps its pCPU.
    Stays,
    /// A stranger takes the pCPU.
    Preempted,
    /// The guest is idle until the I/O is done; then the pCPU may be a stranger's.
    Halts { beside_stranger: bool },
    /// It sleeps on the big lock until the main loop lets go of it.
    WaitsForLock,
}

impl Fate {
    fn any(random: &mut Random) -> Fate {
        match random.within(0..20) {
            0 => Fate::Stays,
            1..=6 => Fate::Preempted,
            7..=9 => Fate::WaitsForLock,
            10..=14 => Fate::Halts { beside_stranger: true },
            _ => Fate::Halts { beside_stranger: false },
        }
    }
}

/// What a thread does from one time to another.
type Stretch = (u64, u64, &'static str);

/// A VM's reader, with its vCPU's pCPU and its main loop's.
pub(super) struct Reader {
    vm: u32,
    vcpu: Tid,
    pcpu: PcpuId,
    loops_pcpu: PcpuId,
    events: Events,
    loops_events: Events,
    requests: Requests,
    random: Random,
    /// When the vCPU came onto its pCPU.
    came: u64,
    tally: VcpuExpected,
    lock_waits: (u64, u64),
}

/// The end of a turn, as far as the request is concerned.
struct Turn {
    /// When the vCPU is back.
    back: u64,
    /// What it did until then, from when it left.
    stretches: Vec<Stretch>,
    /// What is told of the main loop's pCPU.
    beside: Option<HostEvent>,
}

impl Reader {
    pub(super) fn new(run: &RunDir, vm: u32, seed: u64) -> Result<Reader, StoreError> {
        let (pcpu, loops_pcpu) = (pcpu_of(vm, READING_VCPU), pcpu_of(vm, VCPUS));
        let name = VmName::try_from(vm_name(vm).as_str())?;
        Ok(Reader {
            vm,
            vcpu: vcpu_thread(vm, READING_VCPU),
            pcpu,
            loops_pcpu,
            events: Events::create(run, pcpu)?,
            loops_events: Events::create(run, loops_pcpu)?,
            requests: StreamWriter::create(&run.requests_path(&name))?,
            random: Random::of(seed, vm.into()),
            came: START_NS,
            tally: VcpuExpected::default(),
            lock_waits: (0, 0),
        })
    }

    /// A request in each turn.
    pub(super) fn write(
        mut self,
        turns: u64,
        end_ns: u64,
        expected: &mut Expected,
    ) -> Result<(), StoreError> {
        let come = |pcpu, next| switch(START_NS, pcpu, Tid::IDLE, PrevState::Runnable, next);
        self.events.push(come(self.pcpu, self.vcpu))?;
        self.loops_events.push(come(self.loops_pcpu, main_loop(self.vm)))?;
        for turn in 0..turns {
            self.turn(turn, expected)?;
        }
        let (stranger, _) = any_on(self.pcpu, &mut self.random);
        let preempted = PrevState::RunnablePreempted;
        self.events.push(switch(end_ns, self.pcpu, self.vcpu, preempted, stranger))?;
        self.tally.on_pcpu_ns += end_ns - self.came;
        expected.vcpus.insert((self.vm, READING_VCPU), self.tally);
        expected.lock_waits.insert(self.vm, self.lock_waits);
        expected.events += self.events.finish()? + self.loops_events.finish()?;
        self.requests.finish()
    }

    fn turn(&mut self, turn: u64, expected: &mut Expected) -> Result<(), StoreError> {
        let random = &mut self.random;
        let submitted = START_NS + turn * TURN_NS + random.within(1_000..20_000);
        let handed = submitted + random.within(2_000..10_000);
        let done = handed + random.mostly_short(40_000..100_000);
        let leaves = submitted + random.within(12_000..20_000);
        let fate = Fate::any(random);
        let Turn { back, stretches, beside } = match fate {
            Fate::Stays => Turn { back: leaves, stretches: Vec::new(), beside: None },
            Fate::Preempted => self.preempted(leaves)?,
            Fate::Halts { beside_stranger } => self.halts(leaves, done, beside_stranger)?,
            Fate::WaitsForLock => self.waits_for_lock(leaves)?,
        };
        let completed = back.max(done) + self.random.within(3_000..8_000);
        let mut beside: Vec<HostEvent> = beside.into_iter().collect();
        beside.extend([
            self.block(handed, BlockStep::Submitted, turn),
            self.block(done, BlockStep::Completed, turn),
        ]);
        beside.sort_by_key(|event| event.time);
        beside.into_iter().try_for_each(|event| self.loops_events.push(event))?;
        self.requests.push(RequestItem::Request(Request {
            index: turn,
            submitted: GuestTicks(submitted),
            completed: GuestTicks(completed),
            vcpu_submitted: 1,
            vcpu_completed: 1,
            result: 4096,
        }))?;
        let phases = [
            ("queued", submitted..handed),
            ("device", handed..done),
            ("completed", done..completed),
        ];
        let around = [(submitted, leaves, "on_pcpu"), (back, completed, "on_pcpu")];
        for (from, until, part) in around.into_iter().chain(stretches) {
            for (phase, stretch) in &phases {
                let length_ns = until.min(stretch.end).saturating_sub(from.max(stretch.start));
                *expected.phases_ns.entry((phase, part)).or_default() += length_ns;
            }
        }
        expected.latencies.push(completed - submitted);
        Ok(())
    }

    fn leave(&mut self, at: u64, state: PrevState, stack: Option<StackId>, next: Tid) -> HostEvent {
        self.tally.on_pcpu_ns += at - self.came;
        let call_args = (stack == Some(IN_FUTEX)).then_some([BQL, 0x80, 2]);
        let switch = Switch { next_priority: Some(120), ..Switch::new(self.vcpu, state, next) };
        let kind = HostEventKind::Switch(Switch { stack, call_args, ..switch });
        HostEvent { time: HostNs(at), pcpu: self.pcpu, kind }
    }

    fn preempted(&mut self, leaves: u64) -> Result<Turn, StoreError> {
        let (stranger, name) = any_on(self.pcpu, &mut self.random);
        let back = leaves + self.random.mostly_short(20_000..150_000);
        let left = self.leave(leaves, PrevState::RunnablePreempted, None, stranger);
        self.events.push(left)?;
        self.comes(back, stranger)?;
        self.waited(back - leaves, Some(name));
        Ok(Turn { back, stretches: vec![(leaves, back, "preempt_wait")], beside: None })
    }

    fn halts(&mut self, leaves: u64, done: u64, beside_stranger: bool) -> Result<Turn, StoreError> {
        let stranger = beside_stranger.then(|| any_on(self.pcpu, &mut self.random));
        let woken = done + self.random.within(1_000..3_000);
        let longest_ns = if beside_stranger { 150_000 } else { 5_000 };
        let back = woken + self.random.mostly_short(1_000..longest_ns);
        let next = stranger.as_ref().map_or(Tid::IDLE, |(tid, _)| *tid);
        let left = self.leave(leaves, PrevState::Sleep, Some(IN_HALT), next);
        self.events.push(left)?;
        self.events.push(self.wake(woken, self.pcpu, next))?;
        self.comes(back, next)?;
        self.waited(back - woken, stranger.map(|(_, name)| name));
        let stretches = vec![(leaves, woken, "halt"), (woken, back, "wakeup_delay")];
        Ok(Turn { back, stretches, beside: None })
    }

    fn waits_for_lock(&mut self, leaves: u64) -> Result<Turn, StoreError> {
        let woken = leaves + self.random.mostly_short(20_000..100_000);
        let back = woken + self.random.within(1_000..5_000);
        let left = self.leave(leaves, PrevState::Sleep, Some(IN_FUTEX), Tid::IDLE);
        self.events.push(left)?;
        self.comes(back, Tid::IDLE)?;
        self.waited(back - woken, None);
        self.lock_waits.0 += 1;
        self.lock_waits.1 += woken - leaves;
        let stretches = vec![(leaves, woken, "bql_wait"), (woken, back, "wakeup_delay")];
        let beside = Some(self.wake(woken, self.loops_pcpu, main_loop(self.vm)));
        Ok(Turn { back, stretches, beside })
    }

    fn wake(&self, at: u64, pcpu: PcpuId, waker: Tid) -> HostEvent {
        let kind = HostEventKind::Waking { tid: self.vcpu, target: self.pcpu, waker };
        HostEvent { time: HostNs(at), pcpu, kind }
    }

    fn comes(&mut self, at: u64, prev: Tid) -> Result<(), StoreError> {
        self.came = at;
        let state = if prev == Tid::IDLE { PrevState::Runnable } else { PrevState::Sleep };
        self.events.push(switch(at, self.pcpu, prev, state, self.vcpu))
    }

    fn waited(&mut self, length_ns: u64, beside: Option<String>) {
        self.tally.wait_ns += length_ns;
        match beside {
            Some(name) => *self.tally.antagonists_ns.entry(name).or_default() += length_ns,
            None => self.tally.idle_ns += length_ns,
        }
    }

    fn block(&self, at: u64, step: BlockStep, turn: u64) -> HostEvent {
        let place = turn % (DISK_BYTES / BLOCK_BYTES);
        let kind = HostEventKind::Block(BlockEvent {
            step,
            tid: main_loop(self.vm),
            device: device(self.vm),
            sector: place * (BLOCK_BYTES / SECTOR_BYTES),
            sectors: 8,
            operation: Some(BlockOperation::Read),
        });
        HostEvent { time: HostNs(at), pcpu: self.loops_pcpu, kind }
    }
}
