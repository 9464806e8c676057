//! The columns of the host kernel's events before version 6.
//!
//! After kind (byte), time (delta) and pcpu (runs) come, for the items of each kind in turn:
//!
//! - switches: state (varint, see `state_code`); prev, next (delta each, interleaved in one
//!   column: the thread that comes on is mostly the one that leaves next); priority of next (runs,
//!   0 for none, else the priority plus 32769); stack (varint, 0 for none, else the id plus 1);
//!   whether there are call arguments (runs, 0 or 1); of those that have them first, second and
//!   third (delta each, a column each)
//! - wakings: tid (delta); target (runs); waker (delta)
//! - comms: tid (delta); length in bytes (varint); the names' bytes
//! - forks: pid, tid, parent pid (delta each)
//! - exits: tid (delta)
//! - losses: until (delta); count (varint)
//! - kvm: tid (delta); what (byte, see `detail`); first number (delta), second (varint)
//! - block: step and operation (runs, see `detail`); tid (delta); device (runs); sector (delta); sectors (runs)
//! - groups: tid (delta); number (delta)

use super::detail::{decode_blocks, decode_kvm};
use super::{
    BLOCK, COMM, COMM_BYTES_MAX, EXIT, FORK, GROUP, KVM, LOST, SWITCH, WAKING, priority_of,
    state_of,
};
use crate::column::{CodecError, ColumnReader, narrow};
use vslice_core::host_event::{HostEvent, HostEventKind, StackId, Switch};
use vslice_core::units::{HostNs, PcpuId, Tid};

