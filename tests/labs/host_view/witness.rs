//! What one run's host saw of a VM's I/O, and what its guest stamped, for the one to be held against the other.

use std::collections::HashMap;
use std::path::Path;
use vslice_core::host_view::{HandedOver, ViewedIo};
use vslice_core::join::{Attribution, Breakdown, Part};
use vslice_core::timeline::Span;
use vslice_core::units::{HostNs, Tid};
use vslice_report::analyse::analyse_with;
use vslice_report::analyse::observer::{Observer, Run, RunEnd};
use vslice_report::summary::VmIndex;

/// The VM whose I/O is looked at: the first of its run.
const VM: VmIndex = VmIndex(0);

/// The ranges of a run's host.
#[derive(Debug, Default)]
pub(crate) struct HostSide {
    /// All I/Os that were viewed, also those without a range.
    pub(crate) viewed_count: usize,
    ranges: Vec<Range>,
}

/// When an I/O was done and the VMM was handed it, and for how long nobody was there to take it, at least and at most.
#[derive(Debug, Clone, Copy)]
struct Range {
    done: HostNs,
    handed_over: HandedOver,
    least_ns: u64,
    most_ns: u64,
}

/// The requests of a run's guest.
#[derive(Debug, Default)]
pub(crate) struct GuestSide {
    requests: Vec<Seen>,
    spans: HashMap<Tid, Vec<(HostNs, HostNs, Part)>>,
    threads: HashMap<u16, Tid>,
}

/// A request: when its I/O was done, when and on which vCPU it completed, and what the join calls its inactivity.
#[derive(Debug)]
struct Seen {
    done: HostNs,
    completed: HostNs,
    vcpu: u16,
    inactivity_ns: u64,
}

/// A request that is known from both sides.
#[derive(Debug)]
struct Known {
    range: Range,
    /// For how long its vCPU was truly kept off its pCPU since the handover: at least and at most, as its moment is known
    /// from and to one only.
    kept_ns: (u64, u64),
    /// As much of that since the disk was done with it.
    kept_since_done_ns: u64,
    /// Whether it was handed over before the guest completed it.
    is_in_order: bool,
    /// As much of that as was attributed to the request.
    inactivity_ns: u64,
}

impl Observer for HostSide {
    fn host_io(&mut self, vm: VmIndex, _: Option<usize>, io: &ViewedIo) {
        self.viewed_count += usize::from(vm == VM);
        if let (VM, Ok(done), Some(handed_over), Ok(known)) =
            (vm, io.done, io.handed_over, &io.inactivity)
        {
            let (least_ns, most_ns) = (known.least_ns, known.most_ns);
            self.ranges.push(Range { done, handed_over, least_ns, most_ns });
        }
    }

    fn end(&mut self, _: &Run<'_>, _: &RunEnd<'_>) {
        self.ranges.sort_unstable_by_key(|range| range.done);
    }
}

impl Observer for GuestSide {
    fn start(&mut self, run: &Run<'_>) {
        let threads = run.manifest.vms[VM.0].threads.iter();
        self.threads = threads.filter_map(|thread| Some((thread.vcpu?.0, thread.tid))).collect();
    }

    fn span(&mut self, span: &Span) {
        let of_thread = self.spans.entry(span.tid).or_default();
        of_thread.push((span.start, span.end, Part::of(&span.state)));
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        if let (VM, Attribution::Attributed, Ok(marks)) = (vm, breakdown.attribution, breakdown.io)
        {
            let (done, vcpu) = (marks.completed, breakdown.request.vcpu_completed());
            let inactivity_ns = breakdown.phases.inactivity_ns();
            let completed = HostNs(breakdown.end.0.saturating_add(breakdown.bounds.end_ns));
            self.requests.push(Seen { done, completed, vcpu, inactivity_ns });
        }
    }

    fn end(&mut self, _: &Run<'_>, _: &RunEnd<'_>) {}
}

impl HostSide {
    /// The range of the one I/O that was done then, give or take so much.
    fn range(&self, done: HostNs, apart_ns: u64) -> Option<Range> {
        let earliest = HostNs(done.0.saturating_sub(apart_ns));
        let first = self.ranges.partition_point(|range| range.done < earliest);
        let mut near = self.ranges[first..]
            .iter()
            .take_while(|range| range.done.0 <= done.0.saturating_add(apart_ns));
        let range = near.next()?;
        near.next().is_none().then_some(*range)
    }
}

impl GuestSide {
    /// For how long the vCPU was kept off its pCPU since `from`, until it was first on one, and when that was; `None` if
    /// it is not known.
    fn kept_ns(&self, vcpu: u16, from: HostNs) -> Option<(u64, HostNs)> {
        let spans = self.spans.get(self.threads.get(&vcpu)?)?;
        let first = spans.partition_point(|(_, end, _)| *end <= from);
        let mut kept_ns = 0;
        for (start, end, part) in &spans[first..] {
            match part {
                Part::OnPcpu | Part::Guest => return Some((kept_ns, *start)),
                Part::Unknown => return None,
                part if part.is_inactivity() => kept_ns += end.since_ns((*start).max(from)),
                _ => {}
            }
        }
        None
    }

