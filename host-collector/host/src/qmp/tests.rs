//! The client against a QEMU that says what a test wants it to say.

use super::*;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}"#;
/// Long enough for a loaded machine, because in these tests it ends nothing that should go well.
const LONG: Duration = Duration::from_secs(60);

/// A monitor: says the greeting, then for each command the text that `answer` makes of it, and ends
/// where there is none.
struct Monitor {
    directory: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    fn start(
        greeting: &'static str,
        answer: impl Fn(&Value) -> Option<String> + Send + 'static,
    ) -> Monitor {
        let directory = tempfile::tempdir().expect("scratch");
        let listener = UnixListener::bind(directory.path().join("qmp")).expect("scratch");
        let serve = move || {
            let (mut stream, _) = listener.accept().expect("the test connects");
            let commands = BufReader::new(stream.try_clone().expect("a descriptor"));
            // The client may have gone.
            let _ = stream.write_all(format!("{greeting}\r\n").as_bytes());
            for line in commands.lines().map_while(Result::ok) {
                let command: Value = serde_json::from_str(&line).expect("the client sends JSON");
                let said = if command["execute"] == "qmp_capabilities" {
                    Some(format!("{{\"return\": {{}}, \"id\": {}}}\r\n", command["id"]))
                } else {
                    answer(&command)
                };
                let Some(said) = said else { return };
                let _ = stream.write_all(said.as_bytes());
            }
        };
        Monitor { directory, thread: Some(thread::spawn(serve)) }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("qmp")
    }

    fn connect(&self) -> Qmp {
        Qmp::connect_within(&self.path(), LONG).expect("it greets")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the monitor saw what it expected");
        }
    }
}

#[test]
fn an_answer_is_found_among_events_and_late_answers() {
    let monitor = Monitor::start(GREETING, |command| {
        let id = &command["id"];
        Some(format!(
            "{{\"event\": \"STOP\", \"data\": {{}}}}\r\n{{\"return\": \"old\", \"id\": 1}}\r\n\
             {{\"error\": {{\"class\": \"GenericError\", \"desc\": \"old\"}}, \"id\": 1}}\r\n\
             {{\"return\": {{\"seen\": {command}}}, \"id\": {id}}}\r\n"
        ))
    });
    let mut qmp = monitor.connect();
    for path in ["/machine", "/objects"] {
        let answer = qmp.execute("qom-list", json!({"path": path})).expect("an answer");
        assert_eq!(answer["seen"]["execute"], "qom-list");
        assert_eq!(answer["seen"]["arguments"], json!({"path": path}));
    }
}

#[test]
fn the_human_monitor_answers_in_lines() {
    let monitor = Monitor::start(GREETING, |command| {
        assert_eq!(command["execute"], "human-monitor-command");
        let line = command["arguments"]["command-line"].as_str().expect("a line");
        let text = if line == "odd" { json!(7) } else { json!(format!("{line}\r\nof\r\n")) };
        Some(json!({"return": text, "id": command["id"]}).to_string() + "\r\n")
    });
    let mut qmp = monitor.connect();
    assert_eq!(qmp.human_monitor_command("info mtree").expect("text"), "info mtree\r\nof\r\n");
    assert!(matches!(qmp.human_monitor_command("odd"), Err(QmpError::NotQmp { .. })));
}

#[test]
fn a_refusal_says_what_and_why_and_is_not_the_end() {
    let monitor = Monitor::start(GREETING, |command| {
        let id = &command["id"];
        Some(match command["execute"].as_str() {
            Some("known") => format!("{{\"return\": 1, \"id\": {id}}}\n"),
            Some("unread") => {
                String::from("{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON\"}}\n")
            }
            _ => format!(
                "{{\"error\": {{\"class\": \"CommandNotFound\", \"desc\": \"no \\u001b[2J\"}}, \
                 \"id\": {id}}}\n"
            ),
        })
    });
    let mut qmp = monitor.connect();
    let refused = qmp.execute("x-unknown", json!({})).expect_err("unknown").to_string();
    assert_eq!(refused, "QEMU refused x-unknown: CommandNotFound: no ?[2J");
    let refused = qmp.execute("unread", json!({})).expect_err("without id").to_string();
    assert_eq!(refused, "QEMU refused unread: GenericError: JSON");
    assert_eq!(qmp.execute("known", json!({})).expect("it goes on"), 1);
}

#[test]
fn a_monitor_that_is_none_is_told_so() {
    let monitor = Monitor::start("QEMU 7.2.22 monitor - type 'help'\x1b[K", |_| None);
    let message = Qmp::connect_within(&monitor.path(), LONG).expect_err("HMP").to_string();
    assert!(
        message.contains("does not speak QMP: QEMU 7.2.22 monitor - type 'help'?[K; is it"),
        "{message}"
    );
    let monitor = Monitor::start("{\"event\": \"RESUME\"}", |_| None);
    assert!(matches!(Qmp::connect_within(&monitor.path(), LONG), Err(QmpError::NotQmp { .. })));
}

#[test]
fn silence_and_an_end_are_two_things() {
    let monitor = Monitor::start(GREETING, |command| {
        (command["execute"] == "wait").then(|| String::from("{\"event\": \"half a line"))
    });
    let mut qmp =
        Qmp::connect_within(&monitor.path(), Duration::from_millis(200)).expect("it greets");
    let message = qmp.execute("wait", json!({})).expect_err("half a line").to_string();
    assert!(message.starts_with("QEMU did not answer wait within 0.2 s: it is"), "{message}");
    let message = qmp.execute("go", json!({})).expect_err("it ends").to_string();
    assert!(message.contains("failed: "), "{message}");
}

#[test]
fn time_that_is_over_is_no_error_of_the_socket() {
    let monitor = Monitor::start(GREETING, |_| None);
    let error = Qmp::connect_within(&monitor.path(), Duration::ZERO).expect_err("no time");
    assert!(matches!(error, QmpError::Timeout { .. }), "{error}");
}

#[test]
fn a_line_without_end_and_events_without_end_have_one() {
    let monitor = Monitor::start(GREETING, |command| {
        Some(if command["execute"] == "long" {
            "x".repeat(LINE_BYTES_MAX + 2)
        } else {
            "{\"event\": \"RTC_CHANGE\"}\n".repeat(EVENTS_MAX as usize)
        })
    });
    let mut qmp = monitor.connect();
    let error = qmp.execute("many", json!({})).expect_err("events only");
    assert!(matches!(error, QmpError::TooManyEvents { .. }), "{error}");
    let error = qmp.execute("long", json!({})).expect_err("no end");
    assert!(matches!(error, QmpError::TooLong { .. }), "{error}");
}

#[test]
fn sockets_that_nobody_serves_keep_nobody_waiting() {
    let directory = tempfile::tempdir().expect("scratch");
    let path = directory.path().join("qmp");
    let message = Qmp::connect(&path).expect_err("no socket").to_string();
    assert!(message.contains("qmp cannot be reached: No such file"), "{message}");
    let listener = UnixListener::bind(&path).expect("scratch");
    // Room for one that waits, as listen(2) counts on Linux.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).expect("in range"))
        .expect("it listens already");
    let short = Duration::from_millis(50);
    let message = Qmp::connect_within(&path, short).expect_err("no greeting").to_string();
    assert!(message.contains("did not answer with its greeting within 0.05 s"), "{message}");
    let message = Qmp::connect_within(&path, short).expect_err("no room").to_string();
    assert!(message.contains("is busy: it serves one client at a time"), "{message}");
}
