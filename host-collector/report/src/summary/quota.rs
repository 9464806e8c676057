//! When a CPU quota may be behind waits for a pCPU.
//!
//! A thread that is throttled while it runs leaves a trace on its stack, and its wait is `throttled`. A
//! thread that is woken while the quota is used up leaves none: it looks like any thread that waits after a
//! wakeup, and whoever has the pCPU meanwhile seems to be in its way. So if the quota was used up for long
//! enough, such waits may be due to either.

use super::model::{Summary, Vcpu};
use super::totals::{share, sum};
use serde::{Deserialize, Serialize};
use vslice_core::units::VcpuId;

/// A quota that was used up for less than this share of the waits explains none of them.
const FELT_SHARE_MIN: f64 = 0.1;

/// What the CPU quotas of the control groups of a vCPU's thread, ancestors included, did in the measured
/// window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaUse {
    /// Periods in which one of them was used up; at least 1.
    pub used_up_count: u64,
    /// How long runnable threads of those groups were throttled, in nanoseconds, summed over pCPUs: an upper
    /// bound for this vCPU.
    pub kept_off_ns: u64,
}

/// A remark that a quota of these vCPUs may be behind their waits; empty if that is unlikely. Both figures
/// are of the whole run, because it is unknown when the quota was used up.
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
