//! Where a file's bytes lie on its disk.

use serde::{Deserialize, Serialize};
use std::ops::Range;

const SECTOR_BYTES: u64 = 512;

/// A piece of a file that lies in one piece on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Where in the file it begins, in bytes.
    pub offset_bytes: u64,
    /// At which sector of 512 bytes it lies.
    pub sector: u64,
    /// Its length in bytes.
    pub length_bytes: u64,
}

impl Extent {
    /// The sectors that it lies on.
    #[must_use]
    pub fn sectors(&self) -> Range<u64> {
        self.sector..self.sector.saturating_add(self.length_bytes.div_ceil(SECTOR_BYTES))
    }
}
