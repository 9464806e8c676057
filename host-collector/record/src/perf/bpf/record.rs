// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! A record while a program makes it, in the layout of a tracepoint's own. Pure.

use super::super::registers::{GROUP_BYTES, WORDS};
use super::assembly::Register::{self, R0, R1, R2, R3, R4, R5, R6, R7, R10};
use super::assembly::{Assembly, Condition, Helper, Label, Operation, Size};
use super::kernel_types::{Arrival, KernelTypes, UserRegisters};
use std::os::fd::BorrowedFd;
use vslice_perf::format::Field;

/// Where on the stack a number is cut to 4 bytes.
const SCRATCH_AT: i16 = -8;

/// `BPF_F_CURRENT_CPU`: a ring of the pCPU that the program runs on.
const THIS_PCPU: u64 = 0xffff_ffff;

/// The code segment of 32-bit code: `__USER32_CS` in arch/x86/include/asm/segment.h.
const CODE_32_BIT: i32 = 0x23;
/// `PERF_SAMPLE_REGS_ABI_32` and `_64`.
const ABI_32: i32 = 1;
const ABI_64: i32 = 2;

pub(super) fn labels<const COUNT: usize>(code: &mut Assembly) -> [Label; COUNT] {
    std::array::from_fn(|_| code.label())
}

/// The thread number of the current task, in the initial namespace.
pub(super) fn current_tid(code: &mut Assembly, to: Register) {
    code.call(Helper::CurrentIds);
    // The lower half: moved through the stack, since arithmetic here is of 64 bits.
    code.store(Size::B4, R10, SCRATCH_AT, R0);
    code.load(Size::B4, to, R10, SCRATCH_AT);
}

/// A record on the stack of a program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// Where it begins, below R10.
    start: i16,
    /// The length of the tracepoint's own data, in whole words; behind it is the number of a control group.
    pub(super) words_at: i32,
    /// The length with that; behind it are the registers.
    registers_at: i32,
    /// The length with the registers and the length of the stay.
    pub(super) bytes: i32,
}

impl Record {
    /// With room for the words that `registers` reads behind the tracepoint's own data.
    pub(super) fn with_words(own_bytes: usize) -> Option<Record> {
        let words_at = i32::try_from(own_bytes).ok()?;
        let registers_at = words_at + i32::try_from(GROUP_BYTES).ok()?;
        // And behind those the length of the stay.
        Record::of(words_at, registers_at, registers_at + i32::try_from(WORDS * 8).ok()? + 8)
    }

    /// With nothing behind the tracepoint's own data.
    pub(super) fn plain(own_bytes: usize) -> Option<Record> {
        let words_at = i32::try_from(own_bytes).ok()?;
        Record::of(words_at, words_at, words_at)
    }

    fn of(words_at: i32, registers_at: i32, bytes: i32) -> Option<Record> {
        let start = i16::try_from(i32::from(SCRATCH_AT) - bytes).ok()?;
        // `MAX_BPF_STACK`.
        (start >= -512).then_some(Record { start, words_at, registers_at, bytes })
    }

    fn at(&self, offset: i32) -> i16 {
        self.start + i16::try_from(offset).unwrap_or_default()
    }

    fn field(&self, field: Field) -> Option<(i16, Size)> {
        let size = match field.size() {
            2 => Size::B2,
            4 => Size::B4,
            8 => Size::B8,
            _ => return None,
        };
        Some((self.at(i32::try_from(field.offset()).ok()?), size))
    }

    pub(super) fn clear(&self, code: &mut Assembly) {
        for word in (0..self.bytes).step_by(8) {
            code.store_value(Size::B8, R10, self.at(word), 0);
        }
    }

    pub(super) fn set(&self, code: &mut Assembly, field: Field, value: i32) -> Option<()> {
        let (at, size) = self.field(field)?;
        code.store_value(size, R10, at, value);
        Some(())
    }

