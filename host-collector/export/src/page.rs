//! `--html`: the run as one page, which holds all that it needs.
//!
//! [`PageObserver`] collects what the page is drawn from, in memory that does not grow with the run; `page/model.rs` says
//! what that is. It goes into the page as JSON, where nothing of it is markup.

mod bands;
mod cause;
mod group;
mod model;
mod over_time;
mod sample;
mod slow;
mod stays;

use self::group::{Key, Tally};
use self::model::{Data, Group, Latency, Lost, Name, SCHEMA, Worst};
use self::over_time::STRETCHES_MAX;
use self::sample::{shares, since_us};
use self::slow::{Slow, text};
use self::stays::Stays;
use crate::folded::OffCpuStacks;
use crate::html::Kind;
use std::collections::BTreeMap;
use std::io::Write;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::join::{Breakdown, GuestRequest, Part, Phase, Unplaced};
use vslice_core::task::VmIndex;
use vslice_core::text::harmless;
use vslice_core::timeline::{Span, Tasks};
use vslice_core::units::{HostNs, PcpuId};
use vslice_report::analyse::observer::{MeasuredWindow, Observer, Run, RunEnd};
use vslice_report::analyse::{teller, watched_pcpus};
use vslice_report::summary::Summary;
use vslice_report::summary::distribution::Precision;
use vslice_report::summary::model::LatencyNs;
use vslice_report::summary::observed::model::{OPERATIONS_MAX, ObservedOperation, Operation};
use vslice_report::summary::text::{Style, first_words, phase_name, render_full};
use vslice_report::summary::told::Teller;
use vslice_report::summary::verdict::label;
use vslice_trace::manifest::VmRecord;
use vslice_trace::observation::ObservationRecord;

/// One script in several files, in this order.
const KIND: Kind = Kind {
    as_text: "`vslice report --full`",
    style: "",
    script: concat!(
        include_str!("page/names.js"),
        include_str!("page/tail.js"),
        include_str!("page/advice.js"),
        include_str!("page/what_if.js"),
        include_str!("page/over_time.js"),
        include_str!("page/worst.js"),
        include_str!("page/who.js"),
        include_str!("page/vcpus.js"),
        include_str!("page/locks.js"),
        include_str!("page/flame.js"),
        include_str!("page/host_io.js"),
        include_str!("page/facts.js"),
        include_str!("page/page.js"),
    ),
};

/// Bytes that a page has at most: what any mail takes.
pub const BYTES_MAX: usize = 2_000_000;

/// Groups that are added up, of all guests together.
const TALLIES_MAX: usize = 64;

/// Groups that a page has.
const GROUPS_MAX: usize = 32;

/// Points of the samples of a page, and those that are kept while the run is told.
const POINTS_MAX: usize = 20_000;
const POINTS_KEPT_MAX: usize = 80_000;

/// Slow requests that a page draws.
const WORST_MAX: usize = 24;

/// Off-CPU stacks that a page has, and their bytes.
const STACKS_MAX: usize = 5_000;
const STACKS_BYTES_MAX: usize = 300 << 10;

/// Intervals of loss that a page has.
const LOST_MAX: usize = 200;

/// Collects what the page of a run is drawn from.
#[derive(Debug, Default)]
pub struct PageObserver {
    start: HostNs,
    /// The time of which losses are told.
    stretch: Option<MeasuredWindow>,
    vms: Vec<Vm>,
    precision_of_reads: Option<Precision>,
    tallies: BTreeMap<Key, Tally>,
    points_max: usize,
    requests_beyond: u64,
    stays: Stays,
    lost: Vec<Lost>,
    lost_beyond: u64,
    stacks: OffCpuStacks,
    teller: Option<Teller>,
}

/// What is known of a VM before the run is told.
#[derive(Debug)]
struct Vm {
    /// What its reader read, as the guest calls it.
    target: Option<String>,
    block_bytes: Option<u32>,
    observation: ObservationRecord,
}

impl Vm {
    fn of(record: &VmRecord) -> Vm {
        let target = record.guest.as_ref().map(|guest| guest.target.as_str());
        let target = target.map(|target| target.strip_prefix("/dev/").unwrap_or(target));
        Vm {
            target: target.filter(|target| !target.is_empty()).map(text),
            block_bytes: record.block_bytes,
            observation: record.observation.clone().unwrap_or_default(),
        }
    }
}

impl Observer for PageObserver {
    fn start(&mut self, run: &Run<'_>) {
        let readers = run.manifest.vms.iter().filter(|vm| vm.block_bytes.is_some()).count();
        *self = PageObserver {
            start: run.window.start,
            stretch: run.chosen.is_stretch().then(|| run.chosen.stretch()),
            vms: run.manifest.vms.iter().map(Vm::of).collect(),
            // As the summary has them, which adds up those of all VMs.
            precision_of_reads: (readers <= 1).then_some(Precision::Fine),
            points_max: POINTS_MAX,
            stays: Stays::of(watched_pcpus(run.manifest)),
            ..PageObserver::default()
        };
        self.stacks.start(run);
    }

