//! Latencies as an HdrHistogram interval log: for each second, kind of request and part one histogram, in the form of the
//! Java original's `HistogramLogWriter` (version 1.3), which its tools and others read.
//!
//! ```text
//! Tag=db1/guest/vdc/sync-write/latency,3.000,1.000,6412287.000,HISTFAAAA...
//! Tag=db1/guest/vdc/sync-write/preempt_wait,3.000,1.000,4210687.000,HISTFAAAA...
//! ```

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::Duration;
use vslice_core::join::{Attribution, Breakdown, GuestRequest, Part, Unplaced};
use vslice_core::task::VmIndex;
use vslice_core::text::harmless;
use vslice_core::units::HostNs;
use vslice_report::analyse::observer::{MeasuredWindow, Observer, Run, RunEnd};
use vslice_trace::manifest::VmRecord;
use vslice_wire::{BlockOperation, Dropped};

/// One in a thousand: what most tools write. More takes room, in memory and in the file.
const DIGITS: u8 = 3;

/// The longest that is told from longer ones, in nanoseconds: what a histogram that grows takes at most.
const LENGTH_MAX_NS: u64 = 1 << 62;

/// Counters of all seconds that are not written yet; at some 40 bytes each it bounds the memory, and how many seconds wait
/// for their last request.
const COUNTERS_MAX: usize = 1 << 20;

/// Kinds of requests that are told apart.
const KINDS_MAX: usize = 1024;

/// A request that ended longer than this after the measured window was, is one whose guest lies: its collector waits for
/// less.
const AFTER_MAX_NS: u64 = 60_000_000_000;

/// Writes the interval log of a run.
///
/// Requests are told in no certain order. A second is written when the counters of later ones need the room, or at the
/// end; what is told of it after that is counted, and told in a comment at the end.
pub struct LatencyLog<W: Write> {
    file: W,
    serializer: V2DeflateSerializer,
    counters_max: usize,
    window: MeasuredWindow,
    vms: Vec<Vm>,
    /// The tags of all kinds, without what is measured.
    kinds: Vec<String>,
    kind_of: HashMap<Kind, u16>,
    /// The one that is being written; it also says which lengths count as the same.
    histogram: Histogram<u64>,
    /// In the order in which they are written.
    counters: BTreeMap<Counter, u64>,
    /// All seconds before this one are written.
    open_from: u32,
    left_out: LeftOut,
    /// The first error; nothing is written after it.
    error: Option<std::io::Error>,
}

impl<W: Write> std::fmt::Debug for LatencyLog<W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LatencyLog { kinds, open_from, left_out, error, .. } = self;
        let mut told = formatter.debug_struct("LatencyLog");
        told.field("kinds", kinds).field("open_from", open_from).field("left_out", left_out);
        told.field("error", error).finish_non_exhaustive()
    }
}

/// A VM's name, and those of its disks by the numbers that requests call them.
#[derive(Debug)]
struct Vm {
    name: String,
    disks: HashMap<u16, String>,
}

/// Requests that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    vm: VmIndex,
    /// `None` of the reader's.
    device: Option<u16>,
    operation: BlockOperation,
    is_sync: bool,
}

/// One bucket of one histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Counter {
    second: u32,
    kind: u16,
    figure: Figure,
    /// The shortest length of the bucket.
    from_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Figure {
    Latency,
    Part(Part),
}

impl Figure {
    fn name(self) -> &'static str {
        match self {
            Figure::Latency => "latency",
            Figure::Part(part) => part.name(),
        }
    }
}

/// Requests that are in no histogram.
#[derive(Debug, Default)]
struct LeftOut {
    late: u64,
    outside: u64,
    other_kinds: u64,
    unplaced: u64,
    dropped: u64,
    lost_events: u64,
}

impl<W: Write> LatencyLog<W> {
    /// Into this file.
    pub fn new(file: W) -> LatencyLog<W> {
        LatencyLog::with_room(file, COUNTERS_MAX)
    }

    fn with_room(file: W, counters_max: usize) -> LatencyLog<W> {
        LatencyLog {
            file,
            serializer: V2DeflateSerializer::new(),
            counters_max,
            window: MeasuredWindow { start: HostNs(0), end: HostNs(0) },
            vms: Vec::new(),
            kinds: Vec::new(),
            kind_of: HashMap::new(),
            histogram: Histogram::new(DIGITS).expect("it is in the range [0, 5]"),
            counters: BTreeMap::new(),
            open_from: 0,
            left_out: LeftOut::default(),
            error: None,
        }
    }

