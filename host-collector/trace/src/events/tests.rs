//! The columns of events.

use super::detail::{kvm_of, step_of};
use super::*;
use proptest::prelude::*;
use vslice_core::host_event::StackId;
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
    let group = (tid(), any::<u64>()).prop_map(|(tid, group)| HostEventKind::Group { tid, group });
    let kind = prop_oneof![switch, waking, comm, fork, exit, lost, kvm, block, group];
    (any::<u64>(), any::<u32>(), kind).prop_map(|(time, pcpu, kind)| HostEvent {
        time: HostNs(time),
        pcpu: PcpuId(pcpu),
        kind,
    })
}

/// A payload of these parts; the others are empty.
fn payload(parts: &[(Part, &[u8])]) -> Vec<u8> {
    let mut all = [const { Vec::new() }; PARTS];
    for (part, bytes) in parts {
        all[*part as usize] = bytes.to_vec();
    }
    let mut payload = Vec::new();
    put_parts(&all, &mut payload);
    payload
}

fn at(time: u64, kind: HostEventKind) -> HostEvent {
    HostEvent { time: HostNs(time), pcpu: PcpuId(1), kind }
}

#[test]
fn switches_and_wakings_have_these_bytes() {
    let tid = Tid(9);
    let comes =
        Switch { next_priority: Some(120), ..Switch::new(Tid(0), PrevState::Runnable, tid) };
    let goes = Switch {
        stack: Some(StackId(4)),
        call_args: Some([7, 0, 2]),
        ..Switch::new(tid, PrevState::Sleep, Tid(0))
    };
    let waking = HostEventKind::Waking { tid, target: PcpuId(1), waker: Tid(0) };
    let events = [
        at(1000, waking),
        at(1001, HostEventKind::Switch(comes)),
        at(1002, HostEventKind::Switch(goes)),
        at(1005, HostEventKind::Switch(comes)),
        at(1009, HostEventKind::Switch(goes)),
    ];
    let expected = payload(&[
        // The thread is new; the idle thread's state; who follows, stack, arguments, no priority; all as it was.
        (Part::Shapes, &[0x42, 0x09, 0x75, 0x01, 0x01]),
        (Part::TimesLow, &[0xe8, 1, 1, 3, 4]),
        (Part::TimesHigh, &[3, 0, 0, 0, 0]),
        (Part::Threads, &[0]),
        (Part::Woken, &[1]),
        (Part::NewThreads, &[9]),
        (Part::States, &[0]),
        (Part::Priorities, &[0]),
        (Part::Stacks, &[5]),
        (Part::CallArgs, &[6]),
        (Part::FirstArgs, &[14]),
        (Part::ThirdArgs, &[4]),
        (Part::Pcpus, &[4, 1]),
    ]);
    assert_eq!(encoded(&events), expected);
    assert_eq!(decoded(5, &expected).unwrap(), events);
}

