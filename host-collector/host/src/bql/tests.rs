//! Small ELF files made by hand, and code as compilers made it.

mod compiled;

use super::memory::{check_code, entry_point, lock_and_owner, look};
use super::*;
use object::elf::{PT_GNU_RELRO, PT_INTERP, PT_LOAD};
use proptest::prelude::*;
use std::fs::File;
use vslice_trace::lock::Bql;

/// `qemu_mutex_lock_iothread_impl` and, 0x60 bytes behind it, `qemu_mutex_unlock_iothread` of Debian 12's
/// QEMU 7.2.22: bytes of the binary. The linker put the first at 0x5d5860, and the lock at 0x118db40.
const CODE_7_2: [u8; 179] = [
    0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x0d, 0x6d, 0x57, 0xbb, 0x00, 0xe8, 0x00, 0xf5, 0xff, 0xff,
    0x84, 0xc0, 0x74, 0x24, 0x4c, 0x8d, 0x05, 0xeb, 0x9e, 0x49, 0x00, 0x48, 0x8d, 0x0d, 0xbe, 0xa0,
    0x49, 0x00, 0xba, 0xf6, 0x01, 0x00, 0x00, 0x31, 0xff, 0x48, 0x8d, 0x35, 0x93, 0x9e, 0x49, 0x00,
    0xe8, 0x9b, 0x1c, 0xe3, 0xff, 0x0f, 0x1f, 0x00, 0x89, 0xf2, 0x48, 0x89, 0xfe, 0x48, 0x8d, 0x3d,
    0x9c, 0x82, 0xbb, 0x00, 0xff, 0xd1, 0xbf, 0x01, 0x00, 0x00, 0x00, 0x48, 0x83, 0xc4, 0x08, 0xe9,
    0xcc, 0xf4, 0xff, 0xff, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0x90,
    0x48, 0x83, 0xec, 0x08, 0xe8, 0xa7, 0xf4, 0xff, 0xff, 0x84, 0xc0, 0x75, 0x23, 0x4c, 0x8d, 0x05,
    0x93, 0x9e, 0x49, 0x00, 0x48, 0x8d, 0x0d, 0x45, 0xa0, 0x49, 0x00, 0xba, 0xfd, 0x01, 0x00, 0x00,
    0x31, 0xff, 0x48, 0x8d, 0x35, 0x3a, 0x9e, 0x49, 0x00, 0xe8, 0x42, 0x1c, 0xe3, 0xff, 0x66, 0x90,
    0x31, 0xff, 0xba, 0xff, 0x01, 0x00, 0x00, 0x48, 0x8d, 0x35, 0x25, 0x9e, 0x49, 0x00, 0xe8, 0x7d,
    0xf4, 0xff, 0xff, 0x48, 0x8d, 0x3d, 0x36, 0x82, 0xbb, 0x00, 0x48, 0x83, 0xc4, 0x08, 0xe9, 0xbd,
    0x7e, 0x39, 0x00,
];

