//! The virtual machines of this host, found from outside: `/proc`, their command lines and KVM's
//! debugfs. Nothing is asked of them, so that nothing of them is disturbed.

mod iothreads;
mod recognise;
mod watch;

pub use watch::{Look, VmWatch};

use super::census::{Census, Process};
use super::cgroup::{Hierarchy, VcpuQuota};
use super::disk::Disk;
use super::helper::{self, BackendSocket, Helper, HelperRole};
use super::open_files::text_of_named;
use super::pin::affinity;
use super::procfs::{self, Stopper};
use super::qemu_args::{Iothreads, QemuArgs, SocketPlace, backend_sockets};
use super::running_disks::{self, UnnamedImage};
use super::threads;
use super::tsc::KvmDebugfs;
use super::vmm_args::{self, VmmArgs};
use nix::unistd::Uid;
use recognise::{Signs, exe_name};
use serde::Serialize;
use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vslice_core::text::harmless;
use vslice_core::units::{PcpuId, Tid, VcpuId};
use vslice_trace::thread::ThreadRole;
use vslice_trace::vmm::{Accelerator, Vmm};

/// The thread in which a QEMU emulates all vCPUs by turns (qemu: accel/tcg/tcg-accel-ops-rr.c).
const ROUND_ROBIN: &str = "ALL CPUs/TCG";

/// Who started a VM and holds its monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    /// libvirt of the system, `qemu:///system`.
    LibvirtSystem,
    /// A user's libvirt, `qemu:///session`.
    LibvirtSession,
}

/// A thread of a VMM, and where it may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VmThread {
    /// Its id.
    pub tid: Tid,
    /// Its name.
    pub comm: String,
    /// What it is for.
    pub role: ThreadRole,
    /// The vCPU that it runs, if it runs one.
    pub vcpu: Option<VcpuId>,
    /// The iothread that it is, if it is one.
    pub iothread: Option<String>,
    /// What tells which iothread it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iothread_from: Option<IothreadSource>,
    /// The pCPUs that the kernel lets it run on; empty if the kernel does not say.
    pub affinity: Vec<PcpuId>,
}

/// What tells which iothread a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IothreadSource {
    /// Its name.
    Name,
    /// Inferred: its name is that of others too, and QEMU makes its iothreads in the order of its command line.
    Order,
}

impl VmThread {
    /// A thread with this role.
    #[must_use]
    pub fn new(tid: Tid, comm: &str, role: ThreadRole, affinity: Vec<PcpuId>) -> VmThread {
        let iothread = match &role {
            ThreadRole::Iothread(id) => Some(id.clone()),
            _ => None,
        };
        VmThread {
            tid,
            comm: comm.to_owned(),
            vcpu: role.vcpu(),
            iothread_from: iothread.is_some().then_some(IothreadSource::Name),
            iothread,
            role,
            affinity,
        }
    }

    fn become_iothread(&mut self, id: &str, source: IothreadSource) {
        let id = harmless(id);
        self.role = ThreadRole::Iothread(id.clone());
        (self.iothread, self.iothread_from) = (Some(id), Some(source));
    }
}

/// One virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vm {
    /// Its VMM's process, whose first thread is QEMU's main loop.
    pub pid: Tid,
    /// What runs it.
    pub vmm: Vmm,
    /// Its name, where its command line tells one: QEMU's `-name`, which is libvirt's domain, Firecracker's `--id`,
    /// crosvm's and kvmtool's `--name`.
    pub name: Option<String>,
    /// Who manages it, if that can be seen.
    pub manager: Option<Manager>,
    /// What executes its instructions; `None` if that cannot be seen.
    pub accelerator: Option<Accelerator>,
    /// The process that serves its vsock device, if vslice has started one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_pid: Option<Tid>,
    /// Its threads: vCPUs first, by number.
    pub threads: Vec<VmThread>,
    /// Its iothreads that nothing on its command line refers to, and that have hardly run.
    pub idle_iothreads: Vec<String>,
    /// Who works for it outside of its VMM's process, but for the kernel's threads that are among `threads`.
    pub helpers: Vec<Helper>,
    /// Its disks by the command line; `None` if that does not tell.
    pub disks: Option<Vec<Disk>>,
    /// What the command line leaves open of the disks, as sentences without their ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disk_notes: Vec<String>,
    /// Files that it writes to as disks, and that its command line does not name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unnamed_images: Vec<UnnamedImage>,
    /// Unix sockets that take QMP.
    pub qmp_sockets: Vec<PathBuf>,
    /// The Unix socket of a VMM's own API, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_socket: Option<PathBuf>,
    /// The Unix socket to the guest's qemu-ga.
    pub agent_socket: Option<PathBuf>,
    /// Whether the guest has a port for qemu-ga.
    pub has_agent_port: bool,
    /// The Unix socket behind the guest's port [`LOAD_PORT`](super::qemu_args::LOAD_PORT).
    pub load_socket: Option<PathBuf>,
    /// The CID that its vhost-vsock was started with.
    pub vsock_cid: Option<u32>,
    /// Who keeps its process from running now, if anybody does.
    pub stopper: Option<Stopper>,
    /// The CPU quotas that limit its vCPUs; `None` if its control groups cannot be seen.
    pub quotas: Option<Vec<VcpuQuota>>,
}

