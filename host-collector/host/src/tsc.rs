//! What KVM adds to the host's TSC for each vCPU of a guest, and the host's TSC beside its clock.
//!
//! Together they say what a guest's TSC reads at a host time, without asking the guest: KVM shows
//! the offset, and where the hardware scales the TSC the ratio, in debugfs (`arch/x86/kvm/debugfs.c`):
//!
//! ```text
//! kvm/<thread that made the VM>-<fd of it>/vcpu<number>/tsc-offset                    signed ticks
//!                                                 /tsc-scaling-ratio             fixed point ...
//!                                                 /tsc-scaling-ratio-frac-bits   ... with so many bits
//! ```
//!
//! What follows from them is [`vslice_core::clock::tsc`]'s.

use crate::host_clock::host_now;
use crate::procfs;
use nix::mount::MsFlags;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};
use vslice_core::clock::tsc::{TscRelation, TscSample, TscScaling};
use vslice_core::units::{Tid, VcpuId};
use vslice_perf::private_mount::PrivateMount;
use vslice_spec::ClockChoice;
use vslice_workload::clock::Clock;

/// Readings of which the quickest is kept: an interrupt may come into one of them, hardly into all.
const TRIES: usize = 10;

/// The host's TSC between two readings of its clock: the quickest of a few; `None` where there is no
/// TSC.
#[must_use]
pub fn sample() -> Option<TscSample> {
    let clock = Clock::choose(ClockChoice::Tsc);
    let read = |_| TscSample { before: host_now(), tsc: clock.now(), after: host_now() };
    let samples = (0..TRIES).filter(|_| clock.is_tsc()).map(read);
    samples.min_by_key(|sample| sample.after.since_ns(sample.before))
}

/// KVM's part of debugfs.
#[derive(Debug)]
pub struct KvmDebugfs {
    root: PathBuf,
    /// `None` where somebody has mounted debugfs.
    _private: Option<PrivateMount>,
}

impl KvmDebugfs {
    /// Finds debugfs, or mounts one that nobody else sees.
    ///
    /// # Errors
    /// Why it cannot be looked into: no rights, no debugfs, or no KVM.
    pub fn find() -> io::Result<KvmDebugfs> {
        // debugfs(8) has no other customary place; looked for first, because it needs no mount.
        let usual = Path::new("/sys/kernel/debug/kvm");
        if usual.is_dir() {
            return Ok(KvmDebugfs { root: usual.to_owned(), _private: None });
        }
        let private = PrivateMount::new("debugfs", MsFlags::MS_RDONLY)?;
        let root = private.path().join("kvm");
        fs::read_dir(&root)?;
        Ok(KvmDebugfs { root, _private: Some(private) })
    }

    /// The relation of each vCPU of a VMM that runs one VM, by vCPU.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if the process has no VM, or this KVM shows no offset of it (it
    /// does on x86 only); [`io::ErrorKind::InvalidData`] if it has several VMs, or a file holds no
    /// number.
    pub fn relations_of(&self, vmm: Tid) -> io::Result<Vec<(VcpuId, TscRelation)>> {
        let vcpus = vcpus_of(&self.vm_of(vmm)?)?;
        if vcpus.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the VM has no vCPU in debugfs"));
        }
        vcpus.into_iter().map(|(vcpu, path)| Ok((vcpu, relation(&path)?))).collect()
    }

    /// The threads of the vCPUs of a VMM that runs one VM, by vCPU: `vcpuN/pid`.
    ///
    /// # Errors
    /// As [`KvmDebugfs::relations_of`], but that vCPUs without the file (before Linux 6.0) are left
    /// out.
    pub fn vcpu_tids(&self, vmm: Tid) -> io::Result<Vec<(VcpuId, Tid)>> {
        let mut tids = Vec::new();
        for (vcpu, path) in vcpus_of(&self.vm_of(vmm)?)? {
            match number(&path.join("pid")) {
                Ok(tid) => tids.push((vcpu, Tid(tid))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tids)
    }

    /// For how long KVM has polled for the halted vCPUs of a VMM that runs one VM, in vain or not
    /// (`halt_poll_success_ns` and `halt_poll_fail_ns`, since 5.9).
    ///
    /// # Errors
    /// As [`KvmDebugfs::relations_of`].
    pub fn halt_poll_ns(&self, vmm: Tid) -> io::Result<u64> {
        let vm = self.vm_of(vmm)?;
        let names = ["halt_poll_success_ns", "halt_poll_fail_ns"];
        names.into_iter().map(|name| number::<u64>(&vm.join(name))).sum()
    }

    /// The processes that have a VM.
    pub(crate) fn processes(&self) -> BTreeSet<Tid> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let creators = entries.filter_map(|entry| creator_of(&entry.file_name()));
        creators.filter_map(procfs::process_of).collect()
    }

    /// A VM's directory is called after the thread that made it (linux: virt/kvm/kvm_main.c,
    /// `kvm_create_vm_debugfs`), which in Cloud Hypervisor is not the process's first.
    fn vm_of(&self, vmm: Tid) -> io::Result<PathBuf> {
        let tids = procfs::tids(vmm).unwrap_or_default();
        let mut found = None;
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let maker = creator_of(&entry.file_name());
            if maker.is_some_and(|tid| tid == vmm || tids.contains(&tid))
                && found.replace(entry.path()).is_some()
            {
                let several = format!("process {vmm} runs several VMs");
                return Err(io::Error::new(io::ErrorKind::InvalidData, several));
            }
        }
        let none = || format!("process {vmm} has no VM in KVM's debugfs");
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, none()))
    }
}

