//! What one request has of each cause.

use crate::summary::causes::Kind;
use crate::summary::latency::wait_ns;
use crate::summary::runners::GroupKey;
use crate::summary::totals::sum;
use std::sync::Arc;
use vslice_core::join::{Breakdown, NoPhase, Part, Phase};
use vslice_core::task::Task;
use vslice_core::timeline::{Covers, Who};

/// What could be taken away of a request, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Taken {
    /// As it was measured.
    pub(super) told_ns: u64,
    /// At least, whatever clock errors and what is unknown make of it; at most `told_ns`.
    pub(super) least_ns: u64,
    /// At most; at least `told_ns`.
    pub(super) most_ns: u64,
}

/// What could be taken away of a request, of every kind of cause.
pub(super) struct TakenOfRequest {
    pub(super) causes: [Taken; Kind::ALL.len()],
    pub(super) inactivity: Taken,
    pub(super) groups: Groups,
}

/// By which groups of antagonists a request waited.
#[derive(Default)]
pub(super) struct Groups {
    /// Each with one of its tasks, and with what it ran.
    pub(super) rows: Vec<(GroupKey, Arc<Task>, Taken)>,
    /// How long the request waited while somebody ran who is not told apart.
    pub(super) unnamed_ns: u64,
    /// What any other group may have had of it.
    pub(super) anyone_most_ns: u64,
}

impl TakenOfRequest {
    pub(super) fn of(breakdown: &Breakdown) -> TakenOfRequest {
        let (mut told, mut doubtful) = ([0_u64; Kind::ALL.len()], [0_u64; Kind::ALL.len()]);
        let is_phased = is_phased(breakdown);
        for (phase, kind, length_ns) in waited(breakdown) {
            let place = kind.place();
            told[place] = told[place].saturating_add(length_ns);
            // It may be only context: what the vCPU did while the disk had the I/O.
            if phase == Phase::Unknown && !is_phased {
                doubtful[place] = doubtful[place].saturating_add(length_ns);
            }
        }
        let errors_ns = errors_by_kind_ns(breakdown);
        let latency_ns = breakdown.latency_ns();
        let unknown_ns = told[Kind::State(Part::Unknown).place()];
        let causes = Kind::ALL.map(|kind| {
            let (told_ns, doubtful_ns) = (told[kind.place()], doubtful[kind.place()]);
            let error_ns = errors_ns[kind.place()];
            let more_ns = match kind {
                Kind::Device if is_phased => 0,
                Kind::Device => breakdown.phases.of(Phase::Unknown).total_ns(),
                Kind::State(Part::Unknown) => 0,
                Kind::GuestQueue | Kind::PcpuWait | Kind::OnPcpu | Kind::State(_) => unknown_ns,
            };
            Taken {
                told_ns,
                least_ns: told_ns.saturating_sub(doubtful_ns).saturating_sub(error_ns),
                most_ns: sum([told_ns, error_ns, more_ns]).min(latency_ns),
            }
        });
        let place = Kind::PcpuWait.place();
        let groups = Groups::of(
            breakdown,
            told[place],
            told[place].saturating_sub(doubtful[place]),
            (errors_ns[place], unknown_ns),
        );
        TakenOfRequest { causes, inactivity: inactivity(breakdown), groups }
    }
}

/// Whether it is known what the request waited for in each phase: also of one that the page cache served, as no disk
/// had it.
fn is_phased(breakdown: &Breakdown) -> bool {
    matches!(breakdown.io, Ok(_) | Err(NoPhase::PageCache))
}

/// What the request waited for, as [`crate::summary::causes`] tells it of a class.
fn waited(breakdown: &Breakdown) -> impl Iterator<Item = (Phase, Kind, u64)> {
    Phase::ALL.into_iter().flat_map(move |phase| {
        let parts = breakdown.phases.of(phase);
        let is_context = match phase {
            Phase::Device => true,
            Phase::GuestQueue => !breakdown.vcpus.is_waited_for(phase),
            Phase::Queued | Phase::Completed | Phase::Unknown => false,
        };
        let whole = is_context.then(|| (phase, Kind::in_phase(phase, None), parts.total_ns()));
        let of_part = move |part| (phase, Kind::in_phase(phase, Some(part)), parts.get(part));
        let some = Part::ALL.into_iter().filter(|part| parts.get(*part) > 0);
        let each = (!is_context).then(|| some.map(of_part));
        whole.into_iter().chain(each.into_iter().flatten())
    })
}

/// By how much clock errors may change what a request has of each kind, by its place.
fn errors_by_kind_ns(breakdown: &Breakdown) -> [u64; Kind::ALL.len()] {
    let mut errors_ns = [0_u64; Kind::ALL.len()];
    for part in Part::ALL {
        let error_ns = &mut errors_ns[Kind::of(Some(part)).place()];
        *error_ns = error_ns.saturating_add(breakdown.clock_error.parts.get(part));
    }
    let queue_error_ns = queue_error_ns(breakdown);
    // At the end of the guest's own queue, these become another kind.
    for own_of_guest in [Kind::OnPcpu, Kind::State(Part::Halt)] {
        let error_ns = &mut errors_ns[own_of_guest.place()];
        *error_ns = error_ns.saturating_add(queue_error_ns);
    }
    errors_ns[Kind::GuestQueue.place()] = queue_error_ns;
    errors_ns[Kind::Device.place()] = device_error_ns(breakdown);
    errors_ns
}

