//! Starts vslice-agent in a guest that runs already, through its qemu-ga.
//!
//! The agent that the image brings is taken, or one is uploaded and removed again. Under systemd it
//! becomes a unit of its own: systemd ends what qemu-ga has started together with qemu-ga.

use super::agent_file::{self, AgentFile, AgentFileError};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::time::Duration;
use thiserror::Error;
use vslice_host::host_clock::host_now;
use vslice_host::qga::{EXEC, Ended, FILES, Qga, QgaError};
use vslice_wire::PROTOCOL_VERSION;

/// The name of the agent that is installed in the guest, found on its PATH.
pub const BAKED_IN: &str = "vslice-agent";

/// Where an uploaded agent is: no other user of the guest may write there, and it may be executed,
/// which /run often may not. Its name begins so and ends in a number.
const UPLOAD_PREFIX: &str = "/var/lib/vslice-agent-";

/// Where an image of vslice's says what it was made of.
const IMAGE_MANIFEST: &str = "/etc/vslice-image.json";

/// The time limit for a short program in the guest: a busy guest under TCG takes seconds to start one.
pub const WORD_TIMEOUT: Duration = Duration::from_secs(20);

/// Why an agent could not be started.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message or its source's")]
pub enum StartError {
    #[error(transparent)]
    Qga(#[from] QgaError),
    #[error(
        "the guest has no vslice-agent on its PATH: upload a static one with --agent (`make build` in \
        a checkout of vslice builds it), or install it in the guest"
    )]
    NoAgent,
    #[error(transparent)]
    File(#[from] AgentFileError),
    #[error(
        "the guest's own vslice-agent speaks protocol {theirs}, but this vslice speaks \
        {PROTOCOL_VERSION}: upload the agent of the same build with --agent"
    )]
    OtherProtocol { theirs: u32 },
    #[error("the uploaded agent differs from the file that was sent: {words}")]
    Damaged { words: String },
    #[error("{program} failed in the guest: {words}")]
    Failed { program: &'static str, words: String },
}

/// An agent that was started. Dropping this after the agent has connected removes everything but the
/// running agent.
#[derive(Debug)]
pub struct StartedAgent {
    /// What its image says of itself: `/etc/vslice-image.json`, as `images/build-debian` leaves it.
    pub image: Option<Value>,
    qga: Qga,
    kind: Kind,
    uploaded: Option<String>,
}

#[derive(Debug)]
enum Kind {
    /// A unit of systemd's.
    Unit(String),
    /// A child of qemu-ga's.
    Child(u64),
}

/// Starts an agent that connects to `address`: the guest's own, or `upload` if there is one.
///
/// # Errors
/// [`StartError`]; then nothing of it is left in the guest.
pub fn start(
    mut qga: Qga,
    upload: Option<&AgentFile>,
    address: &str,
) -> Result<StartedAgent, StartError> {
    let info = qga.info()?;
    info.allows(EXEC)?;
    let id = host_now().0;
    let uploaded = match upload {
        None => None,
        Some(agent) => {
            info.allows(FILES)?;
            let path = format!("{UPLOAD_PREFIX}{id}");
            if let Err(error) = send(&mut qga, agent, &path) {
                remove(&mut qga, &path);
                return Err(error);
            }
            Some(path)
        }
    };
    let program = uploaded.as_deref().unwrap_or(BAKED_IN);
    match launch(&mut qga, program, address, &format!("vslice-agent-{id}")) {
        Ok(kind) => {
            let image = qga.read_file(IMAGE_MANIFEST);
            let image = image.and_then(|text| serde_json::from_slice(&text).ok());
            Ok(StartedAgent { image, qga, kind, uploaded })
        }
        Err(error) => {
            if let Some(path) = &uploaded {
                remove(&mut qga, path);
            }
            Err(error)
        }
    }
}

/// Checks that [`start`] would find what it needs; nothing is left in the guest.
///
/// # Errors
/// [`StartError`].
pub fn check(mut qga: Qga, upload: Option<&AgentFile>) -> Result<(), StartError> {
    let info = qga.info()?;
    info.allows(EXEC)?;
    match upload {
        None => check_version(&mut qga, BAKED_IN),
        Some(agent) => {
            info.allows(FILES)?;
            qga.machine().map_or(Ok(()), |machine| Ok(agent.check_machine(&machine)?))
        }
    }
}

