//! What a QEMU was started with: its name, disks, sockets. Pure: a command line in, facts out.
//!
//! It is read and not asked for, because asking (QMP) runs in QEMU's main loop under the lock whose
//! waits vslice measures, and because a monitor's socket serves one client, which under libvirt is
//! libvirt. What was plugged in later is not in it.

mod backend;
mod disk;
mod properties;
mod write;

pub use backend::backend_sockets;
pub use write::{disk_args, disk_devices, option};

use crate::disk::Disk;
use disk::{BlockDevices, Controllers};
use properties::Properties;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The name of the virtio-serial port that a guest's qemu-ga listens on.
pub const AGENT_PORT: &str = "org.qemu.guest_agent.0";

/// The name of the virtio-serial port over which vslice's agent reaches its collector, where there is
/// no vsock.
pub const LOAD_PORT: &str = "vslice.agent";

/// Where a character device's Unix socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketPlace {
    /// At this path.
    Path(PathBuf),
    /// It was handed to QEMU open, as this file descriptor, as libvirt does.
    Fd(u32),
}

/// What a command line says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QemuArgs {
    /// `-name`, the guest's.
    pub name: Option<String>,
    /// Whether QEMU names its threads: `debug-threads=on`.
    pub names_threads: bool,
    /// Its disks, in the order of the command line.
    pub disks: Vec<Disk>,
    /// What it leaves open of its disks, as sentences.
    pub disk_notes: Vec<String>,
    /// Unix sockets on which it takes QMP.
    pub qmp_sockets: Vec<PathBuf>,
    /// The Unix socket that leads to the guest's qemu-ga.
    pub agent_socket: Option<PathBuf>,
    /// Whether there is such a port, wherever it leads.
    pub has_agent_port: bool,
    /// The Unix socket behind the port [`LOAD_PORT`].
    pub load_socket: Option<SocketPlace>,
    /// The CID of its vhost-vsock.
    pub vsock_cid: Option<u32>,
    /// The accelerators that it may run with: those that are asked for, else its defaults; empty if neither tells.
    pub accelerators: Vec<String>,
}

impl SocketPlace {
    fn into_path(self) -> Option<PathBuf> {
        match self {
            SocketPlace::Path(path) => Some(path),
            SocketPlace::Fd(_) => None,
        }
    }
}

impl QemuArgs {
    /// Reads a command line, the program's own name first.
    #[must_use]
    pub fn parse(words: &[String]) -> QemuArgs {
        let options = options(words);
        let of = |name: &'static str| options.iter().filter(move |(option, _)| *option == name);
        let values =
            |name, implied| of(name).map(move |(_, value)| Properties::parse(value, implied));
        let name = values("name", "guest").next_back();
        let devices: Vec<Properties> = values("device", "driver").collect();
        let chardevs = chardevs(values("chardev", "backend"));
        let machines: Vec<Properties> =
            values("machine", "type").chain(values("M", "type")).collect();
        let has_type = |word: &str| {
            machines
                .iter()
                .any(|machine| machine.get("type").is_some_and(|kind| kind.contains(word)))
        };
        let is_q35 = has_type("q35");
        let of_machine = machines.iter().filter_map(|machine| machine.get("accel"));
        let of_option: Vec<Properties> = values("accel", "accel").collect();
        let named = of_machine.chain(of_option.iter().filter_map(|accel| accel.get("accel")));
        let has_enable_kvm = of("enable-kvm").next().is_some();
        let by_default = default_accelerators(words, &options, has_type("xen"));
        let accelerators = accelerators(named, has_enable_kvm, by_default);
        let controllers = Controllers::new(&devices, is_q35);
        let drives: Vec<Properties> = values("drive", "file").collect();
        let nodes = values("blockdev", "driver");
        let blocks = BlockDevices::new(nodes, &drives);
        let mut disks: Vec<Disk> = devices
            .iter()
            .filter_map(|device| disk::of_device(device, &controllers, &blocks))
            .collect();
        disks.extend(drives.iter().filter_map(|drive| disk::of_drive(drive, is_q35)));
        let port = |name| devices.iter().find(|device| device.get("name") == Some(name));
        let socket_of = |port: &Properties| chardevs.get(port.get("chardev")?).cloned();
        let vsock = devices.iter().find(|device| {
            device.get("driver").is_some_and(|driver| driver.starts_with("vhost-vsock-"))
        });
        QemuArgs {
            names_threads: name.as_ref().is_some_and(|name| name.is_on("debug-threads")),
            name: name.and_then(|name| name.get("guest").map(str::to_owned)),
            disks,
            disk_notes: Vec::new(),
            qmp_sockets: qmp_sockets(&options, &chardevs),
            agent_socket: port(AGENT_PORT).and_then(socket_of).and_then(SocketPlace::into_path),
            has_agent_port: port(AGENT_PORT).is_some(),
            load_socket: port(LOAD_PORT).and_then(socket_of),
            vsock_cid: vsock.and_then(|device| device.get("guest-cid")?.parse().ok()),
            accelerators,
        }
    }
}

