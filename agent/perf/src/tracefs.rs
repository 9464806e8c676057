//! Where tracefs is, and the two kinds of file in it that are needed.

use crate::private_mount::PrivateMount;
use nix::mount::MsFlags;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Access to tracefs for as long as this lives. Recording writes nothing in it.
#[derive(Debug)]
pub struct Tracefs {
    root: PathBuf,
    /// `None` where somebody has mounted it.
    private: Option<PrivateMount>,
}

impl Tracefs {
    /// Finds a mounted tracefs, or mounts one that nobody else sees.
    ///
    /// # Errors
    /// When none is mounted and mounting is refused (it needs `CAP_SYS_ADMIN`).
    pub fn find() -> io::Result<Tracefs> {
        let mounts = fs::read("/proc/self/mounts")?;
        match mounted_at(&mounts) {
            Some(root) => Ok(Tracefs { root, private: None }),
            None => Tracefs::mount(MsFlags::MS_RDONLY),
        }
    }

    /// The same for whoever makes an instance of its own: a mount that can be written.
    ///
    /// # Errors
    /// As [`Tracefs::find`].
    pub fn find_writable() -> io::Result<Tracefs> {
        let mounts = fs::read("/proc/self/mounts")?;
        match mounted_at(&mounts) {
            Some(root) => Ok(Tracefs { root, private: None }),
            None => Tracefs::mount(MsFlags::empty()),
        }
    }

    /// Where it is, for as long as this lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    fn mount(more: MsFlags) -> io::Result<Tracefs> {
        let private = PrivateMount::new("tracefs", more)?;
        Ok(Tracefs { root: private.path().to_owned(), private: Some(private) })
    }

    /// Whether this tracefs was mounted for this process alone.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// The text of a tracepoint's `format` file; `name` is `group/name`.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when the kernel has no such tracepoint, or no right to read it.
    pub fn format(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.root.join("events").join(name).join("format"))
    }
}

/// The first tracefs in the text of `/proc/self/mounts`, or the one inside a debugfs.
fn mounted_at(mounts: &[u8]) -> Option<PathBuf> {
    let place_of = |kind: &str| {
        mounts.split(|byte| *byte == b'\n').find_map(|line| {
            let mut words = line.split(|byte| *byte == b' ').skip(1);
            let place = words.next()?;
            (words.next()? == kind.as_bytes()).then(|| unescape(place))
        })
    };
    // The kernel mounts tracefs inside debugfs when somebody looks there.
    place_of("tracefs").or_else(|| {
        let inside = place_of("debugfs")?.join("tracing");
        File::open(inside.join("events")).is_ok().then_some(inside)
    })
}

/// A path as `/proc/self/mounts` writes it: blanks, tabs, newlines and backslashes are octal.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok();
        let escaped = (*first == b'\\').then(|| after.get(..3)).flatten().and_then(octal);
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found() {
        let mounts = b"sysfs /sys sysfs rw 0 0\n\
            tracefs /sys/kernel/tracing tracefs rw 0 0\nx /a tracefs rw 0 0\n";
        assert_eq!(mounted_at(mounts), Some("/sys/kernel/tracing".into()));
        assert_eq!(
            mounted_at(b"tracefs /tmp/a\\040b\\134 tracefs rw 0 0"),
            Some("/tmp/a b\\".into())
        );
        assert_eq!(mounted_at(b"tracefs /sys/x sysfs rw 0 0\n\n"), None);
        assert_eq!(mounted_at(b"debugfs /nonexistent debugfs rw 0 0"), None);
        assert_eq!(unescape(b"a\\0"), PathBuf::from("a\\0"));
    }
}
