//! Small ELF files made by hand, and code as compilers made it.

use super::memory::{check_code, entry_point, lock_and_owner, look};
use super::*;
use object::elf::{PT_GNU_RELRO, PT_INTERP, PT_LOAD};
use proptest::prelude::*;
use std::fs::File;
use vslice_trace::lock::Bql;

/// `qemu_mutex_lock_iothread_impl` of Debian 12's QEMU 7.2.22, whole: objdump -d of the binary. The
/// linker put it at 0x5d5860, and the lock at 0x118db40.
const CODE_7_2: [u8; 84] = [
    0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x0d, 0x6d, 0x57, 0xbb, 0x00, 0xe8, 0x00, 0xf5, 0xff, 0xff,
    0x84, 0xc0, 0x74, 0x24, 0x4c, 0x8d, 0x05, 0xeb, 0x9e, 0x49, 0x00, 0x48, 0x8d, 0x0d, 0xbe, 0xa0,
    0x49, 0x00, 0xba, 0xf6, 0x01, 0x00, 0x00, 0x31, 0xff, 0x48, 0x8d, 0x35, 0x93, 0x9e, 0x49, 0x00,
    0xe8, 0x9b, 0x1c, 0xe3, 0xff, 0x0f, 0x1f, 0x00, 0x89, 0xf2, 0x48, 0x89, 0xfe, 0x48, 0x8d, 0x3d,
    0x9c, 0x82, 0xbb, 0x00, 0xff, 0xd1, 0xbf, 0x01, 0x00, 0x00, 0x00, 0x48, 0x83, 0xc4, 0x08, 0xe9,
    0xcc, 0xf4, 0xff, 0xff,
];

/// `bql_lock_impl` of Debian 13's QEMU 10.0.13, whole: it begins with `endbr64`, and here the
/// assertion comes after the call. The linker put it at 0x759b10, and the lock at 0x1ba9420.
const CODE_10_0: [u8; 85] = [
    0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x0d, 0xc9, 0xc3, 0x44, 0x01, 0xe8,
    0xfc, 0xf3, 0xff, 0xff, 0x84, 0xc0, 0x75, 0x1c, 0x89, 0xf2, 0x48, 0x89, 0xfe, 0x48, 0x8d, 0x3d,
    0xec, 0xf8, 0x44, 0x01, 0xff, 0xd1, 0xbf, 0x01, 0x00, 0x00, 0x00, 0x48, 0x83, 0xc4, 0x08, 0xe9,
    0xec, 0xf3, 0xff, 0xff, 0x4c, 0x8d, 0x05, 0x27, 0xb1, 0x3f, 0x00, 0x48, 0x8d, 0x0d, 0xa6, 0xed,
    0x5a, 0x00, 0xba, 0x2c, 0x02, 0x00, 0x00, 0x31, 0xff, 0x48, 0x8d, 0x35, 0x13, 0xda, 0x3f, 0x00,
    0xe8, 0x4b, 0x2a, 0xd4, 0xff,
];

/// What an ELF file for these tests is made of.
struct Elf {
    machine: u16,
    interpreter: &'static str,
    symbol: &'static str,
    /// Where the function is, and what it is. The file has it at [`CODE_OFFSET`].
    code_address: u64,
    code: Vec<u8>,
    /// What `.dynsym` says of the function's length.
    size_bytes: u64,
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
    /// QEMU 7.2 in small: its function and its segments where they are in Debian's binary.
    fn qemu_7_2() -> Elf {
        Elf {
            machine: object::elf::EM_X86_64,
            interpreter: "/lib64/ld-linux-x86-64.so.2",
            symbol: "qemu_mutex_lock_iothread_impl",
            code_address: 0x5d_5860,
            code: CODE_7_2.to_vec(),
            size_bytes: 84,
            data: (0xc9_58f8, 0xc9_58f8 + 0x52_a2d0),
            relro_end: 0xc9_58f8 + 0x14_e708,
            text: "QEMU emulator version 7.2.22",
        }
    }

    fn with_code(code: &[u8]) -> Elf {
        Elf { code: code.to_vec(), size_bytes: code.len() as u64, ..Elf::qemu_7_2() }
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
        put(&mut file, NAMES_OFFSET + 1, self.symbol.as_bytes());
        put(&mut file, INTERPRETER_OFFSET, self.interpreter.as_bytes());
        // The first symbol is always empty; the second is a function (st_info 0x12) in section 1.
        let mut symbol = [1, 0, 0, 0, 0x12, 0, 1, 0].to_vec();
        words(&mut symbol, &[self.code_address, self.size_bytes]);
        put(&mut file, SYMBOLS_OFFSET + 24, &symbol);
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
        section(object::elf::SHT_DYNSYM, SYMBOLS_OFFSET, 48, 2, 24),
        section(object::elf::SHT_STRTAB, NAMES_OFFSET, 0x100, 0, 0),
    ]
}

