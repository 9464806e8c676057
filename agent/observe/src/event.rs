//! What a tracepoint of the kernel's block layer said, as a value.

use vslice_wire::{BlockOperation, GuestTicks, ObservedFlags};

/// One event of the guest's block layer. Which of its fields mean something, its kind says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockTrace {
    /// When it was.
    pub time: GuestTicks,
    /// The vCPU on which it was.
    pub vcpu: u16,
    /// The number of the disk, as `ObservedDevice` says it: of the whole disk, also where the kernel
    /// names a partition.
    pub device: u16,
    /// The number of the thread that ran, as `ObservedTask` says it. For what is queued it is who
    /// asked; for all else it is whoever had the vCPU.
    pub task: u32,
    /// The kernel's number of that thread: its task may have another name by its next event.
    pub thread: u32,
    /// What happened.
    pub kind: BlockTraceKind,
    /// The first of its sectors of 512 bytes, on the whole disk, as the kernel says it. Kernels before
    /// 5.8 say 2^64 - 1 of a flush, later ones 0 where it is issued.
    pub sector: u64,
    /// How many sectors it has. Of a part that is completed, how many that part has.
    pub sectors: u32,
    /// What is done, and how.
    pub rwbs: Rwbs,
}

/// What happened, by the kernel's tracepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockTraceKind {
    /// `block_bio_queue`: somebody asked for it.
    Queue,
    /// `block_bio_remap`: it was sent on to this device and sector from another. It may be sent on once more
    /// (from a partition to its disk), and be queued there after it: at once and by the same thread, or by a
    /// kworker once its control group may (linux: block/blk-throttle.c). Or it is not queued there (md, and
    /// NVMe with several paths: `bio_set_flag(bio, BIO_TRACE_COMPLETION)` in block/blk-core.c).
    Remap {
        /// The sector before, if that was a partition of the same disk.
        from: Option<u64>,
    },
    /// `block_bio_complete` with an error: if it was not issued, it never will be. Who may not wait
    /// for a tag (io_uring, `RWF_NOWAIT`) is refused so, and asks again. A filter `error != 0` keeps
    /// all others out of the rings.
    Refused,
    /// `block_rq_issue`: the driver got it.
    Issue,
    /// `block_rq_requeue`: the driver gave it back.
    Requeue,
    /// `block_rq_complete`: these of its sectors are done, with 0 or the negated errno.
    Complete {
        /// 0, or the negated errno.
        result: i32,
    },
}

/// What the kernel's letters say of a bio or request (linux: kernel/trace/blktrace.c,
/// `blk_fill_rwbs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rwbs {
    /// What it does. Passthrough requests are [`BlockOperation::Other`], as are writes of zeroes.
    pub operation: BlockOperation,
    /// Those of the kernel's flags that vslice has.
    pub flags: ObservedFlags,
}

impl Rwbs {
    /// What `letters` say; they end at the first zero, or with the array.
    ///
    /// The operation comes after one `F` for `REQ_PREFLUSH`, and an `F` after it is `REQ_FUA`. An `F`
    /// that no operation follows is a flush itself, which says neither.
    #[must_use]
    pub fn of_letters(letters: &[u8]) -> Rwbs {
        let end = letters.iter().position(|letter| *letter == 0).unwrap_or(letters.len());
        let letters = &letters[..end];
        let (preflush, letters) = match letters {
            [b'F', rest @ ..] if begins(rest) => (ObservedFlags::PREFLUSH, rest),
            _ => (ObservedFlags::default(), letters),
        };
        let (operation, rest) = operation(letters);
        let flags = rest.iter().fold(preflush, |flags, letter| {
            flags.with(match letter {
                b'F' => ObservedFlags::FUA,
                b'A' => ObservedFlags::READ_AHEAD,
                b'S' => ObservedFlags::SYNC,
                b'M' => ObservedFlags::META,
                _ => ObservedFlags::default(),
            })
        });
        Rwbs { operation, flags }
    }
}

/// Whether an operation begins here: a lone flush may have flags after it, and those are none.
fn begins(letters: &[u8]) -> bool {
    matches!(letters.first(), Some(b'R' | b'W' | b'D' | b'F' | b'N' | b'Z'))
}

/// The operation, and the letters of its flags.
fn operation(letters: &[u8]) -> (BlockOperation, &[u8]) {
    match letters {
        [b'R', rest @ ..] => (BlockOperation::Read, rest),
        // Secure erasure. No flag is an `E`.
        [b'D', b'E', rest @ ..] => (BlockOperation::Other, rest),
        // Zeroes, which older kernels call `N`. No flag is a `Z`.
        [b'W', b'Z', rest @ ..] => (BlockOperation::Other, rest),
        [b'W', rest @ ..] => (BlockOperation::Write, rest),
        [b'D', rest @ ..] => (BlockOperation::Discard, rest),
        [b'F', rest @ ..] => (BlockOperation::Flush, rest),
        // Zones: append, reset, finish, open, close (before they had letters, `N`).
        [b'Z', _, rest @ ..] => (BlockOperation::Other, rest),
        [_, rest @ ..] => (BlockOperation::Other, rest),
        [] => (BlockOperation::Other, letters),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_an_operation_between_flags() {
        const NONE: ObservedFlags = ObservedFlags(0);
        const SYNC: ObservedFlags = ObservedFlags::SYNC;
        let of = |letters: &str| {
            let rwbs = Rwbs::of_letters(letters.as_bytes());
            (rwbs.operation, rwbs.flags)
        };
        assert_eq!(of("R"), (BlockOperation::Read, NONE));
        assert_eq!(of("RA"), (BlockOperation::Read, ObservedFlags::READ_AHEAD));
        assert_eq!(of("RSM"), (BlockOperation::Read, SYNC.with(ObservedFlags::META)));
        assert_eq!(of("WFS"), (BlockOperation::Write, SYNC.with(ObservedFlags::FUA)));
        assert_eq!(of("FWS"), (BlockOperation::Write, SYNC.with(ObservedFlags::PREFLUSH)));
        let both = SYNC.with(ObservedFlags::PREFLUSH).with(ObservedFlags::FUA);
        assert_eq!(of("FWFSM"), (BlockOperation::Write, both.with(ObservedFlags::META)));
        assert_eq!(of("FF"), (BlockOperation::Flush, ObservedFlags::PREFLUSH));
        assert_eq!(of("F"), (BlockOperation::Flush, NONE));
        assert_eq!(of("FS"), (BlockOperation::Flush, SYNC));
        assert_eq!(of("D"), (BlockOperation::Discard, NONE));
        assert_eq!(of("DS"), (BlockOperation::Discard, SYNC));
        assert_eq!(of("DE"), (BlockOperation::Other, NONE));
        assert_eq!(of("ZAS"), (BlockOperation::Other, SYNC));
        assert_eq!(of("WZS"), (BlockOperation::Other, SYNC));
        assert_eq!(of("N"), (BlockOperation::Other, NONE));
        assert_eq!(of(""), (BlockOperation::Other, NONE));
    }

    #[test]
    fn letters_end_at_the_first_zero() {
        assert_eq!(Rwbs::of_letters(b"WS\0FAFA"), Rwbs::of_letters(b"WS"));
        assert_eq!(Rwbs::of_letters(&[0; 8]), Rwbs::of_letters(b""));
    }
}
