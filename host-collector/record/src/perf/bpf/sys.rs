// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! `bpf(2)`: four of its commands, each one a thin function with `io::Result`.
#![expect(unsafe_code, reason = "bpf(2) has no wrapper without a C library")]

use super::assembly::Instruction;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// Commands, and types of maps and programs: include/uapi/linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROGRAM_LOAD: libc::c_int = 5;
const OBJECT_INFO: libc::c_int = 15;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const PROGRAM_TRACING: u32 = 26;
/// A tracepoint whose arguments are typed (`BPF_TRACE_RAW_TP`).
const ATTACH_TYPED_TRACEPOINT: u32 = 23;

/// Of what a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MapKind {
    /// Values by their place.
    Array = 2,
    /// For each pCPU an event that programs write to.
    PerfEvents = 4,
}

/// The verifier gives up with EAGAIN when a signal or other work is pending for its thread
/// (kernel/bpf/verifier.c, `do_check`); libbpf tries as often (tools/lib/bpf/bpf.c, `PROG_LOAD_ATTEMPTS`).
const LOAD_ATTEMPTS_COUNT: u32 = 5;

/// What the verifier says at most of why it refuses a program.
const LOG_BYTES: usize = 64 << 10;

/// The licence that the programs are loaded under. Three of the functions that they call are only for
/// GPL-compatible programs (`gpl_only` in kernel/trace/bpf_trace.c), and the
/// kernel knows which strings are (`license_is_gpl_compatible` in include/linux/license.h). It is true:
/// the SPDX line of each file here grants the GPL beside the licences of the rest.
const LICENSE: &[u8] = b"Dual MIT/GPL\0";

#[derive(Debug, Default)]
#[repr(C)]
struct MapAttributes {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries_count: u32,
}

#[derive(Debug, Default)]
#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Debug, Default)]
#[repr(C)]
struct ProgramAttributes {
    kind: u32,
    instructions_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_kind: u32,
    btf: u32,
    function_info_bytes: u32,
    function_info: u64,
    function_info_count: u32,
    line_info_bytes: u32,
    line_info: u64,
    line_info_count: u32,
    attach_type_id: u32,
    attach_object: u32,
    padding: u32,
}

#[derive(Debug, Default)]
#[repr(C)]
struct TracepointAttributes {
    name: u64,
    program: u32,
    padding: u32,
}

