//! The disks of a VM and what they lie on, as recorded in a run's manifest.

use crate::host::WholeDisk;
use serde::{Deserialize, Serialize};
use vslice_core::extent::Extent;

/// One disk of a VM, and where its data lie on the host, as it was just before recording began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// What it is and what it lies on, as `vslice ps` says it, without control characters.
    pub label: String,
    /// The serial number that the guest sees, if the command line tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The guest's PCI address of the disk itself, as `0000:00:05.0`, if the command line tells it. That of a
    /// disk behind a controller or a bridge is none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// What the guest sees: `virtio-blk`, `ahci`, ...
    pub bus: String,
    /// The iothreads that serve it; none if the main loop does. `None` if that is unknown, and in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iothreads: Option<Vec<String>>,
    /// The size of the disk that the guest sees, in bytes; `None` if that could not be read.
    pub size_bytes: Option<u64>,
    /// Whether the VMM reads its file with `O_DIRECT`; `None` if that is unknown.
    pub is_direct: Option<bool>,
    /// The numbers by which the VMM has its file open; empty if they are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descriptors: Vec<u32>,
    /// The host disk that it is on.
    pub whole_disk: Option<WholeDisk>,
    /// Why the host's I/O for it was not recorded, as a sentence without its full stop.
    pub missing: Option<String>,
    /// Where the disk's bytes lie on the host disk.
    pub extents: Vec<Extent>,
    /// Why that is unknown, as a sentence without its full stop.
    pub extents_missing: Option<String>,
}
