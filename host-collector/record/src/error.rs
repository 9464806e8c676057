//! Why a run could not be made, or ended before its end.

use crate::guest::session::SessionError;
use crate::guest::start::StartError;
use crate::perf::RecordError;
use crate::sampling::{NOTHING_VISIBLE, SampleError};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use vslice_core::text::sentence;
use vslice_core::units::Tid;
use vslice_host::agent_transport::NO_TRANSPORT_ADVICE;
use vslice_host::host::HostPcpusError;
use vslice_host::pin::PinError;
use vslice_host::plug::PlugError;
use vslice_host::qga::QgaError;
use vslice_host::scratch::ScratchError;
use vslice_host::threads::ThreadsError;
use vslice_trace::StoreError;

/// Why a recording could not start or ended early, as a sentence for the user.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message or its source's")]
pub enum RecordingError {
    #[error(transparent)]
    HostPcpus(#[from] HostPcpusError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error(
        "the run cannot be sampled: {NOTHING_VISIBLE}; `--evidence totals` needs no privileges"
    )]
    NothingVisible,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}; use `--output DIR` to choose another run directory", sentence(source))]
    Output { source: StoreError },
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    #[error("{vm}: the collector cannot listen at {}", path.display())]
    Listen { vm: String, path: PathBuf, source: io::Error },
    #[error("{vm}: {source}")]
    Session { vm: String, source: SessionError },
    #[error("cannot tell which threads of {vm} run its vCPUs: {advice}")]
    UnseenVcpus { vm: String, advice: &'static str },
    #[error(
        "{vm} has no transport from its guest to this host: use --plug to plug one in for the \
        recording (`vslice doctor --vm VM` shows how to do it by hand), or {NO_TRANSPORT_ADVICE}"
    )]
    NoTransport { vm: String },
    #[error(
        "it is unknown whether {vm} has a transport from its guest to this host, because {source}"
    )]
    WayNotKnown { vm: String, source: QgaError },
    #[error("{vm}: {source}")]
    Plug { vm: String, source: PlugError },
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    #[error("{vm}: {source}")]
    AgentStart { vm: String, source: StartError },
    #[error("{vm}: the agent was started but does not connect over {address}; its state: {words}")]
    AgentLost { vm: String, address: String, words: String },
    #[error("{vm}: its VMM, process {pid}, has ended")]
    VmEnded { vm: String, pid: Tid },
    #[error("the thread of {vm}'s session has panicked")]
    SessionPanicked { vm: String },
    #[error(
        "{waiting} did not {task} within {seconds} s: its console log in the run directory may say \
        why, or its journal if vslice did not boot it"
    )]
    Unresponsive { waiting: String, task: &'static str, seconds: u64 },
    #[error(
        "the agent of {vm} stopped before its reader had finished: was it stopped in the guest?"
    )]
    StoppedItself { vm: String },
    #[error("no reader has read anything for {seconds} s: does the host's disk hang?")]
    Stalled { seconds: u64 },
    #[error("{0}")]
    Guests(#[source] Box<dyn Error + Send + Sync>),
    #[error("interrupted")]
    Interrupted,
}

impl RecordingError {
    /// The VM from which nobody came, or nobody who said anything; nothing of other errors.
    #[must_use]
    pub fn silent_vm(&self) -> Option<&str> {
        let RecordingError::Session { vm, source } = self else { return None };
        let is_silence =
            matches!(source, SessionError::NeverConnected { .. } | SessionError::Silent { .. });
        is_silence.then_some(vm.as_str())
    }

    /// Whether a guest's connection is gone, which may be the effect of something else.
    pub(crate) fn is_lost_connection(&self) -> bool {
        let RecordingError::Session { source, .. } = self else { return false };
        matches!(source, SessionError::Closed { .. } | SessionError::Connection(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_directory_that_cannot_be_made_can_be_made_elsewhere() {
        // A file is no place for a directory, also for root.
        let file = tempfile::NamedTempFile::new().unwrap();
        let output = file.path().join("demo-1");
        let error =
            RecordingError::Output { source: vslice_trace::RunDir::create(&output).unwrap_err() };
        let said = sentence(&error);
        assert!(said.starts_with("cannot create the directory "), "{said}");
        assert!(
            said.ends_with(
                ": Not a directory (os error 20); use `--output DIR` to choose another run directory"
            ),
            "{said}"
        );
    }

    #[test]
    fn a_cause_is_said_once() {
        let closed = SessionError::Connection(io::Error::other("reset by peer"));
        let error = RecordingError::Session { vm: String::from("vm1"), source: closed };
        assert_eq!(sentence(&error), "vm1: the guest's connection failed: reset by peer");
        let (vm, path) = (String::from("vm1"), PathBuf::from("/s"));
        let error = RecordingError::Listen { vm, path, source: io::Error::other("in use") };
        assert_eq!(sentence(&error), "vm1: the collector cannot listen at /s: in use");
    }
}
