//! The file of an agent that is to be uploaded into a guest: what can be known of it beforehand.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;
use vslice_wire::PROTOCOL_VERSION;

/// An agent is 3 MiB at most; what is much larger is none.
const BYTES_MAX: u64 = 64 << 20;

/// What an agent says of itself in `--version`, and so has in its file, before the number of the protocol
/// that it speaks (`vslice_wire::protocol_mark`).
const MARK: &[u8] = b"(vslice protocol ";

/// `e_type` of a program at a fixed place, and of one that can be anywhere (elf(5)).
const EXECUTABLE: [u16; 2] = [2, 3];
/// `p_type` of the path of a dynamic linker.
const INTERPRETER: u32 = 3;
/// Bytes of a program header of 64 bits.
const PROGRAM_HEADER_BYTES: usize = 56;

/// Why a file cannot be uploaded as an agent.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message")]
pub enum AgentFileError {
    #[error("cannot read the agent {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a Linux program: `make build` builds vslice-agent", path.display())]
    NoProgram { path: PathBuf },
    #[error("{} is a program for an architecture that vslice does not know", path.display())]
    UnknownMachine { path: PathBuf },
    #[error(
        "{} is dynamically linked, so it only runs if the guest has its libraries: `make build` builds \
        a static vslice-agent",
        path.display()
    )]
    Dynamic { path: PathBuf },
    #[error(
        "{} is not vslice-agent, or is older than protocol {PROTOCOL_VERSION}: `make build` builds one",
        path.display()
    )]
    NoAgent { path: PathBuf },
    #[error(
        "{} speaks protocol {theirs}, but this vslice speaks {PROTOCOL_VERSION}: use the agent of the \
        same build",
        path.display()
    )]
    OtherProtocol { path: PathBuf, theirs: u32 },
    #[error(
        "{} is built for {theirs}, but the guest is {machine}: build vslice-agent for it",
        path.display()
    )]
    OtherMachine { path: PathBuf, theirs: &'static str, machine: String },
}

/// An agent for guests of one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFile {
    path: PathBuf,
    bytes: Vec<u8>,
    machine: &'static str,
}

impl AgentFile {
    /// Reads a file and checks that it is a static vslice-agent that speaks this collector's protocol.
    ///
    /// # Errors
    /// [`AgentFileError`].
    pub fn read(path: &Path) -> Result<AgentFile, AgentFileError> {
        let mut bytes = Vec::new();
        // One byte more tells that there is more.
        File::open(path)
            .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|source| AgentFileError::Read { path: path.to_owned(), source })?;
        AgentFile::of_bytes(path, bytes)
    }

    pub(super) fn of_bytes(path: &Path, bytes: Vec<u8>) -> Result<AgentFile, AgentFileError> {
        let path = path.to_owned();
        if bytes.len() as u64 > BYTES_MAX || !is_program(&bytes) {
            return Err(AgentFileError::NoProgram { path });
        }
        let Some(machine) = machine_of(&bytes) else {
            return Err(AgentFileError::UnknownMachine { path });
        };
        match has_interpreter(&bytes) {
            None => return Err(AgentFileError::NoProgram { path }),
            Some(true) => return Err(AgentFileError::Dynamic { path }),
            Some(false) => {}
        }
        match protocol_of(&bytes) {
            None => Err(AgentFileError::NoAgent { path }),
            Some(theirs) if theirs != u32::from(PROTOCOL_VERSION) => {
                Err(AgentFileError::OtherProtocol { path, theirs })
            }
            Some(_) => Ok(AgentFile { path, bytes, machine }),
        }
    }

    /// Checks that a guest of this architecture, as uname(1) names it, can run it.
    ///
    /// # Errors
    /// [`AgentFileError::OtherMachine`].
    pub fn check_machine(&self, machine: &str) -> Result<(), AgentFileError> {
        if machine == self.machine {
            return Ok(());
        }
        let (path, machine) = (self.path.clone(), machine.to_owned());
        Err(AgentFileError::OtherMachine { path, theirs: self.machine, machine })
    }

    /// The content of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The protocol version in an agent's `--version` output, or in its file.
#[must_use]
pub fn protocol_of(said: &[u8]) -> Option<u32> {
    let mut places = said.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    places.find_map(|(at, _)| {
        let rest = &said[at + MARK.len()..];
        let digits = rest.iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        (rest.get(digits) == Some(&b')')).then_some(number)
    })
}

