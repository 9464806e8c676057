//! A client of QEMU's machine protocol (QMP): JSON objects, one a line, over a Unix socket.
//!
//! ```text
//! QEMU    {"QMP": {"version": {...}, "capabilities": ["oob"]}}
//! client  {"execute": "qmp_capabilities", "id": 1}
//! QEMU    {"return": {}, "id": 1}
//! client  {"execute": "query-status", "id": 2}
//! QEMU    {"event": "RESUME", ...}                     events come at any time
//! QEMU    {"return": {"status": "running", ...}, "id": 2}
//! ```
//!
//! (qemu: docs/interop/qmp-spec.rst.) **Not for use in a measured window.** QEMU executes commands in
//! its main loop with the big lock held: what vCPU threads then wait for is this client. So it is
//! connected, asked and dropped before or after the window. A socket serves one client at a time:
//! the next one is not even greeted before the first has gone.

use crate::unix_sockets;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;
use vslice_core::text::harmless;

/// How long an answer may take. QEMU answers when its main loop comes to it, which under TCG with
/// all vCPUs busy is a matter of milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest line that is read. `info mtree -f` of a guest with hundreds of vCPUs and devices has
/// some megabytes, and is one line.
const LINE_BYTES_MAX: usize = 32 << 20;
/// How many events may come between a command and its answer.
const EVENTS_MAX: u32 = 10_000;
const READ_BYTES: usize = 64 << 10;

/// Why QEMU did not answer.
#[derive(Debug, Error)]
pub enum QmpError {
    /// There is no way to it.
    #[error("QEMU's monitor socket {path} cannot be reached: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others wait already.
    #[error(
        "QEMU's monitor socket {path} is busy: it serves one client at a time; end the other client, \
        or give QEMU a second socket (-qmp unix:PATH,server=on,wait=off)"
    )]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// It says nothing.
    #[error(
        "QEMU did not answer {what} within {} s: it is stopped by a signal, it hangs, or another \
        client is using its monitor socket {path}, which serves one client at a time", timeout.as_secs_f64()
    )]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// What was waited for.
        what: String,
        /// For how long.
        timeout: Duration,
    },
    /// The connection broke.
    #[error("the connection to QEMU's monitor {path} failed: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says too much.
    #[error("QEMU's monitor sent a line of more than {LINE_BYTES_MAX} bytes in answer to {what}")]
    TooLong {
        /// What was asked.
        what: String,
    },
    /// Events only.
    #[error("QEMU's monitor sent {EVENTS_MAX} other messages and no answer to {what}")]
    TooManyEvents {
        /// What was asked.
        what: String,
    },
    /// That is no QMP.
    #[error(
        "{path} does not speak QMP: {line}; is it a human monitor (-monitor) rather than -qmp?"
    )]
    NotQmp {
        /// The socket.
        path: PathBuf,
        /// The beginning of what came.
        line: String,
    },
    /// It refused.
    #[error("QEMU refused {command}: {class}: {description}")]
    Refused {
        /// The command.
        command: String,
        /// The class of the error: `CommandNotFound`, `GenericError`, ...
        class: String,
        /// QEMU's words.
        description: String,
    },
}

/// A connection to a QEMU, as its only client. Dropping it lets the next one in.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    path: PathBuf,
    timeout: Duration,
    /// What came after the last line that was taken.
    received: Vec<u8>,
    last_id: u64,
}