/// `bql_lock_impl` and, 0x60 bytes behind it, `bql_unlock` of QEMU 10.0 in Debian 12's backports. The linker
/// put the first at 0x7235a0, and the lock at 0x1b5e2c0.
const CODE_10_0: [u8; 225] = [
    0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x0d, 0xdd, 0x77, 0x43, 0x01, 0xe8, 0x30, 0xf4, 0xff, 0xff,
    0x84, 0xc0, 0x74, 0x24, 0x4c, 0x8d, 0x05, 0x1a, 0xc5, 0x4e, 0x00, 0x48, 0x8d, 0x0d, 0xb6, 0xbf,
    0x4f, 0x00, 0xba, 0x2c, 0x02, 0x00, 0x00, 0x31, 0xff, 0x48, 0x8d, 0x35, 0x63, 0xbd, 0x4f, 0x00,
    0xe8, 0xdb, 0x3f, 0xd7, 0xff, 0x0f, 0x1f, 0x00, 0x89, 0xf2, 0x48, 0x89, 0xfe, 0x48, 0x8d, 0x3d,
    0xdc, 0xac, 0x43, 0x01, 0xff, 0xd1, 0xbf, 0x01, 0x00, 0x00, 0x00, 0x48, 0x83, 0xc4, 0x08, 0xe9,
    0xfc, 0xf3, 0xff, 0xff, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0x90,
    0x48, 0x83, 0xec, 0x08, 0xe8, 0xd7, 0xf3, 0xff, 0xff, 0x84, 0xc0, 0x75, 0x23, 0x4c, 0x8d, 0x05,
    0xc2, 0xc4, 0x4e, 0x00, 0x48, 0x8d, 0x0d, 0x4d, 0xbf, 0x4f, 0x00, 0xba, 0x33, 0x02, 0x00, 0x00,
    0x31, 0xff, 0x48, 0x8d, 0x35, 0x0a, 0xbd, 0x4f, 0x00, 0xe8, 0x82, 0x3f, 0xd7, 0xff, 0x66, 0x90,
    0x8b, 0x05, 0xca, 0xab, 0x43, 0x01, 0x85, 0xc0, 0x75, 0x26, 0x31, 0xff, 0xba, 0x36, 0x02, 0x00,
    0x00, 0x48, 0x8d, 0x35, 0xeb, 0xbc, 0x4f, 0x00, 0xe8, 0xa3, 0xf3, 0xff, 0xff, 0x48, 0x8d, 0x3d,
    0x6c, 0xac, 0x43, 0x01, 0x48, 0x83, 0xc4, 0x08, 0xe9, 0xb3, 0x5d, 0x3b, 0x00, 0x0f, 0x1f, 0x00,
    0x4c, 0x8d, 0x05, 0xfb, 0xbc, 0x4f, 0x00, 0x48, 0x8d, 0x0d, 0xfa, 0xbe, 0x4f, 0x00, 0xba, 0x34,
    0x02, 0x00, 0x00, 0x31, 0xff, 0x48, 0x8d, 0x35, 0xb7, 0xbc, 0x4f, 0x00, 0xe8, 0x2f, 0x3f, 0xd7,
    0xff,
];

/// The same of QEMU 11.1.3 in Debian 13's backports, the second 0x50 bytes behind the first: both begin
/// with `endbr64`, and end in jumps where the others call. The linker put the first at 0x880df0, and the
/// lock at 0x1e2f7e0.
const CODE_11_1: [u8; 201] = [
    0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x0d, 0x81, 0x07, 0x56, 0x01, 0xe8,
    0x0c, 0xf4, 0xff, 0xff, 0x84, 0xc0, 0x75, 0x12, 0x89, 0xf2, 0x48, 0x83, 0xc4, 0x08, 0x48, 0x89,
    0xfe, 0x48, 0x8d, 0x3d, 0xc8, 0xe9, 0x5a, 0x01, 0xff, 0xe1, 0x4c, 0x8d, 0x05, 0xab, 0x29, 0x2e,
    0x00, 0x48, 0x8d, 0x0d, 0x80, 0xa2, 0x46, 0x00, 0xba, 0x43, 0x02, 0x00, 0x00, 0x31, 0xff, 0x48,
    0x8d, 0x35, 0x72, 0xc7, 0x2f, 0x00, 0xe8, 0x85, 0x87, 0xc5, 0xff, 0x0f, 0x1f, 0x44, 0x00, 0x00,
    0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08, 0xe8, 0xc3, 0xf3, 0xff, 0xff, 0x84, 0xc0, 0x74,
    0x26, 0x8b, 0x05, 0xc9, 0xe8, 0x5a, 0x01, 0x85, 0xc0, 0x75, 0x3d, 0xba, 0x4b, 0x02, 0x00, 0x00,
    0x48, 0x8d, 0x35, 0x41, 0xc7, 0x2f, 0x00, 0x48, 0x8d, 0x3d, 0x72, 0xe9, 0x5a, 0x01, 0x48, 0x83,
    0xc4, 0x08, 0xe9, 0x69, 0x06, 0x2a, 0x00, 0x4c, 0x8d, 0x05, 0x4f, 0x29, 0x2e, 0x00, 0x48, 0x8d,
    0x0d, 0x13, 0xa2, 0x46, 0x00, 0xba, 0x49, 0x02, 0x00, 0x00, 0x31, 0xff, 0x48, 0x8d, 0x35, 0x15,
    0xc7, 0x2f, 0x00, 0xe8, 0x28, 0x87, 0xc5, 0xff, 0x4c, 0x8d, 0x05, 0x5b, 0xc7, 0x2f, 0x00, 0x48,
    0x8d, 0x0d, 0xf2, 0xa1, 0x46, 0x00, 0xba, 0x4a, 0x02, 0x00, 0x00, 0x31, 0xff, 0x48, 0x8d, 0x35,
    0xf4, 0xc6, 0x2f, 0x00, 0xe8, 0x07, 0x87, 0xc5, 0xff,
];

