//! The BQL in the executable file: from bytes to a link-time address, no process involved.

use super::BqlError;
use object::ReadRef;
use object::elf::{EM_X86_64, FileHeader64, PF_R, PF_W, PF_X, PT_GNU_RELRO, PT_INTERP, PT_LOAD};
use object::endian::{Endian, Endianness};
use object::read::elf::{FileHeader, ProgramHeader, Sym};
use vslice_trace::lock::ExeData;

/// The functions that take the BQL, the newer first: QEMU 9.0 renamed it.
const SYMBOLS: [&str; 2] = ["bql_lock_impl", "qemu_mutex_lock_iothread_impl"];

/// How much of the function is searched. In the builds seen so far the call stands 68 bytes into
/// it; a longer search would leave the function.
const SCAN_BYTES_MAX: u64 = 160;

/// What `-version` prints first (qemu: system/vl.c, `version`).
const QEMU_MARK: &[u8] = b"QEMU emulator version";

/// A whole loader's path; PATH_MAX of Linux.
const INTERPRETER_BYTES_MAX: u64 = 4096;

/// The BQL as the linker placed it. Addresses are link-time addresses, before the file is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTimeBql {
    /// The address of the lock.
    pub address: u64,
    /// The exported function whose instructions name it.
    pub symbol: String,
    /// The address of that function.
    pub code_address: u64,
    /// Its first bytes, at most 160: those that were searched.
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
        let symbols = self.exported(&SYMBOLS)?;
        let Some((symbol, code_address, size_bytes)) = symbols.found else {
            let count = symbols.count;
            return Err(if self.is_qemu() {
                BqlError::NoSymbol { symbols_count: count }
            } else {
                BqlError::NotQemu
            });
        };
        let data = self.writable().ok_or(BqlError::NoData)?;
        let code = self.code(code_address, size_bytes);
        match lock_argument(code, code_address, data) {
            Some(address) => Ok(LinkTimeBql {
                address,
                symbol: symbol.to_owned(),
                code_address,
                code: code.to_vec(),
            }),
            None => Err(BqlError::NoPair {
                symbol: symbol.to_owned(),
                address: code_address,
                scanned_bytes: code.len(),
            }),
        }
    }

    fn loads(&self) -> impl Iterator<Item = &'data Segment> {
        self.segments.iter().filter(|segment| segment.p_type(self.endian) == PT_LOAD)
    }

    fn range(&self, segment: &Segment) -> ExeData {
        let start = segment.p_vaddr(self.endian);
        ExeData { start, end: start.saturating_add(segment.p_memsz(self.endian)) }
    }

    /// musl's mutex has its lock word second and no owner; a static program names no loader, and no
    /// symbols either.
    fn check_libc(&self) -> Result<(), BqlError> {
        let names = |segment: &&Segment| segment.p_type(self.endian) == PT_INTERP;
        let Some(segment) = self.segments.iter().find(names) else { return Ok(()) };
        let (offset, size_bytes) = segment.file_range(self.endian);
        let path = self.data.read_bytes_at(offset, size_bytes.min(INTERPRETER_BYTES_MAX));
        let path = String::from_utf8_lossy(path.unwrap_or_default());
        let path = path.trim_end_matches('\0');
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.starts_with("ld-linux") {
            return Ok(());
        }
        Err(BqlError::OtherLibc { interpreter: vslice_core::text::harmless(path) })
    }

    /// The first of `names` that the program defines for others.
    fn exported(&self, names: &[&'static str]) -> Result<Exported, BqlError> {
        let sections = self.header.sections(self.endian, self.data)?;
        let table = sections.symbols(self.endian, self.data, object::elf::SHT_DYNSYM)?;
        let mut found: Option<(usize, u64, u64)> = None;
        for symbol in table.iter() {
            let is_defined = symbol.st_shndx(self.endian) != object::elf::SHN_UNDEF;
            // A name that cannot be read is not one of those.
            let Ok(name) = table.symbol_name(self.endian, symbol) else { continue };
            let Some(rank) = names.iter().position(|wanted| wanted.as_bytes() == name) else {
                continue;
            };
            if is_defined && found.is_none_or(|(best, ..)| rank < best) {
                let (value, size) = (symbol.st_value(self.endian), symbol.st_size(self.endian));
                found = Some((rank, value, size));
            }
        }
        let found = found.map(|(rank, value, size)| (names[rank], value, size));
        Ok(Exported { found, count: table.len() })
    }

    /// The bytes of a function in the file, as many as are searched.
    fn code(&self, address: u64, size_bytes: u64) -> &'data [u8] {
        let wanted = if size_bytes == 0 { SCAN_BYTES_MAX } else { size_bytes.min(SCAN_BYTES_MAX) };
        let executable = self.loads().filter(|load| load.p_flags(self.endian) & PF_X != 0);
        for load in executable {
            let (offset, file_bytes) = load.file_range(self.endian);
            let Some(skip) = address.checked_sub(load.p_vaddr(self.endian)) else { continue };
            let Some(left) = file_bytes.checked_sub(skip) else { continue };
            let Some(at) = offset.checked_add(skip) else { continue };
            return self.data.read_bytes_at(at, wanted.min(left)).unwrap_or_default();
        }
        &[]
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

struct Exported {
    /// Name, address, size in bytes.
    found: Option<(&'static str, u64, u64)>,
    count: usize,
}

/// The variable whose address `code` loads into the first argument directly before a call:
///
/// ```text
/// 48 8d 3d DISP32    lea DISP32(%rip),%rdi
/// ff d1              call *%rcx               or another form of call
/// ```
///
/// It must be a variable: what the function hands to others, as the texts of its assertion, is not.
fn lock_argument(code: &[u8], code_address: u64, data: ExeData) -> Option<u64> {
    const LEA_BYTES: usize = 7;
    (0..code.len()).find_map(|at| {
        let rest = code.get(at..)?;
        let displacement: [u8; 4] =
            rest.strip_prefix(&[0x48, 0x8d, 0x3d])?.first_chunk().copied()?;
        if !is_call(rest.get(LEA_BYTES..)?) {
            return None;
        }
        let next = code_address.checked_add(u64::try_from(at + LEA_BYTES).ok()?)?;
        let address = next.checked_add_signed(i64::from(i32::from_le_bytes(displacement)))?;
        // A mutex is words.
        (data.contains(address) && address.is_multiple_of(4)).then_some(address)
    })
}

/// Intel SDM volume 2, CALL: `call rel32`, `call *reg` for the eight registers without and with a
/// prefix, and `call *disp32(%rip)`.
fn is_call(code: &[u8]) -> bool {
    matches!(code, [0xe8, ..] | [0xff, 0xd0..=0xd7 | 0x15, ..] | [0x41, 0xff, 0xd0..=0xd7, ..])
}
