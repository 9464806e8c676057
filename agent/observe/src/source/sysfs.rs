//! What is read of sysfs.

use std::fs;
use std::path::{Path, PathBuf};

/// What is below a directory and is one, or leads to one; nothing where it cannot be read.
pub(super) fn directories(path: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let named =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    named.filter(|(_, path)| path.is_dir())
}

/// A file without the blanks around what it says; `None` if that is nothing.
pub(super) fn text(path: &Path) -> Option<String> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\0');
    Some(text.to_owned()).filter(|text| !text.is_empty())
}
