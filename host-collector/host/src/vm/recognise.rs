//! How a process is recognised as a VM, and its VMM told: by what the kernel shows of it, then by its threads, the
//! file that it runs and the name that it has.

use crate::procfs::KvmFiles;
use crate::threads::VmmThread;
use vslice_core::units::{Tid, VcpuId};
use vslice_trace::vmm::{Accelerator, Vmm};

/// What is seen of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs<'a> {
    /// Its files of a hypervisor; `None` if this user may not see its files.
    pub files: Option<KvmFiles>,
    /// Its vCPUs in KVM's debugfs.
    pub by_debugfs: &'a [(VcpuId, Tid)],
    pub threads: &'a [VmmThread],
    /// The name of the file that it runs; `None` if this user may not see it.
    pub exe: Option<&'a str>,
    /// Its command line, which it may have changed.
    pub words: &'a [String],
}

/// How well a program's name tells its VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// Nothing else is called so.
    Of(Vmm),
    /// Other programs are called so too.
    Perhaps(Vmm),
    Unknown,
}

impl Signs<'_> {
    /// The VMM, if the process runs a VM.
    pub(super) fn vmm(&self) -> Option<Vmm> {
        let is_known_to_kvm =
            !self.by_debugfs.is_empty() || self.files.is_some_and(|files| files.vcpus_count > 0);
        let has_vcpu_thread = self.threads.iter().any(|thread| thread.role.vcpu().is_some());
        let by_threads = vmm_of_threads(self.threads);
        match self.name() {
            // Its vCPUs' threads need not have names of their own.
            Name::Of(Vmm::Qemu) if !self.has_no_machine() => Some(Vmm::Qemu),
            // The others name them: without one they have no guest yet, or are only asked for their version.
            Name::Of(vmm) if has_vcpu_thread || is_known_to_kvm => Some(vmm),
            Name::Perhaps(vmm) if is_known_to_kvm || by_threads == Some(vmm) => Some(vmm),
            Name::Of(_) => None,
            _ => by_threads.or(is_known_to_kvm.then_some(Vmm::Other)),
        }
    }

    /// The file that it runs tells more than what it calls itself.
    fn name(&self) -> Name {
        let of_exe = self.exe.map_or(Name::Unknown, vmm_of_name);
        let called = self.words.first().and_then(|word| word.rsplit('/').next());
        let of_word = called.map_or(Name::Unknown, vmm_of_name);
        match (of_exe, of_word) {
            (Name::Of(_), _) | (_, Name::Unknown) => of_exe,
            _ => of_word,
        }
    }

    /// A QEMU of `-machine none` has no guest: libvirt starts such to ask what it can do (libvirt:
    /// src/qemu/qemu_process.c, `qemuProcessQMPLaunch`).
    fn has_no_machine(&self) -> bool {
        let is_machine = |word: &str| matches!(word.trim_start_matches('-'), "machine" | "M");
        self.words.windows(2).any(|pair| {
            pair[0].starts_with('-')
                && is_machine(&pair[0])
                && matches!(pair[1].split(',').next(), Some("none" | "type=none"))
        })
    }

    /// The accelerator that a VM of this VMM has: by the names of the threads, else by what is open. What a
    /// command line asks for a QEMU need not have got: `asked_for` tells what is left only, once it is seen that it
    /// is not KVM.
    pub(super) fn accelerator(&self, vmm: Vmm, asked_for: &[String]) -> Option<Accelerator> {
        let mut by_names = self.threads.iter().filter_map(|thread| {
            let name = &thread.comm;
            let vcpu = name.strip_prefix("CPU ").or_else(|| name.strip_prefix("ALL CPUs"))?;
            let (_, said) = vcpu.split_once('/')?;
            // `CPU 0/DUMMY` is none (qemu: accel/dummy-cpus.c).
            Accelerator::of_name(said)
        });
        if let Some(named) = by_names.next().filter(|_| vmm == Vmm::Qemu) {
            return Some(named);
        }
        if !self.by_debugfs.is_empty() || self.files.is_some_and(|files| files.has_vm) {
            return Some(Accelerator::Kvm);
        }
        if self.files.is_some_and(|files| files.has_mshv) {
            return Some(Accelerator::Mshv);
        }
        match (vmm, self.files) {
            (Vmm::Qemu, Some(_)) => {
                let mut left = asked_for.iter().filter(|accelerator| *accelerator != "kvm");
                let is_tcg = |accelerator: &String| accelerator == "tcg";
                (left.next().is_some_and(is_tcg) && left.all(is_tcg)).then_some(Accelerator::Tcg)
            }
            // They are made for KVM alone; the others are built for other hypervisors too.
            (Vmm::Firecracker | Vmm::Kvmtool, None) => Some(Accelerator::Kvm),
            _ => None,
        }
    }
}

