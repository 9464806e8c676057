//! One disk of a VM: what the guest sees of it, and what it lies on. A plan's disk, one on the command line of
//! a running QEMU and one of a domain's XML are the same value; it is written as QEMU's arguments by
//! [`qemu_args::disk_args`](crate::qemu_args::disk_args), and read from them by
//! [`QemuArgs`](crate::qemu_args::QemuArgs).
//!
//! What a source does not say is `None`, never a default, and has its reason.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use vslice_trace::vmm::Vmm;

mod json;
mod storage;

pub use storage::Storage;

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What runs its VM, whose defaults are those of what is not told.
    pub vmm: Vmm,
    /// The id of its device, if it has one.
    pub id: Option<String>,
    /// What the guest sees.
    pub bus: Bus,
    /// The serial number that the guest sees, if one is told.
    pub serial: Option<String>,
    /// The guest's PCI address of the disk itself, as `0000:00:05.0`, if that is told.
    pub pci_address: Option<String>,
    /// Whether it is a CD drive.
    pub is_cdrom: bool,
    /// Whether it is told not to be written to.
    pub is_read_only: bool,
    /// Where its data are.
    pub storage: Storage,
    /// The format of that: `raw`, `qcow2`, ...; `None` if QEMU has to find it out by itself.
    pub format: Option<String>,
    /// Whether QEMU reads its file with `O_DIRECT`, as with `cache=none`.
    pub is_direct: Option<bool>,
    /// Who says so.
    pub is_direct_from: Option<DirectSource>,
    /// Whether QEMU ignores the guest's flushes, as with `cache=unsafe`.
    pub ignores_flushes: Option<bool>,
    /// Whether the guest sees a write cache, which it has to flush.
    pub has_write_cache: Option<bool>,
    /// How QEMU reads its file.
    pub aio: Option<Aio>,
    /// Whether it is told to be read without any: by read(2) in the thread that serves it, as Firecracker's `Sync`.
    pub is_synchronous: bool,
    /// The iothreads that serve it. Without one the main loop does, or, with `ioeventfd=off`, the vCPU itself.
    pub iothreads: Vec<String>,
    /// Why they are not known, if they are not, as a sentence without its end.
    pub iothreads_missing: Option<String>,
    /// Whether the guest's SCSI commands are handed on to the host's device, past its page cache.
    pub passes_commands: bool,
    /// How many request queues it has.
    pub queues: Option<u16>,
    /// Whether the guest's doorbell is an eventfd, rather than an exit to QEMU.
    pub ioeventfd: Option<bool>,
    /// Whether a virtio device has interrupts of its own (MSI-X).
    pub msix: Option<bool>,
    /// What the running VMM's open files show that its source does not say, as a sentence without its end.
    pub contradiction: Option<String>,
}

/// Who says whether a disk's file is read with `O_DIRECT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectSource {
    /// The kernel has it open so.
    OpenFile,
    /// QEMU was started with it so, which a running QEMU may have changed.
    CommandLine,
}

/// What the guest sees of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bus {
    /// One that vslice's own VMs can have.
    Known(DiskBus),
    /// Another: `scsi`, or QEMU's name of the device.
    Other(String),
}

/// A kind of disk that vslice's own VMs can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// `virtio-blk-pci`.
    #[default]
    VirtioBlk,
    /// `scsi-hd` behind `virtio-scsi-pci`.
    VirtioScsi,
    /// `ide-hd` on the PIIX3 controller.
    Ide,
    /// `ide-hd` on an AHCI controller (ICH9).
    Ahci,
    /// `nvme`.
    Nvme,
}

/// How QEMU reads an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aio {
    /// Linux AIO, submitted by the thread that serves the disk.
    #[default]
    Native,
    /// `preadv(2)` in worker threads.
    Threads,
    /// `io_uring(7)`.
    IoUring,
}

