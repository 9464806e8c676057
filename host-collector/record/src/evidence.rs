//! How a run sees what its guests' threads do: as well as the host lets it, or as it was told.

use crate::error::RecordingError;
use crate::perf::offer::costs_of;
use crate::perf::{self, RecordError};
use crate::sampling::{NOTHING_VISIBLE, ThreadVisibility};
use serde::{Deserialize, Serialize};
use vslice_core::text::sentence;
use vslice_trace::evidence::{Evidence, EvidenceLevel, Missing};

/// How a run is asked to observe its VMs' threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EvidenceSetting {
    /// The best level that this host allows.
    #[default]
    Auto,
    /// Every scheduler event; an error if that is not possible.
    Recorded,
    /// The threads' states, sampled a thousand times a second: shares, but no counts and no causes of
    /// single requests.
    Sampled,
    /// The scheduler's counters of each thread: time on a pCPU and run delay, but no reasons.
    Totals,
}

/// The level of evidence to try first, and whether a lower one is acceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidencePlan {
    setting: EvidenceSetting,
    level: EvidenceLevel,
    reason: String,
}

impl EvidencePlan {
    /// Makes the plan before the guests run: checks whether events can be recorded. Whether a VMM's
    /// threads can be sampled is only known once it runs.
    ///
    /// # Errors
    /// Fails if events have to be recorded and cannot be, or on an error that would spoil any run.
    pub fn of_host(setting: EvidenceSetting) -> Result<EvidencePlan, RecordingError> {
        let asked = |level| Ok(EvidencePlan { setting, level, reason: ASKED.to_owned() });
        match setting {
            EvidenceSetting::Sampled => asked(EvidenceLevel::Sampled),
            EvidenceSetting::Totals => asked(EvidenceLevel::Totals),
            EvidenceSetting::Recorded => {
                perf::check_rights()?;
                asked(EvidenceLevel::Recorded)
            }
            EvidenceSetting::Auto => {
                let level = EvidenceLevel::Recorded;
                let mut plan = EvidencePlan { setting, level, reason: RECORDABLE.to_owned() };
                if let Err(error) = perf::check_rights() {
                    plan.fall(error)?;
                }
                Ok(plan)
            }
        }
    }

    /// Recording has failed: sampling is next, if that will do.
    ///
    /// # Errors
    /// The same error, if it will not.
    pub(crate) fn fall(&mut self, error: RecordError) -> Result<(), RecordingError> {
        if self.setting != EvidenceSetting::Auto || !lacks_means(&error) {
            return Err(error.into());
        }
        self.level = EvidenceLevel::Sampled;
        self.reason = sentence(&error);
        Ok(())
    }

    /// What is left now that it is known what the kernel shows of the VMMs' threads.
    ///
    /// # Errors
    /// [`RecordingError::NothingVisible`] if the run must be sampled.
    pub(crate) fn settle(self, shown: ThreadVisibility) -> Result<Evidence, RecordingError> {
        let EvidencePlan { setting, mut level, mut reason } = self;
        let mut missing = Vec::new();
        let mut lacks = |name: &str, costs: &str| {
            missing.push(Missing { name: name.to_owned(), costs: costs.to_owned() });
        };
        if level == EvidenceLevel::Sampled {
            match shown {
                ThreadVisibility::Both => {}
                ThreadVisibility::CallsOnly => {
                    lacks(
                        "/proc/PID/wchan",
                        "what a vCPU waits for in KVM and in faults is unknown",
                    );
                }
                ThreadVisibility::FunctionsOnly => {
                    lacks("/proc/PID/syscall", "locks cannot be distinguished by their addresses");
                }
                ThreadVisibility::Nothing if setting == EvidenceSetting::Sampled => {
                    return Err(RecordingError::NothingVisible);
                }
                ThreadVisibility::Nothing => {
                    level = EvidenceLevel::Totals;
                    reason = format!("{reason}; and {NOTHING_VISIBLE}");
                }
            }
        }
        Ok(Evidence { level, reason, missing })
    }

