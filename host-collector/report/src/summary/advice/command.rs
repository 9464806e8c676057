//! Commands that a shell takes, made of names that are anybody's and of numbers.
//!
//! A name goes into a command letter by letter, or there is no command: what was made harmless on its way here may
//! be the name of something else.

use super::setup::Machine;
use std::collections::BTreeSet;
use vslice_core::text::harmless;
use vslice_core::units::{PcpuId, Tid};
use vslice_trace::host::HostPcpus;
use vslice_trace::thread::ThreadRole;
use vslice_trace::vmm::DomainRecord;

/// A command, or why there is none, as a sentence without its full stop.
pub(super) type Command = Result<String, String>;

/// Letters of a name in a command at most; no unit, domain or group that people name has more.
const NAME_CHARS_MAX: usize = 256;

/// The weight of what is to stand back: `cpu.weight` is 100 unless somebody set it, so this is a fifth of that, and
/// leaves a competitor five sixths of a pCPU.
const LOW_WEIGHT: u32 = 20;

/// The nice value of what is to stand back: the least weight that a thread can have (sched(7)).
const LOWEST_NICE: u32 = 19;

/// A name as one word of a shell: between quotes, unless a shell takes it as it is.
pub(super) fn word(name: &str) -> Result<String, String> {
    let is_exact = harmless(name) == name && !name.contains('?');
    if !is_exact {
        return Err("a name that it has to name is not known letter by letter".to_owned());
    }
    // A word that begins so is an option.
    if name.is_empty() || name.starts_with('-') || name.chars().count() > NAME_CHARS_MAX {
        return Err("a name that it has to name is none that a command takes".to_owned());
    }
    let is_plain = |letter: char| {
        letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-' | '/' | '@' | ':')
    };
    if name.chars().all(is_plain) {
        return Ok(name.to_owned());
    }
    Ok(format!("'{}'", name.replace('\'', r"'\''")))
}

fn list(pcpus: &BTreeSet<PcpuId>) -> String {
    HostPcpus::of(&pcpus.iter().copied().collect::<Vec<_>>()).into()
}

/// `virsh`, with the connection where it is not the one that root has anyway.
fn virsh(domain: &DomainRecord, verb: &str) -> Result<String, String> {
    let name = word(&domain.name)?;
    Ok(match domain.uri.as_str() {
        "qemu:///system" => format!("virsh {verb} {name}"),
        uri => format!("virsh -c {} {verb} {name}", word(uri)?),
    })
}

/// Lets a thread of a VM run on these pCPUs alone.
pub(super) fn pin(machine: &Machine, tid: Tid, allowed: &BTreeSet<PcpuId>) -> Command {
    let list = list(allowed);
    let role = machine.role(tid).ok_or("which thread of the VM it was is not known")?;
    let Some(domain) = &machine.domain else { return Ok(format!("taskset -pc {list} {tid}")) };
    match role {
        ThreadRole::Vcpu(vcpu) => Ok(format!("{} {} {list}", virsh(domain, "vcpupin")?, vcpu.0)),
        ThreadRole::Iothread(id) => {
            // libvirt calls the threads so that it makes (libvirt: src/qemu/qemu_command.c).
            let number = id.strip_prefix("iothread").and_then(|id| id.parse::<u32>().ok());
            let number = number.ok_or("libvirt's number of the iothread is not known")?;
            Ok(format!("{} {number} {list}", virsh(domain, "iothreadpin")?))
        }
        ThreadRole::MainLoop | ThreadRole::Worker | ThreadRole::Vhost | ThreadRole::Other => {
            Ok(format!("{} {list}", virsh(domain, "emulatorpin")?))
        }
    }
}

/// Lets the threads of a VM that are neither vCPUs nor iothreads run on these pCPUs alone.
pub(super) fn pin_emulator(machine: &Machine, allowed: &BTreeSet<PcpuId>) -> Command {
    let main_loop = machine.threads.iter().find(|(_, role)| *role == ThreadRole::MainLoop);
    let (tid, _) = main_loop.ok_or("the VM's main loop is not known")?;
    pin(machine, *tid, allowed)
}

/// Lets processes run on these pCPUs alone: those of a unit of the host's systemd, or one process.
pub(super) fn confine(path: &str, process: Option<Tid>, allowed: &BTreeSet<PcpuId>) -> Command {
    let list = list(allowed);
    match (unit(path), process) {
        (Some(unit), _) => {
            Ok(format!("systemctl set-property --runtime {} AllowedCPUs={list}", word(unit)?))
        }
        (None, Some(pid)) => Ok(format!("taskset -apc {list} {pid}")),
        (None, None) => {
            Err("they are several processes of a group that is no unit of systemd".to_owned())
        }
    }
}

