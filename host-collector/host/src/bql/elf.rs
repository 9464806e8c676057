//! The BQL in the executable file: from bytes to a link-time address, no process involved.

use super::BqlError;
use super::code::{Callee, Function, Handed, handed, is_of_mutexes};
use super::linked::Linked;
use object::ReadRef;
use object::elf::{
    EM_X86_64, ET_EXEC, FileHeader64, PF_R, PF_W, PF_X, PT_GNU_RELRO, PT_INTERP, PT_LOAD,
};
use object::endian::{Endian, Endianness};
use object::read::elf::{FileHeader, ProgramHeader};
use std::collections::BTreeSet;
use vslice_trace::lock::ExeData;

/// The functions that take and release the BQL, the newest first: QEMU 9.0 renamed them
/// (system/cpus.c), and before 2.12 the first was no macro's (cpus.c).
const PAIRS: [[&str; 2]; 3] = [
    ["bql_lock_impl", "bql_unlock"],
    ["qemu_mutex_lock_iothread_impl", "qemu_mutex_unlock_iothread"],
    ["qemu_mutex_lock_iothread", "qemu_mutex_unlock_iothread"],
];

/// How much of a function is kept, to find it in the memory of a process.
const CODE_BYTES_MAX: u64 = 160;

/// Jumps that lead no farther than this stay in a function whose length its symbol does not tell.
const FUNCTION_BYTES: u64 = 1024;

/// A mutex has pointers in it (glibc: sysdeps/x86/nptl/bits/struct_mutex.h).
const MUTEX_ALIGNMENT: u64 = 8;

/// What `-version` prints first (qemu: system/vl.c, `version`).
const QEMU_MARK: &[u8] = b"QEMU emulator version";

/// A whole loader's path; PATH_MAX of Linux.
const INTERPRETER_BYTES_MAX: u64 = 4096;

/// The BQL as the linker placed it. Addresses are link-time addresses, before the file is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTimeBql {
    /// The address of the lock.
    pub address: u64,
    /// The function that takes it, and the one that releases it.
    pub functions: [LockFunction; 2],
}

/// A function whose instructions name the BQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockFunction {
    /// Its symbol.
    pub symbol: &'static str,
    /// Its address.
    pub address: u64,
    /// Its first bytes, at most 160.
    pub code: Vec<u8>,
}

/// Finds the BQL in a QEMU executable, given as its bytes or as anything that reads them.
///
/// # Errors
/// Every [`BqlError`] that does not need a process.
pub fn find_in_elf<'data, R: ReadRef<'data>>(data: R) -> Result<LinkTimeBql, BqlError> {
    Image::parse(data)?.find()
}

/// An executable for x86-64.
pub(super) struct Image<'data, R> {
    data: R,
    header: &'data FileHeader64<Endianness>,
    endian: Endianness,
    segments: &'data [Segment],
}

/// Every static program of glibc has this function (glibc: csu/libc-tls.c).
const STATIC_GLIBC: &str = "__libc_setup_tls";

type Segment = object::elf::ProgramHeader64<Endianness>;