impl Vm {
    /// A QEMU of which nothing is seen but its name.
    #[must_use]
    pub fn named(name: &str) -> Vm {
        Vm {
            pid: Tid(std::process::id()),
            vmm: Vmm::Qemu,
            name: Some(name.to_owned()),
            manager: None,
            accelerator: None,
            device_pid: None,
            threads: vec![],
            idle_iothreads: vec![],
            helpers: vec![],
            disks: None,
            disk_notes: vec![],
            unnamed_images: vec![],
            qmp_sockets: vec![],
            api_socket: None,
            agent_socket: None,
            has_agent_port: false,
            load_socket: None,
            vsock_cid: None,
            stopper: None,
            quotas: None,
        }
    }
}

/// `NAME_MAX` of linux/include/uapi/linux/limits.h.
const NAME_LETTERS_MAX: usize = 255;

/// Why a VM's accelerator is not known, where it is not.
pub const NO_ACCELERATOR: &str = "accelerator unknown, because neither its vCPU threads nor its open \
    files nor its command line show it";

impl Vm {
    /// Its threads that run vCPUs.
    pub fn vcpus(&self) -> impl Iterator<Item = &VmThread> {
        self.threads.iter().filter(|thread| thread.vcpu.is_some())
    }

    /// What to do where no thread of it can be told to run a vCPU.
    #[must_use]
    pub fn unseen_vcpus_advice(&self) -> &'static str {
        if self.threads.iter().any(|thread| thread.comm == ROUND_ROBIN) {
            return "one thread runs all of them by turns; start QEMU with -accel tcg,thread=multi";
        }
        match self.vmm {
            Vmm::Qemu => {
                "start QEMU with -name ...,debug-threads=on, or run vslice as root on a host where KVM's debugfs \
                is mounted"
            }
            _ => "run vslice as root on a host where KVM's debugfs is mounted",
        }
    }

    /// Whether a user who says so means it: its name, its process's id, or a QMP socket of its.
    #[must_use]
    pub fn is_called(&self, wanted: &str) -> bool {
        self.name.as_deref() == Some(wanted)
            || self.pid.to_string() == wanted
            || self.qmp_sockets.iter().any(|socket| socket.as_os_str() == wanted)
    }

    /// Whose process it is; `None` if that has ended.
    #[must_use]
    pub fn owner(&self) -> Option<Uid> {
        Some(Uid::from_raw(fs::metadata(format!("/proc/{}", self.pid)).ok()?.uid()))
    }

    /// That nothing of it runs, if somebody has stopped its process, as a sentence without its end.
    #[must_use]
    pub fn stopped_notice(&self) -> Option<String> {
        let (who, until) = match self.stopper? {
            Stopper::Signal => ("a signal (SIGSTOP)", "it is sent SIGCONT"),
            Stopper::Debugger => ("a debugger", "the debugger continues it"),
        };
        let (vm, pid) = (self.label(), self.pid);
        Some(format!("{vm}: its process {pid} is stopped by {who}: none of it runs until {until}"))
    }

    /// What to call it. A name that is longer than a file's can be, as libvirt's domains have them, is not given whole.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => name.chars().take(NAME_LETTERS_MAX).collect(),
            None => format!("process {}", self.pid),
        }
    }
}

/// All VMs that this process may see, by their processes' ids.
#[must_use]
pub fn find_all() -> Vec<Vm> {
    let debugfs = KvmDebugfs::find().ok();
    let census = OnceCell::from(Census::take());
    let known_to_kvm = debugfs.as_ref().map(KvmDebugfs::processes).unwrap_or_default();
    let look = |program: &Process| {
        let debugfs = debugfs.as_ref().filter(|_| known_to_kvm.contains(&program.pid));
        look_among(program, debugfs, Depth::All, &census)
    };
    census.get_or_init(Census::take).programs().filter_map(look).collect()
}

/// The VM that a process runs, if it runs one.
#[must_use]
pub fn look_at(pid: Tid, debugfs: Option<&KvmDebugfs>) -> Option<Vm> {
    look_among(&Process::of(pid)?, debugfs, Depth::All, &OnceCell::new())
}

/// How much of a VM is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Who it is, its threads and helpers.
    Threads,
    /// Its open files and control groups too.
    All,
}

