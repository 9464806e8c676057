//! Memory whose pages another thread of this process brings, when it likes: userfaultfd(2).
//!
//! Whoever touches a page first sleeps in the kernel's page fault handler until the page is brought
//! (linux: fs/userfaultfd.c, `handle_userfault`), as a vCPU does whose guest memory is not there. No
//! disk and no page cache has a part in it.
#![expect(unsafe_code, reason = "userfaultfd(2) and memory that is mapped")]

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;

const PAGE_BYTES: usize = 4096;

/// What a page holds that was brought, so that it is known for one.
const BROUGHT: u8 = 0xb7;

/// Only faults of user space, which need no privilege (`UFFD_USER_MODE_ONLY`, Linux 5.11).
const USER_MODE_ONLY: libc::c_int = 1;

/// `UFFD_API` and `UFFD_EVENT_PAGEFAULT` of linux/userfaultfd.h, and a mode of `UFFDIO_REGISTER`.
const API: u64 = 0xaa;
const EVENT_PAGE_FAULT: u8 = 0x12;
const REGISTER_MISSING: u64 = 1;

/// `struct uffdio_api`.
#[repr(C)]
#[derive(Default)]
pub(super) struct UffdApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
#[derive(Default)]
pub(super) struct UffdRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
#[derive(Default)]
pub(super) struct UffdCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

nix::ioctl_readwrite!(uffd_api, 0xaa, 0x3f, UffdApi);
nix::ioctl_readwrite!(uffd_register, 0xaa, 0x00, UffdRegister);
nix::ioctl_readwrite!(uffd_copy, 0xaa, 0x03, UffdCopy);

/// Memory of which no page is there until [`FaultMemory::bring`] has brought it.
#[derive(Debug)]
pub(super) struct FaultMemory {
    address: NonNull<c_void>,
    size_bytes: usize,
    descriptor: File,
    /// What a page is a copy of.
    page: Box<[u8; PAGE_BYTES]>,
}

// SAFETY: the mapping is read through shared references only, and written by the kernel alone, a whole
// page at a time before anybody can read it.
unsafe impl Sync for FaultMemory {}
// SAFETY: a mapping belongs to the process, and munmap(2) may be called by any thread.
unsafe impl Send for FaultMemory {}

impl FaultMemory {
    /// Memory of so many pages.
    ///
    /// # Errors
    /// `ENOSYS` where the kernel has no userfaultfd, `EPERM` where it is not allowed, `EINVAL` before
    /// Linux 5.11, `ENOMEM`.
    pub(super) fn new(page_count: u32) -> Result<FaultMemory, Errno> {
        let size_bytes = page_count as usize * PAGE_BYTES;
        let length = NonZeroUsize::new(size_bytes).ok_or(Errno::EINVAL)?;
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY;
        // SAFETY: userfaultfd(2) takes flags only and returns a descriptor or -1.
        let number = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })?;
        let number = i32::try_from(number).map_err(|_| Errno::EBADF)?;
        // SAFETY: the descriptor was just made, and nobody else has it.
        let descriptor = unsafe { File::from_raw_fd(number) };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so that nothing that exists is mapped over.
        let address = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }?;
        let page = Box::new([BROUGHT; PAGE_BYTES]);
        let memory = FaultMemory { address, size_bytes, descriptor, page };
        memory.register()?;
        Ok(memory)
    }

    fn register(&self) -> Result<(), Errno> {
        let mut api = UffdApi { api: API, ..UffdApi::default() };
        // SAFETY: `api` has the layout of struct uffdio_api and outlives the call.
        unsafe { uffd_api(self.descriptor.as_raw_fd(), &raw mut api) }?;
        let (start, len) = (self.address.as_ptr().addr() as u64, self.size_bytes as u64);
        let mut register = UffdRegister { start, len, mode: REGISTER_MISSING, ioctls: 0 };
        // SAFETY: `register` has the layout of struct uffdio_register, its range is this mapping's.
        unsafe { uffd_register(self.descriptor.as_raw_fd(), &raw mut register) }.map(drop)
    }

    /// Reads the first byte of a page, asleep until it is brought; whether it was brought by
    /// [`FaultMemory::bring`].
    ///
    /// # Panics
    /// If there is no such page.
    pub(super) fn touch(&self, page: usize) -> bool {
        let offset = page * PAGE_BYTES;
        assert!(offset < self.size_bytes, "there is no page {page}");
        // SAFETY: `offset` is below the mapping's size.
        let pointer = unsafe { self.address.cast::<u8>().add(offset) };
        // SAFETY: the byte is in the mapping, which lives as long as `self`.
        unsafe { pointer.read_volatile() == BROUGHT }
    }

    /// The address that somebody waits for, if somebody does; it waits on until [`FaultMemory::bring`].
    ///
    /// # Errors
    /// What read(2) says, other than that nobody waits.
    pub(super) fn wanted(&self) -> Result<Option<u64>, io::Error> {
        // struct uffd_msg: the event in the first byte, of a page fault the address in the third word, as
        // this machine keeps it, which is an x86.
        let mut message = [0_u8; 32];
        match (&self.descriptor).read(&mut message) {
            Ok(_) if message[0] == EVENT_PAGE_FAULT => {
                let word = message[16..24].try_into().map_err(io::Error::other)?;
                Ok(Some(u64::from_le_bytes(word)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings the page of this address, and wakes who waits for it.
    ///
    /// # Errors
    /// What ioctl(2) says.
    pub(super) fn bring(&self, address: u64) -> Result<(), Errno> {
        let mut copy = UffdCopy {
            dst: address & !(PAGE_BYTES as u64 - 1),
            src: self.page.as_ptr().addr() as u64,
            len: PAGE_BYTES as u64,
            ..UffdCopy::default()
        };
        // SAFETY: `copy` has the layout of struct uffdio_copy; the kernel checks that the destination
        // is registered here, and the source is a page of this value's own.
        unsafe { uffd_copy(self.descriptor.as_raw_fd(), &raw mut copy) }.map(drop)
    }
}

impl Drop for FaultMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it.
        let _ = unsafe { munmap(self.address, self.size_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_touches_a_page_waits_until_it_is_brought() {
        let memory = match FaultMemory::new(2) {
            Ok(memory) => memory,
            Err(errno) => return eprintln!("not judged, because userfaultfd(2): {errno}"),
        };
        assert_eq!(memory.wanted().expect("nobody has touched it"), None);
        std::thread::scope(|scope| {
            let toucher = scope.spawn(|| memory.touch(1));
            let address = loop {
                match memory.wanted().expect("readable") {
                    Some(address) => break address,
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
            };
            assert_eq!(address, memory.address.as_ptr().addr() as u64 + PAGE_BYTES as u64);
            assert!(!toucher.is_finished(), "it cannot have the page yet");
            memory.bring(address).expect("it is missing");
            assert!(toucher.join().expect("it reads"), "another page");
        });
    }
}
