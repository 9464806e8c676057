//! The transport between a guest and its collector.
//!
//! There are three, and the best that the host has is used:
//!
//! * **vhost**: the host kernel's vhost-vsock. The collector listens on an AF_VSOCK port.
//! * **vhost-user**: a process, vhost-device-vsock, is the device. A guest that connects to port P
//!   of CID 2 arrives at the Unix socket `U_P`, where U is the device's `--uds-path`: the hybrid
//!   form that Firecracker and Cloud Hypervisor use too. The collector must listen there *before*
//!   the guest connects.
//! * **virtio-serial**: a port of a virtio console. QEMU listens on a Unix socket and the collector
//!   connects to it; it needs no device of the host's and no other program.

use super::plan::VsockSetting;
use super::tools;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use thiserror::Error;
use vslice_host::agent_transport::{VHOST_VSOCK, own_port};
use vslice_host::qemu_args::LOAD_PORT;
use vslice_host::scratch::SOCKET_PATH_BYTES_MAX;

/// The port that agents connect to behind a vhost-user device, where each guest has its own
/// directory of ports.
pub const HYBRID_PORT: u32 = 1024;

/// The CID of every guest behind a vhost-user device of its own; 0 to 2 are reserved, vsock(7).
const HYBRID_CID: u32 = 3;

/// The kind of transport between guests and the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportKind {
    /// The host kernel's vhost-vsock.
    Vhost,
    /// A vhost-user device process.
    VhostUser {
        /// vhost-device-vsock.
        binary: PathBuf,
    },
    /// A virtio-serial port.
    VirtioSerial,
}

/// A kind of transport, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockChoice {
    /// The kind of transport.
    pub kind: TransportKind,
    /// What it is, and why it was chosen, for the report.
    pub reason: String,
}

/// The transports that this host offers.
#[derive(Debug)]
pub struct VsockOffer {
    /// `Ok` if `/dev/vhost-vsock` can be opened, otherwise the error.
    pub vhost: io::Result<()>,
    /// vhost-device-vsock, if it is installed.
    pub vhost_user: Option<PathBuf>,
}

/// Why no transport can be used.
#[derive(Debug, Error)]
pub enum VsockError {
    /// The plan wants vhost.
    #[error(
        "the plan wants vsock = \"vhost\", but {VHOST_VSOCK} cannot be opened ({0}): load the module \
        vhost_vsock, or set vsock = \"auto\" in the plan"
    )]
    NoVhost(io::Error),
    /// The plan wants vhost-user.
    #[error(
        "the plan wants vsock = \"vhost-user\", but vhost-device-vsock is not installed: cargo install \
        vhost-device-vsock --locked, or set vsock = \"auto\" in the plan"
    )]
    NoVhostUser,
    /// A path is too long for a socket.
    #[error(
        "the socket path {path} has {bytes} bytes, the maximum is {SOCKET_PATH_BYTES_MAX}: set \
        VSLICE_TMP to a directory with a shorter path"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        bytes: usize,
    },
}

impl VsockOffer {
    /// Finds out what this host offers.
    #[must_use]
    pub fn of_host() -> VsockOffer {
        VsockOffer {
            vhost: OpenOptions::new().read(true).write(true).open(VHOST_VSOCK).map(drop),
            vhost_user: tools::find(tools::VHOST_DEVICE_VSOCK),
        }
    }

    /// Chooses what the plan asks for, or the best that is available.
    ///
    /// # Errors
    /// [`VsockError`], if the plan wants what the host does not have.
    pub fn choose(self, setting: VsockSetting) -> Result<VsockChoice, VsockError> {
        let choice = |kind, reason: String| Ok(VsockChoice { kind, reason });
        let by_plan = |kind: &str| format!("{kind}, because the plan asks for it");
        let no_vhost = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => format!("this host has no {VHOST_VSOCK}"),
            _ => format!("{VHOST_VSOCK} cannot be opened ({error})"),
        };
        match (setting, self.vhost, self.vhost_user) {
            (VsockSetting::VirtioSerial, _, _) => {
                choice(TransportKind::VirtioSerial, by_plan("virtio-serial"))
            }
            (VsockSetting::Vhost, Ok(()), _) => {
                choice(TransportKind::Vhost, by_plan("vhost-vsock"))
            }
            (VsockSetting::Vhost, Err(error), _) => Err(VsockError::NoVhost(error)),
            (VsockSetting::VhostUser, _, Some(binary)) => {
                choice(TransportKind::VhostUser { binary }, by_plan("vhost-user vsock"))
            }
            (VsockSetting::VhostUser, _, None) => Err(VsockError::NoVhostUser),
            (VsockSetting::Auto, Ok(()), _) => choice(
                TransportKind::Vhost,
                format!("vhost-vsock, because this host has {VHOST_VSOCK}"),
            ),
            (VsockSetting::Auto, Err(error), Some(binary)) => {
                let (device, why) = (binary.display(), no_vhost(error));
                let reason = format!("vhost-user vsock by {device}, because {why}");
                choice(TransportKind::VhostUser { binary }, reason)
            }
            (VsockSetting::Auto, Err(error), None) => choice(
                TransportKind::VirtioSerial,
                format!(
                    "virtio-serial, because {} and no vhost-device-vsock is installed",
                    no_vhost(error)
                ),
            ),
        }
    }
}

