//! A way to the guest of a VM that runs and has none: a virtio-serial port that is plugged in, and taken
//! out again, also after the collector was killed: see [`super::journal`].
//!
//! ```text
//! chardev-add  a Unix socket on which QEMU listens
//! device_add   a virtserialport named vslice.agent, on whichever virtio-serial controller has room
//! device_del, chardev-remove   take them out
//! ```
//!
//! This asks QEMU, by QMP: only where a user asks for it, and never while requests are measured.

mod advice;

pub use advice::{ByHand, by_hand};

use super::agent_transport::{AgentTransport, NO_TRANSPORT_ADVICE, has_vhost};
use super::journal::{self, Journal, JournalError, Undone};
use super::procfs::{self, StartTicks};
use super::qemu_args::LOAD_PORT;
use super::qmp::{Qmp, QmpError};
use super::vm::Vm;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};
use thiserror::Error;
use vslice_core::units::Tid;

const KIND: &str = "plug";
/// What the port's character device is called in QEMU.
const CHARDEV_ID: &str = "vslice-agent";
/// What the port is called.
const PORT_ID: &str = "vslice-agent-port";

/// How long QEMU may leave a command, and its greeting, unanswered: another client may have its monitor.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the character device may be in use once its port is out.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);
const REMOVE_INTERVAL: Duration = Duration::from_millis(50);

/// Where devices are that were given an id, and those that were not.
const DEVICES: [&str; 2] = ["/machine/peripheral", "/machine/peripheral-anon"];
/// Devices that are looked at in one of these.
const DEVICES_MAX: usize = 1024;

/// Why a port could not be plugged in or unplugged.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message or its source's")]
pub enum PlugError {
    #[error("{vm} has no QMP socket of its own, so vslice cannot plug a device into it; {by_hand}")]
    NoMonitor { vm: String, by_hand: String },
    #[error("{source}; {by_hand}")]
    Taken { source: QmpError, by_hand: String },
    #[error("{source}; if there is no room for a port, {NO_TRANSPORT_ADVICE}")]
    NotAdded { source: QmpError },
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{vm}: its VMM, process {pid}, has ended")]
    Ended { vm: String, pid: Tid },
}

/// One line of a journal: what is in a QEMU that was not there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    pid: Tid,
    start: StartTicks,
    monitor: PathBuf,
    socket: PathBuf,
}

/// A port that is plugged in until this is dropped.
#[derive(Debug)]
pub struct PluggedPort {
    change: Change,
    journal: Journal,
    is_out: bool,
}

/// The result of plugging in a port.
#[derive(Debug)]
pub enum Plugged {
    /// There was a transport already, which is not on the command line.
    Found(AgentTransport),
    /// A port was plugged in.
    Port(PluggedPort),
}

/// Plugs a port into a VM, unless one was plugged in before. The VMM creates `socket` and listens on it.
///
/// # Errors
/// Fails with [`PlugError`]; nothing is left in the VM then.
pub fn plug(vm: &Vm, journals: &Path, socket: &Path) -> Result<Plugged, PlugError> {
    let (mut qmp, monitor) = connect(vm)?;
    if let Some(transport) = find(&mut qmp, has_vhost())? {
        return Ok(Plugged::Found(transport));
    }
    let ended = || PlugError::Ended { vm: vm.label(), pid: vm.pid };
    let start = procfs::start_ticks(vm.pid).ok_or_else(ended)?;
    let (socket, pid) = (socket.to_owned(), vm.pid);
    let change = Change { pid, start, monitor, socket };
    let mut journal = Journal::create(journals, KIND)?;
    journal.write(&change)?;
    let [chardev, port] = commands(&change.socket);
    // From here on it is taken out again, whatever happens.
    let mut plugged = PluggedPort { change, journal, is_out: false };
    let added = qmp.execute(chardev.0, chardev.1);
    // Who is refused has added nothing, and one of that name may be another collector's.
    plugged.is_out = matches!(added, Err(QmpError::Refused { .. }));
    let added = added.and_then(|_| qmp.execute(port.0, port.1));
    // The monitor serves one client, and that is who takes the port out.
    drop(qmp);
    added.map_err(|source| PlugError::NotAdded { source })?;
    Ok(Plugged::Port(plugged))
}

impl PluggedPort {
    /// The transport that the port provides.
    #[must_use]
    pub fn transport(&self) -> AgentTransport {
        AgentTransport::Serial { path: self.change.socket.clone() }
    }

    /// Unplugs the port.
    ///
    /// # Errors
    /// Fails if the port could not be unplugged; the next vslice tries again.
    pub fn take_out(mut self) -> io::Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> io::Result<()> {
        self.is_out = true;
        undo(&self.change).map(drop).inspect_err(|_| self.journal.keep())
    }
}

impl Drop for PluggedPort {
    fn drop(&mut self) {
        if !self.is_out {
            let _journal_is_kept = self.undo();
        }
    }
}

/// Unplugs the ports that dead collectors have left. Returns how many were unplugged and how many could
/// not be; the next call tries those again.
///
/// # Errors
/// Fails if the directory cannot be read; a directory that does not exist counts as empty.
pub fn undo_stale_journals(directory: &Path) -> io::Result<Undone> {
    journal::undo_stale(directory, KIND, |changes: Vec<Change>| {
        changes.iter().fold(Undone::default(), |undone, change| undone.add(&undo(change)))
    })
}

