//! What a machine has by itself: how a `-drive` that does not say it is attached, and IDE buses.

use super::properties::Properties;
use crate::disk::DiskBus;

/// The type of a machine, and what it is emulated by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    kind: Option<String>,
    /// As QEMU names its programs.
    arch: String,
}

/// Interfaces of drives by the beginning of a machine's type (qemu 10.0: `block_default_type` of hw/; a machine without
/// it attaches none).
const INTERFACES: [(&str, &str); 45] = [
    ("pc", "ide"),
    ("q35", "ide"),
    ("isapc", "ide"),
    ("xenfv", "ide"),
    ("microvm", "none"),
    ("s390-ccw-virtio", "virtio"),
    ("vmapple", "virtio"),
    ("pseries", "scsi"),
    ("powernv", "ide"),
    ("40p", "scsi"),
    ("mac99", "ide"),
    ("g3beige", "ide"),
    ("pegasos2", "ide"),
    ("amigaone", "ide"),
    ("sam460ex", "ide"),
    ("malta", "ide"),
    ("boston", "ide"),
    ("fuloong2e", "ide"),
    ("loongson3-virt", "ide"),
    ("magnum", "scsi"),
    ("pica61", "scsi"),
    ("clipper", "ide"),
    ("SS-", "scsi"),
    ("LX", "scsi"),
    ("SPARC", "scsi"),
    ("sun4", "ide"),
    ("q800", "scsi"),
    ("next-cube", "scsi"),
    ("B160L", "scsi"),
    ("C3700", "scsi"),
    ("r2d", "ide"),
    ("raspi", "sd"),
    ("orangepi", "sd"),
    ("cubieboard", "ide"),
    ("sbsa-ref", "ide"),
    ("highbank", "ide"),
    ("midway", "ide"),
    ("xlnx-zcu102", "ide"),
    ("versatile", "scsi"),
    ("realview", "scsi"),
    ("mcf5208evb", "none"),
    ("none", "none"),
    ("spike", "none"),
    ("sifive", "none"),
    ("vexpress", "none"),
];

/// The machines that a QEMU takes if nobody names one, where its drives matter.
const DEFAULTS: [(&str, &str); 9] = [
    ("x86_64", "pc"),
    ("i386", "pc"),
    ("s390x", "s390-ccw-virtio"),
    ("ppc64", "pseries"),
    ("sparc", "SS-5"),
    ("sparc64", "sun4u"),
    ("hppa", "B160L"),
    ("alpha", "clipper"),
    ("loongarch64", "virt"),
];

impl Machine {
    /// The machine of a program that has these `-machine` options.
    pub(super) fn new(program: &str, options: &[Properties]) -> Machine {
        let name = program.rsplit('/').next().unwrap_or_default();
        let arch = name.rsplit_once("system-").map(|(_, arch)| arch);
        // What is called `kvm` runs what the host is.
        let arch = arch.unwrap_or(std::env::consts::ARCH).to_owned();
        let told = options.iter().filter_map(|machine| machine.get("type")).next_back();
        let default = || {
            let of_arch = DEFAULTS.iter().find(|(name, _)| *name == arch);
            of_arch.map(|(_, kind)| *kind)
        };
        let kind = told.or_else(default).map(str::to_owned);
        Machine { kind, arch }
    }

    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or_default()
    }

    /// How a `-drive` without `if=` is attached; `None` if that is not known of the machine.
    pub(super) fn interface(&self) -> Option<&'static str> {
        let kind = self.kind();
        if kind == "virt" || kind.starts_with("virt-") || kind.starts_with("virt_") {
            let is_bare = self.arch == "m68k" || self.arch.starts_with("or1k");
            return Some(if is_bare { "none" } else { "virtio" });
        }
        let of_kind = INTERFACES.iter().find(|(prefix, _)| kind.starts_with(prefix));
        of_kind.map(|(_, interface)| *interface)
    }

    /// What the IDE buses are that the machine has by itself, and how many; `None` if it has none that are known.
    pub(super) fn ide(&self) -> Option<(DiskBus, usize)> {
        let kind = self.kind();
        let is = |prefix: &str| kind.starts_with(prefix);
        if kind.contains("q35") || is("sbsa-ref") || is("highbank") || is("midway") || is("boston")
        {
            return Some((DiskBus::Ahci, 6));
        }
        let is_piix = ["pc", "isapc", "xenfv", "malta", "sun4u", "mac99", "g3beige"]
            .iter()
            .any(|kind| is(kind));
        is_piix.then_some((DiskBus::Ide, 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_are_attached_as_the_machine_has_it() {
        let interface = |program: &str, kind: &str| {
            let options = Properties::parse(kind, "type");
            Machine::new(program, &[options]).interface()
        };
        for (program, kind, expected) in [
            ("qemu-system-x86_64", "", Some("ide")),
            ("/usr/bin/qemu-system-x86_64", "pc-q35-9.2,accel=kvm", Some("ide")),
            ("qemu-system-x86_64", "hpet=off,type=pc+pve0", Some("ide")),
            ("qemu-system-x86_64", "microvm", Some("none")),
            ("qemu-system-aarch64", "virt-9.1", Some("virtio")),
            ("qemu-system-aarch64", "", None),
            ("qemu-system-riscv64", "virt", Some("virtio")),
            ("qemu-system-m68k", "virt", Some("none")),
            ("qemu-system-ppc64", "", Some("scsi")),
            ("qemu-system-ppc64", "powernv9", Some("ide")),
            ("qemu-system-s390x", "", Some("virtio")),
            ("qemu-system-arm", "a-board-of-somebody", None),
        ] {
            assert_eq!(interface(program, kind), expected, "{program} {kind}");
        }
    }
}
