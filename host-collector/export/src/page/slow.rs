//! A slow request, kept whole, and as the page draws it.

use super::bands::causes_ns;
use super::model::{BoundRow, MarkRow, PcpuRow, PhaseRow, SpanRow, StayRow, WhoRow, Worst};
use super::stays::{Found, Stay, Stays};
use std::cmp::Reverse;
use vslice_core::join::{Breakdown, GuestRequest, Part, Phase};
use vslice_core::task::VmIndex;
use vslice_core::text::harmless;
use vslice_core::timeline::ThreadState;
use vslice_core::units::{HostNs, PcpuId};
use vslice_report::summary::model::{Antagonist, Relation};
use vslice_report::summary::text::why_unphased;
use vslice_report::summary::told::{Teller, ToldSpan};

/// pCPUs of one request that are drawn.
const PCPUS_MAX: usize = 4;

/// Who ran in a span is named, the longest first, at most so many.
const WHO_MAX: usize = 3;

/// Characters of a text of one request at most: most are names, and anybody may be called anything.
const TEXT_CHARS_MAX: usize = 400;

/// A request, and who was on its pCPUs meanwhile.
#[derive(Debug)]
pub(super) struct Slow {
    vm: VmIndex,
    breakdown: Breakdown,
    pcpus: Vec<Found>,
}

/// The slowest first, the earlier ones first among equals.
pub(super) type Rank = (Reverse<u64>, HostNs, u64);

impl Slow {
    /// As it is just over.
    pub(super) fn of(vm: VmIndex, breakdown: &Breakdown, stays: &Stays) -> Slow {
        let time = breakdown.start..breakdown.end;
        let pcpus = pcpus(breakdown).into_iter().map(|pcpu| stays.on(pcpu, &time));
        Slow { vm, breakdown: breakdown.clone(), pcpus: pcpus.collect() }
    }

    pub(super) fn rank_of(breakdown: &Breakdown) -> Rank {
        let of_request = match &breakdown.request {
            GuestRequest::Read(request) => request.index,
            GuestRequest::Observed(request) => request.sector,
        };
        (Reverse(breakdown.latency_ns()), breakdown.start, of_request)
    }

    pub(super) fn rank(&self) -> Rank {
        Slow::rank_of(&self.breakdown)
    }

    /// As it is drawn; `block_bytes` is what each request of the VM's reader reads.
    pub(super) fn row(&self, group: usize, teller: &Teller, block_bytes: Option<u32>) -> Worst {
        let Slow { vm, breakdown, .. } = self;
        let told = teller.request(*vm, breakdown);
        let (sector, bytes, result) = match &breakdown.request {
            GuestRequest::Read(request) => (None, block_bytes, request.result),
            GuestRequest::Observed(request) => {
                (Some(request.sector), Some(request.bytes), request.result)
            }
        };
        let unattributable = Some(told.unattributable.trim()).filter(|words| !words.is_empty());
        Worst {
            group,
            heading: text(&told.heading),
            start_ns: told.start_ns,
            latency_ns: breakdown.latency_ns(),
            clock_bound_ns: breakdown.bounds.worst_ns(),
            bounds: bounds(breakdown),
            process: text(&told.process),
            pid: told.pid,
            sector,
            bytes: bytes.map(u64::from),
            result,
            attribution: told.attribution,
            unattributable,
            io_unknown: breakdown.io.err().map(why_unphased),
            parts_ns: Part::ALL.map(|part| breakdown.parts.get(part)),
            phases_ns: Phase::ALL.map(|phase| breakdown.phases.of(phase).total_ns()),
            causes_ns: causes_ns(breakdown),
            phases: phases(breakdown),
            spans: told.spans.iter().map(span).collect(),
            cut_spans: told.cut_count,
            pcpus: self.pcpus.iter().map(|found| self.pcpu(found, teller)).collect(),
            marks: told.marks.iter().map(mark).collect(),
        }
    }

    fn pcpu(&self, found: &Found, teller: &Teller) -> PcpuRow {
        let stays = found.stays.as_ref().ok();
        PcpuRow {
            pcpu: found.pcpu,
            stays: stays.map(|stays| stays.iter().map(|stay| self.stay(stay, teller)).collect()),
            unknown: found.stays.as_ref().err().map(|why| why.words()),
            cut_stays: found.cut_count,
            cut_ns: found.cut_ns,
        }
    }

    fn stay(&self, stay: &Stay, teller: &Teller) -> StayRow {
        let told = stay.task.as_ref().map(|task| teller.thread(task, self.vm));
        let (name, kind, group) = match told {
            Some(told) => (text(&told.name), told.kind, told.group.as_deref().map(text)),
            None => ("idle".to_owned(), Relation::Idle, None),
        };
        let since_start = |time: HostNs| time.since_ns(self.breakdown.start);
        StayRow {
            from_ns: since_start(stay.time.start),
            to_ns: since_start(stay.time.end),
            name,
            group,
            kind,
            is_own_vm: matches!(kind, Relation::OwnVmVcpu | Relation::OwnVmThread),
        }
    }
}

