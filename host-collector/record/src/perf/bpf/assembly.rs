// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! Builds the instructions of a BPF program. Pure.
//!
//! The instruction set is that of Documentation/bpf/standardization/instruction-set.rst; only what
//! `programs` needs of it is here. Instructions are of 8 bytes: opcode, registers, offset, immediate.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct bpf_insn` of include/uapi/linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(super) struct Instruction {
    pub(super) opcode: u8,
    /// The destination in the low half, the source in the high one.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

/// A register: R0 has results, R1 to R5 arguments, which a call destroys; R6 to R9 survive calls,
/// and R10 is the end of the 512 bytes of stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// How many bytes are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    B1,
    B2,
    B4,
    B8,
}

impl Size {
    /// `BPF_B`, `BPF_H`, `BPF_W`, `BPF_DW`.
    fn bits(self) -> u8 {
        match self {
            Size::B1 => 0x10,
            Size::B2 => 0x08,
            Size::B4 => 0x00,
            Size::B8 => 0x18,
        }
    }
}

/// Arithmetic of 64 bits: the operation's part of the opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Add = 0x00,
    Subtract = 0x10,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
}

/// When a jump is taken, comparing 64 bits: the condition's part of the opcode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Equal = 0x10,
    NotEqual = 0x50,
}

/// Functions of the kernel that a program may call, by their numbers in include/uapi/linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Helper {
    PcpuId = 8,
    /// The process id in the upper half, the thread id in the lower one.
    CurrentIds = 14,
    PerfEventOutput = 25,
    /// Since 5.11.
    CurrentTask = 158,
    /// Since 5.15.
    TaskUserRegisters = 175,
}

/// A place in a program that jumps lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

const CLASS_LOAD: u8 = 0x01;
const CLASS_STORE_VALUE: u8 = 0x02;
const CLASS_STORE: u8 = 0x03;
const CLASS_JUMP: u8 = 0x05;
const CLASS_ARITHMETIC: u8 = 0x07;
/// `BPF_MEM`: the address is a register and an offset.
const MODE_MEMORY: u8 = 0x60;
/// The second operand is a register, not the immediate.
const FROM_REGISTER: u8 = 0x08;
const MOVE: u8 = 0xb0;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// `BPF_LD | BPF_DW | BPF_IMM`, which takes two instructions.
const LOAD_WIDE: u8 = 0x18;
/// In place of the source register: the immediate is a map's descriptor.
const PSEUDO_MAP: u8 = 1;
/// The same, and what is loaded is the address of the map's first value; the second immediate is an
/// offset into it.
const PSEUDO_MAP_VALUE: u8 = 2;

/// A program being written.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    code: Vec<Instruction>,
    /// Where each label is, once it is placed.
    places: Vec<Option<usize>>,
    /// Jumps and the labels that they lead to.
    jumps: Vec<(usize, Label)>,
}

impl Assembly {
    fn push(&mut self, opcode: u8, to: Register, from: u8, offset: i16, immediate: i32) {
        let registers = to as u8 | from << 4;
        self.code.push(Instruction { opcode, registers, offset, immediate });
    }

    /// `to = *(from + offset)`, zero-extended.
    pub(super) fn load(&mut self, size: Size, to: Register, from: Register, offset: i16) {
        self.push(CLASS_LOAD | MODE_MEMORY | size.bits(), to, from as u8, offset, 0);
    }

    /// `*(to + offset) = from`.
    pub(super) fn store(&mut self, size: Size, to: Register, offset: i16, from: Register) {
        self.push(CLASS_STORE | MODE_MEMORY | size.bits(), to, from as u8, offset, 0);
    }

    /// `*(to + offset) = value`, sign-extended.
    pub(super) fn store_value(&mut self, size: Size, to: Register, offset: i16, value: i32) {
        self.push(CLASS_STORE_VALUE | MODE_MEMORY | size.bits(), to, 0, offset, value);
    }

