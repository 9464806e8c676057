//! Why a run could not be made, or ended before its end.

use crate::guest::session::SessionError;
use crate::lab::accelerator::AcceleratorError;
use crate::lab::image::ImageError;
use crate::lab::launch::LaunchError;
use crate::lab::plan::PlanError;
use crate::lab::vsock::VsockError;
use crate::perf::{RecordError, SymbolError};
use crate::store::StoreError;
use crate::vmm::host::HostPcpusError;
use crate::vmm::pin::PinError;
use crate::vmm::threads::ThreadsError;
use std::io;
use std::path::PathBuf;

/// What ends a run, as a sentence for the person who started it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message or its source's")]
pub enum RunError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    HostPcpus(#[from] HostPcpusError),
    #[error(transparent)]
    Accelerator(#[from] AcceleratorError),
    #[error(transparent)]
    Vsock(#[from] VsockError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("kernel stacks cannot be named")]
    Symbols(#[from] SymbolError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    #[error("{source}; in a checkout of vslice, run `make image`")]
    Image { source: ImageError },
    #[error(
        "there is no qemu-system-x86_64 on the PATH: `apt-get install qemu-system-x86`, or see \
         `vslice doctor`"
    )]
    NoQemu,
    #[error("{vm}: nobody listens for it at {}", path.display())]
    Listen { vm: String, path: PathBuf, source: io::Error },
    #[error("{vm}: {source}")]
    Session { vm: String, source: SessionError },
    #[error(
        "{vm}: QEMU has no thread for {missing}; vslice needs `-name ...,debug-threads=on` and one \
         thread for each vCPU"
    )]
    NoVcpuThread { vm: String, missing: String },
    #[error("the thread of {vm}'s session has panicked")]
    SessionPanicked { vm: String },
    #[error("{waiting} did not end their workload within {seconds} s after they were told to")]
    NotStopped { waiting: String, seconds: u64 },
    #[error("interrupted")]
    Interrupted,
}