    /// What is said of a run that ended before it could see anything.
    pub(crate) fn planned(&self) -> Evidence {
        Evidence { level: self.level, reason: self.reason.clone(), missing: Vec::new() }
    }

    /// What to try.
    pub(crate) fn level(&self) -> EvidenceLevel {
        self.level
    }
}

const ASKED: &str = "asked for";
const RECORDABLE: &str = "scheduler events can be recorded here";

/// Adds what a recording went without.
pub(crate) fn note_missing(evidence: &mut Evidence, names: &[&'static str]) {
    evidence.missing.extend(
        names
            .iter()
            .map(|name| Missing { name: (*name).to_owned(), costs: costs_of(name).to_owned() }),
    );
}

/// Whether an error says that this host does not let this user record, rather than that something
/// is wrong.
fn lacks_means(error: &RecordError) -> bool {
    match error {
        RecordError::NotPermitted { .. }
        | RecordError::NoPerf
        | RecordError::NoTracefs(_)
        | RecordError::NoTracepoint { .. }
        | RecordError::BadFormat { .. }
        | RecordError::PidNamespace
        | RecordError::TooManyFiles { .. }
        | RecordError::MlockLimit { .. } => true,
        RecordError::PcpuOffline(_)
        | RecordError::Kernel { .. }
        | RecordError::Host { .. }
        | RecordError::CorruptRing { .. }
        | RecordError::Sink(_)
        | RecordError::ReaderGone => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::units::PcpuId;

    fn plan(setting: EvidenceSetting, level: EvidenceLevel) -> EvidencePlan {
        EvidencePlan { setting, level, reason: "first".to_owned() }
    }

    #[test]
    fn only_a_run_that_may_falls_and_only_where_means_are_lacking() {
        let denied = || RecordError::NotPermitted { paranoid: Some(2) };
        let mut auto = plan(EvidenceSetting::Auto, EvidenceLevel::Recorded);
        auto.fall(denied()).unwrap();
        assert_eq!(auto.level(), EvidenceLevel::Sampled);
        assert!(
            auto.reason.starts_with("no permission to record scheduler events"),
            "{}",
            auto.reason
        );
        let mut strict = plan(EvidenceSetting::Recorded, EvidenceLevel::Recorded);
        assert!(strict.fall(denied()).is_err());
        let mut auto = plan(EvidenceSetting::Auto, EvidenceLevel::Recorded);
        assert!(auto.fall(RecordError::PcpuOffline(PcpuId(9))).is_err());
    }

    #[test]
    fn what_the_kernel_shows_decides_between_shares_and_totals() {
        let auto = || plan(EvidenceSetting::Auto, EvidenceLevel::Sampled);
        let both = auto().settle(ThreadVisibility::Both).unwrap();
        assert_eq!((both.level, both.missing.len()), (EvidenceLevel::Sampled, 0));
        let calls = auto().settle(ThreadVisibility::CallsOnly).unwrap();
        assert_eq!(calls.missing[0].name, "/proc/PID/wchan");
        let functions = auto().settle(ThreadVisibility::FunctionsOnly).unwrap();
        assert_eq!(functions.missing[0].name, "/proc/PID/syscall");
        let nothing = auto().settle(ThreadVisibility::Nothing).unwrap();
        assert_eq!(nothing.level, EvidenceLevel::Totals);
        assert!(nothing.reason.starts_with("first; and the kernel shows"), "{}", nothing.reason);
        let strict = plan(EvidenceSetting::Sampled, EvidenceLevel::Sampled);
        assert!(matches!(
            strict.settle(ThreadVisibility::Nothing),
            Err(RecordingError::NothingVisible)
        ));
        let totals = plan(EvidenceSetting::Totals, EvidenceLevel::Totals);
        assert_eq!(totals.settle(ThreadVisibility::Nothing).unwrap().level, EvidenceLevel::Totals);
    }
}
