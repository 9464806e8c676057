//! Where a file's bytes lie on its disk.

use serde::{Deserialize, Serialize};
use std::ops::Range;

const SECTOR_BYTES: u64 = 512;

/// A range of a file that is contiguous on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Its offset in the file, in bytes.
    pub offset_bytes: u64,
    /// Its first sector on the disk, of 512 bytes.
    pub sector: u64,
    /// Its length in bytes.
    pub length_bytes: u64,
}

impl Extent {
    /// The sectors that it occupies, of 512 bytes.
    #[must_use]
    pub fn sectors(&self) -> Range<u64> {
        self.sector..self.sector.saturating_add(self.length_bytes.div_ceil(SECTOR_BYTES))
    }
}