/// The same; all processes are looked at only if it runs one.
fn look_among(
    program: &Process,
    debugfs: Option<&KvmDebugfs>,
    depth: Depth,
    census: &OnceCell<Census>,
) -> Option<Vm> {
    let (pid, words) = (program.pid, &program.words);
    let by_kvm = debugfs.and_then(|debugfs| debugfs.vcpu_tids(pid).ok()).unwrap_or_default();
    let named = threads::list(pid).ok()?;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let signs = Signs {
        files: procfs::kvm_files(pid).ok(),
        by_debugfs: &by_kvm,
        threads: &named,
        exe: exe.as_deref().and_then(Path::to_str).and_then(exe_name),
        words,
    };
    let vmm = signs.vmm()?;
    let args = if vmm == Vmm::Qemu { QemuArgs::parse(words) } else { QemuArgs::default() };
    let read = |path: &Path| text_of_named(&procfs::seen_by(pid, path), CONFIG_BYTES_MAX);
    let other = VmmArgs::parse(vmm, words, read);
    let accelerator = signs.accelerator(vmm, &args.accelerators);
    let census = census.get_or_init(Census::take);
    let iothreads = if vmm == Vmm::Qemu { Iothreads::parse(words) } else { Iothreads::default() };
    let mut threads = threads_of(pid, &by_kvm, &iothreads.ids, census);
    let disks = if vmm == Vmm::Qemu { Some(args.disks) } else { other.disks };
    let disks = disks.map(|disks| with_threads(vmm, disks, &mut threads));
    let is_all = depth == Depth::All;
    let passed = running_disks::passed_through(&args.passed_through);
    let disks =
        disks.filter(|_| is_all).map(|disks| with_open_files(pid, vmm, words, disks, passed));
    let (disks, unnamed_images) = disks.unzip();
    let vcpus = threads.iter().filter_map(|thread| Some((thread.vcpu?, thread.tid)));
    let quotas = is_all.then(|| Hierarchy::of_host().and_then(|groups| groups.quotas_of(vcpus)));
    let socket = |path| procfs::socket_seen_by(pid, &absolute(pid, path));
    Some(Vm {
        pid,
        vmm,
        name: args.name.or(other.name),
        manager: manager_of(words),
        accelerator,
        device_pid: None,
        idle_iothreads: idle(pid, &threads, iothreads.unused),
        helpers: helper::find(pid, &backends_of(pid, vmm, words, other.backends), census),
        threads,
        disk_notes: [args.disk_notes, other.disk_notes].concat(),
        unnamed_images: unnamed_images.unwrap_or_default(),
        disks,
        api_socket: other.api_socket.map(socket),
        qmp_sockets: args.qmp_sockets.into_iter().map(socket).collect(),
        agent_socket: args.agent_socket.map(socket),
        has_agent_port: args.has_agent_port,
        load_socket: args.load_socket.and_then(|place| match place {
            SocketPlace::Path(path) => Some(socket(path)),
            SocketPlace::Fd(fd) => procfs::unix_socket_path(pid, fd),
        }),
        vsock_cid: args.vsock_cid,
        stopper: procfs::stopper(pid),
        quotas: quotas.and_then(Result::ok),
    })
}

/// A configuration of Firecracker has some kilobytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// One that serves a disk that was plugged in later has run for longer.
const HARDLY_RUN: Duration = Duration::from_millis(100);

/// Those of the unused iothreads that have hardly run.
fn idle(pid: Tid, threads: &[VmThread], unused: Vec<String>) -> Vec<String> {
    let has_hardly_run = |id: &String| {
        let thread = threads.iter().find(|thread| thread.iothread.as_ref() == Some(id));
        let run_time = thread.and_then(|thread| procfs::run_time(pid, thread.tid));
        run_time.is_some_and(|run_time| run_time < HARDLY_RUN)
    };
    unused.into_iter().map(|id| harmless(&id)).filter(has_hardly_run).collect()
}

/// Where others serve devices of a VM.
fn backends_of(
    pid: Tid,
    vmm: Vmm,
    words: &[String],
    other: Vec<(PathBuf, HelperRole)>,
) -> Vec<BackendSocket> {
    let other = other.into_iter().map(|(path, role)| (SocketPlace::Path(path), role));
    let places = if vmm == Vmm::Qemu { backend_sockets(words) } else { Vec::new() };
    let place_of = |place| match place {
        SocketPlace::Path(path) => SocketPlace::Path(absolute(pid, path)),
        SocketPlace::Fd(fd) => SocketPlace::Fd(fd),
    };
    let socket = |(place, role)| BackendSocket { place: place_of(place), role };
    places.into_iter().chain(other).map(socket).collect()
}

