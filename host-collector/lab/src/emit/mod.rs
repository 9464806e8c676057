//! Emission: a plan's VM as a QEMU command line or a libvirt domain, for a given version of QEMU, and a
//! libvirt domain read back as a plan. All of it is pure: nothing here looks at the host.
//!
//! What is emitted is a guest that `vslice attach --load` can use: a channel for qemu-ga, and a way to
//! the collector. For a modern QEMU its disk has the very arguments of `vslice run`.

pub mod from_xml;
pub mod libvirt;
pub mod qemu;
#[cfg(test)]
mod tests;
pub mod versions;
mod xml;

use super::plan::{AcceleratorSetting, DiskPlan, LabAccelerator, Plan, VmPlan, VsockSetting};
use super::vsock::Transport;
use std::path::PathBuf;
use thiserror::Error;
use versions::{Feature, OLDEST, QemuVersion};
use vslice_host::disk::{Aio, Cache, DiskBus};

/// The first CID that is a guest's: 0 to 2 are the hypervisor, loopback and the host (vsock(7)).
const FIRST_CID: u32 = 3;

/// The files of an emitted guest, which it is for others to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmitFiles {
    /// Its kernel; without one it boots from its disk.
    pub kernel: Option<PathBuf>,
    /// Its initramfs.
    pub initramfs: Option<PathBuf>,
    /// The image of its disk, raw; used if the plan has a disk.
    pub disk: PathBuf,
    /// The directory for its sockets, and for what its console prints.
    pub sockets: PathBuf,
}

impl EmitFiles {
    /// Where libvirt and most others have a VM's disk and sockets; it boots from the disk.
    #[must_use]
    pub fn of_vm(name: &str) -> EmitFiles {
        EmitFiles {
            kernel: None,
            initramfs: None,
            disk: PathBuf::from(format!("/var/lib/libvirt/images/{name}.img")),
            sockets: PathBuf::from("/run"),
        }
    }
}

/// A VM that is to be emitted.
#[derive(Debug, Clone, Copy)]
pub struct Emission<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The VM's place in it.
    pub vm_index: usize,
    /// The QEMU that is to understand it.
    pub version: QemuVersion,
    /// Its files.
    pub files: &'a EmitFiles,
}

/// Why a VM cannot be emitted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EmitError {
    /// Nothing of vslice's is in so old a QEMU.
    #[error("QEMU {0} is older than {OLDEST}, the first with a dataplane, where emission begins")]
    TooOld(QemuVersion),
    /// The QEMU has no such thing.
    #[error("vm '{vm}': {what} needs QEMU {since} or newer, this is for QEMU {version}")]
    Since {
        /// The VM.
        vm: String,
        /// What the plan asks for.
        what: &'static str,
        /// The first QEMU that has it.
        since: QemuVersion,
        /// The QEMU that was asked for.
        version: QemuVersion,
    },
    /// The first dataplane knew one kind of image.
    #[error(
        "vm '{vm}': in QEMU {version} a dataplane is x-data-plane, which takes a raw image with cache = \
         \"none\" and aio = \"native\" only, not cache = \"{}\" and aio = \"{}\"", cache.name(), aio.name()
    )]
    XDataPlaneImage {
        /// The VM.
        vm: String,
        /// The QEMU that was asked for.
        version: QemuVersion,
        /// The plan's cache.
        cache: Cache,
        /// The plan's way to read.
        aio: Aio,
    },
    /// A process of its own would have to be there.
    #[error(
        "vm '{0}': vsock = \"vhost-user\" needs a device process that vslice starts for its own runs \
         only: use vhost or virtio-serial"
    )]
    VhostUser(String),
    /// That libvirt has no such disk.
    #[error(
        "vm '{0}': libvirt has NVMe disks since 11.5, and a domain gets one for QEMU 10.1 or newer: give \
         --qemu-version, or use --format qemu, or another --bus"
    )]
    LibvirtNvme(String),
    /// XML has no way to say it.
    #[error(
        "vm '{vm}': the path {path} cannot be written in XML: it is not UTF-8, or has controls"
    )]
    NotText {
        /// The VM.
        vm: String,
        /// The path, as far as it can be shown.
        path: String,
    },
}

/// Who serves a disk, and in which words this QEMU is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dataplane {
    /// QEMU's main loop.
    Off,
    /// `x-data-plane=on`, a thread that QEMU makes for itself.
    XDataPlane,
    /// `iothread=`.
    Iothread,
    /// `iothread-vq-mapping`.
    Mapping,
}

