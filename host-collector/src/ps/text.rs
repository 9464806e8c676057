//! The listing as text.

use super::{Listing, disk};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use vslice_core::text::{columns, harmless};
use vslice_core::units::{PcpuId, Tid};
use vslice_host::helper::Helper;
use vslice_host::vm::{IothreadSource, Manager, NO_ACCELERATOR, Vm, VmThread};
use vslice_spec::quantity::counted;
use vslice_trace::host::HostPcpus;
use vslice_trace::thread::ThreadRole;
use vslice_trace::vmm::{Accelerator, Vmm};

/// The listing as a page. Texts that somebody else chose are made harmless for a terminal.
#[must_use]
pub(crate) fn render(listing: &Listing) -> String {
    let mut page = String::new();
    if listing.vms.is_empty() {
        page.push_str("no virtual machine is visible to this user on this host\n");
    }
    for vm in &listing.vms {
        write_vm(&mut page, vm, listing.pcpus.len());
        page.push('\n');
    }
    for warning in &listing.warnings {
        line(&mut page, &format!("warning: {warning}"));
    }
    page
}

fn line(page: &mut String, text: &str) {
    // Writing into memory cannot fail.
    let _ = writeln!(page, "{}", harmless(text).trim_end());
}

fn write_vm(page: &mut String, vm: &Vm, pcpus_count: usize) {
    let vmm = match vm.vmm {
        Vmm::Qemu => "QEMU",
        Vmm::Firecracker => "Firecracker",
        Vmm::CloudHypervisor => "Cloud Hypervisor",
        Vmm::Crosvm => "crosvm",
        Vmm::Kvmtool => "kvmtool",
        Vmm::Other => "other VMM",
    };
    let manager = match vm.manager {
        Some(Manager::LibvirtSystem) => ", qemu:///system",
        Some(Manager::LibvirtSession) => ", qemu:///session",
        None => "",
    };
    let accelerator = vm.accelerator.map_or(NO_ACCELERATOR, Accelerator::name);
    let vcpus = match vm.vcpus().count() {
        0 => "vCPUs unknown".to_owned(),
        count => counted(count as u64, "vCPU"),
    };
    let (label, pid) = (vm.label(), vm.pid);
    line(page, &format!("{label}  {vmm} (process {pid}), {accelerator}, {vcpus}{manager}"));
    let threads = vm.threads.iter().map(|thread| thread_row(thread, pcpus_count));
    let helpers = vm.helpers.iter().map(|helper| helper_row(helper, pcpus_count));
    let rows: Vec<Row> = threads.chain(helpers).collect();
    let widths = rows.iter().map(|row| columns(&row.name));
    let width =
        widths.filter(|width| *width <= NAME_COLUMNS_MAX).fold(NAME_COLUMNS_MIN, usize::max);
    for Row { name, tid, place } in rows {
        let space = " ".repeat(width.saturating_sub(columns(&name)));
        line(page, &format!("  {name}{space} {tid:>8}  {place}"));
    }
    match &vm.disks {
        None => line(page, "  disks: unknown from its command line"),
        Some(disks) => disks.iter().for_each(|disk| line(page, &format!("  {}", disk::text(disk)))),
    }
    for note in &vm.disk_notes {
        line(page, &format!("  disks: {note}"));
    }
    for image in &vm.unnamed_images {
        let why = "which its command line does not name: it came by a snapshot, a mirror or hot-plug, or another \
            image names it";
        line(page, &format!("  disks: QEMU writes to {image}, {why}"));
    }
    for socket in &vm.qmp_sockets {
        line(page, &format!("  QMP at {}", socket.display()));
    }
    match (&vm.agent_socket, vm.has_agent_port) {
        (Some(socket), _) => line(page, &format!("  qemu-ga at {}", socket.display())),
        (None, true) if vm.manager.is_some() => line(page, "  qemu-ga through libvirt"),
        _ => {}
    }
}

/// The names of most threads fit into so many columns.
const NAME_COLUMNS_MIN: usize = 22;

/// An iothread may have any id. A name that is longer than this stands out of its column.
const NAME_COLUMNS_MAX: usize = 48;

