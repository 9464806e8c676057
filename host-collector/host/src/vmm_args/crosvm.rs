//! crosvm's command line (crosvm/src/crosvm/cmdline.rs,
//! crosvm/devices/src/virtio/block/mod.rs).

use super::{Aio, Keys, VmmArgs, disk, values};
use crate::disk::{Bus, Disk, DiskBus, Storage};
use crate::helper::HelperRole;
use std::path::PathBuf;
use vslice_trace::vmm::Vmm;

/// `--block`, and the options before it.
const DISKS: [&str; 10] =
    ["--block", "-b", "--disk", "-d", "--rwdisk", "--root", "-r", "--rwroot", "--qcow", "--rwqcow"];

pub(super) fn parse(words: &[String]) -> VmmArgs {
    // In a sandbox, which is the default, a process of its own serves each device.
    let is_sandboxed = !words.iter().any(|word| word == "--disable-sandbox");
    let with_server = |disk: Disk| {
        let reason = "crosvm has a process of its own for it".to_owned();
        let is_elsewhere = is_sandboxed && disk.storage.path().is_some();
        Disk { iothreads_missing: is_elsewhere.then_some(reason), ..disk }
    };
    let files = values(words, &DISKS).into_iter().map(|text| block(text, DiskBus::VirtioBlk));
    let scsi =
        values(words, &["--scsi-block"]).into_iter().map(|text| block(text, DiskBus::VirtioScsi));
    let users = values(words, &["--vhost-user"]).into_iter().filter_map(vhost_user);
    let old = [
        ("--vhost-user-blk", HelperRole::Disk),
        ("--vhost-user-fs", HelperRole::FileSystem),
        ("--vhost-user-net", HelperRole::Network),
    ];
    let old = old.into_iter().flat_map(|(option, role)| {
        // `--vhost-user-fs PATH:TAG`
        let paths = values(words, &[option]).into_iter();
        paths.filter_map(move |text| Some((PathBuf::from(text.split([':', ',']).next()?), role)))
    });
    let backends: Vec<(PathBuf, HelperRole)> = users.chain(old).collect();
    let served =
        backends.iter().filter(|(_, role)| *role == HelperRole::Disk).map(|(socket, _)| {
            disk(Vmm::Crosvm, Storage::VhostUser { socket: Some(socket.clone()) }, None)
        });
    VmmArgs {
        name: values(words, &["--name"]).first().map(|name| (*name).to_owned()),
        disks: Some(files.chain(scsi).map(with_server).chain(served).collect()),
        disk_notes: Vec::new(),
        api_socket: None,
        backends,
    }
}

fn block(text: &str, bus: DiskBus) -> Disk {
    let keys = Keys::with_first(text, "path");
    let storage = keys.get("path").map_or_else(Storage::untold, Storage::file);
    let is_direct = keys.switch("direct").or_else(|| keys.switch("o_direct"));
    let executor = keys.get("async-executor").or_else(|| keys.get("async_executor"));
    Disk {
        id: keys.get("id").map(str::to_owned),
        aio: executor.filter(|executor| *executor == "uring").map(|_| Aio::IoUring),
        bus: Bus::Known(bus),
        ..disk(Vmm::Crosvm, storage, is_direct)
    }
}

/// `[type=]TYPE,socket=PATH`.
fn vhost_user(text: &str) -> Option<(PathBuf, HelperRole)> {
    let keys = Keys::with_first(text, "type");
    let role = match keys.get("type")? {
        "block" | "scsi" => HelperRole::Disk,
        "fs" => HelperRole::FileSystem,
        "net" => HelperRole::Network,
        _ => HelperRole::Device,
    };
    Some((PathBuf::from(keys.get("socket")?), role))
}