/// What an ELF file for these tests is made of.
struct Elf {
    machine: u16,
    interpreter: &'static str,
    symbols: [&'static str; 2],
    /// Where the code is, and what it is. The file has it at [`CODE_OFFSET`].
    code_address: u64,
    code: Vec<u8>,
    /// Where in it the two functions begin, and what `.dynsym` says of their lengths.
    functions: [(u64, u64); 2],
    /// First and behind-the-last address of the writable segment, and the end of its part that
    /// becomes read-only.
    data: (u64, u64),
    relro_end: u64,
    text: &'static str,
}

const HEADER_BYTES: usize = 64;
const CODE_OFFSET: usize = 0x400;
const TEXT_OFFSET: usize = 0x600;
const SYMBOLS_OFFSET: usize = 0x700;
const NAMES_OFFSET: usize = 0x800;
const INTERPRETER_OFFSET: usize = 0x900;
const SECTIONS_OFFSET: usize = 0xa00;
const FILE_BYTES: usize = 0xb00;

impl Elf {
    /// QEMU 7.2 in small: its functions and its segments where they are in Debian's binary.
    fn qemu_7_2() -> Elf {
        Elf {
            machine: object::elf::EM_X86_64,
            interpreter: "/lib64/ld-linux-x86-64.so.2",
            symbols: ["qemu_mutex_lock_iothread_impl", "qemu_mutex_unlock_iothread"],
            code_address: 0x5d_5860,
            code: CODE_7_2.to_vec(),
            functions: [(0, 84), (0x60, 83)],
            data: (0xc9_58f8, 0xc9_58f8 + 0x52_a2d0),
            relro_end: 0xc9_58f8 + 0x14_e708,
            text: "QEMU emulator version 7.2.22",
        }
    }

    fn qemu_10_0() -> Elf {
        Elf {
            symbols: ["bql_lock_impl", "bql_unlock"],
            code_address: 0x72_35a0,
            code: CODE_10_0.to_vec(),
            functions: [(0, 84), (0x60, 129)],
            data: (0xe6_fd48, 0xe6_fd48 + 0xd1_fd78),
            relro_end: 0xe6_fd48 + 0xbe_b2b8,
            ..Elf::qemu_7_2()
        }
    }

    fn qemu_11_1() -> Elf {
        Elf {
            code_address: 0x88_0df0,
            code: CODE_11_1.to_vec(),
            functions: [(0, 75), (0x50, 121)],
            data: (0xed_4558, 0xed_4558 + 0xf6_b438),
            relro_end: 0xed_4558 + 0xdf_9aa8,
            ..Elf::qemu_10_0()
        }
    }

    /// A QEMU 7.2 whose functions are other ones, of this code.
    fn with_code(lock: &[u8], unlock: &[u8]) -> Elf {
        let length = |code: &[u8]| code.len() as u64;
        Elf {
            code: [lock, unlock].concat(),
            functions: [(0, length(lock)), (length(lock), length(unlock))],
            ..Elf::qemu_7_2()
        }
    }

    fn find(&self) -> Result<LinkTimeBql, BqlError> {
        find_in_elf(self.bytes().as_slice())
    }

    fn message(&self) -> String {
        self.find().expect_err("it must not be found").to_string()
    }

