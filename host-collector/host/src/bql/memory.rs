//! The BQL in a running process.

use super::BqlError;
use super::elf::{Image, LinkTimeBql, LockFunction};
use crate::procfs;
use object::ReadCache;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vslice_core::units::Tid;
use vslice_trace::lock::{Bql, ExeData};

/// How long the lock is looked at for an owner. An idle QEMU holds it for some microseconds at each
/// timer, a hundred times a second or so: long enough to see that, if one looks without a pause.
const LOOK_TIME: Duration = Duration::from_millis(50);

/// `AT_ENTRY` of the auxiliary vector, getauxval(3): the program's entry point in memory.
const AT_ENTRY: u64 = 9;
/// No kernel's auxiliary vector is as long: it has some twenty entries of 16 bytes.
const AUXV_BYTES_MAX: usize = 4096;

/// Finds the BQL of a running QEMU and checks it. Keeps the caller's pCPU busy for up to 50 ms.
///
/// # Errors
/// [`BqlError`].
pub fn locate(pid: Tid) -> Result<Bql, BqlError> {
    let (found, bias) =
        with_image(pid, |image| Ok((image.find()?, load_bias(pid, image.entry())?)))?;
    let path = proc_path(pid, "mem");
    let memory = File::open(&path).map_err(|source| BqlError::Read { path, source })?;
    for function in &found.functions {
        check_code(pid, &memory, function, bias)?;
    }
    let address = found.address.wrapping_add(bias);
    let (start, mut looks_count) = (Instant::now(), 0);
    let owner_seen = loop {
        looks_count += 1;
        let owner = look(pid, &memory, address)?;
        if owner.is_some() || start.elapsed() >= LOOK_TIME {
            break owner;
        }
    };
    let [symbol, unlock_symbol] = found.functions.map(|function| function.symbol.to_owned());
    Ok(Bql { address, symbol, unlock_symbol: Some(unlock_symbol), owner_seen, looks_count })
}

/// Finds the BQL in an executable on disk, as it was linked.
///
/// # Errors
/// [`BqlError`].
pub fn find_in_file(path: &Path) -> Result<LinkTimeBql, BqlError> {
    with_file(path.to_owned(), |image| image.find())
}

/// The addresses of a running program's variables, whether or not its BQL is found.
///
/// # Errors
/// [`BqlError`].
pub fn exe_data(pid: Tid) -> Result<ExeData, BqlError> {
    with_image(pid, |image| {
        let bias = load_bias(pid, image.entry())?;
        let ExeData { start, end } = image.writable().ok_or(BqlError::NoData)?;
        Ok(ExeData { start: start.wrapping_add(bias), end: end.wrapping_add(bias) })
    })
}

/// Reads the executable through `/proc/PID/exe`, which is the file that runs even if another one
/// has its name by now, or if the process sees other mounts. Only what is needed of it is read.
fn with_image<T>(
    pid: Tid,
    use_image: impl FnOnce(&Image<'_, &ReadCache<File>>) -> Result<T, BqlError>,
) -> Result<T, BqlError> {
    with_file(proc_path(pid, "exe"), use_image)
}

fn with_file<T>(
    path: PathBuf,
    use_image: impl FnOnce(&Image<'_, &ReadCache<File>>) -> Result<T, BqlError>,
) -> Result<T, BqlError> {
    let file = File::open(&path).map_err(|source| BqlError::Read { path, source })?;
    let cache = ReadCache::new(file);
    use_image(&Image::parse(&cache)?)
}

/// By how much the program lies higher than it was linked: 0 unless it is position-independent.
///
/// The kernel tells the process its entry point in memory. To find the executable among the
/// mappings instead would be to compare names, which mounts and replaced files make ambiguous.
fn load_bias(pid: Tid, link_entry: u64) -> Result<u64, BqlError> {
    let path = proc_path(pid, "auxv");
    let auxv = fs::read(&path).map_err(|source| BqlError::Read { path, source })?;
    let entry = entry_point(&auxv).ok_or(BqlError::NoEntry { pid })?;
    Ok(entry.wrapping_sub(link_entry))
}

/// The entry point in an auxiliary vector: pairs of key and value of 8 bytes each, in the byte order
/// of the machine, which [`Image::parse`] has found to be x86-64.
pub(super) fn entry_point(auxv: &[u8]) -> Option<u64> {
    let auxv = &auxv[..auxv.len().min(AUXV_BYTES_MAX)];
    auxv.as_chunks::<16>().0.iter().find_map(|pair| {
        let word = |at: usize| pair[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        (word(0)? == AT_ENTRY).then(|| word(8))?
    })
}

/// That the load bias is right: the process has the function where the file says.
pub(super) fn check_code(
    pid: Tid,
    memory: &File,
    function: &LockFunction,
    bias: u64,
) -> Result<(), BqlError> {
    let address = function.address.wrapping_add(bias);
    let mut code = vec![0; function.code.len()];
    read_memory(pid, memory, address, &mut code)?;
    if code == function.code {
        return Ok(());
    }
    Err(BqlError::OtherCode { pid, address, symbol: function.symbol.to_owned() })
}

/// Looks at the mutex once: its owner, if it has one.
pub(super) fn look(pid: Tid, memory: &File, address: u64) -> Result<Option<Tid>, BqlError> {
    let mut mutex = [0; MUTEX_BYTES];
    read_memory(pid, memory, address, &mut mutex)?;
    let (word, owner) = lock_and_owner(&mutex);
    if word > 2 {
        return Err(BqlError::NotALock { address, word });
    }
    if owner == 0 {
        return Ok(None);
    }
    // After the look: a thread that held the lock then may be younger than the list otherwise.
    let path = proc_path(pid, "task");
    let tids = procfs::tids(pid).map_err(|source| BqlError::Read { path, source })?;
    // A process in a pid namespace of its own knows its threads by other ids than this one does.
    match tids.iter().find(|tid| own_id(pid, **tid) == Some(owner)) {
        Some(tid) => Ok(Some(*tid)),
        None => Err(BqlError::NotAnOwner { address, owner, pid, threads_count: tids.len() }),
    }
}

/// `__lock`, `__count` and `__owner` of `struct __pthread_mutex_s` on x86-64 (glibc:
/// sysdeps/x86/nptl/bits/struct_mutex.h).
const MUTEX_BYTES: usize = 12;

/// The first and the third word of a mutex.
pub(super) fn lock_and_owner(mutex: &[u8; MUTEX_BYTES]) -> (u32, u32) {
    let [a, b, c, d, .., e, f, g, h] = *mutex;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// What gettid(2) returns to the thread: the last id of `NSpid`, proc_pid_status(5).
fn own_id(pid: Tid, tid: Tid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().last()?.parse().ok()
}

fn read_memory(pid: Tid, memory: &File, address: u64, into: &mut [u8]) -> Result<(), BqlError> {
    let read = memory.read_exact_at(into, address);
    read.map_err(|source| BqlError::Read { path: proc_path(pid, "mem"), source })
}

fn proc_path(pid: Tid, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}
