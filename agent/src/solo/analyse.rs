//! From what the loops left behind to the report. Pure: no clock, no file.

use super::measure::{Measured, MeasuredVcpu, Reading};
use super::model::{
    Bin, ClockReport, CostReport, Distribution, GapReport, LostReport, ReadingReport, Report,
    SlowReport, SlowRequest, StealReport, VcpuReport,
};
use super::options::Solo;
use std::collections::BTreeMap;
use std::time::Duration;
use vslice_workload::clock::Clock;
use vslice_workload::gap::{
    Evidence, Figures, Kind, Parts, RawGap, Span, StealTold, Tick, TickRate, Told, evidence_of_all,
    handler_ns, shares_of_cells, slow_tick_max_ns, steal_told, taken_within, tick_lead_ns,
    timeslices,
};

/// Cells of the timeline.
const CELLS: u32 = 80;

/// How many slow requests are listed.
const SLOWEST: usize = 5;

/// Bins begin at these multiples of a power of ten.
const BIN_STEPS: [u64; 3] = [1, 2, 5];

/// The report, and the spans that its distributions are of.
#[derive(Debug)]
pub(super) struct Analysed {
    pub(super) report: Report,
    pub(super) spans: Vec<VcpuSpans>,
}

/// The gaps and timeslices of one vCPU, in order of time.
#[derive(Debug)]
pub(super) struct VcpuSpans {
    pub(super) vcpu: u16,
    pub(super) gaps: Vec<(Kind, Span)>,
    pub(super) timeslices: Vec<Span>,
    /// Where the vCPU's clock was at nanosecond 0.
    begun: u64,
    /// Up to here every gap is known.
    measured_ns: u64,
    /// The gaps of the kinds that are the host's.
    host: Vec<Span>,
}

/// One gap with what was decided of it.
#[derive(Debug, Clone, Copy)]
struct Judged {
    start_ticks: u64,
    span: Span,
    length_ns: u64,
    tick: Tick,
    /// The guest's own handler at the end of a gap of the host's, in which the vCPU was back.
    handler_ns: u64,
    parts: Parts,
}

/// Makes the report of a run.
pub(super) fn analyse(solo: &Solo, measured: &Measured) -> Analysed {
    let of_vcpu = |vcpu| analyse_vcpu(solo, measured, vcpu);
    let (vcpus, spans): (Vec<VcpuReport>, Vec<VcpuSpans>) =
        measured.vcpus.iter().map(of_vcpu).unzip();
    let reading = measured.reading.as_ref().and_then(|reading| {
        let spans = spans.iter().find(|spans| spans.vcpu == reading.vcpu)?;
        Some(lay_over(reading, spans, measured.rate, solo.slow))
    });
    let report = Report {
        schema: Report::schema(),
        threshold_ns: ns_of(solo.threshold),
        interrupt_max_ns: ns_of(solo.interrupt_max),
        clock: ClockReport::new(solo.clock, measured.rate),
        interrupted: measured.interrupted,
        missing: missing(solo.clock, measured, &vcpus),
        vcpus,
        reading,
    };
    Analysed { report, spans }
}