/// Where the collector meets one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEndpoint {
    /// Listen on this Unix socket before the guest starts; every connection is this guest's.
    UnixListener {
        /// The path to bind.
        path: PathBuf,
    },
    /// Listen on this AF_VSOCK port; this guest's connections come from this CID.
    Vsock {
        /// The guest's CID.
        cid: u32,
        /// The port to bind.
        port: u32,
    },
    /// Connect to this Unix socket once QEMU runs; bytes flow when the guest has opened the port.
    VirtioSerial {
        /// The path to connect to.
        path: PathBuf,
    },
}

/// One guest's transport to the collector, with the paths that QEMU and the device need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// See [`TransportKind::Vhost`].
    Vhost {
        /// The guest's CID.
        cid: u32,
        /// The collector's port.
        port: u32,
    },
    /// See [`TransportKind::VhostUser`].
    VhostUser {
        /// vhost-device-vsock.
        binary: PathBuf,
        /// Where QEMU finds the device.
        device_socket: PathBuf,
        /// The device's `--uds-path`.
        uds_path: PathBuf,
    },
    /// See [`TransportKind::VirtioSerial`].
    VirtioSerial {
        /// Where QEMU listens.
        socket: PathBuf,
    },
}

impl TransportKind {
    /// The transport of one guest, with its sockets in `directory`.
    ///
    /// `collector_pid` and `vm_index` make CIDs and ports that no other run on this host has.
    ///
    /// # Errors
    /// [`VsockError::PathTooLong`].
    pub fn transport(
        &self,
        directory: &Path,
        vm_name: &str,
        vm_index: u8,
        collector_pid: u32,
    ) -> Result<Transport, VsockError> {
        let transport = match self {
            TransportKind::Vhost => {
                let unique = own_port(vm_index, collector_pid);
                Transport::Vhost { cid: unique, port: unique }
            }
            TransportKind::VhostUser { binary } => Transport::VhostUser {
                binary: binary.clone(),
                device_socket: directory.join(format!("{vm_name}.device")),
                uds_path: directory.join(format!("{vm_name}.vsock")),
            },
            TransportKind::VirtioSerial => {
                Transport::VirtioSerial { socket: directory.join(format!("{vm_name}.serial")) }
            }
        };
        transport.check_paths()?;
        Ok(transport)
    }
}

impl Transport {
    /// Where the collector meets the guest.
    #[must_use]
    pub fn endpoint(&self) -> GuestEndpoint {
        match self {
            Transport::Vhost { cid, port } => GuestEndpoint::Vsock { cid: *cid, port: *port },
            Transport::VhostUser { uds_path, .. } => {
                let mut path = uds_path.clone().into_os_string();
                path.push(format!("_{HYBRID_PORT}"));
                GuestEndpoint::UnixListener { path: path.into() }
            }
            Transport::VirtioSerial { socket } => {
                GuestEndpoint::VirtioSerial { path: socket.clone() }
            }
        }
    }

    /// What the agent connects to, in the words of its `--connect` and of `vslice.connect=`.
    #[must_use]
    pub fn agent_address(&self) -> String {
        match self {
            Transport::Vhost { port, .. } => format!("vsock:2:{port}"),
            Transport::VhostUser { .. } => format!("vsock:2:{HYBRID_PORT}"),
            Transport::VirtioSerial { .. } => format!("virtio:{LOAD_PORT}"),
        }
    }

    /// The program and arguments of the device process, where there is one.
    #[must_use]
    pub fn device_command(&self) -> Option<(PathBuf, Vec<std::ffi::OsString>)> {
        let Transport::VhostUser { binary, device_socket, uds_path } = self else { return None };
        let mut args = vec![format!("--guest-cid={HYBRID_CID}").into()];
        args.extend(["--socket".into(), device_socket.into()]);
        args.extend(["--uds-path".into(), uds_path.into()]);
        Some((binary.clone(), args))
    }

