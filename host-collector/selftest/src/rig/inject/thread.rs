//! Threads of this process that run on one pCPU until they are told to stop.

use super::{Episode, InjectError, ThreadLog};
use crate::rig::{pin_self, sleep_for, spin_until};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_host::host_clock::host_now;

/// How many episodes a log has room for from the start: growing it would be work of another kind.
const EPISODES_ROOM: usize = 1 << 16;

/// A thread that is pinned before it does anything, and ended and waited for when this is dropped.
#[derive(Debug)]
pub struct PinnedThread<T> {
    tid: Tid,
    pcpu: PcpuId,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<T>>>,
}

/// One that writes down when it ran.
pub type LoggedThread = PinnedThread<Vec<Episode>>;

impl<T: Send + 'static> PinnedThread<T> {
    /// Starts `work` on the pCPU, after `prepare` has succeeded on the same thread. `work` has to
    /// return soon after its flag is set.
    ///
    /// # Errors
    /// [`InjectError::Thread`], [`InjectError::Scheduling`], or what `prepare` returned.
    pub(super) fn start(
        name: &'static str,
        pcpu: PcpuId,
        prepare: impl FnOnce() -> Result<(), InjectError> + Send + 'static,
        work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    ) -> Result<PinnedThread<T>, InjectError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (report, reported) = sync_channel(1);
        let run = move || {
            let ready = pin_self(name, pcpu).and_then(|tid| prepare().map(|()| tid));
            let is_ready = ready.is_ok();
            // Nobody listens only if the thread that starts this one has panicked.
            let _ = report.send(ready);
            is_ready.then(|| work(&stopped))
        };
        let error = |source| InjectError::Thread { name, source };
        let thread = Builder::new().name(name.to_owned()).spawn(run).map_err(error)?;
        let ready = reported.recv().map_err(|gone| error(io::Error::other(gone))).flatten();
        let tid = match ready {
            Ok(tid) => tid,
            Err(error) => {
                // It ends by itself; nothing of it should be left when the caller hears of it.
                let _ = thread.join();
                return Err(error);
            }
        };
        Ok(PinnedThread { tid, pcpu, stop, thread: Some(thread) })
    }

    /// The thread.
    #[must_use]
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Where it runs.
    pub(super) fn pcpu(&self) -> PcpuId {
        self.pcpu
    }

    /// Ends the thread, and returns what its work did; `None` if it panicked.
    pub(super) fn stop(mut self) -> Option<T> {
        self.join()
    }
}

impl LoggedThread {
    /// Ends the thread, and returns its log.
    #[must_use]
    pub fn log(self) -> ThreadLog {
        let (tid, pcpu) = (self.tid(), self.pcpu());
        ThreadLog { tid, pcpu, episodes: self.stop().unwrap_or_default() }
    }
}

impl<T> PinnedThread<T> {
    fn join(&mut self) -> Option<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok().flatten()
    }
}

impl<T> Drop for PinnedThread<T> {
    fn drop(&mut self) {
        self.join();
    }
}

/// Sleeps and runs in turn until `stop` is set; one episode for each time that it ran.
pub(super) fn wake_and_run(stop: &AtomicBool, sleep: Duration, run: Duration) -> Vec<Episode> {
    let mut episodes = Vec::with_capacity(EPISODES_ROOM);
    while !stop.load(Ordering::Relaxed) {
        sleep_for(sleep);
        let start = host_now();
        let end = spin_until(HostNs(start.0 + nanoseconds(run)));
        episodes.push(Episode { start, end });
    }
    episodes
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
