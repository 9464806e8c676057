//! The kernel in a bzImage, as `images/common.sh` unpacks it.

use crate::{Result, repository};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const KERNEL: &[u8] = b"\x7fELF of which there is no more";
/// Sectors of set-up code after the first one, and where the payload begins after them.
const SECTORS: u8 = 3;
const OFFSET: u32 = 70;

/// What a packer makes of the kernel.
fn packed(packer: &[&str]) -> std::io::Result<Vec<u8>> {
    use std::io::Write;
    let mut child = Command::new(packer[0])
        .args(&packer[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().expect("it is piped").write_all(KERNEL)?;
    Ok(child.wait_with_output()?.stdout)
}

/// A bzImage with this payload, and something after it.
fn image(payload: &[u8]) -> std::result::Result<Vec<u8>, std::num::TryFromIntError> {
    let unpacked_length = u32::try_from(KERNEL.len())?.to_le_bytes();
    let length = u32::try_from(payload.len() + unpacked_length.len())?;
    let mut image = vec![0; (1 + usize::from(SECTORS)) * 512 + usize::try_from(OFFSET)?];
    image[0x1f1] = SECTORS;
    image[0x248..0x24c].copy_from_slice(&OFFSET.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
    image.extend([payload, &unpacked_length].concat());
    image.extend(vec![7; 1 << 20]);
    Ok(image)
}

fn unpack(directory: &Path, image: &[u8]) -> std::io::Result<Output> {
    fs::write(directory.join("vmlinuz"), image)?;
    let script = r#"set -euo pipefail; . "$0"; unpack_kernel "$1/vmlinuz" "$1/vmlinux""#;
    let common = repository().join("images/common.sh");
    Command::new("bash").args(["-c", script]).arg(common).arg(directory).output()
}

#[test]
fn a_kernel_comes_out_of_its_image_however_it_is_packed() -> Result {
    let directory = tempfile::tempdir()?;
    for packer in [&["xz", "--check=crc32", "-c"][..], &["zstd", "-qc"]] {
        let output = unpack(directory.path(), &image(&packed(packer)?)?)?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read(directory.path().join("vmlinux"))?, KERNEL, "{packer:?}");
    }
    let output = unpack(directory.path(), &image(b"gibberish")?)?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("has a compression that this script does not know"), "{said}");
    Ok(())
}