#[test]
fn all_other_events_have_these_bytes() {
    let block = |step, sector| {
        let (tid, device, sectors) = (Tid(0), 5, 8);
        let operation = Some(BlockOperation::Read);
        HostEventKind::Block(BlockEvent { step, tid, device, sector, sectors, operation })
    };
    let kvm = |event| HostEventKind::Kvm { tid: Tid(0), event };
    let tid = Tid(4);
    let kinds = [
        block(BlockStep::Submitted, 16),
        block(BlockStep::Issued, 16),
        block(BlockStep::Completed, 16),
        block(BlockStep::Submitted, 24),
        kvm(KvmEvent::GuestEntry),
        kvm(KvmEvent::Memory { address: 3 }),
        HostEventKind::Comm { tid, comm: "ab".into() },
        HostEventKind::Lost { until: HostNs(16), count: 2 },
        HostEventKind::Group { tid, group: 300 },
        HostEventKind::Fork { pid: Tid(1), tid, parent_pid: Tid(2) },
        HostEventKind::Exit { tid },
    ];
    let events: Vec<HostEvent> =
        kinds.into_iter().zip(0..).map(|(kind, time)| at(time, kind)).collect();
    let expected = payload(&[
        (Part::Shapes, &[0xce, 0x0e, 0x0e, 0x0e, 0x0c, 0xcc, 0x04, 0x0a, 0x10, 0x06, 0x08]),
        (Part::TimesLow, &[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (Part::TimesHigh, &[0; 11]),
        (Part::Steps, &[3, 4, 5, 3]),
        (Part::Sectors, &[32]),
        (Part::Lengths, &[5, 8]),
        (Part::Kvm, &[4, 6, 0]),
        (Part::Others, &[4, 2, b'a', b'b', 9, 2, 4, 0xac, 2, 1, 4, 2, 4]),
        (Part::Pcpus, &[10, 1]),
    ]);
    assert_eq!(encoded(&events), expected);
    assert_eq!(decoded(11, &expected).unwrap(), events);
}

#[test]
fn nonsense_is_an_error() {
    let read = |shape: u8, more: &[(Part, &[u8])]| {
        let shapes = [shape];
        let mut parts: Vec<(Part, &[u8])> = vec![
            (Part::Shapes, &shapes),
            (Part::TimesLow, &[0]),
            (Part::TimesHigh, &[0]),
            (Part::Pcpus, &[0, 1]),
        ];
        parts.extend(more);
        decoded(1, &payload(&parts)).unwrap_err()
    };
    assert_eq!(read(0x12, &[]), CodecError::OutOfRange(9), "a kind");
    let name = [&[1, 16][..], &[b'x'; 16]].concat();
    assert_eq!(read(0x04, &[(Part::Others, &name)]), CodecError::OutOfRange(16), "a name");
    assert_eq!(read(0x04, &[(Part::Others, &[1, 1, 0xff])]), CodecError::NotText);
    assert_eq!(read(0x42, &[(Part::Woken, &[2])]), CodecError::OutOfRange(2), "a thread");
    assert_eq!(read(0x42, &[(Part::Woken, &[1])]), CodecError::Short, "its number");
    assert_eq!(read(0x21, &[(Part::CallArgs, &[9])]), CodecError::OutOfRange(9), "arguments");
    assert_eq!(read(0x4c, &[(Part::Kvm, &[8])]), CodecError::OutOfRange(8), "what KVM did");
    assert_eq!(read(0x0e, &[(Part::Steps, &[18])]), CodecError::OutOfRange(18), "a step");
    assert_eq!(read(0x08, &[(Part::Others, &[1, 2])]), CodecError::Trailing(1));
}

#[test]
fn a_name_that_is_too_long_is_cut_between_characters() {
    assert_eq!(short_comm("12345678901234\u{e9}"), "12345678901234");
    assert_eq!(short_comm("123456789012345"), "123456789012345");
}

fn encoded(events: &[HostEvent]) -> Vec<u8> {
    let mut payload = Vec::new();
    HostEvent::encode(events, &mut payload);
    payload
}

fn decoded(count: usize, payload: &[u8]) -> Result<Vec<HostEvent>, CodecError> {
    let mut columns = ColumnReader::new(payload);
    let events = HostEvent::decode(count, &mut columns)?;
    columns.finish().map(|()| events)
}

/// Events of few threads that do the same again and again, as those of a host are.
pub(crate) fn lively(
    count: impl Into<prop::collection::SizeRange>,
) -> impl Strategy<Value = Vec<HostEvent>> {
    prop::collection::vec(any_event().prop_map(familiar), count)
}

fn familiar(mut event: HostEvent) -> HostEvent {
    let few = |tid: &mut Tid| tid.0 %= 3;
    event.time.0 %= 5000;
    event.pcpu.0 %= 2;
    match &mut event.kind {
        HostEventKind::Switch(switch) => {
            few(&mut switch.prev);
            few(&mut switch.next);
            switch.next_priority = switch.next_priority.map(|priority| priority % 2 + 120);
            switch.stack = switch.stack.map(|stack| StackId(stack.0 % 3));
            switch.call_args = switch.call_args.map(|args| args.map(|arg| arg % 2));
        }
        HostEventKind::Waking { tid, target, waker } => {
            few(tid);
            few(waker);
            target.0 %= 2;
        }
        HostEventKind::Kvm { tid, event } => {
            few(tid);
            match event {
                KvmEvent::GuestExit { isa, reason } => (*isa, *reason) = (*isa % 2, *reason % 2),
                KvmEvent::Memory { address } => *address %= 2,
                _ => {}
            }
        }
        HostEventKind::Block(block) => {
            few(&mut block.tid);
            block.device %= 2;
            block.sectors = block.sectors % 2 * 8;
            block.sector = block.sector % 3 * 8;
        }
        HostEventKind::Comm { tid, .. }
        | HostEventKind::Fork { tid, .. }
        | HostEventKind::Exit { tid }
        | HostEventKind::Group { tid, .. } => few(tid),
        HostEventKind::Lost { .. } => {}
    }
    event
}

proptest! {
    #[test]
    fn what_is_encoded_comes_back(events in prop::collection::vec(any_event(), 0..80)) {
        prop_assert_eq!(decoded(events.len(), &encoded(&events)).unwrap(), events);
    }

    #[test]
    fn what_is_as_expected_comes_back_too(events in lively(0..300)) {
        prop_assert_eq!(decoded(events.len(), &encoded(&events)).unwrap(), events);
    }

    #[test]
    fn a_payload_with_a_byte_changed_never_panics(
        events in lively(1..60),
        place: prop::sample::Index,
        byte: u8,
    ) {
        let mut payload = encoded(&events);
        let place = place.index(payload.len());
        payload[place] = byte;
        if let Ok(read) = decoded(events.len(), &payload) {
            prop_assert_eq!(read.len(), events.len());
        }
    }
}
