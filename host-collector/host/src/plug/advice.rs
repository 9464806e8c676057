//! How a user plugs in a port by hand: the lines to type.

use super::{CHARDEV_ID, PORT_ID, commands};
use crate::agent_transport::{NO_TRANSPORT_ADVICE, has_vhost};
use crate::qemu_args::LOAD_PORT;
use crate::vm::{Manager, Vm};
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// How to start QEMU with a port for qemu-ga and a transport to this host.
const AGENT_AND_WAY: &str = "`-device virtio-serial-pci -chardev socket,id=ga,path=GA.sock,server=on,wait=off \
    -device virtserialport,chardev=ga,name=org.qemu.guest_agent.0 \
    -chardev socket,id=way,path=WAY.sock,server=on,wait=off \
    -device virtserialport,chardev=way,name=vslice.agent` (libvirt: a <channel> for each)";

/// The lines to type for one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ByHand {
    /// What the lines do, as a sentence without its full stop.
    pub how: String,
    /// Shell lines that plug in a transport; empty if no monitor can be reached or it would be of no use.
    pub plug: Vec<String>,
    /// Shell lines that unplug it again.
    pub unplug: Vec<String>,
    /// Whether `vslice attach --load --plug` can plug in a transport: the VM has a port for qemu-ga, and
    /// a QMP socket that no manager uses.
    pub by_attach: bool,
}

impl ByHand {
    /// The sentence and the lines.
    #[must_use]
    pub fn sentence(&self) -> String {
        match &self.plug[..] {
            [] => self.how.clone(),
            lines => format!("{}:\n  {}", self.how, lines.join("\n  ")),
        }
    }
}

/// The lines for this VM. The VM itself is not queried.
#[must_use]
pub fn by_hand(vm: &Vm) -> ByHand {
    let nothing = |how: String| ByHand { how, plug: vec![], unplug: vec![], by_attach: false };
    // What was plugged in since, of qemu-ga's, no command line tells, and vslice does not look for it.
    if !vm.has_agent_port {
        let vm = vm.label();
        return nothing(format!(
            "a transport alone is of no use, because {vm} has no port for qemu-ga, which starts the \
            agent in the guest: restart it with both, {AGENT_AND_WAY}"
        ));
    }
    match (vm.manager, vm.name.as_deref(), vm.qmp_sockets.first()) {
        (Some(manager), Some(domain), _) => through_libvirt(manager, domain, has_vhost()),
        (_, _, Some(monitor)) => through_qmp(monitor, vm.pid.0),
        _ => nothing(NO_TRANSPORT_ADVICE.to_owned()),
    }
}

/// libvirt has the monitor of its domains, and plugs itself.
fn through_libvirt(manager: Manager, domain: &str, has_vhost: bool) -> ByHand {
    let uri = match manager {
        Manager::LibvirtSystem => "qemu:///system",
        Manager::LibvirtSession => "qemu:///session",
    };
    let virsh = |command: &str, device: &str| {
        let domain = quoted(domain);
        format!("echo {} | virsh -c {uri} {command} {domain} /dev/stdin --live", quoted(device))
    };
    let device = if has_vhost {
        "<vsock model='virtio'><cid auto='yes'/></vsock>".to_owned()
    } else {
        format!(
            "<channel type='unix'><source mode='bind'/><target type='virtio' name='{LOAD_PORT}'/></channel>"
        )
    };
    ByHand {
        how: "libvirt owns its monitor and plugs in the device; vslice attach finds it".to_owned(),
        plug: vec![virsh("attach-device", &device)],
        unplug: vec![virsh("detach-device", &device)],
        by_attach: false,
    }
}