/// The thread that made the VM of a directory `TID-FD`.
fn creator_of(directory: &OsStr) -> Option<Tid> {
    directory.to_str()?.split_once('-')?.0.parse().ok().map(Tid)
}

/// The vCPUs of a VM with their directories, in order.
fn vcpus_of(vm: &Path) -> io::Result<Vec<(VcpuId, PathBuf)>> {
    let mut vcpus = Vec::new();
    for entry in fs::read_dir(vm)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("vcpu")?.parse().ok());
        vcpus.extend(number.map(|vcpu| (VcpuId(vcpu), entry.path())));
    }
    vcpus.sort_by_key(|(vcpu, _)| *vcpu);
    Ok(vcpus)
}

fn relation(vcpu: &Path) -> io::Result<TscRelation> {
    let scaling = match number(&vcpu.join("tsc-scaling-ratio")) {
        Ok(ratio) => {
            let fraction_bits = number(&vcpu.join("tsc-scaling-ratio-frac-bits"))?;
            Some(TscScaling { ratio, fraction_bits })
        }
        // The hardware cannot scale, so KVM has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(TscRelation { offset_ticks: number(&vcpu.join("tsc-offset"))?, scaling })
}

fn number<T: std::str::FromStr>(path: &Path) -> io::Result<T> {
    let text = fs::read_to_string(path)?;
    let bad = || format!("{} contains {:?}, which is not a number", path.display(), text.trim());
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, bad()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debugfs(files: &[(&str, &str)]) -> (tempfile::TempDir, KvmDebugfs) {
        let scratch = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = scratch.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = scratch.path().to_owned();
        (scratch, KvmDebugfs { root, _private: None })
    }

    fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    /// The two vCPUs of one guest as a Debian host in a box had them (docs/labs.md).
    #[test]
    fn each_vcpu_has_its_own_offset() {
        let (_scratch, kvm) = debugfs(&[
            ("31-9/vcpu1/tsc-offset", "-28661016509\n"),
            ("31-9/vcpu1/pid", "34\n"),
            ("31-9/vcpu0/tsc-offset", "-28701722408\n"),
            ("31-9/vcpu0/tsc-scaling-ratio", "8589934592\n"),
            ("31-9/vcpu0/tsc-scaling-ratio-frac-bits", "32\n"),
            ("31-9/remote_tlb_flush", "7\n"),
            ("311-9/vcpu0/tsc-offset", "1\n"),
            ("tlb_flush", "7\n"),
        ]);
        let scaling = Some(TscScaling { ratio: 2 << 32, fraction_bits: 32 });
        let expected = [
            (VcpuId(0), TscRelation { offset_ticks: -28_701_722_408, scaling }),
            (VcpuId(1), TscRelation { offset_ticks: -28_661_016_509, scaling: None }),
        ];
        assert_eq!(kvm.relations_of(Tid(31)).unwrap(), expected);
        assert_eq!(kvm.vcpu_tids(Tid(31)).unwrap(), [(VcpuId(1), Tid(34))]);
    }

    #[test]
    fn polling_is_counted_whether_it_was_in_vain_or_not() {
        let (_scratch, kvm) = debugfs(&[
            ("31-9/halt_poll_success_ns", "1200\n"),
            ("31-9/halt_poll_fail_ns", "34\n"),
            ("41-9/halt_poll_fail_ns", "34\n"),
        ]);
        assert_eq!(kvm.halt_poll_ns(Tid(31)).unwrap(), 1234);
        assert_eq!(kind(kvm.halt_poll_ns(Tid(41))), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_vm_is_found_by_whichever_thread_made_it() {
        // Tests run in threads that are not the process's first.
        let tid = nix::unistd::gettid();
        let (_scratch, kvm) = debugfs(&[(&format!("{tid}-9/vcpu0/pid"), "32\n")]);
        let own = Tid(std::process::id());
        assert_ne!(own.to_string(), tid.to_string());
        assert_eq!(kvm.vcpu_tids(own).unwrap(), [(VcpuId(0), Tid(32))]);
        assert_eq!(kvm.processes(), BTreeSet::from([own]));
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let (_scratch, kvm) = debugfs(&[
            ("31-9/vcpu0/pid", "32\n"),
            ("41-9/vcpu0/tsc-offset", "x\n"),
            ("51-9/vcpu0/tsc-offset", "1\n"),
            ("51-10/vcpu0/tsc-offset", "1\n"),
            ("61-9/remote_tlb_flush", "1\n"),
        ]);
        assert_eq!(kind(kvm.relations_of(Tid(31))), io::ErrorKind::NotFound);
        assert_eq!(kind(kvm.relations_of(Tid(41))), io::ErrorKind::InvalidData);
        assert_eq!(kind(kvm.relations_of(Tid(51))), io::ErrorKind::InvalidData);
        assert_eq!(kind(kvm.relations_of(Tid(61))), io::ErrorKind::NotFound);
        assert_eq!(kind(kvm.relations_of(Tid(99))), io::ErrorKind::NotFound);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_hosts_tsc_runs_beside_its_clock() {
        let first = sample().unwrap();
        let second = sample().unwrap();
        assert!(first.before <= first.after && first.after <= second.before);
        assert!(first.tsc < second.tsc);
    }
}