/// The host's own clock says when it had the I/O. What is off are the request's ends, which cut it if they are moved
/// that far, or have cut it.
fn device_error_ns(breakdown: &Breakdown) -> u64 {
    let Ok(marks) = breakdown.io else { return 0 };
    let (bounds, handed_over) = (&breakdown.bounds, breakdown.issued.unwrap_or(breakdown.start));
    let before_ns = marks.submitted.since_ns(handed_over);
    let after_ns = breakdown.end.since_ns(marks.completed);
    let start_bound_ns = bounds.start_ns.max(bounds.issued_ns);
    sum([start_bound_ns.saturating_sub(before_ns), bounds.end_ns.saturating_sub(after_ns)])
}

/// The guest's own queue lies between two times of the guest. By one clock they are off alike.
fn queue_error_ns(breakdown: &Breakdown) -> u64 {
    let (bounds, vcpus) = (&breakdown.bounds, &breakdown.vcpus);
    match breakdown.issued {
        None => 0,
        Some(_) if vcpus.queued == vcpus.issued => bounds.start_ns.max(bounds.issued_ns),
        Some(_) => bounds.start_ns.saturating_add(bounds.issued_ns),
    }
}

fn inactivity(breakdown: &Breakdown) -> Taken {
    let told_ns = breakdown.phases.inactivity_ns();
    let inactive = Part::ALL.into_iter().filter(|part| part.is_inactivity());
    let error_ns = sum(inactive.map(|part| breakdown.clock_error.parts.get(part)));
    // Of a vCPU that is not known, nothing is; and where the phases are not, the I/O may have been done all the time.
    let mut more_ns = breakdown.phases.of(Phase::Completed).get(Part::Unknown);
    if !is_phased(breakdown) {
        let unknown = breakdown.phases.of(Phase::Unknown);
        let may_be = |part: &Part| part.is_inactivity() || *part == Part::Unknown;
        let parts = Part::ALL.into_iter().filter(may_be).map(|part| unknown.get(part));
        more_ns = more_ns.saturating_add(sum(parts));
    }
    Taken {
        told_ns,
        least_ns: told_ns.saturating_sub(error_ns),
        most_ns: sum([told_ns, error_ns, more_ns]).min(breakdown.latency_ns()),
    }
}

impl Groups {
    /// Of a request that waited for a pCPU for so long in phases in which that is a cause, and for so long in such
    /// that are certain to be; by how much that may be off, and how long a state is unknown.
    fn of(
        breakdown: &Breakdown,
        cause_ns: u64,
        certain_ns: u64,
        (error_ns, unknown_ns): (u64, u64),
    ) -> Groups {
        let (mut rows, mut named_ns) = (Vec::<(GroupKey, Arc<Task>, u64)>::new(), 0_u64);
        for (pcpu, ran) in breakdown.waits.rows() {
            let task = match (&ran.who, pcpu) {
                (Who::Thread(task), Some(_)) => task,
                (Who::Idle, _) => {
                    named_ns = named_ns.saturating_add(ran.ran_ns);
                    continue;
                }
                (Who::Others | Who::Thread(_), _) => continue,
            };
            let key = GroupKey::of(task);
            // Many names whose group is not known are not one group.
            if matches!((&key, ran.covers), (GroupKey::Name(_), Covers::Group)) {
                continue;
            }
            named_ns = named_ns.saturating_add(ran.ran_ns);
            match rows.iter_mut().find(|(of, ..)| *of == key) {
                Some((.., ran_ns)) => *ran_ns = ran_ns.saturating_add(ran.ran_ns),
                None => rows.push((key, Arc::clone(task), ran.ran_ns)),
            }
        }
        // Who ran is known of all of a reader's waits, also while the disk had the I/O. So a group took at most what
        // the waits did that are a cause, and at least what does not fit into the others.
        let waited_ns = wait_ns(breakdown);
        let no_cause_ns = waited_ns.saturating_sub(certain_ns);
        let unnamed_ns = waited_ns.saturating_sub(named_ns);
        let latency_ns = breakdown.latency_ns();
        let most_ns = |ran_ns: u64| {
            let waited_ns = ran_ns.saturating_add(unnamed_ns).min(cause_ns);
            sum([waited_ns, error_ns, unknown_ns]).min(latency_ns)
        };
        let taken = |ran_ns: u64| Taken {
            told_ns: ran_ns.min(cause_ns),
            least_ns: ran_ns.min(waited_ns).saturating_sub(no_cause_ns).saturating_sub(error_ns),
            most_ns: most_ns(ran_ns),
        };
        let rows = rows.into_iter().map(|(key, task, ran_ns)| (key, task, taken(ran_ns)));
        Groups {
            rows: rows.collect(),
            unnamed_ns: unnamed_ns.min(cause_ns),
            anyone_most_ns: most_ns(0),
        }
    }
}
