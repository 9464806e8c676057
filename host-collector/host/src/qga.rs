//! A client of qemu-ga, the agent in QEMU's guests: JSON objects, one a line, over the channel's socket
//! on the host, or through libvirt, which holds that socket of its domains.
//!
//! ```text
//! client  0xff {"execute": "guest-sync-delimited", "arguments": {"id": 7}}
//! agent   ... what somebody else's answer left over ... 0xff {"return": 7}
//! client  {"execute": "guest-info"}
//! agent   {"return": {"version": "7.2.22", "supported_commands": [...]}}
//! ```
//!
//! (qemu: qga/qapi-schema.json.) A channel has no connection that the guest would see: whether anybody
//! is there is known only by the answer, and what another client left in it comes before. The guest is
//! hostile: what it sends is bounded, and its words are made harmless.

#[cfg(any(test, feature = "mock-agent"))]
pub mod mock;
mod program;
mod virsh;

pub use program::Ended;
pub use virsh::LibvirtDaemon;

use super::vm::Vm;
use crate::host_clock::host_now;
use crate::unix_sockets;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;
use vslice_core::text::harmless;

/// How long an answer may take, if the caller does not say so: an agent answers within milliseconds, under TCG with
/// busy vCPUs in some hundreds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of one answer at most.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Neither side sends it in JSON, so it marks where a new conversation begins.
const SENTINEL: u8 = 0xff;

/// Why qemu-ga did not do what it was asked for, with advice.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message")]
pub enum QgaError {
    #[error("qemu-ga's socket {} cannot be reached: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error(
        "qemu-ga has not answered {command} within {seconds} s: in the guest, install qemu-guest-agent and start \
        it (systemctl start qemu-guest-agent); if it is running, another client may be using its \
        channel"
    )]
    Silent { seconds: u64, command: String },
    #[error(
        "libvirt has no connection to qemu-ga: in the guest, install qemu-guest-agent and start it \
        (systemctl start qemu-guest-agent)"
    )]
    NotConnected,
    #[error("the connection to qemu-ga failed: {source}")]
    Broken { source: io::Error },
    #[error("the answer on qemu-ga's channel is not that of qemu-ga: {words}")]
    Garbled { words: String },
    #[error(
        "the guest does not allow {command} ({words}): allow it in /etc/sysconfig/qemu-ga \
        (FILTER_RPC_ARGS, BLACKLIST_RPC) or qemu-ga.conf (block-rpcs, allow-rpcs), and restart \
        qemu-guest-agent"
    )]
    Disabled { command: String, words: String },
    #[error(
        "the guest's file systems are frozen, so qemu-ga refuses most commands: thaw them \
        (guest-fsfreeze-thaw, virsh domfsthaw)"
    )]
    Frozen,
    #[error("qemu-ga refused {command}: {words}")]
    Refused { command: String, words: String },
    #[error("virsh cannot be run: {source}; apt-get install libvirt-clients")]
    NoVirsh { source: io::Error },
    #[error(
        "libvirt does not answer within {seconds} s: check whether its daemon hangs (systemctl status \
        libvirtd virtqemud)"
    )]
    LibvirtSilent { seconds: u64 },
    #[error("libvirt does not know this domain: {words}")]
    NoDomain { words: String },
    #[error(
        "there is no port for qemu-ga: give the VM a virtio-serial port named org.qemu.guest_agent.0 \
        (libvirt: <channel type='unix'><target type='virtio' \
        name='org.qemu.guest_agent.0'/></channel>; QEMU: -device virtio-serial-pci -chardev \
        socket,id=ga,path=GA.sock,server=on,wait=off -device \
        virtserialport,chardev=ga,name=org.qemu.guest_agent.0) and restart it"
    )]
    NoPort,
    #[error("there is a port for qemu-ga, but its host end is unknown: give its chardev a path")]
    NoOtherEnd,
    #[error("the guest's disk did not accept {bytes} bytes: is it full?")]
    NotWritten { bytes: usize },
    #[error("there is no program {program} in the guest")]
    NoProgram { program: String },
    #[error(
        "the guest does not allow qemu-ga to run {program} ({words}): if SELinux is the reason \
        (getenforce), run `setsebool -P virt_qemu_ga_run_unconfined on` in the guest; otherwise check \
        that the file is executable and its file system is not mounted noexec"
    )]
    Forbidden { program: String, words: String },
    #[error("{program} is not for this guest's architecture ({words}): build vslice-agent for it")]
    WrongMachine { program: String, words: String },
    #[error("{program} did not end within {seconds} s in the guest")]
    Unending { program: String, seconds: u64 },
}