impl<'a> Emission<'a> {
    /// The VM.
    fn vm(&self) -> &'a VmPlan {
        &self.plan.vms[self.vm_index]
    }

    /// Refuses what this QEMU does not have, whichever way it is told.
    fn check(&self) -> Result<(), EmitError> {
        if self.version < OLDEST {
            return Err(EmitError::TooOld(self.version));
        }
        let Some(disk) = &self.vm().disk else { return Ok(()) };
        if disk.bus == DiskBus::Nvme {
            self.needs(Feature::Nvme, "bus = \"nvme\"")?;
        }
        if disk.aio == Aio::IoUring {
            self.needs(Feature::IoUring, "aio = \"io_uring\"")?;
        }
        if disk.bus == DiskBus::VirtioBlk && disk.queues.is_some_and(|queues| queues > 1) {
            self.needs(Feature::BlkQueues, "queues above 1 on virtio-blk")?;
        }
        self.dataplane(disk).map(drop)
    }

    fn needs(&self, feature: Feature, what: &'static str) -> Result<(), EmitError> {
        if self.version.has(feature) {
            return Ok(());
        }
        let cut = versions::CUT_OVERS.iter().find(|cut| cut.feature == feature);
        Err(EmitError::Since {
            vm: self.vm().name.clone(),
            what,
            since: cut.map_or(OLDEST, |cut| cut.since),
            version: self.version,
        })
    }

    fn dataplane(&self, disk: &DiskPlan) -> Result<Dataplane, EmitError> {
        if !disk.iothread {
            return Ok(Dataplane::Off);
        }
        if disk.iothreads > 1 {
            let (feature, what) = match disk.bus {
                DiskBus::VirtioScsi => (
                    Feature::ScsiVqMapping,
                    "iothreads above 1 on virtio-scsi (iothread-vq-mapping)",
                ),
                _ => (Feature::VqMapping, "iothreads above 1 (iothread-vq-mapping)"),
            };
            self.needs(feature, what)?;
            return Ok(Dataplane::Mapping);
        }
        if disk.bus == DiskBus::VirtioScsi {
            self.needs(Feature::ScsiIothread, "iothread = true on virtio-scsi")?;
            return Ok(Dataplane::Iothread);
        }
        if self.version.has(Feature::BlkIothread) {
            return Ok(Dataplane::Iothread);
        }
        if (disk.cache, disk.aio) != (Cache::None, Aio::Native) {
            return Err(EmitError::XDataPlaneImage {
                vm: self.vm().name.clone(),
                version: self.version,
                cache: disk.cache,
                aio: disk.aio,
            });
        }
        Ok(Dataplane::XDataPlane)
    }

    /// KVM unless the plan says otherwise: whether it runs guests is for another host to say.
    fn accelerator(&self) -> LabAccelerator {
        match self.plan.accelerator {
            AcceleratorSetting::Auto | AcceleratorSetting::Kvm => LabAccelerator::Kvm,
            AcceleratorSetting::Tcg => LabAccelerator::Tcg,
        }
    }

    /// vsock where this QEMU has it, unless the plan says otherwise.
    fn transport(&self) -> Result<Transport, EmitError> {
        let serial = || Transport::VirtioSerial { socket: self.socket("agent") };
        match self.plan.vsock {
            VsockSetting::VhostUser => Err(EmitError::VhostUser(self.vm().name.clone())),
            VsockSetting::VirtioSerial => Ok(serial()),
            VsockSetting::Auto if !self.version.has(Feature::Vsock) => Ok(serial()),
            VsockSetting::Auto | VsockSetting::Vhost => {
                self.needs(Feature::Vsock, "vsock = \"vhost\"")?;
                // A plan has at most 64 VMs.
                let index = u32::try_from(self.vm_index).unwrap_or(0);
                Ok(Transport::Vhost { cid: FIRST_CID + index, port: 0 })
            }
        }
    }

    /// A socket of the VM's, or its console's file.
    fn socket(&self, suffix: &str) -> PathBuf {
        self.files.sockets.join(format!("{}.{suffix}", self.vm().name))
    }

    /// Whether the guest has anything to boot from.
    fn boots(&self) -> bool {
        self.files.kernel.is_some() || self.vm().disk.is_some()
    }
}
