//! What the kernel tells beside its perf events.

use std::fs;
use std::str::FromStr;
use vslice_core::units::Tid;

/// A number below `/proc/sys/kernel`.
pub(super) fn sysctl<T: FromStr>(name: &str) -> Option<T> {
    fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
}

/// The process (thread group) that a thread belongs to.
pub(super) fn process_of(tid: Tid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}
