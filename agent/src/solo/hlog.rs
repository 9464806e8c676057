//! Gap and timeslice lengths as an HdrHistogram interval log, which `HistogramLogAnalyzer`,
//! `hdrhistogram.github.io` and others read.

use super::analyse::{Analysed, VcpuSpans};
use anyhow::Context;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};
use vslice_workload::gap::{Kind, Span};

/// Lengths are told to one in a thousand.
const DIGITS: u8 = 3;

/// An hour, the largest length that can be told.
const HIGHEST_NS: u64 = 3_600_000_000_000;

const INTERVAL: Duration = Duration::from_secs(1);

/// As in the logs of the Java original: the largest value of a line is in milliseconds.
const NS_PER_MS: f64 = 1e6;

/// The log: for each second, vCPU and kind one line. `wall_start_ms` is the start of the run in
/// milliseconds since 1970.
pub(super) fn render(analysed: &Analysed, wall_start_ms: u64) -> anyhow::Result<Vec<u8>> {
    let mut lines: BTreeMap<(u64, String), Histogram<u64>> = BTreeMap::new();
    for (tag, span) in analysed.spans.iter().flat_map(tagged) {
        // A length belongs to the second in which it ended.
        let second = Duration::from_nanos(span.end_ns).as_secs();
        let line = lines.entry((second, tag));
        let new = || Histogram::new_with_bounds(1, HIGHEST_NS, DIGITS).expect("bounds in range");
        line.or_insert_with(new).saturating_record(span.length_ns());
    }
    let (mut text, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[vslice-agent solo: lengths in nanoseconds, Interval_Max in milliseconds]")
        .with_start_time(UNIX_EPOCH + Duration::from_millis(wall_start_ms))
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(&mut text, &mut serializer)?;
    for ((second, tag), lengths) in &lines {
        log.write_histogram(lengths, Duration::from_secs(*second), INTERVAL, Tag::new(tag))
            .context("a distribution has no form")?;
    }
    Ok(text)
}

fn tagged(spans: &VcpuSpans) -> impl Iterator<Item = (String, Span)> {
    let vcpu = spans.vcpu;
    let gap = move |(kind, span): &(Kind, Span)| (format!("vcpu{vcpu}_{}", kind.name()), *span);
    let timeslice = move |span: &Span| (format!("vcpu{vcpu}_timeslice"), *span);
    spans.gaps.iter().map(gap).chain(spans.timeslices.iter().map(timeslice))
}
