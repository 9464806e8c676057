//! What a guest says of one of its requests.

use vslice_wire::{BlockOperation, GuestTicks, ObservedRequest, Request};

/// A request as the guest recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestRequest {
    /// One of the agent's own reader.
    Read(Request),
    /// A block request of the guest's kernel, whoever made it.
    Observed(ObservedRequest),
}

impl GuestRequest {
    /// That of the agent's own reader, if it is one.
    #[must_use]
    pub fn read(&self) -> Option<&Request> {
        match self {
            GuestRequest::Read(request) => Some(request),
            GuestRequest::Observed(_) => None,
        }
    }

    /// That of the guest's kernel, if it is one.
    #[must_use]
    pub fn observed(&self) -> Option<&ObservedRequest> {
        match self {
            GuestRequest::Observed(request) => Some(request),
            GuestRequest::Read(_) => None,
        }
    }

    /// What it does.
    #[must_use]
    pub fn operation(&self) -> BlockOperation {
        self.observed().map_or(BlockOperation::Read, |request| request.operation)
    }

    /// The vCPU on which the guest's kernel was asked for it.
    #[must_use]
    pub fn vcpu_queued(&self) -> u16 {
        match self {
            GuestRequest::Read(request) => request.vcpu_submitted,
            GuestRequest::Observed(request) => request.vcpu_queued,
        }
    }

    /// The vCPU that handed it to the disk's driver; of the reader's own the one on which it was submitted.
    #[must_use]
    pub fn vcpu_issued(&self) -> u16 {
        match self {
            GuestRequest::Read(request) => request.vcpu_submitted,
            GuestRequest::Observed(request) => request.vcpu_issued,
        }
    }

    /// When it was handed to the disk's driver; of the reader's own when it was submitted.
    #[must_use]
    pub fn issued(&self) -> GuestTicks {
        match self {
            GuestRequest::Read(request) => request.submitted,
            GuestRequest::Observed(request) => request.issued,
        }
    }

    /// The vCPU that saw that it is done.
    #[must_use]
    pub fn vcpu_completed(&self) -> u16 {
        match self {
            GuestRequest::Read(request) => request.vcpu_completed,
            GuestRequest::Observed(request) => request.vcpu_completed,
        }
    }
}
