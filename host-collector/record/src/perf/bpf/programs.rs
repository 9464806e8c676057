// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! The programs themselves. Pure.
//!
//! They run in the kernel where `sched_switch` and `sched_waking` are traced, decide whether the
//! event is wanted, and write it into the pCPU's ring in the layout of the tracepoint's own record,
//! as its `format` file says it. So whoever reads the ring need not know who wrote it.
//!
//! Who is wanted is a row of bits: one for each thread number that there can be, then one for each
//! pCPU. To look a bit up takes nine instructions and no call, which is what makes a switch of threads
//! that nobody asked for cheap.

use super::super::format::{Formats, SwitchFormat, WakingFormat};
use super::assembly::Register::{R0, R1, R2, R3, R6, R7, R8, R9};
use super::assembly::{Assembly, Condition, Helper, Instruction, Operation, Size};
use super::kernel_types::KernelTypes;
use super::record::{Record, current_tid, labels};
use std::os::fd::BorrowedFd;
use vslice_perf::online::CPUS_MAX;

/// Thread numbers are below this: `PID_MAX_LIMIT` in include/linux/threads.h.
pub(super) const TIDS_COUNT: u32 = 4 << 20;

/// pCPU numbers are below this.
pub(super) const PCPUS_COUNT: u32 = CPUS_MAX;

/// Bytes of the row of bits.
pub(super) const ROW_BYTES: u32 = (TIDS_COUNT + PCPUS_COUNT) / 8;

/// Why a thread does not run, of `__state` and `exit_state`: `TASK_REPORT` in
/// include/linux/sched.h, since 4.14.
const REPORTED: i32 = 0x7f;
const UNINTERRUPTIBLE: i32 = 0x2;
/// `TASK_IDLE`: uninterruptible, and no load.
const IDLE: i32 = 0x402;
/// How `TASK_IDLE` is reported.
const REPORTED_IDLE: i32 = 0x80;
/// `TASK_RTLOCK_WAIT` and `TASK_FROZEN`, reported as `TASK_UNINTERRUPTIBLE`.
const UNINTERRUPTIBLE_TOO: i32 = 0x1000 | 0x8000;

/// What the programs use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maps<'a> {
    /// Who is wanted: bits of threads, then of pCPUs.
    pub(super) wanted: BorrowedFd<'a>,
    /// For each pCPU the event that writes records without stacks.
    pub(super) plain: BorrowedFd<'a>,
    /// For each pCPU the event that writes records with stacks.
    pub(super) stacked: BorrowedFd<'a>,
}

/// Whether control groups are told by their numbers in the default hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::perf) enum Groups {
    /// Each switch has that of the thread that comes.
    Told,
    /// It has 0 instead.
    NotTold,
}

/// Where in the row of bits a thread or a pCPU is.
pub(super) fn place_of_pcpu(pcpu: u32) -> Option<u32> {
    (pcpu < PCPUS_COUNT).then_some(TIDS_COUNT + pcpu)
}

/// Where in the row of bits a thread is.
pub(super) fn place_of_tid(tid: u32) -> Option<u32> {
    (tid < TIDS_COUNT).then_some(tid)
}

/// `sched_switch(preempt, prev, next[, prev_state])`; the state is told since 5.18.
///
/// A switch where a wanted thread leaves is recorded with its stack, its user registers and how long it
/// was on the pCPU; one where a wanted thread comes, or that happens on a wanted pCPU, without. Each has
/// the control group of who comes. `None`
/// where the record is larger than a program's stack.
pub(super) fn switch(
    types: &KernelTypes,
    formats: &Formats,
    maps: Maps<'_>,
    groups: Groups,
) -> Option<Vec<Instruction>> {
    let format = &formats.switch;
    let record = Record::with_words(format.bytes())?;
    let mut code = Assembly::default();
    let [with_stack, without, write, write_plain, out] = labels(&mut code);
    code.copy(R6, R1);
    code.load(Size::B8, R7, R1, 8);
    code.load(Size::B8, R8, R1, 16);
    code.load(Size::B4, R9, R7, types.pid);
    look_up(&mut code, maps, Who::Thread);
    code.jump_if(R0, Condition::NotEqual, 0, with_stack);
    code.load(Size::B4, R9, R8, types.pid);
    look_up(&mut code, maps, Who::Thread);
    code.jump_if(R0, Condition::NotEqual, 0, without);
    code.call(Helper::PcpuId);
    code.copy(R9, R0);
    look_up(&mut code, maps, Who::Pcpu);
    code.jump_if(R0, Condition::Equal, 0, out);
    code.place(without);
    code.set(R9, 0);
    code.jump(write);
    code.place(with_stack);
    code.set(R9, 1);
    code.place(write);
    record.clear(&mut code);
    record.set(&mut code, format.common_type, format.id.into())?;
    for (task, pid, comm) in
        [(R7, format.prev_pid, format.prev_comm), (R8, format.next_pid, format.next_comm)]
    {
        code.load(Size::B4, R1, task, types.pid);
        record.put(&mut code, pid, R1)?;
        record.put_name(&mut code, comm, task, types.comm)?;
    }
    code.load(Size::B4, R1, R8, types.prio);
    record.put(&mut code, format.next_prio, R1)?;
    put_state(&mut code, types, format, &record)?;
    if let (Groups::Told, Ok(path)) = (groups, &types.group) {
        record.put_group(&mut code, R8, *path);
    }
    code.jump_if(R9, Condition::Equal, 0, write_plain);
    if let Some(registers) = types.registers {
        record.put_registers(&mut code, types, registers);
    }
    if let Some(arrival) = types.arrival {
        record.put_stay(&mut code, arrival);
    }
    record.write(&mut code, maps.stacked, record.bytes);
    code.jump(out);
    code.place(write_plain);
    record.write(&mut code, maps.plain, record.plain_bytes());
    code.place(out);
    code.set(R0, 0);
    code.exit();
    code.finish()
}

