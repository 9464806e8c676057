//! The few lines of QMP that the rig needs: commands one after another, answers without a meaning.
//!
//! QMP is one JSON object a line (qemu: docs/interop/qmp-spec.rst). QEMU works on a command in its
//! main loop with the BQL held, so none is sent while something is measured.

use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A client of a QMP socket. QEMU serves one at a time.
#[derive(Debug)]
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects and negotiates; `limit` is for each answer, now and later.
    pub(super) fn connect(socket: &Path, limit: Duration) -> io::Result<Monitor> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let mut monitor = Monitor { stream: BufReader::new(stream) };
        let greeting = monitor.line()?;
        if !greeting.contains("\"QMP\"") {
            return Err(io::Error::other(format!("this is no QMP greeting: {}", greeting.trim())));
        }
        monitor.execute(&json!({ "execute": "qmp_capabilities" }))?;
        Ok(monitor)
    }

    /// Sends a command and waits for what it returns.
    pub(super) fn execute(&mut self, command: &Value) -> io::Result<Value> {
        self.stream.get_mut().write_all(format!("{command}\n").as_bytes())?;
        loop {
            let mut answer: Value = serde_json::from_str(&self.line()?)?;
            if let Some(error) = answer.get("error") {
                return Err(io::Error::other(format!("{command} is answered with {error}")));
            }
            // Anything else is an event.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Sends a command and waits for its answer without looking into it; events count as one.
    /// Returns the bytes of the answer.
    pub(super) fn execute_unread(&mut self, command_line: &[u8]) -> io::Result<usize> {
        self.stream.get_mut().write_all(command_line)?;
        self.line().map(|line| line.len())
    }

    /// A command of the human monitor, and its text.
    pub(super) fn human(&mut self, command_line: &str) -> io::Result<String> {
        let command = json!({
            "execute": "human-monitor-command",
            "arguments": { "command-line": command_line },
        });
        let value = self.execute(&command)?;
        value.as_str().map(str::to_owned).ok_or_else(|| io::Error::other("this is not a text"))
    }

    /// The 32 bits at a guest-physical address.
    pub(super) fn word(&mut self, address: u16) -> io::Result<u32> {
        let text = self.human(&format!("xp /1xw {address:#x}"))?;
        parse_word(&text)
            .ok_or_else(|| io::Error::other(format!("xp says '{}', not a number", text.trim())))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }
}

/// Reads `0000000000007e00: 0x0000002a`.
fn parse_word(text: &str) -> Option<u32> {
    let (_, number) = text.trim().split_once(": 0x")?;
    u32::from_str_radix(number, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_human_monitor_prints_memory_as_hexadecimal() {
        assert_eq!(parse_word("0000000000007e00: 0x0000002a\r\n"), Some(42));
        assert_eq!(parse_word("Cannot access memory\r\n"), None);
    }

    /// Says these lines, whatever it hears.
    fn server(lines: &'static [&'static str]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().expect("scratch");
        let socket = directory.path().join("qmp");
        let listener = UnixListener::bind(&socket).expect("scratch is writable");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the test connects");
            for line in lines {
                let _ = stream.write_all(format!("{line}\n").as_bytes());
            }
            // Ends its own direction only, so that the client can still send.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        (directory, socket)
    }

    #[test]
    fn events_are_passed_over_and_errors_are_told() {
        let (_directory, socket) = server(&[
            r#"{"QMP": {"version": {}, "capabilities": []}}"#,
            r#"{"return": {}}"#,
            r#"{"event": "RESUME", "timestamp": {}}"#,
            r#"{"return": "0000000000007e00: 0x00000007\r\n"}"#,
            r#"{"error": {"class": "CommandNotFound", "desc": "no such command"}}"#,
        ]);
        let mut monitor = Monitor::connect(&socket, Duration::from_secs(20)).expect("a server");
        assert_eq!(monitor.word(0x7e00).expect("a word"), 7);
        let message = monitor.word(0x7e00).expect_err("it fails").to_string();
        assert!(message.contains("no such command"), "{message}");
        let ended = monitor.word(0x7e00).expect_err("the server has gone");
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn another_protocol_is_told() {
        let (_directory, socket) = server(&["SSH-2.0"]);
        let message = Monitor::connect(&socket, Duration::from_secs(20)).expect_err("not QMP");
        assert_eq!(message.to_string(), "this is no QMP greeting: SSH-2.0");
    }
}