/// A thread or a helper.
struct Row {
    name: String,
    tid: Tid,
    /// Where it may run, and what is to be said with it.
    place: String,
}

fn thread_row(thread: &VmThread, pcpus_count: usize) -> Row {
    let name = match &thread.role {
        ThreadRole::Other => thread.comm.clone(),
        role => role.to_string(),
    };
    let doubt = match thread.iothread_from {
        Some(IothreadSource::Order) => " (inferred from the order of the iothreads)",
        _ => "",
    };
    let place = format!("{}{doubt}", allowed_pcpus(&thread.affinity, pcpus_count));
    Row { name: harmless(&name), tid: thread.tid, place }
}

/// The pCPUs on which the kernel lets a thread run.
fn allowed_pcpus(affinity: &[PcpuId], pcpus_count: usize) -> String {
    match affinity {
        [] => "affinity unknown".to_owned(),
        all if all.len() == pcpus_count => "any pCPU".to_owned(),
        some => HostPcpus::of(some).to_string(),
    }
}

/// A process that works for a VM, and where its threads may run.
fn helper_row(helper: &Helper, pcpus_count: usize) -> Row {
    let name = format!("{}: {}", helper.role.name(), helper.comm);
    let is_told = helper.threads.iter().all(|thread| !thread.affinity.is_empty());
    let all: BTreeSet<PcpuId> =
        helper.threads.iter().flat_map(|thread| thread.affinity.iter().copied()).collect();
    let all: Vec<PcpuId> = if is_told { all.into_iter().collect() } else { vec![] };
    let doubt = if helper.sign.is_proof() { "" } else { " (inferred from its command line)" };
    let place = format!("{}{doubt}", allowed_pcpus(&all, pcpus_count));
    Row { name: harmless(&name), tid: helper.pid, place }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ps::Surroundings;
    use std::path::PathBuf;
    use vslice_core::units::VcpuId;
    use vslice_host::disk::{Aio, Bus, DirectSource, Disk, DiskBus, Storage};
    use vslice_host::helper::{HelperRole, HelperSign, HelperThread};

    pub(in crate::ps) fn thread(
        tid: u32,
        vcpu: Option<u16>,
        iothread: Option<&str>,
        affinity: &[u32],
    ) -> VmThread {
        let role = match (vcpu, iothread) {
            (Some(vcpu), _) => ThreadRole::Vcpu(VcpuId(vcpu)),
            (None, Some(id)) => ThreadRole::Iothread(id.to_owned()),
            (None, None) => ThreadRole::Other,
        };
        let affinity = affinity.iter().copied().map(PcpuId).collect();
        VmThread::new(Tid(tid), "call_rcu", role, affinity)
    }

    pub(in crate::ps) fn host(pcpus: &[u32]) -> Surroundings {
        let pcpus = pcpus.iter().copied().map(PcpuId).collect();
        Surroundings { pcpus, ..Surroundings::default() }
    }

    pub(in crate::ps) fn vm(name: &str, pid: u32, threads: Vec<VmThread>) -> Vm {
        Vm {
            pid: Tid(pid),
            accelerator: Some(Accelerator::Kvm),
            threads,
            disks: Some(vec![]),
            ..Vm::named(name)
        }
    }

    #[test]
    fn who_works_for_a_vm_is_listed_with_what_tells_so() {
        let helper = |role, sign, comm: &str| Helper {
            pid: Tid(99),
            comm: comm.to_owned(),
            role,
            sign,
            threads: [PcpuId(0), PcpuId(2)]
                .map(|pcpu| HelperThread {
                    tid: Tid(99),
                    comm: String::new(),
                    affinity: vec![pcpu],
                })
                .to_vec(),
        };
        let helpers = vec![
            helper(HelperRole::Timer, HelperSign::KernelThread, "kvm-pit/10"),
            helper(HelperRole::FileSystem, HelperSign::CommandLine, "virtiofsd"),
        ];
        let page = render(&Listing::new(host(&[0]), vec![Vm { helpers, ..vm("a", 10, vec![]) }]));
        let lines = "  timer: kvm-pit/10            99  pCPU0,2
  file system: virtiofsd       99  pCPU0,2 (inferred from its command line)\n";
        assert!(page.contains(lines), "{page}");
    }

    #[test]
    fn an_accelerator_that_is_not_known_has_its_reason() {
        let vm = Vm { accelerator: None, ..vm("web1", 10, vec![]) };
        let page = render(&Listing::new(host(&[0]), vec![vm]));
        let reason = "accelerator unknown, because neither its vCPU threads nor its open files";
        assert!(page.contains(reason), "{page}");
    }

    #[test]
    fn a_page() {
        let mut one = vm(
            "web\x1b[1",
            10,
            vec![
                thread(11, Some(0), None, &[0, 1, 2, 8]),
                thread(12, None, Some("io0"), &[1]),
                thread(13, None, None, &[0, 1, 2, 3, 8]),
            ],
        );
        let disk = Disk {
            id: Some("d0".to_owned()),
            storage: Storage::file("/x"),
            format: Some("raw".to_owned()),
            is_direct: Some(true),
            is_direct_from: Some(DirectSource::OpenFile),
            aio: Some(Aio::Native),
            iothreads: vec!["io0".to_owned()],
            ..Disk::new(Bus::Known(DiskBus::VirtioBlk))
        };
        let slow = Disk {
            iothreads: vec![],
            ioeventfd: Some(false),
            is_direct_from: Some(DirectSource::CommandLine),
            ..disk.clone()
        };
        let untold = Disk { is_direct: None, is_direct_from: None, ..disk.clone() };
        one.disks = Some(vec![disk, slow, untold]);
        one.agent_socket = Some(PathBuf::from("/ga"));
        let two = Vm { name: None, disks: None, vmm: Vmm::Firecracker, ..vm("", 20, vec![]) };
        assert_eq!(
            render(&Listing::new(host(&[0, 1, 2, 3, 8]), vec![one, two])),
            "web?[1  QEMU (process 10), kvm, 1 vCPU
  vCPU0                        11  pCPU0-2,8
  iothread io0                 12  pCPU1
  call_rcu                     13  any pCPU
  virtio-blk d0 on /x (raw): O_DIRECT, aio native, iothread io0
  virtio-blk d0 on /x (raw): O_DIRECT (by the command line), aio native, no iothread, and \
the vCPU thread itself submits (ioeventfd=off)
  virtio-blk d0 on /x (raw): cache mode unknown (neither told nor seen; \
QEMU's default is the host page cache), aio native, iothread io0
  qemu-ga at /ga

process 20  Firecracker (process 20), kvm, vCPUs unknown
  disks: unknown from its command line

warning: cannot tell which threads of process 20 run its vCPUs: run vslice as root on a host where \
KVM's debugfs is mounted
"
        );
        assert!(render(&Listing::new(host(&[]), vec![])).starts_with("no virtual machine"));
    }

    #[test]
    fn a_long_name_moves_the_whole_column_and_a_very_long_one_none() {
        let page = |names: [&str; 2]| {
            let threads = names.map(|name| thread(12, None, Some(name), &[1]));
            render(&Listing::new(host(&[0, 1]), vec![vm("web", 10, threads.to_vec())]))
        };
        let lines = "  iothread iothread-virtioscsi0       12  pCPU1\n  iothread io1                        12  pCPU1\n";
        assert!(page(["iothread-virtioscsi0", "io1"]).contains(lines));
        let long = page([&"x".repeat(4000), "io1"]);
        assert!(long.contains("  iothread io1                 12  pCPU1\n"), "{long}");
    }

    #[test]
    fn one_vm_is_found_by_name_or_process() {
        let vms = || vec![vm("a", 10, vec![thread(11, Some(0), None, &[0])]), vm("b", 20, vec![])];
        let listing = || Listing::new(host(&[0]), vms());
        for (wanted, pids, warnings_count) in
            [("a", &[10][..], 0), ("20", &[20], 1), ("b", &[20], 1), ("c", &[], 0)]
        {
            let only = listing().only(wanted);
            assert_eq!(only.vms.iter().map(|vm| vm.pid.0).collect::<Vec<_>>(), pids, "{wanted}");
            assert_eq!(only.warnings.len(), warnings_count, "{wanted}: {:?}", only.warnings);
        }
    }
}
