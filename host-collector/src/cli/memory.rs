//! What the C library's allocator is asked for.

/// A block that is larger has a mapping of its own.
#[cfg(target_env = "gnu")]
const MAPPED_FROM_BYTES: libc::c_int = 128 << 10;

/// Has blocks of events give their memory back when they are done with.
///
/// Some threads make them and another is done with them. glibc keeps the room of each in the arena of the thread that made
/// it: where a block was given back once, it takes later ones of that size from an arena, unless it has been told from
/// which size on not to (mallopt(3), `M_MMAP_THRESHOLD`).
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the standard library knows no allocator's options")]
pub(super) fn give_blocks_back() {
    // SAFETY: mallopt(3) takes two numbers, and the allocator's own lock while it changes its options.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES) };
}

/// As other libraries do by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_blocks_back() {}
