//! The conditions of an experiment side by side. Pure.

use vslice_report::compare::Side;
use vslice_report::compare::metrics::Metric;
use vslice_report::compare::statistics::{Interval, RESAMPLES_COUNT, mean, mean_interval};
use vslice_report::summary::Style;
use vslice_report::summary::text::page::{Page, Table, Tone};

/// What is shown of each condition; `vslice compare` has the rest.
const METRICS: [Metric; 5] = [
    Metric::TimesliceCv,
    Metric::BqlWaitPerSecond,
    Metric::LatencyP50,
    Metric::LatencyP99,
    Metric::Iops,
];

/// A row for each condition with its mean over the runs that count, and one below it with the 95 %
/// interval of that; nothing if no run counts.
#[must_use]
pub fn render(sides: &[(&str, &Side)], style: Style) -> String {
    if sides.is_empty() {
        return String::new();
    }
    let mut table = Table::new("l r r r r r r");
    let head = [String::new(), "runs".to_owned()];
    table.row(Tone::Dim, head.into_iter().chain(METRICS.map(Metric::label)));
    for (name, side) in sides {
        let means = METRICS.map(|metric| show_mean(metric, &side.values(metric)));
        let intervals = METRICS.map(|metric| show_interval(metric, &side.values(metric)));
        let head = [(*name).to_owned(), side.runs.len().to_string()];
        table.row(Tone::Plain, head.into_iter().chain(means));
        if intervals.iter().any(|text| !text.is_empty()) {
            let head = [String::new(), String::new()];
            table.row(Tone::Dim, head.into_iter().chain(intervals));
        }
    }
    let mut page = Page::new(style);
    page.table(&table);
    page.into_text()
}

fn show_mean(metric: Metric, values: &[f64]) -> String {
    mean(values).map_or_else(|| "-".to_owned(), |mean| metric.unit().show(mean))
}

fn show_interval(metric: Metric, values: &[f64]) -> String {
    let Some(Interval { low, high }) = mean_interval(values, RESAMPLES_COUNT) else {
        return String::new();
    };
    let unit = metric.unit();
    format!("[{}, {}]", unit.show(low), unit.show(high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_report::compare::Run;

    fn side(values: &[f64]) -> Side {
        let run = |value: &f64| Run {
            path: String::new(),
            readers: vec![],
            values: vec![(Metric::LatencyP50, *value)],
            slow: None,
            vcpus: vec![],
            timeslices: None,
            conditions: vec![],
            has_iothread: None,
            lost_count: 0,
            is_observed: false,
        };
        Side { path: String::new(), runs: values.iter().map(run).collect(), left_out: vec![] }
    }

    #[test]
    fn each_condition_has_its_means_and_where_they_lie() {
        let (ide, nvme) = (side(&[1e6, 3e6, 2e6]), side(&[5e6]));
        let sides = [("ide", &ide), ("nvme", &nvme)];
        let style = Style::PLAIN;
        let text = render(&sides, style);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("latency p50") && lines[0].contains("timeslice CV"), "{text}");
        assert!(lines[1].contains("ide") && lines[1].contains("2.00 ms"), "{text}");
        assert!(lines[2].contains("[1.00 ms, 3.00 ms]"), "{text}");
        assert!(lines[3].contains("nvme") && lines[3].contains("5.00 ms"), "{text}");
        assert_eq!(lines.len(), 4, "one run has no interval: {text}");
        assert_eq!(render(&[], style), "");
    }
}
