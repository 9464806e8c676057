//! What is said of quotas beside waits for a pCPU.
//!
//! A thread that its group's quota takes off its pCPU leaves a mark, and its wait is `throttled`. One that
//! is woken while the quota is used up leaves none: it waits like anybody who was woken, and whoever has
//! the pCPU meanwhile seems to be in its way. So where the quota was used up for long enough, such waits
//! may be of either.

use super::model::{Summary, Vcpu};
use super::totals::{share, sum};
use serde::{Deserialize, Serialize};
use vslice_core::units::VcpuId;

/// A quota that was used up for less than this share of the waits explains none of them.
const FELT_SHARE_MIN: f64 = 0.1;

/// What the quotas of the control groups that a vCPU's thread is in, or below, did in the measured window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUse {
    /// Periods in which one of them was used up; at least 1.
    pub used_up_count: u64,
    /// For how long runnable threads of those groups were kept off, their pCPUs' times added up: this vCPU
    /// at most so long.
    pub kept_off_ns: u64,
}

/// That a quota of these vCPUs may be behind waits of theirs, if it may. Both are of the whole run: when in it
/// the quota was used up is not known.
pub(super) fn doubt(summary: &Summary, vcpus: &[(&str, VcpuId)]) -> String {
    let is_meant = |row: &&Vcpu| vcpus.contains(&(row.vm.as_str(), row.vcpu));
    let wait_ns = sum(summary.vcpus.iter().filter(is_meant).map(|row| row.wait_ns));
    let used = summary.vcpus.iter().filter(is_meant).filter_map(|row| row.quota);
    let used: Vec<QuotaUse> = used.collect();
    // Those of one group were counted together.
    let times = used.iter().map(|used| used.used_up_count).max();
    let kept_off_ns = sum(used.iter().map(|used| used.kept_off_ns));
    match times {
        Some(times) if share(kept_off_ns, wait_ns) >= FELT_SHARE_MIN => {
            let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
            format!(
                "; its CPU quota was used up {times} in this run, so some of this may be throttling"
            )
        }
        _ => String::new(),
    }
}
