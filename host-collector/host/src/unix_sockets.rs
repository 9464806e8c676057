//! The Unix sockets of this network namespace, with who is at the other end: sock_diag(7), which any user may ask.
//! `/proc/net/unix` has no ends.

#![expect(
    clippy::host_endian_bytes,
    reason = "the kernel reads and writes in the machine's own order"
)]

use crate::procfs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, UnixAddr, recv, send, socket,
};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use vslice_core::units::Tid;

/// `SOCK_DIAG_BY_FAMILY` (linux/include/uapi/linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` (linux/include/uapi/linux/netlink.h).
const REQUEST_DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`, there.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `UDIAG_SHOW_NAME | UDIAG_SHOW_PEER` (linux/include/uapi/linux/unix_diag.h).
const SHOW_NAME_AND_PEER: u32 = 0x1 | 0x4;
/// `UNIX_DIAG_NAME` and `UNIX_DIAG_PEER`, there.
const NAME: u16 = 0;
const PEER: u16 = 2;

const MESSAGE_HEADER_BYTES: usize = 16;
const SOCKET_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// As many as the kernel gives at a time at most (linux: net/netlink/af_netlink.c, `netlink_dump`).
const BUFFER_BYTES: usize = 32 << 10;

/// A Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UnixSocket {
    /// The path that it is bound to, or the listening one that it was accepted from.
    pub path: Option<PathBuf>,
    /// The inode of the socket that it is connected to.
    pub peer: Option<u32>,
}

/// The Unix sockets of this network namespace, and who holds them; nothing where the kernel does not tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldSockets {
    /// By their inodes.
    pub sockets: BTreeMap<u32, UnixSocket>,
    /// The processes that have each open, by its inode.
    pub holders: BTreeMap<u32, Vec<Tid>>,
}

impl HeldSockets {
    /// All files of these processes are looked at for it.
    pub(crate) fn of(pids: impl Iterator<Item = Tid>) -> HeldSockets {
        let Ok(sockets) = all() else { return HeldSockets::default() };
        let mut holders: BTreeMap<u32, Vec<Tid>> = BTreeMap::new();
        for (pid, inode) in pids.flat_map(|pid| inodes_of(pid).into_iter().map(move |at| (pid, at)))
        {
            if sockets.contains_key(&inode) {
                holders.entry(inode).or_default().push(pid);
            }
        }
        HeldSockets { sockets, holders }
    }
}

/// All of them, by their inodes.
fn all() -> io::Result<BTreeMap<u32, UnixSocket>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    // It answers at once, or not at all.
    setsockopt(&netlink, ReceiveTimeout, &TimeVal::seconds(1))?;
    send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut sockets = BTreeMap::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read_answer(&buffer[..length], &mut sockets)? == Answer::Whole {
            return Ok(sockets);
        }
    }
}

/// The inodes of the sockets that a process has open.
pub(crate) fn inodes_of(pid: Tid) -> Vec<u32> {
    let fds = procfs::fds(pid).unwrap_or_default();
    fds.into_iter().filter_map(|fd| inode_of(pid, fd)).collect()
}

/// The inode of the socket that a process has open as a file descriptor.
pub(crate) fn inode_of(pid: Tid, fd: u32) -> Option<u32> {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Connects without waiting: where a client is served and others wait, connect(2) of a blocking socket would wait for
/// as long as they like.
///
/// # Errors
/// Those of connect(2); [`io::ErrorKind::WouldBlock`] if the queue of those who wait is full.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A `struct nlmsghdr` and a `struct unix_diag_req`, which asks for sockets in all states.
fn request() -> Vec<u8> {
    let family = u8::try_from(libc::AF_UNIX).unwrap_or_default();
    let mut body = vec![family, 0, 0, 0];
    let words = [u32::MAX, 0, SHOW_NAME_AND_PEER, 0, 0];
    body.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    let length = u32::try_from(MESSAGE_HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST_DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Whole,
    Goes,
}

/// Reads what came in one piece.
fn read_answer(mut rest: &[u8], sockets: &mut BTreeMap<u32, UnixSocket>) -> io::Result<Answer> {
    while let Some((kind, body, after)) = message(rest).filter(|_| !rest.is_empty()) {
        match kind {
            DONE => return Ok(Answer::Whole),
            ERROR => return Err(io::Error::other("the kernel has no sock_diag for Unix sockets")),
            _ => sockets.extend(read_socket(body)),
        }
        rest = after;
    }
    Ok(Answer::Goes)
}

/// The type and the body of the first message, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(MESSAGE_HEADER_BYTES..length)?;
    Some((u16_at(bytes, 4)?, body, bytes.get(aligned(length)..).unwrap_or_default()))
}

/// A `struct unix_diag_msg` with its attributes.
fn read_socket(body: &[u8]) -> Option<(u32, UnixSocket)> {
    let inode = u32_at(body, 4)?;
    let mut found = UnixSocket::default();
    let mut rest = body.get(SOCKET_BYTES..)?;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(ATTRIBUTE_HEADER_BYTES..length) else { break };
        match kind {
            // One that begins with a zero is abstract: it is in no file system.
            NAME if value.first().is_some_and(|first| *first != 0) => {
                let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
                found.path = Some(PathBuf::from(OsStr::from_bytes(&value[..end])));
            }
            PEER => found.peer = u32_at(value, 0).filter(|inode| *inode != 0),
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Some((inode, found))
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn inode(socket: &impl AsRawFd) -> u32 {
        let fd = u32::try_from(socket.as_raw_fd()).expect("it is open");
        inode_of(Tid(std::process::id()), fd).expect("a socket")
    }

    #[test]
    fn both_ends_of_a_connection_know_each_other() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("a socket");
        let listener = UnixListener::bind(&path).expect("scratch is writable");
        let client = UnixStream::connect(&path).expect("it listens");
        let (server, _) = listener.accept().expect("it was connected");
        let sockets = all().expect("Linux has it since 3.3, as a module");
        let (client, server) = (inode(&client), inode(&server));
        assert_eq!(sockets[&client], UnixSocket { path: None, peer: Some(server) });
        assert_eq!(sockets[&server], UnixSocket { path: Some(path.clone()), peer: Some(client) });
        assert_eq!(sockets[&inode(&listener)], UnixSocket { path: Some(path), peer: None });
        assert!(inodes_of(Tid(std::process::id())).contains(&server));
    }

    proptest! {
        #[test]
        fn any_answer_is_read(bytes: Vec<u8>) {
            let _ = read_answer(&bytes, &mut BTreeMap::new());
        }
    }
}
