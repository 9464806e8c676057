//! The run directory: everything that a run recorded, and the only module that knows bytes on disk.
//!
//! ```text
//! run.json              the manifest, JSON, replaced atomically (tmp + fsync + rename)
//! events-<pcpu>.vsr    HostEvent, one stream for each pCPU, in order of time
//! requests-<vm>.vsr     RequestItem: the requests of one guest and the drops between them
//! observed-<vm>.vsr     ObservedItem: the block requests that the agent observed in one guest
//! clock-<vm>.vsr        ClockSample: the clock exchanges with one guest
//! gaps-<vm>.vsr         HogGapItem: when the hogs of one guest did not run
//! samples-<vm>.vsr      SampleItem: looks at the threads of one VM, where events could not be recorded
//! stacks.vsr            StackFrames: kernel stacks as addresses, each written before its first use
//! groups.vsr            GroupItem: the paths of control groups that events name by their numbers
//! stacks.json           the same stacks as symbol names, written once at the end of a run
//! ```
//!
//! Stacks are kept twice on purpose. The addresses are streamed while the run goes on, so that a
//! crash leaves every event with its stack; the names need `/proc/kallsyms` of the same boot, so
//! they are looked up once, when the run has ended.
//!
//! # The bytes of a stream (`*.vsr`)
//!
//! All numbers are little-endian. A file is a file header, then blocks.
//!
//! ```text
//! file header, 16 bytes
//!   0  8  magic 89 56 53 52 0d 0a 1a 0a   (like PNG's: a text-mode copy breaks it visibly)
//!   8  2  format version, 6; those from 2 on are read as well: before 3 no event names a control group
//!         or tells the end of a halt, before 4 no I/O has its operation, before 5 no event tells an interrupt,
//!         before 6 no payload is packed, and events and requests have other columns
//!  10  2  stream kind, see StreamKind
//!  12  4  CRC32 (IEEE) of the 12 bytes before
//! block
//!   0  4  payload length in bytes, at most BLOCK_BYTES_MAX
//!   4  4  items in the block, at most BLOCK_ITEMS_MAX
//!   8  4  CRC32 of the 8 bytes before and of the payload
//!  12  n  payload, packed: one frame of zstd that tells the size of its content, at most BLOCK_BYTES_MAX
//! ```
//!
//! The last block of a stream whose writer finished has no items and no payload. A file without it,
//! or with anything after the last whole block, was cut off: see [`Tail`].
//!
//! A payload holds one column after the other; each column covers all items of the block, or all
//! those of one kind. No block refers to another one, so a reader may start at any block. There
//! are four encodings of a column:
//!
//! - *byte*: one byte an item;
//! - *varint*: LEB128, 7 bits a byte, low bits first, at most 10 bytes;
//! - *delta*: the wrapping difference from the item before (from 0 for the first), zigzag, varint;
//! - *runs*: pairs of varints (length of the run minus 1, value) until all items are covered.
//!
//! | stream | columns |
//! |---|---|
//! | events | parts, see `events.rs`; before 6: `events/earlier.rs` |
//! | requests | parts, see `requests.rs`; before 6: `requests/earlier.rs` |
//! | observed | kind: runs; then the columns of requests, of losses, of times, see `observed.rs` |
//! | clock | vcpu: runs; host sent: delta; guest received: delta; guest sent minus received: varint; host received minus sent: varint |
//! | gaps | vcpu: runs; start: delta; length: varint |
//! | samples | kind: runs; time: delta; of the looks: tid: delta; state: byte; call: varint; three arguments of those in a call: delta each; the block's names: count, lengths, bytes; name, counted from 1: varint; of the schedstats: tid, on pCPU, run delay, timeslices: delta each; of the gaps: length, rounds: varint each |
//! | groups | number: delta; length in bytes of those that have a path plus 1, 0 for the others: varint; the paths' bytes |
//! | stacks | id: delta; frame count: varint; frames, of all stacks in a row: delta |
//!
//! Parts are pieces of a payload that holds values of one kind each. Their lengths in bytes come first, varints, and each
//! part that is long enough begins a block of zstd.
//!
//! A change of any of this needs a new format version, a further kind of stream does not; `tests` in each file hold the bytes.

