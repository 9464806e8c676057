//! The columns of the host kernel's events.
//!
//! After kind (byte), time (delta) and pcpu (runs) come, for the items of each kind in turn:
//!
//! - switches: state (varint, see [`state_code`]); prev, next (delta each, interleaved in one
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

mod detail;

use super::column::{
    CodecError, ColumnReader, Columnar, StreamKind, narrow, put_deltas, put_runs, put_varints,
};
use detail::{decode_blocks, decode_kvm, encode_blocks, encode_kvm};
use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
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

impl Columnar for HostEvent {
    const KIND: StreamKind = StreamKind::Events;

    /// Sorts by time. Equal times keep their order, so that a loss stays behind the last event
    /// that came before it.
    fn arrange(items: &mut [Self]) {
        items.sort_by_key(|event| event.time);
    }

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        payload.extend(items.iter().map(|event| kind_code(&event.kind)));
        put_deltas(items.iter().map(|event| event.time.0), payload);
        put_runs(items.iter().map(|event| event.pcpu.0.into()), payload);
        encode_switches(items, payload);
        encode_wakings(items, payload);
        encode_comms(items, payload);
        encode_lives(items, payload);
        encode_losses(items, payload);
        encode_kvm(items, payload);
        encode_blocks(items, payload);
        encode_groups(items, payload);
    }

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
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

