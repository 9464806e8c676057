//! Whether KVM runs a stock kernel takes seconds to find out, and a minute where it hangs instead. So its
//! answer is remembered until the host boots again, or has another KVM, QEMU or kernel of the guests.

use super::image::MicroImage;
use super::tools;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a kernel took to boot in KVM, or what happened instead, a part of a sentence.
pub(super) type Answer = Result<Duration, String>;

/// What was answered, and to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Answered {
    asked: Asked,
    answer: Answer,
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

    /// What KVM answered when it was asked the same before.
    pub(super) fn recall(&self) -> Option<Answer> {
        self.recall_from(&path()?)
    }

    /// Keeps the answer instead of the one before. What cannot be kept is asked again.
    pub(super) fn keep(&self, answer: &Answer) {
        if let Some(path) = path() {
            self.keep_in(&path, answer);
        }
    }

    fn recall_from(&self, path: &Path) -> Option<Answer> {
        let answered: Answered = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (answered.asked == *self).then_some(answered.answer)
    }

    fn keep_in(&self, path: &Path, answer: &Answer) {
        let answered = Answered { asked: self.clone(), answer: answer.clone() };
        let written = path.parent().map(fs::create_dir_all).is_some_and(|made| made.is_ok());
        if let (true, Ok(text)) = (written, serde_json::to_vec(&answered)) {
            let _is_asked_again = fs::write(path, text);
        }
    }
}

fn path() -> Option<PathBuf> {
    Some(tools::cache_dir()?.join("kvm-answer.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(boot: &str) -> Asked {
        let files = vec![(PathBuf::from("/usr/bin/qemu"), 7, 8)];
        Asked { boot: boot.to_owned(), modules: vec!["kvm".to_owned()], files }
    }

    #[test]
    fn an_answer_holds_until_something_changes() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("vslice/kvm-answer.json");
        assert_eq!(asked("a").recall_from(&path), None);
        for answer in [Err("no sign of life".to_owned()), Ok(Duration::from_millis(1_200))] {
            asked("a").keep_in(&path, &answer);
            assert_eq!(asked("a").recall_from(&path), Some(answer));
            assert_eq!(asked("b").recall_from(&path), None, "the host has booted again");
        }
        fs::write(&path, "half a line").expect("writable");
        assert_eq!(asked("a").recall_from(&path), None);
    }
}