/// Those that are asked for (`-accel`, `-machine accel=kvm:tcg`, `-enable-kvm`).
fn accelerators<'a>(
    named: impl Iterator<Item = &'a str>,
    has_enable_kvm: bool,
    by_default: &[&str],
) -> Vec<String> {
    let mut found: Vec<String> =
        named.flat_map(|names| names.split(':')).map(str::to_owned).collect();
    if has_enable_kvm {
        found.push("kvm".to_owned());
    }
    if found.is_empty() {
        found = by_default.iter().map(|name| (*name).to_owned()).collect();
    }
    found
}

/// Where nobody asks for one, a QEMU takes TCG and then KVM, and machines of Xen take `xen` (qemu: system/vl.c,
/// `configure_accelerators`; hw/xen). One whose name ends in "kvm" tries KVM first, and a configuration file may
/// ask for any: which is not told, so that nothing is.
fn default_accelerators(
    words: &[String],
    options: &[(&str, &str)],
    is_of_xen: bool,
) -> &'static [&'static str] {
    let is_called_kvm = words.first().is_some_and(|program| program.ends_with("kvm"));
    let has_file = options.iter().any(|(option, _)| *option == "readconfig");
    match (is_called_kvm || has_file, is_of_xen) {
        (_, true) => &["xen"],
        (true, _) => &[],
        (false, _) => &["tcg", "kvm"],
    }
}

/// Each option without its dashes, with its value: empty where the next word is an option too.
fn options(words: &[String]) -> Vec<(&str, &str)> {
    let mut options = Vec::new();
    let mut rest = words.iter().skip(1).peekable();
    while let Some(word) = rest.next() {
        let Some(option) =
            word.strip_prefix('-').map(|rest| rest.strip_prefix('-').unwrap_or(rest))
        else {
            continue;
        };
        let value = rest.next_if(|next| !next.starts_with('-')).map_or("", String::as_str);
        options.push((option, value));
    }
    options
}

/// The character devices that are Unix sockets, by their ids.
fn chardevs(values: impl Iterator<Item = Properties>) -> BTreeMap<String, SocketPlace> {
    let socket = |chardev: Properties| {
        let is_socket = chardev.get("backend") == Some("socket");
        let path = chardev.get("path").map(|path| SocketPlace::Path(path.into()));
        let fd = || Some(SocketPlace::Fd(chardev.get("fd")?.parse().ok()?));
        let place = path.or_else(fd)?;
        is_socket.then(|| (chardev.get("id").unwrap_or_default().to_owned(), place))
    };
    values.filter_map(socket).collect()
}

fn qmp_sockets(options: &[(&str, &str)], chardevs: &BTreeMap<String, SocketPlace>) -> Vec<PathBuf> {
    let socket = |(option, value): &(&str, &str)| match *option {
        "qmp" | "qmp-pretty" => {
            let backend = Properties::parse(value, "backend");
            backend.get("backend")?.strip_prefix("unix:").map(PathBuf::from)
        }
        "mon" => {
            let monitor = Properties::parse(value, "chardev");
            let is_qmp = monitor.get("mode") == Some("control");
            let chardev = chardevs.get(monitor.get("chardev")?).filter(|_| is_qmp);
            chardev.cloned().and_then(SocketPlace::into_path)
        }
        _ => None,
    };
    options.iter().filter_map(socket).collect()
}

#[cfg(test)]
mod tests;