/// The disks with the threads that serve them, which become iothreads. kvmtool shares a directory as a file system.
fn with_threads(vmm: Vmm, mut disks: Vec<Disk>, threads: &mut [VmThread]) -> Vec<Disk> {
    let names: Vec<String> = threads.iter().map(|thread| thread.comm.clone()).collect();
    vmm_args::note_threads(vmm, &mut disks, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let is_server = |thread: &&mut VmThread| {
        vmm != Vmm::Qemu && disks.iter().any(|disk| disk.iothreads.contains(&thread.comm))
    };
    for thread in threads.iter_mut().filter(is_server) {
        let name = thread.comm.clone();
        thread.become_iothread(&name, IothreadSource::Name);
    }
    disks
}

/// What the kernel says of these disks' files, where this user may see it, with the disks that are passed through; and
/// what a QEMU has open beside them.
fn with_open_files(
    pid: Tid,
    vmm: Vmm,
    words: &[String],
    mut disks: Vec<Disk>,
    passed: Vec<Disk>,
) -> (Vec<Disk>, Vec<UnnamedImage>) {
    let is_directory =
        |disk: &Disk| disk.path().is_some_and(|path| procfs::seen_by(pid, path).is_dir());
    disks.retain(|disk| disk.vmm != Vmm::Kvmtool || !is_directory(disk));
    let unnamed = match vmm {
        Vmm::Qemu => running_disks::note_open_files(pid, words, &mut disks),
        _ => running_disks::note_how_open(pid, &mut disks),
    };
    disks.extend(passed);
    (disks, unnamed)
}

/// A path that may be relative to where a process is. It stays as it is if that cannot be seen.
fn absolute(pid: Tid, path: PathBuf) -> PathBuf {
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        // A path that is absolute replaces what it is joined to.
        Ok(directory) => directory.join(path),
        Err(_) => path,
    }
}

/// libvirt gives its monitor this id; a session keeps its files in a home (libvirt:
/// src/qemu/qemu_conf.c).
fn manager_of(words: &[String]) -> Option<Manager> {
    words.iter().any(|word| word.contains("charmonitor")).then(|| {
        let is_session = |word: &String| {
            ["/.config/libvirt/", "/.cache/libvirt/", "/.local/share/libvirt/"]
                .iter()
                .any(|part| word.contains(part))
        };
        if words.iter().any(is_session) { Manager::LibvirtSession } else { Manager::LibvirtSystem }
    })
}

/// What cannot be listed any more is left out. KVM knows the threads of vCPUs also of a QEMU that does
/// not name them. `ids` are those of its iothreads, in their order.
fn threads_of(
    pid: Tid,
    by_kvm: &[(VcpuId, Tid)],
    ids: &[String],
    census: &Census,
) -> Vec<VmThread> {
    let threads = threads::list_among(pid, census).unwrap_or_default();
    let mut found: Vec<VmThread> = threads
        .into_iter()
        .map(|thread| {
            let by_kvm = by_kvm.iter().find(|(_, tid)| *tid == thread.tid).map(|(vcpu, _)| *vcpu);
            let role = match by_kvm.map_or(thread.role, ThreadRole::Vcpu) {
                ThreadRole::Iothread(id) => ThreadRole::Iothread(harmless(&id)),
                other => other,
            };
            let affinity = affinity(thread.tid).unwrap_or_default();
            VmThread::new(thread.tid, &harmless(&thread.comm), role, affinity)
        })
        .collect();
    iothreads::tell(&mut found, ids);
    found.sort_by_key(|thread| (thread.vcpu.is_none(), thread.vcpu, thread.tid));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_called_by_its_name_as_far_as_that_is_one() {
        assert_eq!(Vm::named("web").label(), "web");
        let long = Vm::named(&"\u{e4}".repeat(100_000));
        assert_eq!(long.label().chars().count(), 255);
        let nameless = Vm { name: None, pid: Tid(7), ..Vm::named("") };
        assert_eq!(nameless.label(), "process 7");
    }

    #[test]
    fn libvirts_vms_are_told_by_their_monitors() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let system = "qemu -chardev socket,id=charmonitor,fd=27 -object file=/var/lib/libvirt/x";
        assert_eq!(manager_of(&words(system)), Some(Manager::LibvirtSystem));
        let session =
            "qemu -chardev socket,id=charmonitor,fd=7 file=/home/a/.config/libvirt/qemu/x";
        assert_eq!(manager_of(&words(session)), Some(Manager::LibvirtSession));
        assert_eq!(manager_of(&words("qemu -chardev socket,id=mon,path=/x")), None);
    }

    #[test]
    fn a_process_that_runs_no_vm_is_none() {
        assert_eq!(look_at(Tid(std::process::id()), None), None);
        assert_eq!(look_at(Tid(u32::MAX), None), None);
    }
}
