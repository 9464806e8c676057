// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! The programs against the same ones in C (`host-collector/record/bpf`): both are run on the same input by an
//! interpreter, and have to write the same records into the same rings.
//!
//! So every state of a thread is tried, also those that no load brings about when it is wanted. What is C
//! goes by the running kernel's types (CO-RE), as the other does.
#![expect(
    clippy::cast_possible_truncation,
    reason = "offsets within a small file, and numbers below a length"
)]

mod machine;
mod object;

use super::super::format::tests::{SWITCH_6_18, WAKING_6_18};
use super::super::format::{Formats, SwitchFormat, WakingFormat};
use super::assembly::Instruction;
use super::kernel_types::KernelTypes;
use super::programs::{self, Groups, Maps};
use super::sys;
use machine::{Machine, Written};
use object::Object;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where the row of bits, the tasks and what they lead to are; the machine reads zeros elsewhere.
const PREV: u64 = 0x10_0000;
const NEXT: u64 = 0x20_0000;
const REGISTERS: u64 = 0x30_0000;
const LED_TO: u64 = 0x40_0000;

/// The same numbers on each run (splitmix64).
struct Chance(u64);

impl Chance {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[(self.word() % all.len() as u64) as usize]
    }
}

/// Both forms of a program, and the maps that they name.
struct Pair {
    types: KernelTypes,
    assembled: Vec<Instruction>,
    compiled: Vec<Instruction>,
    wanted: OwnedFd,
    constants: (OwnedFd, Vec<u8>),
}

fn formats() -> Formats {
    Formats {
        switch: SwitchFormat::parse(SWITCH_6_18).unwrap(),
        waking: WakingFormat::parse(WAKING_6_18).unwrap(),
        details: Vec::new(),
    }
}

/// Maps of the kernel where they may be made, so that it can be asked to load what names them; else any
/// files, of which only the numbers matter.
fn map(kind: sys::MapKind, bytes: usize) -> OwnedFd {
    sys::make_map(kind, u32::try_from(bytes).unwrap(), 1)
        .unwrap_or_else(|_| std::fs::File::open("/dev/null").unwrap().into())
}

impl Pair {
    fn make(name: &str, groups: Groups) -> Pair {
        let types = KernelTypes::read().unwrap();
        let formats = formats();
        let wanted = map(sys::MapKind::Array, programs::ROW_BYTES as usize);
        let (plain, stacked) = (map(sys::MapKind::PerfEvents, 4), map(sys::MapKind::PerfEvents, 4));
        let object = Object::compile(name);
        let mut values = object.constants();
        values.set("switch_id", &formats.switch.id.to_le_bytes());
        values.set("waking_id", &formats.waking.id.to_le_bytes());
        values.set("tells_state", &[u8::from(types.switch.arguments_count > 3)]);
        values.set("tells_groups", &[u8::from(groups == Groups::Told)]);
        let constants = map(sys::MapKind::Array, values.bytes.len());
        let compiled = object.link(|section, symbol| match (section, symbol) {
            (".bss", _) => wanted.as_raw_fd(),
            (".rodata", _) => constants.as_raw_fd(),
            (_, "plain") => plain.as_raw_fd(),
            (_, "stacked") => stacked.as_raw_fd(),
            _ => panic!("nothing is known of {symbol} in {section}"),
        });
        let maps = Maps { wanted: wanted.as_fd(), plain: plain.as_fd(), stacked: stacked.as_fd() };
        let assembled = match name {
            "switch" => programs::switch(&types, &formats, maps, groups),
            _ => programs::waking(&types, &formats, maps),
        };
        // The interpreter knows rings by their numbers, which stay theirs when they are closed here: nothing
        // is opened between. To load, they have to be open.
        std::mem::forget((plain, stacked));
        let constants = (constants, values.bytes);
        Pair { types, assembled: assembled.unwrap(), compiled, wanted, constants }
    }

    /// What both write for the same event and how many instructions that takes: assembled, then C.
    fn run(&self, base: &Machine) -> [(Vec<Written>, usize); 2] {
        [&self.assembled, &self.compiled].map(|code| {
            let mut machine = base.clone();
            let steps = machine.run(code);
            (machine.written, steps)
        })
    }

