//! What kept a vCPU from its work, where no request says what that cost.

use super::model::{Summary, Vcpu};
use super::reason::OffReason;
use super::totals::{share, sum};

/// Below this share of its time a vCPU was kept from nothing worth a word.
pub(crate) const TOLD_SHARE_MIN: f64 = 0.001;

/// One thing that kept a vCPU from its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// It waited for a pCPU.
    RunDelay,
    /// It was off its pCPU for another reason: see [`vslice_core::timeline::Reason::keeps_from_work`].
    Off(OffReason),
}

/// What kept a vCPU from its work, with how long it did.
pub(super) fn keepers(vcpu: &Vcpu) -> impl Iterator<Item = (Keeper, u64)> {
    let off = vcpu.off_cpu.iter().filter_map(|row| match row.reason {
        OffReason::Left(reason) if reason.keeps_from_work() => {
            Some((Keeper::Off(row.reason), row.total_ns))
        }
        _ => None,
    });
    std::iter::once((Keeper::RunDelay, vcpu.wait_ns)).chain(off)
}

/// The share of its time for which a vCPU was kept from its work, in [0, 1].
pub(super) fn kept_share(vcpu: &Vcpu) -> f64 {
    share(sum(keepers(vcpu).map(|(_, length_ns)| length_ns)), vcpu.observed_ns)
}

/// The vCPU that one thing kept from its work for the largest share of its time, and for how long.
pub(crate) fn most_kept(summary: &Summary) -> Option<(&Vcpu, Keeper, u64)> {
    let kept = |vcpu| keepers(vcpu).map(move |(keeper, kept_ns)| (vcpu, keeper, kept_ns));
    let kept_share = |of: &(&Vcpu, Keeper, u64)| share(of.2, of.0.observed_ns);
    let all = summary.vcpus.iter().flat_map(kept);
    all.max_by(|one, other| kept_share(one).total_cmp(&kept_share(other)))
}

impl Keeper {
    /// What it did, after the vCPU's name.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Keeper::RunDelay => "waiting for a pCPU",
            Keeper::Off(reason) => reason.label(),
        }
    }
}
