//! What the requests waited for: one ranked list over the phases of their I/O and the states of their
//! vCPUs.
//!
//! A state of the vCPU is a cause only while the request needs the vCPU: before its I/O is submitted to the
//! host, and after the I/O has completed. In between the request waits for the device, whatever the vCPU
//! does; that state is context and stays in [`IoClass::parts_ns`]. If the phase is unknown, the state is all
//! that is known, and it may be only context.
//!
//! In the guest's own queue a request waits for the guest: for a tag of the disk, for its scheduler, for the
//! requests before it. If its vCPU is on a pCPU or idle meanwhile, that is the guest's own. If the host keeps
//! the vCPU from a pCPU, nobody can take the request out of the queue, and the state is the cause; unless another
//! vCPU took it out in the end, and so might have before.

use super::io::IoClass;
use super::totals::{share, sum};
use super::verdict::{DOMINANT_LEAD, DOMINANT_SHARE, label};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use thiserror::Error;
use vslice_core::join::{Part, Phase};

/// A cause with at least this share of the class's time is named if nothing dominates.
pub const NAMED_SHARE: f64 = 0.1;

/// What makes up at least this share of a whole stands for the whole in a sentence.
pub const NEARLY_ALL: f64 = 0.95;

/// A cause of the latency of a class of requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// How far the host had come with the I/O.
    pub phase: Phase,
    /// The vCPU's state meanwhile; `None` for [`Phase::Device`], when the vCPU is not the cause, and for what a
    /// request waited in [`Phase::GuestQueue`] until another vCPU issued it.
    pub part: Option<Part>,
    /// The total in nanoseconds, over the attributed requests of the class.
    pub total_ns: u64,
    /// Its share of the class's `latency_ns`, in [0, 1].
    pub share: f64,
}

/// The kind of a cause: causes of one kind have the same remedy, whatever their phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Kind {
    /// The host's disk had the I/O.
    Device,
    /// It was in the guest's own queue, and the host did not keep its vCPU from anything.
    GuestQueue,
    /// The vCPU waited for a pCPU: `preempt_wait` and `wakeup_delay`.
    PcpuWait,
    /// The vCPU was on a pCPU, whether in the guest, in KVM or in the VMM.
    OnPcpu,
    /// Any other part; a guest that was idle is [`Part::Halt`] also while KVM polled for it.
    State(Part),
}

impl Kind {
    /// Every kind, in the order in which they are printed.
    pub const ALL: [Kind; 12] = [
        Kind::Device,
        Kind::GuestQueue,
        Kind::PcpuWait,
        Kind::OnPcpu,
        Kind::State(Part::Throttled),
        Kind::State(Part::BqlWait),
        Kind::State(Part::LockWait),
        Kind::State(Part::Halt),
        Kind::State(Part::HostFault),
        Kind::State(Part::IoSubmit),
        Kind::State(Part::OtherSleep),
        Kind::State(Part::Unknown),
    ];

    /// Its place in [`Kind::ALL`].
    pub(super) fn place(self) -> usize {
        match self {
            Kind::Device => 0,
            Kind::GuestQueue => 1,
            Kind::PcpuWait | Kind::State(Part::PreemptWait | Part::WakeupDelay) => 2,
            Kind::OnPcpu | Kind::State(Part::OnPcpu | Part::Guest | Part::Kvm | Part::VmmUser) => 3,
            Kind::State(Part::Throttled) => 4,
            Kind::State(Part::BqlWait) => 5,
            Kind::State(Part::LockWait) => 6,
            Kind::State(Part::Halt | Part::HaltPoll) => 7,
            Kind::State(Part::HostFault) => 8,
            Kind::State(Part::IoSubmit) => 9,
            Kind::State(Part::OtherSleep) => 10,
            Kind::State(Part::Unknown) => 11,
        }
    }

