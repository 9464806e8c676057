//! What this process has opened and decoded of each stream, for tests of whoever reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What was decoded of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decoded {
    /// How often it was opened.
    pub opened_count: u64,
    /// Its items that were decoded, each as often as it was.
    pub items_count: u64,
}

/// Of all threads: blocks are decoded ahead by others than those that ask for them.
static DECODED: Mutex<BTreeMap<PathBuf, Decoded>> = Mutex::new(BTreeMap::new());

/// All below this directory since this was last asked, by path.
#[must_use]
pub fn take(directory: &Path) -> BTreeMap<PathBuf, Decoded> {
    let mut all = DECODED.lock().unwrap_or_else(PoisonError::into_inner);
    all.extract_if(.., |path, _| path.starts_with(directory)).collect()
}

pub(crate) fn opened(path: &Path) {
    count(path, |decoded| decoded.opened_count += 1);
}

pub(crate) fn items(path: &Path, count_of_block: usize) {
    count(path, |decoded| decoded.items_count += count_of_block as u64);
}

fn count(path: &Path, add: impl FnOnce(&mut Decoded)) {
    let mut all = DECODED.lock().unwrap_or_else(PoisonError::into_inner);
    add(all.entry(path.to_owned()).or_default());
}
