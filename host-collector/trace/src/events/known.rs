//! What is to be expected of the next event of a block, by those before it. Writer and reader learn the same.

use super::coder::{Coder, Part, expected, expected_short};
use super::detail::{kvm_columns, kvm_of, step_code, step_of};
use super::{priority_code, priority_of, state_code, state_of};
use crate::column::{CodecError, narrow};
use vslice_core::host_event::{BlockEvent, HostEventKind, KvmEvent, StackId, Switch};
use vslice_core::units::{PcpuId, Tid};
use vslice_wire::leb128::{from_zigzag, zigzag};

/// How many kinds of KVM's events there are.
const KVM_CODES: usize = 8;

/// What the shape of a switch says, from bit 1 on.
mod switch {
    pub(super) const PREV: u8 = 1 << 1;
    pub(super) const NEXT: u8 = 1 << 2;
    pub(super) const STATE: u8 = 1 << 3;
    pub(super) const STACK: u8 = 1 << 4;
    pub(super) const CALL_ARGS: u8 = 1 << 5;
    pub(super) const PRIORITY: u8 = 1 << 6;
}

/// What the shapes of the others say, from bit 5 on.
const THREAD: u8 = 1 << 5;
const SECOND: u8 = 1 << 6;
const THIRD: u8 = 1 << 7;

/// A thread that the block has named, and what it last did.
#[derive(Debug, Clone, Copy)]
struct Thread {
    tid: Tid,
    /// Who came on when it left.
    follower: usize,
    /// Whom it woke.
    woken: usize,
    /// Where it ran.
    pcpu: u32,
    state: u64,
    priority: u64,
    /// Asleep, and still runnable.
    left: [Left; 2],
}

/// Where in the kernel it was when it left.
#[derive(Debug, Clone, Copy, Default)]
struct Left {
    stack: u64,
    call_args: Option<[u64; 3]>,
}

/// All that is known; at the start of a block, that of the idle thread alone.
#[derive(Debug)]
pub(super) struct Known {
    threads: Vec<Thread>,
    /// Who is on the pCPU.
    current: usize,
    /// Who was woken for this pCPU since the last switch.
    woken: Option<usize>,
    pcpu: u32,
    time: u64,
    /// The sectors of the last step of each kind: where a submission is expected, and where the next two.
    sectors: [u64; 3],
    device: u32,
    length: u32,
    kvm_code: u8,
    /// What follows each of KVM's codes, and its two numbers.
    kvm: [(u8, u64, u64); KVM_CODES],
}

impl Known {
    pub(super) fn new() -> Known {
        let mut known = Known {
            threads: Vec::new(),
            current: 0,
            woken: None,
            pcpu: 0,
            time: 0,
            sectors: [0; 3],
            device: 0,
            length: 0,
            kvm_code: 0,
            kvm: [(0, 0, 0); KVM_CODES],
        };
        known.meet(Tid(0));
        known
    }

    fn meet(&mut self, tid: Tid) {
        let place = self.threads.len();
        self.threads.push(Thread {
            tid,
            follower: place,
            woken: place,
            pcpu: self.pcpu,
            state: 2,
            priority: priority_code(Some(120)),
            left: [Left::default(); 2],
        });
    }

    /// The time of the next event, and where it is.
    pub(super) fn time<C: Coder>(
        &mut self,
        coder: &mut C,
        time: u64,
        pcpu: PcpuId,
    ) -> Result<u64, CodecError> {
        self.pcpu = pcpu.0;
        let step = time.wrapping_sub(self.time);
        let low = coder.byte(Part::TimesLow, step.to_le_bytes()[0])?;
        let high = coder.number(Part::TimesHigh, step >> 8)?;
        self.time = self.time.wrapping_add(high << 8 | u64::from(low));
        Ok(self.time)
    }

    /// A thread by its place, told where it is not the expected one.
    fn thread<C: Coder>(
        &mut self,
        coder: &mut C,
        (flag, part): (u8, Part),
        tid: Tid,
        expected: usize,
    ) -> Result<usize, CodecError> {
        // No search for the one that is expected.
        if !coder.differs(flag, self.threads[expected].tid != tid) {
            return Ok(expected);
        }
        let met = self.threads.len();
        let place = coder.place(tid, met) as u64;
        let place = narrow(coder.number(part, place)?)?;
        if place > met {
            return Err(CodecError::OutOfRange(place as u64));
        }
        if place == met {
            let tid = narrow(coder.number(Part::NewThreads, tid.0.into())?)?;
            self.meet(Tid(tid));
        }
        Ok(place)
    }

    pub(super) fn switch<C: Coder>(
        &mut self,
        coder: &mut C,
        event: &Switch,
    ) -> Result<Switch, CodecError> {
        let prev = (switch::PREV, Part::Threads);
        let prev = self.thread(coder, prev, event.prev, self.current)?;
        let next = self.woken.take().unwrap_or(self.threads[prev].follower);
        let next = self.thread(coder, (switch::NEXT, Part::Threads), event.next, next)?;
        self.threads[prev].follower = next;
        self.current = next;
        let thread = &mut self.threads[next];
        thread.pcpu = self.pcpu;
        let priority = priority_code(event.next_priority);
        let place = (switch::PRIORITY, Part::Priorities);
        thread.priority = expected(coder, place, priority, thread.priority)?;
        let (next, priority) = (thread.tid, thread.priority);
        let thread = &mut self.threads[prev];
        let place = (switch::STATE, Part::States);
        thread.state = expected(coder, place, state_code(event.prev_state), thread.state)?;
        let state = state_of(thread.state)?;
        let left = &mut thread.left[usize::from(state.is_runnable())];
        let stack = event.stack.map_or(0, |id| u64::from(id.0) + 1);
        left.stack = expected(coder, (switch::STACK, Part::Stacks), stack, left.stack)?;
        if coder.differs(switch::CALL_ARGS, event.call_args != left.call_args) {
            left.call_args = call_args(coder, event.call_args, left.call_args)?;
        }
        Ok(Switch {
            prev: thread.tid,
            prev_state: state,
            next,
            next_priority: priority_of(priority)?,
            stack: match left.stack.checked_sub(1) {
                None => None,
                Some(id) => Some(StackId(narrow(id)?)),
            },
            call_args: left.call_args,
        })
    }

