//! Why requests could not be attributed to causes.

use super::totals::sum;
use serde::{Deserialize, Serialize};

/// Unattributable requests by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnattributableBy {
    /// They overlap an interval in which records were lost.
    pub lost: u64,
    /// Their thread moved between vCPUs meanwhile.
    pub moved: u64,
    /// Which vCPU they waited for is not known, as their completions may have been sent to another.
    #[serde(default)]
    pub steered: u64,
    /// They lie, at least in part, outside what was recorded on the host.
    pub not_recorded: u64,
    /// Their times and vCPUs may be those of other requests.
    #[serde(default)]
    pub ambiguous: u64,
    /// When they ended is not certain, as their guest's kernel hid completions of which some may have been theirs. They
    /// have no latency.
    #[serde(default)]
    pub hidden: u64,
    /// More was under way, or happened meanwhile, than vslice keeps.
    #[serde(default)]
    pub forgotten: u64,
    /// They were stamped on a vCPU whose clock is unknown. These and the next two have no latency.
    pub no_clock: u64,
    /// A clock stepped, and they were stamped on both sides of the step, or it is unknown on which side.
    pub clock_stepped: u64,
    /// They were stamped at times that a clock may have shown twice.
    pub clock_ambiguous: u64,
}

impl UnattributableBy {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let by_vcpu = [self.moved, self.steered];
        let placed = [self.lost, self.not_recorded, self.ambiguous, self.forgotten];
        sum(by_vcpu.into_iter().chain(placed).chain([self.unplaced()]))
    }

    /// Those that have no latency: they could not be placed on the host's clock, or their ends may be others'.
    #[must_use]
    pub fn unplaced(&self) -> u64 {
        sum([self.hidden, self.no_clock, self.clock_stepped, self.clock_ambiguous])
    }
}
