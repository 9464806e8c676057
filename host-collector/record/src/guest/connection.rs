//! The byte stream to one guest, whichever way it comes.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// The endpoint at which the collector and one guest's agent connect.
#[derive(Debug)]
pub enum GuestListener {
    /// AF_VSOCK on a host with vhost-vsock. Guests share the port; the peer's CID, which the
    /// kernel vouches for, says which guest it is.
    Vsock {
        /// Listens on the run's port.
        listener: VsockListener,
        /// The CID of the guest that may connect.
        guest_cid: u32,
    },
    /// The Unix socket `UDS_PATH_PORT` to which a hybrid vsock device (vhost-user-vsock,
    /// Firecracker, Cloud Hypervisor) connects when its guest connects to CID 2.
    HybridUnix(UnixListener),
    /// The Unix socket behind a virtio-serial port: QEMU listens, the collector connects.
    VirtioSerial(PathBuf),
}

impl GuestListener {
    /// Listens on AF_VSOCK for the guest with `guest_cid`.
    ///
    /// # Errors
    /// What `bind(2)` says: `EADDRINUSE` when another collector has the port.
    pub fn vsock(port: u32, guest_cid: u32) -> io::Result<Self> {
        let listener = VsockListener::bind(&VsockAddr::new(VMADDR_CID_ANY, port))?;
        listener.set_nonblocking(true)?;
        Ok(GuestListener::Vsock { listener, guest_cid })
    }

    /// Listens on the Unix socket to which a hybrid vsock device forwards.
    ///
    /// # Errors
    /// What `bind(2)` says of the path.
    pub fn hybrid_unix(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(GuestListener::HybridUnix(listener))
    }

    /// Accepts the guest's connection; `None` if there is none yet.
    ///
    /// # Errors
    /// A failing socket. A connection from a CID that is not this guest's is closed and ignored.
    pub fn try_accept(&self) -> io::Result<Option<Connection>> {
        let accepted = match self {
            GuestListener::Vsock { listener, guest_cid } => match listener.accept() {
                Ok((stream, peer)) if peer.cid() == *guest_cid => Ok(Stream::Vsock(stream)),
                Ok(_) => return Ok(None),
                Err(error) => Err(error),
            },
            GuestListener::HybridUnix(listener) => {
                listener.accept().map(|(stream, _)| Stream::Unix(stream))
            }
            GuestListener::VirtioSerial(path) => UnixStream::connect(path).map(Stream::Unix),
        };
        match accepted {
            Ok(stream) => Connection::new(stream).map(Some),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Vsock(VsockStream),
}

/// A non-blocking byte stream to one guest.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
}

impl Connection {
    fn new(stream: Stream) -> io::Result<Self> {
        match &stream {
            Stream::Unix(unix) => unix.set_nonblocking(true)?,
            Stream::Vsock(vsock) => vsock.set_nonblocking(true)?,
        }
        Ok(Connection { stream })
    }

    /// One end of a socket pair, for a guest that is a process on this host.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking.
    pub fn from_unix(stream: UnixStream) -> io::Result<Self> {
        Connection::new(Stream::Unix(stream))
    }

    /// Waits until there is something to read, the peer is gone, or `timeout` is over.
    ///
    /// # Errors
    /// What `poll(2)` says; being interrupted is not an error.
    pub fn wait_readable(&self, timeout: Duration) -> io::Result<bool> {
        self.wait(PollFlags::POLLIN, timeout)
    }

    fn wait(&self, flags: PollFlags, timeout: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.as_fd(), flags)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads the available bytes: `None` if there are none now, `Some(0)` if the peer has closed.
    ///
    /// # Errors
    /// What `read(2)` says.
    pub fn read_available(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = match &mut self.stream {
            Stream::Unix(unix) => unix.read(buffer),
            Stream::Vsock(vsock) => vsock.read(buffer),
        };
        match read {
            Ok(length) => Ok(Some(length)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes all of `bytes`, waiting for a slow guest for at most `timeout`.
    ///
    /// # Errors
    /// What `write(2)` says, or `TimedOut` when the guest does not take them.
    pub fn write_all(&mut self, mut bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        while !bytes.is_empty() {
            let written = match &mut self.stream {
                Stream::Unix(unix) => unix.write(bytes),
                Stream::Vsock(vsock) => vsock.write(bytes),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    self.wait(PollFlags::POLLOUT, left)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Unix(unix) => unix.as_fd(),
            Stream::Vsock(vsock) => vsock.as_fd(),
        }
    }
}