impl<'data, R: ReadRef<'data>> Image<'data, R> {
    pub(super) fn parse(data: R) -> Result<Self, BqlError> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let machine = header.e_machine(endian);
        if machine != EM_X86_64 || endian.is_big_endian() {
            let order = if endian.is_big_endian() { "big" } else { "little" };
            return Err(BqlError::OtherMachine { machine, order });
        }
        let segments = header.program_headers(endian, data)?;
        Ok(Image { data, header, endian, segments })
    }

    /// The entry point as it was linked; the process has it elsewhere by the load bias.
    pub(super) fn entry(&self) -> u64 {
        self.header.e_entry(self.endian)
    }

    /// The writable part of the program as it was linked.
    pub(super) fn writable(&self) -> Option<ExeData> {
        let loads = self.loads().filter(|load| load.p_flags(self.endian) & PF_W != 0);
        let ranges = loads.map(|load| self.range(load));
        let whole =
            ranges.reduce(|a, b| ExeData { start: a.start.min(b.start), end: a.end.max(b.end) })?;
        // The loader makes this part read-only once it has relocated it: no lock is there. It is
        // the beginning of the segment (gABI: linkers place it so, to protect whole pages).
        let relro =
            self.segments.iter().find(|segment| segment.p_type(self.endian) == PT_GNU_RELRO);
        let relro_end = relro.map_or(whole.start, |segment| self.range(segment).end);
        let start = if whole.contains(relro_end) { relro_end } else { whole.start };
        Some(ExeData { start, end: whole.end })
    }

    pub(super) fn find(&self) -> Result<LinkTimeBql, BqlError> {
        self.check_libc()?;
        let linked = Linked::read(self.header, self.endian, self.data)?;
        let pair = PAIRS.iter().find_map(|[lock, unlock]| {
            Some([(*lock, linked.function(lock)?), (*unlock, linked.function(unlock)?)])
        });
        let Some(pair) = pair else {
            let symbols_count = linked.symbols_count();
            return Err(if self.is_qemu() {
                BqlError::NoSymbol { symbols_count }
            } else {
                BqlError::NotQemu
            });
        };
        if self.interpreter().is_none() && linked.function(STATIC_GLIBC).is_none() {
            return Err(BqlError::OtherLibc {
                interpreter: "none, as it is linked statically".to_owned(),
            });
        }
        let data = self.writable().ok_or(BqlError::NoData)?;
        let program = Code { image: self, linked: &linked, data };
        let [(_, lock), (_, unlock)] = pair;
        let address = program.agreed(lock, unlock, pair.map(|(symbol, _)| symbol))?;
        let functions = pair.map(|(symbol, Function { address, size_bytes })| LockFunction {
            symbol,
            address,
            code: self.code(address, size_bytes.min(CODE_BYTES_MAX)).to_vec(),
        });
        Ok(LinkTimeBql { address, functions })
    }

    fn loads(&self) -> impl Iterator<Item = &'data Segment> {
        self.segments.iter().filter(|segment| segment.p_type(self.endian) == PT_LOAD)
    }

    fn range(&self, segment: &Segment) -> ExeData {
        let start = segment.p_vaddr(self.endian);
        ExeData { start, end: start.saturating_add(segment.p_memsz(self.endian)) }
    }

    /// musl's mutex has its lock word second and no owner.
    fn check_libc(&self) -> Result<(), BqlError> {
        let Some(path) = self.interpreter() else { return Ok(()) };
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.starts_with("ld-linux") {
            return Ok(());
        }
        Err(BqlError::OtherLibc { interpreter: vslice_core::text::harmless(&path) })
    }

    /// The loader; a static program names none.
    fn interpreter(&self) -> Option<String> {
        let names = |segment: &&Segment| segment.p_type(self.endian) == PT_INTERP;
        let segment = self.segments.iter().find(names)?;
        let (offset, size_bytes) = segment.file_range(self.endian);
        let path = self.data.read_bytes_at(offset, size_bytes.min(INTERPRETER_BYTES_MAX));
        let path = String::from_utf8_lossy(path.unwrap_or_default());
        Some(path.trim_end_matches('\0').to_owned())
    }

    /// Bytes of code in the file, as many as are wanted or as there are.
    fn code(&self, address: u64, wanted: u64) -> &'data [u8] {
        let executable = self.loads().filter(|load| load.p_flags(self.endian) & PF_X != 0);
        self.bytes(executable, address, wanted)
    }

    /// The bytes at an address that these segments have in the file.
    fn bytes(
        &self,
        mut segments: impl Iterator<Item = &'data Segment>,
        address: u64,
        wanted: u64,
    ) -> &'data [u8] {
        let bytes = segments.find_map(|load| {
            let (offset, file_bytes) = load.file_range(self.endian);
            let skip = address.checked_sub(load.p_vaddr(self.endian))?;
            let left = file_bytes.checked_sub(skip)?;
            self.data.read_bytes_at(offset.checked_add(skip)?, wanted.min(left)).ok()
        });
        bytes.unwrap_or_default()
    }

    fn is_qemu(&self) -> bool {
        // Constants are in a segment of their own, or, by older linkers, in that of the code.
        let constant = |load: &&Segment| {
            let flags = load.p_flags(self.endian);
            flags & PF_R != 0 && flags & PF_W == 0
        };
        self.loads().filter(constant).any(|load| {
            let (offset, size_bytes) = load.file_range(self.endian);
            let bytes = self.data.read_bytes_at(offset, size_bytes).unwrap_or_default();
            bytes.windows(QEMU_MARK.len()).any(|window| window == QEMU_MARK)
        })
    }
}

