//! A rival: a thread that always wants the pCPU, so that the scheduler shares it out by timeslices.

use super::thread::{LoggedThread, PinnedThread};
use super::{Episode, InjectError};
use crate::rig::spin_until;
use std::sync::atomic::{AtomicBool, Ordering};
use vslice_core::units::{HostNs, PcpuId};
use vslice_host::host_clock::host_now;

/// How often a rival looks whether it should stop, in nanoseconds.
const LOOK_NS: u64 = 100_000;

/// Starts a thread of this process that spins on one pCPU. Its log is one episode.
///
/// # Errors
/// [`InjectError::Thread`] and [`InjectError::Scheduling`].
pub fn start(pcpu: PcpuId) -> Result<LoggedThread, InjectError> {
    PinnedThread::start("rig-hog", pcpu, || Ok(()), spin)
}

fn spin(stop: &AtomicBool) -> Vec<Episode> {
    let start = host_now();
    let mut end = start;
    while !stop.load(Ordering::Relaxed) {
        end = spin_until(HostNs(end.0 + LOOK_NS));
    }
    vec![Episode { start, end }]
}
