//! What a VMM other than QEMU was started with: its disks, and the sockets behind which others serve its devices.
//! Pure: a command line in, facts out.
//!
//! Firecracker and Cloud Hypervisor may be told over their API instead, and change disks while they run: then nothing
//! is told here.

mod cloud_hypervisor;
mod crosvm;
mod firecracker;
mod kvmtool;

use crate::disk::{Aio, Bus, DirectSource, Disk, DiskBus, Storage};
use crate::helper::HelperRole;
use std::path::{Path, PathBuf};
use vslice_trace::vmm::Vmm;

pub use firecracker::drives as firecracker_drives;

/// What a command line says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VmmArgs {
    /// The VM's name: Firecracker's `--id`, crosvm's and kvmtool's `--name`. Cloud Hypervisor has none.
    pub name: Option<String>,
    /// Its disks, in the order of the command line; `None` if that does not tell.
    pub disks: Option<Vec<Disk>>,
    /// What it leaves open of its disks, as sentences without their ends.
    pub disk_notes: Vec<String>,
    /// The sockets behind which other processes serve its devices.
    pub backends: Vec<(PathBuf, HelperRole)>,
    /// The socket of its API.
    pub api_socket: Option<PathBuf>,
}

impl VmmArgs {
    /// Reads the command line of such a VMM, the program's own name first; `read` gets the text of a file that it
    /// names.
    #[must_use]
    pub fn parse(vmm: Vmm, words: &[String], read: impl Fn(&Path) -> Option<String>) -> VmmArgs {
        match vmm {
            Vmm::Firecracker => firecracker::parse(words, read),
            Vmm::CloudHypervisor => cloud_hypervisor::parse(words),
            Vmm::Crosvm => crosvm::parse(words),
            Vmm::Kvmtool => kvmtool::parse(words),
            Vmm::Qemu | Vmm::Other => VmmArgs::default(),
        }
    }
}

/// Notes which of the threads with these names serve the disks of a VM.
///
/// Cloud Hypervisor calls the thread of a queue after its disk's id, which it numbers itself where it is not told
/// (cloud-hypervisor/virtio-devices/src/block.rs; cloud-hypervisor/vmm/src/device_manager.rs,
/// `next_device_name`): these ids ascend in
/// the order of the disks, with other devices' between them. In crosvm and kvmtool each disk has a thread, and all of
/// them are called the same.
pub(crate) fn note_threads(vmm: Vmm, disks: &mut [Disk], names: &[&str]) {
    let own = |disk: &&mut Disk| disk.storage.path().is_some() && disk.iothreads_missing.is_none();
    let all = match vmm {
        Vmm::CloudHypervisor => return cloud_hypervisor::note_threads(disks, names),
        Vmm::Crosvm => "virtio_blk",
        Vmm::Kvmtool => "virtio-blk-io",
        _ => return,
    };
    for disk in disks.iter_mut().filter(own) {
        if names.contains(&all) {
            disk.iothreads = vec![all.to_owned()];
        } else {
            disk.iothreads_missing = Some(format!("no thread is called {all}"));
        }
    }
}

/// The values of an option that has any of these names, each in either of the forms `--name a` and `--name=a`.
fn values<'a>(words: &'a [String], names: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (place, word) in words.iter().enumerate() {
        for name in names {
            match word.strip_prefix(name) {
                Some("") => found.extend(words.get(place + 1).map(String::as_str)),
                Some(rest) => found.extend(rest.strip_prefix('=')),
                None => {}
            }
        }
    }
    found
}

/// The keys and values of `a=b,c=d`. A key alone is a switch that is on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keys<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Keys<'a> {
    /// Splits at commas that are not within quotes or brackets.
    fn parse(text: &'a str) -> Keys<'a> {
        let (mut depth, mut is_quoted) = (0_usize, false);
        let is_end = move |letter: char| {
            match letter {
                '"' => is_quoted = !is_quoted,
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            letter == ',' && depth == 0 && !is_quoted
        };
        let pair = |part: &'a str| part.split_once('=').unwrap_or((part, ""));
        Keys(text.split(is_end).map(pair).collect())
    }

    /// The same where the value of the first key may stand alone.
    fn with_first(text: &'a str, key: &'a str) -> Keys<'a> {
        let mut keys = Keys::parse(text);
        if let Some(first) = keys.0.first_mut().filter(|(_, value)| value.is_empty()) {
            *first = (key, first.0);
        }
        keys
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        let value =
            self.0.iter().find(|(other, _)| *other == key).map(|(_, value)| value.trim())?;
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        Some(bare.unwrap_or(value))
    }

    /// How a switch stands, if it is told.
    fn switch(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            "" | "on" | "true" | "1" => Some(true),
            "off" | "false" | "0" => Some(false),
            _ => None,
        }
    }
}

/// A virtio-blk disk of a VMM.
fn disk(vmm: Vmm, storage: Storage, is_direct: Option<bool>) -> Disk {
    Disk {
        vmm,
        storage,
        is_direct,
        is_direct_from: is_direct.map(|_| DirectSource::CommandLine),
        ..Disk::new(Bus::Known(DiskBus::VirtioBlk))
    }
}

#[cfg(test)]
mod tests;
