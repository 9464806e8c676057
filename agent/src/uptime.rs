//! The time for deadlines, as opposed to stamps.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The time since some start, as fine as a kernel tick (1 to 10 ms).
///
/// `Instant::now` would read the guest's clock source, and where that is not the TSC (`hpet` under
/// QEMU's TCG) each read is an exit that takes QEMU's big lock: the streamer would cause what vslice
/// measures. `CLOCK_MONOTONIC_COARSE` only reads what the last tick left in the vDSO page.
pub(crate) fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .expect("Linux has had this clock since 2.6.32")
        .into()
}
