//! A storm of QMP commands: QEMU's main loop works on each with the BQL held.

use super::thread::PinnedThread;
use super::{Episode, InjectError};
use crate::guest::exchange::host_now;
use crate::rig::monitor::Monitor;
use crate::units::{PcpuId, Tid};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What QEMU is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StormCommand {
    /// `query-qmp-schema`: its answer has 207,000 bytes in QEMU 7.2, and the lock is held for
    /// milliseconds each time.
    Schema,
    /// `query-version`: a short answer, and the lock is held for microseconds, often.
    Version,
}

impl StormCommand {
    fn line(self) -> &'static [u8] {
        match self {
            StormCommand::Schema => b"{\"execute\":\"query-qmp-schema\"}\n",
            StormCommand::Version => b"{\"execute\":\"query-version\"}\n",
        }
    }
}

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
    /// Their bytes.
    pub answer_bytes: u64,
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
    answer_bytes: u64,
    episode: Episode,
    failure: Option<io::Error>,
}

impl QmpStorm {
    /// Starts it on this socket, which serves nobody else meanwhile, such as
    /// [`crate::rig::machine::Machine::second_monitor`]. The pCPU should be another than the
    /// vCPU's, or the storm also takes that away.
    ///
    /// # Errors
    /// [`InjectError::Monitor`], [`InjectError::Thread`] and [`InjectError::Scheduling`].
    pub fn start(
        socket: &Path,
        pcpu: PcpuId,
        command: StormCommand,
    ) -> Result<QmpStorm, InjectError> {
        let error = |source| InjectError::Monitor { path: socket.to_owned(), source };
        let monitor = Monitor::connect(socket, ANSWER_LIMIT).map_err(error)?;
        let work = move |stop: &_| ask(monitor, command, stop);
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
            answer_bytes: storm.answer_bytes,
            episode: storm.episode,
            failure: storm.failure.map(|error| error.to_string()),
        })
    }
}

fn ask(mut monitor: Monitor, command: StormCommand, stop: &AtomicBool) -> Storm {
    let start = host_now();
    let episode = Episode { start, end: start };
    let mut storm = Storm { answer_count: 0, answer_bytes: 0, episode, failure: None };
    while !stop.load(Ordering::Relaxed) {
        match monitor.execute_unread(command.line()) {
            Ok(bytes) => {
                storm.answer_count += 1;
                storm.answer_bytes += bytes as u64;
            }
            Err(error) => {
                storm.failure = Some(error);
                break;
            }
        }
    }
    storm.episode.end = host_now();
    storm
}