fn analyse_vcpu(solo: &Solo, measured: &Measured, vcpu: &MeasuredVcpu) -> (VcpuReport, VcpuSpans) {
    let (rate, outcome) = (measured.rate, &vcpu.outcome);
    let evidence = evidence_of_all(&outcome.gaps, &outcome.last, rate);
    let (told, steal) = told_of(solo, measured, vcpu, &evidence);
    let judge = |(gap, evidence): (&RawGap, &Evidence)| Judged {
        start_ticks: gap.start,
        span: Span {
            start_ns: rate.ns(gap.start.saturating_sub(outcome.begun)),
            end_ns: rate.ns(gap.end.saturating_sub(outcome.begun)),
        },
        length_ns: evidence.length_ns,
        tick: evidence.tick,
        handler_ns: handler_ns(evidence, &told),
        parts: Parts::of(evidence, &told),
    };
    let judged: Vec<Judged> = outcome.gaps.iter().zip(&evidence).map(judge).collect();
    let known_until = outcome.lost.map_or(outcome.ended, |lost| lost.first);
    let spans = spans_of(vcpu.vcpu, &judged, outcome.begun, known_until, rate);
    let measured_ns = spans.measured_ns;
    let host_ns: u64 = judged.iter().map(|gap| gap.parts.host_ns()).sum();
    let host_gaps = Figures::of(of_kinds(&judged, Kind::is_host));
    let schedstats = outcome.first.schedstat.zip(outcome.last.schedstat);
    let report = VcpuReport {
        vcpu: vcpu.vcpu,
        measured_ns,
        slow_tick_max_ns: told.slow_tick_max_ns,
        host_gaps: host_gaps.into(),
        host_gaps_per_s: per(host_gaps.count as f64 * 1e9, measured_ns),
        host_share: per(host_ns as f64, measured_ns),
        gaps: by_kind(|kind| {
            let figures = Figures::of(of_kinds(&judged, |other| other == kind));
            (figures.count > 0).then(|| figures.into())
        }),
        parts_ns: by_kind(|kind| {
            let total_ns: u64 = judged.iter().map(|gap| gap.parts.ns(kind)).sum();
            (total_ns > 0).then_some(total_ns)
        }),
        timeslices: Figures::of(spans.timeslices.iter().map(|span| span.length_ns())).into(),
        timeline: shares_of_cells(&spans.host, measured_ns, CELLS),
        timeline_cell_ns: measured_ns / u64::from(CELLS),
        bins: bins_of(&judged),
        steal,
        run_delay_ns: schedstats
            .map(|(first, last)| last.run_delay_ns.saturating_sub(first.run_delay_ns)),
        cost: CostReport {
            iterations: outcome.iterations,
            blind_ns: rate.ns(outcome.blind_ticks),
            blind_longest_ns: rate.ns(outcome.blind_longest_ticks),
            counter_reads: outcome.counter_reads,
        },
        lost: outcome.lost.map(|lost| LostReport {
            count: lost.count,
            first_ns: rate.ns(lost.first.saturating_sub(outcome.begun)),
            last_ns: rate.ns(lost.last.saturating_sub(outcome.begun)),
        }),
        gap_list: solo.gaps.then(|| judged.iter().map(gap_report).collect()),
    };
    (report, spans)
}

/// What the counters of this vCPU are worth.
fn told_of(
    solo: &Solo,
    measured: &Measured,
    vcpu: &MeasuredVcpu,
    evidence: &[Evidence],
) -> (Told, StealReport) {
    let interrupt_max_ns = ns_of(solo.interrupt_max);
    let splits = || evidence.iter().map(Evidence::split);
    let uncounted_ns: u64 = splits().map(|split| split.uncounted_ns).sum();
    let counted = splits().map(|split| split.counted_ns);
    let counted_ns: u64 = counted.filter(|ns| *ns > interrupt_max_ns).sum();
    let step_ns = measured.step_ns;
    let (outcome, gaps_ns) = (&vcpu.outcome, evidence.iter().map(|one| one.length_ns).sum());
    let lasted_ns = measured.rate.ns(outcome.ended.saturating_sub(outcome.begun));
    let ran_ns = lasted_ns.saturating_sub(gaps_ns);
    let slow_tick_max_ns = slow_tick_max_ns(evidence, interrupt_max_ns, ran_ns);
    let tick_lead_ns = tick_lead_ns(evidence, interrupt_max_ns.max(slow_tick_max_ns));
    let Some((before, after)) = vcpu.times else {
        let told = Told {
            interrupt_max_ns,
            slow_tick_max_ns,
            tick_lead_ns,
            steal: StealTold::Never,
            interrupts_may_be_uncounted: true,
        };
        return (told, StealReport { told: "untold", moved_ns: None, step_ns });
    };
    let moved_ns = after.steal_ns.saturating_sub(before.steal_ns);
    let steal = steal_told(after.steal_ns, moved_ns, step_ns, uncounted_ns, counted_ns);
    let name = match steal {
        StealTold::PerGap => "per_gap",
        StealTold::StoodStill => "stood_still",
        StealTold::Total => "total",
        StealTold::Never => "never",
    };
    let interrupts_may_be_uncounted = after.irq_ns > 0;
    let told = Told {
        interrupt_max_ns,
        slow_tick_max_ns,
        tick_lead_ns,
        steal,
        interrupts_may_be_uncounted,
    };
    (told, StealReport { told: name, moved_ns: Some(moved_ns), step_ns })
}