/// A little-endian ELF of 64 bits that can be executed (elf(5)).
fn is_program(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF\x02\x01")
        && number(bytes, 16).is_some_and(|kind| EXECUTABLE.contains(&kind))
}

/// The architecture that a program is for, as uname(1) calls it: `e_machine` in its header.
fn machine_of(bytes: &[u8]) -> Option<&'static str> {
    match number(bytes, 18)? {
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        _ => None,
    }
}

/// Whether a dynamic linker is to be loaded with it; `None` if its headers are not all there.
fn has_interpreter(bytes: &[u8]) -> Option<bool> {
    let offset = u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?);
    let offset = usize::try_from(offset).ok()?;
    let (size, count) = (usize::from(number(bytes, 54)?), usize::from(number(bytes, 56)?));
    if size != PROGRAM_HEADER_BYTES || count == 0 {
        return None;
    }
    for index in 0..count {
        let at = offset.checked_add(index * size)?;
        let kind = bytes.get(at..at.checked_add(4)?)?;
        if u32::from_le_bytes(kind.try_into().ok()?) == INTERPRETER {
            return Some(true);
        }
    }
    Some(false)
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A program's file: its machine, what its only segment is, and what it says.
    pub(in crate::guest) fn program(machine: u16, segment: u32, says: &str) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64, 0);
        bytes[16..18].copy_from_slice(&3_u16.to_le_bytes());
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes.extend(segment.to_le_bytes());
        bytes.resize(64 + 56, 0);
        bytes.extend_from_slice(says.as_bytes());
        bytes
    }

    /// An agent for this machine as `make build` makes it.
    pub(in crate::guest) fn agent(machine: u16) -> Vec<u8> {
        program(machine, 1, vslice_wire::protocol_mark!())
    }

    fn of(bytes: Vec<u8>) -> Result<AgentFile, String> {
        AgentFile::of_bytes(Path::new("/a"), bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn only_a_static_agent_of_this_protocol_is_taken() {
        let agent = of(agent(62)).expect("this is one");
        assert!(agent.check_machine("x86_64").is_ok());
        let message = agent.check_machine("aarch64").unwrap_err().to_string();
        assert_eq!(
            message,
            "/a is built for x86_64, but the guest is aarch64: build vslice-agent for it"
        );
        let mark = vslice_wire::protocol_mark!();
        let shell = program(62, 1, "sh (vslice protocol of nobody) (vslice protocol 99999999)");
        for (bytes, words) in [
            (b"#!/bin/sh\n".to_vec(), "is not a Linux program"),
            (Vec::new(), "is not a Linux program"),
            (b"\x7fELF".to_vec(), "is not a Linux program"),
            (program(62, 1, mark)[..66].to_vec(), "is not a Linux program"),
            (program(3, 1, mark), "for an architecture that vslice does not know"),
            (program(62, 3, mark), "is dynamically linked"),
            (shell, "is not vslice-agent"),
            (
                program(62, 1, "0.1.0 (vslice protocol 4)"),
                "speaks protocol 4, but this vslice speaks",
            ),
        ] {
            let message = of(bytes).expect_err(words);
            assert!(message.starts_with("/a ") && message.contains(words), "{message}");
        }
    }

    #[test]
    fn what_is_no_file_is_said() {
        let message = AgentFile::read(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(message.starts_with("cannot read the agent /nonexistent: No such"), "{message}");
        // Somewhere it is dynamic, somewhere a part of a static busybox.
        let message = AgentFile::read(Path::new("/bin/sh")).unwrap_err().to_string();
        let is_refused = ["is dynamically linked", "is not vslice-agent"]
            .iter()
            .any(|why| message.contains(why));
        assert!(is_refused, "{message}");
    }

    #[test]
    fn the_mark_is_of_the_protocol_that_is_spoken() {
        assert_eq!(
            protocol_of(vslice_wire::protocol_mark!().as_bytes()),
            Some(PROTOCOL_VERSION.into())
        );
        assert_eq!(protocol_of(b"vslice-agent 0.1.0"), None);
    }

    proptest! {
        #[test]
        fn any_file_is_taken_or_refused(start in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = of(start.clone());
            let _ = of([&b"\x7fELF\x02\x01\x01"[..], &start].concat());
        }
    }
}
