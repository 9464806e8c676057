//! A disk as QEMU's arguments.

use crate::disk::{Bus, Disk, DiskBus};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;

/// The arguments of a disk whose node has this name: its image, and the devices that the guest sees. Its
/// iothreads are for others to make. What the disk does not tell is left to QEMU,
/// but for the format: a node has to have one, and it is `raw`.
///
/// The form is that of QEMU 2.12 and later; a disk of another bus has no devices.
#[must_use]
pub fn disk_args(disk: &Disk, node: &str) -> Vec<OsString> {
    let mut args = vec!["-blockdev".into(), block_device(disk, node)];
    let is_virtio = matches!(disk.bus, Bus::Known(bus) if bus.is_virtio());
    let devices = match disk.iothreads.len() {
        2.. if is_virtio => mapped_devices(disk, node),
        _ => {
            let write_cache = switch(",write-cache=", disk.has_write_cache);
            disk_devices(disk, &format!("drive={node}{write_cache}"))
        }
    };
    for device in devices {
        args.extend(["-device".into(), device.into()]);
    }
    args
}

fn block_device(disk: &Disk, node: &str) -> OsString {
    let format = disk.format.as_deref().unwrap_or("raw");
    let before = format!("driver={format},node-name={node},file.driver=file,file.filename=");
    let aio = disk.aio.map(|aio| format!(",file.aio={}", aio.name())).unwrap_or_default();
    let direct = switch(",cache.direct=", disk.is_direct);
    let no_flush = switch(",cache.no-flush=", disk.ignores_flushes);
    let path = disk.path().unwrap_or(Path::new(""));
    option(&before, path, &format!("{aio}{direct}{no_flush}"))
}

fn switch(key: &str, is_on: Option<bool>) -> String {
    is_on.map(|is_on| format!("{key}{}", on_off(is_on))).unwrap_or_default()
}

fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

/// The devices of a disk that at most one iothread serves; `drive` names its image and says how the
/// guest is to see its cache.
#[must_use]
pub fn disk_devices(disk: &Disk, drive: &str) -> Vec<String> {
    let mut virtio = String::new();
    if let Some(id) = disk.iothreads.first() {
        virtio.push_str(&format!(",iothread={id}"));
    }
    virtio.push_str(&switch(",ioeventfd=", disk.ioeventfd));
    if disk.msix == Some(false) {
        virtio.push_str(",vectors=0");
    }
    let queues = |property| disk.queues.map(|n| format!(",{property}={n}")).unwrap_or_default();
    match disk.bus {
        Bus::Known(DiskBus::VirtioBlk) => {
            vec![format!("virtio-blk-pci,{drive}{virtio}{}", queues("num-queues"))]
        }
        Bus::Known(DiskBus::VirtioScsi) => vec![
            format!("virtio-scsi-pci{virtio}{}", queues("num_queues")),
            format!("scsi-hd,{drive}"),
        ],
        Bus::Known(DiskBus::Ide) => vec![format!("ide-hd,{drive}")],
        Bus::Known(DiskBus::Ahci) => {
            vec!["ich9-ahci,id=ahci0".to_owned(), format!("ide-hd,bus=ahci0.0,{drive}")]
        }
        Bus::Known(DiskBus::Nvme) => vec![format!("nvme,serial=vslice,{drive}")],
        Bus::Other(_) => Vec::new(),
    }
}

/// The devices of a virtio disk whose queues are spread over iothreads, which QEMU takes as JSON only.
fn mapped_devices(disk: &Disk, node: &str) -> Vec<String> {
    let is_scsi = disk.bus == Bus::Known(DiskBus::VirtioScsi);
    let iothreads: Vec<Value> = disk.iothreads.iter().map(|id| json!({ "iothread": id })).collect();
    let mut device = json!({ "iothread-vq-mapping": iothreads });
    device["driver"] = if is_scsi { "virtio-scsi-pci" } else { "virtio-blk-pci" }.into();
    if let Some(queues) = disk.queues {
        device[if is_scsi { "num_queues" } else { "num-queues" }] = queues.into();
    }
    if disk.msix == Some(false) {
        device["vectors"] = 0.into();
    }
    let add_drive = |device: &mut Value| {
        device["drive"] = node.into();
        if let Some(is_on) = disk.has_write_cache {
            device["write-cache"] = on_off(is_on).into();
        }
    };
    if is_scsi {
        // QEMU makes what it is told in JSON after all that it is told otherwise (softmmu/vl.c,
        // `qemu_create_cli_devices`), so the disk would look for its controller in vain.
        let mut disk = json!({ "driver": "scsi-hd" });
        add_drive(&mut disk);
        return vec![device.to_string(), disk.to_string()];
    }
    add_drive(&mut device);
    vec![device.to_string()]
}

/// `before`, a path, `after`. In QEMU's option lists a comma in a value is written twice.
#[must_use]
pub fn option(before: &str, path: &Path, after: &str) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = before.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    bytes.extend(after.as_bytes());
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Aio, Cache, Storage};
    use crate::qemu_args::QemuArgs;
    use proptest::prelude::*;

    /// Any disk that a plan can have: what is virtio's only virtio disks have.
    fn any_disk() -> impl Strategy<Value = Disk> {
        let bus = prop::sample::select(DiskBus::ALL.to_vec());
        let cache = prop::sample::select(Cache::ALL.to_vec());
        let aio = prop::sample::select(Aio::ALL.to_vec());
        let virtio = (0_usize..4, prop::option::of(1_u16..9), any::<bool>(), any::<bool>());
        (bus, "/[a-z,=.]{1,12}", cache, aio, virtio).prop_map(
            |(bus, path, cache, aio, (iothreads, queues, ioeventfd, msix))| {
                let disk = Disk {
                    storage: Storage::file(path),
                    format: Some("raw".to_owned()),
                    aio: Some(aio),
                    // Without one QEMU refuses it.
                    serial: (bus == DiskBus::Nvme).then(|| "vslice".to_owned()),
                    ..Disk::new(Bus::Known(bus)).cached(cache)
                };
                if !bus.is_virtio() {
                    return disk;
                }
                Disk {
                    iothreads: (0..iothreads).map(|index| format!("io{index}")).collect(),
                    queues,
                    // QEMU refuses a dataplane without it, so no plan has both.
                    ioeventfd: (!ioeventfd && iothreads == 0).then_some(false),
                    msix: (!msix).then_some(false),
                    ..disk
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_disk_that_is_written_is_read_again(disk in any_disk()) {
            let words = disk_args(&disk, "disk0").into_iter();
            let words = words.map(|word| word.into_string().expect("UTF-8"));
            let line: Vec<String> = std::iter::once("qemu".to_owned()).chain(words).collect();
            prop_assert_eq!(QemuArgs::parse(&line).disks, [disk]);
        }
    }
}
