//! What a run's statements rest on: recorded events, samples of threads, or totals.

use serde::{Deserialize, Serialize};

/// How much of the host was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceLevel {
    /// The scheduler's counters of each thread: how long it ran and waited, without reasons.
    Totals,
    /// Samples of the threads, some hundred per second: shares of the reasons, and the totals.
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
    /// How much of the host was observed.
    pub level: EvidenceLevel,
    /// Why it is this level, as a sentence without its full stop.
    pub reason: String,
    /// Evidence that the run lacked.
    pub missing: Vec<Missing>,
}

/// How the control groups of the host's threads are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEvidence {
    /// What tells them.
    pub source: GroupSource,
    /// Why the groups of some or all threads are not known, as a sentence without its full stop; empty if
    /// those of all are.
    pub reason: String,
}

/// Of a run that says nothing of them.
impl Default for GroupEvidence {
    fn default() -> GroupEvidence {
        let reason = "this run did not record control groups".to_owned();
        GroupEvidence { source: GroupSource::Nothing, reason }
    }
}

/// What tells the control groups of the host's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupSource {
    /// Each thread's, in the default hierarchy, whenever it comes onto a watched pCPU.
    Events,
    /// Only those of the threads that were there when recording began, as `/proc` had them.
    Census,
    /// Nothing.
    Nothing,
}

/// Something that this kernel lacks, or does not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What is missing: a tracepoint, a file, ...
    pub name: String,
    /// What the report lacks because of it, as a sentence without its full stop.
    pub costs: String,
}

/// The name of user registers in [`Missing`].
pub const USER_REGISTERS: &str = "user registers";

/// The name of the kernel's symbols in [`Missing`].
pub const KERNEL_SYMBOLS: &str = "kernel symbols";

/// The name of BPF programs on the scheduler's tracepoints in [`Missing`].
pub const BPF_PROGRAMS: &str = "BPF programs";

/// The name of BPF programs on the block layer's tracepoints in [`Missing`].
pub const DISK_PROGRAMS: &str = "BPF programs for disks";

/// The tracepoints that only serve to tell for which device a vCPU needed a lock.
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