    /// The file, once the run has come to its end.
    ///
    /// # Errors
    /// With the first error of writing.
    pub fn finish(self) -> std::io::Result<W> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.file),
        }
    }

    /// The second of the measured window in which a request ended. One may have ended a little after it.
    fn second_of(&self, end: HostNs) -> Option<u32> {
        let MeasuredWindow { start, end: window_end } = self.window;
        let is_near = start <= end && end.since_ns(window_end) < AFTER_MAX_NS;
        u32::try_from(end.since_ns(start) / 1_000_000_000).ok().filter(|_| is_near)
    }

    fn kind(&mut self, vm: VmIndex, request: &GuestRequest) -> Option<u16> {
        let operation = request.operation();
        let (device, is_sync) = match request {
            GuestRequest::Read(_) => (None, true),
            GuestRequest::Observed(observed) => (Some(observed.device), observed.is_sync()),
        };
        let kind = Kind { vm, device, operation, is_sync };
        if let Some(place) = self.kind_of.get(&kind) {
            return Some(*place);
        }
        let place = u16::try_from(self.kinds.len()).ok()?;
        let of = self.vms.get(vm.0).filter(|_| self.kinds.len() < KINDS_MAX)?;
        self.kinds.push(of.tag(&kind));
        self.kind_of.insert(kind, place);
        Some(place)
    }

    fn count(&mut self, second: u32, kind: u16, figure: Figure, length_ns: u64) {
        let from_ns = self.histogram.lowest_equivalent(length_ns.min(LENGTH_MAX_NS));
        *self.counters.entry(Counter { second, kind, figure, from_ns }).or_default() += 1;
    }

    /// Writes the first second that is not written yet.
    fn write_first(&mut self) {
        let Some((first, _)) = self.counters.first_key_value() else { return };
        let next = first.second.saturating_add(1);
        let later = Counter { second: next, kind: 0, figure: Figure::Latency, from_ns: 0 };
        let later = self.counters.split_off(&later);
        let counters = std::mem::replace(&mut self.counters, later);
        self.open_from = next;
        if self.error.is_none() {
            self.error = self.write(&counters).err();
        }
    }

    /// Writes the histograms of one second.
    fn write(&mut self, counters: &BTreeMap<Counter, u64>) -> std::io::Result<()> {
        let mut log =
            IntervalLogWriterBuilder::new().begin_log_with(&mut self.file, &mut self.serializer)?;
        let counters: Vec<(&Counter, &u64)> = counters.iter().collect();
        let of_one = |(counter, _): &(&Counter, &u64)| (counter.kind, counter.figure);
        for counters in counters.chunk_by(|one, next| of_one(one) == of_one(next)) {
            self.histogram.reset();
            for (counter, count) in counters {
                self.histogram.record_n(counter.from_ns, **count).map_err(std::io::Error::other)?;
            }
            let Some((Counter { second, kind, figure, .. }, _)) = counters.first() else {
                continue;
            };
            let kind = self.kinds.get(usize::from(*kind)).map_or("", String::as_str);
            let tag = format!("{kind}/{}", figure.name());
            let since = Duration::from_secs(u64::from(*second));
            log.write_histogram(&self.histogram, since, Duration::from_secs(1), Tag::new(&tag))
                .map_err(of_writing)?;
        }
        Ok(())
    }

    fn comments(&mut self, comments: &[String]) {
        if self.error.is_none() {
            let mut comments = comments.iter();
            self.error = comments.try_for_each(|text| writeln!(self.file, "#[{text}]")).err();
        }
    }
}

impl<W: Write> Observer for LatencyLog<W> {
    fn start(&mut self, run: &Run<'_>) {
        self.window = run.window;
        self.vms = run.manifest.vms.iter().map(Vm::of).collect();
        let mut comments = vec![
            "Histogram log format version 1.3".to_owned(),
            "vslice: nanoseconds, Interval_Max as well; times are seconds of the measured window; a request is in the \
             second in which it ended"
                .to_owned(),
            "latency is of all requests, each part of those that could be attributed, 0 where they had none of it"
                .to_owned(),
        ];
        comments.extend(run.manifest.vms.iter().filter_map(faster));
        comments.extend(run.part_sentence().map(|text| text.replace(']', "?")));
        self.comments(&comments);
        if self.error.is_none() {
            let legend = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"";
            self.error = writeln!(self.file, "{legend}").err();
        }
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        let Some(second) = self.second_of(breakdown.end) else {
            self.left_out.outside += 1;
            return;
        };
        if second < self.open_from {
            self.left_out.late += 1;
            return;
        }
        let Some(kind) = self.kind(vm, &breakdown.request) else {
            self.left_out.other_kinds += 1;
            return;
        };
        self.count(second, kind, Figure::Latency, breakdown.latency_ns());
        if breakdown.attribution == Attribution::Attributed {
            for part in Part::ALL {
                self.count(second, kind, Figure::Part(part), breakdown.parts.get(part));
            }
        }
        while self.counters.len() > self.counters_max {
            self.write_first();
        }
    }

