//! Checks one running VM: whether vslice can attach to it, and whether its qemu-ga supports what vslice
//! needs. The VM is not changed. qemu-ga is queried for its version and for the guest's vslice-agent,
//! libvirt for the XML of its domain, and the VMM for what cannot be seen from outside.

use super::diagnosis::{AGENT, Diagnosis, QEMU_GA, TRANSPORT, VCPU_THREADS};
use super::finding::Finding;
use super::{doctor_asked, doctor_evidence};
use vslice_host::agent_transport::{AgentTransport, NO_TRANSPORT_ADVICE};
use vslice_host::bql;
use vslice_host::plug::by_hand;
use vslice_host::qemu_args::LOAD_PORT;
use vslice_host::qga::{AgentInfo, EXEC, Ended, FILES, Qga, QgaError};
use vslice_host::vm::Vm;
use vslice_record::guest::start::{BAKED_IN, WORD_TIMEOUT};

const UPLOAD_ADVICE: &str =
    "upload one with `vslice attach --load PLAN --agent FILE`, or install it in the guest";

/// Examines one VM.
#[must_use]
pub fn examine_vm(vm: &Vm) -> Diagnosis {
    let asked = Qga::of_vm(vm).and_then(|mut qga| {
        let info = qga.info()?;
        let own = info.allows(EXEC).and_then(|()| qga.run(BAKED_IN, &["--version"], WORD_TIMEOUT));
        Ok((info, own))
    });
    let can_start = asked.as_ref().is_ok_and(|(info, own)| {
        let has_own = own.as_ref().is_ok_and(Ended::is_success);
        info.allows(EXEC).is_ok() && (has_own || info.allows(FILES).is_ok())
    });
    let (info, own) = match asked {
        Ok((info, own)) => (Ok(info), Some(own)),
        Err(error) => (Err(error), None),
    };
    let found = AgentTransport::find(vm);
    let plug = matches!(found, Ok(None)).then(|| by_hand(vm));
    let evidence = doctor_evidence::finding_of_vm(vm);
    let mut findings = vec![vcpus(vm), evidence, lock(vm), transport(found), agent(info)];
    findings.extend(own.map(own_agent));
    findings.extend(doctor_asked::findings(vm));
    Diagnosis::of_vm(vm.label(), findings, can_start, plug)
}

fn transport(transport: Result<Option<AgentTransport>, QgaError>) -> Finding {
    let name = TRANSPORT;
    let transport = match transport {
        Ok(transport) => transport,
        Err(error) => {
            let text = error.to_string();
            let (why, advice) = text.split_once(": ").unwrap_or((&text, "see above"));
            return Finding::degraded(name, format!("unknown, because {why}"), advice);
        }
    };
    match transport {
        Some(AgentTransport::Vsock { cid }) => {
            Finding::ok(name, format!("vhost-vsock, guest CID {cid}"))
        }
        Some(AgentTransport::Serial { path }) => {
            Finding::ok(name, format!("virtio-serial port {LOAD_PORT} at {}", path.display()))
        }
        None => Finding::degraded(name, "none, so an agent could not connect", NO_TRANSPORT_ADVICE),
    }
}

/// The finding about the guest's own vslice-agent.
fn own_agent(said: Result<Ended, QgaError>) -> Finding {
    let name = AGENT;
    match said {
        Ok(ended) if ended.is_success() => {
            Finding::ok(name, format!("{} is installed in the guest", ended.out))
        }
        Ok(ended) => {
            Finding::degraded(name, format!("it fails: {}", ended.last_words()), UPLOAD_ADVICE)
        }
        Err(QgaError::NoProgram { .. }) => {
            Finding::degraded(name, "not installed in the guest", UPLOAD_ADVICE)
        }
        Err(error) => Finding::degraded(name, error.to_string(), UPLOAD_ADVICE),
    }
}

fn vcpus(vm: &Vm) -> Finding {
    let (name, count) = (VCPU_THREADS, vm.vcpus().count());
    if count == 0 {
        return Finding::missing(
            name,
            "cannot tell which threads run vCPUs",
            vm.unseen_vcpus_advice(),
        );
    }
    if let Some(notice) = vm.stopped_notice() {
        let advice = "continue it (`kill -CONT`): while it is stopped, there is nothing to record";
        return Finding::degraded(name, format!("{count}; {notice}"), advice);
    }
    Finding::ok(name, format!("{count}: `vslice attach {}` can record them", vm.label()))
}

fn lock(vm: &Vm) -> Finding {
    let name = "QEMU's big lock";
    match bql::locate(vm.pid) {
        Ok(found) => {
            Finding::ok(name, format!("at {:#x}: waits for it can be proven", found.address))
        }
        Err(error) => {
            let advice = "waits for it can only be inferred";
            Finding::degraded(name, error.to_string(), advice)
        }
    }
}

