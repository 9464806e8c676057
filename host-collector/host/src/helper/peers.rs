//! Who is at the other ends of a VMM's sockets.

use super::{BackendSocket, HelperRole, HelperSign};
use crate::census::{Census, Process};
use crate::qemu_args::SocketPlace;
use crate::unix_sockets::{self, UnixSocket};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use vslice_core::units::Tid;

/// The processes that hold the other ends of these sockets, with what they serve. None of another network namespace is
/// found.
pub(super) fn find<'a>(
    vmm: Tid,
    sockets: &[BackendSocket],
    programs: &[&'a Process],
    census: &Census,
) -> Vec<(&'a Process, HelperRole, HelperSign)> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let held = census.sockets();
    let mut roles: BTreeMap<Tid, HelperRole> = BTreeMap::new();
    for (inode, role) in peers(vmm, sockets, &held.sockets) {
        for holder in held.holders.get(&inode).into_iter().flatten() {
            roles.entry(*holder).or_insert(role);
        }
    }
    let found = |program: &&'a Process| {
        Some((*program, roles.get(&program.pid).copied()?, HelperSign::Socket))
    };
    programs.iter().filter_map(found).collect()
}

/// The other ends' inodes.
fn peers(
    vmm: Tid,
    sockets: &[BackendSocket],
    all: &BTreeMap<u32, UnixSocket>,
) -> BTreeMap<u32, HelperRole> {
    let mut peers = BTreeMap::new();
    for own in unix_sockets::inodes_of(vmm) {
        let Some(socket) = all.get(&own) else { continue };
        let Some(peer) = socket.peer else { continue };
        // Whoever listened has the path, on each connection that it accepted.
        let path = socket.path.as_deref().or_else(|| all.get(&peer)?.path.as_deref());
        let is_it = |backend: &&BackendSocket| match &backend.place {
            SocketPlace::Path(wanted) => path.is_some_and(|path| is_same(path, wanted)),
            SocketPlace::Fd(fd) => {
                let handed = unix_sockets::inode_of(vmm, *fd);
                let listens_at = handed.and_then(|inode| all.get(&inode)?.path.as_deref());
                handed == Some(own) || path.is_some() && listens_at == path
            }
        };
        peers.extend(sockets.iter().find(is_it).map(|backend| (peer, backend.role)));
    }
    peers
}

/// Whether a path, as its owner bound it, is that of a command line. It may lead through links, or be relative to where
/// its owner was: then its end is all that is known of it.
fn is_same(bound: &Path, wanted: &Path) -> bool {
    let is_same_file = || {
        let real = |path: &Path| fs::canonicalize(path).ok();
        real(bound).is_some_and(|bound| real(wanted) == Some(bound))
    };
    bound == wanted || if bound.is_relative() { wanted.ends_with(bound) } else { is_same_file() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::find as helpers;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Child, Command, Stdio};

    /// A process that holds this end.
    fn holder(end: UnixStream) -> Child {
        let end = Stdio::from(OwnedFd::from(end));
        Command::new("sleep").arg("60").stdin(end).spawn().expect("sleep runs")
    }

    /// What tells that this process's child works for it, whose device is at such a place.
    fn sign(child: &Child, place: SocketPlace) -> Option<(HelperRole, HelperSign)> {
        let sockets = [BackendSocket { place, role: HelperRole::Network }];
        let found = helpers(Tid(std::process::id()), &sockets, &Census::take());
        let helper = found.into_iter().find(|helper| helper.pid == Tid(child.id()))?;
        Some((helper.role, helper.sign))
    }

    fn fd(end: &impl AsRawFd) -> SocketPlace {
        SocketPlace::Fd(u32::try_from(end.as_raw_fd()).expect("it is open"))
    }

    #[test]
    fn who_holds_the_other_end_is_proven() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("backend");
        let listener = UnixListener::bind(&path).expect("scratch is writable");
        let own = UnixStream::connect(&path).expect("it listens");
        let (theirs, _) = listener.accept().expect("it was connected");
        let mut child = holder(theirs);
        let proven = Some((HelperRole::Network, HelperSign::Socket));
        let by_path = sign(&child, SocketPlace::Path(path.clone()));
        let by_fd = sign(&child, fd(&own));
        let by_another = sign(&child, SocketPlace::Path("/nonexistent".into()));
        child.kill().and_then(|()| child.wait()).expect("it is ours");
        assert_eq!((by_path, by_fd), (proven, proven));
        assert_eq!(by_another, Some((HelperRole::Device, HelperSign::Child)));
    }

    #[test]
    fn a_path_may_be_bound_in_another_form() {
        let directory = tempfile::tempdir().expect("scratch");
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::create_dir(&real).and_then(|()| fs::write(real.join("s"), "")).expect("room");
        std::os::unix::fs::symlink(&real, &link).expect("room");
        assert!(is_same(&real.join("s"), &link.join("s")));
        assert!(is_same(Path::new("V.sock"), Path::new("/tmp/a/V.sock")));
        assert!(!is_same(Path::new("W.sock"), Path::new("/tmp/a/V.sock")));
        assert!(!is_same(Path::new("/run/a/monitor"), Path::new("/run/b/monitor")));
    }

    #[test]
    fn a_vmm_may_listen_itself() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("server");
        let listener = UnixListener::bind(&path).expect("scratch is writable");
        let theirs = UnixStream::connect(&path).expect("it listens");
        let (_own, _) = listener.accept().expect("it was connected");
        let mut child = holder(theirs);
        let by_path = sign(&child, SocketPlace::Path(path));
        let by_listener = sign(&child, fd(&listener));
        child.kill().and_then(|()| child.wait()).expect("it is ours");
        let proven = Some((HelperRole::Network, HelperSign::Socket));
        assert_eq!((by_path, by_listener), (proven, proven));
    }
}
