//! What a run's statements rest on: recorded events, samples of threads, or totals.

use super::reason::OffReason;
use serde::{Deserialize, Serialize};
use vslice_core::samples::Doing;
use vslice_core::timeline::Reason;
use vslice_core::units::{Tid, VcpuId};

/// How the thread of one vCPU was scheduled, from `/proc/TID/schedstat`: the kernel's own totals, not
/// samples, brought up to date at each switch and tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledVcpu {
    /// The VM's name.
    pub vm: String,
    /// The vCPU.
    pub vcpu: VcpuId,
    /// Its thread on the host.
    pub tid: Tid,
    /// Time between the first and the last read in the measured window.
    pub observed_ns: u64,
    /// Time on a pCPU within it.
    pub on_pcpu_ns: u64,
    /// Time in which it was runnable but not on a pCPU.
    pub run_delay_ns: u64,
    /// How often it was switched in.
    pub timeslices: u64,
    /// `on_pcpu_ns` divided by `timeslices`; `None` without timeslices.
    pub timeslice_mean_ns: Option<u64>,
}

/// What was seen by sampling the threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// How often per second each vCPU was sampled, as achieved.
    pub rounds_hz: f64,
    /// The share of one pCPU that sampling took, in [0, 1]; `None` if the collector was killed.
    pub own_share: Option<f64>,
    /// How many intervals there were in which samples that were due were not taken.
    pub gaps: u64,
    /// How many sampling rounds were due in them.
    pub gap_rounds: u64,
    /// Their total length.
    pub gaps_ns: u64,
    /// What each vCPU was seen to do.
    pub vcpus: Vec<SampledVcpu>,
}

/// What one vCPU was seen to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampledVcpu {
    /// The VM's name.
    pub vm: String,
    /// The vCPU.
    pub vcpu: VcpuId,
    /// Its thread on the host.
    pub tid: Tid,
    /// How often it was sampled.
    pub looks: u64,
    /// What it did, the largest share first; the shares add up to 1 except for rounding.
    pub shares: Vec<SampledShare>,
}

/// How much of its time a vCPU did one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampledShare {
    /// `runnable`, or the name of a reason for being off a pCPU.
    pub what: SampledDoing,
    /// The lock that it slept on, if it did.
    pub lock_address: Option<u64>,
    /// How many samples showed it.
    pub looks: u64,
    /// Their share of all samples of the vCPU, in [0, 1].
    pub share: f64,
    /// The lower end of the share's 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl SampledShare {
    /// Its name on a page.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.what.0 {
            Doing::Runnable => "running or waiting",
            Doing::Off(reason) => OffReason::Left(reason).label(),
        }
    }
}

/// [`Doing`] as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub struct SampledDoing(pub Doing);

impl SampledDoing {
    /// Its name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Doing::Runnable => "runnable",
            Doing::Off(reason) => reason.name(),
        }
    }
}

impl From<SampledDoing> for &'static str {
    fn from(doing: SampledDoing) -> &'static str {
        doing.name()
    }
}

impl TryFrom<String> for SampledDoing {
    type Error = String;

    fn try_from(name: String) -> Result<SampledDoing, String> {
        let mut all =
            Reason::ALL.into_iter().map(Doing::Off).chain([Doing::Runnable]).map(SampledDoing);
        all.find(|doing| doing.name() == name)
            .ok_or_else(|| format!("{name:?} is not a state that a sample can show"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for doing in Reason::ALL.into_iter().map(Doing::Off).chain([Doing::Runnable]) {
            let json = serde_json::to_value(SampledDoing(doing)).unwrap();
            assert_eq!(serde_json::from_value::<SampledDoing>(json).unwrap().0, doing);
        }
        assert!(serde_json::from_value::<SampledDoing>("bored".into()).is_err());
    }
}
