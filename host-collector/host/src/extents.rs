//! Where on its disk a file lies: the file system's own map, by `FS_IOC_FIEMAP`
//! (linux/Documentation/filesystems/fiemap.rst).
#![expect(unsafe_code, reason = "FS_IOC_FIEMAP has no safe wrapper")]

use crate::open_files::open_named;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use vslice_core::extent::Extent;

/// The most extents of one file that are kept; a file with more has no map.
pub const EXTENTS_MAX: usize = 4096;

const SECTOR_BYTES: u64 = 512;

/// The extents of a file in order of their offsets; their sectors count from `first_sector`, which
/// is where the file system's device begins on the whole disk.
///
/// Pieces of which the file system cannot say where, or in what form, they are on the disk are left
/// out. The map is that of this moment: it holds as long as nobody writes to the file.
///
/// # Errors
/// The reason why there is no map, as a sentence without its full stop.
pub fn extents(path: &Path, first_sector: u64) -> Result<Vec<Extent>, String> {
    let shown = path.display();
    let file = open_named(path).map_err(|error| format!("{shown} cannot be opened: {error}"))?;
    let mut extents = Vec::new();
    let mut from = 0;
    loop {
        let raw = query(&file, from).map_err(|error| {
            format!("the file system does not report where {shown} is on disk: {error}")
        })?;
        let Some(last) = raw.last() else { return Ok(extents) };
        extents.extend(raw.iter().filter_map(|raw| raw.extent(first_sector)));
        if extents.len() > EXTENTS_MAX {
            return Err(format!("{shown} has more than {EXTENTS_MAX} extents"));
        }
        let next = last.logical.saturating_add(last.length);
        if last.flags & EXTENT_LAST != 0 || next <= from {
            return Ok(extents);
        }
        from = next;
    }
}

/// `struct fiemap` of linux/include/uapi/linux/fiemap.h without its array.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Head {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `struct fiemap_extent` of the same file.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved_64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `FIEMAP_EXTENT_LAST`.
const EXTENT_LAST: u32 = 0x1;
/// `FIEMAP_EXTENT_UNKNOWN`, `_DELALLOC`, `_ENCODED`, `_NOT_ALIGNED`, `_DATA_INLINE`, `_DATA_TAIL`:
/// the bytes of the file are not at that place of the disk as they are.
const EXTENT_UNUSABLE: u32 = 0x2 | 0x4 | 0x8 | 0x100 | 0x200 | 0x400;

impl RawExtent {
    fn extent(&self, first_sector: u64) -> Option<Extent> {
        let is_usable = self.flags & EXTENT_UNUSABLE == 0
            && self.physical.is_multiple_of(SECTOR_BYTES)
            && self.length > 0;
        is_usable.then(|| Extent {
            offset_bytes: self.logical,
            sector: first_sector.saturating_add(self.physical / SECTOR_BYTES),
            length_bytes: self.length,
        })
    }
}

/// Extents that are asked for at once.
const QUERY_EXTENTS: u32 = 64;

#[repr(C)]
struct Query {
    head: Head,
    extents: [RawExtent; QUERY_EXTENTS as usize],
}

nix::ioctl_readwrite!(
    /// `FS_IOC_FIEMAP` of linux/include/uapi/linux/fs.h.
    fs_ioc_fiemap,
    b'f',
    11,
    Head
);

fn query(file: &File, from: u64) -> io::Result<Vec<RawExtent>> {
    let head = Head {
        start: from,
        length: u64::MAX - from,
        flags: 0,
        mapped_extents: 0,
        extent_count: QUERY_EXTENTS,
        reserved: 0,
    };
    let mut query = Query { head, extents: [RawExtent::default(); QUERY_EXTENTS as usize] };
    let pointer = (&raw mut query).cast::<Head>();
    // SAFETY: the kernel writes the head and at most `extent_count` extents right behind it, which
    // is the size of the array that `Query`, being `repr(C)`, has there (a head is 32 bytes, an
    // extent 56, both aligned to 8); `query` outlives the call.
    unsafe { fs_ioc_fiemap(file.as_raw_fd(), pointer) }?;
    let mapped = query.head.mapped_extents.min(QUERY_EXTENTS) as usize;
    Ok(query.extents[..mapped].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_structs_are_as_large_as_the_kernels() {
        assert_eq!((size_of::<Head>(), size_of::<RawExtent>()), (32, 56));
        assert_eq!(std::mem::offset_of!(Query, extents), 32);
    }

    #[test]
    fn a_piece_is_used_only_if_its_bytes_are_there() {
        let raw = RawExtent { logical: 4096, physical: 8192, length: 4096, ..RawExtent::default() };
        let extent = Extent { offset_bytes: 4096, sector: 2064, length_bytes: 4096 };
        assert_eq!(raw.extent(2048), Some(extent));
        for flags in [0x2, 0x6, 0x8, 0x100, 0x301] {
            assert_eq!(RawExtent { flags, ..raw }.extent(0), None, "{flags:#x}");
        }
        assert!(RawExtent { flags: EXTENT_LAST, ..raw }.extent(0).is_some());
    }

    /// Whatever file system this is run on, it maps the file without gaps or does not map it.
    #[test]
    fn a_real_file_is_mapped_whole_or_not_at_all() {
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").expect("writable");
        file.write_all(&vec![7; 3 << 20]).expect("room");
        file.as_file().sync_all().expect("synced");
        match extents(file.path(), 0) {
            Ok(extents) => {
                let mut ends =
                    extents.iter().map(|extent| extent.offset_bytes + extent.length_bytes);
                let starts = extents.iter().skip(1).map(|extent| extent.offset_bytes);
                assert!(ends.clone().zip(starts).all(|(end, start)| end == start), "{extents:?}");
                assert_eq!(ends.next_back(), Some(3 << 20));
            }
            Err(reason) => {
                assert!(reason.starts_with("the file system does not report"), "{reason}")
            }
        }
    }
}