    fn unplaced_request(&mut self, _: VmIndex, _: &GuestRequest, _: Unplaced) {
        self.left_out.unplaced += 1;
    }

    fn dropped_requests(&mut self, _: VmIndex, dropped: &Dropped) {
        self.left_out.dropped = self.left_out.dropped.saturating_add(dropped.count);
    }

    fn lost_observed(&mut self, _: VmIndex, lost: &Dropped) {
        self.left_out.lost_events = self.left_out.lost_events.saturating_add(lost.count);
    }

    fn end(&mut self, _: &Run<'_>, _: &RunEnd<'_>) {
        while !self.counters.is_empty() {
            self.write_first();
        }
        let comments = self.left_out.comments();
        self.comments(&comments);
        if self.error.is_none() {
            self.error = self.file.flush().err();
        }
    }
}

impl Vm {
    fn of(record: &VmRecord) -> Vm {
        let devices = record.observation.iter().flat_map(|of| &of.devices);
        Vm {
            name: record.name.clone(),
            disks: devices.map(|device| (device.number, device.name.clone())).collect(),
        }
    }

    /// Tags have no comma and no space, and `/` is between their words: what else is in a name is written as in a URL,
    /// so that no two names are alike. A disk without a name has its number.
    fn tag(&self, kind: &Kind) -> String {
        let vm = word(&self.name);
        let Some(device) = kind.device else { return format!("{vm}/reader/read") };
        let name = self.disks.get(&device);
        let disk = name.map_or_else(|| format!("#{device}"), |name| word(name));
        let operation = match (kind.operation, kind.is_sync) {
            (BlockOperation::Read, _) => "read",
            (BlockOperation::Write, true) => "sync-write",
            (BlockOperation::Write, false) => "write-back",
            (BlockOperation::Flush, _) => "flush",
            (BlockOperation::Discard, true) => "sync-discard",
            (BlockOperation::Discard, false) => "discard",
            (BlockOperation::Other, true) => "sync-other",
            (BlockOperation::Other, false) => "other",
        };
        format!("{vm}/guest/{disk}/{operation}")
    }
}

impl LeftOut {
    fn comments(&self) -> Vec<String> {
        let LeftOut { late, outside, other_kinds, unplaced, dropped, lost_events } = *self;
        let all = [
            (late, "requests of which all was known only when their second was written"),
            (outside, "requests that did not end in the measured window, nor soon after it"),
            (other_kinds, "requests of further disks and operations"),
            (unplaced, "requests without a place on the host's clock"),
            (dropped, "requests that the guest's reader could not record"),
            (lost_events, "events of requests that a guest could not record"),
        ];
        let some = all.into_iter().filter(|(count, _)| *count > 0);
        some.map(|(count, what)| format!("left out: {what}: {count}")).collect()
    }
}

/// What a guest only counted, as it was asked to.
fn faster(vm: &VmRecord) -> Option<String> {
    let slower_than_us = vm.observation.as_ref()?.slower_than_us;
    let name = harmless(&vm.name).replace(']', "?");
    (slower_than_us > 0).then(|| {
        format!("{name}: of observed requests only those of at least {slower_than_us} us are in this log")
    })
}

fn word(name: &str) -> String {
    let mut word = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            word.push(char::from(byte));
        } else {
            word.push_str(&format!("%{byte:02X}"));
        }
    }
    word
}

fn of_writing<E: std::error::Error + Send + Sync + 'static>(
    error: IntervalLogWriterError<E>,
) -> std::io::Error {
    match error {
        IntervalLogWriterError::IoError(error) => error,
        IntervalLogWriterError::SerializeError(error) => std::io::Error::other(error),
    }
}

#[cfg(test)]
#[path = "hlog_tests.rs"]
mod tests;
