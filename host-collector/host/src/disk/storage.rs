//! Where the data of a disk are, and so who does its I/O.

use serde::{Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where the data of a disk are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Storage {
    /// A file or a block device of the host.
    File {
        /// Its path, as the VMM has it.
        #[serde(serialize_with = "lossy")]
        path: PathBuf,
    },
    /// What the VMM reaches by code of its own: over a network, or a device that it drives itself. The host has no
    /// page cache for it, and none of its asynchronous I/O on files.
    Protocol {
        /// QEMU's name of the driver: `rbd`, `nbd`, `nvme`, ...
        driver: String,
        /// What the driver was told to reach, if it was told by one of the keys that are known.
        place: Option<String>,
        /// The Unix socket of the process that serves it, if it is one of this host.
        #[serde(serialize_with = "lossy_option")]
        socket: Option<PathBuf>,
    },
    /// Another process serves the guest's queues, over vhost-user.
    VhostUser {
        /// Its Unix socket; `None` if the VMM was handed that open.
        #[serde(serialize_with = "lossy_option")]
        socket: Option<PathBuf>,
    },
    /// The kernel serves the guest's queues, or hardware behind a device of its: vhost-scsi, vDPA.
    Vhost {
        /// Its WWPN, or the path of its device.
        device: String,
    },
    /// The guest itself drives a PCI device of the host (VFIO).
    Passthrough {
        /// The device's PCI address.
        address: String,
    },
    /// The drive has no medium.
    Empty,
    /// That is not told.
    Unknown {
        /// Why, as a sentence without its end.
        reason: String,
    },
}

impl Storage {
    /// A file or a block device of the host.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Storage {
        Storage::File { path: path.into() }
    }

    /// Of a disk whose source says nothing of it.
    #[must_use]
    pub fn untold() -> Storage {
        Storage::Unknown { reason: "where its data are is not told".to_owned() }
    }

    /// The file or the block device of the host, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Storage::File { path } => Some(path),
            _ => None,
        }
    }

    /// The Unix socket to another process of this host that does the I/O, if there is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Storage::Protocol { socket, .. } | Storage::VhostUser { socket } => socket.as_deref(),
            _ => None,
        }
    }

    /// Whether the VMM itself does its I/O, rather than another process, the kernel or the guest.
    #[must_use]
    pub fn is_served_by_vmm(&self) -> bool {
        !matches!(
            self,
            Storage::VhostUser { .. } | Storage::Vhost { .. } | Storage::Passthrough { .. }
        )
    }

    /// Why the host's page cache and its asynchronous I/O are no question for it, as a sentence without its end;
    /// `None` if they are one.
    #[must_use]
    pub fn why_no_cache(&self) -> Option<String> {
        match self {
            Storage::File { .. } => None,
            Storage::Protocol { driver, .. } => {
                Some(format!("QEMU's driver {driver} uses no file of the host"))
            }
            Storage::VhostUser { .. } => Some("another process serves it".to_owned()),
            Storage::Vhost { .. } => Some("it is served outside of the VMM".to_owned()),
            Storage::Passthrough { .. } => Some("the guest itself drives it".to_owned()),
            Storage::Empty => Some("it has no medium".to_owned()),
            Storage::Unknown { reason } => Some(reason.clone()),
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Storage::File { path } => write!(formatter, "on {}", path.display()),
            Storage::Protocol { driver, place, .. } => {
                write!(formatter, "on {driver}")?;
                place.iter().try_for_each(|place| write!(formatter, " {place}"))
            }
            Storage::VhostUser { socket: Some(socket) } => {
                write!(formatter, "served by another process, at {}", socket.display())
            }
            Storage::VhostUser { socket: None } => {
                write!(
                    formatter,
                    "served by another process, over a socket that was handed to QEMU"
                )
            }
            Storage::Vhost { device } => {
                write!(formatter, "served outside of the VMM, by {device}")
            }
            Storage::Passthrough { address } => {
                write!(formatter, "on {address}, which the guest itself drives (VFIO)")
            }
            Storage::Empty => write!(formatter, "without a medium"),
            Storage::Unknown { reason } => write!(formatter, "on an unknown file ({reason})"),
        }
    }
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn lossy_option<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => lossy(path, serializer),
        None => serializer.serialize_none(),
    }
}