/// How QEMU caches an image; the words of its `cache=` option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// `O_DIRECT`, with a write cache towards the guest.
    #[default]
    None,
    /// The host's page cache.
    Writeback,
    /// The host's page cache, each write flushed.
    Writethrough,
    /// `O_DIRECT`, each write flushed.
    Directsync,
    /// The host's page cache, flushes ignored.
    Unsafe,
}

impl DiskBus {
    /// All of them.
    pub const ALL: [DiskBus; 5] =
        [DiskBus::VirtioBlk, DiskBus::VirtioScsi, DiskBus::Ide, DiskBus::Ahci, DiskBus::Nvme];

    /// The word that plans and commands have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DiskBus::VirtioBlk => "virtio-blk",
            DiskBus::VirtioScsi => "virtio-scsi",
            DiskBus::Ide => "ide",
            DiskBus::Ahci => "ahci",
            DiskBus::Nvme => "nvme",
        }
    }

    /// Whether the guest drives it as a virtio device.
    #[must_use]
    pub fn is_virtio(self) -> bool {
        matches!(self, DiskBus::VirtioBlk | DiskBus::VirtioScsi)
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bus::Known(bus) => formatter.write_str(bus.name()),
            Bus::Other(name) => formatter.write_str(name),
        }
    }
}

impl Aio {
    /// All of them.
    pub const ALL: [Aio; 3] = [Aio::Native, Aio::Threads, Aio::IoUring];

    /// The word that plans, QEMU and libvirt have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Aio::Native => "native",
            Aio::Threads => "threads",
            Aio::IoUring => "io_uring",
        }
    }

    /// The one that has this word.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Aio> {
        Aio::ALL.into_iter().find(|aio| aio.name() == name)
    }
}

/// What a word of `cache=` stands for (qemu-system-x86_64(1), the table at `cache=cache`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheFlags {
    /// `cache.direct`: the file is read with `O_DIRECT`.
    pub is_direct: bool,
    /// `cache.no-flush`: the guest's flushes are ignored.
    pub ignores_flushes: bool,
    /// `write-cache` of the device: the guest sees a write cache.
    pub has_write_cache: bool,
}

impl Cache {
    /// All of them.
    pub const ALL: [Cache; 5] =
        [Cache::None, Cache::Writeback, Cache::Writethrough, Cache::Directsync, Cache::Unsafe];

    /// The word that plans, QEMU and libvirt have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cache::None => "none",
            Cache::Writeback => "writeback",
            Cache::Writethrough => "writethrough",
            Cache::Directsync => "directsync",
            Cache::Unsafe => "unsafe",
        }
    }

    /// The one that has this word; `off` is an old one for `none`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Cache> {
        let name = if name == "off" { "none" } else { name };
        Cache::ALL.into_iter().find(|cache| cache.name() == name)
    }

    /// What it stands for.
    #[must_use]
    pub fn flags(self) -> CacheFlags {
        CacheFlags {
            is_direct: self.is_direct(),
            ignores_flushes: self == Cache::Unsafe,
            has_write_cache: !matches!(self, Cache::Writethrough | Cache::Directsync),
        }
    }

    /// Whether the image is opened with `O_DIRECT`.
    #[must_use]
    pub fn is_direct(self) -> bool {
        matches!(self, Cache::None | Cache::Directsync)
    }
}

impl Disk {
    /// A disk of a QEMU of which nothing else is told.
    #[must_use]
    pub fn new(bus: Bus) -> Disk {
        Disk {
            vmm: Vmm::Qemu,
            id: None,
            bus,
            serial: None,
            pci_address: None,
            is_cdrom: false,
            is_read_only: false,
            storage: Storage::untold(),
            format: None,
            is_direct: None,
            is_direct_from: None,
            ignores_flushes: None,
            has_write_cache: None,
            aio: None,
            is_synchronous: false,
            iothreads: Vec::new(),
            iothreads_missing: None,
            passes_commands: false,
            queues: None,
            ioeventfd: None,
            msix: None,
            contradiction: None,
        }
    }

