//! The drives of a command line, whatever option made them.

use super::Line;
use super::machine::Machine;
use super::properties::Properties;

/// Options that are short for a drive, with what they say beside its file (qemu: system/vl.c, `drive_add`).
const SHORT: [(&str, &str, &str); 11] = [
    ("hda", "media", "disk"),
    ("hdb", "media", "disk"),
    ("hdc", "media", "disk"),
    ("hdd", "media", "disk"),
    ("cdrom", "media", "cdrom"),
    ("fda", "if", "floppy"),
    ("fdb", "if", "floppy"),
    ("sd", "if", "sd"),
    ("mtdblock", "if", "mtd"),
    ("pflash", "if", "pflash"),
    ("drive", "", ""),
];

/// All drives, in the order of the command line.
pub(super) fn all(line: &Line<'_>, machine: &Machine) -> Vec<Properties> {
    let mut told = line.with_sets("drive", "file").into_iter();
    let mut drives: Vec<Properties> = Vec::new();
    for (option, value) in &line.options {
        let Some((_, key, word)) = SHORT.iter().find(|(name, ..)| name == option) else { continue };
        let mut drive = Properties::default();
        if *option == "drive" {
            drive = told.next().unwrap_or_default();
        } else {
            drive.set("file", value);
            drive.set(key, word);
        }
        // `-snapshot` is for all drives that do not say it themselves; not for nodes.
        if line.has("snapshot") && drive.get("snapshot").is_none() {
            drive.set("snapshot", "on");
        }
        drives.push(drive);
    }
    name_those_for_devices(&mut drives, machine);
    drives
}

/// A drive that is attached to nothing gets an id if it has none (qemu: blockdev.c, `drive_new`).
fn name_those_for_devices(drives: &mut [Properties], machine: &Machine) {
    let is_free = |drive: &&mut Properties| drive.get("if").or(machine.interface()) == Some("none");
    for (number, drive) in drives.iter_mut().filter(is_free).enumerate() {
        if drive.get("id").is_none() {
            drive.set("id", &format!("none{number}"));
        }
    }
}
