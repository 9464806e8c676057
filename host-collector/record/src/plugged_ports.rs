//! The transports from the guests of attached VMs to this host, and the ports that are plugged in where
//! there is none.

use crate::error::RecordingError;
use crate::watcher::Watcher;
use nix::unistd::geteuid;
use std::os::unix::fs::chown;
use vslice_host::agent_transport::AgentTransport;
use vslice_host::plug::{self, Plugged, PluggedPort};
use vslice_host::scratch::{self, PrivateDir};
use vslice_host::vm::Vm;

/// The socket of a plugged port, in a directory of its own.
const SOCKET: &str = "agent";

/// Ports that are plugged in for as long as this is there.
#[derive(Debug, Default)]
pub(crate) struct PluggedPorts {
    ports: Vec<(String, PluggedPort, PrivateDir)>,
}

impl PluggedPorts {
    /// The transport of a VM. If there is none and `plug` allows it, a port is plugged in.
    pub(crate) fn transport_of(
        &mut self,
        vm: &Vm,
        plugs: bool,
        watcher: &mut dyn Watcher,
    ) -> Result<AgentTransport, RecordingError> {
        match AgentTransport::find(vm) {
            Ok(Some(transport)) => return Ok(transport),
            // To plug one in, QEMU itself is asked what there is.
            _ if plugs => {}
            Ok(None) => return Err(RecordingError::NoTransport { vm: vm.label() }),
            Err(source) => return Err(RecordingError::WayNotKnown { vm: vm.label(), source }),
        }
        watcher.stage(&format!("plugging a port into {}", vm.label()));
        let directory = PrivateDir::create(&scratch::parent_dir())?;
        // QEMU makes the socket, often as a user of its own.
        if let Some(owner) = vm.owner().filter(|owner| *owner != geteuid()) {
            let _it_says_so_itself = chown(directory.path(), Some(owner.as_raw()), None);
        }
        let failed = |source| RecordingError::Plug { vm: vm.label(), source };
        let socket = directory.path().join(SOCKET);
        match plug::plug(vm, &scratch::parent_dir(), &socket).map_err(failed)? {
            Plugged::Found(transport) => Ok(transport),
            Plugged::Port(port) => {
                let transport = port.transport();
                self.ports.push((vm.label(), port, directory));
                Ok(transport)
            }
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.ports.len()
    }

    /// Takes all of them out, and says which could not be.
    pub(crate) fn take_out(self, watcher: &mut dyn Watcher) {
        for (vm, port, directory) in self.ports {
            if let Err(error) = port.take_out() {
                watcher.stage(&format!(
                    "could not unplug the port from {vm}, the next vslice will try again: {error}"
                ));
            }
            drop(directory);
        }
    }
}
