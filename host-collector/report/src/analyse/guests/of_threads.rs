//! Which guests are told of an event, by the threads that it is about.

use rustc_hash::FxHashMap;
use vslice_core::timeline::Tasks;
use vslice_core::units::Tid;
use vslice_trace::manifest::Manifest;

/// Which guests a thread of the host may matter to, by their places: most events matter to none.
#[derive(Debug, Default)]
pub(super) struct GuestsOfThreads {
    by_vcpu: FxHashMap<Tid, usize>,
    /// Those that are observed, by the VMM's process: the files that it flushes are its own.
    by_vmm: FxHashMap<Tid, Vec<usize>>,
}

impl GuestsOfThreads {
    /// Of the guests of a run, in the order of its VMs; those at some places are observed.
    pub(super) fn of(manifest: &Manifest, is_observed: impl Fn(usize) -> bool) -> GuestsOfThreads {
        let mut of = GuestsOfThreads::default();
        for (place, vm) in manifest.vms.iter().enumerate() {
            let vcpus = vm.threads.iter().filter(|thread| thread.vcpu.is_some());
            of.by_vcpu.extend(vcpus.map(|thread| (thread.tid, place)));
            if is_observed(place) {
                of.by_vmm.entry(vm.pid).or_default().push(place);
            }
        }
        of
    }

    /// The one that has this vCPU's thread.
    pub(super) fn of_vcpu(&self, tid: Tid) -> Option<usize> {
        self.by_vcpu.get(&tid).copied()
    }

    /// Those whose vCPUs these threads are, each of them once.
    pub(super) fn of_vcpus(&self, [one, other]: [Tid; 2]) -> impl Iterator<Item = usize> + use<> {
        let [one, other] = [one, other].map(|tid| self.of_vcpu(tid));
        one.into_iter().chain(other.filter(|_| one != other))
    }

    /// Those that are observed and whose VMM's process has one of these threads, each of them once.
    pub(super) fn of_vmms(
        &self,
        [one, other]: [Tid; 2],
        tasks: &Tasks,
    ) -> impl Iterator<Item = usize> {
        let vmm = |tid| if self.by_vmm.is_empty() { None } else { tasks.process_of(tid) };
        let (one, other) = (vmm(one), vmm(other));
        let vmms = one.into_iter().chain(other.filter(|_| one != other));
        vmms.filter_map(|vmm| self.by_vmm.get(&vmm)).flatten().copied()
    }
}
