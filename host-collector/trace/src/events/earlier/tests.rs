//! Blocks of the versions before 6, as they were written then.

use super::decode;
use crate::column::{CodecError, ColumnReader, put_deltas, put_runs, put_varints};
use crate::events::detail::{kvm_columns, step_code};
use crate::events::tests::any_event;
use crate::events::{COMM, kind_code, priority_code, short_comm, state_code};
use proptest::prelude::*;
use vslice_core::host_event::{
    BlockEvent, BlockStep, HostEvent, HostEventKind, KvmEvent, PrevState, StackId, Switch,
};
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_wire::BlockOperation;

pub(crate) fn encode(items: &[HostEvent], payload: &mut Vec<u8>) {
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

fn encode_kvm(items: &[HostEvent], payload: &mut Vec<u8>) {
    let events = || {
        items.iter().filter_map(|event| match event.kind {
            HostEventKind::Kvm { tid, event } => Some((tid, kvm_columns(event))),
            _ => None,
        })
    };
    put_deltas(events().map(|(tid, _)| tid.0.into()), payload);
    payload.extend(events().map(|(_, (code, _, _))| code));
    put_deltas(events().map(|(_, (_, first, _))| first), payload);
    put_varints(events().map(|(_, (_, _, second))| second), payload);
}

fn encode_blocks(items: &[HostEvent], payload: &mut Vec<u8>) {
    let blocks = || {
        items.iter().filter_map(|event| match &event.kind {
            HostEventKind::Block(block) => Some(block),
            _ => None,
        })
    };
    put_runs(blocks().map(|block| step_code(block).into()), payload);
    put_deltas(blocks().map(|block| block.tid.0.into()), payload);
    put_runs(blocks().map(|block| block.device.into()), payload);
    put_deltas(blocks().map(|block| block.sector), payload);
    put_runs(blocks().map(|block| block.sectors.into()), payload);
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
    encode(&[event], &mut payload);
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
    encode(&[event], &mut payload);
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
        encode(&[block(operation)], &mut payload);
        assert_eq!(payload, bytes(code));
        let read = decode(1, &mut ColumnReader::new(&payload)).unwrap();
        assert_eq!(read, [block(operation)]);
    }
    let error = decode(1, &mut ColumnReader::new(&bytes(18))).unwrap_err();
    assert_eq!(error, CodecError::OutOfRange(18));
}

#[test]
fn an_interrupt_has_these_bytes() {
    let event = KvmEvent::Interrupt { vcpu: 3, vector: 0x2a };
    let kind = HostEventKind::Kvm { tid: Tid(10), event };
    let event = HostEvent { time: HostNs(3), pcpu: PcpuId(1), kind };
    let mut payload = Vec::new();
    encode(std::slice::from_ref(&event), &mut payload);
    // kind | time | pcpu: run of 1, value 1 | tid | what | vCPU | vector
    assert_eq!(payload, [6, 6, 0, 1, 20, 7, 6, 0x2a]);
    assert_eq!(decode(1, &mut ColumnReader::new(&payload)).unwrap(), [event]);
    // A vector has 8 bits.
    let wide = [6, 6, 0, 1, 20, 7, 6, 0x80, 2];
    let error = decode(1, &mut ColumnReader::new(&wide)).unwrap_err();
    assert_eq!(error, CodecError::OutOfRange(256));
}

#[test]
fn an_unknown_kind_or_a_long_name_is_an_error() {
    let unknown = [9, 0, 0, 0];
    let error = decode(1, &mut ColumnReader::new(&unknown)).unwrap_err();
    assert_eq!(error, CodecError::OutOfRange(9));
    let mut long = vec![COMM, 0, 0, 0, 2, 16];
    long.extend([b'x'; 16]);
    let error = decode(1, &mut ColumnReader::new(&long)).unwrap_err();
    assert_eq!(error, CodecError::OutOfRange(16));
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back(events in prop::collection::vec(any_event(), 0..80)) {
        let mut payload = Vec::new();
        encode(&events, &mut payload);
        let mut columns = ColumnReader::new(&payload);
        prop_assert_eq!(decode(events.len(), &mut columns).unwrap(), events);
        prop_assert_eq!(columns.finish(), Ok(()));
    }
}