/// Takes one port out, and says whether there was one. A VM that has ended has none.
fn undo(change: &Change) -> io::Result<bool> {
    if !procfs::is_alive(change.pid, change.start) {
        remove_socket(&change.socket);
        return Ok(false);
    }
    let failed = |error: QmpError| io::Error::other(error);
    let mut qmp = Qmp::connect_within(&change.monitor, ANSWER_TIMEOUT).map_err(failed)?;
    let mut port = is_own_port(&mut qmp).map_err(failed)?;
    if port {
        let gone = unless_gone(qmp.execute("device_del", json!({"id": PORT_ID})));
        port = gone.map_err(failed)?;
    }
    let deadline = Instant::now() + REMOVE_LIMIT;
    let chardev = loop {
        match unless_gone(qmp.execute("chardev-remove", json!({"id": CHARDEV_ID}))) {
            Ok(chardev) => break chardev,
            // The port lets go of it a moment later.
            Err(QmpError::Refused { .. }) if Instant::now() < deadline => {
                thread::sleep(REMOVE_INTERVAL);
            }
            Err(error) => return Err(failed(error)),
        }
    };
    remove_socket(&change.socket);
    Ok(port || chardev)
}

/// Whether the device with the port's id is the port. QEMU refuses a port whose id a user's device has, and that
/// device has no character device, or another one.
fn is_own_port(qmp: &mut Qmp) -> Result<bool, QmpError> {
    let path = format!("{}/{PORT_ID}", DEVICES[0]);
    match qmp.execute("qom-get", json!({"path": path, "property": "chardev"})) {
        Ok(chardev) => Ok(chardev == CHARDEV_ID),
        refused => unless_gone(refused),
    }
}

/// QEMU removes it too, if it ends in order; and its directory is of nothing else.
fn remove_socket(socket: &Path) {
    let _may_be_gone = fs::remove_file(socket);
    let _may_be_others = socket.parent().map(fs::remove_dir);
}

/// Whether there was something to be taken out.
fn unless_gone(answer: Result<Value, QmpError>) -> Result<bool, QmpError> {
    match answer {
        Ok(_) => Ok(true),
        Err(QmpError::Refused { class, description, .. })
            if class == "DeviceNotFound" || description.contains("not found") =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// To the first of a VM's monitors that answers.
fn connect(vm: &Vm) -> Result<(Qmp, PathBuf), PlugError> {
    let by_hand = || by_hand(vm).sentence();
    let mut refused = None;
    for monitor in &vm.qmp_sockets {
        match Qmp::connect_within(monitor, ANSWER_TIMEOUT) {
            Ok(qmp) => return Ok((qmp, monitor.clone())),
            Err(error) => refused = Some(error),
        }
    }
    Err(match refused {
        Some(source) => PlugError::Taken { source, by_hand: by_hand() },
        None => PlugError::NoMonitor { vm: vm.label(), by_hand: by_hand() },
    })
}

/// The commands that plug a port in.
fn commands(socket: &Path) -> [(&'static str, Value); 2] {
    let address = json!({"type": "unix", "data": {"path": socket.to_string_lossy()}});
    let backend = json!({
        "type": "socket",
        "data": {"addr": address, "server": true, "wait": false},
    });
    let port = json!({
        "driver": "virtserialport",
        "id": PORT_ID,
        "chardev": CHARDEV_ID,
        "name": LOAD_PORT,
    });
    [("chardev-add", json!({"id": CHARDEV_ID, "backend": backend})), ("device_add", port)]
}

/// A port of that name, or a vhost-vsock, which the command line need not know of.
fn find(qmp: &mut Qmp, has_vhost: bool) -> Result<Option<AgentTransport>, QmpError> {
    let chardevs = qmp.execute("query-chardev", json!({}))?;
    for container in DEVICES {
        let devices = qmp.execute("qom-list", json!({"path": container}))?;
        let devices = devices.as_array().map_or(&[][..], Vec::as_slice);
        for device in devices.iter().take(DEVICES_MAX) {
            let Some(name) = device["name"].as_str() else { continue };
            let path = format!("{container}/{name}");
            let mut get = |property: &str| {
                qmp.execute("qom-get", json!({"path": path, "property": property}))
            };
            let kind = device["type"].as_str().unwrap_or_default();
            if has_vhost && kind.starts_with("child<vhost-vsock-") {
                let cid = get("guest-cid")?.as_u64().and_then(|cid| u32::try_from(cid).ok());
                if let Some(cid) = cid {
                    return Ok(Some(AgentTransport::Vsock { cid }));
                }
            }
            if kind == "child<virtserialport>" && get("name")? == LOAD_PORT {
                let chardev = get("chardev")?;
                if let Some(path) = socket_of(&chardevs, chardev.as_str().unwrap_or_default()) {
                    return Ok(Some(AgentTransport::Serial { path }));
                }
            }
        }
    }
    Ok(None)
}

/// The Unix socket on which QEMU listens for a character device: `disconnected:unix:/path,server=on`, or
/// `unix:/path,server=on` while somebody is connected (qemu: chardev/char-socket.c, `qemu_chr_socket_address`).
fn socket_of(chardevs: &Value, id: &str) -> Option<PathBuf> {
    let all = chardevs.as_array()?;
    let file = all.iter().find(|chardev| chardev["label"] == id)?["filename"].as_str()?;
    let address = file.strip_prefix("disconnected:").unwrap_or(file).strip_prefix("unix:")?;
    let (path, _) = address.rsplit_once(",server")?;
    Some(PathBuf::from(path))
}

#[cfg(test)]
mod tests;