/// The pCPUs that the threads of its vCPUs were on or waited for, in order of time.
fn pcpus(breakdown: &Breakdown) -> Vec<PcpuId> {
    let mut pcpus: Vec<PcpuId> = Vec::new();
    for span in breakdown.chain.spans() {
        let pcpu = match span.state {
            ThreadState::Running { pcpu, .. }
            | ThreadState::WakeupDelay { pcpu, .. }
            | ThreadState::PreemptWait { pcpu, .. } => pcpu,
            ThreadState::Blocked(_) | ThreadState::Unknown { .. } => continue,
        };
        if !pcpus.contains(&pcpu) && pcpus.len() < PCPUS_MAX {
            pcpus.push(pcpu);
        }
    }
    pcpus
}

/// The times that the guest told of it, in order.
fn bounds(breakdown: &Breakdown) -> Vec<BoundRow> {
    let Breakdown { start, issued, end, bounds, .. } = breakdown;
    let times = [
        ("start", Some(*start), bounds.start_ns),
        ("issue to the disk's driver", *issued, bounds.issued_ns),
        ("end", Some(*end), bounds.end_ns),
    ];
    let told = times.into_iter().filter_map(|(what, time, bound_ns)| {
        Some(BoundRow { what, at_ns: time?.since_ns(*start), bound_ns })
    });
    told.collect()
}

/// Its phases, one after the other; those of no length are left out.
fn phases(breakdown: &Breakdown) -> Vec<PhaseRow> {
    let (start, end) = (breakdown.start, breakdown.end);
    let issued = breakdown.issued.unwrap_or(start);
    let mut stretches = vec![(Phase::GuestQueue, start, issued)];
    match breakdown.io {
        Ok(marks) => stretches.extend([
            (Phase::Queued, issued, marks.submitted),
            (Phase::Device, marks.submitted, marks.completed),
            (Phase::Completed, marks.completed, end),
        ]),
        Err(_) => stretches.push((Phase::Unknown, issued, end)),
    }
    let rows = stretches.into_iter().filter(|(_, from, to)| from < to).map(|(phase, from, to)| {
        let in_flight_ns = breakdown.phases.of(phase).total_ns();
        let gaps_ns = match phase {
            Phase::Device => to.since_ns(from).saturating_sub(in_flight_ns),
            _ => 0,
        };
        PhaseRow {
            phase: phase as usize,
            from_ns: from.since_ns(start),
            to_ns: to.since_ns(start),
            vcpu: breakdown.vcpus.of(phase),
            gaps_ns,
        }
    });
    rows.collect()
}

fn span(told: &ToldSpan) -> SpanRow {
    let span = &told.span;
    SpanRow {
        from_ns: span.offset_ns,
        to_ns: span.offset_ns.saturating_add(span.length_ns),
        part: span.part as usize,
        label: text(&told.label),
        vcpu: told.vcpu,
        pcpu: span.pcpu,
        who: span.antagonists.iter().take(WHO_MAX).map(who).collect(),
        others_ns: {
            let more = span.antagonists.iter().skip(WHO_MAX).map(|ran| ran.ran_ns);
            more.fold(span.others_ns, u64::saturating_add)
        },
        idle_ns: span.idle_ns,
    }
}

fn who(ran: &Antagonist) -> WhoRow {
    WhoRow {
        name: text(&ran.thread.name),
        group: ran.group.as_deref().map(text),
        kind: ran.thread.kind,
        ran_ns: ran.ran_ns,
    }
}

/// The arrows of the text say what the page draws.
fn mark((at_ns, label): &(u64, String)) -> MarkRow {
    let label = label.trim_start_matches("-> ").trim_start_matches("<- ");
    MarkRow { at_ns: *at_ns, label: text(label) }
}

pub(super) fn text(text: &str) -> String {
    harmless(&text.chars().take(TEXT_CHARS_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{breakdown, observed_by};
    use super::*;
    use vslice_core::join::{Attribution, Bounds};

    #[test]
    fn each_time_has_its_own_bound() {
        let request = GuestRequest::Observed(observed_by(0));
        let mut of = breakdown(50, &[400], Attribution::Attributed, request);
        (of.issued, of.bounds) =
            (Some(HostNs(70)), Bounds { start_ns: 1, issued_ns: 2, end_ns: 3 });
        let told = |of: &Breakdown| {
            bounds(of).iter().map(|row| (row.at_ns, row.bound_ns)).collect::<Vec<_>>()
        };
        assert_eq!(told(&of), [(0, 1), (20, 2), (400, 3)]);
        of.issued = None;
        assert_eq!(told(&of), [(0, 1), (400, 3)]);
    }
}
