//! What a run's statements rest on: recorded events, looks at threads, or totals.

use serde::{Deserialize, Serialize};

/// How much of the host was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceLevel {
    /// What the scheduler counts of each thread: for how long it ran and waited, and no reasons.
    Totals,
    /// Looks at the threads some hundred times a second: shares of the reasons, and the totals.
    Sampled,
    /// Every event of the scheduler: counts, lengths, and what happened to each request.
    #[default]
    Recorded,
}

impl EvidenceLevel {
    /// Its name in `run.json` and `summary.json`, and for `--evidence`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            EvidenceLevel::Totals => "totals",
            EvidenceLevel::Sampled => "sampled",
            EvidenceLevel::Recorded => "recorded",
        }
    }
}

/// What a run rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// How much of the host was seen.
    pub level: EvidenceLevel,
    /// Why not more, or why so much; a sentence without its end.
    pub reason: String,
    /// What the run went without.
    pub missing: Vec<Missing>,
}

/// Something that this kernel lacks, or does not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// A tracepoint, a file, or what else it is.
    pub name: String,
    /// What the report goes without; a sentence without its end.
    pub costs: String,
}

/// The user registers by their name in [`Missing`].
pub const USER_REGISTERS: &str = "user registers";

/// The kernel's symbols by theirs.
pub const KERNEL_SYMBOLS: &str = "kernel symbols";

/// Programs on the scheduler's tracepoints by theirs.
pub const BPF_PROGRAMS: &str = "BPF programs";

/// Programs on the block layer's tracepoints by theirs.
pub const DISK_PROGRAMS: &str = "BPF programs for disks";

/// The tracepoints that tell for which device a vCPU needed a lock, and nothing else.
pub const DEVICE_ACCESS: [&str; 3] = ["kvm/kvm_userspace_exit", "kvm/kvm_pio", "kvm/kvm_mmio"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_manifest() {
        for level in [EvidenceLevel::Totals, EvidenceLevel::Sampled, EvidenceLevel::Recorded] {
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
        }
    }

    #[test]
    fn more_evidence_is_more() {
        assert!(EvidenceLevel::Totals < EvidenceLevel::Sampled);
        assert!(EvidenceLevel::Sampled < EvidenceLevel::Recorded);
    }
}
