//! The columns of the host kernel's events.
//!
//! An event is mostly what those before it in the block let expect: the thread that leaves is the one that came on,
//! it sleeps where it slept before, and its waker is the current thread. So a part holds only what differs, and a
//! byte for each event, its *shape*, says what it is and what differs. The parts, in their order:
//!
//! | part | values |
//! |---|---|
//! | shapes | a byte each. Bit 0 is set for a switch, and bits 1 to 6 then say that prev, next, state, stack, call arguments, priority differ; else bits 1 to 4 are the kind, and bits 5 to 7 say: of a waking that waker, thread, target differ; of KVM's the thread, what, its numbers; of a block event the thread, the sector, device or sectors |
//! | low bytes of times | a byte each, of the time after the event before |
//! | rest of times | that time / 256 |
//! | threads | place of the thread, see below: that leaves, that comes on, that wakes, of KVM, of a block event |
//! | woken | place of the thread that is woken |
//! | new threads | number (tid) of each in the order of first use |
//! | states | see `state_code`. Expected: that in which the thread left before |
//! | priorities | 0 for none, else plus 32769. Expected: that with which the thread came on before, at first 120 |
//! | stacks | 0 for none, else plus 1. Expected: that at which the thread left before, apart where it was runnable |
//! | call arguments | a byte: 0 for none, else 1 plus bit 0, 1, 2 for those that differ from the thread's before, likewise |
//! | first, second, third arguments | differences (zigzag) |
//! | targets | pCPU. Expected: where the thread last came on or was woken for |
//! | steps | a byte for each block event, see `step_code` |
//! | sectors | difference (zigzag). Expected: of a submission behind the last, of a further step where the one before it was |
//! | lengths | device and number of sectors. Expected: those of the last |
//! | kvm | what (expected: what followed the last time), the first number's difference (zigzag) from that of the last of the same, the second number |
//! | others | of comms: tid, length in bytes, the name; of forks: pid, tid, parent's pid; of exits: tid; of losses: until less the event's time, count; of groups: tid, number |
//! | pcpus | runs |
//!
//! All numbers are varints where nothing else is said. Threads have places by first use, from 0; place 0 is tid 0, the idle
//! thread, which is current at first. The next thread is expected to be the one that was woken for this pCPU
//! since the last switch, or who came on when prev left before, at first itself. The woken thread is expected to be
//! the one that the waker woke before, at first itself.

mod coder;
mod detail;
pub(super) mod earlier;
mod known;

use super::BLOCK_ITEMS_MAX;
use super::column::{CodecError, ColumnReader, Columnar, StreamKind, narrow, put_parts, put_runs};
use coder::{Coder, PARTS, Part, Reader, Writer};
use known::Known;
use vslice_core::host_event::{
    BlockEvent, BlockStep, HostEvent, HostEventKind, KvmEvent, PrevState, Switch,
};
use vslice_core::units::{HostNs, PcpuId, Tid};

/// A thread's name has at most this many bytes (`TASK_COMM_LEN` less the NUL).
const COMM_BYTES_MAX: usize = 15;

const SWITCH: u8 = 0;
const WAKING: u8 = 1;
const COMM: u8 = 2;
const FORK: u8 = 3;
const EXIT: u8 = 4;
const LOST: u8 = 5;
const KVM: u8 = 6;
const BLOCK: u8 = 7;
const GROUP: u8 = 8;

/// The shape of a switch has this bit.
const IS_SWITCH: u8 = 1;

/// Four bits of the others' shapes are their kind.
const KIND_SHIFT: u8 = 1;
const KIND_MASK: u8 = 0xf;

impl Columnar for HostEvent {
    const KIND: StreamKind = StreamKind::Events;
    const PARTS: usize = PARTS;

    /// Sorts by time. Equal times keep their order, so that a loss stays behind the last event
    /// that came before it.
    fn arrange(items: &mut [Self]) {
        items.sort_by_key(|event| event.time);
    }

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        let (mut writer, mut known) = (Writer::default(), Known::new());
        // It has met the idle thread.
        writer.place(Tid(0), 0);
        put_runs(items.iter().map(|event| event.pcpu.0.into()), writer.part(Part::Pcpus));
        for event in items {
            writer.begin(match &event.kind {
                HostEventKind::Switch(_) => IS_SWITCH,
                kind => kind_code(kind) << KIND_SHIFT,
            });
            known
                .time(&mut writer, event.time.0, event.pcpu)
                .and_then(|time| coded(&mut writer, &mut known, time, &event.kind))
                .expect("only bytes that are read can be wrong");
            writer.end();
        }
        put_parts(writer.parts(), payload);
    }

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
        let mut reader = Reader::new(columns.parts::<PARTS>()?);
        let pcpus = reader.part(Part::Pcpus).runs::<u32>(count)?;
        let mut known = Known::new();
        let mut events = Vec::with_capacity(count.min(BLOCK_ITEMS_MAX));
        for pcpu in pcpus.into_iter().map(PcpuId) {
            reader.begin()?;
            let time = known.time(&mut reader, 0, pcpu)?;
            let kind = blank(reader.shape())?;
            let kind = coded(&mut reader, &mut known, time, &kind)?;
            events.push(HostEvent { time: HostNs(time), pcpu, kind });
        }
        reader.finish()?;
        Ok(events)
    }

    fn decode_earlier(
        count: usize,
        columns: &mut ColumnReader<'_>,
    ) -> Result<Vec<Self>, CodecError> {
        earlier::decode(count, columns)
    }
}

