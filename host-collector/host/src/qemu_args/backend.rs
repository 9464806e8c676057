//! The Unix sockets behind which other processes serve devices of a QEMU.

use super::options::options;
use super::properties::Properties;
use super::sockets::chardevs;
use super::{QemuArgs, SocketPlace};
use crate::helper::HelperRole;
use std::collections::BTreeMap;

/// Where somebody serves a device of a QEMU with this command line, and what.
#[must_use]
pub fn backend_sockets(words: &[String]) -> Vec<(SocketPlace, HelperRole)> {
    let options = options(words);
    let values = |name: &'static str, implied| {
        let of_name = options.iter().filter(move |(option, _)| *option == name);
        of_name.map(move |(_, value)| Properties::parse(value, implied))
    };
    let chardevs = chardevs(values("chardev", "backend"));
    let mut found = Vec::new();
    for device in values("device", "driver") {
        let driver = device.get("driver").unwrap_or_default();
        if driver.starts_with("vhost-user-") {
            found.extend(behind(&device, &chardevs, device_role(driver)));
        }
        // qemu: hw/vfio-user (10.1); `socket` in the forms before it.
        let path = device.get("socket.path").or_else(|| device.get("socket"));
        let path = path.filter(|_| driver.starts_with("vfio-user-"));
        found.extend(path.map(|path| (SocketPlace::Path(path.into()), HelperRole::Device)));
    }
    for network in values("netdev", "type") {
        match network.get("type") {
            Some("vhost-user") => found.extend(behind(&network, &chardevs, HelperRole::Network)),
            Some("stream" | "dgram") => found.extend(
                ["addr", "remote"]
                    .into_iter()
                    .filter_map(|key| address(&network, key))
                    .map(|place| (place, HelperRole::Network)),
            ),
            _ => {}
        }
    }
    let tpms = values("tpmdev", "type").filter(|tpm| tpm.get("type") == Some("emulator"));
    found.extend(tpms.filter_map(|tpm| behind(&tpm, &chardevs, HelperRole::Tpm)));
    let objects = values("object", "qom-type");
    let crypto = objects.filter(|object| object.get("qom-type") == Some("cryptodev-vhost-user"));
    found.extend(crypto.filter_map(|object| behind(&object, &chardevs, HelperRole::Device)));
    // NBD servers, at any depth of the block graph.
    for node in values("blockdev", "driver").chain(values("drive", "file")) {
        let paths = node.all(|key| key == "server.path" || key.ends_with(".server.path"));
        found.extend(paths.map(|path| (SocketPlace::Path(path.into()), HelperRole::Disk)));
    }
    // Those that a disk's file name or another driver names.
    for disk in QemuArgs::parse(words).disks {
        let place = disk.storage.socket().map(|path| SocketPlace::Path(path.to_owned()));
        let new = place.filter(|place| found.iter().all(|(other, _)| other != place));
        found.extend(new.map(|place| (place, HelperRole::Disk)));
    }
    found
}

fn device_role(driver: &str) -> HelperRole {
    let rest = driver.strip_prefix("vhost-user-").unwrap_or(driver);
    match rest.split('-').next() {
        Some("blk" | "scsi") => HelperRole::Disk,
        Some("fs") => HelperRole::FileSystem,
        Some("net") => HelperRole::Network,
        _ => HelperRole::Device,
    }
}

/// The socket of the character device that this has.
fn behind(
    user: &Properties,
    chardevs: &BTreeMap<String, SocketPlace>,
    role: HelperRole,
) -> Option<(SocketPlace, HelperRole)> {
    Some((chardevs.get(user.get("chardev")?)?.clone(), role))
}

/// A `SocketAddress` (qemu: qapi/sockets.json) that is a Unix socket.
fn address(properties: &Properties, key: &str) -> Option<SocketPlace> {
    let get = |part: &str| properties.get(&format!("{key}.{part}"));
    match get("type")? {
        "unix" => Some(SocketPlace::Path(get("path")?.into())),
        "fd" => get("str")?.parse().ok().map(SocketPlace::Fd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_of_another_process_has_its_socket() {
        let line = r#"qemu -chardev socket,id=a,path=/blk -chardev socket,id=b,fd=31
            -device vhost-user-blk-pci,chardev=a -device {"driver":"vhost-user-fs-pci","chardev":"b","tag":"t"}
            -chardev socket,id=c,path=/ovs,server=on -netdev vhost-user,id=n,chardev=c
            -netdev {"type":"stream","id":"m","addr":{"type":"unix","path":"/passt"},"server":false}
            -chardev socket,id=d,path=/tpm -tpmdev emulator,id=t,chardev=d
            -chardev socket,id=e,path=/serial -device virtserialport,chardev=e
            -blockdev driver=raw,node-name=r,file.driver=nbd,file.server.type=unix,file.server.path=/nbd
            -device {"driver":"vfio-user-pci","socket":{"type":"unix","path":"/nvme"}}
            -netdev stream,id=o,addr.type=inet,addr.host=h,addr.port=1
            -drive if=virtio,file=nbd:unix:/by-name:exportname=e -device virtio-blk-pci,drive=v
            -blockdev driver=virtio-blk-vhost-user,path=/blkio,node-name=v"#;
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let path = |path: &str, role| (SocketPlace::Path(path.into()), role);
        assert_eq!(
            backend_sockets(&words),
            [
                path("/blk", HelperRole::Disk),
                (SocketPlace::Fd(31), HelperRole::FileSystem),
                path("/nvme", HelperRole::Device),
                path("/ovs", HelperRole::Network),
                path("/passt", HelperRole::Network),
                path("/tpm", HelperRole::Tpm),
                path("/nbd", HelperRole::Disk),
                path("/blkio", HelperRole::Disk),
                path("/by-name", HelperRole::Disk),
            ]
        );
    }
}
