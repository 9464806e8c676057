//! Against a monitor that keeps what is plugged in.

use super::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

/// What a QEMU has: devices by their ids, each with its properties, and chardevs.
#[derive(Debug, Default)]
struct Machine {
    ports: BTreeMap<String, Value>,
    chardevs: BTreeMap<String, String>,
    has_controller: bool,
    /// How often a chardev is still in use after its port is out.
    busy_count: u32,
    commands: Vec<String>,
}

impl Machine {
    fn answer(
        &mut self,
        command: &str,
        arguments: &Value,
    ) -> Result<Value, (&'static str, String)> {
        let id = arguments["id"].as_str().unwrap_or_default().to_owned();
        let generic = |words: &str| ("GenericError", words.to_owned());
        if command != "qmp_capabilities" {
            self.commands.push(command.to_owned());
        }
        match command {
            "qmp_capabilities" => Ok(json!({})),
            "chardev-add" => {
                let path =
                    arguments["backend"]["data"]["addr"]["data"]["path"].as_str().expect("a path");
                self.chardevs.insert(id, format!("disconnected:unix:{path},server=on"));
                Ok(json!({}))
            }
            "device_add" if !self.has_controller => {
                Err(generic("No 'virtio-serial-bus' bus found for device 'virtserialport'"))
            }
            "device_add" if self.ports.contains_key(&id) => {
                Err(generic(&format!("Duplicate device ID '{id}'")))
            }
            "device_add" => {
                self.ports.insert(id, arguments.clone());
                Ok(json!({}))
            }
            "device_del" => match self.ports.remove(&id) {
                Some(_) => Ok(json!({})),
                None => Err(("DeviceNotFound", format!("Device '{id}' not found"))),
            },
            "chardev-remove" if self.busy_count > 0 => {
                self.busy_count -= 1;
                Err(generic("Chardev 'vslice-agent' is busy"))
            }
            "chardev-remove" => match self.chardevs.remove(&id) {
                Some(_) => Ok(json!({})),
                None => Err(generic(&format!("Chardev '{id}' not found"))),
            },
            "query-chardev" => {
                let chardev = |(label, filename)| json!({"label": label, "filename": filename});
                Ok(self.chardevs.iter().map(chardev).collect())
            }
            "qom-list" if arguments["path"] == DEVICES[0] => {
                let child = |(name, device): (&String, &Value)| {
                    let driver = device["driver"].as_str().unwrap_or("virtserialport");
                    json!({"name": name, "type": format!("child<{driver}>")})
                };
                Ok(self.ports.iter().map(child).collect())
            }
            "qom-list" => Ok(json!([{"name": "type", "type": "string"}])),
            "qom-get" => {
                let (_, name) =
                    arguments["path"].as_str().expect("a path").rsplit_once('/').unwrap();
                let property = arguments["property"].as_str().expect("a name");
                let Some(device) = self.ports.get(name) else {
                    return Err(("DeviceNotFound", format!("Device '{name}' not found")));
                };
                let value = device.get(property).cloned();
                value.ok_or_else(|| generic(&format!("Property 'device.{property}' not found")))
            }
            other => panic!("{other} is not what a port needs"),
        }
    }
}

fn serve(stream: UnixStream, machine: &Mutex<Machine>) {
    let mut out = stream.try_clone().expect("a descriptor");
    let _may_be_gone = out.write_all(b"{\"QMP\": {}}\r\n");
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let said: Value = serde_json::from_str(&line).expect("the client sends JSON");
        let command = said["execute"].as_str().expect("a command");
        let answer = match machine.lock().unwrap().answer(command, &said["arguments"]) {
            Ok(value) => json!({"return": value, "id": said["id"]}),
            Err((class, desc)) => {
                json!({"error": {"class": class, "desc": desc}, "id": said["id"]})
            }
        };
        let _may_be_gone = out.write_all(format!("{answer}\r\n").as_bytes());
    }
}

/// A VM, which is this process, with such a monitor; the directory is that of journals and sockets.
struct Lab {
    directory: tempfile::TempDir,
    machine: Arc<Mutex<Machine>>,
    vm: Vm,
}

impl Lab {
    fn start(machine: Machine) -> Lab {
        let directory = tempfile::tempdir().expect("scratch");
        let monitor = directory.path().join("qmp");
        let listener = UnixListener::bind(&monitor).expect("scratch");
        let machine = Arc::new(Mutex::new(machine));
        let served = Arc::clone(&machine);
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|stream| serve(stream, &served))
        });
        let vm = Vm { qmp_sockets: vec![monitor], ..Vm::named("web") };
        Lab { directory, machine, vm }
    }

    fn plug(&self) -> Result<Plugged, PlugError> {
        plug(&self.vm, self.directory.path(), &self.socket())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("port/agent")
    }

    fn is_clean(&self) -> bool {
        let machine = self.machine.lock().unwrap();
        machine.ports.is_empty() && machine.chardevs.is_empty()
    }

    fn journals(&self) -> usize {
        let entries = fs::read_dir(self.directory.path()).expect("scratch").flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "journal")).count()
    }
}

fn with_controller() -> Machine {
    Machine { has_controller: true, ..Machine::default() }
}

#[test]
fn a_port_is_plugged_in_and_taken_out_again() {
    let lab = Lab::start(Machine { busy_count: 2, ..with_controller() });
    let Plugged::Port(port) = lab.plug().expect("it has a monitor") else {
        panic!("there was none")
    };
    assert_eq!(port.transport(), AgentTransport::Serial { path: lab.socket() });
    assert_eq!(
        (lab.machine.lock().unwrap().ports[PORT_ID]["name"].as_str(), lab.journals()),
        (Some(LOAD_PORT), 1)
    );
    port.take_out().expect("it lets go");
    assert_eq!((lab.is_clean(), lab.journals()), (true, 0));
    drop(lab.plug().expect("again"));
    assert_eq!((lab.is_clean(), lab.journals()), (true, 0), "also if nobody says so");
}