    /// elf(5): the header, then program headers; the rest at its offset.
    fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0; FILE_BYTES];
        let mut header = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0].to_vec();
        header.resize(16, 0);
        header.extend([3, 0]);
        header.extend(self.machine.to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        words(&mut header, &[0x40_fe30, HEADER_BYTES as u64, SECTIONS_OFFSET as u64]);
        header.extend(0_u32.to_le_bytes());
        let (segments, sections) = (self.segments(), sections());
        // ehsize, phentsize, phnum, shentsize, shnum, shstrndx
        let count = |count: usize| u16::try_from(count).expect("a few");
        for half in [64, 56, count(segments.len()), 64, count(sections.len()), 2] {
            header.extend(half.to_le_bytes());
        }
        put(&mut file, 0, &header);
        put(&mut file, HEADER_BYTES, &segments.concat());
        put(&mut file, SECTIONS_OFFSET, &sections.concat());
        put(&mut file, CODE_OFFSET, &self.code);
        put(&mut file, TEXT_OFFSET, self.text.as_bytes());
        put(&mut file, INTERPRETER_OFFSET, self.interpreter.as_bytes());
        // The first symbol is always empty; the others are functions (st_info 0x12) in section 1.
        let mut name = 1;
        for (place, (symbol, (at, size_bytes))) in
            self.symbols.iter().zip(self.functions).enumerate()
        {
            put(&mut file, NAMES_OFFSET + name, symbol.as_bytes());
            let mut entry = u32::try_from(name).expect("small").to_le_bytes().to_vec();
            entry.extend([0x12, 0, 1, 0]);
            words(&mut entry, &[self.code_address + at, size_bytes]);
            put(&mut file, SYMBOLS_OFFSET + 24 * (place + 1), &entry);
            name += symbol.len() + 1;
        }
        file
    }

    fn segments(&self) -> Vec<Vec<u8>> {
        let interpreter = self.interpreter.len() as u64 + 1;
        let code = self.code.len() as u64;
        let (start, end) = self.data;
        vec![
            segment(PT_INTERP, 4, INTERPRETER_OFFSET, 0x350, interpreter, interpreter),
            segment(PT_LOAD, 5, CODE_OFFSET, self.code_address, code, code),
            segment(PT_LOAD, 4, TEXT_OFFSET, 0x99_e000, 64, 64),
            segment(PT_LOAD, 6, TEXT_OFFSET, start, 0, end - start),
            segment(PT_GNU_RELRO, 4, TEXT_OFFSET, start, 0, self.relro_end - start),
        ]
    }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn words(into: &mut Vec<u8>, words: &[u64]) {
    words.iter().for_each(|word| into.extend(word.to_le_bytes()));
}

fn segment(kind: u32, flags: u32, at: usize, address: u64, in_file: u64, size: u64) -> Vec<u8> {
    let mut segment = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    words(&mut segment, &[at as u64, address, address, in_file, size, 8]);
    segment
}

/// The empty one, `.dynsym`, `.dynstr`.
fn sections() -> [Vec<u8>; 3] {
    let section = |kind: u32, at: usize, size: u64, link: u32, entry: u64| {
        let mut section = [0_u32.to_le_bytes(), kind.to_le_bytes()].concat();
        words(&mut section, &[2, 0, at as u64, size]);
        section.extend([link.to_le_bytes(), 1_u32.to_le_bytes()].concat());
        words(&mut section, &[8, entry]);
        section
    };
    [
        vec![0; 64],
        section(object::elf::SHT_DYNSYM, SYMBOLS_OFFSET, 72, 2, 24),
        section(object::elf::SHT_STRTAB, NAMES_OFFSET, 0x100, 0, 0),
    ]
}

#[test]
fn the_lock_of_each_qemu_of_debian_is_found() {
    let qemus = [
        (Elf::qemu_7_2(), 0x118_db40),
        (Elf::qemu_10_0(), 0x1b5_e2c0),
        (Elf::qemu_11_1(), 0x1e2_f7e0),
    ];
    for (elf, address) in qemus {
        let found = elf.find().expect("it is there");
        assert_eq!(found.address, address, "{found:x?}");
        for ((function, symbol), (at, size_bytes)) in
            found.functions.iter().zip(elf.symbols).zip(elf.functions)
        {
            assert_eq!((function.symbol, function.address), (symbol, elf.code_address + at));
            assert_eq!(function.code.len() as u64, size_bytes);
            let at = usize::try_from(at).expect("small");
            assert!(elf.code[at..].starts_with(&function.code), "{symbol}");
        }
    }
}

/// `lea DISP(%rip),%rdi` of `target` by an instruction at `at`, both relative to the code's beginning at
/// 0x5d5860.
fn lea(at: usize, target: i64) -> Vec<u8> {
    let next = 0x5d_5860 + i64::try_from(at).expect("small") + 7;
    let displacement = i32::try_from(target - next).expect("32 bits");
    [&[0x48, 0x8d, 0x3d], &displacement.to_le_bytes()[..]].concat()
}

const LOCK: i64 = 0x118_db40;

