//! The way from the guest of a VM that is there already to this host.

use super::found::FoundVm;
use std::path::PathBuf;

/// The host kernel's vhost-vsock.
pub const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// What to do for a VM that has none.
pub const NO_WAY_ADVICE: &str = "give it a vhost-vsock (libvirt: <vsock model='virtio'><cid \
    auto='yes'/></vsock>) or a virtio-serial port named vslice.agent with a Unix socket (libvirt: \
    <channel type='unix'><source mode='bind' path='...'/><target type='virtio' \
    name='vslice.agent'/></channel>), and start it again";

/// How an agent in a guest reaches the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By the host kernel's vhost-vsock; the guest has this CID.
    Vsock {
        /// Its CID.
        cid: u32,
    },
    /// By the virtio-serial port [`LOAD_PORT`](super::qemu_args::LOAD_PORT), behind which the VMM
    /// listens on this Unix socket.
    Serial {
        /// Its path.
        path: PathBuf,
    },
}

impl Way {
    /// The best one that a VM has, if it has one.
    #[must_use]
    pub fn of_vm(vm: &FoundVm) -> Option<Way> {
        let has_vhost = || std::fs::metadata(VHOST_VSOCK).is_ok();
        let vsock = vm.vsock_cid.filter(|_| has_vhost()).map(|cid| Way::Vsock { cid });
        vsock.or_else(|| vm.load_socket.clone().map(|path| Way::Serial { path }))
    }
}
