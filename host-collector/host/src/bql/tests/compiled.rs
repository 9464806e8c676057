//! The lock in programs that this machine's compiler makes in many ways: the one that links Rust.

use super::super::{BqlError, find_in_file};
use object::elf::{FileHeader64, SHT_SYMTAB};
use object::endian::Endianness;
use object::read::elf::{FileHeader, Sym};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("lock.c");

/// What the compiler makes of the source; the linker exports symbols, as that of a QEMU with modules does.
fn compile(directory: &Path, flags: &str) -> PathBuf {
    let (source, program) = (directory.join("lock.c"), directory.join("program"));
    std::fs::write(&source, SOURCE).expect("a source");
    run(Command::new("cc")
        .args(["-pthread", "-w", "-rdynamic", "-o"])
        .args([&program, &source])
        .args(flags.split_whitespace()));
    program
}

/// Without what is not needed to run it, as distributions ship programs.
fn stripped(program: &Path) -> PathBuf {
    let stripped = program.with_extension("stripped");
    run(Command::new("strip").arg("-o").args([&stripped, program]));
    stripped
}

fn run(command: &mut Command) {
    let made = command.output().expect("the compiler's tools, which link this test");
    assert!(made.status.success(), "{command:?}: {}", String::from_utf8_lossy(&made.stderr));
}

/// Where the linker put the lock, by the table of symbols that it has left in.
fn lock_of(program: &Path) -> u64 {
    let data = std::fs::read(program).expect("a program");
    let data = data.as_slice();
    let header = FileHeader64::<Endianness>::parse(data).expect("ELF");
    let endian = header.endian().expect("an order");
    let sections = header.sections(endian, data).expect("sections");
    let symbols = sections.symbols(endian, data, SHT_SYMTAB).expect("symbols");
    // Link-time optimisation appends something to it.
    let lock = symbols.iter().find(|symbol| {
        symbols.symbol_name(endian, *symbol).is_ok_and(|name| name.starts_with(b"the_lock"))
    });
    lock.expect("the lock has a symbol").st_value(endian)
}

const FORMS: [&str; 26] = [
    "-DFORM=1 -O0",
    "-DFORM=1 -O0 -fno-pie -no-pie",
    "-DFORM=1 -O1 -fcf-protection=none",
    "-DFORM=1 -O2 -fcf-protection=full",
    "-DFORM=1 -O2 -fcf-protection=full -fno-optimize-sibling-calls",
    "-DFORM=1 -O2 -fno-pie -no-pie",
    "-DFORM=1 -O2 -fno-plt -Wl,-z,now -DINLINED",
    "-DFORM=1 -O2 -DINLINED",
    "-DFORM=1 -O2 -mindirect-branch=thunk",
    "-DFORM=1 -O2 -mcmodel=large -fno-pie -no-pie",
    "-DFORM=1 -O2 -fstack-protector-all -fstack-clash-protection",
    "-DFORM=1 -O2 -flto",
    "-DFORM=1 -O3 -flto -fno-pie -no-pie",
    "-DFORM=1 -Os",
    "-DFORM=1 -O2 -fPIC",
    "-DFORM=1 -O2 -fPIC -flto -Wl,-z,now",
    "-DFORM=2 -O0",
    "-DFORM=2 -O2",
    "-DFORM=2 -O2 -fno-pie -no-pie",
    "-DFORM=2 -O2 -flto",
    "-DFORM=2 -O2 -DINLINED -fno-plt",
    "-DFORM=3 -O2 -fPIC -Wl,--no-relax",
    "-DFORM=3 -O0 -fPIC -Wl,--no-relax",
    "-DFORM=3 -O2 -mcmodel=medium",
    "-DFORM=4 -O2",
    "-DFORM=4 -O0 -fno-pie -no-pie",
];

#[test]
fn the_lock_is_found_however_the_program_was_compiled() {
    let directory = tempfile::tempdir().expect("a directory");
    for form in FORMS {
        let program = compile(directory.path(), form);
        let address = lock_of(&program);
        for program in [stripped(&program), program] {
            let found = find_in_file(&program);
            let found = found.unwrap_or_else(|error| panic!("{form}: {error}"));
            assert_eq!(found.address, address, "{form}");
        }
    }
}

/// Nothing is exported; who builds a QEMU for himself leaves its symbols in.
#[test]
fn a_static_program_tells_its_lock_while_it_has_symbols() {
    let directory = tempfile::tempdir().expect("a directory");
    for form in ["-DFORM=1 -O2 -static", "-DFORM=1 -O2 -static-pie"] {
        let program = compile(directory.path(), form);
        let found = find_in_file(&program).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(found.address, lock_of(&program), "{form}");
        let error = find_in_file(&stripped(&program)).expect_err("it has no symbols");
        assert!(matches!(error, BqlError::NotQemu), "{error}");
    }
}
