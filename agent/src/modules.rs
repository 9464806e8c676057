//! Kernel modules, loaded in the order that the image gives.

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The image's list: one absolute path of an uncompressed module per line, dependencies first.
pub(crate) const ORDER: &str = "/modules/order";

/// Loads what the list says. An image without a list has everything in its kernel. A module that
/// cannot be loaded is a sentence for the console and no more: it may be for hardware that this
/// machine does not have, and what is missing will be missed later.
pub(crate) fn load_all(order: &Path, mut warn: impl FnMut(String)) {
    let list = match fs::read_to_string(order) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return warn(format!("cannot read {}: {error}", order.display())),
    };
    for path in paths_of(&list) {
        if let Err(error) = load(Path::new(path)) {
            warn(format!("module {path} is not loaded: {error}"));
        }
    }
}

fn paths_of(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn load(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        // It is there, which is what was wanted; or what it drives is not, KVM's clock for instance.
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(order: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        load_all(order, |warning| warnings.push(warning));
        warnings
    }

    #[test]
    fn an_image_without_a_list_needs_no_module() {
        let root = tempfile::tempdir().unwrap();
        assert!(warnings(&root.path().join("order")).is_empty());
    }

    #[test]
    fn every_module_that_is_not_loaded_is_named() {
        let root = tempfile::tempdir().unwrap();
        let order = root.path().join("order");
        let empty = root.path().join("empty.ko");
        fs::write(&empty, "").unwrap();
        fs::write(&order, format!("/nowhere/a.ko\n\n  {}\n", empty.display())).unwrap();
        let warnings = warnings(&order);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("/nowhere/a.ko"), "{warnings:?}");
        assert!(warnings[1].contains("empty.ko"), "{warnings:?}");
    }
}
