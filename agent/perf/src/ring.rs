//! The memory that a ring's kernel side and reader share, and copying records out of it.
//!
//! The kernel appends records and moves `data_head`; the reader copies them out and moves
//! `data_tail`, which hands the space back. Both count bytes since the start and never wrap; a
//! place in memory is the count modulo the size, a power of two. A record may wrap around the end,
//! so the reader copies `[tail, head)` into one piece and parses that. No reference into shared
//! memory outlives the copy, and there is none to what the kernel may be writing, which is all the rest. A batch costs one acquire of the head and one release of the tail.
#![expect(unsafe_code, reason = "the ring is memory that the kernel writes while it is mapped")]

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use perf_event_open_sys::bindings::perf_event_mmap_page;
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Content of a ring buffer that no kernel writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The head is behind the tail, or more than the ring's size ahead of it.
    #[error("head {head} and tail {tail} do not fit a ring of {size_bytes} bytes")]
    HeadOutOfRange {
        /// The kernel's end, in bytes since the start.
        head: u64,
        /// The reader's end.
        tail: u64,
        /// The size of the ring.
        size_bytes: usize,
    },
    /// A record that is shorter than its header or longer than what is left.
    #[error("a record of {size_bytes} bytes where {left_bytes} bytes are left")]
    RecordSize {
        /// What its header says.
        size_bytes: usize,
        /// What there is.
        left_bytes: usize,
    },
    /// A record that is too short for what its type has.
    #[error("a record of type {kind} with {size_bytes} bytes is too short")]
    RecordShort {
        /// Its type, `PERF_RECORD_*`.
        kind: u32,
        /// Its size.
        size_bytes: usize,
    },
}

/// Where in a ring of this size the bytes `[tail, head)` are, in order: the second piece is empty unless
/// they go on at the beginning. Pure.
fn pieces(size_bytes: usize, tail: u64, head: u64) -> Result<[Range<usize>; 2], RingError> {
    let range_error = RingError::HeadOutOfRange { head, tail, size_bytes };
    let filled = head.checked_sub(tail).ok_or(range_error)?;
    let filled = usize::try_from(filled).map_err(|_| range_error)?;
    if filled > size_bytes {
        return Err(range_error);
    }
    let start = place(tail, size_bytes);
    let straight = filled.min(size_bytes - start);
    Ok([start..start + straight, 0..filled - straight])
}

fn place(count: u64, size_bytes: usize) -> usize {
    if size_bytes == 0 {
        return 0;
    }
    usize::try_from(count % size_bytes as u64).expect("it is below a usize")
}

/// One ring, mapped. The event that it was mapped from may be closed; the memory stays.
#[derive(Debug)]
pub struct Ring {
    /// The control page; the data follows it.
    page: NonNull<c_void>,
    page_bytes: usize,
    data_bytes: usize,
}

