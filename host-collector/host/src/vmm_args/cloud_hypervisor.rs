//! Cloud Hypervisor's command line (cloud-hypervisor/vmm/src/config.rs).

use super::{Keys, VmmArgs, disk, values};
use crate::disk::{Disk, Storage};
use crate::helper::HelperRole;
use crate::procfs::COMM_BYTES_MAX;
use std::collections::BTreeSet;
use std::path::PathBuf;
use vslice_trace::vmm::Vmm;

/// Without one of these it makes no VM of its command line, but is told one over its API.
const PAYLOADS: [&str; 4] = ["--kernel", "--firmware", "--igvm", "--tdx"];

pub(super) fn parse(words: &[String]) -> VmmArgs {
    let is_told = !values(words, &PAYLOADS).is_empty();
    let each = |option: &str| several(words, option).into_iter().map(Keys::parse);
    let vhost_user = |option: &'static str, role| {
        let sockets = each(option).filter(move |keys| {
            option != "--net" && option != "--disk" || keys.switch("vhost_user") == Some(true)
        });
        sockets.filter_map(move |keys| Some((PathBuf::from(keys.get("socket")?), role)))
    };
    let backends = vhost_user("--disk", HelperRole::Disk)
        .chain(vhost_user("--net", HelperRole::Network))
        .chain(vhost_user("--fs", HelperRole::FileSystem))
        .chain(vhost_user("--generic-vhost-user", HelperRole::Device))
        .chain(vhost_user("--user-device", HelperRole::Device))
        .chain(vhost_user("--tpm", HelperRole::Tpm));
    let api = values(words, &["--api-socket"]);
    // `path=...` or the path alone.
    let api = api.first().and_then(|text| Keys::with_first(text, "path").get("path"));
    VmmArgs {
        name: None,
        disks: is_told.then(|| each("--disk").map(|keys| disk_of(&keys)).collect()),
        disk_notes: Vec::new(),
        backends: backends.collect(),
        api_socket: api.map(PathBuf::from),
    }
}

/// An option may have several values: `--disk path=a path=b`.
fn several<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut is_within = false;
    for word in words {
        match word.strip_prefix(option) {
            Some("") => is_within = true,
            Some(rest) if rest.starts_with('=') => {
                found.push(&rest[1..]);
                is_within = true;
            }
            _ if word.starts_with('-') => is_within = false,
            _ if is_within => found.push(word),
            _ => {}
        }
    }
    found
}

/// Whether its file is opened past the page cache is told by `direct` alone; the format is found out by the content
/// unless `image_type` tells, and how it is read depends on what the host offers.
fn disk_of(keys: &Keys<'_>) -> Disk {
    let is_vhost_user = keys.switch("vhost_user") == Some(true);
    let storage = match (is_vhost_user, keys.get("path")) {
        (true, _) => Storage::VhostUser { socket: keys.get("socket").map(PathBuf::from) },
        (false, Some(path)) => Storage::file(path),
        (false, None) => Storage::untold(),
    };
    let format = keys.get("image_type").filter(|format| *format != "unknown");
    Disk {
        id: keys.get("id").map(str::to_owned),
        format: format.map(str::to_owned),
        queues: keys.get("num_queues").and_then(|queues| queues.parse().ok()),
        ..disk(Vmm::CloudHypervisor, storage, keys.switch("direct").filter(|_| !is_vhost_user))
    }
}

/// The prefix of the ids that it makes itself.
const OWN_IDS: &str = "_disk";

/// See [`note_threads`](super::note_threads).
pub(super) fn note_threads(disks: &mut [Disk], names: &[&str]) {
    let own_number = |name: &str| {
        let (id, _) = name.strip_prefix(OWN_IDS)?.rsplit_once("_q")?;
        id.parse::<u32>().ok()
    };
    let own: BTreeSet<u32> = names.iter().filter_map(|name| own_number(name)).collect();
    let is_without_id = |disk: &&Disk| disk.id.is_none();
    let is_whole = disks.iter().filter(is_without_id).count() == own.len();
    let mut own = own.into_iter();
    for disk in disks {
        // A vhost-user disk has an id and a thread too.
        let number = if disk.id.is_none() { own.next() } else { None };
        let is_named = |name: &&&str| match &disk.id {
            Some(id) => is_queue_of(name, id),
            None => is_whole && own_number(name).is_some() && own_number(name) == number,
        };
        disk.iothreads = names.iter().filter(is_named).map(|name| (*name).to_owned()).collect();
        if disk.iothreads.is_empty() && disk.storage.path().is_some() {
            disk.iothreads_missing = Some("no thread's name tells".to_owned());
        }
    }
}

/// Whether the thread of this name serves a queue of the disk with this id. A name has 15 bytes at most.
fn is_queue_of(name: &str, id: &str) -> bool {
    let number = name.rsplit_once("_q").filter(|(head, _)| *head == id).map(|(_, number)| number);
    let is_whole = number.is_some_and(|number| number.parse::<u16>().is_ok());
    is_whole || name.len() == COMM_BYTES_MAX && format!("{id}_q").starts_with(name)
}