#[test]
fn the_lock_of_debians_qemu_is_found() {
    let found = Elf::qemu_7_2().find().expect("it is there");
    assert_eq!((found.address, found.code_address), (0x118_db40, 0x5d_5860));
    assert_eq!(found.symbol, "qemu_mutex_lock_iothread_impl");
    assert_eq!(found.code, CODE_7_2);
    let renamed = Elf {
        symbol: "bql_lock_impl",
        code_address: 0x75_9b10,
        data: (0xeb_8f88, 0xeb_8f88 + 0xd2_1cb8),
        relro_end: 0xeb_8f88 + 0xbe_c078,
        ..Elf::with_code(&CODE_10_0)
    };
    let found = renamed.find().expect("it is there");
    assert_eq!((found.symbol.as_str(), found.address), ("bql_lock_impl", 0x1ba_9420));
}

#[test]
fn every_form_of_call_is_one_and_nothing_else_is() {
    // 0x5d5860 + 7 + 0xbb82d9
    let lea = [0x48, 0x8d, 0x3d, 0xd9, 0x82, 0xbb, 0x00];
    let calls: [&[u8]; 5] = [
        &[0xff, 0xd0],
        &[0xff, 0xd7],
        &[0xe8, 0, 0, 0, 0],
        &[0xff, 0x15, 0, 0, 0, 0],
        &[0x41, 0xff, 0xd3],
    ];
    for call in calls {
        let elf = Elf::with_code(&[&lea, call].concat());
        assert_eq!(elf.find().expect("a call").address, 0x118_db40, "{call:x?}");
    }
    let others: [&[u8]; 4] = [&[0xff, 0xe1], &[0x90, 0xff, 0xd1], &[0xff], &[]];
    for other in others {
        let elf = Elf::with_code(&[&lea, other].concat());
        assert!(matches!(elf.find(), Err(BqlError::NoPair { .. })), "{other:x?}");
    }
}

#[test]
fn an_argument_that_is_no_variable_is_passed_over() {
    // A text of an assertion, something read-only after relocation, something odd: then the lock.
    let at = 0x5d_5860_i64;
    let load = |index: i64, target: i64| {
        let displacement = i32::try_from(target - (at + index * 9 + 7)).expect("32 bits");
        [&[0x48, 0x8d, 0x3d], &displacement.to_le_bytes()[..], &[0xff, 0xd1]].concat()
    };
    let targets = [0x99_e010, 0xc9_5a00, 0x118_db41, 0x118_db40];
    let code: Vec<u8> =
        (0..).zip(targets).flat_map(|(index, target)| load(index, target)).collect();
    assert_eq!(Elf::with_code(&code).find().expect("the last").address, 0x118_db40);
    let message = Elf::with_code(&code[..27]).message();
    assert!(message.contains("at 0x5d5860 has no `lea") && message.contains("first 27 bytes"));
}

#[test]
fn the_search_ends_with_the_function() {
    // What follows the function belongs to another one.
    let short = Elf { size_bytes: 60, ..Elf::qemu_7_2() };
    assert!(short.message().contains("first 60 bytes"), "{}", short.message());
    let unsized_one = Elf { size_bytes: 0, ..Elf::qemu_7_2() };
    assert_eq!(unsized_one.find().expect("as long as the segment").address, 0x118_db40);
    let late = [vec![0x90; 160], CODE_7_2.to_vec()].concat();
    assert!(Elf::with_code(&late).message().contains("first 160 bytes"));
    let elsewhere = Elf { code: vec![], ..Elf::qemu_7_2() };
    assert!(elsewhere.message().contains("first 0 bytes"));
}

#[test]
fn each_other_program_is_told_what_it_is() {
    let no_symbol = Elf { symbol: "kvm_cpu_exec", ..Elf::qemu_7_2() };
    assert!(no_symbol.message().starts_with("QEMU exports 2 symbols, but neither bql_lock_impl"));
    let other = Elf { symbol: "main", text: "a virtual machine monitor", ..Elf::qemu_7_2() };
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
    let found = LinkTimeBql {
        address: 0,
        symbol: "bql_lock_impl".to_owned(),
        code_address: code.as_ptr().addr() as u64 - 0x1000,
        code: code.clone(),
    };
    let memory = File::open("/proc/self/mem").expect("it may read itself");
    check_code(own, &memory, &found, 0x1000).expect("it is there");
    let error = check_code(own, &memory, &found, 0x1001).expect_err("it is not there");
    assert!(matches!(error, BqlError::OtherCode { .. }), "{error}");
    let error = check_code(own, &memory, &found, 0_u64.wrapping_sub(found.code_address));
    assert!(error.expect_err("nothing is there").to_string().contains("/mem cannot be read"));
}

#[test]
fn a_lock_says_how_it_was_checked() {
    let held = Bql {
        address: 0x55ed_66be_6b40,
        symbol: "bql_lock_impl".to_owned(),
        owner_seen: Some(Tid(77)),
        looks_count: 3,
    };
    assert!(held.check().ends_with("and QEMU's thread 77 was seen holding the lock"));
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
            prop_assert!(found.code.len() <= 160);
        }
    }

    #[test]
    fn arbitrary_code_names_only_variables(code in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(found) = Elf::with_code(&code).find() {
            prop_assert!(found.address >= 0xc9_58f8 + 0x14_e708 && found.address < 0xc9_58f8 + 0x52_a2d0);
        }
    }
}
