//! A request with its latency split into parts.

use super::chain::Chain;
use super::part::PartsNs;
use super::phase::{IoMarks, NoPhase, PhaseParts};
use super::uncertainty::ClockError;
use super::waits::Waits;
use crate::units::{HostNs, VcpuId};
use vslice_wire::Request;

/// Whether a request's latency can be attributed to causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribution {
    /// All of it lies on a known timeline.
    Attributed,
    /// It overlaps an interval in which records were lost.
    Lost,
    /// The guest thread that made it moved between vCPUs meanwhile.
    Moved,
    /// It lies, at least in part, outside what was recorded on the host.
    NotRecorded,
}

/// What a request's I/O on the host says about the request's times.
///
/// Only where its sectors are known, and read past the page cache, is I/O known to be its own
/// before the times are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoCheck {
    /// Nothing: it is unknown whose I/O is whose, or no I/O was recorded.
    Unchecked,
    /// All of it lies within the request, allowing for the clock error.
    Within,
    /// Some of it was handed to the block layer before the guest submitted the request, or was done
    /// after the guest saw it completed.
    Beyond {
        /// By how many nanoseconds more than the clock error allows; at least 1.
        excess_ns: u64,
    },
    /// There must have been some, but none was seen near the request.
    Unseen,
}

/// One request, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakdown {
    /// The request as the guest recorded it.
    pub request: Request,
    /// The vCPU on which it was submitted; the parts are of this vCPU's thread.
    pub vcpu: VcpuId,
    /// When it was submitted, on the host's clock.
    pub start: HostNs,
    /// When it was completed, on the host's clock; not before `start`.
    pub end: HostNs,
    /// By how many nanoseconds `start` and `end` may be off, by the clock map.
    pub bound_ns: u64,
    /// Its latency by part; `parts.total_ns()` is exactly `end - start`.
    pub parts: PartsNs,
    /// Whether the parts can be trusted.
    pub attribution: Attribution,
    /// By how much each part may be off because `start` and `end` may be; 0 unless it is
    /// [`Attribution::Attributed`].
    pub clock_error: ClockError,
    /// The vCPU thread's spans over the window, clipped to it (antagonists scaled down to what
    /// fits).
    pub chain: Chain,
    /// Who ran while the thread waited for a pCPU, over all of the window, however much of it the chain
    /// has.
    pub waits: Waits,
    /// When the host had its I/O, or why that is not known.
    pub io: Result<IoMarks, NoPhase>,
    /// Whether the request's I/O lies within the request.
    pub io_check: IoCheck,
    /// Its parts by I/O phase; summed over the phases they equal `parts`.
    pub phases: PhaseParts,
}

impl Breakdown {
    /// The latency in nanoseconds of the host's clock.
    #[must_use]
    pub fn latency_ns(&self) -> u64 {
        self.end.since_ns(self.start)
    }
}
