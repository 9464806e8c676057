//! Whether the QEMU of this host has a cell's disk: asked of QEMU itself, by starting it with that disk
//! and no guest, and not guessed from its version.

use crate::plan::DiskPlan;
use crate::qemu::disk_args;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use vslice_core::text::harmless;

/// Starts, and ends at once: it has nothing to run, and is told to quit.
const QUIT: &[u8] = b"{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"quit\"}\n";

/// Whether QEMU takes this disk, with `image` behind it.
///
/// # Errors
/// Why not, in QEMU's own words.
pub fn takes(qemu: &Path, disk: &DiskPlan, image: &Path) -> Result<(), String> {
    let arguments = disk_args(&disk.disk(image));
    let mut command = Command::new(qemu);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-S"])
        .args(["-accel", "tcg", "-smp", "4", "-qmp", "stdio"])
        .args(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that refuses its disk has ended before it is told to.
        let _ended = stdin.write_all(QUIT);
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let word =
        said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it ended without a message");
    Err(reason(word, &arguments))
}

/// "qemu-system-x86_64: -device virtio-blk-pci,...: Property ... not found" without what it was told.
fn reason(word: &str, arguments: &[OsString]) -> String {
    let said = |argument: &OsString| {
        let (_, after) = word.split_once(&*argument.to_string_lossy())?;
        after.strip_prefix(": ")
    };
    let reason = arguments.iter().rev().find_map(said).unwrap_or(word);
    format!("QEMU: {}", harmless(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_message_is_shown_without_the_arguments() {
        let arguments = ["-device", "nvme,drive=disk0"].map(OsString::from);
        let word =
            "qemu-system-x86_64: -device nvme,drive=disk0: 'nvme' is not a valid device model name";
        assert_eq!(reason(word, &arguments), "QEMU: 'nvme' is not a valid device model name");
        assert_eq!(reason("out of memory", &arguments), "QEMU: out of memory");
    }
}
