use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use vslice_host::qga::mock::MockAgent;

/// A guest of one's own: its files, the programs that were run, and what is wrong with it.
#[derive(Debug, Default)]
struct Guest {
    files: BTreeMap<String, Vec<u8>>,
    runs: Vec<Vec<String>>,
    has_own_agent: bool,
    has_systemd: bool,
    /// Bytes of each chunk that the disk takes at most.
    takes_bytes: Option<usize>,
    damages: bool,
    machine: &'static str,
    /// What its vslice-agent says of its version, if it says something else than others.
    version: &'static str,
}

const ALL: [&str; 6] = [
    "guest-exec",
    "guest-exec-status",
    "guest-file-open",
    "guest-file-write",
    "guest-file-close",
    "guest-get-osinfo",
];

impl Guest {
    fn answer(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        match command {
            "guest-info" => {
                let commands = ALL.map(|name| json!({"name": name, "enabled": true}));
                Ok(json!({"version": "7.2.22", "supported_commands": commands}))
            }
            "guest-get-osinfo" => Ok(json!({"machine": self.machine})),
            "guest-file-open" if arguments["mode"] == "r" => Ok(json!(1001)),
            "guest-file-read" => Ok(json!({"buf-b64": BASE64.encode(r#"{"suite":"test"}"#)})),
            "guest-file-open" => {
                self.files.insert(arguments["path"].as_str().unwrap().to_owned(), Vec::new());
                Ok(json!(1000))
            }
            "guest-file-write" => {
                let mut bytes = BASE64.decode(arguments["buf-b64"].as_str().unwrap()).unwrap();
                bytes.truncate(self.takes_bytes.unwrap_or(usize::MAX));
                let file = self.files.values_mut().next().unwrap();
                file.extend_from_slice(&bytes);
                Ok(json!({"count": bytes.len(), "eof": false}))
            }
            "guest-file-close" => Ok(json!({})),
            "guest-exec" => self.exec(arguments),
            "guest-exec-status" => Ok(self.status()),
            other => Err(format!("no {other}")),
        }
    }

    fn exec(&mut self, arguments: &Value) -> Result<Value, String> {
        let program = arguments["path"].as_str().unwrap().to_owned();
        let args = arguments["arg"].as_array().unwrap().iter();
        let args = args.map(|arg| arg.as_str().unwrap().to_owned());
        let is_there = match program.as_str() {
            BAKED_IN => self.has_own_agent,
            "systemd-run" => self.has_systemd,
            path if path.starts_with('/') => self.files.contains_key(path),
            _ => true,
        };
        if !is_there {
            return Err("Failed to execute child process (No such file or directory)".to_owned());
        }
        self.runs.push([program].into_iter().chain(args).collect());
        Ok(json!({"pid": self.runs.len()}))
    }

    /// Of the program that was started last.
    fn status(&mut self) -> Value {
        let run = self.runs.last().unwrap().clone();
        let out = match run[0].as_str() {
            "sha256sum" => {
                let mut bytes = self.files[&run[1]].clone();
                if self.damages {
                    bytes[0] ^= 1;
                }
                format!("{}  {}\n", hex(&Sha256::digest(&bytes)), run[1])
            }
            "rm" => {
                self.files.remove(&run[2]);
                String::new()
            }
            _ if run[1..] == ["--version"] && !self.version.is_empty() => self.version.to_owned(),
            _ => String::from("it said\nlast words\n"),
        };
        json!({"exited": true, "exitcode": 0, "out-data": BASE64.encode(out)})
    }
}

fn serve(guest: Guest) -> (MockAgent, Arc<Mutex<Guest>>) {
    let guest = Arc::new(Mutex::new(guest));
    let served = Arc::clone(&guest);
    let answer =
        move |command: &str, arguments: &Value| served.lock().unwrap().answer(command, arguments);
    (MockAgent::start(answer), guest)
}

/// An agent for this machine that fills several chunks.
fn agent(machine: u16) -> AgentFile {
    let filler = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let bytes = [agent_file::tests::agent(machine), filler].concat();
    AgentFile::of_bytes("/agent".as_ref(), bytes).unwrap()
}

fn programs(guest: &Mutex<Guest>) -> Vec<String> {
    guest.lock().unwrap().runs.iter().map(|run| run[0].clone()).collect()
}

#[test]
fn the_guests_own_agent_becomes_a_unit() {
    let guest = Guest { has_own_agent: true, has_systemd: true, ..Guest::default() };
    let (mock, guest) = serve(guest);
    let started = start(mock.connect(), None, "vsock:2:1024").unwrap();
    assert_eq!(programs(&guest), ["vslice-agent", "systemd-run"]);
    let run = guest.lock().unwrap().runs[1].clone();
    assert!(run.contains(&"--collect".to_owned()), "{run:?}");
    assert!(run.ends_with(&["vslice-agent", "run", "--connect", "vsock:2:1024"].map(String::from)));
    assert_eq!(started.image, Some(json!({"suite": "test"})));
    assert_eq!(started.never_connected(), "last words");
    assert_eq!(programs(&guest)[2], "journalctl");
}

#[test]
fn an_agent_of_another_protocol_is_not_started() {
    let version = "vslice-agent 0.0.9 (vslice protocol 4)";
    let (mock, guest) = serve(Guest { has_own_agent: true, version, ..Guest::default() });
    let error = start(mock.connect(), None, "vsock:2:1024").unwrap_err().to_string();
    assert!(error.contains("speaks protocol 4, but this vslice speaks"), "{error}");
    assert_eq!(programs(&guest), ["vslice-agent"]);
    let version = concat!("vslice-agent 0.1.0 ", vslice_wire::protocol_mark!());
    let (mock, _guest) = serve(Guest { has_own_agent: true, version, ..Guest::default() });
    assert!(start(mock.connect(), None, "vsock:2:1024").is_ok());
}

#[test]
fn without_systemd_it_is_qemu_gas_child() {
    let (mock, guest) = serve(Guest { has_own_agent: true, ..Guest::default() });
    let started = start(mock.connect(), None, "virtio:vslice.agent").unwrap();
    assert_eq!(programs(&guest), ["vslice-agent", "vslice-agent"]);
    drop(started);
}

#[test]
fn an_agent_is_uploaded_whole_and_removed() {
    let (mock, guest) =
        serve(Guest { machine: "x86_64", takes_bytes: Some(10_000), ..Guest::default() });
    let file = agent(62);
    let started = start(mock.connect(), Some(&file), "vsock:2:1024").unwrap();
    let (path, bytes) = guest
        .lock()
        .unwrap()
        .files
        .first_key_value()
        .map(|(path, bytes)| (path.clone(), bytes.clone()))
        .unwrap();
    assert!(path.starts_with("/var/lib/vslice-agent-"), "{path}");
    assert_eq!(bytes, file.bytes());
    drop(started);
    assert!(guest.lock().unwrap().files.is_empty());
    assert_eq!(programs(&guest), ["sha256sum", "chmod", &path, &path, "rm"]);
}

#[test]
fn what_does_not_arrive_whole_is_not_run_and_not_left() {
    let (mock, guest) = serve(Guest { machine: "x86_64", damages: true, ..Guest::default() });
    let error = start(mock.connect(), Some(&agent(62)), "vsock:2:1024").unwrap_err();
    assert!(matches!(error, StartError::Damaged { .. }), "{error}");
    assert_eq!(programs(&guest), ["sha256sum", "rm"]);
    assert!(guest.lock().unwrap().files.is_empty());
    // A disk that is full.
    let full = Guest { machine: "x86_64", takes_bytes: Some(0), ..Guest::default() };
    let (mock, _guest) = serve(full);
    let error = start(mock.connect(), Some(&agent(62)), "vsock:2:1024").unwrap_err();
    assert!(error.to_string().contains("did not accept 49152 bytes"), "{error}");
}

#[test]
fn each_reason_has_its_sentence() {
    let (mock, _guest) = serve(Guest::default());
    let error = start(mock.connect(), None, "vsock:2:1").unwrap_err().to_string();
    assert!(error.contains("--agent") && error.contains("make build"), "{error}");

    let (mock, _guest) = serve(Guest { machine: "aarch64", ..Guest::default() });
    let error = start(mock.connect(), Some(&agent(62)), "vsock:2:1").unwrap_err();
    assert!(error.to_string().contains("is built for x86_64, but the guest is aarch64"), "{error}");

    let mock = MockAgent::start(|command, _| match command {
        "guest-info" => {
            Ok(json!({"supported_commands": [{"name": "guest-exec", "enabled": false}]}))
        }
        _ => Err("must not be asked".to_owned()),
    });
    let error = start(mock.connect(), None, "vsock:2:1").unwrap_err().to_string();
    assert!(error.contains("guest-exec and guest-exec-status"), "{error}");

    for (words, part) in [
        ("Failed to execute child process (Permission denied)", "virt_qemu_ga_run_unconfined"),
        ("Failed to execute child process (Exec format error)", "architecture"),
        ("the agent is in frozen state", "frozen"),
    ] {
        let mock = MockAgent::start(move |command, _| match command {
            "guest-info" => {
                let commands = ALL.map(|name| json!({"name": name, "enabled": true}));
                Ok(json!({"supported_commands": commands}))
            }
            _ => Err(words.to_owned()),
        });
        let error = start(mock.connect(), None, "vsock:2:1").unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