    fn machine(&self, chance: &mut Chance, arguments: &[u64]) -> Machine {
        let mut machine = Machine::new(arguments);
        machine.constants = (map_address(&self.constants.0), self.constants.1.clone());
        machine.row = map_address(&self.wanted);
        machine.pcpu = chance.of(&[0, 1, 8191]);
        machine.ids = 7 << 32 | chance.of(&[11_u64, 12, 13]);
        machine.task = PREV;
        machine.registers = REGISTERS;
        for who in [11_u64, 12, 13, 4_194_303] {
            machine.want(who, chance.word().is_multiple_of(3));
        }
        for pcpu in [0, 1, 8191_u64] {
            machine.want(u64::from(programs::TIDS_COUNT) + pcpu, chance.word().is_multiple_of(2));
        }
        let types = &self.types;
        for task in [PREV, NEXT] {
            machine.fill(task, 16 << 10, || chance.word());
            let mut put = |offset: i16, bytes: usize, value: u64| {
                machine.put(task.wrapping_add_signed(offset.into()), bytes, value);
            };
            put(types.pid, 4, chance.of(&[0, 11, 12, 13, 4_194_303]));
            put(types.pcpu, 4, chance.of(&[0, 1, 8191]));
            put(types.state, 4, state(chance));
            put(types.exit_state, 4, chance.of(&[0, 0, 0x10, 0x20]));
            put(types.memory, 8, chance.of(&[0, 1, u64::MAX]));
            // Everything that pointers lead to is one piece of memory that differs all over.
            let pointers = types.arrival.map(|arrival| arrival.fair_queue).into_iter();
            for pointer in pointers.chain(types.group.as_ref().map(|path| path[0])) {
                put(pointer, 8, LED_TO);
            }
        }
        machine.fill(LED_TO, 16 << 10, || chance.word());
        if let Some(arrival) = types.arrival {
            machine.put(LED_TO.wrapping_add_signed(arrival.run_queue.into()), 8, PREV);
        }
        if let Ok([_, group, node, _]) = types.group {
            machine.put(LED_TO.wrapping_add_signed(group.into()), 8, NEXT);
            machine.put(NEXT.wrapping_add_signed(node.into()), 8, REGISTERS);
        }
        machine.fill(REGISTERS, 1 << 10, || chance.word());
        if let Some(registers) = types.registers {
            let segment = REGISTERS.wrapping_add_signed(registers.code_segment.into());
            machine.put(segment, 2, chance.of(&[0x23, 0x33]));
        }
        machine
    }
}

fn map_address(map: &OwnedFd) -> u64 {
    machine::address_of(map.as_raw_fd(), 0)
}

/// A state as a thread may be in one: `TASK_*` of include/linux/sched.h, alone and together.
fn state(chance: &mut Chance) -> u64 {
    let one = |chance: &mut Chance| match chance.word() % 18 {
        0 => 0,
        bit => 1 << (bit - 1),
    };
    chance.of(&[0, 1, 2, 0x402, 0x1402, 0x8002]) | one(chance) | one(chance)
}

/// How often each ring was written to in so many events, which both programs do alike.
fn compare(name: &str, groups: Groups, lengths: &[usize]) {
    let pair = Pair::make(name, groups);
    let mut chance = Chance(21);
    let mut counts = vec![0; lengths.len() + 1];
    for round in 0..1_500 {
        let arguments = match name {
            "switch" => vec![chance.of(&[0, 1]), PREV, NEXT, state(&mut chance)],
            _ => vec![NEXT],
        };
        let machine = pair.machine(&mut chance, &arguments);
        let [(assembled, _), (compiled, _)] = pair.run(&machine);
        assert_eq!(assembled, compiled, "{name}, event {round} ({arguments:x?})");
        let length = assembled.first().map(|written| written.bytes.len());
        let place = length.map_or(lengths.len(), |length| {
            lengths.iter().position(|known| *known == length).expect("a length that is known")
        });
        counts[place] += 1;
    }
    // Each way through the programs was gone often.
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
}

#[test]
#[ignore = "needs clang, which make test installs, and the running kernel's types"]
fn c_tests_switches_are_recorded_alike() {
    compare("switch", Groups::Told, &[72, 120]);
    compare("switch", Groups::NotTold, &[72, 120]);
}

#[test]
#[ignore = "needs clang, which make test installs, and the running kernel's types"]
fn c_tests_wakings_are_recorded_alike() {
    compare("waking", Groups::Told, &[40]);
}

/// Nearly all switches and wakings are those that nobody asked for. What they cost in instructions is printed: it
/// depends on the compiler, so nothing is demanded of it.
#[test]
#[ignore = "needs clang, which make test installs, and the running kernel's types"]
fn c_tests_an_unrelated_event_is_not_recorded() {
    for (name, arguments) in [("switch", vec![0, PREV, NEXT, 1]), ("waking", vec![NEXT])] {
        let pair = Pair::make(name, Groups::Told);
        let mut machine = pair.machine(&mut Chance(1), &arguments);
        machine.want_nobody();
        let [(assembled, steps), (compiled, steps_in_c)] = pair.run(&machine);
        println!("{name}: {steps} instructions assembled, {steps_in_c} in C");
        assert_eq!((assembled, compiled), (vec![], vec![]), "{name}");
    }
}

/// The kernel's own verifier takes the C, where it may be asked.
#[test]
#[ignore = "needs root, clang, which make test installs, and the running kernel's types"]
fn c_tests_the_kernel_takes_the_c() {
    for name in ["switch", "waking"] {
        let pair = Pair::make(name, Groups::Told);
        let tracepoint = if name == "switch" { &pair.types.switch } else { &pair.types.waking };
        for code in [&pair.assembled, &pair.compiled] {
            sys::load("vslice_c_test", code, tracepoint.type_id).unwrap();
        }
    }
}
