//! Who works for a VM outside of its VMM's process: kernel threads that KVM starts for it, and the processes
//! that serve its devices over Unix sockets (vhost-user backends, virtiofsd, passt, swtpm, qemu-nbd).

mod peers;

use crate::census::{Census, Process};
use crate::pin::affinity;
use crate::procfs;
use crate::qemu_args::SocketPlace;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use vslice_core::text::harmless;
use vslice_core::units::{PcpuId, Tid};

/// What somebody does for a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HelperRole {
    /// KVM's timer (i8254), `kvm-pit/PID`.
    Timer,
    /// KVM's recovery of huge pages, `kvm-nx-lpage-recovery-PID`.
    PageRecovery,
    /// It serves a disk: vhost-user-blk, vhost-user-scsi, NBD.
    Disk,
    /// It serves a directory: virtiofsd.
    FileSystem,
    /// It serves a network card: passt, Open vSwitch.
    Network,
    /// It is a TPM: swtpm.
    Tpm,
    /// It serves another device.
    Device,
}

/// What tells that somebody works for a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HelperSign {
    /// Proven: a kernel thread that carries the id of the VMM.
    KernelThread,
    /// Proven: it holds the other end of a socket of the VMM.
    Socket,
    /// Proven: the VMM started it.
    Child,
    /// Inferred: its command line has the path of a socket that the VMM's has too.
    CommandLine,
}

impl HelperRole {
    /// What it serves, in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HelperRole::Timer => "timer",
            HelperRole::PageRecovery => "page recovery",
            HelperRole::Disk => "disk",
            HelperRole::FileSystem => "file system",
            HelperRole::Network => "network",
            HelperRole::Tpm => "TPM",
            HelperRole::Device => "device",
        }
    }
}

impl HelperSign {
    /// Whether it proves it.
    #[must_use]
    pub fn is_proof(self) -> bool {
        self != HelperSign::CommandLine
    }
}

/// A process, or a thread of the kernel, that works for a VM. Threads of the VMM's own process
/// are not helpers, nor are the kernel's for vhost: a VM has them among its threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Helper {
    /// Its process; a kernel thread is one by itself.
    pub pid: Tid,
    /// Its name.
    pub comm: String,
    /// What it does.
    pub role: HelperRole,
    /// What tells so.
    pub sign: HelperSign,
    /// Its threads with the pCPUs that the kernel lets them run on.
    pub threads: Vec<HelperThread>,
}

/// A thread of a helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HelperThread {
    /// Its id.
    pub tid: Tid,
    /// Its name.
    pub comm: String,
    /// The pCPUs that the kernel lets it run on; empty if the kernel does not say.
    pub affinity: Vec<PcpuId>,
}

/// A socket at whose other end somebody serves a device of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendSocket {
    /// Where it is: an absolute path, or a file descriptor of the VMM.
    pub place: SocketPlace,
    /// What is served there.
    pub role: HelperRole,
}

/// Those who work for the VM of this VMM, each once, by what tells it best.
pub(crate) fn find(vmm: Tid, sockets: &[BackendSocket], census: &Census) -> Vec<Helper> {
    let ids = VmmIds::of(vmm, census);
    let by_kernel = census.kernel_threads().filter_map(|thread| {
        Some((thread, kernel_role(&thread.comm, &ids)?, HelperSign::KernelThread))
    });
    let programs: Vec<&Process> = census.programs().filter(|program| program.pid != vmm).collect();
    let by_socket = peers::find(vmm, sockets, &programs, census);
    let by_parent = descendants(vmm, &programs)
        .into_iter()
        .map(|program| (program, role_of_name(&program.comm), HelperSign::Child));
    let paths: BTreeMap<PathBuf, HelperRole> = sockets
        .iter()
        .filter_map(|socket| Some((path_of(vmm, &socket.place)?, socket.role)))
        .collect();
    let by_line = programs.iter().filter_map(|program| {
        Some((*program, socket_of(program, &paths)?, HelperSign::CommandLine))
    });
    let mut seen = BTreeSet::new();
    let all = by_kernel.chain(by_socket).chain(by_parent).chain(by_line);
    let once = all.filter(|(process, ..)| seen.insert(process.pid));
    once.map(|(process, role, sign)| helper(process, role, sign)).collect()
}