// SAFETY: `page` is a mapping of the process, not of a thread, and nothing else holds the pointer.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of a perf event; `data_bytes` is a power of two of at least one page.
    ///
    /// # Errors
    /// What the kernel says: `EPERM` where locked memory is used up.
    pub fn map(event: impl AsFd, page_bytes: usize, data_bytes: usize) -> io::Result<Ring> {
        let length =
            NonZeroUsize::new(page_bytes + data_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is asked for, so the kernel chooses one where nothing is mapped.
        let page = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, event, 0) }?;
        Ok(Ring { page, page_bytes, data_bytes })
    }

    /// Appends all records that are there to `batch` and gives their space back to the kernel.
    ///
    /// # Errors
    /// When the kernel's counter cannot be: nothing was taken then.
    pub fn drain(&mut self, batch: &mut Vec<u8>) -> Result<(), RingError> {
        let (head, tail) = (self.head(), self.tail());
        // Only this side writes the tail, so it reads back what it wrote.
        let tail_at = tail.load(Ordering::Relaxed);
        // ATOMICS: acquire pairs with the kernel's barrier before it moves the head: the records
        // below it are seen whole (`perf_output_put_handle`).
        let head_at = head.load(Ordering::Acquire);
        let data = self.page.as_ptr().wrapping_byte_add(self.page_bytes).cast::<u8>();
        for piece in pieces(self.data_bytes, tail_at, head_at)? {
            let start = data.wrapping_add(piece.start);
            // SAFETY: `pieces` gives places within `data_bytes`, the size of the data area, which
            // follows the control page in the same mapping and lives as long as `self`. They are those
            // of `[tail, head)`, where the kernel does not write before the tail is moved below; and of
            // this process only this function, which has `self` to itself, reads there.
            let filled = unsafe { std::slice::from_raw_parts(start, piece.len()) };
            batch.extend_from_slice(filled);
        }
        // ATOMICS: release pairs with the kernel's reading of the tail before it overwrites: the
        // copies above are done by then.
        tail.store(head_at, Ordering::Release);
        Ok(())
    }

    fn head(&self) -> &AtomicU64 {
        self.counter(std::mem::offset_of!(perf_event_mmap_page, data_head))
    }

    fn tail(&self) -> &AtomicU64 {
        self.counter(std::mem::offset_of!(perf_event_mmap_page, data_tail))
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        let at = self.page.as_ptr().wrapping_byte_add(offset).cast::<u64>();
        // SAFETY: `offset` is that of an aligned u64 inside `perf_event_mmap_page`, which the
        // mapping begins with (it is page-aligned), and it lives as long as `self`. Kernel and
        // this process touch it only as a whole word.
        unsafe { AtomicU64::from_ptr(at) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` has mapped; every reference into it borrows from `self`.
        let result = unsafe { munmap(self.page, self.page_bytes + self.data_bytes) };
        debug_assert!(result.is_ok(), "munmap of a whole mapping: {result:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `drain` does, with any memory as the ring.
    fn copy_out(ring: &[u8], tail: u64, head: u64, batch: &mut Vec<u8>) -> Result<(), RingError> {
        for piece in pieces(ring.len(), tail, head)? {
            batch.extend_from_slice(&ring[piece]);
        }
        Ok(())
    }

    #[test]
    fn what_wraps_around_the_end_comes_out_in_one_piece() {
        let ring = [5, 6, 7, 8, 1, 2, 3, 4];
        let mut batch = Vec::new();
        copy_out(&ring, 20, 28, &mut batch).unwrap();
        assert_eq!(batch, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_head_that_cannot_be_is_an_error() {
        let error = |tail, head| copy_out(&[0; 8], tail, head, &mut Vec::new()).unwrap_err();
        for (tail, head) in [(8, 17), (8, 7), (0, u64::MAX)] {
            let expected = RingError::HeadOutOfRange { head, tail, size_bytes: 8 };
            assert_eq!(error(tail, head), expected);
        }
        assert_eq!(copy_out(&[], 3, 3, &mut Vec::new()), Ok(()));
    }

    proptest! {
        /// All the rest is the kernel's to write.
        #[test]
        fn the_pieces_are_what_is_filled_and_nothing_else(
            size_bits in 0..8_u32, tail in any::<u64>(), filled in 0..=256_u64,
        ) {
            let size_bytes = 1_usize << size_bits;
            let Some(head) = tail.checked_add(filled) else { return Ok(()) };
            let Ok(pieces) = pieces(size_bytes, tail, head) else {
                prop_assert!(filled > size_bytes as u64);
                return Ok(());
            };
            let places: Vec<usize> = pieces.into_iter().flatten().collect();
            let expected = (tail..head).map(|count| place(count, size_bytes));
            prop_assert!(places.into_iter().eq(expected));
        }

        /// A model of the kernel's side writes a long sequence into a small ring.
        #[test]
        fn every_byte_comes_out_once_and_in_order(
            start in prop_oneof![0..100u64, (u64::MAX - 5000)..(u64::MAX - 4000)],
            steps in prop::collection::vec(0..=16u64, 0..50),
        ) {
            let mut ring = [0u8; 16];
            let mut batch = Vec::new();
            let mut tail = start;
            for step in steps {
                for count in tail..tail + step {
                    ring[place(count, 16)] = count.to_le_bytes()[0];
                }
                copy_out(&ring, tail, tail + step, &mut batch).unwrap();
                tail += step;
            }
            prop_assert!(batch.iter().copied().eq((start..tail).map(|count| count.to_le_bytes()[0])));
        }
    }
}
