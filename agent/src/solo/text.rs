//! The report as text. Everything in it is a number, a name of our own, or the path that the user
//! gave, whose control characters are left out.

use super::model::{
    Bin, Calibration, Distribution, ReadingReport, Report, StealReport, VcpuReport,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use vslice_spec::quantity::{count, duration, percent};
use vslice_workload::gap::Kind;

/// From nothing to all of a cell.
const SHADES: &[u8] = b" .:-=+*#%@";

/// The longest bar of the histogram.
const BAR_CHARS: u64 = 40;

/// The report of a run.
pub(super) fn render(report: &Report) -> String {
    let mut page = String::new();
    let clock = format!("{} at {} ticks/s", report.clock.kind, count(report.clock.ticks_per_s));
    line(&mut page, "vslice-agent solo: was my vCPU taken away?");
    line(
        &mut page,
        &format!(
            "  gaps above {}, measured by {clock}; a gap of up to {} may be an interrupt",
            duration(report.threshold_ns),
            duration(report.interrupt_max_ns)
        ),
    );
    if report.interrupted {
        line(&mut page, "  INTERRUPTED: this report covers the time until then");
    }
    for missing in &report.missing {
        line(&mut page, &format!("  note: {missing}"));
    }
    for vcpu in &report.vcpus {
        line(&mut page, "");
        of_vcpu(&mut page, vcpu);
    }
    if let Some(reading) = &report.reading {
        line(&mut page, "");
        of_reading(&mut page, reading);
    }
    page
}

/// What `--calibrate` says.
pub(super) fn calibration(calibration: &Calibration) -> String {
    let mut page = String::new();
    let clock = &calibration.clock;
    line(
        &mut page,
        &format!(
            "vslice-agent solo: resolution of the loop, measured by {} at {} ticks/s",
            clock.kind,
            count(clock.ticks_per_s)
        ),
    );
    for vcpu in &calibration.vcpus {
        let one = |label: &str, text: String| format!("  vCPU{:<4} {label:<26}{text}", vcpu.vcpu);
        let turns = format!(
            "median {}, p99.9 {}, max {}",
            duration(vcpu.iteration_p50_ns),
            duration(vcpu.iteration_p999_ns),
            duration(vcpu.iteration_max_ns)
        );
        line(&mut page, &one("one iteration", turns));
        let reads = format!(
            "median {}, p99.9 {}",
            duration(vcpu.counters_p50_ns),
            duration(vcpu.counters_p999_ns)
        );
        line(&mut page, &one("counters, blind per gap", reads));
        let shortest = format!("{} (p99.9 of the iterations)", duration(vcpu.shortest_gap_ns));
        line(&mut page, &one("shortest detectable gap", shortest));
    }
    page
}

fn of_vcpu(page: &mut String, vcpu: &VcpuReport) {
    let gaps = &vcpu.host_gaps;
    line(
        page,
        &format!(
            "vCPU{}  the host took {} of {}: {} gaps, {:.1} per second",
            vcpu.vcpu,
            percent(vcpu.host_share),
            duration(vcpu.measured_ns),
            count(gaps.count),
            vcpu.host_gaps_per_s
        ),
    );
    let header = ["", "count", "total", "mean", "CV", "p50", "p90", "p99", "p99.9", "max"]
        .map(str::to_owned);
    let mut rows = vec![header];
    for kind in Kind::ALL {
        if let Some(distribution) = vcpu.gaps.get(kind.name()) {
            rows.push(row(kind.name(), distribution));
        }
    }
    if vcpu.timeslices.count > 0 {
        rows.push(row("timeslice", &vcpu.timeslices));
    }
    table(page, &rows);
    let (told, blind) = (steal(&vcpu.steal), vcpu.cost);
    let found_ns = vcpu.parts_ns.get(Kind::GuestSwitch.name()).copied().unwrap_or(0);
    let run_delay = match vcpu.run_delay_ns {
        Some(ns) => {
            format!("{} counted by the kernel, {} found in gaps", duration(ns), duration(found_ns))
        }
        None => "unknown".to_owned(),
    };
    line(page, &format!("  steal      {told}"));
    line(page, &format!("  run delay  {run_delay}"));
    if vcpu.slow_tick_max_ns > 0 {
        let slow = duration(vcpu.slow_tick_max_ns);
        line(
            page,
            &format!(
                "  slow tick  a gap of up to {slow} may be a slow tick or another slow interrupt, so \
                it counts as unknown"
            ),
        );
    }
    let mean_ns = vcpu.measured_ns / blind.iterations.max(1);
    line(
        page,
        &format!(
            "  loop       {} iterations of {} on average, gaps included; blind for {} in {} readings, \
            at most {} at once",
            count(blind.iterations),
            duration(mean_ns),
            duration(blind.blind_ns),
            count(blind.counter_reads),
            duration(blind.blind_longest_ns)
        ),
    );
    if let Some(lost) = vcpu.lost {
        let text = format!(
            "  LOST       {} gaps between {} and {} did not fit: everything above covers the time \
            before",
            count(lost.count),
            duration(lost.first_ns),
            duration(lost.last_ns)
        );
        line(page, &text);
    }
    histogram(page, &vcpu.bins);
    timeline(page, vcpu);
}

fn timeline(page: &mut String, vcpu: &VcpuReport) {
    line(
        page,
        &format!(
            "  timeline   a cell is {}; from \" \" (nothing taken) by {} to @ (all taken by the host)",
            duration(vcpu.timeline_cell_ns),
            ". : - = + * # %"
        ),
    );
    let strip: String = vcpu.timeline.iter().map(|share| shade(*share)).collect();
    line(page, &format!("  |{strip}|"));
}

fn steal(steal: &StealReport) -> String {
    let moved = steal.moved_ns.map_or_else(String::new, |ns| {
        format!("{} in steps of {}: ", duration(ns), duration(steal.step_ns))
    });
    let meaning = match steal.told {
        "per_gap" => "excluded from CPU time, so known for each gap",
        "stood_still" => {
            "the steal clock works and did not advance, so the gaps caused by the host \
            are waits in the VMM"
        }
        "total" => "the steal clock works, but gives no steal of single gaps",
        "never" => "0 since boot, which says nothing",
        _ => "hidden from this process",
    };
    format!("{moved}{meaning}")
}

fn row(name: &str, figures: &Distribution) -> [String; 10] {
    [
        name.to_owned(),
        count(figures.count),
        duration(figures.total_ns),
        format_mean(figures.mean_ns),
        format!("{:.2}", figures.cv),
        duration(figures.p50_ns),
        duration(figures.p90_ns),
        duration(figures.p99_ns),
        duration(figures.p999_ns),
        duration(figures.max_ns),
    ]
}

/// A mean that is rounded down to a nanosecond: by way of its text, since there is no conversion
/// that could not fail silently.
fn format_mean(mean_ns: f64) -> String {
    format!("{mean_ns:.0}").parse().map_or_else(|_| "-".to_owned(), duration)
}

fn table(page: &mut String, rows: &[[String; 10]]) {
    let mut widths = [0; 10];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    for row in rows {
        let mut text = format!("  {:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        line(page, &text);
    }
}

/// One line for each bin; its bar has the letters of the kinds.
fn histogram(page: &mut String, bins: &[Bin]) {
    let total = |bin: &Bin| bin.counts.values().sum::<u64>();
    let Some(largest) = bins.iter().map(total).max() else { return };
    line(page, "  gaps by length; cause: h host, g guest, ? unknown");
    for bin in bins {
        let bar = bar(&bin.counts, largest);
        let text = format!("  {:>9}  {:>9}  {bar}", duration(bin.from_ns), count(total(bin)));
        line(page, &text);
    }
}

fn bar(counts: &BTreeMap<&'static str, u64>, largest: u64) -> String {
    let of = |wanted: fn(Kind) -> bool| {
        let kinds = Kind::ALL.into_iter().filter(|kind| wanted(*kind));
        kinds.filter_map(|kind| counts.get(kind.name())).sum::<u64>()
    };
    let host = of(Kind::is_host);
    let unknown = of(|kind| kind == Kind::Unknown);
    let guest = of(|kind| !kind.is_host() && kind != Kind::Unknown);
    let letters = [("h", host), ("g", guest), ("?", unknown)];
    let chars = |number: u64| {
        let chars = (number * BAR_CHARS).div_ceil(largest.max(1));
        usize::try_from(chars).unwrap_or(0)
    };
    letters.into_iter().map(|(letter, number)| letter.repeat(chars(number))).collect()
}

/// The darkness of a share: the lightest only for nothing, the darkest only for all (to a percent).
fn shade(share: f64) -> char {
    let steps = SHADES.len() - 2;
    let index = if share <= 0.0 {
        0
    } else if share >= 0.99 {
        steps + 1
    } else {
        (1..=steps).find(|step| share * (steps as f64) <= *step as f64).unwrap_or(steps)
    };
    char::from(SHADES[index])
}

fn of_reading(page: &mut String, reading: &ReadingReport) {
    let target: String = reading.target.chars().filter(|letter| !letter.is_control()).collect();
    let latency = &reading.latency;
    line(
        page,
        &format!(
            "Reader on vCPU{} from {target}: {} requests, p50 {}, p99 {}, max {}; {} failed, {} not \
             recorded",
            reading.vcpu,
            count(latency.count),
            duration(latency.p50_ns),
            duration(latency.p99_ns),
            duration(latency.max_ns),
            count(reading.errors),
            count(reading.dropped)
        ),
    );
    let slow = reading.slow;
    let share =
        if slow.latency_ns == 0 { 0.0 } else { slow.host_ns as f64 / slow.latency_ns as f64 };
    line(
        page,
        &format!(
            "  slower than {}: {} requests; host gaps overlap {} of their time, and more than half of \
            the time of {} of them",
            duration(reading.slow_from_ns),
            count(slow.count),
            percent(share),
            count(slow.mostly_host)
        ),
    );
    if slow.unattributable > 0 {
        line(
            page,
            &format!("  {} more requests came after gaps were lost", count(slow.unattributable)),
        );
    }
    for request in &reading.slowest {
        line(
            page,
            &format!(
                "  request {:>9} at {:>9}: {:>9}, {:>9} of it in host gaps",
                count(request.index),
                duration(request.submitted_ns),
                duration(request.latency_ns),
                duration(request.host_ns)
            ),
        );
    }
    line(
        page,
        "  While the reader has the vCPU, the loop does not, so what the host takes then is hidden in",
    );
    line(page, "  the loop's guest_switch gaps: the overlap is a lower bound.");
}

/// One line; what it ends in of blanks is left out.
fn line(page: &mut String, text: &str) {
    page.push_str(text.trim_end());
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nothing_is_light_and_only_all_is_dark() {
        for (share, letter) in [
            (0.0, ' '),
            (0.001, '.'),
            (0.125, '.'),
            (0.126, ':'),
            (0.5, '='),
            (0.98, '%'),
            (1.0, '@'),
        ] {
            assert_eq!(shade(share), letter, "{share}");
        }
    }

    #[test]
    fn what_there_is_one_of_is_seen() {
        let counts = BTreeMap::from([("host", 1), ("guest_switch", 1_000), ("unknown", 500)]);
        let bar = bar(&counts, 1_501);
        assert_eq!(bar, format!("h{}{}", "g".repeat(27), "?".repeat(14)));
    }

    #[test]
    fn columns_line_up() {
        let mut page = String::new();
        let cells = |first: &str, second: &str| {
            let mut row: [String; 10] = Default::default();
            (row[0], row[1]) = (first.to_owned(), second.to_owned());
            row
        };
        table(&mut page, &[cells("", "count"), cells("host", "1")]);
        assert_eq!(page, "        count\n  host      1\n");
    }
}