    pub(super) fn waking<C: Coder>(
        &mut self,
        coder: &mut C,
        (tid, target, waker): (Tid, PcpuId, Tid),
    ) -> Result<HostEventKind, CodecError> {
        let waker = self.thread(coder, (THREAD, Part::Threads), waker, self.current)?;
        let woken = self.threads[waker].woken;
        let woken = self.thread(coder, (SECOND, Part::Woken), tid, woken)?;
        self.threads[waker].woken = woken;
        let thread = &mut self.threads[woken];
        let place = (THIRD, Part::Targets);
        thread.pcpu = expected_short(coder, place, target.0.into(), thread.pcpu.into())?;
        if thread.pcpu == self.pcpu {
            self.woken = Some(woken);
        }
        let (tid, target) = (thread.tid, PcpuId(thread.pcpu));
        Ok(HostEventKind::Waking { tid, target, waker: self.threads[waker].tid })
    }

    pub(super) fn kvm<C: Coder>(
        &mut self,
        coder: &mut C,
        tid: Tid,
        event: KvmEvent,
    ) -> Result<HostEventKind, CodecError> {
        let thread = self.thread(coder, (THREAD, Part::Threads), tid, self.current)?;
        let (code, first, second) = kvm_columns(event);
        let before = &mut self.kvm[usize::from(self.kvm_code)];
        before.0 = expected_short(coder, (SECOND, Part::Kvm), code.into(), before.0.into())?;
        let code = before.0;
        let last = self.kvm.get_mut(usize::from(code));
        let last = last.ok_or(CodecError::OutOfRange(code.into()))?;
        if coder.differs(THIRD, (first, second) != (last.1, last.2)) {
            let step = coder.number(Part::Kvm, zigzag(first.wrapping_sub(last.1)))?;
            last.1 = last.1.wrapping_add(from_zigzag(step));
            last.2 = coder.number(Part::Kvm, second)?;
        }
        let event = kvm_of(code, last.1, last.2)?;
        self.kvm_code = code;
        Ok(HostEventKind::Kvm { tid: self.threads[thread].tid, event })
    }

    pub(super) fn block<C: Coder>(
        &mut self,
        coder: &mut C,
        event: &BlockEvent,
    ) -> Result<BlockEvent, CodecError> {
        let thread = self.thread(coder, (THREAD, Part::Threads), event.tid, self.current)?;
        let code = coder.byte(Part::Steps, step_code(event))?;
        let (step, operation) = step_of(code)?;
        if coder.differs(THIRD, (event.device, event.sectors) != (self.device, self.length)) {
            self.device = narrow(coder.number(Part::Lengths, event.device.into())?)?;
            self.length = narrow(coder.number(Part::Lengths, event.sectors.into())?)?;
        }
        let mut sector = self.sectors[step as usize];
        if coder.differs(SECOND, event.sector != sector) {
            let step = coder.number(Part::Sectors, zigzag(event.sector.wrapping_sub(sector)))?;
            sector = sector.wrapping_add(from_zigzag(step));
        }
        // The one after this is expected behind it, and its own next step where it is.
        let end = sector.wrapping_add(self.length.into());
        self.sectors[step as usize] = end;
        if let Some(next) = self.sectors.get_mut(step as usize + 1) {
            *next = sector;
        }
        let (tid, device, sectors) = (self.threads[thread].tid, self.device, self.length);
        Ok(BlockEvent { step, tid, device, sector, sectors, operation })
    }
}

/// 0 is that there are none, else 1 plus a bit for each that differs from those before.
fn call_args<C: Coder>(
    coder: &mut C,
    args: Option<[u64; 3]>,
    before: Option<[u64; 3]>,
) -> Result<Option<[u64; 3]>, CodecError> {
    let mut now = before.unwrap_or_default();
    let code = args.map_or(0, |args| {
        let differing = (0..3).filter(|place| args[*place] != now[*place]);
        differing.fold(1, |code, place| code + (1 << place))
    });
    let code = coder.byte(Part::CallArgs, code)?;
    let Some(differing) = code.checked_sub(1) else { return Ok(None) };
    if differing >= 8 {
        return Err(CodecError::OutOfRange(code.into()));
    }
    let args = args.unwrap_or_default();
    for (place, part) in
        [Part::FirstArgs, Part::SecondArgs, Part::ThirdArgs].into_iter().enumerate()
    {
        if differing & (1 << place) != 0 {
            let step = coder.number(part, zigzag(args[place].wrapping_sub(now[place])))?;
            now[place] = now[place].wrapping_add(from_zigzag(step));
        }
    }
    Ok(Some(now))
}
