//! What a thread of this process does to itself.

use super::inject::InjectError;
use nix::errno::Errno;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use nix::unistd::gettid;
use std::time::Duration;
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_host::host_clock::host_now;
use vslice_host::pin::set_affinity;

/// Pins the calling thread; `name` is for the error.
pub(super) fn pin_self(name: &'static str, pcpu: PcpuId) -> Result<Tid, InjectError> {
    let tid = Tid(gettid().as_raw().cast_unsigned());
    set_affinity(tid, &[pcpu]).map_err(|errno| InjectError::Scheduling {
        name,
        what: format!("pinned to {pcpu}"),
        errno,
        hint: match errno {
            Errno::EINVAL => ": the pCPU is offline or outside this process's cpuset",
            _ => "",
        },
    })?;
    Ok(tid)
}

/// Runs until this time; returns when it saw that it was over.
pub(super) fn spin_until(until: HostNs) -> HostNs {
    loop {
        let now = host_now();
        if now >= until {
            return now;
        }
        std::hint::spin_loop();
    }
}

/// Sleeps on `CLOCK_MONOTONIC`, less if a signal comes.
pub(super) fn sleep_for(duration: Duration) {
    let _ =
        clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &duration.into());
}
