//! What only a VMM itself can tell, and is asked because the user asks for the doctor: QEMU which thread is which
//! iothread, Firecracker which disks it has.

use super::finding::Finding;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use vslice_core::units::Tid;
use vslice_host::firecracker_api;
use vslice_host::qmp::Qmp;
use vslice_host::vm::{IothreadSource, Vm};
use vslice_host::vmm_args::firecracker_drives;
use vslice_trace::vmm::Vmm;

/// A monitor serves one client at a time, and may be somebody else's.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

const IOTHREADS: &str = "iothreads";
const DISKS: &str = "disks";

/// What the VMM says, where that is more than what can be seen.
pub(super) fn findings(vm: &Vm) -> Vec<Finding> {
    let disks = (vm.vmm == Vmm::Firecracker && vm.disks.is_none()).then(|| disks(vm));
    iothreads(vm).into_iter().chain(disks).collect()
}

/// Which thread each iothread is; `None` if all of their names tell, or there are none.
fn iothreads(vm: &Vm) -> Option<Finding> {
    let inferred: BTreeMap<Tid, &str> = vm
        .threads
        .iter()
        .filter(|thread| thread.iothread_from == Some(IothreadSource::Order))
        .filter_map(|thread| Some((thread.tid, thread.iothread.as_deref()?)))
        .collect();
    if inferred.is_empty() {
        return None;
    }
    let seen = format!("{} told by the order in which QEMU makes them", list(&inferred));
    let advice = "ids of at most 12 letters stay in the threads' names; or give QEMU a QMP socket that nobody else \
        uses, and doctor asks there";
    let Some(socket) = vm.qmp_sockets.first() else {
        return Some(Finding::degraded(IOTHREADS, seen, advice));
    };
    Some(match ask_iothreads(socket) {
        Err(why) => Finding::degraded(IOTHREADS, format!("{seen}; {why}"), advice),
        Ok(told) => compared(&inferred, &told),
    })
}

/// What QEMU says of the threads that were inferred.
fn compared(inferred: &BTreeMap<Tid, &str>, told: &BTreeMap<Tid, String>) -> Finding {
    let of_told = |tid: &Tid| told.get(tid).map_or("no iothread", String::as_str);
    let said: BTreeMap<Tid, &str> = inferred.keys().map(|tid| (*tid, of_told(tid))).collect();
    if said == *inferred {
        Finding::ok(IOTHREADS, format!("{}, as QEMU says itself", list(inferred)))
    } else {
        let seen = format!("QEMU says {}, and their order {}", list(&said), list(inferred));
        Finding::degraded(IOTHREADS, seen, "trust QEMU: one was added or removed while it ran")
    }
}

fn list(threads: &BTreeMap<Tid, &str>) -> String {
    let all: Vec<String> =
        threads.iter().map(|(tid, id)| format!("{id} is thread {tid}")).collect();
    all.join(", ")
}

/// The iothreads by their threads (qemu: qapi/misc.json, `query-iothreads`).
fn ask_iothreads(socket: &Path) -> Result<BTreeMap<Tid, String>, String> {
    let asked = Qmp::connect_within(socket, ANSWER_TIMEOUT)
        .and_then(|mut qmp| qmp.execute("query-iothreads", json!({})));
    let answer = asked.map_err(|error| error.to_string())?;
    let iothread = |value: &serde_json::Value| {
        let tid = u32::try_from(value.get("thread-id")?.as_u64()?).ok()?;
        Some((Tid(tid), vslice_core::text::harmless(value.get("id")?.as_str()?)))
    };
    Ok(answer.as_array().into_iter().flatten().filter_map(iothread).collect())
}

