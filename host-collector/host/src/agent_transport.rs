//! The transport from the guest of a running VM to this host.

use super::qemu_args::LOAD_PORT;
use super::qga::{LibvirtDaemon, QgaError};
use super::vm::Vm;
use roxmltree::{Document, Node};
use std::path::PathBuf;

/// The host kernel's vhost-vsock.
pub const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// The advice for a VM that has no transport.
pub const NO_TRANSPORT_ADVICE: &str = "give it a vhost-vsock (libvirt: <vsock model='virtio'><cid \
    auto='yes'/></vsock>) or a virtio-serial port named vslice.agent with a Unix socket (libvirt: \
    <channel type='unix'><source mode='bind' path='...'/><target type='virtio' \
    name='vslice.agent'/></channel>), and restart it";

/// The transport by which an agent in a guest reaches the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentTransport {
    /// The host kernel's vhost-vsock.
    Vsock {
        /// The guest's CID.
        cid: u32,
    },
    /// The virtio-serial port [`LOAD_PORT`], behind which the VMM listens on a Unix socket.
    Serial {
        /// The socket's path.
        path: PathBuf,
    },
}

impl AgentTransport {
    /// The best transport that a VM has now, by its command line or, for a libvirt domain, plugged in
    /// later. The VM itself is not queried; libvirt may be.
    ///
    /// # Errors
    /// Fails if it is unknown whether there is one, because libvirt does not answer.
    pub fn find(vm: &Vm) -> Result<Option<AgentTransport>, QgaError> {
        match (AgentTransport::of_vm(vm), LibvirtDaemon::of_vm(vm), vm.name.as_deref()) {
            (None, Some(daemon), Some(domain)) => {
                Ok(AgentTransport::in_domain(&daemon.domain_xml(domain)?))
            }
            (transport, _, _) => Ok(transport),
        }
    }

    /// In a running domain's XML (libvirt: docs/formatdomain.rst, "Channel" and "Vsock").
    fn in_domain(xml: &str) -> Option<AgentTransport> {
        let document = Document::parse(xml).ok()?;
        let child = |node: Node<'_, '_>, name: &str, attribute: &str| {
            let child = node.children().find(|child| child.has_tag_name(name))?;
            child.attribute(attribute).map(str::to_owned)
        };
        let devices = || document.descendants().filter(Node::is_element);
        let vsock = devices().filter(|node| node.has_tag_name("vsock"));
        let cid = vsock.filter_map(|node| child(node, "cid", "address")?.parse().ok()).next();
        if let Some(cid) = cid.filter(|_| has_vhost()) {
            return Some(AgentTransport::Vsock { cid });
        }
        let mut channels = devices().filter(|node| {
            node.has_tag_name("channel")
                && child(*node, "target", "name").as_deref() == Some(LOAD_PORT)
        });
        let path = channels.find_map(|node| child(node, "source", "path"))?;
        Some(AgentTransport::Serial { path: path.into() })
    }

    /// The best transport that a VM has by its command line, if it has one.
    #[must_use]
    pub fn of_vm(vm: &Vm) -> Option<AgentTransport> {
        let vsock = vm.vsock_cid.filter(|_| has_vhost()).map(|cid| AgentTransport::Vsock { cid });
        vsock.or_else(|| vm.load_socket.clone().map(|path| AgentTransport::Serial { path }))
    }
}

/// Whether this host has a vhost-vsock.
pub(super) fn has_vhost() -> bool {
    std::fs::metadata(VHOST_VSOCK).is_ok()
}

/// A vsock port, or a CID, that no other run on this host has for one of its VMs.
#[must_use]
pub fn own_port(vm_index: u8, collector_pid: u32) -> u32 {
    // A pid has at most 22 bits (PID_MAX_LIMIT), so the number fits in 31 bits, and is above the
    // reserved CIDs and the privileged ports.
    (1 << 30) | ((collector_pid & 0x003f_ffff) << 8) | u32::from(vm_index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_was_attached_later_is_in_the_domains_xml() {
        let domain = |channels: &str| {
            AgentTransport::in_domain(&format!(
                "<domain type='kvm'><devices>{channels}</devices></domain>"
            ))
        };
        let channel = |name: &str| {
            format!(
                "<channel type='unix'><source mode='bind' path='/run/c/{name}'/><target type='virtio' \
                 name='{name}' state='disconnected'/><alias name='channel1'/></channel>"
            )
        };
        let agent = channel("org.qemu.guest_agent.0");
        assert_eq!(domain(&agent), None);
        let both = format!("{agent}{}", channel("vslice.agent"));
        assert_eq!(
            domain(&both),
            Some(AgentTransport::Serial { path: "/run/c/vslice.agent".into() })
        );
        let vsock = "<vsock model='virtio'><cid auto='yes' address='7'/></vsock>";
        assert_eq!(domain(vsock), has_vhost().then_some(AgentTransport::Vsock { cid: 7 }));
        assert_eq!(AgentTransport::in_domain("no XML"), None);
    }
}
