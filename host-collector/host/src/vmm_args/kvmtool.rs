//! kvmtool's command line (kvmtool: builtin-run.c, disk/core.c).

use super::{VmmArgs, disk, values};
use crate::disk::{Disk, Storage};
use vslice_trace::vmm::Vmm;

pub(super) fn parse(words: &[String]) -> VmmArgs {
    let mut disks = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let rest = &words[place + 1..];
        match word.as_str() {
            "-d" | "--disk" => {
                disks.extend(rest.split_first().map(|(text, flags)| disk_of(text, flags)))
            }
            _ => disks.extend(word.strip_prefix("--disk=").map(|text| disk_of(text, rest))),
        }
    }
    VmmArgs {
        name: values(words, &["--name"]).first().map(|name| (*name).to_owned()),
        disks: Some(disks),
        disk_notes: Vec::new(),
        backends: Vec::new(),
        api_socket: None,
    }
}

/// `PATH[,ro][,direct]`. While it reads this, kvmtool puts ends where the commas are, so that what follows them are
/// words of their own on the command line of a running one.
fn disk_of(text: &str, rest: &[String]) -> Disk {
    if let Some(target) = text.strip_prefix("scsi:") {
        let device = target.split([':', ',']).next().unwrap_or_default().to_owned();
        return disk(Vmm::Kvmtool, Storage::Vhost { device }, None);
    }
    let (path, flags) = text.split_once(',').unwrap_or((text, ""));
    let cut_off = rest.iter().map(String::as_str).take_while(|word| !word.starts_with('-'));
    let is_direct = flags.split(',').chain(cut_off).any(|flag| flag == "direct");
    disk(Vmm::Kvmtool, Storage::file(path), is_direct.then_some(true))
}