    fn check_paths(&self) -> Result<(), VsockError> {
        let paths: Vec<PathBuf> = match (self, self.endpoint()) {
            (Transport::VhostUser { device_socket, .. }, GuestEndpoint::UnixListener { path }) => {
                vec![device_socket.clone(), path]
            }
            (Transport::VirtioSerial { socket }, _) => vec![socket.clone()],
            _ => Vec::new(),
        };
        for path in paths {
            let bytes = path.as_os_str().as_bytes().len();
            if bytes > SOCKET_PATH_BYTES_MAX {
                return Err(VsockError::PathTooLong { path, bytes });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(vhost: bool, vhost_user: bool) -> VsockOffer {
        VsockOffer {
            vhost: if vhost { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) },
            vhost_user: vhost_user.then(|| PathBuf::from("/opt/vhost-device-vsock")),
        }
    }

    #[test]
    fn the_best_way_of_the_host_is_taken_unless_the_plan_says_otherwise() {
        use VsockSetting as Setting;
        let device = || TransportKind::VhostUser { binary: "/opt/vhost-device-vsock".into() };
        let table = [
            (offer(true, true), Setting::Auto, TransportKind::Vhost),
            (offer(false, true), Setting::Auto, device()),
            (offer(false, false), Setting::Auto, TransportKind::VirtioSerial),
            (offer(true, true), Setting::VhostUser, device()),
            (offer(true, true), Setting::VirtioSerial, TransportKind::VirtioSerial),
            (offer(true, false), Setting::Vhost, TransportKind::Vhost),
        ];
        for (offer, setting, kind) in table {
            assert_eq!(offer.choose(setting).expect("it is there").kind, kind, "{setting:?}");
        }
        let message = offer(false, true).choose(Setting::Vhost).expect_err("no vhost").to_string();
        assert!(message.contains("load the module vhost_vsock"), "{message}");
        let message = offer(true, false).choose(Setting::VhostUser).expect_err("none").to_string();
        assert!(message.contains("cargo install vhost-device-vsock"), "{message}");
    }

    #[test]
    fn the_way_is_told_as_what_it_is_and_not_as_a_failure() {
        let reason =
            |offer: VsockOffer, setting| offer.choose(setting).expect("a transport").reason;
        assert_eq!(
            reason(offer(false, true), VsockSetting::Auto),
            "vhost-user vsock by /opt/vhost-device-vsock, because this host has no /dev/vhost-vsock"
        );
        assert_eq!(
            reason(offer(false, false), VsockSetting::Auto),
            "virtio-serial, because this host has no /dev/vhost-vsock and no vhost-device-vsock is installed"
        );
        let denied =
            VsockOffer { vhost: Err(io::ErrorKind::PermissionDenied.into()), ..offer(false, true) };
        let said = reason(denied, VsockSetting::Auto);
        assert!(
            said.ends_with("because /dev/vhost-vsock cannot be opened (permission denied)"),
            "{said}"
        );
        assert_eq!(
            reason(offer(true, true), VsockSetting::Auto),
            "vhost-vsock, because this host has /dev/vhost-vsock"
        );
        let by_plan = reason(offer(true, true), VsockSetting::VirtioSerial);
        assert_eq!(by_plan, "virtio-serial, because the plan asks for it");
    }

    #[test]
    fn both_ends_of_each_way_are_told_the_same_place() {
        let directory = Path::new("/var/tmp/vslice-1-2-abc");
        let kind = TransportKind::VhostUser { binary: "/opt/device".into() };
        let hybrid = kind.transport(directory, "vm1", 0, 77).expect("short paths");
        assert_eq!(hybrid.agent_address(), "vsock:2:1024");
        let path = PathBuf::from("/var/tmp/vslice-1-2-abc/vm1.vsock_1024");
        assert_eq!(hybrid.endpoint(), GuestEndpoint::UnixListener { path });
        let (program, args) = hybrid.device_command().expect("it has a device process");
        assert_eq!(program, Path::new("/opt/device"));
        assert_eq!(
            args,
            [
                "--guest-cid=3",
                "--socket",
                "/var/tmp/vslice-1-2-abc/vm1.device",
                "--uds-path",
                "/var/tmp/vslice-1-2-abc/vm1.vsock"
            ]
        );

        let serial = TransportKind::VirtioSerial.transport(directory, "vm1", 0, 77).expect("short");
        assert_eq!(serial.agent_address(), "virtio:vslice.agent");
        assert!(matches!(serial.endpoint(), GuestEndpoint::VirtioSerial { .. }));
        assert_eq!(serial.device_command(), None);
    }

    #[test]
    fn guests_of_all_runs_have_their_own_cids_and_ports() {
        let directory = Path::new("/x");
        let mut seen = std::collections::HashSet::new();
        for (pid, index) in [(2, 0), (2, 1), (3, 0), (4_194_303, 255)] {
            let transport =
                TransportKind::Vhost.transport(directory, "vm", index, pid).expect("short");
            let GuestEndpoint::Vsock { cid, port } = transport.endpoint() else {
                panic!("vhost listens on AF_VSOCK")
            };
            assert!((3..u32::MAX).contains(&cid) && port > 1023);
            assert_eq!(transport.agent_address(), format!("vsock:2:{port}"));
            assert!(seen.insert(cid));
        }
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let long = PathBuf::from("/").join("d".repeat(100));
        let kind = TransportKind::VhostUser { binary: "/opt/device".into() };
        let message = kind.transport(&long, "vm1", 0, 2).expect_err("too long").to_string();
        assert!(message.contains("112 bytes, the maximum is 107"), "{message}");
        assert!(
            TransportKind::Vhost.transport(&long, "vm1", 0, 2).is_ok(),
            "it has no such socket"
        );
    }
}
