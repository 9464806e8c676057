//! Where the collector is, and the way to it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, fs, thread};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use vsock::VsockStream;

use crate::uptime::uptime;

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(100);

/// Where udev puts links to the virtio-serial ports by their names.
const PORT_LINKS: &str = "/dev/virtio-ports";

/// Where the kernel tells the ports' names, also without udev.
const PORT_CLASS: &str = "/sys/class/virtio-ports";

/// Where a collector listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// AF_VSOCK; the host is CID 2.
    Vsock {
        cid: u32,
        port: u32,
    },
    Unix(PathBuf),
    /// A virtio-serial port by its name.
    Virtio(String),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "{text:?} is not a collector's address: use vsock:CID:PORT (the host is CID 2), \
                unix:PATH or virtio:NAME"
            )
        };
        let (kind, rest) = text.split_once(':').ok_or_else(unknown)?;
        match kind {
            "vsock" => {
                let (cid, port) = rest.split_once(':').ok_or_else(unknown)?;
                let number = |digits: &str| digits.parse::<u32>().map_err(|_| unknown());
                Ok(Self::Vsock { cid: number(cid)?, port: number(port)? })
            }
            "unix" if !rest.is_empty() => Ok(Self::Unix(rest.into())),
            "virtio" if is_port_name(rest) => Ok(Self::Virtio(rest.to_owned())),
            _ => Err(unknown()),
        }
    }
}

/// The name becomes part of a path, and must not lead out of its directory.
fn is_port_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".."
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Virtio(name) => write!(f, "virtio:{name}"),
        }
    }
}

impl Endpoint {
    /// Connects, trying again for `patience` while the collector or the device is not there yet.
    /// The connection is non-blocking.
    ///
    /// # Errors
    ///
    /// The last try's error; at once, if it is one that waiting does not mend.
    pub(crate) fn connect(&self, patience: Duration) -> anyhow::Result<OwnedFd> {
        let deadline = uptime() + patience;
        loop {
            match self.try_connect(deadline) {
                Ok(socket) => return Ok(socket),
                Err(error) if uptime() < deadline && may_pass(&error) => thread::sleep(RETRY),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot reach the collector at {self}"));
                }
            }
        }
    }

    fn try_connect(&self, deadline: Duration) -> io::Result<OwnedFd> {
        match self {
            Self::Vsock { cid, port } => {
                let stream = VsockStream::connect_with_cid_port(*cid, *port)?;
                stream.set_nonblocking(true)?;
                stream.as_fd().try_clone_to_owned()
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
            Self::Virtio(name) => {
                let device = port_device(name, Path::new(PORT_LINKS), Path::new(PORT_CLASS))?;
                let port = fs::OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(OFlag::O_NONBLOCK.bits())
                    .open(device)?
                    .into();
                wait_for_host(&port, deadline)?;
                Ok(port)
            }
        }
    }
}

/// Whether the error is of a kind that passes when the collector starts to listen, or the driver
/// has found its device. A vsock without a device is ENODEV, one whose host does not listen is
/// ECONNRESET.
fn may_pass(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::TimedOut
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::WouldBlock
            | ErrorKind::Interrupted
    ) || matches!(errno, Some(Errno::ENODEV | Errno::ENXIO | Errno::EADDRNOTAVAIL | Errno::EBUSY))
}

/// The device of the port called `name`.
fn port_device(name: &str, links: &Path, class: &Path) -> io::Result<PathBuf> {
    let link = links.join(name);
    if link.exists() {
        return Ok(link);
    }
    for port in fs::read_dir(class)? {
        let port = port?;
        let port_name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if port_name.trim_end() == name {
            return Ok(Path::new("/dev").join(port.file_name()));
        }
    }
    Err(io::Error::new(
        ErrorKind::NotFound,
        format!("there is no virtio-serial port named {name:?}"),
    ))
}

/// While nobody has the host's end of a port open, poll says POLLHUP and a read is an end of file
/// (drivers/char/virtio_console.c), which would be taken for a lost connection.
fn wait_for_host(port: &OwnedFd, deadline: Duration) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(port.as_fd(), PollFlags::empty())];
        poll(&mut fds, 0_u8)?;
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        if !events.contains(PollFlags::POLLHUP) {
            return Ok(());
        }
        if uptime() >= deadline {
            let nobody = "the host's end of the port is not open";
            return Err(io::Error::new(ErrorKind::TimedOut, nobody));
        }
        thread::sleep(RETRY);
    }
}

/// Reads where to connect from a kernel command line.
pub(crate) fn from_command_line(command_line: &str) -> anyhow::Result<Endpoint> {
    const KEY: &str = "vslice.connect=";
    let Some(text) = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix(KEY))
    else {
        bail!("the kernel command line has no {KEY}vsock:CID:PORT, unix:PATH or virtio:NAME");
    };
    text.parse().map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for (text, endpoint) in [
            ("vsock:2:5000", Endpoint::Vsock { cid: 2, port: 5000 }),
            ("vsock:3:4294967295", Endpoint::Vsock { cid: 3, port: u32::MAX }),
            ("unix:/run/a:b.sock", Endpoint::Unix("/run/a:b.sock".into())),
            ("virtio:org.vslice.0", Endpoint::Virtio("org.vslice.0".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(endpoint.clone()));
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn what_names_no_collector_is_refused() {
        for text in [
            "",
            "vsock",
            "vsock:",
            "vsock:2",
            "vsock:2:",
            "vsock:2:x",
            "vsock:2:5:6",
            "vsock:-1:5",
            "unix:",
            "virtio:",
            "virtio:../null",
            "virtio:..",
            "tcp:1:2",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains("vsock:CID:PORT"), "{error}");
        }
    }

    #[test]
    fn the_kernel_command_line_is_searched() {
        let found = from_command_line("quiet panic=-1 vslice.connect=vsock:2:99 console=ttyS0\n");
        assert_eq!(found.unwrap(), Endpoint::Vsock { cid: 2, port: 99 });
        assert!(from_command_line("quiet xvslice.connect=vsock:2:99").is_err());
        assert!(from_command_line("vslice.connect=nowhere").is_err());
    }

    #[test]
    fn a_port_is_found_by_link_or_by_class() {
        let root = tempfile::tempdir().unwrap();
        let (links, class) = (root.path().join("links"), root.path().join("class"));
        assert!(port_device("a", &links, &class).is_err(), "no such directories");
        for (port, name) in [("vport0p1", "org.qemu.guest_agent.0\n"), ("vport0p2", "a\n")] {
            fs::create_dir_all(class.join(port)).unwrap();
            fs::write(class.join(port).join("name"), name).unwrap();
        }
        assert_eq!(port_device("a", &links, &class).unwrap(), Path::new("/dev/vport0p2"));
        let error = port_device("b", &links, &class).unwrap_err();
        assert!(may_pass(&error), "the port may still appear: {error}");
        fs::create_dir(&links).unwrap();
        fs::write(links.join("a"), "").unwrap();
        assert_eq!(port_device("a", &links, &class).unwrap(), links.join("a"));
    }

    #[test]
    fn a_collector_that_is_not_there_is_an_error_with_its_name() {
        let root = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(root.path().join("none.sock"));
        let error = endpoint.connect(Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("none.sock"), "{error}");
    }

    #[test]
    fn waiting_does_not_mend_a_path_that_is_no_socket() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Endpoint::Unix(file.path().join("below")).connect(Duration::MAX / 4);
        assert!(error.is_err(), "returned at once, or this test hangs");
    }
}