#![forbid(unsafe_code)]

mod ahead;
mod block;
mod clock;
mod column;
pub mod date;
#[cfg(feature = "decoded")]
pub mod decoded;
pub mod disk;
mod events;
pub mod evidence;
mod groups;
mod hog_gaps;
pub mod host;
pub mod image;
pub mod lock;
pub mod manifest;
pub mod memory_map;
mod merge;
pub mod observation;
mod observed;
mod pack;
pub mod quota;
pub mod recorded_disks;
mod requests;
mod run_dir;
mod samples;
mod stacks;
pub mod thread;
pub mod vmm;

pub use block::{StreamReader, StreamWriter, Tail, read_all};
pub use clock::ClockSample;
pub use column::{CodecError, ColumnReader, Columnar, StreamKind};
pub use groups::{GROUP_PATH_BYTES_MAX, GroupItem};
pub use hog_gaps::HogGapItem;
pub use merge::EventMerge;
pub use observed::ObservedItem;
pub use requests::RequestItem;
pub use run_dir::{JSON_BYTES_MAX, RESERVE, RunDir, VmName};
pub use stacks::{FRAMES_MAX, StackFrames, StackNames};

use std::path::PathBuf;

/// The version of the stream format that this module writes.
pub const FORMAT_VERSION: u16 = 6;

/// The oldest version that this module reads: what came later are kinds of items that it does not have.
pub const FORMAT_VERSION_MIN: u16 = 2;

/// The oldest version whose payloads are packed.
const FORMAT_VERSION_PACKED: u16 = 6;

/// Items in one block at most; a writer closes a block when it has this many.
pub const BLOCK_ITEMS_MAX: usize = 4096;

/// Bytes in the payload of one block at most.
pub const BLOCK_BYTES_MAX: usize = 8 << 20;

/// Why a run directory could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried, as a verb that follows "cannot".
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A thread that decoded a stream has ended before its time.
    #[error("a thread that decoded a stream of the run has panicked")]
    DecoderLost,
    /// The directory of a new run is not empty.
    #[error("{} exists and is not empty; a run needs a directory of its own", .0.display())]
    NotEmpty(PathBuf),
    /// The path is not a run directory.
    #[error("{} is not a run directory: it holds neither run.json nor a *.vsr stream", .0.display())]
    NotARun(PathBuf),
    /// The file does not begin as a stream does.
    #[error("{} is not a vslice stream", .0.display())]
    NotAStream(PathBuf),
    /// A later vslice has written it.
    #[error("{} has format version {found}, this vslice reads up to {FORMAT_VERSION}; use a newer vslice", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// An earlier vslice has written it.
    #[error("{} has format version {found}, this vslice reads from {FORMAT_VERSION_MIN} on; use the vslice that recorded it", path.display())]
    OlderFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// The stream holds another kind of items than its name says.
    #[error("{} holds a stream of kind {found}, expected {expected:?}", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// The kind in its header.
        found: u16,
        /// The kind that its name promises.
        expected: StreamKind,
    },
    /// The events of one pCPU go back in time from one block to the next.
    #[error("{} goes back in time, from {before_ns} ns to {after_ns} ns", path.display())]
    Disorder {
        /// The file.
        path: PathBuf,
        /// The time of an event.
        before_ns: u64,
        /// The earlier time of the event after it.
        after_ns: u64,
    },
    /// An earlier write to this stream failed, so no later one is tried.
    #[error("{} is incomplete: an earlier write to it failed", .0.display())]
    WriteFailedBefore(PathBuf),
    /// A VM's name cannot be part of a file name.
    #[error("{0:?} cannot name a VM: use 1 to 32 of a-z, 0-9 and '-'")]
    BadVmName(String),
    /// A JSON file does not hold what was expected.
    #[error("{} does not hold the expected JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A JSON file is larger than any that vslice writes.
    #[error("{} is larger than {limit_bytes} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
}