/// What qemu-ga reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInfo {
    /// Its version.
    pub version: String,
    /// The commands that it supports and is allowed to execute.
    pub enabled: BTreeSet<String>,
}

/// The commands that starting a program in the guest needs.
pub const EXEC: &[&str] = &["guest-exec", "guest-exec-status"];

/// The commands that writing a file in the guest needs.
pub const FILES: &[&str] = &["guest-file-open", "guest-file-write", "guest-file-close"];

impl AgentInfo {
    /// Checks that it may execute all of these commands.
    ///
    /// # Errors
    /// [`QgaError::Disabled`] with those that it may not.
    pub fn allows(&self, commands: &[&str]) -> Result<(), QgaError> {
        let lacks = |command: &&str| !self.enabled.contains(*command);
        let missing: Vec<&str> = commands.iter().copied().filter(lacks).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let words = "guest-info says so".to_owned();
        Err(QgaError::Disabled { command: missing.join(" and "), words })
    }
}

/// A connection to a qemu-ga that has answered.
#[derive(Debug)]
pub struct Qga {
    channel: Channel,
    timeout: Duration,
    /// The command that was sent last.
    asked: String,
}

#[derive(Debug)]
enum Channel {
    Socket {
        stream: UnixStream,
        /// What came after the last line that was taken.
        received: Vec<u8>,
    },
    Libvirt {
        daemon: LibvirtDaemon,
        domain: String,
    },
}

impl Qga {
    /// Connects to the qemu-ga of a VM, by its socket or through libvirt.
    ///
    /// # Errors
    /// [`QgaError`].
    pub fn of_vm(vm: &Vm) -> Result<Qga, QgaError> {
        Qga::of_vm_within(vm, ANSWER_TIMEOUT)
    }

    /// [`Qga::of_vm`], with another limit for each answer than 5 s.
    ///
    /// # Errors
    /// As there.
    pub fn of_vm_within(vm: &Vm, timeout: Duration) -> Result<Qga, QgaError> {
        match (&vm.agent_socket, LibvirtDaemon::of_vm(vm), vm.name.as_deref()) {
            (Some(socket), _, _) => Qga::connect_within(socket, timeout),
            (None, Some(daemon), Some(domain)) if vm.has_agent_port => {
                Qga::through_libvirt_within(daemon, domain, timeout)
            }
            _ if vm.has_agent_port => Err(QgaError::NoOtherEnd),
            _ => Err(QgaError::NoPort),
        }
    }

    /// Connects over the socket of a channel, as its only client.
    ///
    /// # Errors
    /// [`QgaError`]; [`QgaError::Silent`] if no agent is there.
    pub fn connect(path: &Path) -> Result<Qga, QgaError> {
        Qga::connect_within(path, ANSWER_TIMEOUT)
    }

    /// [`Qga::connect`], with another limit for each answer than 5 s.
    ///
    /// # Errors
    /// As there.
    pub fn connect_within(path: &Path, timeout: Duration) -> Result<Qga, QgaError> {
        let stream = unix_sockets::connect(path)
            .map_err(|source| QgaError::Connect { path: path.to_owned(), source })?;
        let channel = Channel::Socket { stream, received: Vec::new() };
        let mut qga = Qga { channel, timeout, asked: String::new() };
        qga.sync()?;
        Ok(qga)
    }

    /// Connects through libvirt.
    ///
    /// # Errors
    /// [`QgaError`].
    pub fn through_libvirt(daemon: LibvirtDaemon, domain: &str) -> Result<Qga, QgaError> {
        Qga::through_libvirt_within(daemon, domain, ANSWER_TIMEOUT)
    }

    /// [`Qga::through_libvirt`], with another limit for each answer than 5 s.
    ///
    /// # Errors
    /// As there.
    fn through_libvirt_within(
        daemon: LibvirtDaemon,
        domain: &str,
        timeout: Duration,
    ) -> Result<Qga, QgaError> {
        let channel = Channel::Libvirt { daemon, domain: domain.to_owned() };
        let mut qga = Qga { channel, timeout, asked: String::new() };
        qga.execute("guest-ping", json!({}))?;
        Ok(qga)
    }