/// The VMM whose names these threads have. `vcpu0` may be anybody's, so that Cloud Hypervisor's needs another of its
/// threads beside it, and `fc_vcpu 0` is also libkrun's, which has no API.
fn vmm_of_threads(threads: &[VmmThread]) -> Option<Vmm> {
    let names = || threads.iter().map(|thread| thread.comm.as_str());
    let has = |wanted: &str| names().any(|name| name == wanted);
    let has_vcpu = |prefix: &str| {
        let mut vcpus = threads.iter().filter(|thread| thread.role.vcpu().is_some());
        vcpus.any(|thread| thread.comm.starts_with(prefix))
    };
    let is_of_cloud_hypervisor =
        |name: &str| matches!(name, "vmm" | "vmm_signal_handler") || name.starts_with("_disk");
    if has_vcpu("CPU ") || has(super::ROUND_ROBIN) {
        Some(Vmm::Qemu)
    } else if has_vcpu("crosvm_vcpu") {
        Some(Vmm::Crosvm)
    } else if has_vcpu("kvm-vcpu-") {
        Some(Vmm::Kvmtool)
    } else if has_vcpu("fc_vcpu ") && has("fc_api") {
        Some(Vmm::Firecracker)
    } else if has_vcpu("vcpu") && names().any(is_of_cloud_hypervisor) {
        Some(Vmm::CloudHypervisor)
    } else {
        None
    }
}

/// The VMM that a program of this name is. Distributions and users call QEMU `qemu-system-ARCH`,
/// `qemu-FLAVOUR-system-ARCH`, `qemu-kvm`, `kvm`; others put the version after the name. `qemu-x86_64` runs no VM.
fn vmm_of_name(name: &str) -> Name {
    // As nixpkgs wraps a program (`wrapProgram`).
    let wrapped = name.strip_prefix('.').and_then(|name| name.strip_suffix("-wrapped"));
    let name = wrapped.unwrap_or(name);
    let is_system = |rest: &str| rest.starts_with("system-") || rest.contains("-system-");
    let after = |prefix: &str| {
        let rest = name.strip_prefix(prefix)?;
        // `crosvm-0.1`, not `crosvmctl`.
        let is_end = !rest.starts_with(|letter: char| letter.is_ascii_alphabetic());
        is_end.then_some(rest)
    };
    match name {
        "kvm" | "kvm-spice" | "qemu-kvm" | "qemu-kvm-ev" | "qemu-kvm-rhev" => {
            return Name::Of(Vmm::Qemu);
        }
        _ if name.strip_prefix("qemu-").is_some_and(is_system) => return Name::Of(Vmm::Qemu),
        // VMMs whose threads are called like those of another one.
        _ if ["stratovirt", "krun", "muvm", "crun"].iter().any(|known| after(known).is_some()) => {
            return Name::Of(Vmm::Other);
        }
        _ => {}
    }
    // `kvm-ok`, `kvm_stat`, `qemu-kvm-helper` and `firecracker-containerd` begin alike.
    let table = [
        ("qemu-kvm", Vmm::Qemu),
        ("kvm", Vmm::Qemu),
        ("firecracker", Vmm::Firecracker),
        ("cloud-hypervisor", Vmm::CloudHypervisor),
        ("crosvm", Vmm::Crosvm),
        ("lkvm", Vmm::Kvmtool),
    ];
    match table.into_iter().find(|(prefix, _)| after(prefix).is_some()) {
        Some((_, Vmm::Qemu)) => Name::Perhaps(Vmm::Qemu),
        Some((_, vmm)) => Name::Of(vmm),
        None => Name::Unknown,
    }
}