/// Gives the processes of a control group less weight.
pub(super) fn weigh_less(path: &str, is_v2: bool) -> Command {
    if path == "/" {
        return Err("the root control group has no weight".to_owned());
    }
    match unit(path) {
        Some(unit) => {
            Ok(format!("systemctl set-property --runtime {} CPUWeight={LOW_WEIGHT}", word(unit)?))
        }
        None if is_v2 => {
            let file = word(&format!("{V2_MOUNT}{path}/cpu.weight"))?;
            Ok(format!("echo {LOW_WEIGHT} > {file}"))
        }
        None => Err("where its weight is set is not known".to_owned()),
    }
}

/// Gives a thread less weight than the others of its control group.
pub(super) fn nice(tid: Tid) -> Command {
    Ok(format!("renice -n {LOWEST_NICE} -p {tid}"))
}

/// Takes a quota away, by the directory of its group.
pub(super) fn without_quota(directory: &str, domain: Option<&DomainRecord>) -> Command {
    let path = path_of(directory);
    let is_of_libvirt = directory.split('/').any(|part| part == "libvirt");
    match (domain, path.and_then(unit)) {
        (Some(domain), _) if is_of_libvirt => {
            Ok(format!("{} --live vcpu_quota=-1", virsh(domain, "schedinfo")?))
        }
        (_, Some(unit)) => {
            Ok(format!("systemctl set-property --runtime {} CPUQuota=", word(unit)?))
        }
        _ if is_v2(directory) => {
            Ok(format!("echo max > {}", word(&format!("{directory}/cpu.max"))?))
        }
        _ => Ok(format!("echo -1 > {}", word(&format!("{directory}/cpu.cfs_quota_us"))?)),
    }
}

/// An iothread for a libvirt domain that has none.
pub(super) fn add_iothread(domain: &DomainRecord) -> Command {
    Ok(format!("{} 1 --config", virsh(domain, "iothreadadd")?))
}

/// Lets KVM poll for so long on behalf of an idle vCPU.
pub(super) fn halt_poll(length_ns: u64) -> Command {
    Ok(format!("echo {length_ns} > /sys/module/kvm/parameters/halt_poll_ns"))
}

/// Where systemd mounts control groups: all of version 2, or a directory for each controller of version 1.
const V2_MOUNT: &str = "/sys/fs/cgroup";

/// The directory's first part below the mount if that is the `cpu` controller's of version 1.
fn v1_controller(directory: &str) -> Option<&str> {
    let first = directory.strip_prefix(V2_MOUNT)?.strip_prefix('/')?.split('/').next()?;
    first.split(',').any(|controller| controller == "cpu").then_some(first)
}

/// Whether a group's directory is of version 2.
pub(super) fn is_v2(directory: &str) -> bool {
    directory.starts_with(V2_MOUNT) && v1_controller(directory).is_none()
}

/// A group's path below the root of its hierarchy, by its directory.
pub(super) fn path_of(directory: &str) -> Option<&str> {
    let below = directory.strip_prefix(V2_MOUNT)?;
    let path = match v1_controller(directory) {
        Some(controller) => below.get(controller.len() + 1..)?,
        None => below,
    };
    Some(if path.is_empty() { "/" } else { path })
}

