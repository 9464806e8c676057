//! Guests with a kernel that is newer than the release's, from an image that tests/other-kernel makes:
//! each kind of disk, to the last request.

use crate::Case;
use crate::experiment::every_request_is_whole;
use libtest_mimic::Failed;
use serde_json::Value;
use std::path::{Path, PathBuf};
use vslice_tests::{Lab, Run};

pub(crate) const CASES: &[Case] = &[
    ("a_newer_kernel_reads_virtio_blk", |lab| reads(lab, "virtio-blk")),
    ("a_newer_kernel_reads_virtio_scsi", |lab| reads(lab, "virtio-scsi")),
    ("a_newer_kernel_reads_ide", |lab| reads(lab, "ide")),
];

/// The image of the newer kernel, by the environment variable `VSLICE_NEWER_IMAGE`, which `make test` sets.
///
/// # Errors
/// Why there is none, for the ignored tests to say.
pub(crate) fn image() -> Result<PathBuf, String> {
    image_of("VSLICE_NEWER_IMAGE")
}

/// That of an older one, by `VSLICE_OLDER_IMAGE`.
///
/// # Errors
/// Why there is none.
pub(crate) fn older_image() -> Result<PathBuf, String> {
    image_of("VSLICE_OLDER_IMAGE")
}

fn image_of(variable: &str) -> Result<PathBuf, String> {
    let image = std::env::var_os(variable).map(PathBuf::from);
    image_in(&image.ok_or(format!("{variable} is not set, see make test"))?)
}

fn image_in(directory: &Path) -> Result<PathBuf, String> {
    if directory.join("vmlinux").exists() {
        return Ok(directory.to_owned());
    }
    let reason = std::fs::read_to_string(directory.join("missing")).unwrap_or_default();
    let reason = reason.lines().last().unwrap_or("see make test");
    Err(format!("there is no such kernel: {reason}"))
}

/// In 1 MiB of 4 KiB each.
const REQUESTS: u64 = 256;

fn reads(lab: &Lab, bus: &str) -> Result<(), Failed> {
    // KVM that hangs takes a minute to say so, and would be asked once more for another kernel.
    let run = lab.run(&["demo", "--accelerator", "tcg", "--total", "1MiB", "--bus", bus])?;
    if run.code() != Some(0) {
        return Err(format!("exit code {:?}:\n{}", run.code(), run.said()).into());
    }
    run.nothing_is_left()?;
    kernel_is_the_images(&run, lab.image())?;
    every_request_is_whole(&run.summary()?, REQUESTS)
}

/// Both guests say the release of the kernel that the image's manifest names, which is not 6.1.
fn kernel_is_the_images(run: &Run, image: &Path) -> Result<(), Failed> {
    let read = |path: PathBuf| -> Result<Value, Failed> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    };
    let image = read(image.join("manifest.json"))?;
    let release = &image["kernel"]["release"];
    let manifest = read(run.run_dir().join("run.json"))?;
    let guests = manifest["vms"].as_array().map_or(&[][..], |vms| &vms[..]);
    let said: Vec<&Value> = guests.iter().map(|vm| &vm["guest"]["kernel_release"]).collect();
    if release.is_string() && said == [release, release] {
        return Ok(());
    }
    Err(format!("the image's kernel is {release}, the guests say {said:?}").into())
}
