//! A storm of QMP commands: QEMU's main loop works on each with the BQL held.

use super::thread::PinnedThread;
use super::{Episode, InjectError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vslice_core::units::{PcpuId, Tid};
use vslice_host::host_clock::host_now;
use vslice_host::qmp::{Qmp, QmpError};

/// What QEMU is asked: its answer is short, and the lock is held for microseconds, often.
const COMMAND: &str = "query-version";

/// How long QEMU may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What a storm has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StormLog {
    /// The thread that asked; it has ended.
    pub tid: Tid,
    /// Where it ran.
    pub pcpu: PcpuId,
    /// How many answers there were.
    pub answer_count: u64,
    /// From the first question to the last answer.
    pub episode: Episode,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
}

/// A thread of this process that asks QEMU one question after another.
#[derive(Debug)]
pub struct QmpStorm {
    thread: PinnedThread<Storm>,
}

/// What the thread returns.
#[derive(Debug)]
struct Storm {
    answer_count: u64,
    episode: Episode,
    failure: Option<QmpError>,
}

impl QmpStorm {
    /// Starts it on this socket, which serves nobody else meanwhile, such as
    /// [`crate::rig::machine::Machine::second_monitor`]. The pCPU should be another than the
    /// vCPU's, or the storm also takes that away.
    ///
    /// # Errors
    /// [`InjectError::Monitor`], [`InjectError::Thread`] and [`InjectError::Scheduling`].
    pub fn start(socket: &Path, pcpu: PcpuId) -> Result<QmpStorm, InjectError> {
        let monitor = Qmp::connect_within(socket, ANSWER_LIMIT)?;
        let work = move |stop: &_| ask(monitor, stop);
        Ok(QmpStorm { thread: PinnedThread::start("rig-storm", pcpu, || Ok(()), work)? })
    }

    /// The thread.
    #[must_use]
    pub fn tid(&self) -> Tid {
        self.thread.tid()
    }

    /// Ends it, after the answer to its last question; `None` if its thread panicked.
    #[must_use]
    pub fn stop(self) -> Option<StormLog> {
        let (tid, pcpu) = (self.thread.tid(), self.thread.pcpu());
        let storm = self.thread.stop()?;
        Some(StormLog {
            tid,
            pcpu,
            answer_count: storm.answer_count,
            episode: storm.episode,
            failure: storm.failure.map(|error| error.to_string()),
        })
    }
}

fn ask(mut monitor: Qmp, stop: &AtomicBool) -> Storm {
    let start = host_now();
    let episode = Episode { start, end: start };
    let mut storm = Storm { answer_count: 0, episode, failure: None };
    while !stop.load(Ordering::Relaxed) {
        match monitor.execute(COMMAND, json!({})) {
            Ok(_) => storm.answer_count += 1,
            Err(error) => {
                storm.failure = Some(error);
                break;
            }
        }
    }
    storm.episode.end = host_now();
    storm
}