    fn event(&mut self, event: &HostEvent, tasks: &Tasks) {
        self.stays.event(event, tasks);
        if let HostEventKind::Lost { until, .. } = event.kind {
            self.lost(event.pcpu, event.time, Some(until));
        }
    }

    fn cut_off(&mut self, pcpu: PcpuId, since: HostNs) {
        self.stays.cut_off(since);
        self.lost(pcpu, since, None);
    }

    fn span(&mut self, span: &Span) {
        self.stacks.span(span);
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        let Some(place) = self.place(Key::of(vm, &breakdown.request)) else { return };
        if let Some(tally) = self.tallies.get_mut(&place) {
            tally.add(breakdown, || Slow::of(vm, breakdown, &self.stays));
        }
        self.fit_samples();
    }

    fn unplaced_request(&mut self, vm: VmIndex, request: &GuestRequest, _: Unplaced) {
        let place = self.place(Key::of(vm, request));
        if let Some(tally) = place.and_then(|place| self.tallies.get_mut(&place)) {
            tally.unplaced += 1;
        }
    }

    fn end(&mut self, run: &Run<'_>, end: &RunEnd<'_>) {
        self.stacks.end(run, end);
        self.teller = Some(teller(run, end));
    }
}

impl PageObserver {
    /// Makes sure that a group is there; `None` if there are too many.
    fn place(&mut self, key: Key) -> Option<Key> {
        if self.tallies.contains_key(&key) {
            return Some(key);
        }
        // As many of a guest as the summary has.
        let of_guest = self.tallies.keys().filter(|of| of.vm() == key.vm() && is_observed(**of));
        let is_full = is_observed(key) && of_guest.count() >= OPERATIONS_MAX;
        if is_full || self.tallies.len() >= TALLIES_MAX {
            self.requests_beyond += 1;
            return None;
        }
        let precision = match (key, self.precision_of_reads) {
            (Key::Read(_), Some(precision)) => precision,
            _ => Precision::Coarse,
        };
        self.tallies.insert(key, Tally::new(precision, self.points_max, self.start));
        Some(key)
    }

    /// However many groups there are, their samples have no more room.
    fn fit_samples(&mut self) {
        if self.tallies.len() * self.points_max <= POINTS_KEPT_MAX {
            return;
        }
        let points: usize = self.tallies.values().map(|tally| tally.sample.len()).sum();
        if points > POINTS_KEPT_MAX {
            self.points_max /= 2;
            let points_max = self.points_max;
            self.tallies.values_mut().for_each(|tally| tally.sample.shrink(points_max));
        }
    }

    fn lost(&mut self, pcpu: PcpuId, from: HostNs, to: Option<HostNs>) {
        let end = to.unwrap_or(HostNs(u64::MAX));
        if self.stretch.is_some_and(|stretch| !stretch.touches(from, end)) {
            return;
        }
        if self.lost.len() >= LOST_MAX {
            self.lost_beyond += 1;
            return;
        }
        let since_us = |time| since_us(time, self.start);
        self.lost.push(Lost { pcpu, from_us: since_us(from), to_us: to.map(since_us) });
    }

    /// Writes the page of the run with this summary, once the run has come to its end.
    ///
    /// # Errors
    /// When it cannot be written, or the run has not come to its end.
    pub fn write(self, summary: &Summary, page: &mut impl Write) -> std::io::Result<()> {
        page.write_all(self.html(summary, BYTES_MAX)?.as_bytes())
    }

    fn html(mut self, summary: &Summary, bytes_max: usize) -> std::io::Result<String> {
        let title = text(&summary.facts.plan);
        let (mut points_max, mut worst_max) = (POINTS_MAX, WORST_MAX);
        loop {
            let data = self.data(summary, &title, [points_max, worst_max])?;
            let html = KIND.page(&title, &serde_json::to_string(&data)?);
            if html.len() <= bytes_max || points_max < GROUPS_MAX {
                return Ok(html);
            }
            // What does not fit shows less of the requests; all figures stay.
            (points_max, worst_max) = (points_max / 2, worst_max.div_ceil(2));
        }
    }

