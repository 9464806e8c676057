//! The clock map, estimated from exchanges. Pure: samples in, map out.

use crate::units::{GuestTicks, HostNs};

/// One round trip between the collector and a guest's vCPU: four stamps on two clocks.
///
/// Causality alone says that the guest's `guest_received` was not before `host_sent`, and its
/// `guest_sent` not after `host_received`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// When the collector was about to send.
    pub host_sent: HostNs,
    /// When the guest had received.
    pub guest_received: GuestTicks,
    /// When the guest was about to answer.
    pub guest_sent: GuestTicks,
    /// When the collector had the answer.
    pub host_received: HostNs,
}

/// A guest time on the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// The estimate: the middle of what causality allows.
    pub at: HostNs,
    /// The true time is within this many nanoseconds of `at`, on either side.
    pub bound_ns: u64,
}

/// Turns the times of one vCPU into host times.
#[derive(Debug, Clone)]
pub struct ClockMap {}

/// Why there is no map.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClockError {}
