//! What the requests waited for: one ranked list over the phases of their I/O and the states of their
//! vCPUs.
//!
//! A state of the vCPU is a cause only while the request needs the vCPU: before the host has its I/O,
//! and after the I/O is done. In between it waits for the device, whatever the vCPU does, and what that
//! was is context: it stays in [`IoClass::parts_ns`]. Where the phase is not known, the state is what
//! is known, and it may be context only.

use super::io::IoClass;
use super::totals::share;
use super::verdict::label;
use crate::join::{Part, Phase};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// A cause of the latency of a class of requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// How far the host had come with the I/O.
    pub phase: Phase,
    /// What the vCPU did meanwhile; `None` for [`Phase::Device`], of which it is no cause.
    pub part: Option<Part>,
    /// For how long, over the attributed requests of the class.
    pub total_ns: u64,
    /// The share of the class's `latency_ns`, in [0, 1].
    pub share: f64,
}

/// What kind of thing a cause is: causes of one kind have one cure, whichever phase they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The host's disk had the I/O.
    Device,
    /// The vCPU was runnable without a pCPU: `preempt_wait` and `wakeup_delay`.
    PcpuWait,
    /// The vCPU was on a pCPU, in whosever code.
    OnPcpu,
    /// Any other part.
    State(Part),
}

impl Kind {
    /// Whether it is I/O inactivity once the data is there.
    #[must_use]
    pub fn is_inactivity(self) -> bool {
        match self {
            Kind::PcpuWait => true,
            Kind::Device | Kind::OnPcpu => false,
            Kind::State(part) => part.is_inactivity(),
        }
    }
}

impl Cause {
    /// What kind of thing it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.part {
            None => Kind::Device,
            Some(Part::PreemptWait | Part::WakeupDelay) => Kind::PcpuWait,
            Some(part) if part.is_on_pcpu() => Kind::OnPcpu,
            Some(part) => Kind::State(part),
        }
    }

    /// The cause as it is called on a page: `preemption wait, the data there`.
    #[must_use]
    pub fn label(&self) -> String {
        let state = self.part.map(label);
        match (self.phase, state) {
            (_, None) | (Phase::Device, _) => "in the host's disk".to_owned(),
            (Phase::Queued, Some(state)) => format!("{state}, before the host had the I/O"),
            (Phase::Completed, Some(state)) => format!("{state}, the data there"),
            (Phase::Unknown, Some(state)) => format!("{state}, I/O phase unknown"),
        }
    }
}

/// The causes of a class of this total latency, the longest first, those of the same length in the
/// order of phases and parts. They add up to `latency_ns`; causes that took no time are left out.
#[must_use]
pub fn causes(io: &IoClass, latency_ns: u64) -> Vec<Cause> {
    let of_phase = |phase| {
        let parts: Vec<(Option<Part>, u64)> = match phase {
            Phase::Device => vec![(None, io.phases_ns.get(&phase).copied().unwrap_or(0))],
            Phase::Queued | Phase::Completed | Phase::Unknown => {
                Part::ALL.into_iter().map(|part| (Some(part), io.get(phase, part))).collect()
            }
        };
        parts.into_iter().map(move |(part, total_ns)| Cause {
            phase,
            part,
            total_ns,
            share: share(total_ns, latency_ns),
        })
    };
    let all = Phase::ALL.into_iter().flat_map(of_phase);
    let mut causes: Vec<Cause> = all.filter(|cause| cause.total_ns > 0).collect();
    causes.sort_by_key(|cause| Reverse(cause.total_ns));
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::SummaryBuilder;
    use crate::report::example::{self, blocked, preempted, request, running, woken};
    use crate::report::model::Summary;
    use crate::timeline::Reason;
    use crate::units::HostNs;
    use proptest::prelude::*;

    fn summary(requests: impl IntoIterator<Item = crate::join::Breakdown>) -> Summary {
        let mut builder = SummaryBuilder::new(example::START, example::vms());
        requests.into_iter().for_each(|request| builder.breakdown(example::VM1, request));
        builder.finish(example::facts(), &example::names())
    }

    fn row(phase: Phase, part: Option<Part>, total_ns: u64, share: f64) -> Cause {
        Cause { phase, part, total_ns, share }
    }

    #[test]
    fn the_vcpu_is_a_cause_while_the_request_needs_it_and_the_device_in_between() {
        // queued: 1000 on the pCPU; device: the rest of that stay and half of the wait; completed: the rest.
        let spans = vec![running(4_000), preempted(2_000, &[(201, 2_000)]), running(1_000)];
        let mut known = request(0, HostNs(2_000_000_000), spans);
        example::set_io(&mut known, 1_000, 5_000);
        let unknown = request(1, HostNs(3_000_000_000), vec![blocked(Reason::Halt, 3_000)]);
        let summary = summary([known, unknown]);
        assert_eq!(
            summary.causes.all,
            [
                row(Phase::Device, None, 4_000, 0.4),
                row(Phase::Unknown, Some(Part::Halt), 3_000, 0.3),
                row(Phase::Queued, Some(Part::OnPcpu), 1_000, 0.1),
                row(Phase::Completed, Some(Part::OnPcpu), 1_000, 0.1),
                row(Phase::Completed, Some(Part::PreemptWait), 1_000, 0.1),
            ]
        );
        assert_eq!(summary.io.classes.all.get(Phase::Device, Part::PreemptWait), 1_000, "context");
        let labels: Vec<String> = summary.causes.all.iter().map(Cause::label).collect();
        assert_eq!(
            labels,
            [
                "in the host's disk",
                "halt, I/O phase unknown",
                "on a pCPU, before the host had the I/O",
                "on a pCPU, the data there",
                "preemption wait, the data there",
            ]
        );
    }

    #[test]
    fn a_class_without_requests_has_no_causes() {
        assert_eq!(summary([]).causes.all, []);
    }

    proptest! {
        #[test]
        fn causes_add_up_and_are_ranked(
            drawn in prop::collection::vec((1..9_000_u64, 0..9_000_u64, 0..9_000_u64, 0..20_000_u64, 0..20_000_u64), 1..200)
        ) {
            let summary = summary((0_u64..).zip(drawn).map(|(index, (on, wait, woke, from, length))| {
                let spans = vec![running(on), preempted(wait, &[]), woken(woke)];
                let mut request = request(index, HostNs(2_000_000_000), spans);
                let total = request.latency_ns();
                if index % 4 != 0 {
                    let from = from.min(total);
                    example::set_io(&mut request, from, (from + length).min(total));
                }
                request
            }));
            for (causes, class) in [
                (&summary.causes.all, &summary.classes.all),
                (&summary.causes.p99, &summary.classes.p99),
                (&summary.causes.p999, &summary.classes.p999),
            ] {
                let total_ns: u64 = causes.iter().map(|cause| cause.total_ns).sum();
                prop_assert_eq!(total_ns, class.latency_ns);
                prop_assert!(causes.is_sorted_by_key(|cause| Reverse(cause.total_ns)));
                prop_assert!(causes.iter().all(|cause| (cause.phase == Phase::Device) == cause.part.is_none()));
            }
        }
    }
}
