use super::mock::MockAgent;
use super::*;
use std::os::unix::net::UnixListener;
use std::thread;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn what_others_left_in_the_channel_is_passed_over() {
    let agent =
        MockAgent::saying(b"{\"return\": {\"pid\": 3}}\n{\"unfinished\": ", |command, _| {
            assert_eq!(command, "guest-info");
            Some(
                r#"{"return": {"version": "7.2\u001b[1m", "supported_commands": [
                {"name": "guest-exec", "enabled": true, "success-response": true},
                {"name": "guest-file-open", "enabled": false}]}}"#,
            )
        });
    let mut qga = agent.connect();
    let lines = qga.info();
    // A line feed ends an answer, also one within it.
    assert!(matches!(lines, Err(QgaError::Garbled { .. })), "{lines:?}");
    drop(qga);
}

#[test]
fn an_agent_says_what_it_may_do() {
    let agent = MockAgent::saying(b"", |_, _| {
        Some(concat!(
            r#"{"return": {"version": "7.2\u001b[1m", "supported_commands": ["#,
            r#"{"name": "guest-exec", "enabled": true}, {"name": "guest-file-open", "enabled": false}]}}"#
        ))
    });
    let mut qga = agent.connect();
    let info = qga.info().unwrap();
    assert_eq!(info.version, "7.2?[1m");
    assert_eq!(info.enabled.into_iter().collect::<Vec<_>>(), ["guest-exec"]);
    drop(qga);
}

#[test]
fn each_refusal_has_its_sentence() {
    for (said, expected) in [
        (
            r#"{"error": {"class": "CommandNotFound", "desc": "Command guest-exec has been disabled: the command is not allowed"}}"#,
            "/etc/sysconfig/qemu-ga",
        ),
        (
            r#"{"error": {"class": "CommandNotFound", "desc": "Command guest-exec has been disabled: the agent is in frozen state"}}"#,
            "frozen",
        ),
        (
            r#"{"error": {"class": "GenericError", "desc": "Failed to execute child process (Permission denied)"}}"#,
            "refused guest-exec: Failed to execute child process",
        ),
        ("nonsense", "is not that of qemu-ga: nonsense"),
        ("{}", "is not that of qemu-ga"),
    ] {
        let agent = MockAgent::saying(b"", move |_, _| Some(said));
        let mut qga = agent.connect();
        let error = qga.execute("guest-exec", json!({"path": "/x"})).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_channel_without_an_agent_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ga");
    let error = Qga::connect(&path).unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
    let _silent = UnixListener::bind(&path).unwrap();
    let error = Qga::connect_within(&path, SHORT).unwrap_err().to_string();
    let waited_for = "qemu-ga has not answered guest-sync-delimited within ";
    assert!(error.starts_with(waited_for), "{error}");
    assert!(error.contains("install qemu-guest-agent"), "{error}");
    // One that hangs up in the middle.
    let agent = MockAgent::saying(b"", |_, _| None::<String>);
    let mut qga = agent.connect();
    let error = qga.info().unwrap_err();
    assert!(matches!(error, QgaError::Broken { .. }), "{error}");
}

#[test]
fn an_answer_without_an_end_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ga");
    let listener = UnixListener::bind(&path).unwrap();
    let flood = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
    });
    let error = Qga::connect_within(&path, LONG).unwrap_err();
    assert!(matches!(error, QgaError::Garbled { .. }), "{error}");
    flood.join().unwrap();
}