fn agent(asked: Result<AgentInfo, QgaError>) -> Finding {
    let name = QEMU_GA;
    let info = match asked {
        Err(error) => {
            let text = error.to_string();
            let (seen, advice) = text.split_once(": ").unwrap_or((&text, "see above"));
            return Finding::degraded(name, seen, advice);
        }
        Ok(info) => info,
    };
    let seen = format!("version {}", info.version);
    if let Err(refused) = info.allows(EXEC) {
        return Finding::degraded(
            name,
            format!("{seen}, but does not start programs"),
            refused.to_string(),
        );
    }
    if info.allows(FILES).is_err() {
        let seen = format!("{seen}, starts programs, but does not accept files");
        return Finding::degraded(name, seen, "install vslice-agent in the guest");
    }
    Finding::ok(name, format!("{seen}, starts programs and accepts files"))
}

#[cfg(test)]
mod tests {
    use super::super::diagnosis::EVIDENCE;
    use super::super::finding::Status;
    use super::*;

    fn vm(has_agent_port: bool) -> Vm {
        Vm { has_agent_port, ..Vm::named("web1") }
    }

    fn info(enabled: &[&str]) -> AgentInfo {
        let enabled = enabled.iter().map(|name| (*name).to_owned()).collect();
        AgentInfo { version: "7.2".to_owned(), enabled }
    }

    #[test]
    fn what_an_agent_may_do_decides() {
        let all = [EXEC, FILES].concat();
        let whole = agent(Ok(info(&all)));
        assert_eq!((whole.status, whole.advice), (Status::Ok, None));
        let no_files = agent(Ok(info(EXEC)));
        assert_eq!(no_files.status, Status::Degraded);
        assert!(no_files.seen.contains("does not accept files"), "{}", no_files.seen);
        let no_exec = agent(Ok(info(FILES)));
        let advice = no_exec.advice.unwrap();
        assert!(
            advice.contains("guest-exec and guest-exec-status") && advice.contains("FILTER_RPC")
        );
        let command = "guest-sync-delimited".to_owned();
        let silent = agent(Err(QgaError::Silent { seconds: 5, command }));
        assert_eq!(silent.seen, "qemu-ga has not answered guest-sync-delimited within 5 s");
        assert!(silent.advice.unwrap().starts_with("in the guest, install"));
    }

    #[test]
    fn the_guests_own_agent_is_there_or_the_way_to_one_is_said() {
        let ended = |code, out: &str, err: &str| {
            Ok(Ended { code: Some(code), out: out.to_owned(), err: err.to_owned() })
        };
        let there = own_agent(ended(0, "vslice-agent 0.1.0", ""));
        assert_eq!(there.seen, "vslice-agent 0.1.0 is installed in the guest");
        let failing = own_agent(ended(127, "", "no such library"));
        assert_eq!(failing.seen, "it fails: no such library");
        let program = BAKED_IN.to_owned();
        let missing = own_agent(Err(QgaError::NoProgram { program }));
        assert_eq!(missing.status, Status::Degraded);
        assert!(missing.advice.unwrap().contains("--agent"));
    }

    #[test]
    fn a_vm_that_is_stopped_is_said() {
        let role = vslice_trace::thread::ThreadRole::Vcpu(vslice_core::units::VcpuId(0));
        let tid = vslice_core::units::Tid(7);
        let threads = vec![vslice_host::vm::VmThread::new(tid, "CPU 0/TCG", role, vec![])];
        let vm = Vm { threads, ..vm(true) };
        assert_eq!(vcpus(&vm).status, Status::Ok);
        let stopper = Some(vslice_host::procfs::Stopper::Signal);
        let stopped = vcpus(&Vm { stopper, ..vm });
        assert_eq!(stopped.status, Status::Degraded);
        assert!(stopped.seen.starts_with("1; web1: its process "), "{}", stopped.seen);
        assert!(stopped.seen.contains("SIGSTOP"), "{}", stopped.seen);
    }

    #[test]
    fn a_way_that_libvirt_does_not_tell_of_is_not_known() {
        let silent = transport(Err(QgaError::LibvirtSilent { seconds: 5 }));
        assert_eq!(silent.status, Status::Degraded);
        assert_eq!(silent.seen, "unknown, because libvirt does not answer within 5 s");
        assert!(silent.advice.unwrap().contains("daemon hangs"));
    }

    #[test]
    fn a_vm_without_anything_says_what_it_lacks() {
        let seen = |port| {
            let findings = examine_vm(&vm(port)).findings;
            findings.into_iter().map(|found| found.seen).collect::<Vec<_>>()
        };
        assert_eq!(seen(false)[0], "cannot tell which threads run vCPUs");
        let names: Vec<String> =
            examine_vm(&vm(false)).findings.into_iter().map(|found| found.name).collect();
        assert_eq!(names[1], EVIDENCE);
        assert_eq!(seen(false)[3], "none, so an agent could not connect");
        assert_eq!(seen(false)[4], "there is no port for qemu-ga");
        assert_eq!(seen(true)[4], "there is a port for qemu-ga, but its host end is unknown");
    }
}