    /// What it is, and what it lies on.
    #[must_use]
    pub fn label(&self) -> String {
        let cdrom = if self.is_cdrom { " CD" } else { "" };
        let id = self.id.as_deref().map(|id| format!(" {id}")).unwrap_or_default();
        let format =
            self.format.as_deref().map(|format| format!(" ({format})")).unwrap_or_default();
        format!("{}{cdrom}{id} {}{format}", self.bus, self.storage)
    }

    /// The file or the block device of the host that it lies on, if it lies on one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.storage.path()
    }

    /// The word of `cache=` that says the same; `None` where not all of it is told, or no word says it.
    #[must_use]
    pub fn cache(&self) -> Option<Cache> {
        let told = CacheFlags {
            is_direct: self.is_direct?,
            ignores_flushes: self.ignores_flushes?,
            has_write_cache: self.has_write_cache?,
        };
        Cache::ALL.into_iter().find(|cache| cache.flags() == told)
    }

    /// The same disk with what a word of `cache=` says.
    #[must_use]
    pub fn cached(self, cache: Cache) -> Disk {
        let flags = cache.flags();
        Disk {
            is_direct: Some(flags.is_direct),
            is_direct_from: Some(DirectSource::CommandLine),
            ignores_flushes: Some(flags.ignores_flushes),
            has_write_cache: Some(flags.has_write_cache),
            ..self
        }
    }

    /// Why its format is not known, as a sentence without its end; `None` if it is.
    #[must_use]
    pub fn format_missing(&self) -> Option<String> {
        let reason = match &self.storage {
            Storage::File { .. } | Storage::Protocol { .. } => {
                self.untold("not told", "QEMU finds it out by the content")
            }
            other => other.why_no_cache().unwrap_or_default(),
        };
        self.format.is_none().then_some(reason)
    }

    /// Why it is not known whether its file is read with `O_DIRECT`, as a sentence without its end; `None` if it is.
    #[must_use]
    pub fn direct_missing(&self) -> Option<String> {
        let untold =
            || self.untold("neither told nor seen", "QEMU's default is the host page cache");
        let reason = || self.why_no_cache().unwrap_or_else(untold);
        self.is_direct.is_none().then(reason)
    }

    /// Why it is not known how its file is read, as a sentence without its end; `None` if it is.
    #[must_use]
    pub fn aio_missing(&self) -> Option<String> {
        let untold = || match self.is_synchronous {
            true => "none: read(2) in the thread that serves it".to_owned(),
            false => self.untold("not told", "QEMU's default is threads"),
        };
        self.aio.is_none().then(|| self.why_no_cache().unwrap_or_else(untold))
    }

    /// A reason, with what a QEMU does then.
    fn untold(&self, reason: &str, of_qemu: &str) -> String {
        if self.vmm == Vmm::Qemu { format!("{reason}; {of_qemu}") } else { reason.to_owned() }
    }

    /// Why the host's page cache and its asynchronous I/O are no question for it; `None` if they are one.
    #[must_use]
    pub fn why_no_cache(&self) -> Option<String> {
        let handed_on =
            || "the guest's SCSI commands are handed on to the device (SG_IO)".to_owned();
        self.storage.why_no_cache().or_else(|| self.passes_commands.then(handed_on))
    }

    /// Takes the kernel's word of how its file is open, if it has one.
    pub fn note_open(&mut self, is_direct: Option<bool>) {
        if is_direct.is_some() {
            (self.is_direct, self.is_direct_from) = (is_direct, Some(DirectSource::OpenFile));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_the_cache_comes_back_from_its_flags() {
        for cache in Cache::ALL {
            let disk = Disk::new(Bus::Known(DiskBus::VirtioBlk)).cached(cache);
            assert_eq!(disk.cache(), Some(cache));
            assert_eq!(Cache::of_name(cache.name()), Some(cache));
            assert_eq!(Disk { has_write_cache: None, ..disk }.cache(), None, "not all is told");
        }
    }
}
