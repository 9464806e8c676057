//! What each thread of a virtual machine monitor is for, from its name.
//!
//! QEMU names its threads where it runs with `-name ...,debug-threads=on`, which vslice and libvirt
//! always give; Firecracker, Cloud Hypervisor, crosvm and kvmtool always do. A name has at most 15 bytes.

use crate::census::Census;
use crate::procfs;
use std::io;
use thiserror::Error;
use vslice_core::units::{Tid, VcpuId};
use vslice_trace::thread::ThreadRole;
use vslice_trace::vmm::Accelerator;

/// A thread of a VMM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmmThread {
    /// Its process: the VMM's, or the thread's own if it is the kernel's.
    pub pid: Tid,
    /// Its id.
    pub tid: Tid,
    /// Its name.
    pub comm: String,
    /// What it is for.
    pub role: ThreadRole,
}

/// Why the threads of a process could not be listed.
#[derive(Debug, Error)]
#[error("the threads of process {pid} cannot be listed: {source}")]
pub struct ThreadsError {
    /// The process.
    pub pid: Tid,
    /// Why.
    pub source: io::Error,
}

/// The threads of a process, in order of their ids. Those that end meanwhile are left out.
///
/// # Errors
/// [`ThreadsError`], above all if there is no such process.
pub fn list(pid: Tid) -> Result<Vec<VmmThread>, ThreadsError> {
    let tids = procfs::tids(pid).map_err(|source| ThreadsError { pid, source })?;
    Ok(tids
        .into_iter()
        .filter_map(|tid| {
            let comm = procfs::comm(pid, tid).ok()?;
            let role = role(pid, tid, &comm);
            Some(VmmThread { pid, tid, comm, role })
        })
        .collect())
}

/// The threads of a process and those that the kernel runs for its vhost devices.
///
/// Before Linux 6.4 the latter are processes of their own, to be found by their names among all the
/// host's (linux: drivers/vhost/vhost.c, `vhost_dev_set_owner`). That takes milliseconds on a large
/// host, and they are there from the start of the VMM, so it is not for every look.
///
/// # Errors
/// As [`list`].
pub fn list_with_kernel(pid: Tid) -> Result<Vec<VmmThread>, ThreadsError> {
    list_among(pid, &Census::take())
}

/// The same, where all processes were read already.
pub(crate) fn list_among(pid: Tid, census: &Census) -> Result<Vec<VmmThread>, ThreadsError> {
    let mut threads = list(pid)?;
    // Each has the id of the thread that opened its device.
    let names: Vec<String> = threads.iter().map(|thread| format!("vhost-{}", thread.tid)).collect();
    // Any process may take such a name, and should not be pinned for it.
    let vhosts = census.kernel_threads().filter(|thread| names.contains(&thread.comm));
    threads.extend(vhosts.map(|own| VmmThread {
        pid: own.pid,
        tid: own.pid,
        comm: own.comm.clone(),
        role: ThreadRole::Vhost,
    }));
    Ok(threads)
}

/// What a thread with this id and name is for.
#[must_use]
pub fn role(pid: Tid, tid: Tid, comm: &str) -> ThreadRole {
    if tid == pid {
        return ThreadRole::MainLoop;
    }
    if let Some(vcpu) = vcpu_of(comm) {
        return ThreadRole::Vcpu(vcpu);
    }
    if let Some(id) = comm.strip_prefix("IO ") {
        // The iothread of the out-of-band monitor serves no device.
        return if id == "mon_iothread" {
            ThreadRole::Other
        } else {
            ThreadRole::Iothread(id.to_owned())
        };
    }
    // Cloud Hypervisor: `_disk0_q0`; crosvm: `virtio_blk`; kvmtool: `virtio-blk-io`.
    let is_of_queue = comm.starts_with("_disk") && comm.contains("_q");
    if is_of_queue || matches!(comm, "virtio_blk" | "virtio-blk-io") {
        return ThreadRole::Iothread(comm.to_owned());
    }
    match comm {
        "worker" => ThreadRole::Worker,
        // The kernel's, for io_uring: it does what would block (linux: io_uring/io-wq.c).
        _ if comm.strip_prefix("iou-wrk-").is_some_and(is_number) => ThreadRole::Worker,
        _ if comm.strip_prefix("vhost-").is_some_and(is_number) => ThreadRole::Vhost,
        _ => ThreadRole::Other,
    }
}

