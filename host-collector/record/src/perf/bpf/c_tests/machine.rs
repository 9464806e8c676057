// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! Runs a BPF program as Documentation/bpf/standardization/instruction-set.rst says, with the helpers that the
//! programs call.

use super::super::assembly::Instruction;
use super::super::programs::ROW_BYTES;

const CONTEXT: u64 = 0x1000;
const STACK: u64 = 0x8000;
const STACK_BYTES: u64 = 512;
/// More than any way through a program has.
const STEPS_MAX: usize = 1000;

/// What a program wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// The number of the map of rings.
    ring: u64,
    flags: u64,
    pub(super) bytes: Vec<u8>,
}

/// Memory, and what helpers answer.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pieces: Vec<(u64, Vec<u8>)>,
    /// Places of the row that are wanted; the row itself would be long to copy.
    wanted: Vec<u64>,
    pub(super) row: u64,
    pub(super) constants: (u64, Vec<u8>),
    pub(super) pcpu: u64,
    pub(super) ids: u64,
    pub(super) task: u64,
    pub(super) registers: u64,
    pub(super) written: Vec<Written>,
}

/// Where byte `offset` of the only value of a map is.
pub(super) fn address_of(map: i32, offset: i32) -> u64 {
    (u64::from(map.cast_unsigned()) << 32) + u64::from(offset.cast_unsigned())
}

impl Machine {
    pub(super) fn new(arguments: &[u64]) -> Machine {
        let context = arguments.iter().flat_map(|argument| argument.to_le_bytes()).collect();
        // What is on a stack before a program writes there is nobody's to know.
        let stack = vec![0xa5; STACK_BYTES as usize];
        Machine {
            pieces: vec![(CONTEXT, context), (STACK, stack)],
            wanted: Vec::new(),
            row: 0,
            constants: (0, Vec::new()),
            pcpu: 0,
            ids: 0,
            task: 0,
            registers: 0,
            written: Vec::new(),
        }
    }

    pub(super) fn want(&mut self, place: u64, is_wanted: bool) {
        if is_wanted {
            self.wanted.push(place);
        }
    }

    pub(super) fn want_nobody(&mut self) {
        self.wanted.clear();
    }

    pub(super) fn fill(&mut self, base: u64, bytes: usize, mut word: impl FnMut() -> u64) {
        let filled = (0..bytes / 8).flat_map(|_| word().to_le_bytes()).collect();
        self.pieces.push((base, filled));
    }

    pub(super) fn put(&mut self, address: u64, bytes: usize, value: u64) {
        let piece = self.pieces.iter_mut().find_map(|(base, piece)| {
            let at = usize::try_from(address.checked_sub(*base)?).ok()?;
            piece.get_mut(at..at + bytes)
        });
        let piece = piece.unwrap_or_else(|| panic!("a program writes to {address:#x}"));
        piece.copy_from_slice(&value.to_le_bytes()[..bytes]);
    }

    fn byte(&self, address: u64) -> u8 {
        if let Some(place) = address.checked_sub(self.row)
            && place < u64::from(ROW_BYTES)
        {
            let bits = self.wanted.iter().filter(|wanted| **wanted / 8 == place);
            return bits.fold(0, |byte, wanted| byte | 1 << (wanted % 8));
        }
        let constants = (&self.constants.0, &self.constants.1);
        let pieces = self.pieces.iter().map(|(base, piece)| (base, piece));
        let mut found = pieces.chain([constants]).filter_map(|(base, piece)| {
            piece.get(usize::try_from(address.checked_sub(*base)?).ok()?).copied()
        });
        // A program reads zeros where there is nothing.
        found.next().unwrap_or(0)
    }

    fn read(&self, address: u64, bytes: u64) -> u64 {
        let byte = |at: u64| u64::from(self.byte(address.wrapping_add(at))) << (8 * at);
        (0..bytes).map(byte).sum()
    }

    /// Runs a program to its end; how many instructions that took.
    pub(super) fn run(&mut self, code: &[Instruction]) -> usize {
        let mut registers = [0_u64; 11];
        registers[1] = CONTEXT;
        registers[10] = STACK + STACK_BYTES;
        let mut at = 0_usize;
        for step in 1..STEPS_MAX {
            let Instruction { opcode, registers: pair, offset, immediate } = code[at];
            at += 1;
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let constant = i64::from(immediate).cast_unsigned();
            let operand = if opcode & 8 == 0 { constant } else { registers[from] };
            let bytes = [4, 2, 1, 8][usize::from(opcode >> 3 & 3)];
            let moved = |base: u64| base.wrapping_add_signed(offset.into());
            match (opcode, opcode & 7) {
                (0x95, _) => return step,
                (0x85, _) => {
                    registers[0] = self.call(immediate, &registers);
                    // A call destroys its arguments.
                    registers[1..6].fill(0xdead_beef_dead_beef);
                }
                (0x18, _) => {
                    registers[to] = match from {
                        0 => {
                            u64::from(immediate.cast_unsigned())
                                | u64::from(code[at].immediate.cast_unsigned()) << 32
                        }
                        1 => address_of(immediate, 0),
                        _ => address_of(immediate, code[at].immediate),
                    };
                    at += 1;
                }
                (_, 1) => registers[to] = self.read(moved(registers[from]), bytes),
                (_, 2) => self.put(moved(registers[to]), bytes as usize, constant),
                (_, 3) => self.put(moved(registers[to]), bytes as usize, registers[from]),
                (_, 5) => {
                    if is_taken(opcode, registers[to], operand) {
                        at = at.wrapping_add_signed(offset.into());
                    }
                }
                (_, 7) => registers[to] = calculate(opcode, registers[to], operand),
                _ => panic!("instruction {opcode:#x} is not known"),
            }
        }
        panic!("the program does not end");
    }

    fn call(&mut self, helper: i32, registers: &[u64; 11]) -> u64 {
        match helper {
            8 => self.pcpu,
            14 => self.ids,
            25 => {
                let bytes = (0..registers[5]).map(|at| self.byte(registers[4] + at)).collect();
                assert_eq!(registers[1], CONTEXT);
                self.written.push(Written { ring: registers[2], flags: registers[3], bytes });
                0
            }
            158 => self.task,
            175 => {
                assert_eq!(registers[1], self.task);
                self.registers
            }
            _ => panic!("helper {helper} is not known"),
        }
    }
}

fn is_taken(opcode: u8, left: u64, right: u64) -> bool {
    match opcode >> 4 {
        0x0 => true,
        0x1 => left == right,
        0x2 => left > right,
        0x3 => left >= right,
        0x4 => left & right != 0,
        0x5 => left != right,
        0xa => left < right,
        0xb => left <= right,
        _ => panic!("jump {opcode:#x} is not known"),
    }
}

fn calculate(opcode: u8, left: u64, right: u64) -> u64 {
    match opcode >> 4 {
        0x0 => left.wrapping_add(right),
        0x1 => left.wrapping_sub(right),
        0x4 => left | right,
        0x5 => left & right,
        0x6 => left << (right & 63),
        0x7 => left >> (right & 63),
        0xa => left ^ right,
        0xb => right,
        _ => panic!("arithmetic {opcode:#x} is not known"),
    }
}