/// The processes that a VMM started, and those that they did: a sandboxed device of crosvm, a passt of QEMU's.
fn descendants<'a>(vmm: Tid, programs: &[&'a Process]) -> Vec<&'a Process> {
    let mut children: BTreeMap<Tid, Vec<&'a Process>> = BTreeMap::new();
    for program in programs {
        children.entry(program.parent).or_default().push(program);
    }
    // Each is taken out once, so that what was read while ids changed hands has an end too.
    let mut found = children.remove(&vmm).unwrap_or_default();
    let mut place = 0;
    while let Some(parent) = found.get(place) {
        let next = children.remove(&parent.pid).unwrap_or_default();
        found.extend(next);
        place += 1;
    }
    found
}

/// What a process of a VMM's own serves, by its name: crosvm's are called after their devices, `pcivirtio-block`.
fn role_of_name(name: &str) -> HelperRole {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if has(&["block", "blk", "nbd"]) {
        HelperRole::Disk
    } else if has(&["net", "passt", "slirp"]) {
        HelperRole::Network
    } else if has(&["virtiofs", "-fs", "9p"]) {
        HelperRole::FileSystem
    } else if has(&["tpm"]) {
        HelperRole::Tpm
    } else {
        HelperRole::Device
    }
}

fn path_of(vmm: Tid, place: &SocketPlace) -> Option<PathBuf> {
    match place {
        SocketPlace::Path(path) => Some(path.clone()),
        SocketPlace::Fd(fd) => procfs::unix_socket_path(vmm, *fd),
    }
}

fn helper(process: &Process, role: HelperRole, sign: HelperSign) -> Helper {
    let tids = if process.is_kernel { vec![process.pid] } else { tids_of(process.pid) };
    let threads = tids.into_iter().filter_map(|tid| {
        let comm = harmless(&procfs::comm(process.pid, tid).ok()?);
        Some(HelperThread { tid, comm, affinity: affinity(tid).unwrap_or_default() })
    });
    let (pid, threads) = (process.pid, threads.collect());
    Helper { pid, comm: harmless(&process.comm), role, sign, threads }
}

fn tids_of(pid: Tid) -> Vec<Tid> {
    procfs::tids(pid).unwrap_or_default()
}

/// The ids by which the kernel's threads may be called after a VMM.
struct VmmIds {
    /// Its threads: the recovery of pages is called after the one that made the VM (linux 6.1:
    /// virt/kvm/kvm_main.c, `task_pid_nr(current)`).
    tids: Vec<Tid>,
    /// Its process as its own PID namespace counts it (arch/x86/kvm/i8254.c, `pid_vnr`). `None` if several
    /// threads are called after such a process: VMMs in two containers may both be process 7.
    pid_inside: Option<Tid>,
}

impl VmmIds {
    fn of(vmm: Tid, census: &Census) -> VmmIds {
        let is_unique = |pid: &Tid| {
            let timer = format!("{TIMER_PREFIX}{pid}");
            census.kernel_threads().filter(|thread| thread.comm == timer).count() == 1
        };
        VmmIds { tids: tids_of(vmm), pid_inside: procfs::pid_inside(vmm).filter(is_unique) }
    }
}

const TIMER_PREFIX: &str = "kvm-pit/";

/// What a kernel thread of this name does for the VMM with these ids.
fn kernel_role(comm: &str, ids: &VmmIds) -> Option<HelperRole> {
    let after = |prefix: &str| comm.strip_prefix(prefix)?.parse().ok().map(Tid);
    let is_thread = |tid: Option<Tid>| tid.is_some_and(|tid| ids.tids.contains(&tid));
    if after(TIMER_PREFIX).is_some_and(|pid| ids.pid_inside == Some(pid)) {
        Some(HelperRole::Timer)
    } else if is_thread(after("kvm-nx-lpage-recovery-")) {
        Some(HelperRole::PageRecovery)
    } else {
        None
    }
}