/// Intel SDM volume 2, CALL and JMP: the forms that leave a function.
#[test]
fn every_form_of_call_and_of_jump_hands_its_argument_on() {
    let calls: [&[u8]; 10] = [
        &[0xff, 0xd0],                      // call *%rax
        &[0xff, 0xd7],                      // call *%rdi
        &[0xe8, 0, 0, 0, 0x10],             // call
        &[0xff, 0x15, 0, 0, 0, 0],          // call *X(%rip)
        &[0x41, 0xff, 0xd3],                // call *%r11
        &[0xf2, 0xff, 0xe1],                // bnd jmp *%rcx
        &[0x3e, 0xff, 0xe0],                // notrack jmp *%rax
        &[0xff, 0xe1],                      // jmp *%rcx
        &[0xe9, 0, 0, 0, 0x10],             // jmp
        &[0x90, 0x0f, 0x84, 0, 0, 0, 0x10], // nop; je
    ];
    for call in calls {
        let code = [lea(0, LOCK), call.to_vec()].concat();
        let other = [lea(code.len(), LOCK), call.to_vec()].concat();
        let found = Elf::with_code(&code, &other).find();
        assert_eq!(found.expect("it leaves").address, LOCK as u64, "{call:x?}");
    }
    let others: [&[u8]; 6] = [
        &[0xff], // cut off
        &[],
        &[0xc3, 0xff, 0xd0],                   // ret, before the call
        &[0x0f, 0x0b, 0xff, 0xd0],             // ud2
        &[0x31, 0xff, 0xff, 0xd0],             // xor %edi,%edi
        &[0x48, 0x0f, 0x44, 0xf8, 0xff, 0xd0], // cmove %rax,%rdi
    ];
    for other in others {
        let code = [lea(0, LOCK), other.to_vec()].concat();
        let elf = Elf::with_code(&code, &[lea(code.len(), LOCK), vec![0xff, 0xd0]].concat());
        assert!(matches!(elf.find(), Err(BqlError::NoCommon { lock_count: 0, .. })), "{other:x?}");
    }
}

/// A function that hands these on, one after the other; it begins at `start` of the code.
fn hands(start: usize, targets: &[i64]) -> Vec<u8> {
    let mut code = Vec::new();
    for target in targets {
        code.extend(lea(start + code.len(), *target));
        code.extend([0xff, 0xd1]);
    }
    [code, vec![0xc3]].concat()
}

fn hand(lock: &[i64], unlock: &[i64]) -> Result<LinkTimeBql, BqlError> {
    let first = hands(0, lock);
    Elf::with_code(&first, &hands(first.len(), unlock)).find()
}

#[test]
fn the_lock_is_what_both_functions_hand_on() {
    let (other, third) = (LOCK + 0x40, LOCK + 0x80);
    assert_eq!(hand(&[other, LOCK], &[LOCK, third]).expect("one").address, LOCK as u64);
    let message = hand(&[LOCK, other], &[third]).expect_err("none").to_string();
    assert!(message.contains("hand no common variable") && message.contains("(2 and 1 variables)"));
    let message = hand(&[LOCK, other], &[LOCK, other]).expect_err("two").to_string();
    assert!(message.contains("both hand 2 variables"), "{message}");
}

#[test]
fn what_is_no_variable_is_passed_over() {
    // A text of an assertion, something read-only after relocation, something odd: then the lock.
    let targets = [0x99_e010, 0xc9_5a00, LOCK + 1, LOCK];
    assert_eq!(hand(&targets, &targets).expect("the last").address, LOCK as u64);
    let message = hand(&targets[..3], &targets[..3]).expect_err("none").to_string();
    assert!(message.contains("at 0x5d5860 and qemu_mutex_unlock_iothread hand no common"));
}

#[test]
fn what_a_called_function_may_have_changed_is_not_known_any_more() {
    let code = |start: usize, mut code: Vec<u8>| {
        code.splice(0..0, lea(start, LOCK));
        code
    };
    // nop; mov %rdi,%rbx or %rcx; call (to nowhere); mov %rbx or %rcx,%rdi; jmp *%rax. The first call hands
    // the address on as well: so it is lost before that, and back after it.
    let kept: &[u8] = &[0x48, 0x89, 0xfb, 0x31, 0xff, 0xff, 0xd0, 0x48, 0x89, 0xdf, 0xff, 0xe0];
    let lost: &[u8] = &[0x48, 0x89, 0xf9, 0x31, 0xff, 0xff, 0xd0, 0x48, 0x89, 0xcf, 0xff, 0xe0];
    let unlock = |start| hands(start, &[LOCK]);
    let first = code(0, kept.to_vec());
    let found = Elf::with_code(&first, &unlock(first.len())).find();
    assert_eq!(found.expect("rbx is kept").address, LOCK as u64);
    let first = code(0, lost.to_vec());
    let found = Elf::with_code(&first, &unlock(first.len())).find();
    assert!(matches!(found, Err(BqlError::NoCommon { .. })), "{found:?}");
}

