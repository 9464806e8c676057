//! How QEMU reaches a disk's data: its drivers that are no formats, and the names of files that stand for them.

use super::properties::Properties;
use crate::disk::Storage;
use std::path::PathBuf;

/// What a block driver is (qemu: qapi/block-core.json, `BlockdevDriver`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It hands on what is below it, the child with this key, as it is.
    Filter(&'static str),
    /// A file or a block device of the host.
    File,
    /// Something else that QEMU reaches by itself.
    Protocol,
    /// Its data are not one thing that has a name.
    Untellable(&'static str),
    /// It lays out a disk in the child `file`.
    Format,
}

/// Drivers of files of the host. `io_uring` is libblkio's.
const FILES: [&str; 5] = ["file", "host_device", "host_cdrom", "host_floppy", "io_uring"];

const FILTERS: [(&str, &str); 12] = [
    ("throttle", "file"),
    ("copy-on-read", "file"),
    ("compress", "file"),
    ("preallocate", "file"),
    ("copy-before-write", "file"),
    ("snapshot-access", "file"),
    ("blklogwrites", "file"),
    ("replication", "file"),
    ("blkdebug", "image"),
    ("blkreplay", "image"),
    ("blkverify", "test"),
    ("backup-top", "file"),
];

const PROTOCOLS: [&str; 20] = [
    "nvme",
    "rbd",
    "nbd",
    "iscsi",
    "iser",
    "http",
    "https",
    "ftp",
    "ftps",
    "ssh",
    "gluster",
    "nfs",
    "sheepdog",
    "vxhs",
    "null-co",
    "null-aio",
    "nvme-io_uring",
    "virtio-blk-vfio-pci",
    "virtio-blk-vhost-user",
    "virtio-blk-vhost-vdpa",
];

impl Kind {
    pub(super) fn of(driver: &str) -> Kind {
        let filter = FILTERS.iter().find(|(name, _)| *name == driver);
        match driver {
            _ if FILES.contains(&driver) => Kind::File,
            _ if PROTOCOLS.contains(&driver) => Kind::Protocol,
            "vvfat" => Kind::Untellable("QEMU makes it of the files of a directory (vvfat)"),
            "quorum" => Kind::Untellable("it is a quorum of several images"),
            _ => filter.map_or(Kind::Format, |(_, child)| Kind::Filter(child)),
        }
    }
}

/// The protocol before a file's name, and the rest (qemu: block.c, `path_has_protocol`).
fn split(filename: &str) -> Option<(&str, &str)> {
    let end = filename.find([':', '/'])?;
    let rest = filename.get(end..)?.strip_prefix(':')?;
    Some((filename.get(..end)?, rest))
}

/// The name within a name that has a filter's before it: `blkdebug:CONFIG:FILE`.
pub(super) fn filtered(filename: &str) -> Option<&str> {
    let (protocol, rest) = split(filename)?;
    let (_, inner) = rest.split_once(':')?;
    matches!(protocol, "blkdebug" | "blkverify").then_some(inner)
}

/// Where the data of a node are that is no filter and no format. `filename` is a name that may have a protocol before
/// it; that among the properties has none.
pub(super) fn storage(
    driver: Option<&str>,
    filename: Option<&str>,
    properties: &Properties,
) -> Storage {
    let driver = match (driver, filename.and_then(split)) {
        (Some(driver), _) => driver,
        (None, Some((protocol, rest))) => return by_name(protocol, rest),
        (None, None) => "file",
    };
    let named = filename.or_else(|| properties.get("filename"));
    match Kind::of(driver) {
        Kind::File => named.map_or_else(
            || unknown("its driver names no file"),
            |name| {
                file(
                    name.strip_prefix(driver)
                        .and_then(|rest| rest.strip_prefix(':'))
                        .unwrap_or(name),
                )
            },
        ),
        Kind::Protocol => match filename.and_then(split) {
            Some((protocol, rest)) => by_name(protocol, rest),
            None => by_properties(driver, properties),
        },
        Kind::Untellable(reason) => unknown(reason),
        Kind::Filter(_) | Kind::Format => unknown(&format!("QEMU's driver {driver} is not known")),
    }
}

fn unknown(reason: &str) -> Storage {
    Storage::Unknown { reason: reason.to_owned() }
}

/// What QEMU was handed open under this name, which it has in QEMU only.
fn handed(name: &str) -> Option<String> {
    let number = name.strip_prefix("/dev/fd/").or_else(|| name.strip_prefix("/proc/self/fd/"));
    let set = name.strip_prefix("/dev/fdset/").map(|set| format!("set {set} of file descriptors"));
    set.or_else(|| number.map(|number| format!("file descriptor {number}")))
}

/// A file of the host.
fn file(name: &str) -> Storage {
    match handed(name) {
        Some(what) => unknown(&format!("it was handed to QEMU open, as {what}")),
        None if name.is_empty() => Storage::Empty,
        None => Storage::file(name),
    }
}

fn protocol(driver: &str, place: Option<String>) -> Storage {
    Storage::Protocol { driver: driver.to_owned(), place, socket: None }
}

/// By a name such as `nbd:unix:/x.sock`. What it has for authentication is left out.
fn by_name(name: &str, rest: &str) -> Storage {
    let uri = uri(rest);
    let first = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
    match name {
        "file" | "host_device" | "host_cdrom" | "host_floppy" => file(rest),
        "nbd" | "nbd+tcp" | "nbd+unix" | "nbds" | "nbds+tcp" | "nbds+unix" => nbd_by_name(rest),
        // Options, a key among them, are behind colons.
        "rbd" => protocol("rbd", Some(first(rest))),
        "nvme" => {
            let (device, namespace) = uri.split_once('/').unwrap_or((&uri, "1"));
            protocol("nvme", Some(format!("{device} namespace {namespace}")))
        }
        "iscsi" | "iser" => {
            let parts: Vec<&str> = uri.splitn(3, '/').collect();
            let place = match parts[..] {
                [portal, target, lun] => format!("{portal} {target} LUN {lun}"),
                _ => uri,
            };
            protocol(name, Some(place))
        }
        "http" | "https" | "ftp" | "ftps" => protocol(name, Some(format!("{name}://{uri}"))),
        "gluster" | "gluster+tcp" | "gluster+unix" | "gluster+rdma" => {
            protocol("gluster", Some(uri))
        }
        "fat" => unknown("QEMU makes it of the files of a directory (vvfat)"),
        "json" => unknown("its name is JSON that cannot be read"),
        _ if PROTOCOLS.contains(&name) => protocol(name, Some(uri).filter(|uri| !uri.is_empty())),
        _ => unknown(&format!("its name has the protocol {name} before it, which is not known")),
    }
}

/// What is behind `//`, without a user's name and password before it and a query behind it.
fn uri(rest: &str) -> String {
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let rest = rest.split('?').next().unwrap_or_default();
    let (host, path) = rest.find('/').map_or((rest, ""), |end| rest.split_at(end));
    format!("{}{path}", host.rsplit('@').next().unwrap_or_default())
}

fn nbd_by_name(rest: &str) -> Storage {
    let socket = rest.split_once("socket=").map(|(_, socket)| socket);
    let socket = socket.map(|socket| socket.split('&').next().unwrap_or_default());
    let export =
        |name: &str| Some(name.trim_start_matches('/').to_owned()).filter(|name| !name.is_empty());
    if rest.starts_with("//") {
        let uri = uri(rest);
        let (host, path) = uri.find('/').map_or((&*uri, ""), |end| uri.split_at(end));
        return nbd(socket, Some(host), export(path).as_deref());
    }
    let (place, name) = match rest.split_once(":exportname=") {
        Some((place, name)) => (place, export(name)),
        None => (rest, None),
    };
    match place.strip_prefix("unix:") {
        Some(path) => nbd(Some(path), None, name.as_deref()),
        None => nbd(None, Some(place), name.as_deref()),
    }
}

fn nbd(socket: Option<&str>, host: Option<&str>, export: Option<&str>) -> Storage {
    let place = socket.or(host).map(|place| match export {
        Some(export) => format!("{place} export {export}"),
        None => place.to_owned(),
    });
    Storage::Protocol { driver: "nbd".to_owned(), place, socket: socket.map(PathBuf::from) }
}

/// By the keys of the driver's node (qemu: qapi/block-core.json, `BlockdevOptions`).
fn by_properties(driver: &str, properties: &Properties) -> Storage {
    let get = |key: &str| properties.get(key);
    let join = |separator: &str, keys: &[&str]| {
        let parts: Vec<&str> =
            keys.iter().filter_map(|key| get(key)).filter(|part| !part.is_empty()).collect();
        Some(parts.join(separator)).filter(|place| !place.is_empty())
    };
    let address = |prefix: &str| {
        let host = join("", &[&format!("{prefix}host")])
            .or_else(|| join("", &[&format!("{prefix}path")]))?;
        Some(match get(&format!("{prefix}port")) {
            Some(port) => format!("{host}:{port}"),
            None => host,
        })
    };
    let both = |host: Option<String>, path: Option<String>| {
        let parts: Vec<String> = host.into_iter().chain(path).collect();
        Some(parts.join(" ")).filter(|place| !place.is_empty())
    };
    match driver {
        "nbd" => {
            let socket = get("server.path").or_else(|| get("path"));
            let host = address("server.").or_else(|| address(""));
            nbd(socket, host.as_deref(), get("export").filter(|export| !export.is_empty()))
        }
        "rbd" => protocol(
            driver,
            join("/", &["pool", "namespace", "image"]).map(|place| {
                get("snapshot").map_or(place.clone(), |snapshot| format!("{place}@{snapshot}"))
            }),
        ),
        "nvme" => protocol(
            driver,
            both(
                join("", &["device"]),
                get("namespace").map(|namespace| format!("namespace {namespace}")),
            ),
        ),
        "iscsi" | "iser" => protocol(
            driver,
            both(join(" ", &["portal", "target"]), get("lun").map(|lun| format!("LUN {lun}"))),
        ),
        "http" | "https" | "ftp" | "ftps" => {
            match get("url").or_else(|| get("filename")).and_then(split) {
                Some((name, rest)) => by_name(name, rest),
                None => protocol(driver, None),
            }
        }
        "gluster" => protocol(driver, both(address("server.0."), join("/", &["volume", "path"]))),
        "ssh" | "nfs" => protocol(
            driver,
            both(address("server.").or_else(|| join(":", &["host", "port"])), join("", &["path"])),
        ),
        "virtio-blk-vhost-user" => Storage::Protocol {
            driver: driver.to_owned(),
            place: join("", &["path"]),
            socket: get("path").map(PathBuf::from),
        },
        _ => match get("filename").and_then(split) {
            Some((name, rest)) if name == driver => by_name(name, rest),
            _ => {
                let path = get("path").map(|path| handed(path).unwrap_or_else(|| path.to_owned()));
                protocol(driver, path.or_else(|| join(" ", &["vdi", "vdisk-id"])))
            }
        },
    }
}