#[test]
fn a_port_that_was_plugged_in_before_is_found_and_stays() {
    let lab = Lab::start(with_controller());
    {
        let mut machine = lab.machine.lock().unwrap();
        let port = json!({"name": LOAD_PORT, "chardev": "c7"});
        machine
            .ports
            .insert("other".to_owned(), json!({"name": "org.qemu.guest_agent.0", "chardev": "c0"}));
        machine.ports.insert("users".to_owned(), port);
        machine.chardevs.insert("c7".to_owned(), "unix:/run/a,b.sock,server=on".to_owned());
    }
    match lab.plug().expect("it has a monitor") {
        Plugged::Found(transport) => {
            assert_eq!(transport, AgentTransport::Serial { path: "/run/a,b.sock".into() })
        }
        Plugged::Port(_) => panic!("there was one already"),
    }
    assert_eq!((lab.machine.lock().unwrap().ports.len(), lab.journals()), (2, 0));
    let said = lab.machine.lock().unwrap().commands.clone();
    assert!(
        !said.iter().any(|command| command.ends_with("add") || command.ends_with("del")),
        "{said:?}"
    );
}

#[test]
fn a_users_device_that_has_the_ports_id_stays() {
    let lab = Lab::start(with_controller());
    // No vhost-vsock: on a host without one it is no way.
    let users = json!({"driver": "vhost-user-vsock-pci", "id": PORT_ID});
    lab.machine.lock().unwrap().ports.insert(PORT_ID.to_owned(), users.clone());
    let message = lab.plug().expect_err("the id is taken").to_string();
    assert!(message.contains("Duplicate device ID"), "{message}");
    let machine = lab.machine.lock().unwrap();
    assert_eq!(machine.ports.get(PORT_ID), Some(&users), "{:?}", machine.commands);
    assert!(machine.chardevs.is_empty(), "the collector's own went");
    drop(machine);
    assert_eq!(lab.journals(), 0);
}

#[test]
fn a_vhost_vsock_that_was_plugged_in_by_hand_is_found_where_the_host_has_one() {
    let lab = Lab::start(with_controller());
    let vsock = json!({"driver": "vhost-vsock-pci", "guest-cid": 7});
    lab.machine.lock().unwrap().ports.insert("vslice-vsock".to_owned(), vsock);
    let mut qmp = Qmp::connect(&lab.vm.qmp_sockets[0]).expect("it has a monitor");
    assert_eq!(find(&mut qmp, true).expect("it answers"), Some(AgentTransport::Vsock { cid: 7 }));
    assert_eq!(find(&mut qmp, false).expect("it answers"), None);
}

#[test]
fn what_cannot_be_plugged_in_leaves_nothing() {
    let lab = Lab::start(Machine::default());
    let message = lab.plug().expect_err("no controller").to_string();
    assert!(message.contains("No 'virtio-serial-bus' bus found"), "{message}");
    assert!(message.contains("if there is no room for a port, give it a vhost-vsock"), "{message}");
    assert_eq!((lab.is_clean(), lab.journals()), (true, 0));
    let deaf = Vm { has_agent_port: true, ..Vm::named("web") };
    let message =
        plug(&deaf, lab.directory.path(), &lab.socket()).expect_err("no monitor").to_string();
    assert!(message.starts_with("web has no QMP socket of its own"), "{message}");
    let gone = Vm { qmp_sockets: vec!["/nonexistent".into()], ..deaf.clone() };
    let message =
        plug(&gone, lab.directory.path(), &lab.socket()).expect_err("no monitor").to_string();
    assert!(
        message.contains("/nonexistent cannot be reached") && message.contains("socat"),
        "{message}"
    );
}

#[test]
fn the_next_collector_takes_out_what_a_killed_one_left() {
    let lab = Lab::start(with_controller());
    let Plugged::Port(mut port) = lab.plug().expect("it has a monitor") else {
        panic!("there was none")
    };
    // The journal of a process that is no more, as after a SIGKILL.
    let change = serde_json::to_string(&port.change).expect("text");
    let stale = lab.directory.path().join(format!("{KIND}-4194304-1-0.journal"));
    fs::write(&stale, format!("{change}\n")).expect("scratch");
    port.is_out = true;
    drop(port);
    assert!(!lab.is_clean());
    let undone = undo_stale_journals(lab.directory.path()).expect("a directory");
    assert_eq!((undone.count, undone.failed_count), (1, 0));
    assert!(lab.is_clean() && !stale.exists());
    // What is out already is nobody's failure.
    fs::write(&stale, format!("{change}\n")).expect("scratch");
    let undone = undo_stale_journals(lab.directory.path()).expect("a directory");
    assert_eq!((undone.count, undone.failed_count, stale.exists()), (0, 0, false));
}

#[test]
fn what_cannot_be_taken_out_now_is_kept_in_mind() {
    let lab = Lab::start(with_controller());
    let Plugged::Port(mut port) = lab.plug().expect("it has a monitor") else {
        panic!("there was none")
    };
    port.change.monitor = "/nonexistent".into();
    assert!(port.take_out().is_err());
    assert_eq!((lab.is_clean(), lab.journals()), (false, 1));
    // A VM that has ended has nothing to be taken out.
    let change = Change {
        pid: Tid(u32::MAX),
        start: StartTicks(0),
        monitor: "/x".into(),
        socket: lab.socket(),
    };
    assert!(matches!(undo(&change), Ok(false)));
}
