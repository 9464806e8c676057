//! How much memory something takes at most: an allocator that counts. Also of the tests of the crates above.
#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Held by whoever measures: all that the process allocates meanwhile counts.
pub(crate) static MEASURED: Mutex<()> = Mutex::new(());

struct Counting;

static NOW_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all that is asked for is asked of `System` as it is, and what that gives is passed on.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `System` gave it, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Begins with what is allocated when it is made.
pub(crate) struct Peak {
    before_bytes: usize,
}

impl Peak {
    pub(crate) fn from_now() -> Peak {
        let before_bytes = NOW_BYTES.load(Ordering::Relaxed);
        PEAK_BYTES.store(before_bytes, Ordering::Relaxed);
        Peak { before_bytes }
    }

    /// What was there beside that at most.
    pub(crate) fn bytes(&self) -> usize {
        PEAK_BYTES.load(Ordering::Relaxed) - self.before_bytes
    }
}