    /// Its name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Device => "device",
            Kind::GuestQueue => "guest_queue",
            Kind::PcpuWait => "pcpu_wait",
            Kind::OnPcpu => "on_pcpu",
            Kind::State(part) => part.name(),
        }
    }

    /// The kind of a vCPU's state in one phase; `None` is the phase as a whole, where the state is no cause.
    #[must_use]
    pub fn in_phase(phase: Phase, part: Option<Part>) -> Kind {
        match (phase, Kind::of(part)) {
            (Phase::GuestQueue, Kind::Device | Kind::OnPcpu | Kind::State(Part::Halt)) => {
                Kind::GuestQueue
            }
            (_, of_state) => of_state,
        }
    }

    /// The kind of a vCPU's state; `None` stands for the device.
    #[must_use]
    pub fn of(part: Option<Part>) -> Kind {
        match part {
            None => Kind::Device,
            Some(Part::PreemptWait | Part::WakeupDelay) => Kind::PcpuWait,
            Some(Part::HaltPoll) => Kind::State(Part::Halt),
            Some(part) if part.is_on_pcpu() => Kind::OnPcpu,
            Some(part) => Kind::State(part),
        }
    }

    /// Whether it is I/O inactivity once the I/O has completed.
    #[must_use]
    pub fn is_inactivity(self) -> bool {
        match self {
            Kind::PcpuWait => true,
            Kind::Device | Kind::GuestQueue | Kind::OnPcpu => false,
            Kind::State(part) => part.is_inactivity(),
        }
    }
}

impl From<Kind> for &'static str {
    fn from(kind: Kind) -> &'static str {
        kind.name()
    }
}

impl TryFrom<String> for Kind {
    type Error = UnknownKind;

    fn try_from(name: String) -> Result<Kind, UnknownKind> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or(UnknownKind { name })
    }
}

/// A name that no kind of cause has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no kind of cause is called '{name}'")]
pub struct UnknownKind {
    /// The name.
    pub name: String,
}

impl Cause {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::in_phase(self.phase, self.part)
    }

    /// The cause's name on a page: `preemption wait after I/O completion`.
    #[must_use]
    pub fn label(&self) -> String {
        match (self.phase, self.part) {
            (Phase::GuestQueue, None) => format!("{IN_GUEST_QUEUE}, for another vCPU"),
            (phase, part) => in_phase(part.map_or(IN_DISK, label), Some(phase)),
        }
    }
}

/// How the time in the device is called.
const IN_DISK: &str = "in the host's disk";

/// How the time in the guest's own queue is called.
const IN_GUEST_QUEUE: &str = "in the guest's own queue";

/// What it is and in which phase, if in one.
fn in_phase(what: &str, phase: Option<Phase>) -> String {
    match phase {
        Some(Phase::Device) | None => what.to_owned(),
        Some(Phase::GuestQueue) => format!("{what} in the guest's own queue"),
        Some(Phase::Queued) => format!("{what} before I/O submission"),
        Some(Phase::Completed) => format!("{what} after I/O completion"),
        Some(Phase::Unknown) => format!("{what}, I/O phase unknown"),
    }
}

/// The causes of one kind.
#[derive(Debug)]
pub struct Group<'a> {
    /// Which kind.
    pub kind: Kind,
    /// The causes.
    pub causes: Vec<&'a Cause>,
    /// Their total in nanoseconds.
    pub total_ns: u64,
}

