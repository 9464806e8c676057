//! The C library's locks and a mapped file, as QEMU uses them.
#![expect(
    unsafe_code,
    reason = "pthread mutexes and conditions by libc, and memory that is mapped"
)]

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::time::Duration;

const PAGE_BYTES: usize = 4096;

/// A pthread mutex of the default kind, which is QEMU's `QemuMutex` (qemu:
/// util/qemu-thread-posix.c). In a box, because it must not move once it has been used.
#[derive(Debug)]
pub(super) struct Lock {
    raw: Box<UnsafeCell<libc::pthread_mutex_t>>,
}

// SAFETY: all access to `raw` is by pthread_mutex_* and pthread_cond_*, which are made for several
// threads at once.
unsafe impl Sync for Lock {}
// SAFETY: the mutex is in a box of its own, so that moving `Lock` does not move it; glibc keeps the
// owner's thread id in it only while it is locked, and then `LockGuard` borrows it.
unsafe impl Send for Lock {}

/// A [`Lock`] that this thread holds.
#[derive(Debug)]
pub(super) struct LockGuard<'a> {
    lock: &'a Lock,
    /// A mutex is unlocked by the thread that locked it: raw pointers keep this from being `Send`.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Lock {
    pub(super) fn new() -> Lock {
        Lock { raw: Box::new(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)) }
    }

    pub(super) fn lock(&self) -> LockGuard<'_> {
        // SAFETY: `raw` was initialised by PTHREAD_MUTEX_INITIALIZER and has not moved since.
        let result = unsafe { libc::pthread_mutex_lock(self.raw.get()) };
        // A mutex of the default kind has no other results, pthread_mutex_lock(3).
        assert_eq!(result, 0, "a thread of this program locks no lock twice");
        LockGuard { lock: self, _not_send: std::marker::PhantomData }
    }

    /// Of the word that glibc passes to futex(2): `__lock`, the first of the mutex.
    pub(super) fn address(&self) -> u64 {
        self.raw.get().addr() as u64
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: this thread has locked it, in `Lock::lock`, and the guard cannot be sent.
        let result = unsafe { libc::pthread_mutex_unlock(self.lock.raw.get()) };
        debug_assert_eq!(result, 0);
    }
}

/// Which clock a condition's time limits are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// The clock of a condition without attributes: `CLOCK_REALTIME`.
    Default,
    Monotonic,
}

/// A pthread condition.
#[derive(Debug)]
pub(super) struct Condition {
    raw: Box<UnsafeCell<libc::pthread_cond_t>>,
}

// SAFETY: as for `Lock`.
unsafe impl Sync for Condition {}
// SAFETY: as for `Lock`: it is in a box, and whoever waits at it borrows it.
unsafe impl Send for Condition {}

impl Condition {
    pub(super) fn new(clock: Clock) -> Condition {
        let condition =
            Condition { raw: Box::new(UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER)) };
        if clock == Clock::Monotonic {
            condition.initialise_monotonic();
        }
        condition
    }

    fn initialise_monotonic(&self) {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_condattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: `attributes` points to room for one pthread_condattr_t.
        unsafe { libc::pthread_condattr_init(attributes) };
        // SAFETY: `attributes` was initialised by the line above.
        let result = unsafe { libc::pthread_condattr_setclock(attributes, libc::CLOCK_MONOTONIC) };
        assert_eq!(result, 0, "CLOCK_MONOTONIC is one of the two clocks that it takes");
        // SAFETY: nobody waits at `raw`: `new` has not returned it to anybody yet.
        let result = unsafe { libc::pthread_cond_init(self.raw.get(), attributes) };
        assert_eq!(result, 0, "glibc allocates nothing for a condition");
    }

    pub(super) fn wait(&self, guard: &mut LockGuard<'_>) {
        // SAFETY: both are initialised, and this thread holds the lock: it has the guard.
        let result = unsafe { libc::pthread_cond_wait(self.raw.get(), guard.lock.raw.get()) };
        debug_assert_eq!(result, 0);
    }

    /// Waits on the monotonic clock; that the time is over is no error.
    pub(super) fn wait_for(
        &self,
        guard: &mut LockGuard<'_>,
        duration: Duration,
    ) -> Result<(), Errno> {
        let until = clock_gettime(ClockId::CLOCK_MONOTONIC)? + TimeSpec::from(duration);
        let (condition, lock) = (self.raw.get(), guard.lock.raw.get());
        // SAFETY: both are initialised, this thread holds the lock, and `until` outlives the call.
        let result = unsafe { libc::pthread_cond_timedwait(condition, lock, until.as_ref()) };
        match result {
            0 | libc::ETIMEDOUT => Ok(()),
            number => Err(Errno::from_raw(number)),
        }
    }

    pub(super) fn signal(&self) {
        // SAFETY: the condition is initialised.
        let result = unsafe { libc::pthread_cond_signal(self.raw.get()) };
        debug_assert_eq!(result, 0);
    }

    /// Of its first byte.
    pub(super) fn address(&self) -> u64 {
        self.raw.get().addr() as u64
    }
}

/// A file in memory of which no page is there until it is touched.
#[derive(Debug)]
pub(super) struct MappedFile {
    address: NonNull<c_void>,
    size_bytes: usize,
}

// SAFETY: the mapping is read-only and stays until it is dropped.
unsafe impl Sync for MappedFile {}
// SAFETY: munmap may be called by any thread.
unsafe impl Send for MappedFile {}

impl MappedFile {
    /// Maps a file of at least this size, and drops what the kernel has of it, which has to be
    /// clean: dirty pages stay, posix_fadvise(2).
    pub(super) fn new(file: &File, size_bytes: usize) -> Result<MappedFile, Errno> {
        let length = NonZeroUsize::new(size_bytes).ok_or(Errno::EINVAL)?;
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        // SAFETY: the kernel chooses the address, so that nothing that exists is mapped over.
        let address =
            unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0) }?;
        let mapped = MappedFile { address, size_bytes };
        // No pages ahead: each has its own fault.
        // SAFETY: the range is the mapping's, and the advice changes no contents.
        unsafe { madvise(address, size_bytes, MmapAdvise::MADV_RANDOM) }?;
        Ok(mapped)
    }

    /// Whether the page is in memory, mincore(2): whoever touches it then does not wait for the disk.
    pub(super) fn is_resident(&self, page: usize) -> Result<bool, Errno> {
        let offset = page * PAGE_BYTES;
        assert!(offset < self.size_bytes, "the file has no page {page}");
        // SAFETY: `offset` is below the mapping's size.
        let address = unsafe { self.address.cast::<u8>().add(offset) };
        let mut residency = 0_u8;
        // SAFETY: the page is in the mapping, and the kernel writes one byte for one page.
        let result =
            unsafe { libc::mincore(address.as_ptr().cast(), PAGE_BYTES, &raw mut residency) };
        Errno::result(result)?;
        Ok(residency & 1 != 0)
    }

    /// Reads the first byte of a page.
    ///
    /// # Panics
    /// If the file has no such page.
    pub(super) fn touch(&self, page: usize) -> u8 {
        let offset = page * PAGE_BYTES;
        assert!(offset < self.size_bytes, "the file has no page {page}");
        // SAFETY: `offset` is below the mapping's size.
        let pointer = unsafe { self.address.cast::<u8>().add(offset) };
        // SAFETY: the byte is in the mapping, which lives as long as `self`; nobody cuts the file
        // off, which is in the process's own directory.
        unsafe { pointer.read_volatile() }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it.
        let _ = unsafe { munmap(self.address, self.size_bytes) };
    }
}