impl Qmp {
    /// Connects, is greeted, and asks for no capability.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn connect(path: &Path) -> Result<Qmp, QmpError> {
        Qmp::connect_within(path, ANSWER_TIMEOUT)
    }

    /// [`Qmp::connect`], with another limit for each answer than 10 s.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn connect_within(path: &Path, timeout: Duration) -> Result<Qmp, QmpError> {
        let stream = open(path)?;
        let (path, received) = (path.to_owned(), Vec::new());
        let mut qmp = Qmp { stream, path, timeout, received, last_id: 0 };
        let greeting = qmp.message("with its greeting", Instant::now() + timeout)?;
        if greeting.get("QMP").is_none() {
            return Err(qmp.not_qmp(greeting.to_string().as_bytes()));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns what it returns.
    ///
    /// # Errors
    /// [`QmpError::Refused`] if QEMU says no, others if it says nothing that can be understood.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.last_id += 1;
        let mut line =
            json!({"execute": command, "arguments": arguments, "id": self.last_id}).to_string();
        line.push('\n');
        let deadline = Instant::now() + self.timeout;
        self.stream.set_write_timeout(Some(self.timeout)).map_err(|error| self.broken(error))?;
        self.stream.write_all(line.as_bytes()).map_err(|error| self.failed(error, command))?;
        for _ in 0..EVENTS_MAX {
            let mut message = self.message(command, deadline)?;
            if let Some(error) = self.refusal(command, &message) {
                return Err(error);
            }
            // Everything else is an event, or an answer to what was given up before.
            if message.get("id").and_then(Value::as_u64) == Some(self.last_id)
                && let Some(value) = message.get_mut("return")
            {
                return Ok(value.take());
            }
        }
        Err(QmpError::TooManyEvents { what: command.to_owned() })
    }

    /// Has a line executed by the human monitor, whose answers are texts: for what has no command of
    /// its own. An error of the human monitor is a text as well.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn human_monitor_command(&mut self, line: &str) -> Result<String, QmpError> {
        let command = "human-monitor-command";
        match self.execute(command, json!({"command-line": line}))? {
            Value::String(text) => Ok(text),
            other => Err(self.not_qmp(other.to_string().as_bytes())),
        }
    }

    /// The error in an answer, if it is one. An error without an id is about a line that QEMU could
    /// not read: there is only one that it can mean.
    fn refusal(&self, command: &str, message: &Value) -> Option<QmpError> {
        let error = message.get("error")?;
        let is_other = |id: &Value| id.as_u64() != Some(self.last_id);
        if message.get("id").is_some_and(is_other) {
            return None;
        }
        let text = |key: &str| harmless(error.get(key).and_then(Value::as_str).unwrap_or("?"));
        Some(QmpError::Refused {
            command: command.to_owned(),
            class: text("class"),
            description: text("desc"),
        })
    }

    /// The next message, whatever it is.
    fn message(&mut self, what: &str, deadline: Instant) -> Result<Value, QmpError> {
        let line = self.line(what, deadline)?;
        match serde_json::from_slice(&line) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => Err(self.not_qmp(&line)),
        }
    }

    fn line(&mut self, what: &str, deadline: Instant) -> Result<Vec<u8>, QmpError> {
        let mut searched_bytes = 0;
        loop {
            let new = &self.received[searched_bytes..];
            if let Some(at) = new.iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(searched_bytes + at + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            searched_bytes = self.received.len();
            if searched_bytes > LINE_BYTES_MAX {
                return Err(QmpError::TooLong { what: what.to_owned() });
            }
            self.receive(what, deadline)?;
        }
    }

    /// Takes what is there, or waits for it.
    fn receive(&mut self, what: &str, deadline: Instant) -> Result<(), QmpError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.failed(io::ErrorKind::TimedOut.into(), what));
        }
        self.stream.set_read_timeout(Some(left)).map_err(|error| self.broken(error))?;
        let mut chunk = vec![0; READ_BYTES];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.failed(error, what)),
        }
    }

    fn failed(&self, error: io::Error, what: &str) -> QmpError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => QmpError::Timeout {
                path: self.path.clone(),
                what: what.to_owned(),
                timeout: self.timeout,
            },
            _ => self.broken(error),
        }
    }

    fn broken(&self, source: io::Error) -> QmpError {
        QmpError::Broken { path: self.path.clone(), source }
    }

    fn not_qmp(&self, line: &[u8]) -> QmpError {
        let beginning = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        QmpError::NotQmp { path: self.path.clone(), line: harmless(beginning.trim()) }
    }
}

fn open(path: &Path) -> Result<UnixStream, QmpError> {
    unix_sockets::connect(path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => QmpError::Busy { path: path.to_owned() },
        _ => QmpError::Connect { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests;
