//! The way to an agent through libvirt, which holds the channels of its domains.

use super::{ANSWER_TIMEOUT, QgaError, garbled, refusal};
use crate::vm::{Manager, Vm};
use nix::unistd::{Uid, User, geteuid};
use serde_json::Value;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};
use vslice_core::text::harmless;

/// Bytes of what virsh says that are read at most; a domain's XML has some 10 KiB.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;

/// How often is looked whether virsh has ended.
const POLL: Duration = Duration::from_millis(10);

/// A libvirt daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibvirtDaemon {
    /// The host's, `qemu:///system`.
    System,
    /// That of a user, `qemu:///session`.
    Session(Uid),
}

impl LibvirtDaemon {
    /// The one that manages a VM, if one does.
    #[must_use]
    pub fn of_vm(vm: &Vm) -> Option<LibvirtDaemon> {
        Some(match vm.manager? {
            Manager::LibvirtSystem => LibvirtDaemon::System,
            Manager::LibvirtSession => LibvirtDaemon::Session(vm.owner().unwrap_or(geteuid())),
        })
    }

    /// A running domain as libvirt has it now, also what was plugged in since it was started. The domain
    /// itself is asked nothing.
    ///
    /// # Errors
    /// [`QgaError::NoVirsh`], [`QgaError::LibvirtSilent`] or [`QgaError::NoDomain`].
    pub(crate) fn domain_xml(self, domain: &str) -> Result<String, QgaError> {
        let mut virsh = self.virsh();
        let output = said_within(virsh.args(["dumpxml", "--domain", domain]), ANSWER_TIMEOUT)?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let words = harmless(words.trim().trim_start_matches("error: "));
            return Err(QgaError::NoDomain { words });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn virsh(self) -> Command {
        let mut virsh = Command::new("virsh");
        virsh.env("LC_ALL", "C");
        let LibvirtDaemon::Session(owner) = self else {
            virsh.args(["--connect", "qemu:///system"]);
            return virsh;
        };
        virsh.args(["--connect", "qemu:///session"]);
        // A session's daemon listens where its user's own programs look for it (libvirt:
        // src/util/virutil.c, virGetUserRuntimeDirectory), and to nobody else.
        if owner != geteuid()
            && let Ok(Some(user)) = User::from_uid(owner)
        {
            virsh.uid(owner.as_raw()).gid(user.gid.as_raw()).current_dir("/");
            virsh.env("HOME", user.dir).env("XDG_RUNTIME_DIR", format!("/run/user/{owner}"));
            virsh.env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
        }
        virsh
    }

    /// Has a domain's agent execute `line`, and returns what it returns.
    pub(super) fn execute(
        self,
        domain: &str,
        command: &str,
        line: &str,
        timeout: Duration,
    ) -> Result<Value, QgaError> {
        let seconds = timeout.as_secs();
        let mut virsh = self.virsh();
        virsh.args(["qemu-agent-command", "--timeout", &seconds.to_string()]);
        virsh.args(["--domain", domain, line]);
        // The daemon waits for the agent for so long, and may take its own time beside that.
        let output = said_within(&mut virsh, timeout + ANSWER_TIMEOUT)?;
        if output.status.success() {
            let answer = serde_json::from_slice::<Value>(&output.stdout);
            let mut answer = answer.map_err(|_| garbled(&output.stdout))?;
            return Ok(answer["return"].take());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let words = said.trim().trim_start_matches("error: ");
        Err(unanswered(command, words, seconds))
    }
}

/// What virsh says instead of an answer. An agent that was never there is told at once, and one that
/// does not answer when the time is over (libvirt: src/qemu/qemu_domain.c, `qemuDomainAgentAvailable`,
/// and src/qemu/qemu_agent.c).
fn unanswered(command: &str, words: &str, seconds: u64) -> QgaError {
    if words.contains("is not connected") {
        QgaError::NotConnected
    } else if words.contains("not responding") {
        QgaError::Silent { seconds, command: command.to_owned() }
    } else {
        refusal(command, words)
    }
}

/// What virsh says; a daemon that hangs lets it wait for ever.
fn said_within(virsh: &mut Command, limit: Duration) -> Result<Output, QgaError> {
    output_within(virsh, limit).map_err(|source| match source.kind() {
        io::ErrorKind::TimedOut => QgaError::LibvirtSilent { seconds: limit.as_secs() },
        _ => QgaError::NoVirsh { source },
    })
}

/// As [`Command::output`], but kills the program once that takes longer than `limit`, which is
/// [`io::ErrorKind::TimedOut`].
fn output_within(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let deadline = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take().map(read_all), child.stderr.take().map(read_all));
    let status = wait_until(&mut child, deadline).inspect_err(|_| {
        // Whether it could be killed or had ended, it is waited for.
        let _may_have_ended = child.kill();
        let _is_gone = child.wait();
    })?;
    let text = |read: Option<Receiver<Vec<u8>>>| {
        let left = deadline.saturating_duration_since(Instant::now());
        // Another process may hold the other end of its pipe for longer than it was there.
        let read = read.and_then(|read| read.recv_timeout(left.max(POLL)).ok());
        read.ok_or(io::ErrorKind::TimedOut)
    };
    Ok(Output { status, stdout: text(stdout)?, stderr: text(stderr)? })
}

fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(POLL);
    }
}

/// Reads on a thread of its own, so that neither pipe fills up; what is over the limit is cut off, and the
/// writer then ends by SIGPIPE.
fn read_all(pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        // Nobody waits any more, if it cannot be sent.
        let _ = read.map(|_| sender.send(bytes));
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let silent = said_within(Command::new("sleep").arg("60"), Duration::from_millis(50));
        assert!(matches!(silent, Err(QgaError::LibvirtSilent { .. })), "{silent:?}");
        let missing = said_within(&mut Command::new("/nonexistent"), ANSWER_TIMEOUT);
        assert!(matches!(missing, Err(QgaError::NoVirsh { .. })), "{missing:?}");
    }

    #[test]
    fn an_agent_that_was_never_there_is_not_said_to_be_slow() {
        let said = |words: &str| unanswered("guest-ping", words, 20).to_string();
        let absent = said("Guest agent is not responding: QEMU guest agent is not connected");
        assert!(absent.starts_with("libvirt has no connection to qemu-ga: "), "{absent}");
        let slow = said("Guest agent is not responding: Guest agent not available for now");
        assert!(slow.starts_with("qemu-ga has not answered guest-ping within 20 s: "), "{slow}");
        assert!(said("no such thing").contains("refused guest-ping"));
    }

    #[test]
    fn all_that_is_said_is_heard() {
        let script = "head -c 300000 /dev/zero; echo no >&2; exit 3";
        let said = output_within(Command::new("sh").args(["-c", script]), Duration::from_secs(60));
        let said = said.expect("there is a shell");
        assert_eq!((said.stdout.len(), said.status.code()), (300_000, Some(3)));
        assert_eq!(said.stderr, b"no\n");
    }
}
