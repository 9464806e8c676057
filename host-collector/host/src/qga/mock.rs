//! A qemu-ga that does what a test wants. The real one is tried in tests/guest_real.rs.

use super::{Qga, SENTINEL};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Serves one client until that hangs up.
#[derive(Debug)]
pub struct MockAgent {
    directory: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
}

impl MockAgent {
    /// `answer` gets each command with its arguments, and returns what it returns or why it refuses.
    pub fn start(
        mut answer: impl FnMut(&str, &Value) -> Result<Value, String> + Send + 'static,
    ) -> MockAgent {
        MockAgent::saying(b"", move |command, arguments| {
            let said = match answer(command, arguments) {
                Ok(value) => json!({"return": value}),
                Err(words) => json!({"error": {"class": "GenericError", "desc": words}}),
            };
            Some(said.to_string())
        })
    }

    /// `answer` gives the very words for each command but the first, or hangs up; `left` was in the
    /// channel before.
    pub fn saying<Said: Into<String>>(
        left: &'static [u8],
        mut answer: impl FnMut(&str, &Value) -> Option<Said> + Send + 'static,
    ) -> MockAgent {
        let directory = tempfile::tempdir().expect("the test's own socket and words");
        let listener = UnixListener::bind(directory.path().join("ga"))
            .expect("the test's own socket and words");
        let serve = move || {
            let (mut stream, _) = listener.accept().expect("the test's own socket and words");
            let mut lines =
                BufReader::new(stream.try_clone().expect("the test's own socket and words"));
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let is_sync = line[0] == SENTINEL;
                let asked: Value = serde_json::from_slice(&line[usize::from(is_sync)..])
                    .expect("the test's own socket and words");
                line.clear();
                let said = if is_sync {
                    let id = &asked["arguments"]["id"];
                    let answer = json!({"return": id}).to_string();
                    // Somebody else's answer is marked as well.
                    [left, &[SENTINEL], b"{\"return\": 1}\n", &[SENTINEL], answer.as_bytes()]
                        .concat()
                } else {
                    let command =
                        asked["execute"].as_str().expect("the test's own socket and words");
                    let Some(said) = answer(command, &asked["arguments"]) else { return };
                    said.into().into_bytes()
                };
                let _client_may_be_gone = stream.write_all(&[&said[..], b"\n"].concat());
            }
        };
        MockAgent { directory, thread: Some(thread::spawn(serve)) }
    }

    /// A client of it.
    #[must_use]
    pub fn connect(&self) -> Qga {
        let path = self.directory.path().join("ga");
        Qga::connect_within(&path, Duration::from_secs(60))
            .expect("the test's own socket and words")
    }
}

impl Drop for MockAgent {
    fn drop(&mut self) {
        // A test that has failed already may hold the client.
        if !thread::panicking() {
            self.thread
                .take()
                .expect("the test's own socket and words")
                .join()
                .expect("the test's own socket and words");
        }
    }
}
