//! What kept a vCPU from running, where no request says what that cost.

use super::model::{Summary, Vcpu};
use super::reason::OffReason;
use super::totals::{share, sum};

/// A hindrance that takes less than this share of a vCPU's time is not reported.
pub(crate) const REPORTED_SHARE_MIN: f64 = 0.001;

/// One thing that kept a vCPU from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// It waited for a pCPU.
    RunDelay,
    /// It was off its pCPU for another reason: see [`vslice_core::timeline::Reason::is_hindrance`].
    Off(OffReason),
}

/// Every hindrance of a vCPU, with how long it took in nanoseconds.
pub(super) fn hindrances(vcpu: &Vcpu) -> impl Iterator<Item = (Hindrance, u64)> {
    let off = vcpu.off_cpu.iter().filter_map(|row| match row.reason {
        OffReason::Left(reason) if reason.is_hindrance() => {
            Some((Hindrance::Off(row.reason), row.total_ns))
        }
        _ => None,
    });
    std::iter::once((Hindrance::RunDelay, vcpu.wait_ns)).chain(off)
}

/// The share of a vCPU's observed time that hindrances took, in [0, 1].
pub(super) fn hindered_share(vcpu: &Vcpu) -> f64 {
    share(sum(hindrances(vcpu).map(|(_, length_ns)| length_ns)), vcpu.observed_ns)
}

/// The vCPU of which one hindrance took the largest share of its time, and how long that was in nanoseconds.
pub(crate) fn most_hindered(summary: &Summary) -> Option<(&Vcpu, Hindrance, u64)> {
    let of_vcpu =
        |vcpu| hindrances(vcpu).map(move |(hindrance, length_ns)| (vcpu, hindrance, length_ns));
    let hindered_share = |of: &(&Vcpu, Hindrance, u64)| share(of.2, of.0.observed_ns);
    let all = summary.vcpus.iter().flat_map(of_vcpu);
    all.max_by(|one, other| hindered_share(one).total_cmp(&hindered_share(other)))
}

impl Hindrance {
    /// What the vCPU was doing, as it follows the vCPU's name.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Hindrance::RunDelay => "waiting for a pCPU",
            Hindrance::Off(reason) => reason.label(),
        }
    }
}