fn spans_of(
    vcpu: u16,
    judged: &[Judged],
    begun: u64,
    known_until: u64,
    rate: TickRate,
) -> VcpuSpans {
    let gaps: Vec<(Kind, Span)> = judged.iter().map(|gap| (gap.parts.kind(), gap.span)).collect();
    // The vCPU was back before its handler of the pending tick let the loop see that.
    let taken = |gap: &Judged| Span {
        end_ns: gap.span.end_ns.saturating_sub(gap.handler_ns).max(gap.span.start_ns),
        ..gap.span
    };
    let host = judged.iter().filter(|gap| gap.parts.kind().is_host()).map(taken);
    let host: Vec<Span> = host.collect();
    let measured_ns = rate.ns(known_until.saturating_sub(begun));
    VcpuSpans { vcpu, gaps, timeslices: timeslices(&host), begun, measured_ns, host }
}

/// The lengths of the gaps whose kind `wanted` wants.
fn of_kinds(judged: &[Judged], wanted: impl Fn(Kind) -> bool) -> impl Iterator<Item = u64> {
    judged.iter().filter(move |gap| wanted(gap.parts.kind())).map(|gap| gap.length_ns)
}

fn by_kind<Value>(of: impl Fn(Kind) -> Option<Value>) -> BTreeMap<&'static str, Value> {
    Kind::ALL.into_iter().filter_map(|kind| Some((kind.name(), of(kind)?))).collect()
}

fn gap_report(gap: &Judged) -> GapReport {
    GapReport {
        start_ticks: gap.start_ticks,
        start_ns: gap.span.start_ns,
        length_ns: gap.length_ns,
        kind: gap.parts.kind().name(),
        tick_after_ns: match gap.tick {
            Tick::After { start_ns } => Some(start_ns),
            Tick::Outside | Tick::Untold => None,
        },
        parts_ns: by_kind(|kind| Some(gap.parts.ns(kind)).filter(|ns| *ns > 0)),
    }
}

/// The gaps in bins of 1, 2, 5, 10, ...; from the first bin that has one to the last.
fn bins_of(judged: &[Judged]) -> Vec<Bin> {
    let mut bins: BTreeMap<u64, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for gap in judged {
        let counts = bins.entry(bin_from(gap.length_ns)).or_default();
        *counts.entry(gap.parts.kind().name()).or_default() += 1;
    }
    let ends = bins.keys().next().copied().zip(bins.keys().next_back().copied());
    let Some((first, last)) = ends else { return Vec::new() };
    edges()
        .skip_while(|from_ns| *from_ns < first)
        .take_while(|from_ns| *from_ns <= last)
        .map(|from_ns| Bin { from_ns, counts: bins.remove(&from_ns).unwrap_or_default() })
        .collect()
}

fn edges() -> impl Iterator<Item = u64> {
    let powers = (0..19).map(|exponent| 10_u64.pow(exponent));
    powers.flat_map(|power| BIN_STEPS.map(|step| power.saturating_mul(step)))
}

/// The largest edge that is not above `length_ns`, which is the first for 0.
fn bin_from(length_ns: u64) -> u64 {
    edges().take_while(|from_ns| *from_ns <= length_ns).last().unwrap_or(1)
}