/// The code of an executable, and what its calls and pointers lead to.
struct Code<'image, 'data, R> {
    image: &'image Image<'data, R>,
    linked: &'image Linked<'data>,
    data: ExeData,
}

impl<'data, R: ReadRef<'data>> Code<'_, 'data, R> {
    /// The one variable that both functions hand to functions of mutexes.
    ///
    /// What the two call is looked into only where they themselves name no such variable: then the
    /// compiler has made functions of their parts.
    fn agreed(
        &self,
        lock: Function,
        unlock: Function,
        [lock_symbol, unlock_symbol]: [&'static str; 2],
    ) -> Result<u64, BqlError> {
        let mut counts = [0, 0];
        for is_followed in [false, true] {
            let [taken, released] =
                [lock, unlock].map(|function| self.variables(function, is_followed));
            let common: Vec<u64> = taken.intersection(&released).copied().collect();
            match common[..] {
                [address] => return Ok(address),
                [] => counts = [taken.len(), released.len()],
                _ => {
                    let variables_count = common.len();
                    return Err(BqlError::Ambiguous {
                        lock_symbol,
                        unlock_symbol,
                        variables_count,
                    });
                }
            }
        }
        let [lock_count, unlock_count] = counts;
        let address = lock.address;
        Err(BqlError::NoCommon { lock_symbol, unlock_symbol, address, lock_count, unlock_count })
    }

    /// The variables that a function may hand to a function of mutexes. What it hands to others, as the
    /// texts of its assertions, are constants, or it is to a function of another name.
    fn variables(&self, function: Function, is_followed: bool) -> BTreeSet<u64> {
        let size_bytes =
            if function.size_bytes == 0 { FUNCTION_BYTES } else { function.size_bytes };
        let handed = handed(self, Function { size_bytes, ..function }, is_followed);
        let may_be_the_lock = |handed: &Handed| {
            let is_mutex = match &handed.callee {
                Callee::Named(name) => is_of_mutexes(name),
                Callee::Local(_) | Callee::Pointer => true,
            };
            is_mutex
                && self.data.contains(handed.address)
                && handed.address.is_multiple_of(MUTEX_ALIGNMENT)
        };
        handed.into_iter().filter(may_be_the_lock).map(|handed| handed.address).collect()
    }
}

impl<'data, R: ReadRef<'data>> super::code::Program for Code<'_, 'data, R> {
    fn code(&self, address: u64, bytes_max: u64) -> &[u8] {
        self.image.code(address, bytes_max)
    }

    fn constant_pointer(&self, address: u64) -> Option<u64> {
        if self.data.contains(address) {
            return None;
        }
        // What the loader puts there; if nothing, then what the file has, from which the loader also
        // makes packed relocations (DT_RELR).
        self.linked.pointer(address).or_else(|| {
            let bytes = self.image.bytes(self.image.loads(), address, 8).first_chunk()?;
            Some(u64::from_le_bytes(*bytes)).filter(|pointer| *pointer != 0)
        })
    }

    fn has_fixed_addresses(&self) -> bool {
        self.image.header.e_type(self.image.endian) == ET_EXEC
    }

    fn name(&self, address: u64) -> Option<&str> {
        self.linked.name(address)
    }

    fn linked_name(&self, pointer: u64) -> Option<&str> {
        self.linked.linked_name(pointer)
    }
}