#[test]
fn the_search_ends_with_the_function() {
    // What follows the function belongs to another one; without its length it is all of it.
    let short = Elf { functions: [(0, 60), (0x60, 83)], ..Elf::qemu_7_2() };
    assert!(short.message().contains("(0 and 1 variables)"), "{}", short.message());
    let unsized_ones = Elf { functions: [(0, 0), (0x60, 0)], ..Elf::qemu_7_2() };
    assert_eq!(unsized_ones.find().expect("as long as it goes on").address, LOCK as u64);
    let late = [vec![0x90; 160], hands(160, &[LOCK])].concat();
    let found = Elf::with_code(&late, &hands(late.len(), &[LOCK])).find().expect("it goes on");
    assert_eq!(found.functions[0].code.len(), 160, "no more than that is kept");
    let elsewhere = Elf { code: vec![], ..Elf::qemu_7_2() };
    assert!(elsewhere.message().contains("(0 and 0 variables)"), "{}", elsewhere.message());
}

#[test]
fn each_other_program_is_told_what_it_is() {
    let no_symbol = Elf { symbols: ["kvm_cpu_exec", "bql_unlock"], ..Elf::qemu_7_2() };
    assert!(no_symbol.message().starts_with("QEMU has 3 symbols, but not the functions that take"));
    let other =
        Elf { symbols: ["main", "start"], text: "a virtual machine monitor", ..Elf::qemu_7_2() };
    assert!(other.message().starts_with("the program is not a QEMU"));
    let musl = Elf { interpreter: "/lib/ld-musl-x86_64.so.1", ..Elf::qemu_7_2() };
    assert!(musl.message().contains("loader is /lib/ld-musl-x86_64.so.1, not glibc's"));
    let arm = Elf { machine: object::elf::EM_AARCH64, ..Elf::qemu_7_2() };
    assert!(arm.message().starts_with("the program is for ELF machine 183 (byte order little)"));
    let script = find_in_elf(&b"#!/bin/sh\nexec qemu-system-x86_64 \"$@\"\n"[..]);
    let message = script.expect_err("a script").to_string();
    assert!(message.starts_with("the program is not a 64-bit ELF file"), "{message}");
}

#[test]
fn this_test_is_not_a_qemu_and_nobody_is_a_process() {
    let own = Tid(std::process::id());
    // Its constants may quote the mark, so either answer is right; an address is not.
    let error = locate(own).expect_err("no QEMU");
    assert!(matches!(error, BqlError::NotQemu | BqlError::NoSymbol { .. }), "{error}");
    let message = locate(Tid(u32::MAX)).expect_err("no process").to_string();
    assert!(message.starts_with("/proc/4294967295/exe cannot be read"), "{message}");
    assert!(message.ends_with("there is no such process (any more)"), "{message}");
}

/// The kernel's own list of this process's mappings has its static variables where they are said
/// to be.
#[test]
fn the_variables_of_this_process_are_where_it_has_them() {
    static SEVEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(7);
    static ZEROES: [std::sync::atomic::AtomicU8; 9000] =
        [const { std::sync::atomic::AtomicU8::new(0) }; 9000];
    let data = exe_data(Tid(std::process::id())).expect("it may read itself");
    let in_data = std::ptr::from_ref(&SEVEN).addr() as u64;
    let in_bss = std::ptr::from_ref(&ZEROES[8999]).addr() as u64;
    assert!(data.contains(in_data) && data.contains(in_bss), "{data:x?} {in_data:x} {in_bss:x}");
    let on_stack = std::ptr::from_ref(&data).addr() as u64;
    let on_heap = Box::new(7_u64);
    let on_heap = std::ptr::from_ref(on_heap.as_ref()).addr() as u64;
    let constant = std::ptr::from_ref("constant").cast::<u8>().addr() as u64;
    let code = locate as *const () as usize as u64;
    for other in [on_stack, on_heap, constant, code] {
        assert!(!data.contains(other), "{data:x?} {other:x}");
    }
}