/// Programs that serve devices. A path on the command line of another one (a shell, `sudo`, `socat`) does not
/// make it one of them.
const SERVERS: [&str; 14] = [
    "virtiofsd",
    "swtpm",
    "passt",
    "qemu-storage-daemon",
    "qemu-nbd",
    "nbdkit",
    "vhost-user-",
    "vhost-device-",
    "vhost_user_",
    "vhost",
    "spdk_tgt",
    "nvmf_tgt",
    "slirp-helper",
    "crosvm",
];

/// What a program serves whose command line has the path of one of these sockets.
fn socket_of(program: &Process, sockets: &BTreeMap<PathBuf, HelperRole>) -> Option<HelperRole> {
    let name = Path::new(program.words.first()?).file_name()?.to_str()?;
    SERVERS.iter().find(|server| name.starts_with(**server))?;
    let mut pieces = program.words.iter().skip(1).flat_map(|word| word.split([',', '=', '"']));
    // `unix:/path` of NBD.
    let role = |piece: &str| sockets.get(Path::new(piece.strip_prefix("unix:").unwrap_or(piece)));
    pieces.find_map(role).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(line: &str) -> Process {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Process { pid: Tid(9), parent: Tid(1), comm: "x".to_owned(), is_kernel: false, words }
    }

    #[test]
    fn a_kernel_thread_carries_the_id_of_its_vmm() {
        let ids = VmmIds { tids: vec![Tid(70), Tid(71)], pid_inside: Some(Tid(7)) };
        for (comm, role) in [
            ("kvm-pit/7", Some(HelperRole::Timer)),
            ("kvm-pit/70", None),
            ("vhost-70", None),
            ("kvm-nx-lpage-recovery-71", Some(HelperRole::PageRecovery)),
            ("kvm-nx-lpage-re", None),
            ("kworker/70", None),
        ] {
            assert_eq!(kernel_role(comm, &ids), role, "{comm}");
        }
        let several = VmmIds { tids: vec![Tid(70)], pid_inside: None };
        assert_eq!(kernel_role("kvm-pit/7", &several), None, "which of two is not known");
    }

    #[test]
    fn who_a_vmm_started_works_for_it() {
        let process = |pid, parent, comm: &str| Process {
            pid: Tid(pid),
            parent: Tid(parent),
            comm: comm.to_owned(),
            is_kernel: false,
            words: vec![],
        };
        let all = [
            process(5, 9, "minijail-init"),
            process(6, 5, "pcivirtio-block"),
            process(7, 1, "bash"),
            process(9, 7, "crosvm"),
            process(12, 9, "pcivirtio-net"),
        ];
        let programs: Vec<&Process> = all.iter().collect();
        let found: Vec<u32> =
            descendants(Tid(9), &programs).iter().map(|child| child.pid.0).collect();
        assert_eq!(found, [5, 12, 6]);
        for (name, role) in [
            ("pcivirtio-block", HelperRole::Disk),
            ("pcivirtio-net", HelperRole::Network),
            ("passt.avx2", HelperRole::Network),
            ("pcivirtio-fs", HelperRole::FileSystem),
            ("pcivirtio-rng", HelperRole::Device),
        ] {
            assert_eq!(role_of_name(name), role, "{name}");
        }
    }

    #[test]
    fn a_server_is_inferred_from_the_path_of_its_socket() {
        let sockets = [("/run/f.sock", HelperRole::FileSystem), ("/t", HelperRole::Tpm)];
        let sockets = sockets.map(|(path, role)| (PathBuf::from(path), role)).into();
        for (line, role) in [
            ("/usr/libexec/virtiofsd --socket-path=/run/f.sock -o x", Some(HelperRole::FileSystem)),
            ("swtpm socket --ctrl type=unixio,path=/t,mode=0600", Some(HelperRole::Tpm)),
            ("swtpm socket --ctrl type=unixio,path=/t2", None),
            ("sudo virtiofsd --socket-path=/run/f.sock", None),
            ("virtiofsd --fd=27", None),
            ("vim /t", None),
        ] {
            assert_eq!(socket_of(&program(line), &sockets), role, "{line}");
        }
    }
}
