//! What of a host's placement costs its guests latency.

use crate::units::PcpuId;
use crate::vmm::found::{FoundThread, FoundVm, UNSEEN_VCPUS_ADVICE};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something that bites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Bite {
    /// There are more vCPUs than pCPUs, so that they take turns.
    Overcommit {
        /// vCPUs of all VMs.
        vcpus: usize,
        /// pCPUs that are online.
        pcpus: usize,
    },
    /// Several vCPUs can run on one pCPU only, and it is the same.
    SharedPcpu {
        /// The pCPU.
        pcpu: PcpuId,
        /// Each as VM and vCPU.
        vcpus: Vec<Place>,
    },
    /// An iothread can only run where a vCPU is pinned: each request it serves takes the pCPU from
    /// the vCPU, or waits for it.
    IothreadOnVcpu {
        /// The VM of the iothread.
        vm: String,
        /// The iothread.
        iothread: String,
        /// The pCPU.
        pcpu: PcpuId,
        /// The vCPU that is pinned there.
        vcpu: Place,
    },
    /// Which threads run the vCPUs cannot be seen.
    UnknownVcpus {
        /// The VM.
        vm: String,
    },
}

/// A vCPU of some VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The VM's label.
    pub vm: String,
    /// `vCPU1`.
    pub vcpu: String,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.vm, self.vcpu)
    }
}

impl Bite {
    /// Whether it is about the VM with this label.
    #[must_use]
    pub fn concerns(&self, label: &str) -> bool {
        match self {
            Bite::Overcommit { .. } => true,
            Bite::SharedPcpu { vcpus, .. } => vcpus.iter().any(|place| place.vm == label),
            Bite::IothreadOnVcpu { vm, vcpu, .. } => vm == label || vcpu.vm == label,
            Bite::UnknownVcpus { vm } => vm == label,
        }
    }
}

impl fmt::Display for Bite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bite::Overcommit { vcpus, pcpus } => write!(
                formatter,
                "{vcpus} vCPUs share {pcpus} pCPUs: when all are busy they wait for each other"
            ),
            Bite::SharedPcpu { pcpu, vcpus } => {
                let vcpus: Vec<String> = vcpus.iter().map(ToString::to_string).collect();
                write!(formatter, "{pcpu} is the only one of {}", vcpus.join(" and "))
            }
            Bite::IothreadOnVcpu { vm, iothread, pcpu, vcpu } => write!(
                formatter,
                "iothread {iothread} of {vm} can only run on {pcpu}, where {vcpu} is pinned: they \
                 take it from each other"
            ),
            Bite::UnknownVcpus { vm } => write!(
                formatter,
                "which threads of {vm} run its vCPUs cannot be seen: {UNSEEN_VCPUS_ADVICE}"
            ),
        }
    }
}

/// Everything that bites on a host with these pCPUs.
pub(super) fn all(pcpus: &[PcpuId], vms: &[FoundVm]) -> Vec<Bite> {
    let mut bites = Vec::new();
    let vcpus = vms.iter().flat_map(FoundVm::vcpus).count();
    if vcpus > pcpus.len() && !pcpus.is_empty() {
        bites.push(Bite::Overcommit { vcpus, pcpus: pcpus.len() });
    }
    let pinned = pinned(vms);
    let shared = pinned.iter().filter(|(_, vcpus)| vcpus.len() > 1);
    bites
        .extend(shared.map(|(pcpu, vcpus)| Bite::SharedPcpu { pcpu: *pcpu, vcpus: vcpus.clone() }));
    for vm in vms {
        let iothreads = vm.threads.iter().filter(|thread| thread.iothread.is_some());
        bites.extend(iothreads.filter_map(|thread| on_vcpu(vm, thread, &pinned)));
    }
    let unknown = vms.iter().filter(|vm| vm.vcpus().next().is_none());
    bites.extend(unknown.map(|vm| Bite::UnknownVcpus { vm: vm.label() }));
    bites
}

/// The vCPUs that can run on one pCPU only, by that.
fn pinned(vms: &[FoundVm]) -> BTreeMap<PcpuId, Vec<Place>> {
    let mut pinned: BTreeMap<PcpuId, Vec<Place>> = BTreeMap::new();
    for vm in vms {
        for thread in vm.vcpus() {
            if let (Some(vcpu), [pcpu]) = (thread.vcpu, &thread.affinity[..]) {
                let place = Place { vm: vm.label(), vcpu: vcpu.to_string() };
                pinned.entry(*pcpu).or_default().push(place);
            }
        }
    }
    pinned
}

/// An iothread all of whose pCPUs have a vCPU pinned to them.
fn on_vcpu(
    vm: &FoundVm,
    thread: &FoundThread,
    pinned: &BTreeMap<PcpuId, Vec<Place>>,
) -> Option<Bite> {
    let allowed: BTreeSet<PcpuId> = thread.affinity.iter().copied().collect();
    let pcpu = *allowed.first()?;
    let vcpu = pinned.get(&pcpu)?.first()?.clone();
    let is_all = allowed.iter().all(|pcpu| pinned.contains_key(pcpu));
    let iothread = thread.iothread.clone()?;
    is_all.then(|| Bite::IothreadOnVcpu { vm: vm.label(), iothread, pcpu, vcpu })
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::{thread, vm};
    use super::*;

    fn pcpus(count: u32) -> Vec<PcpuId> {
        (0..count).map(PcpuId).collect()
    }

    fn said(pcpus_count: u32, vms: &[FoundVm]) -> Vec<String> {
        all(&pcpus(pcpus_count), vms).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_bites_where_everyone_has_a_pcpu() {
        let one = vm(
            "vm1",
            10,
            vec![thread(11, Some(0), None, &[1]), thread(12, None, Some("io0"), &[0])],
        );
        assert_eq!(said(4, &[one]), [""; 0]);
    }

    #[test]
    fn two_vcpus_on_one_pcpu_and_more_vcpus_than_pcpus() {
        let one =
            vm("vm1", 10, vec![thread(11, Some(0), None, &[0]), thread(12, Some(1), None, &[1])]);
        let two = vm(
            "vm2",
            20,
            vec![thread(21, Some(0), None, &[0, 1]), thread(22, Some(1), None, &[1])],
        );
        assert_eq!(
            said(2, &[one, two]),
            [
                "4 vCPUs share 2 pCPUs: when all are busy they wait for each other",
                "pCPU1 is the only one of vm1 vCPU1 and vm2 vCPU1",
            ]
        );
    }

    #[test]
    fn an_iothread_bites_only_if_it_has_nowhere_else_to_go() {
        let with = |affinity: &[u32]| {
            vm(
                "vm1",
                10,
                vec![
                    thread(11, Some(0), None, &[1]),
                    thread(12, Some(1), None, &[2]),
                    thread(13, None, Some("io0"), affinity),
                ],
            )
        };
        let bite = "iothread io0 of vm1 can only run on pCPU1, where vm1 vCPU0 is pinned: they take \
                    it from each other";
        assert_eq!(said(4, &[with(&[1])]), [bite]);
        assert_eq!(said(4, &[with(&[1, 2])]), [bite]);
        assert_eq!(said(4, &[with(&[1, 3])]), [""; 0]);
        assert_eq!(said(4, &[with(&[])]), [""; 0], "the kernel does not say");
    }

    #[test]
    fn vcpus_that_cannot_be_seen_are_said() {
        let said = said(4, &[vm("vm1", 10, vec![thread(10, None, None, &[0])])]);
        assert!(said.len() == 1 && said[0].contains("debug-threads=on"), "{said:?}");
    }
}