/// The events of a block.
pub(super) fn decode(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<HostEvent>, CodecError> {
    let codes = columns.bytes(count)?;
    let times = columns.deltas::<u64>(count)?;
    let pcpus = columns.runs::<u32>(count)?;
    let of = |wanted: u8| codes.iter().filter(|code| **code == wanted).count();
    let mut switches = decode_switches(of(SWITCH), columns)?;
    let mut wakings = decode_wakings(of(WAKING), columns)?;
    let mut comms = decode_comms(of(COMM), columns)?.into_iter();
    let mut forks = decode_forks(of(FORK), columns)?;
    let mut exits = decode_exits(of(EXIT), columns)?;
    let mut losses = decode_losses(of(LOST), columns)?;
    let mut kvm = decode_kvm(of(KVM), columns)?.into_iter();
    let mut blocks = decode_blocks(of(BLOCK), columns)?.into_iter();
    let mut groups = decode_groups(of(GROUP), columns)?;
    let mut events = Vec::with_capacity(codes.len());
    for ((code, time), pcpu) in codes.iter().zip(times).zip(pcpus) {
        let kind = match *code {
            SWITCH => switches.next().transpose()?,
            WAKING => wakings.next(),
            COMM => comms.next(),
            FORK => forks.next(),
            EXIT => exits.next(),
            LOST => losses.next(),
            KVM => kvm.next(),
            BLOCK => blocks.next(),
            GROUP => groups.next(),
            _ => None,
        };
        let kind = kind.ok_or(CodecError::OutOfRange(u64::from(*code)))?;
        events.push(HostEvent { time: HostNs(time), pcpu: PcpuId(pcpu), kind });
    }
    Ok(events)
}

fn decode_switches(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<impl Iterator<Item = Result<HostEventKind, CodecError>> + use<>, CodecError> {
    let states = columns.varints::<u64>(count)?;
    let mut threads = columns.deltas::<u32>(2 * count)?.into_iter();
    let priorities = columns.runs::<u64>(count)?;
    let stacks = columns.varints::<u64>(count)?;
    let call_args = decode_call_args(count, columns)?;
    let rest = priorities.into_iter().zip(stacks).zip(call_args);
    Ok(states.into_iter().zip(rest).map(move |(state, ((priority, stack), call_args))| {
        let [prev, next] = [(); 2].map(|()| Tid(threads.next().unwrap_or_default()));
        Ok(HostEventKind::Switch(Switch {
            prev,
            prev_state: state_of(state)?,
            next,
            next_priority: priority_of(priority)?,
            stack: match stack.checked_sub(1) {
                None => None,
                Some(id) => Some(StackId(narrow(id)?)),
            },
            call_args,
        }))
    }))
}

fn decode_call_args(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<impl Iterator<Item = Option<[u64; 3]>> + use<>, CodecError> {
    let are_there = columns.runs::<u8>(count)?;
    if let Some(code) = are_there.iter().find(|code| **code > 1) {
        return Err(CodecError::OutOfRange((*code).into()));
    }
    let there_count = are_there.iter().filter(|code| **code == 1).count();
    let mut args = vec![[0; 3]; there_count];
    for place in 0..3 {
        for (args, value) in args.iter_mut().zip(columns.deltas::<u64>(there_count)?) {
            args[place] = value;
        }
    }
    let mut args = args.into_iter();
    Ok(are_there.into_iter().map(move |code| if code == 1 { args.next() } else { None }))
}

fn decode_wakings(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<impl Iterator<Item = HostEventKind> + use<>, CodecError> {
    let tids = columns.deltas::<u32>(count)?;
    let targets = columns.runs::<u32>(count)?;
    let wakers = columns.deltas::<u32>(count)?;
    let waking = |((tid, target), waker): ((u32, u32), u32)| HostEventKind::Waking {
        tid: Tid(tid),
        target: PcpuId(target),
        waker: Tid(waker),
    };
    Ok(tids.into_iter().zip(targets).zip(wakers).map(waking))
}

fn decode_comms(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<HostEventKind>, CodecError> {
    let tids = columns.deltas::<u32>(count)?;
    let lengths = columns.varints::<u64>(count)?;
    let comm = |(tid, length): (u32, u64)| {
        if length > COMM_BYTES_MAX as u64 {
            return Err(CodecError::OutOfRange(length));
        }
        let bytes = columns.bytes(narrow(length)?)?;
        let comm = str::from_utf8(bytes).map_err(|_| CodecError::NotText)?;
        Ok(HostEventKind::Comm { tid: Tid(tid), comm: comm.to_owned() })
    };
    tids.into_iter().zip(lengths).map(comm).collect()
}

fn decode_forks(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<impl Iterator<Item = HostEventKind> + use<>, CodecError> {
    let pids = columns.deltas::<u32>(count)?;
    let tids = columns.deltas::<u32>(count)?;
    let parents = columns.deltas::<u32>(count)?;
    let fork = |((pid, tid), parent_pid): ((u32, u32), u32)| HostEventKind::Fork {
        pid: Tid(pid),
        tid: Tid(tid),
        parent_pid: Tid(parent_pid),
    };
    Ok(pids.into_iter().zip(tids).zip(parents).map(fork))
}

fn decode_exits(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<impl Iterator<Item = HostEventKind> + use<>, CodecError> {
    let tids = columns.deltas::<u32>(count)?;
    Ok(tids.into_iter().map(|tid| HostEventKind::Exit { tid: Tid(tid) }))
}

fn decode_losses(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<impl Iterator<Item = HostEventKind> + use<>, CodecError> {
    let untils = columns.deltas::<u64>(count)?;
    let counts = columns.varints::<u64>(count)?;
    let lost = |(until, count)| HostEventKind::Lost { until: HostNs(until), count };
    Ok(untils.into_iter().zip(counts).map(lost))
}

fn decode_groups(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<impl Iterator<Item = HostEventKind> + use<>, CodecError> {
    let tids = columns.deltas::<u32>(count)?;
    let groups = columns.deltas::<u64>(count)?;
    let group = |(tid, group)| HostEventKind::Group { tid: Tid(tid), group };
    Ok(tids.into_iter().zip(groups).map(group))
}

#[cfg(test)]
pub(crate) mod tests;
