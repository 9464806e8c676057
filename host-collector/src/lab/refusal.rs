//! A KVM that hangs instead of running a kernel takes a minute to find out. So its refusal is remembered
//! until the host boots again, or has another KVM, QEMU or kernel of the guests.

use super::image::MicroImage;
use super::tools;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What was found, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Refusal {
    /// Of what it was found.
    of: Asked,
    /// What happened, a part of a sentence.
    what: String,
}

/// All that the answer depends on, as far as can be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// `/proc/sys/kernel/random/boot_id`.
    boot: String,
    /// The modules of KVM that are loaded.
    modules: Vec<String>,
    /// Path, length and time of QEMU and of the guests' kernel.
    files: Vec<(PathBuf, u64, i64)>,
}

impl Asked {
    /// `None` if it cannot be said what is asked, so that nothing is remembered.
    pub(super) fn of(qemu: &Path, image: &MicroImage) -> Option<Asked> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let entries = fs::read_dir("/sys/module").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut modules: Vec<String> = names.filter(|name| name.starts_with("kvm")).collect();
        modules.sort_unstable();
        let file = |path: &Path| {
            let of = fs::metadata(path).ok()?;
            Some((path.to_owned(), of.len(), of.mtime()))
        };
        Some(Asked { boot, modules, files: vec![file(qemu)?, file(&image.kernel)?] })
    }

    /// What KVM did when it was asked the same before, if it refused.
    pub(super) fn recall(&self) -> Option<String> {
        self.recall_from(&path()?)
    }

    /// Keeps a refusal, or forgets the one that there is. What cannot be kept is asked again.
    pub(super) fn keep(&self, refusal: Option<&str>) {
        if let Some(path) = path() {
            self.keep_in(&path, refusal);
        }
    }

    fn recall_from(&self, path: &Path) -> Option<String> {
        let refusal: Refusal = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (refusal.of == *self).then_some(refusal.what)
    }

    fn keep_in(&self, path: &Path, refusal: Option<&str>) {
        let Some(what) = refusal else {
            let _may_not_be_there = fs::remove_file(path);
            return;
        };
        let refusal = Refusal { of: self.clone(), what: what.to_owned() };
        let written = path.parent().map(fs::create_dir_all).is_some_and(|made| made.is_ok());
        if let (true, Ok(text)) = (written, serde_json::to_vec(&refusal)) {
            let _is_asked_again = fs::write(path, text);
        }
    }
}

fn path() -> Option<PathBuf> {
    Some(tools::cache_dir()?.join("kvm-refusal.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(boot: &str) -> Asked {
        let files = vec![(PathBuf::from("/usr/bin/qemu"), 7, 8)];
        Asked { boot: boot.to_owned(), modules: vec!["kvm".to_owned()], files }
    }

    #[test]
    fn a_refusal_holds_until_something_changes() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("vslice/kvm-refusal.json");
        assert_eq!(asked("a").recall_from(&path), None);
        asked("a").keep_in(&path, Some("no sign of life"));
        assert_eq!(asked("a").recall_from(&path).as_deref(), Some("no sign of life"));
        assert_eq!(asked("b").recall_from(&path), None, "the host has booted again");
        asked("a").keep_in(&path, None);
        assert_eq!(asked("a").recall_from(&path), None, "it runs now");
        fs::write(&path, "half a line").expect("writable");
        assert_eq!(asked("a").recall_from(&path), None);
    }
}
