//! A disk as a line of the listing.

use vslice_host::disk::{DirectSource, Disk, Storage};

/// A disk in words: what the guest sees, where its data are, how they are read, and who serves it.
#[must_use]
pub(super) fn text(disk: &Disk) -> String {
    let mut text = disk.label();
    let how = match &disk.storage {
        Storage::VhostUser { .. } => {
            vec!["cache mode and aio are that process's".to_owned()]
        }
        Storage::Vhost { .. } | Storage::Passthrough { .. } | Storage::Empty => vec![],
        Storage::Unknown { .. } => vec![server(disk)],
        Storage::Protocol { .. } => {
            vec!["no page cache of the host".to_owned(), "no aio".to_owned(), server(disk)]
        }
        Storage::File { .. } if disk.passes_commands => {
            let how = "SCSI commands are handed on, past the page cache (SG_IO)".to_owned();
            vec![how, server(disk)]
        }
        Storage::File { .. } => vec![cache(disk), aio(disk), server(disk)],
    };
    if !how.is_empty() {
        text = format!("{text}: {}", how.join(", "));
    }
    match &disk.contradiction {
        Some(contradiction) => format!("{text}; but {contradiction}"),
        None => text,
    }
}

fn cache(disk: &Disk) -> String {
    let source = match disk.is_direct_from {
        Some(DirectSource::CommandLine) => " (by the command line)",
        _ => "",
    };
    match disk.is_direct {
        Some(true) => format!("O_DIRECT{source}"),
        Some(false) => format!("host page cache{source}"),
        None => format!("cache mode unknown{}", in_brackets(disk.direct_missing())),
    }
}

fn aio(disk: &Disk) -> String {
    match disk.aio {
        Some(aio) => format!("aio {}", aio.name()),
        None if disk.is_synchronous => {
            format!("aio {}", disk.aio_missing().unwrap_or_default())
        }
        None => format!("aio unknown{}", in_brackets(disk.aio_missing())),
    }
}

fn in_brackets(reason: Option<String>) -> String {
    reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
}

fn server(disk: &Disk) -> String {
    match (&disk.iothreads[..], &disk.iothreads_missing) {
        ([], Some(reason)) => format!("iothread unknown ({reason})"),
        ([], None) if disk.ioeventfd == Some(false) => {
            "no iothread, and the vCPU thread itself submits (ioeventfd=off)".to_owned()
        }
        ([], None) => "no iothread".to_owned(),
        ([one], _) => format!("iothread {one}"),
        (some, _) => format!("iothreads {}", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_host::qemu_args::QemuArgs;

    /// The lines of a command line's disks.
    fn texts(line: &str) -> Vec<String> {
        let words: Vec<String> =
            format!("qemu-system-x86_64 {line}").split_whitespace().map(str::to_owned).collect();
        QemuArgs::parse(&words).disks.iter().map(text).collect()
    }

    #[test]
    fn each_disk_says_where_its_data_are_and_why_what_is_unknown_is() {
        for (line, expected) in [
            (
                "-hda a.qcow2",
                "ide on a.qcow2: cache mode unknown (neither told nor seen; QEMU's default is the host \
                page cache), aio unknown (not told; QEMU's default is threads), no iothread",
            ),
            (
                "-drive if=none,id=cd,media=cdrom -device ide-cd,bus=ide.1,drive=cd,id=ide2",
                "ide CD ide2 without a medium",
            ),
            (
                "-blockdev driver=rbd,pool=p,image=i,node-name=r -device virtio-blk-pci,drive=r",
                "virtio-blk on rbd p/i (raw): no page cache of the host, no aio, no iothread",
            ),
            (
                "-chardev socket,id=c,path=/v.sock -device vhost-user-blk-pci,chardev=c",
                "vhost-user-blk served by another process, at /v.sock: cache mode and aio are that \
                process's",
            ),
            (
                "-device vhost-scsi-pci,wwpn=naa.5001,id=v",
                "vhost-scsi v served outside of the VMM, by naa.5001",
            ),
            (
                "-device virtio-blk-pci,drive=gone",
                "virtio-blk on an unknown file (gone is not on the command line): no iothread",
            ),
            (
                "-blockdev driver=host_device,filename=/dev/sg1,node-name=n \
                -device virtio-scsi-pci,iothread=i -device scsi-generic,drive=n",
                "virtio-scsi on /dev/sg1 (raw): SCSI commands are handed on, past the page cache \
                (SG_IO), iothread i",
            ),
        ] {
            assert_eq!(texts(line), [expected], "{line}");
        }
    }

    #[test]
    fn what_contradicts_the_command_line_is_said_with_the_disk() {
        let contradiction = Some("QEMU does not have it open".to_owned());
        let disk = Disk {
            contradiction,
            storage: Storage::Empty,
            ..Disk::new(vslice_host::disk::Bus::Other("ide".to_owned()))
        };
        assert_eq!(text(&disk), "ide without a medium; but QEMU does not have it open");
    }
}
