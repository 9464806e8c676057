//! The clock that stamps all events.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;
use vslice_wire::GuestTicks;

/// What it shows.
#[must_use]
pub fn now() -> GuestTicks {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_RAW);
    GuestTicks(nanos(time.expect("Linux has had this clock since 2.6.28").into()))
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
