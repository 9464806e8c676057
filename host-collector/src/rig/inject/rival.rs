//! A rival: a thread that always wants the pCPU, so that the scheduler shares it out by timeslices.

use super::thread::PinnedThread;
use super::{Episode, InjectError, ThreadLog};
use crate::guest::exchange::host_now;
use crate::rig::spin_until;
use crate::units::{HostNs, PcpuId, Tid};
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a rival looks whether it should stop, in nanoseconds.
const LOOK_NS: u64 = 100_000;

/// A thread of this process that spins on one pCPU.
#[derive(Debug)]
pub struct RivalHog {
    thread: PinnedThread<Vec<Episode>>,
}

impl RivalHog {
    /// It runs when this returns.
    ///
    /// # Errors
    /// [`InjectError::Thread`] and [`InjectError::Scheduling`].
    pub fn start(pcpu: PcpuId) -> Result<RivalHog, InjectError> {
        Ok(RivalHog { thread: PinnedThread::start("rig-hog", pcpu, || Ok(()), spin)? })
    }

    /// The thread.
    #[must_use]
    pub fn tid(&self) -> Tid {
        self.thread.tid()
    }

    /// Ends it; its log is one episode.
    #[must_use]
    pub fn stop(self) -> ThreadLog {
        self.thread.log()
    }
}

fn spin(stop: &AtomicBool) -> Vec<Episode> {
    let start = host_now();
    let mut end = start;
    while !stop.load(Ordering::Relaxed) {
        end = spin_until(HostNs(end.0 + LOOK_NS));
    }
    vec![Episode { start, end }]
}