/// The vCPU in `CPU 3/KVM`, `CPU 3/TCG` (QEMU), `fc_vcpu 3` (Firecracker), `vcpu3` (Cloud
/// Hypervisor), `crosvm_vcpu3` and `kvm-vcpu-3` (kvmtool). QEMU's `ALL CPUs/TCG` runs all of them by turns: it
/// is none's.
fn vcpu_of(comm: &str) -> Option<VcpuId> {
    let of_qemu = || {
        let (digits, accelerator) = comm.strip_prefix("CPU ")?.split_once('/')?;
        Accelerator::of_name(accelerator).map(|_| digits)
    };
    let digits = of_qemu()
        .or_else(|| comm.strip_prefix("kvm-vcpu-"))
        .or_else(|| comm.strip_prefix("fc_vcpu "))
        .or_else(|| comm.strip_prefix("vcpu"))
        .or_else(|| comm.strip_prefix("crosvm_vcpu"))?;
    is_number(digits).then(|| digits.parse().ok().map(VcpuId))?
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_threads_say_what_they_are_for() {
        let iothread = |id: &str| ThreadRole::Iothread(id.to_owned());
        let table = [
            ("CPU 0/KVM", ThreadRole::Vcpu(VcpuId(0))),
            ("CPU 12/TCG", ThreadRole::Vcpu(VcpuId(12))),
            ("fc_vcpu 3", ThreadRole::Vcpu(VcpuId(3))),
            ("vcpu4", ThreadRole::Vcpu(VcpuId(4))),
            ("crosvm_vcpu5", ThreadRole::Vcpu(VcpuId(5))),
            ("kvm-vcpu-6", ThreadRole::Vcpu(VcpuId(6))),
            ("CPU 7/MSHV", ThreadRole::Vcpu(VcpuId(7))),
            ("CPU 0/DUMMY", ThreadRole::Other),
            ("virtio-blk-io", iothread("virtio-blk-io")),
            ("IO io0", iothread("io0")),
            ("IO iothread1", iothread("iothread1")),
            ("_disk0_q0", iothread("_disk0_q0")),
            ("virtio_blk", iothread("virtio_blk")),
            ("worker", ThreadRole::Worker),
            ("vhost-4242", ThreadRole::Vhost),
            ("iou-wrk-4242", ThreadRole::Worker),
            ("iou-wrk-", ThreadRole::Other),
            ("iou-sqp-4242", ThreadRole::Other),
            ("IO mon_iothread", ThreadRole::Other),
            ("ALL CPUs/TCG", ThreadRole::Other),
            ("CPU x/KVM", ThreadRole::Other),
            ("CPU /KVM", ThreadRole::Other),
            ("CPU +1/KVM", ThreadRole::Other),
            ("vcpu", ThreadRole::Other),
            ("vhost-", ThreadRole::Other),
            ("call_rcu", ThreadRole::Other),
            ("kvm-nx-lpage-re", ThreadRole::Other),
            ("qemu-system-x86", ThreadRole::Other),
        ];
        for (comm, expected) in table {
            assert_eq!(role(Tid(100), Tid(101), comm), expected, "{comm}");
        }
        assert_eq!(role(Tid(100), Tid(100), "qemu-system-x86"), ThreadRole::MainLoop);
    }

    #[test]
    fn the_threads_of_this_process_are_listed_by_their_names() {
        let (report, reported) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("CPU 7/TCG".to_owned())
            .spawn(move || {
                report.send(nix::unistd::gettid()).expect("the test waits for it");
                let _ = released.recv();
            })
            .expect("a thread");
        let tid =
            Tid(u32::try_from(reported.recv().expect("it began").as_raw()).expect("positive"));
        let pid = Tid(std::process::id());
        let threads = list(pid).expect("its own threads");
        drop(release);
        thread.join().expect("it ends");
        let found = threads.iter().find(|thread| thread.tid == tid).expect("it is listed");
        assert_eq!(found.role, ThreadRole::Vcpu(VcpuId(7)));
        assert!(threads.iter().any(|thread| thread.role == ThreadRole::MainLoop));
    }

    #[test]
    fn nobody_becomes_a_vhost_thread_by_its_name() {
        let own = Tid(std::process::id());
        let mut impostor = std::process::Command::new("/bin/sh")
            .args(["-c", "printf vhost-$PPID > /proc/$$/comm; echo named; read end"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut said = [0; 6];
        let out = impostor.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(out, &mut said).expect("it says that it has the name");
        let pid = Tid(impostor.id());
        let comm = procfs::comm(pid, pid).expect("it waits");
        let threads = list_with_kernel(own).expect("its own threads");
        drop(impostor.stdin.take());
        impostor.wait().expect("it ends");
        assert_eq!(comm, format!("vhost-{own}"));
        assert!(threads.iter().any(|thread| thread.tid == own));
        assert!(threads.iter().all(|thread| thread.tid != pid));
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let message = list(Tid(u32::MAX)).expect_err("no such process").to_string();
        assert!(message.starts_with("the threads of process 4294967295 cannot be listed"));
    }
}