impl Group<'_> {
    /// The total of the causes in one phase, in nanoseconds.
    #[must_use]
    pub fn of_phase_ns(&self, phase: Phase) -> u64 {
        self.sum_ns(|cause| cause.phase == phase)
    }

    fn of_part_ns(&self, part: Part) -> u64 {
        self.sum_ns(|cause| cause.part == Some(part))
    }

    fn sum_ns(&self, is_meant: impl Fn(&Cause) -> bool) -> u64 {
        let meant = self.causes.iter().filter(|cause| is_meant(cause));
        sum(meant.map(|cause| cause.total_ns))
    }

    /// The part that makes up nearly all of it; `None` if no part does.
    #[must_use]
    pub fn only_part(&self) -> Option<Part> {
        let mut parts = self.causes.iter().filter_map(|cause| cause.part);
        parts.find(|part| share(self.of_part_ns(*part), self.total_ns) >= NEARLY_ALL)
    }

    /// The phase in which nearly all of it lies; `None` if there is none.
    #[must_use]
    pub fn only_phase(&self) -> Option<Phase> {
        let is_only = |phase: &Phase| share(self.of_phase_ns(*phase), self.total_ns) >= NEARLY_ALL;
        Phase::ALL.into_iter().find(is_only)
    }

    /// Its name without the phase.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match (self.kind, self.only_part()) {
            (Kind::Device, _) => IN_DISK,
            (Kind::GuestQueue, _) => IN_GUEST_QUEUE,
            (_, Some(part)) | (Kind::State(part), None) => label(part),
            (Kind::OnPcpu, None) => label(Part::OnPcpu),
            (Kind::PcpuWait, None) => "waiting for a pCPU",
        }
    }

    /// Its name on a page, like [`Cause::label`].
    #[must_use]
    pub fn label(&self) -> String {
        let phase = self.only_phase().filter(|_| self.kind != Kind::GuestQueue);
        in_phase(self.what(), phase)
    }
}

/// The causes grouped by kind, the longest first.
#[must_use]
pub fn groups(causes: &[Cause]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for cause in causes {
        let kind = cause.kind();
        let place = groups.iter().position(|group| group.kind == kind).unwrap_or_else(|| {
            groups.push(Group { kind, causes: Vec::new(), total_ns: 0 });
            groups.len() - 1
        });
        groups[place].causes.push(cause);
        groups[place].total_ns = groups[place].total_ns.saturating_add(cause.total_ns);
    }
    groups.sort_by_key(|group| Reverse(group.total_ns));
    groups
}

/// How much of a whole a kind makes up, as shares of it in [0, 1].
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    /// Which kind.
    pub kind: Kind,
    /// The share of the kind.
    pub share: f64,
    /// The share of the kind in known phases.
    pub known: f64,
}

impl Weight {
    /// Whether this kind, the longest, explains the whole, given the shares of the next kind and of the
    /// device. A state of the vCPU that mostly lies in unknown phases does not, if the device is known to
    /// have as much.
    #[must_use]
    pub fn dominates(&self, next: f64, device: f64) -> bool {
        self.share >= DOMINANT_SHARE
            && self.share - next >= DOMINANT_LEAD
            && !self.may_be_device(device)
    }

    /// Whether the device is known to have as much as this kind has in known phases.
    #[must_use]
    pub fn may_be_device(&self, device: f64) -> bool {
        self.kind != Kind::Device && self.known < device && device >= NAMED_SHARE
    }
}

/// The causes of a class with this total latency, the longest first, ties in the order of phases and parts.
/// They add up to `latency_ns`; causes that took no time are left out.
#[must_use]
pub fn causes(io: &IoClass, latency_ns: u64) -> Vec<Cause> {
    let of_phase = |phase| {
        let parts: Vec<(Option<Part>, u64)> = match phase {
            Phase::Device => vec![(None, io.phases_ns.get(&phase).copied().unwrap_or(0))],
            Phase::GuestQueue => {
                let own = |part| {
                    let all_ns = io.get(phase, part);
                    (Some(part), all_ns.saturating_sub(io.queue_context(part)))
                };
                let context_ns = sum(Part::ALL.map(|part| io.queue_context(part)));
                Part::ALL.into_iter().map(own).chain([(None, context_ns)]).collect()
            }
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
    use crate::summary::SummaryBuilder;
    use crate::summary::example::{self, blocked, preempted, request, running, woken};
    use crate::summary::model::Summary;
    use proptest::prelude::*;
    use vslice_core::timeline::Reason;
    use vslice_core::units::HostNs;

    fn summary(requests: impl IntoIterator<Item = vslice_core::join::Breakdown>) -> Summary {
        let mut builder = SummaryBuilder::new(example::START, example::vms());
        requests.into_iter().for_each(|request| builder.breakdown(example::VM1, &request));
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
                "on a pCPU before I/O submission",
                "on a pCPU after I/O completion",
                "preemption wait after I/O completion",
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
