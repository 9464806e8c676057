//! QEMU's big lock (BQL) in a running, stripped QEMU: the address that a vCPU's futex wait must show
//! to be a wait for this lock and for no other.
//!
//! The lock is a static variable without a symbol. The functions that take and release it have some,
//! because QEMU exports its symbols to its modules: `bql_lock_impl` and `bql_unlock` since 9.0,
//! `qemu_mutex_lock_iothread_impl` and `qemu_mutex_unlock_iothread` from 2.12 to 8.2 (qemu:
//! system/cpus.c, softmmu/cpus.c), before that without `_impl`. Both hand the lock's address to
//! functions of mutexes, by a call or a jump: the one address that both hand on is the lock
//! ([`find_in_elf`]). Where the program lies in memory, the kernel's auxiliary vector says ([`locate`]).
//!
//! Nothing is written to QEMU and it is not stopped: all reads are of `/proc`.

mod code;
mod elf;
mod linked;
mod memory;

pub use elf::{LinkTimeBql, LockFunction, find_in_elf};
pub use memory::{exe_data, find_in_file, locate};

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use vslice_core::units::Tid;

/// Why the address of a process's BQL is unknown.
#[derive(Debug, Error)]
pub enum BqlError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}{}", advice(path, source))]
    Read {
        /// The file's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program is not a 64-bit ELF file.
    #[error("the program is not a 64-bit ELF file that can be read: {0}")]
    Elf(#[from] object::Error),
    /// The instructions of this machine are not known here.
    #[error(
        "the program is for ELF machine {machine} (byte order {order}); vslice finds the BQL only in \
        x86-64 code (machine 62)"
    )]
    OtherMachine {
        /// `e_machine`, see elf(5).
        machine: u16,
        /// `little` or `big`.
        order: &'static str,
    },
    /// Its mutexes have another form.
    #[error(
        "the program's loader is {interpreter}, not glibc's: vslice knows only glibc's layout of a \
        mutex and its owner"
    )]
    OtherLibc {
        /// `PT_INTERP`.
        interpreter: String,
    },
    /// The program is not QEMU.
    #[error("the program is not a QEMU: \"QEMU emulator version\" does not occur in its constants")]
    NotQemu,
    /// It was built so that it exports nothing.
    #[error(
        "QEMU has {symbols_count} symbols, but not the functions that take and release the BQL \
        (bql_lock_impl and bql_unlock since 9.0): it was built without modules and exports neither, \
        or it calls them otherwise"
    )]
    NoSymbol {
        /// The number of entries of `.dynsym` and `.symtab`.
        symbols_count: usize,
    },
    /// Its functions are there but look different.
    #[error(
        "{lock_symbol} at {address:#x} and {unlock_symbol} hand no common variable to functions of \
        mutexes ({lock_count} and {unlock_count} variables): this compiler laid out the code differently"
    )]
    NoCommon {
        /// The function that takes it.
        lock_symbol: &'static str,
        /// The one that releases it.
        unlock_symbol: &'static str,
        /// The link-time address of the first.
        address: u64,
        /// How many variables the first hands on.
        lock_count: usize,
        /// How many the second does.
        unlock_count: usize,
    },
    /// The functions agree on too much.
    #[error(
        "{lock_symbol} and {unlock_symbol} both hand {variables_count} variables to functions of \
        mutexes: which of these is the BQL is not known"
    )]
    Ambiguous {
        /// The function that takes it.
        lock_symbol: &'static str,
        /// The one that releases it.
        unlock_symbol: &'static str,
        /// How many there are.
        variables_count: usize,
    },
    /// The program has no writable segment.
    #[error("the program has no writable segment")]
    NoData,
    /// The kernel does not say where the program is.
    #[error(
        "/proc/{pid}/auxv has no entry point (AT_ENTRY): where the program was loaded is unknown"
    )]
    NoEntry {
        /// The process.
        pid: Tid,
    },
    /// The process runs something else than its file.
    #[error(
        "the memory of process {pid} at {address:#x} is not {symbol} of its executable file: it was \
        not loaded where its auxiliary vector says, or a debugger has changed it"
    )]
    OtherCode {
        /// The process.
        pid: Tid,
        /// The address at which the function should be.
        address: u64,
        /// The function.
        symbol: String,
    },
    /// The word at the address is not a mutex.
    #[error("the word at {address:#x} is {word}, but a mutex is 0, 1 or 2: this is not the BQL")]
    NotALock {
        /// The supposed BQL.
        address: u64,
        /// The value of the word.
        word: u32,
    },
    /// The mutex found has a strange owner.
    #[error(
        "the owner of the mutex at {address:#x} is {owner}, which is none of the {threads_count} \
        threads of process {pid}: this is not the BQL"
    )]
    NotAnOwner {
        /// The supposed BQL.
        address: u64,
        /// The value at the place of a mutex's owner.
        owner: u32,
        /// The process.
        pid: Tid,
        /// The number of its threads.
        threads_count: usize,
    },
}

/// What a failed read asks for.
fn advice(path: &Path, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root, or with CAP_SYS_PTRACE",
        io::ErrorKind::NotFound if path.starts_with("/proc") => {
            "; there is no such process (any more)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests;