/// The name of the file that `/proc/PID/exe` leads to. After an update of its package the file is gone: the kernel
/// says so behind its path (linux: fs/d_path.c).
pub(super) fn exe_name(link: &str) -> Option<&str> {
    link.strip_suffix(" (deleted)").unwrap_or(link).rsplit('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::role;

    /// Those of a process 1, the names separated by semicolons.
    fn threads(names: &str) -> Vec<VmmThread> {
        let named = names.split(';').zip(2..).map(|(comm, tid)| VmmThread {
            pid: Tid(1),
            tid: Tid(tid),
            comm: comm.to_owned(),
            role: role(Tid(1), Tid(tid), comm),
        });
        named.collect()
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    const UNSEEN: Option<KvmFiles> = None;
    const NO_VM: Option<KvmFiles> =
        Some(KvmFiles { has_vm: false, vcpus_count: 0, has_mshv: false });
    const A_VM: Option<KvmFiles> = Some(KvmFiles { has_vm: true, vcpus_count: 2, has_mshv: false });

    fn vmm(line: &str, exe: Option<&str>, names: &str, files: Option<KvmFiles>) -> Option<Vmm> {
        let (words, threads) = (words(line), threads(names));
        let exe = exe.and_then(exe_name);
        Signs { files, by_debugfs: &[], threads: &threads, exe, words: &words }.vmm()
    }

    #[test]
    fn programs_are_known_by_their_names() {
        for (program, name) in [
            ("qemu-system-x86_64", Name::Of(Vmm::Qemu)),
            ("qemu-system-x86_64-spice", Name::Of(Vmm::Qemu)),
            ("qemu-vanilla-system-x86_64", Name::Of(Vmm::Qemu)),
            (".qemu-system-x86_64-wrapped", Name::Of(Vmm::Qemu)),
            ("qemu-kvm", Name::Of(Vmm::Qemu)),
            ("qemu-kvm-ev", Name::Of(Vmm::Qemu)),
            ("qemu-kvm;5f3a91", Name::Perhaps(Vmm::Qemu)),
            ("kvm-spice", Name::Of(Vmm::Qemu)),
            ("kvm", Name::Of(Vmm::Qemu)),
            ("kvm-ok", Name::Perhaps(Vmm::Qemu)),
            ("kvm_stat", Name::Perhaps(Vmm::Qemu)),
            ("kvmtool", Name::Unknown),
            ("qemu-img", Name::Unknown),
            ("qemu-x86_64", Name::Unknown),
            ("qemu-ga", Name::Unknown),
            ("firecracker-v1.5.0-x86_64", Name::Of(Vmm::Firecracker)),
            ("cloud-hypervisor-static", Name::Of(Vmm::CloudHypervisor)),
            ("crosvm", Name::Of(Vmm::Crosvm)),
            ("crosvmctl", Name::Unknown),
            ("lkvm", Name::Of(Vmm::Kvmtool)),
            ("lkvm-static", Name::Of(Vmm::Kvmtool)),
            ("stratovirt", Name::Of(Vmm::Other)),
            ("", Name::Unknown),
        ] {
            assert_eq!(vmm_of_name(program), name, "{program}");
        }
    }

    #[test]
    fn a_vm_is_told_by_the_kernel_then_by_threads_then_by_names() {
        let qemu = "qemu-system-x86_64 -m 1";
        let none = Some("/opt/a");
        for (line, exe, names, files, told) in [
            (qemu, Some("/usr/bin/qemu-system-x86_64"), "", UNSEEN, Some(Vmm::Qemu)),
            // Its package was updated, and it calls itself as it wants.
            ("vm7", Some("/usr/bin/qemu-system-x86_64 (deleted)"), "", UNSEEN, Some(Vmm::Qemu)),
            ("vm7", Some("/usr/libexec/qemu-kvm (deleted)"), "", UNSEEN, Some(Vmm::Qemu)),
            ("", Some("/x/.qemu-system-x86_64-wrapped"), "", UNSEEN, Some(Vmm::Qemu)),
            // Started through the loader, or with nothing to be seen but its threads.
            (qemu, Some("/lib64/ld-linux-x86-64.so.2"), "", NO_VM, Some(Vmm::Qemu)),
            ("a", none, "CPU 0/KVM", UNSEEN, Some(Vmm::Qemu)),
            ("a", none, "ALL CPUs/TCG", UNSEEN, Some(Vmm::Qemu)),
            ("a", none, "CPU 0/MSHV", NO_VM, Some(Vmm::Qemu)),
            ("a", none, "crosvm_vcpu0", UNSEEN, Some(Vmm::Crosvm)),
            ("a", none, "kvm-vcpu-0", UNSEEN, Some(Vmm::Kvmtool)),
            ("a", none, "vcpu0;_disk0_q0", UNSEEN, Some(Vmm::CloudHypervisor)),
            ("a", none, "fc_vcpu 0;fc_api", UNSEEN, Some(Vmm::Firecracker)),
            // A VMM that nobody knows, and what only looks like one.
            ("a", none, "vcpu0", A_VM, Some(Vmm::Other)),
            ("a", none, "", A_VM, Some(Vmm::Other)),
            ("a", none, "vcpu0", NO_VM, None),
            ("a", none, "fc_vcpu 0", UNSEEN, None),
            ("a", none, "", UNSEEN, None),
            ("stratovirt", Some("/usr/bin/stratovirt"), "CPU 0/KVM", A_VM, Some(Vmm::Other)),
            // Their names begin like a VMM's.
            ("kvm-ok", Some("/usr/sbin/kvm-ok"), "", NO_VM, None),
            ("kvm9 -m 1", none, "CPU 0/KVM", UNSEEN, Some(Vmm::Qemu)),
            ("kvm9 -m 1", none, "", A_VM, Some(Vmm::Qemu)),
            // Without a guest.
            ("firecracker --version", none, "", NO_VM, None),
            ("qemu-kvm -S -machine none,accel=kvm:tcg", none, "", NO_VM, None),
            ("qemu-kvm -M none", none, "", NO_VM, None),
        ] {
            assert_eq!(vmm(line, exe, names, files), told, "{line} {exe:?} {names} {files:?}");
        }
    }

    #[test]
    fn debugfs_proves_a_vm_too() {
        let by_debugfs = [(VcpuId(0), Tid(7))];
        let signs =
            Signs { files: UNSEEN, by_debugfs: &by_debugfs, threads: &[], exe: None, words: &[] };
        assert_eq!(signs.vmm(), Some(Vmm::Other));
        assert_eq!(signs.accelerator(Vmm::Other, &[]), Some(Accelerator::Kvm));
    }

    #[test]
    fn an_accelerator_is_what_the_signs_tell_and_else_not_known() {
        let told = |vmm, names: &str, files, asked_for: &[&str]| {
            let asked_for: Vec<String> = asked_for.iter().map(|word| (*word).to_owned()).collect();
            let threads = threads(names);
            let signs = Signs { files, by_debugfs: &[], threads: &threads, exe: None, words: &[] };
            signs.accelerator(vmm, &asked_for)
        };
        let default = &["tcg", "kvm"];
        assert_eq!(told(Vmm::Qemu, "CPU 0/KVM", UNSEEN, default), Some(Accelerator::Kvm));
        assert_eq!(told(Vmm::Qemu, "ALL CPUs/TCG", UNSEEN, default), Some(Accelerator::Tcg));
        assert_eq!(told(Vmm::Qemu, "CPU 0/MSHV", UNSEEN, default), Some(Accelerator::Mshv));
        assert_eq!(told(Vmm::Qemu, "qemu", A_VM, &["tcg"]), Some(Accelerator::Kvm));
        assert_eq!(told(Vmm::Qemu, "qemu", NO_VM, default), Some(Accelerator::Tcg));
        assert_eq!(told(Vmm::Qemu, "qemu", NO_VM, &[]), None, "nothing is asked for");
        assert_eq!(told(Vmm::Qemu, "qemu", UNSEEN, &["tcg"]), None, "its files cannot be seen");
        for other in [&["xen"][..], &["mshv", "tcg"], &["kvm"], &["qtest"]] {
            assert_eq!(told(Vmm::Qemu, "CPU 0/DUMMY", NO_VM, other), None, "{other:?}");
        }
        for vmm in [Vmm::Crosvm, Vmm::CloudHypervisor, Vmm::Firecracker] {
            assert_eq!(told(vmm, "vcpu0", A_VM, &[]), Some(Accelerator::Kvm));
            assert_eq!(told(vmm, "vcpu0", NO_VM, &[]), None, "{vmm:?}");
        }
        let mshv = Some(KvmFiles { has_vm: false, vcpus_count: 0, has_mshv: true });
        assert_eq!(told(Vmm::CloudHypervisor, "vcpu0", mshv, &[]), Some(Accelerator::Mshv));
        assert_eq!(told(Vmm::Crosvm, "vcpu0", UNSEEN, &[]), None);
        assert_eq!(told(Vmm::Firecracker, "fc_vcpu 0", UNSEEN, &[]), Some(Accelerator::Kvm));
    }
}