    pub(super) fn put(&self, code: &mut Assembly, field: Field, from: Register) -> Option<()> {
        let (at, size) = self.field(field)?;
        code.store(size, R10, at, from);
        Some(())
    }

    /// The first letter of a text, of which the rest is clear.
    pub(super) fn put_letter(&self, code: &mut Assembly, field: Field, letter: u8) -> Option<()> {
        let at = self.at(i32::try_from(field.offset()).ok()?);
        code.store_value(Size::B1, R10, at, letter.into());
        Some(())
    }

    /// Copies a task's name, which has 16 bytes everywhere.
    pub(super) fn put_name(
        &self,
        code: &mut Assembly,
        field: Field,
        task: Register,
        comm: i16,
    ) -> Option<()> {
        if field.size() != 16 {
            return None;
        }
        let at = self.at(i32::try_from(field.offset()).ok()?);
        for half in [0, 8] {
            code.load(Size::B8, R1, task, comm + half);
            code.store(Size::B8, R10, at + half, R1);
        }
        Some(())
    }

    /// The number of a task's control group. The event is traced with preemption off, so RCU keeps what the
    /// pointers lead to.
    pub(super) fn put_group(&self, code: &mut Assembly, task: Register, path: [i16; 4]) {
        let [first, rest @ ..] = path;
        code.load(Size::B8, R1, task, first);
        for offset in rest {
            code.load(Size::B8, R1, R1, offset);
        }
        code.store(Size::B8, R10, self.at(self.words_at), R1);
    }

    /// The length of what is written without registers.
    pub(super) fn plain_bytes(&self) -> i32 {
        self.registers_at
    }

    /// The current task's ABI and user registers, in the layout of `PERF_SAMPLE_REGS_USER`. A kernel
    /// thread has none, which is an ABI of 0.
    pub(super) fn put_registers(
        &self,
        code: &mut Assembly,
        types: &KernelTypes,
        registers: UserRegisters,
    ) {
        let [none, abi_known] = labels(code);
        let at = |word: i32| self.at(self.registers_at + word * 8);
        code.load(Size::B8, R1, R7, types.memory);
        code.jump_if(R1, Condition::Equal, 0, none);
        code.call(Helper::CurrentTask);
        code.copy(R1, R0);
        code.call(Helper::TaskUserRegisters);
        for (word, offset) in (1..).zip(registers.offsets) {
            code.load(Size::B8, R1, R0, offset);
            code.store(Size::B8, R10, at(word), R1);
        }
        code.load(Size::B2, R1, R0, registers.code_segment);
        code.set(R2, ABI_32);
        code.jump_if(R1, Condition::Equal, CODE_32_BIT, abi_known);
        code.set(R2, ABI_64);
        code.place(abi_known);
        code.store(Size::B8, R10, at(0), R2);
        code.place(none);
    }

    /// How long the current task has been on the pCPU: by the run queue's clock, which `__schedule` has
    /// just brought up to date (kernel/sched/core.c), and by which `sched_info_arrive` took the time of
    /// its arrival (kernel/sched/stats.h).
    pub(super) fn put_stay(&self, code: &mut Assembly, arrival: Arrival) {
        code.load(Size::B8, R1, R7, arrival.fair_queue);
        code.load(Size::B8, R1, R1, arrival.run_queue);
        code.load(Size::B8, R1, R1, arrival.clock);
        code.load(Size::B8, R2, R7, arrival.arrived);
        code.combine(R1, Operation::Subtract, R2);
        code.store(Size::B8, R10, self.at(self.bytes - 8), R1);
    }

    /// Writes its first `bytes` into the ring of this pCPU.
    pub(super) fn write(&self, code: &mut Assembly, events: BorrowedFd<'_>, bytes: i32) {
        code.copy(R1, R6);
        code.set_map(R2, events);
        code.set_wide(R3, THIS_PCPU);
        code.copy(R4, R10);
        code.calculate(R4, Operation::Add, self.start.into());
        code.set(R5, bytes);
        code.call(Helper::PerfEventOutput);
    }
}
