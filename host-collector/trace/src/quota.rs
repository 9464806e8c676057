//! Quotas of control groups, and what they did in a run.

use serde::{Deserialize, Serialize};
use vslice_core::units::VcpuId;

/// A CPU quota: the running time that all threads of a group together may have in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Running time in microseconds; more than a period is more than one pCPU.
    pub quota_us: u64,
    /// The period in microseconds.
    pub period_us: u64,
}

/// What a group's `cpu.stat` has counted since the group was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Throttling {
    /// `nr_throttled`: periods in which the quota was used up.
    pub throttled_count: u64,
    /// `throttled_time` or `throttled_usec`: how long runnable threads were throttled, in nanoseconds, summed
    /// over pCPUs.
    pub throttled_ns: u64,
}

/// One control group, and what its quota did in the measured window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Its directory.
    pub path: String,
    /// The vCPUs whose threads are in it, or in a group below it.
    pub vcpus: Vec<VcpuId>,
    /// Its quota just before the window; `None` if it has none.
    pub quota: Option<Quota>,
    /// Its counters just before the window.
    pub before: Throttling,
    /// Its counters just after the window; `None` if the collector was killed or the group is gone.
    pub after: Option<Throttling>,
}

impl GroupRecord {
    /// What its quota did in the window; `None` if it was never used up, or that is unknown.
    #[must_use]
    pub fn throttled(&self) -> Option<Throttling> {
        let after = self.after?;
        let throttled_count = after.throttled_count.checked_sub(self.before.throttled_count)?;
        let throttled_ns = after.throttled_ns.saturating_sub(self.before.throttled_ns);
        (throttled_count > 0).then_some(Throttling { throttled_count, throttled_ns })
    }
}