/// The unit of the host's systemd that a group is: below slices alone. What a user's systemd makes, or one in a
/// container, is not its own.
fn unit(path: &str) -> Option<&str> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let last = parts.pop()?;
    let is_unit = [".service", ".scope", ".slice"].iter().any(|end| last.ends_with(end));
    (is_unit && parts.iter().all(|part| part.ends_with(".slice"))).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vslice_core::units::VcpuId;

    fn machine(domain: Option<&str>) -> Machine {
        Machine {
            name: "vm1".to_owned(),
            vmm: None,
            accelerator: None,
            domain: domain.map(|name| DomainRecord {
                name: name.to_owned(),
                uri: "qemu:///system".to_owned(),
            }),
            threads: vec![
                (Tid(101), ThreadRole::Vcpu(VcpuId(1))),
                (Tid(102), ThreadRole::MainLoop),
                (Tid(103), ThreadRole::Iothread("iothread2".to_owned())),
                (Tid(104), ThreadRole::Iothread("io0".to_owned())),
            ],
            disks: None,
            groups: vec![],
        }
    }

    fn two() -> BTreeSet<PcpuId> {
        BTreeSet::from([PcpuId(2), PcpuId(3), PcpuId(7)])
    }

    #[test]
    fn threads_are_pinned_by_libvirt_where_it_has_the_vm() {
        let web = machine(Some("web"));
        let commands = [101, 102, 103].map(|tid| pin(&web, Tid(tid), &two()).unwrap());
        assert_eq!(
            commands,
            [
                "virsh vcpupin web 1 2-3,7",
                "virsh emulatorpin web 2-3,7",
                "virsh iothreadpin web 2 2-3,7"
            ]
        );
        assert!(pin(&web, Tid(104), &two()).is_err(), "libvirt knows no io0");
        assert_eq!(pin(&machine(None), Tid(104), &two()).unwrap(), "taskset -pc 2-3,7 104");
        assert!(pin(&machine(None), Tid(9), &two()).is_err(), "it is no thread of the VM");
        let mut session = web;
        session.domain.iter_mut().for_each(|domain| domain.uri = "qemu:///session".to_owned());
        let command = pin_emulator(&session, &two()).unwrap();
        assert_eq!(command, "virsh -c qemu:///session emulatorpin web 2-3,7");
    }

    #[test]
    fn a_hostile_name_is_one_word_or_there_is_no_command() {
        let of = |name: &str| pin(&machine(Some(name)), Tid(101), &two());
        assert_eq!(of("a; rm -rf /").unwrap(), "virsh vcpupin 'a; rm -rf /' 1 2-3,7");
        assert_eq!(of("$(id)'`x").unwrap(), r"virsh vcpupin '$(id)'\''`x' 1 2-3,7");
        for name in ["a\u{1b}[2J", "a\nb", "a\u{202e}b", "-x", "", "a?b", &"x".repeat(300)] {
            assert!(of(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn groups_are_told_by_their_units_and_by_their_files_elsewhere() {
        let weigh = |path, is_v2| weigh_less(path, is_v2);
        assert_eq!(
            weigh("/system.slice/build.service", false).unwrap(),
            "systemctl set-property --runtime build.service CPUWeight=20"
        );
        assert_eq!(
            weigh("/machine.slice/machine-qemu\\x2d1.scope", true).unwrap(),
            "systemctl set-property --runtime 'machine-qemu\\x2d1.scope' CPUWeight=20"
        );
        assert_eq!(weigh("/a b", true).unwrap(), "echo 20 > '/sys/fs/cgroup/a b/cpu.weight'");
        assert!(weigh("/a b", false).is_err(), "which version it is, is not known");
        assert!(weigh("/", true).is_err());
        let of_user = "/user.slice/user-1.slice/user@1.service/app.slice/x.service";
        assert!(weigh(of_user, false).is_err(), "another systemd's");
        let one = BTreeSet::from([PcpuId(0)]);
        assert_eq!(
            confine("/system.slice/x.service", None, &one).unwrap(),
            "systemctl set-property --runtime x.service AllowedCPUs=0"
        );
        assert_eq!(confine("/", Some(Tid(9)), &one).unwrap(), "taskset -apc 0 9");
        assert!(confine("/", None, &one).is_err());
    }

    #[test]
    fn a_quota_is_taken_away_where_it_was_set() {
        let web = machine(Some("web")).domain;
        let of = |directory: &str| without_quota(directory, web.as_ref()).unwrap();
        let scope = "/sys/fs/cgroup/machine.slice/machine-qemu.scope";
        assert_eq!(
            of(&format!("{scope}/libvirt/vcpu1")),
            "virsh schedinfo web --live vcpu_quota=-1"
        );
        assert_eq!(of(scope), "systemctl set-property --runtime machine-qemu.scope CPUQuota=");
        assert_eq!(of("/sys/fs/cgroup/vms/x"), "echo max > /sys/fs/cgroup/vms/x/cpu.max");
        let v1 = "/sys/fs/cgroup/cpu,cpuacct/vms";
        assert_eq!(of(v1), format!("echo -1 > '{v1}/cpu.cfs_quota_us'"));
        assert_eq!((path_of(v1), is_v2(v1)), (Some("/vms"), false));
        assert_eq!(path_of("/sys/fs/cgroup/cpu"), Some("/"));
        assert_eq!((path_of("/sys/fs/cgroup"), is_v2("/sys/fs/cgroup")), (Some("/"), true));
    }

    /// The words of a command as a POSIX shell takes them, if it only has words and single quotes.
    fn words(command: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        let mut letters = command.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\'' => quoted = !quoted,
                '\\' if !quoted => word.extend(letters.next()),
                ' ' if !quoted => words.push(std::mem::take(&mut word)),
                letter => {
                    assert!(quoted || !"$`;|&<>(){}*?[]#~\"\n".contains(letter), "{command}");
                    word.push(letter);
                }
            }
        }
        assert!(!quoted, "{command}");
        words.push(word);
        words
    }

    proptest! {
        #[test]
        fn whatever_a_name_is_a_shell_takes_it_as_it_is(name in any::<String>()) {
            if let Ok(command) = pin(&machine(Some(&name)), Tid(101), &two()) {
                prop_assert!(!command.contains(char::is_control));
                prop_assert_eq!(words(&command), ["virsh", "vcpupin", name.as_str(), "1", "2-3,7"]);
            }
        }
    }
}