#[test]
fn an_auxiliary_vector_says_where_the_program_begins() {
    let pairs = [(6, 4096_u64), (9, 0x5555_5595_7e30), (0, 0)];
    let vector: Vec<u8> =
        pairs.iter().flat_map(|(key, value)| [*key, *value]).flat_map(u64::to_le_bytes).collect();
    assert_eq!(entry_point(&vector), Some(0x5555_5595_7e30));
    assert_eq!(entry_point(&vector[..31]), None);
    assert_eq!(entry_point(&[]), None);
}

#[test]
fn a_mutex_has_its_owner_in_the_third_word() {
    assert_eq!(lock_and_owner(&[2, 0, 0, 0, 1, 0, 0, 0, 0x39, 0x05, 0, 0]), (2, 1337));
}

/// Looks at three words of this process as if they were a mutex.
fn look_at(mutex: [u32; 3]) -> Result<Option<Tid>, BqlError> {
    let memory = File::open("/proc/self/mem").expect("it may read itself");
    let address = std::ptr::from_ref(&mutex).addr() as u64;
    look(Tid(std::process::id()), &memory, address)
}

#[test]
fn what_is_no_mutex_of_this_process_is_refused() {
    let own = Tid(std::process::id());
    assert_eq!(look_at([0, 0, 0]).expect("free"), None);
    assert_eq!(look_at([2, 0, own.0]).expect("held"), Some(own));
    let message = look_at([3, 0, 0]).expect_err("no lock word").to_string();
    assert!(message.ends_with("is 3, but a mutex is 0, 1 or 2: this is not the BQL"), "{message}");
    // kthreadd, or whoever began this container: no thread of this process.
    let message = look_at([1, 0, 1]).expect_err("no owner").to_string();
    assert!(message.contains(" is 1, which is none of the ") && message.ends_with("not the BQL"));
}

#[test]
fn a_function_elsewhere_is_noticed() {
    let (own, code) = (Tid(std::process::id()), vec![0x48, 0x83, 0xec, 0x08]);
    let found = LockFunction {
        symbol: "bql_lock_impl",
        address: code.as_ptr().addr() as u64 - 0x1000,
        code: code.clone(),
    };
    let memory = File::open("/proc/self/mem").expect("it may read itself");
    check_code(own, &memory, &found, 0x1000).expect("it is there");
    let error = check_code(own, &memory, &found, 0x1001).expect_err("it is not there");
    assert!(matches!(error, BqlError::OtherCode { .. }), "{error}");
    let error = check_code(own, &memory, &found, 0_u64.wrapping_sub(found.address));
    assert!(error.expect_err("nothing is there").to_string().contains("/mem cannot be read"));
}

#[test]
fn a_lock_says_how_it_was_checked() {
    let held = Bql {
        address: 0x55ed_66be_6b40,
        symbol: "bql_lock_impl".to_owned(),
        unlock_symbol: Some("bql_unlock".to_owned()),
        owner_seen: Some(Tid(77)),
        looks_count: 3,
    };
    assert!(held.check().ends_with("and QEMU's thread 77 was seen holding the lock"));
    assert!(held.check().starts_with("bql_lock_impl and bql_unlock name it, and both match"));
    let old = Bql { unlock_symbol: None, ..held.clone() };
    assert!(old.check().starts_with("bql_lock_impl in QEMU's memory matches its file, and"));
    let free = Bql { owner_seen: None, looks_count: 20, ..held };
    assert!(free.check().ends_with("the lock was free each time it was read (20)"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_qemu(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(find_in_elf(bytes.as_slice()).is_err());
    }

    /// Broken in a few places, a file may still show its lock or not, but nothing panics.
    #[test]
    fn a_damaged_file_panics_nobody(
        damage in proptest::collection::vec((0..FILE_BYTES, any::<u8>()), 1..12),
        cut in 0..=FILE_BYTES,
    ) {
        let mut file = Elf::qemu_7_2().bytes();
        for (at, byte) in damage {
            file[at] = byte;
        }
        if let Ok(found) = find_in_elf(&file[..cut]) {
            prop_assert!(found.functions.iter().all(|function| function.code.len() <= 160));
        }
    }

    #[test]
    fn arbitrary_code_names_only_variables(code in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (first, second) = code.split_at(code.len() / 2);
        if let Ok(found) = Elf::with_code(first, second).find() {
            prop_assert!(found.address >= 0xc9_58f8 + 0x14_e708 && found.address < 0xc9_58f8 + 0x52_a2d0);
        }
    }
}
