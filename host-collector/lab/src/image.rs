//! The micro image: a kernel and an initramfs whose `/init` is the agent, made by
//! `images/build-micro`.

use std::fs;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A guest image on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroImage {
    /// The kernel, the unpacked ELF file.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// Its manifest: versions, sizes and sha256 sums of what it was built from.
    pub manifest: serde_json::Value,
}

/// Why an image cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A file of it is missing.
    #[error(
        "the guest image lacks {path} ({source}): build it with `images/build-micro AGENT {}`",
        path.parent().unwrap_or(path).display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// The manifest is not JSON: the image was not written by `images/build-micro`, or not fully.
    #[error("{path} is not an image manifest ({source}): build the image again")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl MicroImage {
    /// Finds the image in this directory.
    ///
    /// # Errors
    /// Fails with [`ImageError`] if the directory has no complete image.
    pub fn in_directory(directory: &Path) -> Result<MicroImage, ImageError> {
        let file = |name| {
            let path = directory.join(name);
            match fs::File::open(&path) {
                Ok(_) => Ok(path),
                Err(source) => Err(ImageError::Missing { path, source }),
            }
        };
        let (kernel, initramfs) = (file("vmlinux")?, file("initramfs.cpio.gz")?);
        let path = file("manifest.json")?;
        let text =
            fs::read(&path).map_err(|source| ImageError::Missing { path: path.clone(), source })?;
        let manifest = serde_json::from_slice(&text)
            .map_err(|source| ImageError::Manifest { path, source })?;
        Ok(MicroImage { kernel, initramfs, manifest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_whole_or_says_what_is_missing() {
        let directory = tempfile::tempdir().expect("scratch");
        let write = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).expect("scratch is writable");
        };
        write("vmlinux", "k");
        let message = MicroImage::in_directory(directory.path()).expect_err("no initramfs");
        let message = message.to_string();
        assert!(message.contains("initramfs.cpio.gz"), "{message}");
        let advice = format!("images/build-micro AGENT {}`", directory.path().display());
        assert!(message.contains(&advice), "{message}");
        write("initramfs.cpio.gz", "i");
        write("manifest.json", "{\"schema\":");
        assert!(MicroImage::in_directory(directory.path()).is_err());
        write("manifest.json", "{\"schema\":\"vslice.image/1\"}");
        let image = MicroImage::in_directory(directory.path()).expect("it is whole");
        assert_eq!(image.manifest["schema"], "vslice.image/1");
    }
}
