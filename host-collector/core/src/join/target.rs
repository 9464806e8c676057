//! Where on the host's disk a request's data lies.

use crate::extent::Extent;
use std::ops::Range;
use vslice_spec::Pattern;
use vslice_spec::offsets::offset_of;

const SECTOR_BYTES: u64 = 512;

/// How the VMM reads its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAccess {
    /// With `O_DIRECT`: the host's I/O for a request lies within the request.
    Direct,
    /// Through the page cache: the host's I/O may be read-ahead, or not happen at all.
    Cached,
}

/// What a VM's requests read, and the image on the host that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How the VMM reads it.
    pub access: HostAccess,
    /// In which order the requests read it.
    pub pattern: Pattern,
    /// The size of a request in bytes; at least 1.
    pub block_bytes: u32,
    /// The size of what the requests read, in bytes.
    pub size_bytes: u64,
    /// The offset in the image at which that begins, in bytes.
    pub offset_bytes: u64,
    /// Where the bytes of the image lie, in order of their offsets; `None` if that is not known.
    pub extents: Option<Vec<Extent>>,
}

impl Target {
    /// The sectors of 512 bytes that the request of this index reads; `None` if that is not known
    /// of all of them.
    #[must_use]
    pub fn sectors_of(&self, index: u64) -> Option<Vec<Range<u64>>> {
        let extents = self.extents.as_ref()?;
        let offset = offset_of(self.pattern, self.block_bytes, self.size_bytes, index);
        let until = offset.saturating_add(u64::from(self.block_bytes)).min(self.size_bytes);
        let (from, until) =
            (offset.checked_add(self.offset_bytes)?, until.checked_add(self.offset_bytes)?);
        let place = place(extents, from..until);
        (place.is_whole && !place.sectors.is_empty()).then_some(place.sectors)
    }

    /// The image that it is in.
    #[must_use]
    pub(super) fn image(&self) -> Image {
        Image { access: self.access, extents: self.extents.clone() }
    }
}

/// The image of a guest's disk on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// How the VMM reads and writes it.
    pub access: HostAccess,
    /// Where the bytes of the guest's disk lie, in order of their offsets; `None` if that is not known.
    pub extents: Option<Vec<Extent>>,
}

/// Where a range of an image lies on the host's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// As much of it as is known.
    pub(super) sectors: Vec<Range<u64>>,
    /// Whether that is all of it.
    pub(super) is_whole: bool,
}

/// Where these bytes of an image lie.
pub(super) fn place(extents: &[Extent], bytes: Range<u64>) -> Place {
    let (mut sectors, mut known_bytes) = (Vec::new(), 0_u64);
    let first = extents.partition_point(|extent| end_of(extent) <= bytes.start);
    for extent in extents[first..].iter().take_while(|extent| extent.offset_bytes < bytes.end) {
        let (from, until) = (bytes.start.max(extent.offset_bytes), bytes.end.min(end_of(extent)));
        // A record may say anything.
        if until <= from {
            continue;
        }
        let place = |offset: u64| offset - extent.offset_bytes;
        sectors.push(Range {
            start: extent.sector.saturating_add(place(from) / SECTOR_BYTES),
            end: extent.sector.saturating_add(place(until).div_ceil(SECTOR_BYTES)),
        });
        known_bytes = known_bytes.saturating_add(until - from);
    }
    Place { sectors, is_whole: known_bytes >= bytes.end.saturating_sub(bytes.start) }
}

fn end_of(extent: &Extent) -> u64 {
    extent.offset_bytes.saturating_add(extent.length_bytes)
}

/// Whether two ranges have a sector in common.
pub(super) fn overlap(left: &Range<u64>, right: &Range<u64>) -> bool {
    left.start < right.end && right.start < left.end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 12 KiB: 6 KiB at sector 1000, 2 KiB at 50, a hole, 2 KiB at 70.
    fn target() -> Target {
        let extent =
            |offset_bytes, sector, length_bytes| Extent { offset_bytes, sector, length_bytes };
        Target {
            access: HostAccess::Direct,
            pattern: Pattern::Seq,
            block_bytes: 4096,
            size_bytes: 12 << 10,
            offset_bytes: 0,
            extents: Some(vec![
                extent(0, 1000, 6 << 10),
                extent(6 << 10, 50, 2 << 10),
                extent(10 << 10, 70, 2 << 10),
            ]),
        }
    }

    #[test]
    fn a_request_lies_in_as_many_pieces_as_its_file() {
        let sectors = [0, 1, 2, 3].map(|index| target().sectors_of(index));
        let whole = 1000..1008;
        assert_eq!(sectors[0], Some(Vec::from([whole])));
        assert_eq!(sectors[1], Some(vec![1008..1012, 50..54]));
        assert_eq!(sectors[2], None, "a hole");
        assert_eq!(sectors[3], sectors[0], "it starts over");
    }

    /// A partition of 4 KiB that begins 4 KiB into the disk.
    #[test]
    fn what_is_read_may_begin_anywhere_in_the_image() {
        let partition = |offset_bytes| Target { offset_bytes, size_bytes: 4 << 10, ..target() };
        assert_eq!(partition(4 << 10).sectors_of(0), Some(vec![1008..1012, 50..54]));
        assert_eq!(partition(4 << 10).sectors_of(7), partition(4 << 10).sectors_of(0));
        assert_eq!(partition(12 << 10).sectors_of(0), None, "behind the end");
        assert_eq!(partition(u64::MAX).sectors_of(0), None);
    }

    #[test]
    fn the_last_block_may_be_short_and_a_file_may_have_no_map() {
        let short = Target { size_bytes: 7 << 10, ..target() };
        assert_eq!(short.sectors_of(1), Some(vec![1008..1012, 50..52]));
        assert_eq!(Target { extents: None, ..target() }.sectors_of(0), None);
        assert_eq!(Target { extents: Some(vec![]), ..target() }.sectors_of(0), None);
    }
}
