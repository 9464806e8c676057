//! Rings are written record by record in the kernel's layout (offsets as kernel 6.18 prints them),
//! and read as events.

use super::*;
use crate::perf::event::tests::{Bytes, words};
use crate::perf::format::tests::{SWITCH_6_18, WAKING_6_18};
use crate::perf::format::{Detail, DetailFormat, SwitchFormat, WakingFormat};
use perf_event_open_sys::bindings::{PERF_RECORD_CGROUP, PERF_RECORD_EXIT, PERF_RECORD_FORK};
use proptest::prelude::*;

const PCPU: PcpuId = PcpuId(3);
const VM: u32 = 900;

fn assembler() -> Assembler {
    assembler_with(Some(Vec::new()))
}

/// With the place of the programs that record, if there are any.
fn assembler_with(own_code: Option<Vec<Range<u64>>>) -> Assembler {
    let switch = SwitchFormat::parse(SWITCH_6_18).unwrap();
    let waking = WakingFormat::parse(WAKING_6_18).unwrap();
    let (formats, groups) = (Formats { switch, waking, details: Vec::new() }, Groups::new(None));
    let mut assembler = Assembler::new(formats, own_code, groups);
    assembler.add_thread(VM, Some(VM));
    assembler
}

fn comm(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// common_type u16, flags u8, preempt u8, common_pid u32, then the fields.
fn switch(prev: (u32, &str), state: u64, next: (u32, &str)) -> Vec<u8> {
    let mut raw = words(&[372, prev.0]);
    raw.extend(comm(prev.1));
    raw.extend(words(&[prev.0, 120]));
    // The state is below 2^32 here, and this test runs on little-endian machines.
    raw.extend(state.to_le_bytes());
    raw.extend(comm(next.1));
    raw.extend(words(&[next.0, 120]));
    raw
}

fn waking(waker: u32, tid: (u32, &str), target: u32) -> Vec<u8> {
    let mut raw = words(&[375, waker]);
    raw.extend(comm(tid.1));
    raw.extend(words(&[tid.0, 120, target]));
    raw
}

fn read(assembler: &mut Assembler, order: &mut RingOrder, bytes: &Bytes) -> Batch {
    let mut batch = Batch::default();
    assembler.assemble(&bytes.0, order, &mut batch).unwrap();
    batch
}

fn times_and_kinds(batch: &Batch) -> Vec<(u64, HostEventKind)> {
    assert!(batch.events.iter().all(|event| event.pcpu == PCPU));
    batch.events.iter().map(|event| (event.time.0, event.kind.clone())).collect()
}

fn without_names(batch: &Batch) -> Vec<(u64, HostEventKind)> {
    let mut events = times_and_kinds(batch);
    events.retain(|(_, kind)| !matches!(kind, HostEventKind::Comm { .. }));
    events
}

fn name(tid: u32, comm: &str) -> HostEventKind {
    HostEventKind::Comm { tid: Tid(tid), comm: comm.into() }
}

fn switched(prev: u32, prev_state: PrevState, next: u32, stack: Option<u32>) -> HostEventKind {
    let (prev, next, stack) = (Tid(prev), Tid(next), stack.map(StackId));
    let next_priority = Some(120);
    HostEventKind::Switch(Switch { next_priority, stack, ..Switch::new(prev, prev_state, next) })
}

#[test]
fn switches_and_wakings_are_told_with_names_once() {
    let chain = [u64::MAX - 127, 0xffff_ffff_8100_0010, 0xffff_ffff_8100_0020];
    let mut bytes = Bytes::default();
    bytes.sample(100, &chain, &switch((5, "CPU 0/KVM"), 1, (0, "swapper/3")));
    bytes.sample(150, &[], &waking(0, (5, "CPU 0/KVM"), 3));
    bytes.sample(160, &[], &switch((0, "swapper/3"), 0, (5, "CPU 0/KVM")));
    bytes.sample(200, &chain, &switch((5, "CPU 0/KVM"), 0x100, (6, "sh")));
    let (mut assembler, mut order) = (assembler(), RingOrder::new(PCPU, true, HostNs(1)));
    let batch = read(&mut assembler, &mut order, &bytes);
    let waking = HostEventKind::Waking { tid: Tid(5), target: PcpuId(3), waker: Tid(0) };
    let expected = [
        (100, name(5, "CPU 0/KVM")),
        (100, switched(5, PrevState::Sleep, 0, Some(0))),
        (150, waking),
        (160, switched(0, PrevState::Runnable, 5, None)),
        (200, name(6, "sh")),
        (200, switched(5, PrevState::RunnablePreempted, 6, Some(0))),
    ];
    assert_eq!(times_and_kinds(&batch), expected);
    assert_eq!(batch.new_stacks, [StackId(0)]);
    assert_eq!(assembler.stacks.frames(StackId(0)), Some(&chain[1..]));
}

#[test]
fn a_loss_lasts_from_the_last_record_before_it_to_the_first_one_after_it() {
    let idle = |prev| switch((prev, "a"), 1, (0, ""));
    let mut bytes = Bytes::default();
    bytes.sample(100, &[], &idle(5));
    // The kernel takes the time of the loss after that of the record that it is written with.
    bytes.lost(501, 7);
    bytes.sample(500, &[], &idle(5));
    let (mut assembler, mut order) = (assembler(), RingOrder::new(PCPU, true, HostNs(40)));
    let batch = read(&mut assembler, &mut order, &bytes);
    let expected = [
        (100, name(5, "a")),
        (100, switched(5, PrevState::Sleep, 0, None)),
        (100, HostEventKind::Lost { until: HostNs(500), count: 7 }),
        (500, switched(5, PrevState::Sleep, 0, None)),
    ];
    assert_eq!(times_and_kinds(&batch), expected);
    assert_eq!(order.lost_count, 7);
    let last = order.lost_at_the_end(HostNs(900), 2);
    let kind = HostEventKind::Lost { until: HostNs(900), count: 2 };
    assert_eq!(last, HostEvent { time: HostNs(500), pcpu: PCPU, kind });
}

#[test]
fn a_loss_before_any_record_begins_where_recording_began() {
    let mut bytes = Bytes::default();
    bytes.lost(60, 1);
    let (mut assembler, mut order) = (assembler(), RingOrder::new(PCPU, true, HostNs(40)));
    let batch = read(&mut assembler, &mut order, &bytes);
    let expected = [(40, HostEventKind::Lost { until: HostNs(60), count: 1 })];
    assert_eq!(times_and_kinds(&batch), expected);
}

#[test]
fn overtaken_records_are_put_in_order_within_and_between_batches() {
    let (mut assembler, mut order) = (assembler(), RingOrder::new(PCPU, true, HostNs(1)));
    let mut first = Bytes::default();
    first.sample(100, &[], &waking(0, (5, "a"), 3));
    first.life(PERF_RECORD_FORK, 90, [VM, 1, 901, 1]);
    let batch = read(&mut assembler, &mut order, &first);
    let times: Vec<u64> = batch.events.iter().map(|event| event.time.0).collect();
    assert_eq!((times, batch.moved_count), (vec![90, 100, 100], 0));
    let mut second = Bytes::default();
    second.life(PERF_RECORD_FORK, 95, [VM, 1, 902, 1]);
    let batch = read(&mut assembler, &mut order, &second);
    assert_eq!((batch.events[0].time, batch.moved_count), (HostNs(100), 1));
}

#[test]
fn births_deaths_and_names_are_told_of_vms_and_of_those_who_were_seen() {
    let (mut assembler, mut order) = (assembler(), RingOrder::new(PCPU, true, HostNs(1)));
    let mut bytes = Bytes::default();
    bytes.life(PERF_RECORD_FORK, 10, [VM, VM, 901, VM]);
    bytes.comm(11, 901, b"worker\0");
    bytes.life(PERF_RECORD_FORK, 12, [70, 69, 70, 69]);
    bytes.life(PERF_RECORD_EXIT, 13, [70, 69, 70, 69]);
    bytes.sample(14, &[], &switch((901, "worker"), 1, (0, "")));
    bytes.comm(15, 901, b"new\0");
    bytes.life(PERF_RECORD_EXIT, 16, [VM, VM, 901, VM]);
    let batch = read(&mut assembler, &mut order, &bytes);
    let expected = [
        (10, HostEventKind::Fork { pid: Tid(VM), tid: Tid(901), parent_pid: Tid(VM) }),
        (14, name(901, "worker")),
        (14, switched(901, PrevState::Sleep, 0, None)),
        (15, name(901, "new")),
        (16, HostEventKind::Exit { tid: Tid(901) }),
    ];
    assert_eq!(times_and_kinds(&batch), expected);
    assert_eq!(batch.born, [Tid(901)]);
    assert_eq!(batch.ended, [Tid(70), Tid(901)]);
}

#[test]
fn a_birth_is_told_when_the_thread_is_seen_if_nobody_cared_before() {
    let mut bytes = Bytes::default();
    // Of a parent that is not on a watched pCPU: a thread that comes onto one, and one that never does.
    bytes.life(PERF_RECORD_FORK, 50, [70, 40, 70, 40]);
    bytes.life(PERF_RECORD_FORK, 60, [71, 40, 71, 40]);
    bytes.sample(100, &[], &switch((5, "CPU 0/KVM"), 1, (70, "bash")));
    bytes.comm(110, 70, b"true\0");
    bytes.sample(120, &[], &switch((70, "true"), 1, (5, "CPU 0/KVM")));
    let (mut assembler, mut order) = (assembler(), RingOrder::new(PCPU, true, HostNs(1)));
    let events = times_and_kinds(&read(&mut assembler, &mut order, &bytes));
    let birth = HostEventKind::Fork { pid: Tid(70), tid: Tid(70), parent_pid: Tid(40) };
    let expected = [
        (100, name(5, "CPU 0/KVM")),
        (100, birth),
        (100, name(70, "bash")),
        (100, switched(5, PrevState::Sleep, 70, None)),
        (110, name(70, "true")),
        (120, switched(70, PrevState::Sleep, 5, None)),
    ];
    assert_eq!(events, expected);
    // Its number is used again.
    let mut bytes = Bytes::default();
    bytes.life(PERF_RECORD_FORK, 200, [70, 40, 70, 40]);
    let again = HostEventKind::Fork { pid: Tid(70), tid: Tid(70), parent_pid: Tid(40) };
    assert_eq!(times_and_kinds(&read(&mut assembler, &mut order, &bytes)), [(200, again)]);
}

#[test]
fn what_was_not_asked_for_is_counted_and_what_is_cut_is_an_error() {
    let (mut assembler, mut order) = (assembler(), RingOrder::new(PCPU, true, HostNs(1)));
    let mut bytes = Bytes::default();
    bytes.sample(10, &[], &words(&[999, 0]));
    bytes.record(13, &[0; 32]);
    let batch = read(&mut assembler, &mut order, &bytes);
    assert_eq!((batch.events.len(), batch.unknown_count), (0, 2));
    let mut cut = Bytes::default();
    cut.sample(10, &[], &switch((1, "a"), 0, (2, "b"))[..40]);
    let error = assembler.assemble(&cut.0, &mut order, &mut Batch::default()).unwrap_err();
    let size_bytes = 44;
    assert_eq!(error, RingError::RecordShort { kind: PERF_RECORD_SAMPLE, size_bytes });
}

/// The words after the raw data: the ABI, then ax, dx, si, di.
#[test]
fn a_switch_in_a_system_call_tells_its_arguments() {
    let (mut assembler, mut order) = (assembler(), RingOrder::new(PCPU, true, HostNs(1)));
    let mut bytes = Bytes::default();
    let registers = [2, 0xffff_ffff_ffff_ffda, 2, 0x80, 0x5616_45c0_3060];
    bytes.sample_in_call(10, &[0xffff_ffff_8100_0010], &switch((VM, "vm"), 1, (0, "")), &registers);
    bytes.sample(15, &[], &switch((0, ""), 0, (VM, "vm")));
    bytes.sample_in_call(20, &[0xffff_ffff_8100_0010], &switch((VM, "vm"), 0, (0, "")), &[0]);
    let batch = read(&mut assembler, &mut order, &bytes);
    let args: Vec<_> = without_names(&batch)
        .into_iter()
        .map(|(_, kind)| match kind {
            HostEventKind::Switch(switch) => switch.call_args,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(args, [Some([0x5616_45c0_3060, 0x80, 2]), None, None]);
}

#[test]
fn a_program_writes_registers_behind_its_record_and_is_no_part_of_the_stack() {
    let own_code = 0xffff_ffff_c002_2000..0xffff_ffff_c002_2200;
    let mut assembler = assembler_with(Some(vec![own_code]));
    let mut order = RingOrder::new(PCPU, true, HostNs(1));
    let (schedule, futex) = (0xffff_ffff_8100_0618, 0xffff_ffff_8200_0051);
    let chain = [u64::MAX - 127, 0xffff_ffff_c002_2128, schedule, futex];
    let words = |abi: u64| [abi, 0xffff_ffff_ffff_ffda, 2, 0x80, 0x5616_45c0_3060];
    let record = |abi: u64| {
        let own = switch((VM, "vm"), 1, (0, ""));
        assert_eq!(own.len(), assembler.formats.switch.bytes());
        let words = [0].into_iter().chain(words(abi)).flat_map(u64::to_le_bytes);
        own.into_iter().chain(words).collect::<Vec<u8>>()
    };
    let mut bytes = Bytes::default();
    bytes.sample(10, &chain, &record(2));
    bytes.sample(20, &chain, &record(0));
    let batch = read(&mut assembler, &mut order, &bytes);
    let args: Vec<_> = without_names(&batch)
        .into_iter()
        .map(|(_, kind)| match kind {
            HostEventKind::Switch(switch) => (switch.stack, switch.call_args),
            other => panic!("{other:?}"),
        })
        .collect();
    let stack = Some(StackId(0));
    assert_eq!(args, [(stack, Some([0x5616_45c0_3060, 0x80, 2])), (stack, None)]);
    assert_eq!(assembler.stacks.frames(StackId(0)), Some(&[schedule, futex][..]));
}

/// As a kernel may have more fields than vslice knows.
#[test]
fn what_perf_itself_writes_behind_a_record_is_neither_a_group_nor_registers() {
    let kinds = |own_code: Option<Vec<Range<u64>>>| {
        let mut order = RingOrder::new(PCPU, true, HostNs(1));
        let own = switch((VM, "vm"), 1, (7, "sh"));
        let more = [40, 2, 0xffff_ffff_ffff_ffda, 2, 0x80, 0x5616_45c0_3060];
        let record = own.into_iter().chain(more.into_iter().flat_map(u64::to_le_bytes));
        let mut bytes = Bytes::default();
        bytes.sample(10, &[], &record.collect::<Vec<u8>>());
        let batch = read(&mut assembler_with(own_code), &mut order, &bytes);
        let (mut has_group, mut has_args) = (false, false);
        for event in batch.events {
            has_group |= matches!(event.kind, HostEventKind::Group { .. });
            has_args |= matches!(event.kind, HostEventKind::Switch(it) if it.call_args.is_some());
        }
        (has_group, has_args)
    };
    assert_eq!(kinds(None), (false, false));
    assert_eq!(kinds(Some(Vec::new())), (true, true));
}

#[test]
fn a_program_tells_the_group_of_who_comes_which_is_said_once_and_when_it_changes() {
    let (mut assembler, mut bytes) = (assembler(), Bytes::default());
    let mut order = RingOrder::new(PCPU, true, HostNs(1));
    let mut add = |time, prev, next, group: u64| {
        let record = switch((prev, "a"), 1, (next, "a")).into_iter().chain(group.to_le_bytes());
        bytes.sample(time, &[], &record.collect::<Vec<u8>>());
    };
    add(100, 7, 8, 40);
    add(110, 8, 9, 41);
    add(120, 9, 8, 40);
    add(130, 8, 0, 1);
    add(140, 0, 8, 41);
    bytes.other(PERF_RECORD_CGROUP, 150, &[&41u64.to_le_bytes()[..], b"/a.scope"].concat());
    let batch = read(&mut assembler, &mut order, &bytes);
    let groups = batch.events.iter().filter_map(|event| match event.kind {
        HostEventKind::Group { tid, group } => Some((event.time.0, tid.0, group)),
        _ => None,
    });
    let groups: Vec<_> = groups.collect();
    assert_eq!(groups, [(100, 8, 40), (110, 9, 41), (140, 8, 41)], "and none of the idle task");
    let said = assembler.groups.settle(true);
    assert_eq!(said, [(41, Some("/a.scope".to_owned())), (40, None)]);
    let at = |wanted: fn(&HostEventKind) -> bool| batch.events.iter().position(|e| wanted(&e.kind));
    let (group, switch) = (
        at(|kind| matches!(kind, HostEventKind::Group { .. })),
        at(|kind| matches!(kind, HostEventKind::Switch(_))),
    );
    assert!(group < switch, "it is in the group while it is on the pCPU");
}

#[test]
fn threads_that_are_called_as_vcpus_are_counted_unless_they_are_a_recorded_vms() {
    let (mut assembler, mut bytes) = (assembler(), Bytes::default());
    let mut order = RingOrder::new(PCPU, true, HostNs(1));
    bytes.sample(100, &[], &switch((VM, "CPU 0/KVM"), 1, (8, "CPU 0/KVM")));
    bytes.sample(110, &[], &switch((8, "CPU 0/KVM"), 1, (9, "make")));
    bytes.sample(120, &[], &switch((9, "make"), 1, (10, "fc_vcpu 3")));
    assert_eq!(read(&mut assembler, &mut order, &bytes).strange_vcpus_count, 2);
}

#[test]
fn a_vms_thread_whose_arrival_was_hidden_says_how_long_it_was_there() {
    let read_on = |is_watched, first: (u32, u32), stay_ns: u64| {
        let (mut assembler, mut bytes) = (assembler(), Bytes::default());
        let mut order = RingOrder::new(PCPU, is_watched, HostNs(1));
        bytes.sample(100, &[], &switch((first.0, "a"), 1, (first.1, "b")));
        let words = [0, 0, 0, 0, 0, 0, stay_ns].into_iter().flat_map(u64::to_le_bytes);
        let record = switch((VM, "vm"), 1, (6, "c")).into_iter().chain(words);
        bytes.sample(500, &[], &record.collect::<Vec<u8>>());
        without_names(&read(&mut assembler, &mut order, &bytes))
    };
    let told = |from: (u32, u32)| (100, switched(from.0, PrevState::Sleep, from.1, None));
    let left = (500, switched(VM, PrevState::Sleep, 6, None));
    let came = |on, state, time: u64| {
        let kind = HostEventKind::Switch(Switch::new(Tid(on), state, Tid(VM)));
        (time, kind)
    };
    let hidden = [told((5, 7)), came(7, PrevState::Other(0), 200), left.clone()];
    assert_eq!(read_on(true, (5, 7), 300), hidden);
    let idle = [told((5, 0)), came(0, PrevState::Runnable, 200), left.clone()];
    assert_eq!(read_on(true, (5, 0), 300), idle);
    // It had come, it was there longer than is possible, or nothing says how long.
    for (first, stay_ns) in [((5, VM), 300), ((5, 7), 401), ((5, 7), 0)] {
        assert_eq!(
            read_on(true, first, stay_ns),
            [told(first), left.clone()],
            "{first:?} {stay_ns}"
        );
    }
    assert_eq!(read_on(false, (5, 7), 300), [told((5, 7)), left], "not every switch is told");
}

const DISK_DONE: &str = "ID: 376\nformat:\n\
    \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
    \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
    \tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n\
    \tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;\n\
    \tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;\n\
    \tfield:char rwbs[8];\toffset:28;\tsize:8;\tsigned:0;\n";

/// Every kind of record that a ring may hold, as the kernel writes it.
fn every_record() -> Vec<u8> {
    let chain = [u64::MAX - 127, 0xffff_ffff_8100_0010];
    let mut bytes = Bytes::default();
    bytes.sample(100, &[], &switch((0, ""), 0, (VM, "CPU 0/KVM")));
    let mut with_registers = switch((VM, "CPU 0/KVM"), 1, (7, "sh"));
    with_registers
        .extend([2, u64::MAX - 37, 1, 0x80, 4096, 50].map(u64::to_le_bytes).as_flattened());
    bytes.sample(150, &chain, &with_registers);
    bytes.sample_in_call(160, &chain, &switch((7, "sh"), 2, (VM, "x")), &[2, 5, 6, 7, 8]);
    bytes.sample(170, &[], &waking(7, (VM, "CPU 0/KVM"), 3));
    bytes.sample(175, &[], &words(&[376, 0, 254 << 20, 0, 4096, 0, 8, 0x52, 0]));
    bytes.lost(180, 7);
    bytes.comm(190, VM, b"renamed\0");
    bytes.life(PERF_RECORD_FORK, 195, [VM, VM, VM + 1, VM]);
    bytes.lost(196, u64::MAX);
    bytes.life(PERF_RECORD_EXIT, 199, [VM, VM, VM + 1, VM]);
    bytes.record(10, &[0; 8]);
    bytes.0
}

proptest! {
    /// Whatever is in a ring, reading it ends, with events in order or with an error.
    #[test]
    fn no_record_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = every_record();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let mut assembler = assembler();
        let detail = Detail::Block(vslice_core::host_event::BlockStep::Completed);
        assembler.formats.details.push(DetailFormat::parse(detail, DISK_DONE).unwrap());
        let mut order = RingOrder::new(PCPU, true, HostNs(90));
        // The second time is what comes after it.
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())], &every_record()] {
            let mut batch = Batch::default();
            let result = assembler.assemble(bytes, &mut order, &mut batch);
            prop_assert!(result.is_err() || batch.events.is_sorted_by_key(|event| event.time));
            prop_assert!(batch.events.len() <= 4 * bytes.len() / 8 + 1);
        }
        order.lost_at_the_end(HostNs(u64::MAX), u64::MAX);
    }
}
