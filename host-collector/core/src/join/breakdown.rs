//! A request with its latency split into parts.

use super::chain::Chain;
use super::guest_request::GuestRequest;
use super::part::PartsNs;
use super::phase::{IoMarks, NoPhase, Phase, PhaseParts};
use super::placed::Bounds;
use super::uncertainty::ClockError;
use super::waits::Waits;
use crate::units::{HostNs, VcpuId};
use vslice_wire::{BlockOperation, CompletionVcpu, ObservedFlags, ObservedRequest};

/// Whether a request's latency can be attributed to causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribution {
    /// All of it lies on a known timeline.
    Attributed,
    /// It overlaps an interval in which records were lost.
    Lost,
    /// It was completed on another vCPU than it was submitted or issued on, and until when it waited for the
    /// one and from when on for the other is unknown, as the phases of its I/O are.
    Moved,
    /// Its phases are unknown, and once the host's I/O was done it waited for a vCPU that is not known, as the
    /// guest's kernel may have sent its completion to another.
    Steered,
    /// It lies, at least in part, outside what was recorded on the host.
    NotRecorded,
    /// The guest had another of the same kind and sectors in flight, and its times and vCPUs may be that one's.
    Ambiguous,
    /// More happened on the host while it was under way, or more requests were, than vslice keeps.
    Forgotten,
}

impl Attribution {
    /// Each of them.
    pub const ALL: [Attribution; 7] = [
        Attribution::Attributed,
        Attribution::Lost,
        Attribution::Moved,
        Attribution::Steered,
        Attribution::NotRecorded,
        Attribution::Ambiguous,
        Attribution::Forgotten,
    ];

    /// Its name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Attribution::Attributed => "attributed",
            Attribution::Lost => "lost",
            Attribution::Moved => "moved",
            Attribution::Steered => "steered",
            Attribution::NotRecorded => "not_recorded",
            Attribution::Ambiguous => "ambiguous",
            Attribution::Forgotten => "forgotten",
        }
    }
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

/// Over which vCPU's thread each phase of a request was laid.
///
/// The reader's own requests are all laid over the vCPU that submitted them. One that was observed waits for
/// the vCPU that issues it until the host has its I/O, and once the host's I/O is done for the one that takes the
/// interrupt, which need not be the one that completes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhaseVcpus {
    /// The vCPU that queued it: the guest queue lies over it.
    pub queued: VcpuId,
    /// The vCPU that issued it: *queued*, *device* and *unknown* lie over it.
    pub issued: VcpuId,
    /// The vCPU that took its interrupt: *completed* lies over it. `None` if it is not known which that was.
    pub completed: Option<VcpuId>,
}

impl PhaseVcpus {
    /// All phases over one vCPU.
    #[must_use]
    pub fn all(vcpu: VcpuId) -> PhaseVcpus {
        PhaseVcpus { queued: vcpu, issued: vcpu, completed: Some(vcpu) }
    }

    /// Of an observed request, whose disk's are completed there.
    ///
    /// A completion is sent to no other vCPU than the one on which the kernel allocated the request (linux:
    /// block/blk-mq.c, `mq_ctx`). That is the one that asked for it; but a task may have moved meanwhile, a merged request
    /// and a flush have that of the first of several, and the first need not be the one that is told of. So the vCPU is
    /// certain where one asked for it and issued it.
    #[must_use]
    pub fn of_observed(request: &ObservedRequest, completing: CompletionVcpu) -> PhaseVcpus {
        let is_any =
            |flags: &[ObservedFlags]| flags.iter().any(|flag| request.flags.contains(*flag));
        let is_several = request.operation == BlockOperation::Flush
            || is_any(&[ObservedFlags::PREFLUSH, ObservedFlags::FUA])
            || is_any(&[ObservedFlags::MERGED, ObservedFlags::NO_QUEUE_TIME]);
        let is_where_interrupted = match completing {
            CompletionVcpu::Interrupted => true,
            CompletionVcpu::InterruptedOrQueued => {
                !is_several
                    && request.vcpu_queued == request.vcpu_issued
                    && request.vcpu_queued != request.vcpu_completed
            }
            CompletionVcpu::Queued | CompletionVcpu::Unknown => false,
        };
        PhaseVcpus {
            queued: VcpuId(request.vcpu_queued),
            issued: VcpuId(request.vcpu_issued),
            completed: is_where_interrupted.then_some(VcpuId(request.vcpu_completed)),
        }
    }

    /// The vCPU of this phase; `None` if it is not known.
    #[must_use]
    pub fn of(&self, phase: Phase) -> Option<VcpuId> {
        match phase {
            Phase::GuestQueue => Some(self.queued),
            Phase::Queued | Phase::Device | Phase::Unknown => Some(self.issued),
            Phase::Completed => self.completed,
        }
    }

    /// Whether the request may have waited in this phase for its vCPU. Where not, the vCPU's state is context
    /// and no cause: while the disk has the I/O nobody has to act, and what waits in the guest's own queue for
    /// another vCPU to issue it does not wait for the one that queued it.
    #[must_use]
    pub fn is_waited_for(&self, phase: Phase) -> bool {
        match phase {
            Phase::GuestQueue => self.queued == self.issued,
            Phase::Device => false,
            Phase::Queued | Phase::Completed | Phase::Unknown => true,
        }
    }
}

/// One request, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakdown {
    /// The request as the guest recorded it.
    pub request: GuestRequest,
    /// The vCPU on which it was submitted or issued.
    pub vcpu: VcpuId,
    /// Over which vCPU's thread each phase was laid.
    pub vcpus: PhaseVcpus,
    /// When it was submitted, or queued if it was observed, on the host's clock.
    pub start: HostNs,
    /// When an observed request was handed to the disk's driver for the last time; between `start` and `end`.
    pub issued: Option<HostNs>,
    /// When it was completed, on the host's clock; not before `start`.
    pub end: HostNs,
    /// By how many nanoseconds its times may be off, by the clock maps.
    pub bounds: Bounds,
    /// Its latency by part; `parts.total_ns()` is exactly `end - start`.
    pub parts: PartsNs,
    /// Whether the parts can be trusted.
    pub attribution: Attribution,
    /// By how much each part may be off because `start` and `end` may be; 0 unless it is
    /// [`Attribution::Attributed`].
    pub clock_error: ClockError,
    /// The spans of the vCPUs' threads over the window, clipped to it (antagonists scaled down to what
    /// fits).
    pub chain: Chain,
    /// Who ran while the thread waited for a pCPU, over all of the window, however much of it the chain
    /// has. Of an observed request only in phases in which it may have waited for the vCPU, see
    /// [`PhaseVcpus::is_waited_for`].
    pub waits: Waits,
    /// When the host had its I/O, or why that is not known.
    pub io: Result<IoMarks, NoPhase>,
    /// Whether the request's I/O lies within the request.
    pub io_check: IoCheck,
    /// Its parts by I/O phase; summed over the phases they equal `parts`.
    pub phases: PhaseParts,
}

impl Breakdown {
    /// The vCPU over whose thread its end lies; `None` if it is not known.
    #[must_use]
    pub fn vcpu_of_end(&self) -> Option<VcpuId> {
        self.vcpus.of(if self.io.is_ok() { Phase::Completed } else { Phase::Unknown })
    }

    /// The latency in nanoseconds of the host's clock.
    #[must_use]
    pub fn latency_ns(&self) -> u64 {
        self.end.since_ns(self.start)
    }
}
