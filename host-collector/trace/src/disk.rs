//! The disk that a VM's reader reads, as recorded in a run's manifest.

use crate::host::WholeDisk;
use serde::{Deserialize, Serialize};
use vslice_core::extent::Extent;
use vslice_spec::Pattern;

/// What identifies the host's I/O for a reader, as it was just before recording began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// Whether the VMM reads it with `O_DIRECT`; `None` if that is unknown.
    #[serde(default)]
    pub is_direct: Option<bool>,
    /// The order in which the reader reads it.
    pub pattern: Pattern,
    /// The size of what the reader reads, in bytes.
    pub size_bytes: u64,
    /// The offset in the image at which that begins, in bytes.
    #[serde(default)]
    pub offset_bytes: u64,
    /// The host disk whose I/O was recorded.
    pub whole_disk: Option<WholeDisk>,
    /// Why no I/O was recorded, as a sentence without its full stop.
    pub missing: Option<String>,
    /// Where the image's bytes lie on the host disk.
    pub extents: Vec<Extent>,
    /// Why that is unknown, as a sentence without its full stop.
    pub extents_missing: Option<String>,
}
