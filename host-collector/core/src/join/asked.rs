//! What a request asks of its disk, as the matching takes it.

use super::phase::NoPhase;
use super::placed::Placed;
use super::target::{Image, Place, Target, place};
use super::windows::Rule;
use std::ops::Range;
use vslice_wire::{BlockOperation, ObservedFlags, ObservedRequest};

const SECTOR_BYTES: u64 = 512;
/// Pieces of its image that a request has at most, for its sectors to be told.
const PIECES_MAX: usize = 256;

/// What a request asks of its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// The sectors of the host's disk that it is for; `None` if they are not known.
    pub(super) sectors: Option<Vec<Range<u64>>>,
    /// How long it is, in bytes.
    pub(super) length_bytes: u64,
    /// What of the host's I/O can be told to be its own.
    pub(super) rule: Rule,
    /// Its driver may have handed it over before it was issued for the last time.
    pub(super) may_begin_early: bool,
    /// The host's disk may be flushed for it.
    pub(super) may_flush: bool,
    /// The sectors of the guest's disk that it is for, if it is for any that may move on the host's.
    pub(super) guest_sectors: Range<u64>,
    /// From it on, these may lie elsewhere on the host's disk.
    pub(super) moves_sectors: bool,
}

/// Which of a VM's requests that may have I/O on a disk of the host are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coverage {
    /// All: no other disk of the VM is on it, and none of this one's requests is left out.
    All,
    /// All of this disk of the VM. Others of its disks are on the same disk of the host.
    Disk,
    /// Not all of this disk of the VM, but only the slow ones.
    Slow,
}

impl Asked {
    /// By the reader, of its target.
    pub(super) fn by_reader(target: &Target, placed: &Placed) -> Asked {
        let read = placed.request.read();
        Asked {
            sectors: read.and_then(|read| target.sectors_of(read.index)),
            length_bytes: target.block_bytes.into(),
            rule: Rule::Read,
            may_begin_early: false,
            may_flush: false,
            guest_sectors: 0..0,
            moves_sectors: false,
        }
    }

    /// By whoever was observed, of a disk with this image.
    pub(super) fn observed(image: &Image, coverage: Coverage, request: &ObservedRequest) -> Asked {
        let length_bytes = u64::from(request.bytes);
        let until = request.sector.saturating_add(length_bytes.div_ceil(SECTOR_BYTES));
        let sectors = image.extents.as_ref().map(|extents| {
            let from = request.sector.saturating_mul(SECTOR_BYTES);
            bounded(place(extents, from..from.saturating_add(length_bytes)))
        });
        let is_whole = sectors.as_ref().map(|place| place.is_whole && !place.sectors.is_empty());
        Asked {
            length_bytes,
            rule: rule(request, coverage, is_whole),
            // What has no place yet gets one that is nobody else's.
            sectors: sectors.map(|place| place.sectors),
            may_begin_early: request.flags.contains(ObservedFlags::REQUEUED),
            may_flush: request.operation == BlockOperation::Flush || is_flushed(request),
            guest_sectors: request.sector..until,
            moves_sectors: matches!(
                request.operation,
                BlockOperation::Discard | BlockOperation::Other
            ),
        }
    }
}

/// Of an image in very many pieces a request that is for many of them lays claim to what is between them too.
fn bounded(place: Place) -> Place {
    if place.sectors.len() <= PIECES_MAX {
        return place;
    }
    let start = place.sectors.iter().map(|piece| piece.start).min().unwrap_or(0);
    let end = place.sectors.iter().map(|piece| piece.end).max().unwrap_or(0);
    Place { sectors: Vec::from([Range { start, end }]), is_whole: false }
}

/// What can be told of a request; `is_mapped` is whether all of its sectors are known, if there is a map.
fn rule(request: &ObservedRequest, coverage: Coverage, is_mapped: Option<bool>) -> Rule {
    let has = |flag| request.flags.contains(flag);
    if has(ObservedFlags::AMBIGUOUS)
        || (coverage == Coverage::Slow && has(ObservedFlags::OVERLAPPED))
    {
        return Rule::None(NoPhase::Ambiguous);
    }
    let data = match request.operation {
        BlockOperation::Read => Rule::Read,
        BlockOperation::Write => Rule::Write,
        // Another that was quicker may have been under way.
        BlockOperation::Flush if coverage == Coverage::Slow => {
            return Rule::None(NoPhase::Ambiguous);
        }
        BlockOperation::Flush => return Rule::Flush { is_alone: coverage == Coverage::All },
        BlockOperation::Discard | BlockOperation::Other => {
            return Rule::None(NoPhase::Unmapped);
        }
    };
    match is_mapped {
        _ if is_flushed(request) && coverage == Coverage::Slow => Rule::None(NoPhase::Ambiguous),
        Some(true) if is_flushed(request) => Rule::FlushedWrite,
        _ if is_flushed(request) => Rule::None(NoPhase::Unmapped),
        Some(true) => data,
        // A hole: where its bytes will lie is not known.
        Some(false) => Rule::None(NoPhase::Unmapped),
        None if coverage == Coverage::All => data,
        None => Rule::None(NoPhase::Ambiguous),
    }
}

/// Whether a flush before or after it belongs to it (linux: block/blk-flush.c).
fn is_flushed(request: &ObservedRequest) -> bool {
    [ObservedFlags::PREFLUSH, ObservedFlags::FUA]
        .into_iter()
        .any(|flag| request.flags.contains(flag))
}
