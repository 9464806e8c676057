//! What a QEMU was started with: its name, disks, sockets. Pure: a command line in, facts out.
//!
//! It is read and not asked for, because asking (QMP) runs in QEMU's main loop under the lock whose
//! waits vslice measures, and because a monitor's socket serves one client, which under libvirt is
//! libvirt. What was plugged in later is not in it.

mod backend;
mod block;
mod disk;
mod drives;
mod iothread;
mod machine;
mod options;
mod properties;
mod protocol;
mod sockets;
mod write;

pub use backend::backend_sockets;
pub use iothread::Iothreads;
pub use write::{disk_args, disk_devices, option};

use crate::disk::Disk;
use crate::procfs::WORDS_MAX;
use block::Blocks;
use disk::{Device, Frontends};
use machine::Machine;
use options::options;
use properties::Properties;
use sockets::chardevs;
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

/// A PCI device of the host that the guest drives itself (VFIO).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedThrough {
    /// The id of QEMU's device.
    pub id: Option<String>,
    /// `0000:01:00.0`.
    pub address: String,
}

/// What a command line says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QemuArgs {
    /// `-name`, the guest's.
    pub name: Option<String>,
    /// Its disks, in the order of the command line.
    pub disks: Vec<Disk>,
    /// What it leaves open of its disks, as sentences without their ends.
    pub disk_notes: Vec<String>,
    /// The PCI devices of the host that the guest drives, which may be disks.
    pub passed_through: Vec<PassedThrough>,
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
        let line = Line { options: options(words) };
        let name = line.values("name", "guest").next_back();
        let machines: Vec<Properties> =
            line.values("machine", "type").chain(line.values("M", "type")).collect();
        let machine = Machine::new(words.first().map_or("", String::as_str), &machines);
        let devices = line.devices();
        let servers = sockets::servers(line.with_sets("chardev", "backend").into_iter());
        let with = |key, value| {
            devices
                .iter()
                .map(|device| &device.properties)
                .find(move |device| device.get(key) == Some(value))
        };
        let port = |name| with("name", name);
        let socket_of = |port: &Properties| servers.get(port.get("chardev")?).cloned();
        let vsock = devices.iter().find(|device| {
            device.properties.get("driver").is_some_and(|driver| driver.starts_with("vhost-vsock-"))
        });
        QemuArgs {
            name: name.and_then(|name| name.get("guest").map(str::to_owned)),
            disks: line.disks(&devices, &machine),
            disk_notes: line.disk_notes(&devices, words.len()),
            passed_through: devices.iter().filter_map(passed_through).collect(),
            qmp_sockets: sockets::qmp(&line.options, &servers),
            agent_socket: port(AGENT_PORT).and_then(socket_of).and_then(SocketPlace::into_path),
            has_agent_port: port(AGENT_PORT).is_some(),
            load_socket: port(LOAD_PORT).and_then(socket_of),
            vsock_cid: vsock.and_then(|device| device.properties.get("guest-cid")?.parse().ok()),
            accelerators: line.accelerators(words, &machines),
        }
    }
}

