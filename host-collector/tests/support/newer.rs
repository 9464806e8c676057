//! What tests/newer-tools gets: QEMUs and schemas that are newer than the release's.

use std::path::PathBuf;

/// The directories of the QEMUs, the older one first.
pub(crate) const QEMUS: [&str; 2] = ["bin", "newest/bin"];

/// One of these things, in the directory of `VSLICE_NEWER_TOOLS`, which `make test` sets; or why it is not
/// there.
pub(crate) fn tool(name: &str) -> Result<PathBuf, String> {
    let tools = std::env::var_os("VSLICE_NEWER_TOOLS")
        .ok_or("VSLICE_NEWER_TOOLS is not set, see make test")?;
    let path = PathBuf::from(tools).join(name);
    if path.exists() { Ok(path) } else { Err(format!("there is no {}", path.display())) }
}