    /// Executes a command and returns what it returns.
    ///
    /// # Errors
    /// [`QgaError`].
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QgaError> {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        let deadline = Instant::now() + self.timeout;
        let answer = match &mut self.channel {
            Channel::Libvirt { daemon, domain } => {
                return daemon.execute(domain, command, &line, self.timeout);
            }
            Channel::Socket { .. } => {
                self.send(command, line.as_bytes())?;
                self.line(deadline)?
            }
        };
        match serde_json::from_slice::<Value>(&answer) {
            Ok(Value::Object(mut object)) => match (object.remove("return"), object.get("error")) {
                (Some(value), _) => Ok(value),
                (None, Some(error)) => {
                    let words = error.get("desc").and_then(Value::as_str).unwrap_or("?");
                    Err(refusal(command, words))
                }
                (None, None) => Err(garbled(&answer)),
            },
            _ => Err(garbled(&answer)),
        }
    }

    /// qemu-ga's version and allowed commands.
    ///
    /// # Errors
    /// [`QgaError`].
    pub fn info(&mut self) -> Result<AgentInfo, QgaError> {
        let info = self.execute("guest-info", json!({}))?;
        let commands = info["supported_commands"].as_array().map_or(&[][..], Vec::as_slice);
        let is_enabled = |command: &&Value| command["enabled"] == Value::Bool(true);
        let name = |command: &Value| command["name"].as_str().map(harmless);
        Ok(AgentInfo {
            version: harmless(info["version"].as_str().unwrap_or("unknown")),
            enabled: commands.iter().filter(is_enabled).filter_map(name).collect(),
        })
    }

    /// Passes over what another client's conversation has left in the channel.
    fn sync(&mut self) -> Result<(), QgaError> {
        // It has to differ from a former one's only; JSON's numbers are exact up to 2^53.
        let id = host_now().0 & 0xffff_ffff;
        let command = "guest-sync-delimited";
        let line = json!({"execute": command, "arguments": {"id": id}}).to_string();
        self.send(command, &[&[SENTINEL], line.as_bytes()].concat())?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let line = self.line(deadline)?;
            // Before the mark there may be anything, an unfinished line too.
            let Some(at) = line.iter().rposition(|byte| *byte == SENTINEL) else { continue };
            let answer = serde_json::from_slice::<Value>(&line[at + 1..]).unwrap_or_default();
            if answer["return"] == id {
                return Ok(());
            }
        }
    }

    fn send(&mut self, command: &str, line: &[u8]) -> Result<(), QgaError> {
        command.clone_into(&mut self.asked);
        let timeout = self.timeout;
        let Channel::Socket { stream, .. } = &mut self.channel else { return Ok(()) };
        let sent = stream
            .set_write_timeout(Some(timeout))
            .and_then(|()| stream.write_all(&[line, b"\n"].concat()));
        sent.map_err(|source| self.failed(source))
    }

    fn line(&mut self, deadline: Instant) -> Result<Vec<u8>, QgaError> {
        loop {
            let Channel::Socket { stream, received } = &mut self.channel else {
                return Ok(Vec::new());
            };
            if let Some(at) = received.iter().position(|byte| *byte == b'\n') {
                let rest = received.split_off(at + 1);
                return Ok(std::mem::replace(received, rest));
            }
            if received.len() > ANSWER_BYTES_MAX {
                return Err(garbled(received));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failed(io::ErrorKind::TimedOut.into()));
            }
            let mut chunk = [0; 4096];
            let read = stream.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut chunk));
            match read {
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn failed(&self, source: io::Error) -> QgaError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                QgaError::Silent { seconds: self.timeout.as_secs(), command: self.asked.clone() }
            }
            _ => QgaError::Broken { source },
        }
    }
}

fn garbled(line: &[u8]) -> QgaError {
    let beginning = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
    QgaError::Garbled { words: harmless(beginning.trim()) }
}

/// What the words of a refusal mean (qemu: qga/main.c, `ga_command_is_allowed` and around it).
fn refusal(command: &str, words: &str) -> QgaError {
    let (command, words) = (command.to_owned(), harmless(words));
    if words.contains("frozen") {
        QgaError::Frozen
    } else if words.contains("has been disabled") || words.contains("has not been found") {
        QgaError::Disabled { command, words }
    } else {
        QgaError::Refused { command, words }
    }
}

#[cfg(test)]
mod tests;
