//! Firecracker's command line, and the configuration that it reads from a file or tells over its API
//! (firecracker/src/vmm/src/vmm_config/drive.rs).

use super::{Aio, VmmArgs, disk, values};
use crate::disk::{Disk, Storage};
use crate::helper::HelperRole;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use vslice_trace::vmm::Vmm;

/// Where it listens if it is not told (firecracker/src/firecracker/src/main.rs).
const API_SOCKET: &str = "/run/firecracker.socket";

pub(super) fn parse(words: &[String], read: impl Fn(&Path) -> Option<String>) -> VmmArgs {
    let value = |name: &str| values(words, &[name]).first().copied();
    let file = value("--config-file").map(Path::new);
    let disks = file.and_then(|file| drives(&read(file)?));
    let note = match (&disks, file) {
        (Some(_), _) => None,
        (None, Some(file)) => Some(format!("{} cannot be read", file.display())),
        (None, None) => Some("Firecracker was told of them over its API".to_owned()),
    };
    let sockets = disks
        .iter()
        .flatten()
        .filter_map(|disk| Some((disk.storage.socket()?.to_owned(), HelperRole::Disk)));
    let has_api = !words.iter().any(|word| word == "--no-api");
    let api = value("--api-sock").unwrap_or(API_SOCKET);
    VmmArgs {
        name: value("--id").map(str::to_owned),
        backends: sockets.collect(),
        disk_notes: note.into_iter().collect(),
        api_socket: has_api.then(|| PathBuf::from(api)),
        disks,
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    drives: Vec<Drive>,
}

#[derive(Deserialize)]
struct Drive {
    drive_id: String,
    path_on_host: Option<String>,
    socket: Option<String>,
    cache_type: Option<String>,
    io_engine: Option<String>,
}

/// The disks of a configuration, which is that of a file or the answer to `GET /vm/config`; `None` if it is none.
#[must_use]
pub fn drives(config: &str) -> Option<Vec<Disk>> {
    let config: Config = serde_json::from_str(config).ok()?;
    Some(config.drives.into_iter().map(disk_of).collect())
}

/// Its main thread serves them all, and knows no other format than raw. `io_engine` is `Sync`, which is read(2) in that
/// thread and so no asynchronous I/O, or `Async`. What is not told was not the same in all of its versions.
fn disk_of(drive: Drive) -> Disk {
    let is_file = drive.socket.is_none();
    let storage = match (drive.socket, drive.path_on_host) {
        (Some(socket), _) => Storage::VhostUser { socket: Some(socket.into()) },
        (None, Some(path)) => Storage::file(path),
        (None, None) => Storage::untold(),
    };
    let is_engine = |name| drive.io_engine.as_deref() == Some(name);
    let is_unsafe = drive.cache_type.map(|cache| cache == "Unsafe");
    Disk {
        id: Some(drive.drive_id),
        format: is_file.then(|| "raw".to_owned()),
        ignores_flushes: is_unsafe,
        aio: is_engine("Async").then_some(Aio::IoUring),
        is_synchronous: is_engine("Sync"),
        ..disk(Vmm::Firecracker, storage, None)
    }
}