fn encode_switches(items: &[HostEvent], payload: &mut Vec<u8>) {
    let switches = || {
        items.iter().filter_map(|event| match &event.kind {
            HostEventKind::Switch(switch) => Some(switch),
            _ => None,
        })
    };
    put_varints(switches().map(|switch| state_code(switch.prev_state)), payload);
    let threads = switches().flat_map(|switch| [switch.prev.0, switch.next.0]);
    put_deltas(threads.map(u64::from), payload);
    put_runs(switches().map(|switch| priority_code(switch.next_priority)), payload);
    let stacks = switches().map(|switch| switch.stack.map_or(0, |id| u64::from(id.0) + 1));
    put_varints(stacks, payload);
    put_runs(switches().map(|switch| switch.call_args.is_some().into()), payload);
    for place in 0..3 {
        let args = switches().filter_map(|switch| switch.call_args);
        put_deltas(args.map(|args| args[place]), payload);
    }
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

/// 0 is none; all others are moved up so that none is negative.
fn priority_code(priority: Option<i16>) -> u64 {
    priority.map_or(0, |priority| u64::from(priority.cast_unsigned() ^ 0x8000) + 1)
}

fn priority_of(code: u64) -> Result<Option<i16>, CodecError> {
    let Some(moved) = code.checked_sub(1) else { return Ok(None) };
    Ok(Some((narrow::<u16>(moved)? ^ 0x8000).cast_signed()))
}

fn encode_wakings(items: &[HostEvent], payload: &mut Vec<u8>) {
    let wakings = || {
        items.iter().filter_map(|event| match event.kind {
            HostEventKind::Waking { tid, target, waker } => Some((tid, target, waker)),
            _ => None,
        })
    };
    put_deltas(wakings().map(|(tid, _, _)| tid.0.into()), payload);
    put_runs(wakings().map(|(_, target, _)| target.0.into()), payload);
    put_deltas(wakings().map(|(_, _, waker)| waker.0.into()), payload);
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

fn encode_comms(items: &[HostEvent], payload: &mut Vec<u8>) {
    let comms = || {
        items.iter().filter_map(|event| match &event.kind {
            HostEventKind::Comm { tid, comm } => Some((*tid, short_comm(comm))),
            _ => None,
        })
    };
    put_deltas(comms().map(|(tid, _)| tid.0.into()), payload);
    put_varints(comms().map(|(_, comm)| comm.len() as u64), payload);
    payload.extend(comms().flat_map(|(_, comm)| comm.bytes()));
}

/// A name as the kernel would hold it. Names from the kernel are never longer.
fn short_comm(comm: &str) -> &str {
    &comm[..comm.floor_char_boundary(COMM_BYTES_MAX)]
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

/// Forks, then exits.
fn encode_lives(items: &[HostEvent], payload: &mut Vec<u8>) {
    let forks = || {
        items.iter().filter_map(|event| match event.kind {
            HostEventKind::Fork { pid, tid, parent_pid } => Some((pid, tid, parent_pid)),
            _ => None,
        })
    };
    put_deltas(forks().map(|(pid, _, _)| pid.0.into()), payload);
    put_deltas(forks().map(|(_, tid, _)| tid.0.into()), payload);
    put_deltas(forks().map(|(_, _, parent_pid)| parent_pid.0.into()), payload);
    let exits = items.iter().filter_map(|event| match event.kind {
        HostEventKind::Exit { tid } => Some(u64::from(tid.0)),
        _ => None,
    });
    put_deltas(exits, payload);
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

fn encode_losses(items: &[HostEvent], payload: &mut Vec<u8>) {
    let losses = || {
        items.iter().filter_map(|event| match event.kind {
            HostEventKind::Lost { until, count } => Some((until, count)),
            _ => None,
        })
    };
    put_deltas(losses().map(|(until, _)| until.0), payload);
    put_varints(losses().map(|(_, count)| count), payload);
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

fn encode_groups(items: &[HostEvent], payload: &mut Vec<u8>) {
    let groups = || {
        items.iter().filter_map(|event| match event.kind {
            HostEventKind::Group { tid, group } => Some((tid, group)),
            _ => None,
        })
    };
    put_deltas(groups().map(|(tid, _)| tid.0.into()), payload);
    put_deltas(groups().map(|(_, group)| group), payload);
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
pub(super) mod tests {
    use super::detail::{kvm_of, step_of};
    use super::*;
    use proptest::prelude::*;
    use vslice_core::host_event::{BlockEvent, BlockStep, KvmEvent};
    use vslice_wire::BlockOperation;

    pub(crate) fn any_event() -> impl Strategy<Value = HostEvent> {
        let tid = || any::<u32>().prop_map(Tid);
        let state = (0..7u64, any::<u16>()).prop_map(|(code, bit)| {
            if code == 6 { PrevState::Other(bit) } else { state_of(code).unwrap() }
        });
        let stack = prop::option::of(any::<u32>().prop_map(StackId));
        let more = (prop::option::of(any::<i16>()), prop::option::of(any::<[u64; 3]>()));
        let switch = (tid(), state, tid(), stack, more).prop_map(
            |(prev, prev_state, next, stack, (next_priority, call_args))| {
                HostEventKind::Switch(Switch {
                    prev,
                    prev_state,
                    next,
                    next_priority,
                    stack,
                    call_args,
                })
            },
        );
        let kvm =
            (tid(), 0..8_u8, any::<u64>(), any::<u32>()).prop_map(|(tid, code, first, second)| {
                let first = match code {
                    3 | 5 => first & 0xffff,
                    4 | 6 => first,
                    _ => first & 0xffff_ffff,
                };
                let second = match code {
                    6 => second & 1,
                    7 => second & 0xff,
                    _ => second,
                };
                HostEventKind::Kvm { tid, event: kvm_of(code, first, second.into()).unwrap() }
            });
        let block = (0..18_u8, tid(), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(
            |(step, tid, device, sector, sectors)| {
                let (step, operation) = step_of(step).unwrap();
                let event = BlockEvent { step, tid, device, sector, sectors, operation };
                HostEventKind::Block(event)
            },
        );
        let waking = (tid(), any::<u32>(), tid()).prop_map(|(tid, target, waker)| {
            HostEventKind::Waking { tid, target: PcpuId(target), waker }
        });
        let comm =
            (tid(), "[a-z/:\u{e9}]{0,7}").prop_map(|(tid, comm)| HostEventKind::Comm { tid, comm });
        let fork = (tid(), tid(), tid()).prop_map(|(pid, tid, parent_pid)| HostEventKind::Fork {
            pid,
            tid,
            parent_pid,
        });
        let exit = tid().prop_map(|tid| HostEventKind::Exit { tid });
        let lost = (any::<u64>(), any::<u64>())
            .prop_map(|(until, count)| HostEventKind::Lost { until: HostNs(until), count });
        let group =
            (tid(), any::<u64>()).prop_map(|(tid, group)| HostEventKind::Group { tid, group });
        let kind = prop_oneof![switch, waking, comm, fork, exit, lost, kvm, block, group];
        (any::<u64>(), any::<u32>(), kind).prop_map(|(time, pcpu, kind)| HostEvent {
            time: HostNs(time),
            pcpu: PcpuId(pcpu),
            kind,
        })
    }

    #[test]
    fn a_switch_has_these_bytes() {
        let event = HostEvent {
            time: HostNs(3),
            pcpu: PcpuId(1),
            kind: HostEventKind::Switch(Switch {
                next_priority: Some(-1),
                stack: Some(StackId(4)),
                call_args: Some([1, 2, 3]),
                ..Switch::new(Tid(10), PrevState::Sleep, Tid(9))
            }),
        };
        let mut payload = Vec::new();
        HostEvent::encode(&[event], &mut payload);
        // kind | time | pcpu: run of 1, value 1 | state | prev, next | priority: run of 1,
        // 32767 + 1 | stack | arguments: run of 1, there | first | second | third
        let expected = [0, 6, 0, 1, 2, 20, 1, 0, 0x80, 0x80, 2, 5, 0, 1, 2, 4, 6];
        assert_eq!(payload, expected);
    }

    #[test]
    fn a_control_group_has_these_bytes() {
        let kind = HostEventKind::Group { tid: Tid(10), group: 300 };
        let event = HostEvent { time: HostNs(3), pcpu: PcpuId(1), kind };
        let mut payload = Vec::new();
        HostEvent::encode(&[event], &mut payload);
        // kind | time | pcpu: run of 1, value 1 | tid | number
        assert_eq!(payload, [8, 6, 0, 1, 20, 0xd8, 0x04]);
    }

    #[test]
    fn an_io_has_these_bytes_and_those_without_its_operation_are_read() {
        let block = |operation| {
            let (step, tid) = (BlockStep::Completed, Tid(10));
            let event = BlockEvent { step, tid, device: 5, sector: 3, sectors: 8, operation };
            let kind = HostEventKind::Block(event);
            HostEvent { time: HostNs(3), pcpu: PcpuId(1), kind }
        };
        // kind | time | pcpu: run of 1, value 1 | step and operation: run of 1 | tid | device: run of 1 | sector |
        // sectors: run of 1
        let bytes = |code| [7, 6, 0, 1, 0, code, 20, 0, 5, 6, 0, 8];
        for (code, operation) in [
            (2, None),
            (5, Some(BlockOperation::Read)),
            (8, Some(BlockOperation::Write)),
            (17, Some(BlockOperation::Other)),
        ] {
            let mut payload = Vec::new();
            HostEvent::encode(&[block(operation)], &mut payload);
            assert_eq!(payload, bytes(code));
            let read = HostEvent::decode(1, &mut ColumnReader::new(&payload)).unwrap();
            assert_eq!(read, [block(operation)]);
        }
        let error = HostEvent::decode(1, &mut ColumnReader::new(&bytes(18))).unwrap_err();
        assert_eq!(error, CodecError::OutOfRange(18));
    }

    #[test]
    fn an_interrupt_has_these_bytes() {
        let event = KvmEvent::Interrupt { vcpu: 3, vector: 0x2a };
        let kind = HostEventKind::Kvm { tid: Tid(10), event };
        let event = HostEvent { time: HostNs(3), pcpu: PcpuId(1), kind };
        let mut payload = Vec::new();
        HostEvent::encode(std::slice::from_ref(&event), &mut payload);
        // kind | time | pcpu: run of 1, value 1 | tid | what | vCPU | vector
        assert_eq!(payload, [6, 6, 0, 1, 20, 7, 6, 0x2a]);
        assert_eq!(HostEvent::decode(1, &mut ColumnReader::new(&payload)).unwrap(), [event]);
        // A vector has 8 bits.
        let wide = [6, 6, 0, 1, 20, 7, 6, 0x80, 2];
        let error = HostEvent::decode(1, &mut ColumnReader::new(&wide)).unwrap_err();
        assert_eq!(error, CodecError::OutOfRange(256));
    }

    #[test]
    fn an_unknown_kind_or_a_long_name_is_an_error() {
        let unknown = [9, 0, 0, 0];
        let error = HostEvent::decode(1, &mut ColumnReader::new(&unknown)).unwrap_err();
        assert_eq!(error, CodecError::OutOfRange(9));
        let mut long = vec![COMM, 0, 0, 0, 2, 16];
        long.extend([b'x'; 16]);
        let error = HostEvent::decode(1, &mut ColumnReader::new(&long)).unwrap_err();
        assert_eq!(error, CodecError::OutOfRange(16));
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_between_characters() {
        assert_eq!(short_comm("12345678901234\u{e9}"), "12345678901234");
        assert_eq!(short_comm("123456789012345"), "123456789012345");
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(events in prop::collection::vec(any_event(), 0..80)) {
            let mut payload = Vec::new();
            HostEvent::encode(&events, &mut payload);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(HostEvent::decode(events.len(), &mut columns).unwrap(), events);
            prop_assert_eq!(columns.finish(), Ok(()));
        }
    }
}