/// An event of the kind that a shape tells.
fn blank(shape: u8) -> Result<HostEventKind, CodecError> {
    if shape & IS_SWITCH != 0 {
        return Ok(HostEventKind::Switch(Switch::new(Tid(0), PrevState::Runnable, Tid(0))));
    }
    let tid = Tid(0);
    Ok(match shape >> KIND_SHIFT & KIND_MASK {
        WAKING => HostEventKind::Waking { tid, target: PcpuId(0), waker: tid },
        COMM => HostEventKind::Comm { tid, comm: String::new() },
        FORK => HostEventKind::Fork { pid: tid, tid, parent_pid: tid },
        EXIT => HostEventKind::Exit { tid },
        LOST => HostEventKind::Lost { until: HostNs(0), count: 0 },
        KVM => HostEventKind::Kvm { tid, event: KvmEvent::GuestEntry },
        BLOCK => {
            let (step, operation) = (BlockStep::Submitted, None);
            let (device, sector, sectors) = (0, 0, 0);
            HostEventKind::Block(BlockEvent { step, tid, device, sector, sectors, operation })
        }
        GROUP => HostEventKind::Group { tid, group: 0 },
        other => return Err(CodecError::OutOfRange(other.into())),
    })
}

/// Writes an event, or reads one into a blank one.
fn coded<C: Coder>(
    coder: &mut C,
    known: &mut Known,
    time: u64,
    kind: &HostEventKind,
) -> Result<HostEventKind, CodecError> {
    Ok(match *kind {
        HostEventKind::Switch(ref switch) => HostEventKind::Switch(known.switch(coder, switch)?),
        HostEventKind::Waking { tid, target, waker } => {
            known.waking(coder, (tid, target, waker))?
        }
        HostEventKind::Kvm { tid, event } => known.kvm(coder, tid, event)?,
        HostEventKind::Block(ref block) => HostEventKind::Block(known.block(coder, block)?),
        HostEventKind::Comm { tid, ref comm } => {
            HostEventKind::Comm { tid: other_tid(coder, tid)?, comm: coded_comm(coder, comm)? }
        }
        HostEventKind::Fork { pid, tid, parent_pid } => HostEventKind::Fork {
            pid: other_tid(coder, pid)?,
            tid: other_tid(coder, tid)?,
            parent_pid: other_tid(coder, parent_pid)?,
        },
        HostEventKind::Exit { tid } => HostEventKind::Exit { tid: other_tid(coder, tid)? },
        HostEventKind::Lost { until, count } => HostEventKind::Lost {
            until: HostNs(
                time.wrapping_add(coder.number(Part::Others, until.0.wrapping_sub(time))?),
            ),
            count: coder.number(Part::Others, count)?,
        },
        HostEventKind::Group { tid, group } => HostEventKind::Group {
            tid: other_tid(coder, tid)?,
            group: coder.number(Part::Others, group)?,
        },
    })
}

fn other_tid<C: Coder>(coder: &mut C, tid: Tid) -> Result<Tid, CodecError> {
    Ok(Tid(narrow(coder.number(Part::Others, tid.0.into())?)?))
}

fn coded_comm<C: Coder>(coder: &mut C, comm: &str) -> Result<String, CodecError> {
    let mut bytes = short_comm(comm).bytes();
    let length = coder.number(Part::Others, bytes.len() as u64)?;
    if length > COMM_BYTES_MAX as u64 {
        return Err(CodecError::OutOfRange(length));
    }
    let coded = (0..length).map(|_| coder.byte(Part::Others, bytes.next().unwrap_or_default()));
    String::from_utf8(coded.collect::<Result<_, _>>()?).map_err(|_| CodecError::NotText)
}

fn kind_code(kind: &HostEventKind) -> u8 {
    match kind {
        HostEventKind::Switch(_) => SWITCH,
        HostEventKind::Waking { .. } => WAKING,
        HostEventKind::Comm { .. } => COMM,
        HostEventKind::Fork { .. } => FORK,
        HostEventKind::Exit { .. } => EXIT,
        HostEventKind::Lost { .. } => LOST,
        HostEventKind::Kvm { .. } => KVM,
        HostEventKind::Block(_) => BLOCK,
        HostEventKind::Group { .. } => GROUP,
    }
}

/// 0 to 5 are the named states, 6 and above are [`PrevState::Other`], the kernel's bit plus 6.
fn state_code(state: PrevState) -> u64 {
    match state {
        PrevState::Runnable => 0,
        PrevState::RunnablePreempted => 1,
        PrevState::Sleep => 2,
        PrevState::DiskSleep => 3,
        PrevState::Stopped => 4,
        PrevState::Dead => 5,
        PrevState::Other(bit) => 6 + u64::from(bit),
    }
}

fn state_of(code: u64) -> Result<PrevState, CodecError> {
    Ok(match code {
        0 => PrevState::Runnable,
        1 => PrevState::RunnablePreempted,
        2 => PrevState::Sleep,
        3 => PrevState::DiskSleep,
        4 => PrevState::Stopped,
        5 => PrevState::Dead,
        other => PrevState::Other(narrow(other - 6)?),
    })
}

/// 0 is none; all others are moved up so that none is negative.
fn priority_code(priority: Option<i16>) -> u64 {
    priority.map_or(0, |priority| u64::from(priority.cast_unsigned() ^ 0x8000) + 1)
}

fn priority_of(code: u64) -> Result<Option<i16>, CodecError> {
    let Some(moved) = code.checked_sub(1) else { return Ok(None) };
    Ok(Some((narrow::<u16>(moved)? ^ 0x8000).cast_signed()))
}

/// A name as the kernel would hold it. Names from the kernel are never longer.
fn short_comm(comm: &str) -> &str {
    &comm[..comm.floor_char_boundary(COMM_BYTES_MAX)]
}

#[cfg(test)]
pub(super) mod tests;