    fn data<'a>(
        &'a mut self,
        summary: &'a Summary,
        title: &'a str,
        [points_max, worst_max]: [usize; 2],
    ) -> std::io::Result<Data<'a>> {
        let ended = || std::io::Error::other("the analysis did not come to its end");
        let teller = self.teller.as_ref().ok_or_else(ended)?;
        let order = self.order(summary, teller);
        let shown = &order[..order.len().min(GROUPS_MAX)];
        // Many groups are shown in fewer stretches each.
        let stretches_max =
            STRETCHES_MAX * points_max / POINTS_MAX / shown.len().div_ceil(4).max(1);
        let lengths: Vec<usize> = shown.iter().map(|key| self.tallies[key].sample.len()).collect();
        for (key, points) in shown.iter().zip(shares(&lengths, points_max)) {
            if let Some(tally) = self.tallies.get_mut(key) {
                tally.sample.shrink(points);
                tally.over_time.fit(stretches_max);
            }
        }
        let groups = shown.iter().map(|key| self.group(*key, summary, teller)).collect();
        let hidden = order.iter().skip(GROUPS_MAX).map(|key| self.tallies[key].bands.count());
        let warnings = summary.facts.warnings.iter();
        let selection = summary.facts.selection.as_ref();
        Ok(Data {
            schema: SCHEMA,
            title,
            summary,
            sentence: harmless(&first_words(summary)),
            warnings: warnings.map(|warning| harmless(&warning.to_string())).collect(),
            full_text: render_full(summary, Style::PLAIN),
            parts: Part::ALL.map(|part| Name { name: part.name(), label: label(part) }).into(),
            phases: Phase::ALL
                .map(|phase| Name { name: phase.name(), label: phase_name(phase) })
                .into(),
            causes: cause::names(),
            part: selection.map(|of| format!("{}; {}", of.sentence(), of.left_out_sentence())),
            window_from_ns: selection.map_or(0, |of| of.since_ns),
            window_ns: selection.map_or(summary.facts.measured_ns, |of| of.until_ns),
            groups,
            requests_beyond: self.requests_beyond + hidden.sum::<u64>(),
            worst: self.worst(shown, teller, worst_max),
            lost: &self.lost,
            lost_beyond: self.lost_beyond,
            folded: self.stacks.rows(STACKS_MAX, STACKS_BYTES_MAX * worst_max / WORST_MAX),
        })
    }

    /// The groups in the order in which the summary tells of them: what the sentence is about comes first.
    fn order(&self, summary: &Summary, teller: &Teller) -> Vec<Key> {
        let answer = summary.observed.as_ref().and_then(|observed| observed.answer);
        let place = |key: &Key| match key {
            Key::Read(vm) => (0, 0, vm.0),
            Key::Observed { vm, .. } => {
                let row = place_in(summary, *key, teller);
                let is_other = usize::from(row.is_none() || row != answer);
                (1 + is_other, row.unwrap_or(usize::MAX), vm.0)
            }
        };
        let mut order: Vec<Key> = self.tallies.keys().copied().collect();
        order.sort_by_cached_key(place);
        order
    }

    fn group(&self, key: Key, summary: &Summary, teller: &Teller) -> Group {
        let tally = &self.tallies[&key];
        let vm = self.vms.get(key.vm().0);
        let faster = vm.map_or(0, |vm| key.faster(&vm.observation));
        let slower_than_us = vm.map_or(0, |vm| vm.observation.slower_than_us);
        let (disk, operation, made_by) = match key {
            Key::Read(_) => (vm.and_then(|vm| vm.target.clone()), "read", "reader"),
            Key::Observed { vm, device, operation, is_sync } => (
                Some(text(&teller.device_name(vm, device))),
                Operation::from(operation).label(is_sync),
                "guest",
            ),
        };
        Group {
            place: place_in(summary, key, teller),
            vm: text(&teller.vm_name(key.vm())),
            disk,
            operation,
            made_by,
            count: tally.bands.count() + tally.unplaced,
            attributed: tally.bands.attributed(),
            faster,
            sent_ns_from: (faster > 0).then(|| slower_than_us.saturating_mul(1_000)),
            latency_ns: latency(tally.bands.latency_ns(faster)),
            bands: tally.bands.bands(faster),
            sample: tally.sample.columns(self.start),
            over_time: tally.over_time.columns(),
        }
    }

    /// The slowest of the first group, then those of the others in turn.
    fn worst(&self, shown: &[Key], teller: &Teller, worst_max: usize) -> Vec<Worst> {
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        let depth = |place: usize| self.tallies[&shown[place]].worst.len();
        if !shown.is_empty() {
            chosen.extend((0..depth(0)).map(|rank| (0, rank)));
        }
        let deepest = (0..shown.len()).map(depth).max().unwrap_or(0);
        for rank in 0..deepest {
            chosen
                .extend((1..shown.len()).filter(|place| rank < depth(*place)).map(|of| (of, rank)));
        }
        chosen.truncate(worst_max);
        chosen.sort_unstable();
        let row = |(place, rank): (usize, usize)| {
            let key = shown[place];
            let block_bytes = self.vms.get(key.vm().0).and_then(|vm| vm.block_bytes);
            self.tallies[&key].worst[rank].row(place, teller, block_bytes)
        };
        chosen.into_iter().map(row).collect()
    }
}

/// The place of a group in the summary's `observed.operations`.
fn place_in(summary: &Summary, key: Key, teller: &Teller) -> Option<usize> {
    let Key::Observed { vm, device, operation, is_sync } = key else { return None };
    let (vm, device) = (teller.vm_name(vm), teller.device_name(vm, device));
    let operation = Operation::from(operation);
    let is_own = |row: &ObservedOperation| {
        (operation, is_sync) == (row.operation, row.is_sync) && vm == row.vm && device == row.device
    };
    summary.observed.as_ref()?.operations.iter().position(is_own)
}

fn is_observed(key: Key) -> bool {
    matches!(key, Key::Observed { .. })
}

fn latency(of: LatencyNs) -> Latency {
    let LatencyNs { min, mean, p50, p90, p99, p999, p9999, max } = of;
    Latency { min, mean, p50, p90, p99, p999, p9999, max }
}

#[cfg(test)]
mod tests;