fn disks(vm: &Vm) -> Finding {
    let untold = "unknown: Firecracker was told of them over its API";
    let advice = "run vslice as a user who may use Firecracker's API socket (--api-sock)";
    let Some(socket) = &vm.api_socket else {
        return Finding::degraded(DISKS, untold, "start it with --config-file, or with an API");
    };
    let asked = firecracker_api::config(socket, ANSWER_TIMEOUT);
    let drives = match asked.map(|config| firecracker_drives(&config)) {
        Ok(Some(drives)) => drives,
        Ok(None) => return Finding::degraded(DISKS, format!("{untold}, which tells none"), advice),
        Err(error) => return Finding::degraded(DISKS, format!("{untold}, but {error}"), advice),
    };
    let all: Vec<String> = drives
        .iter()
        .map(|disk| {
            let aio = disk.aio.map(|aio| format!(", aio {}", aio.name())).unwrap_or_default();
            format!("{} {}{aio}", disk.id.as_deref().unwrap_or_default(), disk.storage)
        })
        .collect();
    let all = if all.is_empty() { "none".to_owned() } else { all.join("; ") };
    Finding::ok(DISKS, format!("{}, as Firecracker says itself", vslice_core::text::harmless(&all)))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use vslice_host::vm::VmThread;
    use vslice_trace::thread::ThreadRole;

    /// A server at a socket that answers whatever it is asked with these texts in turn.
    fn server(greeting: &str, answers: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let greeting = greeting.to_owned();
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            for answer in answers {
                let length = stream.read(&mut [0; 4096]).unwrap();
                assert!(length > 0, "it asks");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (directory, path)
    }

    fn vm_with(ids: [&str; 2], socket: Option<PathBuf>) -> Vm {
        let thread = |(id, tid): (&str, u32)| {
            let role = ThreadRole::Iothread(id.to_owned());
            let mut thread = VmThread::new(Tid(tid), "IO iothread-vir", role, vec![]);
            thread.iothread_from = Some(IothreadSource::Order);
            thread
        };
        let threads = ids.into_iter().zip(5..).map(thread).collect();
        Vm { threads, qmp_sockets: socket.into_iter().collect(), ..Vm::named("web") }
    }

    const IDS: [&str; 2] = ["iothread-virtioscsi0", "iothread-virtioscsi1"];

    /// What is said where QEMU calls thread 5 so, and thread 6 the second id.
    fn asked(first: &str) -> Finding {
        let iothreads = format!(
            "{{\"return\": [{{\"id\": \"{}\", \"thread-id\": 6}}, {{\"id\": \"{first}\", \"thread-id\": 5}}], \
            \"id\": 2}}\r\n",
            IDS[1]
        );
        let answers = ["{\"return\": {}, \"id\": 1}\r\n", &iothreads];
        let (_directory, socket) =
            server("{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n", &answers);
        findings(&vm_with(IDS, Some(socket))).remove(0)
    }

    #[test]
    fn qemu_is_asked_which_thread_is_which_iothread() {
        let right = asked(IDS[0]);
        assert_eq!(right.status, Status::Ok);
        assert_eq!(
            right.seen,
            "iothread-virtioscsi0 is thread 5, iothread-virtioscsi1 is thread 6, as QEMU says itself"
        );
        let wrong = asked("another");
        assert_eq!(wrong.status, Status::Degraded);
        assert!(wrong.seen.starts_with("QEMU says another is thread 5"), "{}", wrong.seen);
    }

    #[test]
    fn without_a_monitor_the_order_is_all_there_is() {
        let found = findings(&vm_with(IDS, None)).remove(0);
        assert_eq!(found.status, Status::Degraded);
        assert!(
            found.seen.ends_with("told by the order in which QEMU makes them"),
            "{}",
            found.seen
        );
        let gone = findings(&vm_with(IDS, Some("/nonexistent".into()))).remove(0);
        assert!(gone.seen.contains("/nonexistent"), "{}", gone.seen);
        assert_eq!(findings(&Vm::named("web")), [], "there is nothing to ask");
    }

    #[test]
    fn firecracker_is_asked_for_its_disks() {
        let firecracker =
            |socket| Vm { vmm: Vmm::Firecracker, api_socket: Some(socket), ..Vm::named("vm7") };
        let config =
            r#"{"drives":[{"drive_id":"rootfs","path_on_host":"/r.ext4","io_engine":"Async"}]}"#;
        let answer = format!("HTTP/1.1 200 \r\nContent-Length: {}\r\n\r\n{config}", config.len());
        let (_directory, socket) = server("", &[&answer]);
        let found = findings(&firecracker(socket)).remove(0);
        assert_eq!((found.name.as_str(), found.status), (DISKS, Status::Ok));
        assert_eq!(found.seen, "rootfs on /r.ext4, aio io_uring, as Firecracker says itself");
        let silent = findings(&firecracker("/nonexistent".into())).remove(0);
        assert_eq!(silent.status, Status::Degraded);
        let told = Vm { disks: Some(vec![]), ..firecracker("/nonexistent".into()) };
        assert_eq!(findings(&told), []);
    }
}