/// `sched_waking(p)`.
///
/// Recorded are wakings of wanted threads, and those of strangers who may take a wanted pCPU from a
/// wanted thread: they last ran there, and the waker is elsewhere or is itself wanted. So strangers
/// who wake each other on a wanted pCPU are not.
pub(super) fn waking(
    types: &KernelTypes,
    formats: &Formats,
    maps: Maps<'_>,
) -> Option<Vec<Instruction>> {
    let format: &WakingFormat = &formats.waking;
    let record = Record::with_words(format.bytes())?;
    let mut code = Assembly::default();
    let [write, out] = labels(&mut code);
    code.copy(R6, R1);
    code.load(Size::B8, R7, R1, 0);
    code.load(Size::B4, R8, R7, types.pcpu);
    code.load(Size::B4, R9, R7, types.pid);
    look_up(&mut code, maps, Who::Thread);
    code.jump_if(R0, Condition::NotEqual, 0, write);
    code.copy(R9, R8);
    look_up(&mut code, maps, Who::Pcpu);
    code.jump_if(R0, Condition::Equal, 0, out);
    code.call(Helper::PcpuId);
    code.jump_if_differ(R0, R8, write);
    current_tid(&mut code, R9);
    look_up(&mut code, maps, Who::Thread);
    code.jump_if(R0, Condition::Equal, 0, out);
    code.place(write);
    record.clear(&mut code);
    record.set(&mut code, formats.switch.common_type, format.id.into())?;
    current_tid(&mut code, R1);
    record.put(&mut code, format.common_pid, R1)?;
    code.load(Size::B4, R1, R7, types.pid);
    record.put(&mut code, format.pid, R1)?;
    record.put_name(&mut code, format.comm, R7, types.comm)?;
    record.put(&mut code, format.target_cpu, R8)?;
    record.write(&mut code, maps.plain, record.words_at);
    code.place(out);
    code.set(R0, 0);
    code.exit();
    code.finish()
}

/// Of whom it is asked whether they are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Thread,
    Pcpu,
}

/// R0 = whether the thread or the pCPU R9 is wanted. The number is cut to the row, as the verifier
/// demands; none of the kernel's is beyond it.
fn look_up(code: &mut Assembly, maps: Maps<'_>, who: Who) {
    let (first, count) = match who {
        Who::Thread => (0, TIDS_COUNT),
        Who::Pcpu => (TIDS_COUNT, PCPUS_COUNT),
    };
    code.copy(R1, R9);
    code.calculate(R1, Operation::ShiftRight, 3);
    code.calculate(R1, Operation::And, (count / 8 - 1).cast_signed());
    code.set_map_value(R2, maps.wanted, (first / 8).cast_signed());
    code.combine(R2, Operation::Add, R1);
    code.load(Size::B1, R0, R2, 0);
    code.copy(R1, R9);
    code.calculate(R1, Operation::And, 7);
    code.combine(R0, Operation::ShiftRight, R1);
    code.calculate(R0, Operation::And, 1);
}

/// The state in which prev leaves, as the tracepoint tells it: `__trace_sched_switch_state` in
/// include/trace/events/sched.h, `__task_state_index` in include/linux/sched.h. Where several bits
/// are set the tracepoint tells the highest one; here all of them are.
fn put_state(
    code: &mut Assembly,
    types: &KernelTypes,
    format: &SwitchFormat,
    record: &Record,
) -> Option<()> {
    let [asleep, not_idle, known] = labels(code);
    code.load(Size::B8, R1, R6, 0);
    code.jump_if(R1, Condition::Equal, 0, asleep);
    code.set(R2, i32::try_from(format.states.preempted()).ok()?);
    code.jump(known);
    code.place(asleep);
    if types.switch.arguments_count > 3 {
        code.load(Size::B8, R1, R6, 24);
    } else {
        code.load(Size::B4, R1, R7, types.state);
    }
    code.load(Size::B4, R2, R7, types.exit_state);
    code.combine(R2, Operation::Or, R1);
    code.calculate(R2, Operation::And, REPORTED);
    code.copy(R3, R1);
    code.calculate(R3, Operation::And, IDLE);
    code.jump_if(R3, Condition::NotEqual, IDLE, not_idle);
    code.set(R2, REPORTED_IDLE);
    code.place(not_idle);
    code.calculate(R1, Operation::And, UNINTERRUPTIBLE_TOO);
    code.jump_if(R1, Condition::Equal, 0, known);
    code.set(R2, UNINTERRUPTIBLE);
    code.place(known);
    record.put(code, format.prev_state, R2)
}