/// A client types commands into the monitor's socket. They plug in a port also where the host has a vhost-vsock:
/// qemu-ga has its virtio-serial bus, which takes another port on every machine, while a PCI device needs a bus
/// that takes it, and q35's own, pcie.0, does not (qemu: `pcie.0 does not support hotplugging`).
fn through_qmp(monitor: &Path, pid: u32) -> ByHand {
    let client = |commands: Vec<(&str, serde_json::Value)>| {
        let first = ("qmp_capabilities", json!({}));
        let commands = [vec![first], commands].concat();
        let lines = commands.into_iter().map(|(command, arguments)| {
            quoted(&json!({"execute": command, "arguments": arguments}).to_string())
        });
        let lines = lines.collect::<Vec<_>>().join(" ");
        let socket = quoted(&monitor.display().to_string());
        // The monitor is QEMU's until it has answered.
        vec![format!("(printf '%s\\n' {lines}; sleep 1) | socat - UNIX-CONNECT:{socket}")]
    };
    // Without --plug an attach asks the monitor nothing, and sees what was there at the start only.
    let how =
        "`vslice attach --load PLAN --plug` plugs in a port by the VM's QMP socket and unplugs \
        it afterwards; it uses a port that was plugged in by hand, and leaves it in place; the \
        following lines need socat (apt-get install socat)"
            .to_owned();
    let socket = monitor.with_file_name(format!("{LOAD_PORT}-{pid}.sock"));
    ByHand {
        how,
        plug: client(commands(&socket).to_vec()),
        unplug: client(vec![
            ("device_del", json!({"id": PORT_ID})),
            ("chardev-remove", json!({"id": CHARDEV_ID})),
        ]),
        by_attach: true,
    }
}

/// One word of a shell's.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    if text.contains('\'') && !text.contains(['"', '$', '`', '\\', '!']) {
        return format!("\"{text}\"");
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_transport::AgentTransport;

    #[test]
    fn libvirt_is_told_through_virsh() {
        let manager = Some(Manager::LibvirtSystem);
        let vm = Vm { manager, has_agent_port: true, ..Vm::named("web 1") };
        let domain = through_libvirt(Manager::LibvirtSystem, "web 1", false);
        assert_eq!(
            domain.plug,
            ["echo \"<channel type='unix'><source mode='bind'/><target type='virtio' \
              name='vslice.agent'/></channel>\" | virsh -c qemu:///system attach-device 'web 1' \
              /dev/stdin --live"]
        );
        assert!(domain.unplug[0].contains("detach-device"), "{domain:?}");
        assert!(by_hand(&vm).sentence().contains("\n  echo "));
        let vsock = through_libvirt(Manager::LibvirtSession, "web1", true);
        assert!(vsock.plug[0].contains("cid auto") && vsock.plug[0].contains("qemu:///session"));
    }

    #[test]
    fn a_monitor_is_told_by_socat() {
        let by_hand = through_qmp(Path::new("/run/q/qmp"), 7);
        let line = &by_hand.plug[0];
        assert!(
            line.starts_with("(printf '%s\\n' '{\"arguments\":{},\"execute\":\"qmp_cap"),
            "{line}"
        );
        assert!(line.contains(r#""path":"/run/q/vslice.agent-7.sock""#), "{line}");
        assert!(line.ends_with("; sleep 1) | socat - UNIX-CONNECT:/run/q/qmp"), "{line}");
        assert!(by_hand.how.contains("uses a port that was plugged in by hand"), "{}", by_hand.how);
        assert!(by_hand.how.ends_with("socat (apt-get install socat)"), "{}", by_hand.how);
        assert!(!line.contains("-pci"), "q35 takes none on its own bus: {line}");
    }

    #[test]
    fn who_has_no_qemu_ga_is_not_told_to_plug() {
        let vm = Vm { qmp_sockets: vec!["/q".into()], ..Vm::named("web1") };
        for manager in [None, Some(Manager::LibvirtSystem)] {
            let said = by_hand(&Vm { manager, ..vm.clone() });
            assert!(said.plug.is_empty() && said.unplug.is_empty() && !said.by_attach, "{said:?}");
            for words in
                ["web1 has no port for qemu-ga", "-device virtio-serial-pci", "vslice.agent"]
            {
                assert!(said.how.contains(words), "{}", said.how);
            }
        }
        let with_agent = by_hand(&Vm { has_agent_port: true, ..vm });
        assert!(with_agent.by_attach && with_agent.plug.len() == 1, "{with_agent:?}");
    }

    #[test]
    fn who_has_neither_is_started_again() {
        let nobody = by_hand(&Vm { has_agent_port: true, ..Vm::named("web1") });
        assert!(nobody.plug.is_empty() && nobody.sentence().contains("restart it"));
        assert_eq!(AgentTransport::of_vm(&Vm::named("web1")), None);
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (text, word) in [
            ("web1", "web1"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "\"it's\""),
            ("it's $HOME", r"'it'\''s $HOME'"),
        ] {
            assert_eq!(quoted(text), word);
        }
    }
}