/// Lays the host's gaps over the slow requests.
fn lay_over(
    reading: &Reading,
    spans: &VcpuSpans,
    rate: TickRate,
    slow: Option<Duration>,
) -> ReadingReport {
    let requests = reading.requests.iter().map(|record| {
        let at = |ticks: u64| rate.ns(ticks.saturating_sub(spans.begun));
        let span = Span { start_ns: at(record.submitted), end_ns: at(record.completed) };
        (record.index, span)
    });
    let requests: Vec<(u64, Span)> = requests.collect();
    let latency = Figures::of(requests.iter().map(|(_, span)| span.length_ns()));
    let slow_from_ns = slow.map_or(latency.p99_ns, ns_of);
    let is_slow = |(_, span): &&(u64, Span)| span.length_ns() > slow_from_ns;
    let (known, unknown): (Vec<_>, Vec<_>) =
        requests.iter().filter(is_slow).partition(|(_, span)| span.end_ns <= spans.measured_ns);
    let mut slowest: Vec<SlowRequest> = known
        .into_iter()
        .map(|&(index, span)| SlowRequest {
            index,
            submitted_ns: span.start_ns,
            latency_ns: span.length_ns(),
            host_ns: taken_within(&spans.host, span),
        })
        .collect();
    let slow = SlowReport {
        count: slowest.len() as u64,
        latency_ns: slowest.iter().map(|request| request.latency_ns).sum(),
        host_ns: slowest.iter().map(|request| request.host_ns).sum(),
        mostly_host: slowest.iter().filter(|one| one.host_ns * 2 > one.latency_ns).count() as u64,
        unattributable: unknown.len() as u64,
    };
    slowest.sort_by_key(|request| std::cmp::Reverse(request.latency_ns));
    slowest.truncate(SLOWEST);
    ReadingReport {
        target: reading.target.clone(),
        vcpu: reading.vcpu,
        latency: Distribution::from(latency),
        errors: reading.end.io_errors + reading.end.short_reads,
        dropped: reading.dropped,
        slow_from_ns,
        slow,
        slowest,
    }
}

/// What this machine does not tell, and what follows.
fn missing(clock: Clock, measured: &Measured, vcpus: &[VcpuReport]) -> Vec<String> {
    let mut missing = Vec::new();
    if !clock.is_tsc() {
        missing.push(
            "the TSC may not be invariant, so the loop reads CLOCK_MONOTONIC_RAW; if that clock is not \
            based on the TSC, each reading is an exit to the VMM; use --clock tsc if you know that the \
            TSC is invariant"
                .to_owned(),
        );
    }
    if !measured.has_schedstat {
        missing.push(
            "no /proc/thread-self/schedstat (CONFIG_SCHED_INFO): waits for another thread are \
            recognised by context switches only, and ticks not at all"
                .to_owned(),
        );
    }
    let told: Vec<&str> = vcpus.iter().map(|vcpu| vcpu.steal.told).collect();
    if told.contains(&"untold") {
        missing.push("no /proc/stat: steal is hidden from this process".to_owned());
    }
    if told.contains(&"never") {
        missing.push(
            "steal has been 0 since boot: this guest may have no steal clock, so steal cannot be \
            distinguished from waits in the VMM"
                .to_owned(),
        );
    }
    if told.contains(&"total") {
        missing.push(
            "the steal clock gives totals but not single gaps (no CONFIG_PARAVIRT_TIME_ACCOUNTING, or \
            too little steal to see it): gaps caused by the host are not divided into steal and waits \
            in the VMM"
                .to_owned(),
        );
    }
    missing
}

fn per(value: f64, over_ns: u64) -> f64 {
    if over_ns == 0 { 0.0 } else { value / over_ns as f64 }
}

fn ns_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "analyse_tests.rs"]
mod tests;
