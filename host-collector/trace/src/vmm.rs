//! What runs virtual machines.

use serde::{Deserialize, Serialize};

/// A program that runs virtual machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// QEMU.
    Qemu,
    /// Firecracker.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// crosvm.
    Crosvm,
    /// kvmtool, whose program is `lkvm`.
    Kvmtool,
    /// Another user of KVM.
    Other,
}

/// The libvirt domain that a VM is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// Its name, letter by letter: one that could not be shown so is not recorded.
    pub name: String,
    /// The connection of the libvirt that has it, such as `qemu:///system`.
    pub uri: String,
}

/// What executes a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The Linux kernel's KVM.
    Kvm,
    /// QEMU's translator.
    Tcg,
    /// Microsoft's hypervisor.
    Mshv,
    /// macOS's Hypervisor framework.
    Hvf,
    /// NetBSD's hypervisor.
    Nvmm,
    /// Windows' hypervisor platform.
    Whpx,
}

impl Accelerator {
    /// All of them.
    pub const ALL: [Accelerator; 6] = [
        Accelerator::Kvm,
        Accelerator::Tcg,
        Accelerator::Mshv,
        Accelerator::Hvf,
        Accelerator::Nvmm,
        Accelerator::Whpx,
    ];

    /// QEMU's name of it, as in `-accel kvm` (qemu: accel/, target/).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
            Accelerator::Mshv => "mshv",
            Accelerator::Hvf => "hvf",
            Accelerator::Nvmm => "nvmm",
            Accelerator::Whpx => "whpx",
        }
    }

    /// The one of this name, in capitals or not.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Accelerator> {
        Accelerator::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }
}
