//! Programs and files in a guest, by its qemu-ga.

use super::{Qga, QgaError, garbled};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};
use vslice_core::text::harmless;

/// Bytes of a file in one message. Through libvirt a message is an argument of a program, which has at
/// most 128 KiB (`MAX_ARG_STRLEN`, execve(2)), and base64 makes four bytes of three.
const CHUNK_BYTES: usize = 48 << 10;

/// Bytes of a file that is read: its base64 must fit in an answer.
const FILE_BYTES_MAX: usize = 256 << 10;

/// Characters kept of a line that a program in the guest says: enough for any error of an agent.
const LINE_CHARS_MAX: usize = 400;

/// Between two looks whether a program has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The result of a program that ended. Its output comes from the guest, so it is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i64>,
    /// The end of its standard output, in one line.
    pub out: String,
    /// The end of its standard error, in one line.
    pub err: String,
}

impl Ended {
    /// Whether it exited with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// The end of its standard error, or of its standard output if that is empty.
    #[must_use]
    pub fn last_words(&self) -> &str {
        if self.err.is_empty() { &self.out } else { &self.err }
    }
}

impl Qga {
    /// Starts a program as root and returns its process id in the guest.
    ///
    /// # Errors
    /// [`QgaError`]; among them that there is no such program, that the guest forbids to run it, and
    /// that it is one of another architecture.
    pub fn start(&mut self, program: &str, args: &[&str]) -> Result<u64, QgaError> {
        let arguments = json!({"path": program, "arg": args, "capture-output": true});
        let started = self.execute("guest-exec", arguments).map_err(|error| match error {
            QgaError::Refused { words, .. } => not_started(program, words),
            other => other,
        })?;
        started["pid"].as_u64().ok_or_else(|| garbled(started.to_string().as_bytes()))
    }

    /// How a program ended; `None` while it runs. It can be asked for once.
    ///
    /// # Errors
    /// [`QgaError`].
    pub fn ended(&mut self, pid: u64) -> Result<Option<Ended>, QgaError> {
        let status = self.execute("guest-exec-status", json!({"pid": pid}))?;
        Ok((status["exited"] == true).then(|| Ended {
            code: status["exitcode"].as_i64(),
            out: last_line(&status["out-data"]),
            err: last_line(&status["err-data"]),
        }))
    }

    /// Runs a program that ends by itself, within `limit`.
    ///
    /// # Errors
    /// [`QgaError`]; [`QgaError::Unending`] if it does not end.
    pub fn run(
        &mut self,
        program: &str,
        args: &[&str],
        limit: Duration,
    ) -> Result<Ended, QgaError> {
        let pid = self.start(program, args)?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(ended) = self.ended(pid)? {
                return Ok(ended);
            }
            if Instant::now() >= deadline {
                let (program, seconds) = (program.to_owned(), limit.as_secs());
                return Err(QgaError::Unending { program, seconds });
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Writes a file into the guest, over one that is there.
    ///
    /// # Errors
    /// [`QgaError`].
    pub fn write_file(&mut self, path: &str, bytes: &[u8]) -> Result<(), QgaError> {
        let handle = self.execute("guest-file-open", json!({"path": path, "mode": "w"}))?;
        let written = self.write_chunks(&handle, bytes);
        let closed = self.execute("guest-file-close", json!({"handle": handle}));
        written.and(closed.map(drop))
    }

    /// The beginning of a file in the guest, as much as comes at once; `None` if it cannot be read.
    pub fn read_file(&mut self, path: &str) -> Option<Vec<u8>> {
        let handle = self.execute("guest-file-open", json!({"path": path, "mode": "r"})).ok()?;
        let arguments = json!({"handle": handle, "count": FILE_BYTES_MAX});
        let read = self.execute("guest-file-read", arguments);
        let _closed = self.execute("guest-file-close", json!({"handle": handle}));
        BASE64.decode(read.ok()?["buf-b64"].as_str()?).ok()
    }

    fn write_chunks(&mut self, handle: &Value, bytes: &[u8]) -> Result<(), QgaError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(CHUNK_BYTES)];
            let arguments = json!({"handle": handle, "buf-b64": BASE64.encode(chunk)});
            let written = self.execute("guest-file-write", arguments)?;
            let count = written["count"].as_u64().and_then(|count| usize::try_from(count).ok());
            // A full disk takes nothing and is no error to it.
            match count.filter(|count| (1..=chunk.len()).contains(count)) {
                Some(count) => rest = &rest[count..],
                None => return Err(QgaError::NotWritten { bytes: chunk.len() }),
            }
        }
        Ok(())
    }

    /// What the guest calls its architecture, as uname(1) does; `None` if its agent does not tell.
    pub fn machine(&mut self) -> Option<String> {
        let info = self.execute("guest-get-osinfo", json!({})).ok()?;
        Some(harmless(info["machine"].as_str()?))
    }
}

/// What the words mean with which GLib's `g_spawn_async_with_pipes` refuses (glib: gspawn.c).
fn not_started(program: &str, words: String) -> QgaError {
    let program = program.to_owned();
    if words.contains("No such file or directory") {
        QgaError::NoProgram { program }
    } else if words.contains("Permission denied") {
        QgaError::Forbidden { program, words }
    } else if words.contains("Exec format error") {
        QgaError::WrongMachine { program, words }
    } else {
        QgaError::Refused { command: format!("to start {program}"), words }
    }
}

/// The last line that is not empty of what a program said.
fn last_line(data: &Value) -> String {
    let bytes = BASE64.decode(data.as_str().unwrap_or_default()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.trim_end().lines().next_back().unwrap_or_default().trim();
    harmless(&line.chars().take(LINE_CHARS_MAX).collect::<String>())
}