#[derive(Debug, Default)]
#[repr(C)]
struct InfoAttributes {
    object: u32,
    info_bytes: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[derive(Debug, Default)]
#[repr(C)]
struct ProgramInfo {
    ids_and_tag: [u32; 4],
    native_bytes: u32,
    translated_bytes: u32,
    native: u64,
    translated: u64,
    load_time_ns: u64,
    user: u32,
    maps_count: u32,
    maps: u64,
    name: [u8; 16],
    interface: u32,
    is_gpl_compatible: u32,
    namespace: [u64; 2],
    symbols_count: u32,
    lengths_count: u32,
    symbols: u64,
    lengths: u64,
}

/// A structure of bpf(2) as its attributes.
trait Attributes {}
impl Attributes for MapAttributes {}
impl Attributes for ElementAttributes {}
impl Attributes for ProgramAttributes {}
impl Attributes for TracepointAttributes {}
impl Attributes for InfoAttributes {}

fn bpf<A: Attributes>(command: libc::c_int, attributes: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes `attributes` within the size that is passed, which is that
    // of a live `repr(C)` struct of integers; addresses in it are of buffers that the callers of this
    // function hold while it runs, of the lengths that stand beside them or that the map was made with.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<A>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: bpf(2) has just returned this descriptor for a command that makes one, and nothing
    // else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn bytes_of<T>(values: &[T]) -> u32 {
    u32::try_from(size_of_val(values)).unwrap_or(u32::MAX)
}

/// Makes a map with keys of 4 bytes.
pub(super) fn make_map(kind: MapKind, value_bytes: u32, entries_count: u32) -> io::Result<OwnedFd> {
    let kind = kind as u32;
    owned(bpf(MAP_CREATE, &mut MapAttributes { kind, key_bytes: 4, value_bytes, entries_count })?)
}

/// Sets the only value of a map, which has as many bytes; programs that read it meanwhile see each byte as it was or as it is.
pub(super) fn set_value(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    set(map, &0, value.as_ptr().addr())
}

/// Sets which event programs write to on a pCPU.
pub(super) fn set_event(map: BorrowedFd<'_>, pcpu: u32, event: BorrowedFd<'_>) -> io::Result<()> {
    let event = number(event);
    set(map, &pcpu, std::ptr::from_ref(&event).addr())
}

fn set(map: BorrowedFd<'_>, key: &u32, value: usize) -> io::Result<()> {
    let key = std::ptr::from_ref(key).addr() as u64;
    let mut attributes =
        ElementAttributes { map: number(map), key, value: value as u64, ..Default::default() };
    bpf(MAP_UPDATE, &mut attributes).map(drop)
}

/// Loads a program for a typed tracepoint; the error's text has what the verifier says.
pub(super) fn load(name: &str, code: &[Instruction], attach_type_id: u32) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; LOG_BYTES];
    let mut padded = [0; 16];
    padded.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
    let attributes = |log_level, log: &mut [u8]| ProgramAttributes {
        kind: PROGRAM_TRACING,
        instructions_count: u32::try_from(code.len()).unwrap_or(u32::MAX),
        instructions: code.as_ptr().addr() as u64,
        license: LICENSE.as_ptr().addr() as u64,
        log_level,
        log_bytes: if log_level == 0 { 0 } else { bytes_of(log) },
        log: if log_level == 0 { 0 } else { log.as_mut_ptr().addr() as u64 },
        name: padded,
        attach_kind: ATTACH_TYPED_TRACEPOINT,
        attach_type_id,
        ..Default::default()
    };
    let mut loaded = bpf(PROGRAM_LOAD, &mut attributes(0, &mut log));
    for _ in 1..LOAD_ATTEMPTS_COUNT {
        match &loaded {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                loaded = bpf(PROGRAM_LOAD, &mut attributes(0, &mut log));
            }
            _ => break,
        }
    }
    match loaded {
        Ok(result) => owned(result),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
        Err(error) => {
            // Once more, to be told why.
            let _ = bpf(PROGRAM_LOAD, &mut attributes(1, &mut log));
            let text = String::from_utf8_lossy(&log);
            let text = text.trim_end_matches('\0').trim();
            let last = text.lines().rev().take(3).collect::<Vec<_>>().join(" <- ");
            Err(io::Error::new(error.kind(), format!("{error}: {last}")))
        }
    }
}

/// Runs a program at its tracepoint until the descriptor is closed.
pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attributes = TracepointAttributes { program: number(program), ..Default::default() };
    owned(bpf(RAW_TRACEPOINT_OPEN, &mut attributes)?)
}

/// Where in the kernel a program's machine code is: its first address and its length in bytes. `None`
/// where the kernel does not say, because it hides addresses or interprets programs.
pub(super) fn machine_code(program: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let (mut symbols, mut lengths) = ([0_u64; 1], [0_u32; 1]);
    let mut info = ProgramInfo {
        symbols_count: 1,
        lengths_count: 1,
        symbols: symbols.as_mut_ptr().addr() as u64,
        lengths: lengths.as_mut_ptr().addr() as u64,
        ..Default::default()
    };
    let mut attributes = InfoAttributes {
        object: number(program),
        info_bytes: u32::try_from(size_of::<ProgramInfo>()).ok()?,
        info: std::ptr::from_mut(&mut info).addr() as u64,
    };
    bpf(OBJECT_INFO, &mut attributes).ok()?;
    (symbols[0] != 0).then(|| (symbols[0], lengths[0].into()))
}
