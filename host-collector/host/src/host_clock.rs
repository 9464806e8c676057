//! Reads the host's clocks.

use nix::time::{ClockId, clock_gettime};
use vslice_core::clock::host_time::HostClocks;
use vslice_core::units::HostNs;

/// The current time, on the clock of all host records.
#[must_use]
pub fn host_now() -> HostNs {
    HostNs(read(ClockId::CLOCK_MONOTONIC_RAW))
}

/// The current time on that clock and on `CLOCK_REALTIME`.
#[must_use]
pub fn host_clocks_now() -> HostClocks {
    let before = host_now();
    let realtime_ns = read(ClockId::CLOCK_REALTIME);
    HostClocks { before, realtime_ns, after: host_now() }
}

fn read(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("both clocks are there since Linux 2.6.28");
    let seconds = u64::try_from(now.tv_sec()).expect("the host's date is after 1970");
    let nanoseconds = u64::try_from(now.tv_nsec()).expect("tv_nsec is in [0, 999999999]");
    seconds * 1_000_000_000 + nanoseconds
}
