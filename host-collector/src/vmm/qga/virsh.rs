//! The way to an agent through libvirt, which holds the channels of its domains.

use super::{QgaError, garbled, refusal};
use crate::vmm::found::{FoundVm, Manager};
use nix::unistd::{Uid, User, geteuid};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

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
    pub fn of_vm(vm: &FoundVm) -> Option<LibvirtDaemon> {
        Some(match vm.manager? {
            Manager::LibvirtSystem => LibvirtDaemon::System,
            Manager::LibvirtSession => LibvirtDaemon::Session(vm.owner().unwrap_or(geteuid())),
        })
    }

    /// A running domain as libvirt has it now, also what was plugged in since it was started. The domain
    /// itself is asked nothing. `None` if there is no such domain, or no virsh.
    pub(in crate::vmm) fn domain_xml(self, domain: &str) -> Option<String> {
        let output = self.virsh().args(["dumpxml", "--domain", domain]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
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
        let output = self
            .virsh()
            .args(["qemu-agent-command", "--timeout", &seconds.to_string()])
            .args(["--domain", domain, line])
            .output()
            .map_err(|source| QgaError::NoVirsh { source })?;
        if output.status.success() {
            let answer = serde_json::from_slice::<Value>(&output.stdout);
            let mut answer = answer.map_err(|_| garbled(&output.stdout))?;
            return Ok(answer["return"].take());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let words = said.trim().trim_start_matches("error: ");
        if words.contains("not responding") || words.contains("is not connected") {
            return Err(QgaError::Silent { seconds });
        }
        Err(refusal(command, words))
    }
}
