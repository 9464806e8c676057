//! What this thread has opened and decoded of each stream, for tests of whoever reads them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What was decoded of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decoded {
    /// How often it was opened.
    pub opened_count: u64,
    /// Its items that were decoded, each as often as it was.
    pub items_count: u64,
}

thread_local! {
    static DECODED: RefCell<BTreeMap<PathBuf, Decoded>> = RefCell::default();
}

/// All since this was last asked, by path.
#[must_use]
pub fn take() -> BTreeMap<PathBuf, Decoded> {
    DECODED.take()
}

pub(crate) fn opened(path: &Path) {
    count(path, |decoded| decoded.opened_count += 1);
}

pub(crate) fn items(path: &Path, count_of_block: usize) {
    count(path, |decoded| decoded.items_count += count_of_block as u64);
}

fn count(path: &Path, add: impl FnOnce(&mut Decoded)) {
    DECODED.with_borrow_mut(|all| add(all.entry(path.to_owned()).or_default()));
}
