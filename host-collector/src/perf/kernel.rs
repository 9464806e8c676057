//! What the kernel tells beside its perf events.

use crate::units::{HostNs, Tid};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::str::FromStr;

/// A number below `/proc/sys/kernel`.
pub(super) fn sysctl<T: FromStr>(name: &str) -> Option<T> {
    fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
}

/// The process (thread group) that a thread belongs to.
pub(super) fn process_of(tid: Tid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The time on the clock of every record.
pub(super) fn now() -> HostNs {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_RAW)
        .expect("every kernel that has perf events has this clock");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    HostNs(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0))
}
