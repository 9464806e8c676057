//! The disks that a boot sector can be on, and QEMU's command line for them.

use super::boot_sector::Guest;
use std::ffi::OsString;
use std::path::Path;
use vslice_host::qemu_args::option;
use vslice_lab::plan::LabAccelerator;

/// How a guest reaches its disk. SeaBIOS 1.16 boots from all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frontend {
    /// virtio-blk, served in the main loop, which an eventfd wakes.
    VirtioBlk,
    /// virtio-blk, served in an iothread.
    VirtioBlkIothread,
    /// virtio-blk, served in the vCPU thread itself: `ioeventfd=off`.
    VirtioBlkNoIoeventfd,
    /// The PIIX3 IDE controller of the `pc` machine.
    Ide,
    /// An AHCI controller (ICH9).
    Ahci,
    /// NVMe.
    Nvme,
    /// A SCSI disk on virtio-scsi, served in the main loop.
    VirtioScsi,
}

impl Frontend {
    /// All of them.
    pub const ALL: [Frontend; 7] = [
        Frontend::VirtioBlk,
        Frontend::VirtioBlkIothread,
        Frontend::VirtioBlkNoIoeventfd,
        Frontend::Ide,
        Frontend::Ahci,
        Frontend::Nvme,
        Frontend::VirtioScsi,
    ];

    /// What commands and reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Frontend::VirtioBlk => "virtio-blk",
            Frontend::VirtioBlkIothread => "virtio-blk-iothread",
            Frontend::VirtioBlkNoIoeventfd => "virtio-blk-no-ioeventfd",
            Frontend::Ide => "ide",
            Frontend::Ahci => "ahci",
            Frontend::Nvme => "nvme",
            Frontend::VirtioScsi => "virtio-scsi",
        }
    }

    fn args(self) -> Vec<OsString> {
        // `bootindex` puts the disk into the list that QEMU hands to the firmware: without it
        // SeaBIOS does not try AHCI and NVMe disks before the others.
        let disk = "drive=disk0,bootindex=1";
        let devices = match self {
            Frontend::VirtioBlk => vec![format!("virtio-blk-pci,{disk}")],
            Frontend::VirtioBlkIothread => {
                vec![format!("virtio-blk-pci,{disk},iothread={IOTHREAD_ID}")]
            }
            Frontend::VirtioBlkNoIoeventfd => vec![format!("virtio-blk-pci,{disk},ioeventfd=off")],
            Frontend::Ide => vec![format!("ide-hd,{disk},bus=ide.0")],
            Frontend::Ahci => {
                vec!["ich9-ahci,id=ahci".to_owned(), format!("ide-hd,{disk},bus=ahci.0")]
            }
            Frontend::Nvme => vec![format!("nvme,{disk},serial=rig")],
            Frontend::VirtioScsi => {
                vec!["virtio-scsi-pci,id=scsi".to_owned(), format!("scsi-hd,{disk},bus=scsi.0")]
            }
        };
        let mut args = Vec::new();
        if self == Frontend::VirtioBlkIothread {
            // No adaptive polling, as in the labs: a thread that polls takes the pCPU from others.
            args.extend(words(["-object", &format!("iothread,id={IOTHREAD_ID},poll-max-ns=0")]));
        }
        args.extend(devices.iter().flat_map(|device| words(["-device", device])));
        args
    }
}

/// The files of a machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct MachineFiles<'a> {
    /// The disk, its first sector the guest.
    pub(super) disk: &'a Path,
    /// QMP for the rig itself.
    pub(super) monitor: &'a Path,
    /// QMP for whoever wants to disturb the machine: a socket serves one client at a time.
    pub(super) second_monitor: &'a Path,
}

/// The id of the iothread, if there is one: its thread is `IO io0`.
const IOTHREAD_ID: &str = "io0";

/// The arguments of QEMU.
pub(super) fn machine_args(
    guest: Guest,
    frontend: Frontend,
    accelerator: LabAccelerator,
    files: &MachineFiles<'_>,
) -> Vec<OsString> {
    let name = format!("rig-{},debug-threads=on", guest.name());
    let mut args = words(["-name", &name, "-nodefaults", "-no-user-config", "-display", "none"]);
    args.extend(words(["-machine", "pc", "-smp", "1", "-m", "32M", "-accel"]));
    // The default CPU model: `host` and `max` want features that a nested KVM may not have, and a
    // boot sector uses none of them.
    args.extend(match accelerator {
        LabAccelerator::Kvm => words(["kvm"]),
        LabAccelerator::Tcg => words(["tcg,thread=multi"]),
    });
    for path in [files.monitor, files.second_monitor] {
        args.push("-qmp".into());
        args.push(option("unix:", path, ",server=on,wait=off"));
    }
    args.push("-blockdev".into());
    args.push(option(
        "driver=raw,node-name=disk0,file.driver=file,file.filename=",
        files.disk,
        ",file.aio=native,cache.direct=on",
    ));
    args.extend(frontend.args());
    args
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(frontend: Frontend, accelerator: LabAccelerator) -> String {
        let files = MachineFiles {
            disk: Path::new("/s,1/disk"),
            monitor: Path::new("/s/qmp"),
            second_monitor: Path::new("/s/qmp2"),
        };
        let args = machine_args(Guest::Hog, frontend, accelerator, &files);
        args.join(" ".as_ref()).into_string().expect("ASCII")
    }

    #[test]
    fn every_frontend_boots_the_same_disk_without_the_hosts_cache() {
        for frontend in Frontend::ALL {
            let line = line(frontend, LabAccelerator::Tcg);
            assert!(line.contains("filename=/s,,1/disk,file.aio=native,cache.direct=on"), "{line}");
            assert_eq!(line.matches("bootindex=1").count(), 1, "{line}");
            assert_eq!(line.matches("iothread").count() > 0, frontend.name().contains("iothread"));
        }
    }

    #[test]
    fn threads_have_names_and_each_vcpu_its_own_under_both_accelerators() {
        let tcg = line(Frontend::Ide, LabAccelerator::Tcg);
        assert!(tcg.contains("debug-threads=on") && tcg.contains("-accel tcg,thread=multi"));
        assert!(line(Frontend::Ide, LabAccelerator::Kvm).contains("-accel kvm -qmp unix:/s/qmp,"));
    }
}
