//! Threads that kept their pCPU from the first moment of the window to the last: a hog that nobody
//! disturbs leaves no event, and would be unknown. The scheduler's own count of their arrivals tells.

use crate::sampling::schedstat;
use vslice_core::units::{PcpuId, Tid};
use vslice_host::procfs;
use vslice_trace::manifest::VmRecord;

/// What the scheduler had counted of each vCPU's thread just before the window.
#[derive(Debug)]
pub(crate) struct Before(Vec<(Tid, Counts)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    ran_ns: u64,
    arrivals: u64,
}

impl Before {
    /// Reads it. Nothing of it is needed for a run.
    pub(crate) fn read(vms: &[VmRecord]) -> Before {
        let threads = vms.iter().flat_map(|vm| &vm.threads).filter(|thread| thread.vcpu.is_some());
        Before(threads.filter_map(|thread| Some((thread.tid, counts(thread.tid)?))).collect())
    }

    /// Reads it again, and says who has not come anew and has run, and where.
    pub(crate) fn kept(&self) -> Vec<(Tid, PcpuId)> {
        let kept =
            |(tid, before): &(Tid, Counts)| Some((*tid, kept(*tid, *before, counts(*tid)?)?));
        self.0.iter().filter_map(kept).collect()
    }

    /// Who has not run since, and sleeps.
    pub(crate) fn asleep(&self) -> Vec<Tid> {
        let asleep = |(tid, before): &&(Tid, Counts)| counts(*tid) == Some(*before) && sleeps(*tid);
        self.0.iter().filter(asleep).map(|(tid, _)| *tid).collect()
    }

    /// Reads it again just after the window, and notes who has not come anew and has run.
    pub(crate) fn note(&self, vms: &mut [VmRecord]) {
        let kept = self.kept();
        for thread in vms.iter_mut().flat_map(|vm| &mut vm.threads) {
            let of_it = kept.iter().find(|(tid, _)| *tid == thread.tid);
            thread.kept = of_it.map(|(_, pcpu)| *pcpu);
        }
        let asleep = self.asleep();
        for vm in vms {
            let asleep = vm.threads.iter().filter(|thread| asleep.contains(&thread.tid));
            vm.asleep_vcpus = asleep.filter_map(|thread| thread.vcpu).collect();
        }
    }
}

/// Whether a thread sleeps now. One that has not run meanwhile, and had not left its pCPU for another thread, slept all
/// the time: who is woken runs before it sleeps again.
fn sleeps(tid: Tid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| state.trim().starts_with('S'))
}

fn kept(tid: Tid, before: Counts, now: Counts) -> Option<PcpuId> {
    let stayed = now.arrivals == before.arrivals && now.ran_ns > before.ran_ns;
    stayed.then(|| procfs::last_pcpu(tid)).flatten()
}

fn counts(tid: Tid) -> Option<Counts> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
    let [ran_ns, _, arrivals] = schedstat(&text)?;
    Some(Counts { ran_ns, arrivals })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_ran_and_did_not_come_anew_has_kept_its_pcpu() {
        let own = Tid(std::process::id());
        let counts = |ran_ns, arrivals| Counts { ran_ns, arrivals };
        assert!(kept(own, counts(10, 3), counts(20, 3)).is_some());
        assert_eq!(kept(own, counts(10, 3), counts(20, 4)), None, "it left and came back");
        assert_eq!(kept(own, counts(10, 3), counts(10, 3)), None, "it slept");
        assert_eq!(kept(Tid(u32::MAX), counts(10, 3), counts(20, 3)), None, "it is gone");
    }

    #[test]
    fn this_thread_is_counted() {
        let tid = Tid(u32::try_from(nix::unistd::gettid().as_raw()).unwrap());
        let first = counts(tid).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(counts(tid).unwrap().arrivals > first.arrivals);
    }
}