impl Drop for StartedAgent {
    /// Removes what was uploaded: an agent that runs needs its file no more, and one that does not is
    /// not tried again.
    fn drop(&mut self) {
        if let Some(path) = &self.uploaded {
            remove(&mut self.qga, path);
        }
    }
}

impl StartedAgent {
    /// The state of an agent that has not connected: its output if it has ended, or that it is still
    /// running.
    #[must_use]
    pub fn never_connected(mut self) -> String {
        let said = match &self.kind {
            Kind::Unit(unit) => {
                let unit = format!("--unit={unit}");
                // Its own words, and not systemd's of it.
                let args = [&unit, "_TRANSPORT=stdout", "--output=cat", "--lines=3", "--no-pager"];
                self.qga.run("journalctl", &args, WORD_TIMEOUT).map(Some)
            }
            Kind::Child(pid) => self.qga.ended(*pid),
        };
        match said {
            Ok(Some(ended)) if ended.is_success() || !ended.last_words().is_empty() => {
                ended.last_words().to_owned()
            }
            Ok(_) => "it is running and has printed nothing".to_owned(),
            Err(error) => format!("its output cannot be read: {error}"),
        }
    }
}

/// Uploads an agent, and sees that it arrived whole.
fn send(qga: &mut Qga, agent: &AgentFile, path: &str) -> Result<(), StartError> {
    if let Some(machine) = qga.machine() {
        agent.check_machine(&machine)?;
    }
    let bytes = agent.bytes();
    qga.write_file(path, bytes)?;
    let sum = run(qga, "sha256sum", &[path])?;
    if !sum.out.starts_with(&hex(&Sha256::digest(bytes))) {
        return Err(StartError::Damaged { words: sum.out });
    }
    run(qga, "chmod", &["0700", path]).map(drop)
}

/// Whether the guest has no such file afterwards; one that stays is small, and nobody waits for it.
fn remove(qga: &mut Qga, path: &str) {
    let _removed = qga.run("rm", &["-f", path], WORD_TIMEOUT);
}

/// Whether a program is there, and an agent that speaks as this vslice does: so one that is not there is told
/// apart from a unit that fails.
fn check_version(qga: &mut Qga, program: &str) -> Result<(), StartError> {
    let is_own = program == BAKED_IN;
    let no_agent = |error| match error {
        QgaError::NoProgram { .. } if is_own => StartError::NoAgent,
        other => StartError::Qga(other),
    };
    let version = qga.run(program, &["--version"], WORD_TIMEOUT).map_err(no_agent)?;
    if !version.is_success() {
        let words = version.last_words().to_owned();
        return Err(StartError::Failed { program: "vslice-agent --version", words });
    }
    // One from before this was said is known by its first frame.
    let theirs = agent_file::protocol_of(version.out.as_bytes());
    if let Some(theirs) = theirs.filter(|theirs| *theirs != u32::from(PROTOCOL_VERSION)) {
        return Err(StartError::OtherProtocol { theirs });
    }
    Ok(())
}

fn launch(qga: &mut Qga, program: &str, address: &str, unit: &str) -> Result<Kind, StartError> {
    check_version(qga, program)?;
    let command = [program, "run", "--connect", address];
    let name = format!("--unit={unit}");
    let args = ["--quiet", "--collect", &name, "--description=The guest side of vslice"];
    let args: Vec<&str> = args.into_iter().chain(command).collect();
    match qga.run("systemd-run", &args, WORD_TIMEOUT) {
        Ok(ended) if ended.is_success() => return Ok(Kind::Unit(unit.to_owned())),
        // Installed, and not the guest's init (systemd: src/shared/bus-util.c).
        Ok(ended) if ended.err.contains("not been booted with systemd") => {}
        Ok(ended) => {
            let words = ended.last_words().to_owned();
            return Err(StartError::Failed { program: "systemd-run", words });
        }
        Err(QgaError::NoProgram { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Kind::Child(qga.start(program, &command[1..])?))
}

fn run(qga: &mut Qga, program: &'static str, args: &[&str]) -> Result<Ended, StartError> {
    let ended = qga.run(program, args, WORD_TIMEOUT)?;
    if ended.is_success() {
        return Ok(ended);
    }
    Err(StartError::Failed { program, words: ended.last_words().to_owned() })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