    /// `to = from`.
    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.push(CLASS_ARITHMETIC | MOVE | FROM_REGISTER, to, from as u8, 0, 0);
    }

    /// `to = value`, sign-extended.
    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.push(CLASS_ARITHMETIC | MOVE, to, 0, 0, value);
    }

    /// `to = to OPERATION value`, the value sign-extended.
    pub(super) fn calculate(&mut self, to: Register, operation: Operation, value: i32) {
        self.push(CLASS_ARITHMETIC | operation as u8, to, 0, 0, value);
    }

    /// `to = to OPERATION from`.
    pub(super) fn combine(&mut self, to: Register, operation: Operation, from: Register) {
        self.push(CLASS_ARITHMETIC | operation as u8 | FROM_REGISTER, to, from as u8, 0, 0);
    }

    /// `to = value`, all 64 bits of it.
    pub(super) fn set_wide(&mut self, to: Register, value: u64) {
        let half = |value: u64| (value & 0xffff_ffff) as u32;
        self.push(LOAD_WIDE, to, 0, 0, half(value).cast_signed());
        self.code.push(Instruction {
            immediate: half(value >> 32).cast_signed(),
            ..Instruction::default()
        });
    }

    /// `to = map`.
    pub(super) fn set_map(&mut self, to: Register, map: BorrowedFd<'_>) {
        self.push(LOAD_WIDE, to, PSEUDO_MAP, 0, map.as_raw_fd());
        self.code.push(Instruction::default());
    }

    /// `to = address of byte OFFSET of the first value of map`.
    pub(super) fn set_map_value(&mut self, to: Register, map: BorrowedFd<'_>, offset: i32) {
        self.push(LOAD_WIDE, to, PSEUDO_MAP_VALUE, 0, map.as_raw_fd());
        self.code.push(Instruction { immediate: offset, ..Instruction::default() });
    }

    /// `R0 = helper(R1, ..., R5)`.
    pub(super) fn call(&mut self, helper: Helper) {
        self.push(CLASS_JUMP | CALL, Register::R0, 0, 0, helper as i32);
    }

    /// Ends the program; R0 must be set.
    pub(super) fn exit(&mut self) {
        self.push(CLASS_JUMP | EXIT, Register::R0, 0, 0, 0);
    }

    /// A label that is yet to be placed.
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The label is here.
    pub(super) fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.code.len());
    }

    /// Goes on at the label.
    pub(super) fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(CLASS_JUMP, Register::R0, 0, 0, 0);
    }

    /// Goes on at the label if `register CONDITION value`.
    pub(super) fn jump_if(
        &mut self,
        register: Register,
        condition: Condition,
        value: i32,
        label: Label,
    ) {
        self.jumps.push((self.code.len(), label));
        self.push(CLASS_JUMP | condition as u8, register, 0, 0, value);
    }

    /// Goes on at the label if the registers differ.
    pub(super) fn jump_if_differ(&mut self, left: Register, right: Register, label: Label) {
        self.jump_if_registers(left, Condition::NotEqual, right, label);
    }

    /// Goes on at the label if the registers hold the same.
    pub(super) fn jump_if_same(&mut self, left: Register, right: Register, label: Label) {
        self.jump_if_registers(left, Condition::Equal, right, label);
    }

    fn jump_if_registers(
        &mut self,
        left: Register,
        condition: Condition,
        right: Register,
        label: Label,
    ) {
        self.jumps.push((self.code.len(), label));
        self.push(CLASS_JUMP | condition as u8 | FROM_REGISTER, left, right as u8, 0, 0);
    }

    /// The program, with every jump resolved; `None` if a label was not placed or is too far away.
    pub(super) fn finish(mut self) -> Option<Vec<Instruction>> {
        for (from, label) in &self.jumps {
            let to = i16::try_from(self.places[label.0]?).ok()?;
            // Counted from the instruction behind the jump.
            self.code[*from].offset = to - i16::try_from(*from).ok()? - 1;
        }
        Some(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Register::{R0, R1, R6, R7, R10};

    fn instruction(opcode: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
        Instruction { opcode, registers, offset, immediate }
    }

    /// The encodings as `clang -target bpf` and the macros of include/linux/filter.h write them.
    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let mut assembly = Assembly::default();
        assembly.load(Size::B8, R7, R1, 8);
        assembly.store(Size::B4, R10, -4, R7);
        assembly.store_value(Size::B2, R10, -16, 372);
        assembly.copy(R6, R1);
        assembly.set(R0, -1);
        assembly.calculate(R7, Operation::ShiftRight, 6);
        assembly.combine(R0, Operation::ShiftRight, R7);
        assembly.set_wide(R1, 0x1_ffff_ffff);
        assembly.call(Helper::PerfEventOutput);
        assembly.exit();
        let expected = [
            instruction(0x79, 0x17, 8, 0),
            instruction(0x63, 0x7a, -4, 0),
            instruction(0x6a, 0x0a, -16, 372),
            instruction(0xbf, 0x16, 0, 0),
            instruction(0xb7, 0x00, 0, -1),
            instruction(0x77, 0x07, 0, 6),
            instruction(0x7f, 0x70, 0, 0),
            instruction(0x18, 0x01, 0, -1),
            instruction(0, 0, 0, 1),
            instruction(0x85, 0, 0, 25),
            instruction(0x95, 0, 0, 0),
        ];
        assert_eq!(assembly.finish().unwrap(), expected);
    }

    #[test]
    fn jumps_lead_to_their_labels() {
        let mut assembly = Assembly::default();
        let (back, out) = (assembly.label(), assembly.label());
        assembly.place(back);
        assembly.jump_if(R0, Condition::Equal, 3, out);
        assembly.jump_if_differ(R0, R6, out);
        assembly.jump_if_same(R0, R6, out);
        assembly.jump(back);
        assembly.place(out);
        assembly.exit();
        let expected = [
            instruction(0x15, 0x00, 3, 3),
            instruction(0x5d, 0x60, 2, 0),
            instruction(0x1d, 0x60, 1, 0),
            instruction(0x05, 0x00, -4, 0),
            instruction(0x95, 0x00, 0, 0),
        ];
        assert_eq!(assembly.finish().unwrap(), expected);
    }

    #[test]
    fn a_jump_to_nowhere_is_no_program() {
        let mut assembly = Assembly::default();
        let nowhere = assembly.label();
        assembly.jump(nowhere);
        assert_eq!(assembly.finish(), None);
    }
}
