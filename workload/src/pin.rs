//! Which vCPU a thread is on, and keeping it there.

use crate::error::WorkloadError;

/// What [`current_vcpu`] says where the kernel does not tell.
pub const VCPU_UNKNOWN: u16 = u16::MAX;

/// The size of the affinity mask that `core_affinity` hands to the kernel (`CPU_SETSIZE`): it
/// indexes beyond its array for a larger number.
const VCPU_COUNT_MAX: u16 = 1024;

/// Lets the calling thread run on `vcpu` only.
///
/// # Errors
///
/// [`WorkloadError::Pin`] if that vCPU does not exist, is offline, or is kept from this process by
/// a cpuset.
pub fn pin_current_thread(vcpu: u16) -> Result<(), WorkloadError> {
    let pinned = vcpu < VCPU_COUNT_MAX
        && core_affinity::set_for_current(core_affinity::CoreId { id: usize::from(vcpu) });
    if pinned { Ok(()) } else { Err(WorkloadError::Pin { vcpu }) }
}

/// The vCPU that the calling thread is on, [`VCPU_UNKNOWN`] if the kernel does not tell.
///
/// A read of the vDSO or of the thread's rseq area, not a system call. Only a thread that is pinned
/// can rely on the answer after the call.
#[must_use]
pub fn current_vcpu() -> u16 {
    nix::sched::sched_getcpu()
        .ok()
        .and_then(|vcpu| u16::try_from(vcpu).ok())
        .unwrap_or(VCPU_UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_where_it_was_put() {
        for core in core_affinity::get_core_ids().unwrap() {
            let vcpu = u16::try_from(core.id).unwrap();
            let seen = std::thread::spawn(move || {
                pin_current_thread(vcpu).unwrap();
                current_vcpu()
            });
            assert_eq!(seen.join().unwrap(), vcpu);
        }
    }

    #[test]
    fn a_vcpu_that_is_not_there_is_refused() {
        for vcpu in [1000, VCPU_COUNT_MAX, u16::MAX] {
            let error = pin_current_thread(vcpu).unwrap_err();
            assert!(error.to_string().contains(&format!("vCPU{vcpu}")), "{error}");
        }
    }
}