    /// The same, at least and at most, since a moment between `from` and `by`. It falls from `from` on, until the vCPU is
    /// on its pCPU, and begins anew when it leaves that.
    fn kept_between_ns(
        &self,
        vcpu: u16,
        HandedOver { from, by }: HandedOver,
    ) -> Option<(u64, u64)> {
        let (at_first, came) = self.kept_ns(vcpu, from)?;
        let (at_last, _) = self.kept_ns(vcpu, by)?;
        if came > by {
            return Some((at_last, at_first));
        }
        let spans = self.spans.get(self.threads.get(&vcpu)?)?;
        let first = spans.partition_point(|(_, end, _)| *end < from);
        let stays = spans[first..].iter().take_while(|(_, end, _)| *end <= by);
        let ends = stays.filter(|(_, _, part)| matches!(part, Part::OnPcpu | Part::Guest));
        let after = ends.map(|(_, end, _)| self.kept_ns(vcpu, *end).map(|(kept_ns, _)| kept_ns));
        let most_ns = after.collect::<Option<Vec<u64>>>()?.into_iter().fold(at_first, u64::max);
        Some((0, most_ns))
    }
}

/// How far the ranges of a host hold what a guest's stamps show.
#[derive(Debug)]
pub(crate) struct Held {
    requests_count: usize,
    viewed_count: usize,
    known: Vec<Known>,
    apart_ns: u64,
}

impl Held {
    /// Of one run: each I/O has one stamp.
    pub(crate) fn of_one(run: &Path) -> anyhow::Result<Held> {
        let (mut host, mut guest) = (HostSide::default(), GuestSide::default());
        analyse_with(run, &mut [&mut host, &mut guest])?;
        Ok(Held::new(&host, &guest, 0))
    }

    /// Of two runs of the same VM at the same time, whose stamps of one event are so far apart at most.
    pub(crate) fn of_two(host: &Path, guest: &Path, apart_ns: u64) -> anyhow::Result<Held> {
        let (mut host_side, mut guest_side) = (HostSide::default(), GuestSide::default());
        analyse_with(host, &mut [&mut host_side])?;
        analyse_with(guest, &mut [&mut guest_side])?;
        Ok(Held::new(&host_side, &guest_side, apart_ns))
    }

    fn new(host: &HostSide, guest: &GuestSide, apart_ns: u64) -> Held {
        let known = |seen: &Seen| {
            let range = host.range(seen.done, apart_ns)?;
            let (kept_since_done_ns, _) = guest.kept_ns(seen.vcpu, seen.done)?;
            Some(Known {
                range,
                kept_ns: guest.kept_between_ns(seen.vcpu, range.handed_over)?,
                kept_since_done_ns,
                is_in_order: range.handed_over.from.0 <= seen.completed.0.saturating_add(apart_ns),
                inactivity_ns: seen.inactivity_ns,
            })
        };
        Held {
            requests_count: guest.requests.len(),
            viewed_count: host.viewed_count,
            known: guest.requests.iter().filter_map(known).collect(),
            apart_ns,
        }
    }

    /// How many requests are known from both sides.
    pub(crate) fn known_count(&self) -> usize {
        self.known.len()
    }

    /// For how many of these, of one, the true figure lies within the host's range.
    pub(crate) fn share(&self) -> f64 {
        self.share_of(|known| self.holds(known, known.kept_ns))
    }

    /// For how many of these, of one, it would if the I/O were handed over as soon as the disk is done with it.
    fn share_since_done(&self) -> f64 {
        self.share_of(|known| {
            self.holds(known, (known.kept_since_done_ns, known.kept_since_done_ns))
        })
    }

    fn holds(&self, known: &Known, (at_least_ns, at_most_ns): (u64, u64)) -> bool {
        let Range { least_ns, most_ns, .. } = known.range;
        least_ns <= at_most_ns.saturating_add(self.apart_ns)
            && at_least_ns <= most_ns.saturating_add(self.apart_ns)
    }

    /// For how many of these, of one, the host says that the VMM had it before the guest completed it.
    pub(crate) fn in_order_share(&self) -> f64 {
        self.share_of(|known| known.is_in_order)
    }

    /// How much of the true figure there is in all, at least.
    pub(crate) fn kept_ns(&self) -> u64 {
        self.known.iter().map(|known| known.kept_ns.0).sum()
    }

    fn share_of(&self, is: impl Fn(&Known) -> bool) -> f64 {
        let count = self.known.iter().filter(|known| is(known)).count();
        count as f64 / self.known.len().max(1) as f64
    }

    /// All figures, as a sentence.
    pub(crate) fn words(&self) -> String {
        let sum_ms = |of: fn(&Known) -> u64| self.known.iter().map(of).sum::<u64>() as f64 / 1e6;
        format!(
            "of {} requests the host viewed {} I/Os; its range holds the true one in {:.1} % of {} ({:.1} % if that were \
             counted from the disk's end), is one figure in {:.1} %; {:.1} % were handed to the VMM before the guest \
             completed them, in all {:.1} to {:.1} ms after the disk's end; nobody took them for {:.1} to {:.1} ms in all, \
             truly {:.1} to {:.1} ms until first on a pCPU, {:.1} ms attributed from the disk's end to the guest's stamp",
            self.requests_count,
            self.viewed_count,
            100.0 * self.share(),
            self.known.len(),
            100.0 * self.share_since_done(),
            100.0 * self.share_of(|known| known.range.least_ns == known.range.most_ns),
            100.0 * self.in_order_share(),
            sum_ms(|known| known.range.handed_over.from.since_ns(known.range.done)),
            sum_ms(|known| known.range.handed_over.by.since_ns(known.range.done)),
            sum_ms(|known| known.range.least_ns),
            sum_ms(|known| known.range.most_ns),
            sum_ms(|known| known.kept_ns.0),
            sum_ms(|known| known.kept_ns.1),
            sum_ms(|known| known.inactivity_ns),
        )
    }
}