/// The options of a command line.
struct Line<'a> {
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn texts(&self, name: &'static str) -> impl DoubleEndedIterator<Item = &'a str> + '_ {
        self.options.iter().filter(move |(option, _)| *option == name).map(|(_, value)| *value)
    }

    fn values(
        &self,
        name: &'static str,
        implied: &'static str,
    ) -> impl DoubleEndedIterator<Item = Properties> + '_ {
        self.texts(name).map(move |value| Properties::parse(value, implied))
    }

    fn has(&self, name: &'static str) -> bool {
        self.texts(name).next().is_some()
    }

    /// The values of an option, with what `-set` changes of them by their ids.
    fn with_sets(&self, name: &'static str, implied: &'static str) -> Vec<Properties> {
        let mut all: Vec<Properties> = self.values(name, implied).collect();
        for set in self.texts("set") {
            let Some((target, value)) = set.split_once('=') else { continue };
            let parts: Vec<&str> = target.splitn(3, '.').collect();
            let [group, id, key] = parts[..] else { continue };
            let is_it = |properties: &&mut Properties| properties.get("id") == Some(id);
            all.iter_mut()
                .filter(|_| group == name)
                .filter(is_it)
                .for_each(|it| it.set(key, value));
        }
        all
    }

    fn devices(&self) -> Vec<Device> {
        let globals = self.globals();
        let texts = self.texts("device").map(|text| text.starts_with('{'));
        let all = self.with_sets("device", "driver").into_iter().zip(texts).enumerate();
        all.map(|(index, (mut properties, is_json))| {
            disk::add_globals(&mut properties, &globals);
            Device { properties, place: (is_json, index) }
        })
        .collect()
    }

    /// `-global driver.property=value`, or with these three as keys.
    fn globals(&self) -> Vec<Properties> {
        let long = |text: &str| {
            let (target, value) = text.split_once('=')?;
            let (driver, property) = target.split_once('.')?;
            let mut global = Properties::default();
            for (key, text) in [("driver", driver), ("property", property), ("value", value)] {
                global.set(key, text);
            }
            Some(global)
        };
        self.texts("global")
            .map(|text| long(text).unwrap_or_else(|| Properties::parse(text, "driver")))
            .collect()
    }

    fn disks(&self, devices: &[Device], machine: &Machine) -> Vec<Disk> {
        let drives = drives::all(self, machine);
        let blocks = Blocks::new(self.values("blockdev", "driver"), &drives);
        let chardevs = chardevs(self.with_sets("chardev", "backend").into_iter());
        let frontends = Frontends { devices, machine, blocks: &blocks, chardevs: &chardevs };
        let globals = self.globals();
        let of_devices = devices.iter().filter_map(|device| frontends.of_device(device));
        let of_drives = drives.iter().filter_map(|drive| frontends.of_drive(drive, &globals));
        of_devices.chain(of_drives).collect()
    }

    fn disk_notes(&self, devices: &[Device], words_count: usize) -> Vec<String> {
        let cut_off = (words_count >= WORDS_MAX).then(|| {
            format!("its command line is read up to its word {WORDS_MAX}: it may have more of them")
        });
        let configs = self.texts("readconfig").map(|file| {
            format!("{file} (-readconfig) is not read: it may have more of them, and change these")
        });
        let vdpa = devices.iter().map(|device| &device.properties).filter_map(|device| {
            device.get("driver").filter(|driver| driver.starts_with("vhost-vdpa-device"))?;
            let path = device.get("vhostdev").unwrap_or("a vDPA device");
            Some(format!(
                "{path} is served outside of QEMU (vDPA): whether it is a disk is not told"
            ))
        });
        configs.chain(vdpa).chain(cut_off).collect()
    }

    fn accelerators(&self, words: &[String], machines: &[Properties]) -> Vec<String> {
        let of_machine = machines.iter().filter_map(|machine| machine.get("accel"));
        let of_option: Vec<Properties> = self.values("accel", "accel").collect();
        let named = of_machine.chain(of_option.iter().filter_map(|accel| accel.get("accel")));
        let mut types = machines.iter().filter_map(|machine| machine.get("type"));
        let is_of_xen = types.any(|kind| kind.contains("xen"));
        let by_default = default_accelerators(words, &self.options, is_of_xen);
        accelerators(named, self.has("enable-kvm"), by_default)
    }
}

fn passed_through(device: &Device) -> Option<PassedThrough> {
    let device = &device.properties;
    device.get("driver").filter(|driver| matches!(*driver, "vfio-pci" | "vfio-pci-nohotplug"))?;
    let path = device.get("sysfsdev").and_then(|path| path.rsplit('/').next());
    let address = device.get("host").or(path)?;
    // A domain may be left out.
    let domain = if address.matches(':').count() < 2 { "0000:" } else { "" };
    Some(PassedThrough {
        id: device.get("id").map(str::to_owned),
        address: format!("{domain}{address}"),
    })
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

#[cfg(test)]
mod tests;
