//! Where the programs are that a lab needs, and the directories that vslice keeps things in.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// QEMU, as Debian's package qemu-system-x86 installs it.
pub const QEMU: &str = "qemu-system-x86_64";

/// The vhost-user device that stands in for the host's vhost-vsock.
pub const VHOST_DEVICE_VSOCK: &str = "vhost-device-vsock";

/// What vslice has downloaded or built, `${XDG_CACHE_HOME:-$HOME/.cache}/vslice`. `None` without
/// a home, as in some containers.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    let base = non_empty("XDG_CACHE_HOME")
        .or_else(|| non_empty("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("vslice"))
}

/// Finds a program: in `$VSLICE_TOOLS`, then among what vslice has built, then on `$PATH`.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let own = non_empty("VSLICE_TOOLS").into_iter();
    let built = cache_dir().map(|cache| cache.join("tools/bin")).into_iter();
    let path = env::var_os("PATH").unwrap_or_default();
    // depmod and modprobe are there, which is not on the path of everybody who may run them.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    find_in(name, own.chain(built).chain(env::split_paths(&path)).chain(system))
}

fn find_in(name: &str, directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    directories
        // An empty entry of $PATH means the current directory, whoever may have written there.
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn non_empty(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_executable_file_of_the_name_is_taken() {
        let directory = tempfile::tempdir().expect("scratch");
        let places = ["first", "second", "third"].map(|name| directory.path().join(name));
        for place in &places {
            fs::create_dir(place).expect("scratch is writable");
        }
        fs::create_dir(places[0].join("tool")).expect("a directory is no program");
        for place in &places[1..] {
            fs::write(place.join("tool"), "#!/bin/sh\n").expect("scratch is writable");
        }
        fs::set_permissions(places[2].join("tool"), fs::Permissions::from_mode(0o755))
            .expect("its own file");
        let found = find_in("tool", [PathBuf::new()].into_iter().chain(places.clone()));
        assert_eq!(found, Some(places[2].join("tool")));
        assert_eq!(find_in("other", places.into_iter()), None);
    }
}
