//! The slowest requests, each with what happened to it, as lines that read as sentences.

use super::NAME_CHARS_MAX;
use super::page::{Page, Tone, shorten};
use super::tables::share_percent;
use crate::summary::OffReason;
use crate::summary::io::WorstIo;
use crate::summary::model::{
    AttributionName, ChainSpan, ModeSplit, NamedThread, Summary, WhyUnknown, WorstRequest,
};
use crate::summary::totals::{PartTotals, sum};
use crate::summary::verdict::label;
use std::cmp::Reverse;
use vslice_core::join::Part;
use vslice_core::timeline::Reason;
use vslice_core::units::PcpuId;
use vslice_spec::quantity::{count, counted, duration};

/// Spans of a chain that get a line of their own, the longest ones; the JSON has them all.
pub(super) const LINES_MAX: usize = 12;

/// Lines of the first page that are left for the slowest request, whatever is told before it: the blank one, its
/// heading, and where the time went.
pub(super) const LINES_MIN: usize = 11;

/// Antagonists that a line names.
const LINE_ANTAGONISTS_MAX: usize = 3;

/// Frames of a stack that a line shows.
const LINE_FRAMES_MAX: usize = 3;

pub(super) fn worst(page: &mut Page, summary: &Summary) {
    if summary.worst.is_empty() {
        return;
    }
    page.heading("Slowest requests", "time since submission, duration, what the vCPU thread did");
    for (index, request) in summary.worst.iter().enumerate() {
        let lead = format!("  {}. ", index + 1);
        page.paragraph(&lead, &heading(request), Tone::Strong);
        chain(page, &Told::of(request), LINES_MAX);
    }
}

/// The slowest request alone, with its `spans_max` longest spans.
pub(super) fn slowest(page: &mut Page, summary: &Summary, spans_max: usize) {
    let Some(request) = summary.worst.first() else { return };
    page.heading("Slowest request", &heading(request));
    chain(page, &Told::of(request), spans_max);
}

/// What happened during a request, in order of time.
pub(in crate::summary) struct Told<'a> {
    pub(in crate::summary) spans: Vec<&'a ChainSpan>,
    /// What else happened, and when since its submission.
    pub(in crate::summary) marks: Vec<(u64, String)>,
    /// Spans that were not kept.
    pub(in crate::summary) cut_count: u64,
}

impl Told<'_> {
    fn of(request: &WorstRequest) -> Told<'_> {
        Told {
            spans: request.chain.iter().collect(),
            marks: io_marks(request.io),
            cut_count: request.chain_cut_count,
        }
    }
}

pub(in crate::summary) fn heading(request: &WorstRequest) -> String {
    let shares = largest_parts(&request.parts, request.latency_ns);
    let vm = shorten(&request.vm, NAME_CHARS_MAX);
    let attribution = unattributable(request.attribution);
    let failure = failure(request.result);
    let latency = duration(request.latency_ns);
    format!(
        "{latency}: request {} of {vm} {} at {}{failure}; {shares}{attribution}",
        count(request.index),
        request.vcpu,
        since_start(request.start_ns),
    )
}

/// Why a request is not attributed, if it is not.
pub(in crate::summary) fn unattributable(attribution: AttributionName) -> &'static str {
    match attribution {
        AttributionName::Attributed => "",
        AttributionName::Lost => " (unattributable: it overlaps lost records)",
        AttributionName::Moved => " (unattributable: its thread moved between vCPUs)",
        AttributionName::Steered => {
            " (unattributable: which vCPU took its interrupt is not known, nor are its phases)"
        }
        AttributionName::NotRecorded => " (unattributable: not all of it was recorded)",
        AttributionName::Ambiguous => {
            " (unattributable: its times and vCPUs may be those of another request)"
        }
        AttributionName::Forgotten => {
            " (unattributable: more was under way, or happened meanwhile, than vslice keeps)"
        }
    }
}

pub(super) fn failure(result: i32) -> String {
    if result < 0 {
        format!(", failed with errno {}", result.unsigned_abs())
    } else {
        String::new()
    }
}

/// "at 1.234 s": seconds since the run began, to the microsecond, as logs have them.
pub(super) fn since_start(start_ns: i64) -> String {
    let sign = if start_ns < 0 { "-" } else { "" };
    let start_us = start_ns.unsigned_abs() / 1_000;
    format!("{sign}{}.{:06} s", start_us / 1_000_000, start_us % 1_000_000)
}

/// The parts that take at least 1 % of a request, the largest first.
pub(super) fn largest_parts(of: &PartTotals, latency_ns: u64) -> String {
    let mut parts: Vec<(Part, u64)> = Part::ALL
        .into_iter()
        .map(|part| (part, of.get(part)))
        .filter(|(_, part_ns)| part_ns.saturating_mul(100) >= latency_ns && *part_ns > 0)
        .collect();
    parts.sort_by_key(|(_, part_ns)| Reverse(*part_ns));
    let named: Vec<String> = parts
        .iter()
        .map(|(part, part_ns)| format!("{} {}", share_percent(*part_ns, latency_ns), label(*part)))
        .collect();
    if named.is_empty() { "nothing is known".to_owned() } else { named.join(", ") }
}

pub(super) fn chain(page: &mut Page, told: &Told<'_>, spans_max: usize) {
    let shown = longest(&told.spans, spans_max);
    let mut marks = told.marks.iter().peekable();
    let mut passed_over: Vec<&ChainSpan> = Vec::new();
    for (index, span) in told.spans.iter().enumerate() {
        while let Some((offset_ns, text)) = marks.next_if(|(at, _)| *at <= span.offset_ns) {
            shorter(page, &mut passed_over);
            mark(page, *offset_ns, text);
        }
        if shown.contains(&index) {
            shorter(page, &mut passed_over);
            line(page, span);
        } else {
            passed_over.push(*span);
        }
    }
    shorter(page, &mut passed_over);
    marks.for_each(|(offset_ns, text)| mark(page, *offset_ns, text));
    if told.cut_count > 0 {
        let cut = format!("and {} more spans, which were not kept", count(told.cut_count));
        page.paragraph(&" ".repeat(LEAD_WIDTH), &cut, Tone::Dim);
    }
}

/// What the host did for the request, with when.
pub(in crate::summary) fn io_marks(io: Option<WorstIo>) -> Vec<(u64, String)> {
    let marks = io.map(|io| {
        [(io.submitted_ns, "-> I/O to the disk"), (io.completed_ns, "<- I/O done")]
            .map(|(at, text)| (at, text.to_owned()))
    });
    marks.into_iter().flatten().collect()
}

fn mark(page: &mut Page, offset_ns: u64, text: &str) {
    let lead = format!("{:>14}{:>12}  ", format!("+{}", milliseconds(offset_ns)), "");
    page.paragraph(&lead, text, Tone::Dim);
}

/// Which spans get a line: the longest, the earlier ones first among equals.
fn longest(chain: &[&ChainSpan], spans_max: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..chain.len()).collect();
    order.sort_by_key(|index| (Reverse(chain[*index].length_ns), *index));
    order.truncate(spans_max);
    order
}

/// Those between two that have lines of their own; one alone has a line too, as it would take one anyway.
fn shorter(page: &mut Page, passed_over: &mut Vec<&ChainSpan>) {
    match passed_over.as_slice() {
        [] => {}
        [only] => line(page, only),
        [first, ..] => {
            let total_ns = sum(passed_over.iter().map(|span| span.length_ns));
            let text = format!("({} shorter spans)", passed_over.len());
            page.paragraph(&lead(first.offset_ns, total_ns), &text, Tone::Dim);
        }
    }
    passed_over.clear();
}

fn line(page: &mut Page, span: &ChainSpan) {
    let lead = lead(span.offset_ns, span.length_ns);
    let tone = if span.part.is_on_pcpu() { Tone::Dim } else { Tone::Plain };
    page.paragraph(&lead, &sentence(span), tone);
}

const LEAD_WIDTH: usize = 28;

fn lead(offset_ns: u64, length_ns: u64) -> String {
    format!("{:>14}{:>12}  ", format!("+{}", milliseconds(offset_ns)), milliseconds(length_ns))
}

/// Milliseconds to the microsecond: one unit, so that a timeline reads downwards.
fn milliseconds(length_ns: u64) -> String {
    let rounded_us = length_ns.saturating_add(500) / 1_000;
    format!("{}.{:03} ms", rounded_us / 1_000, rounded_us % 1_000)
}

/// What a span is, as its line says.
pub(in crate::summary) fn sentence(span: &ChainSpan) -> String {
    let pcpu = span.pcpu.map_or_else(|| "a pCPU".to_owned(), |pcpu: PcpuId| pcpu.to_string());
    match span.part {
        Part::OnPcpu | Part::Guest | Part::Kvm | Part::VmmUser | Part::HaltPoll => match span.split
        {
            Some(split) => format!("on {pcpu}: {}", split_up(split, span.length_ns)),
            None => format!("on {pcpu}"),
        },
        Part::PreemptWait => match (antagonists(span), idle(span)) {
            (None, None) => format!("preempted on {pcpu} by an unknown thread"),
            (None, Some(idle)) => format!("runnable, while {pcpu} was {idle}"),
            (Some(ran), None) => format!("preempted on {pcpu} by {ran}"),
            (Some(ran), Some(idle)) => format!("preempted on {pcpu} by {ran}; {idle}"),
        },
        Part::WakeupDelay => match (antagonists(span), idle(span)) {
            (None, None) => format!("woken, waiting for {pcpu}"),
            (None, Some(idle)) => format!("woken, waiting for {pcpu}, which was {idle}"),
            (Some(ran), None) => format!("woken, waiting for {pcpu}, where {ran} ran"),
            (Some(ran), Some(idle)) => {
                format!("woken, waiting for {pcpu}, where {ran} ran; {idle}")
            }
        },
        Part::Throttled => format!("throttled on {pcpu}: its CPU quota was used up"),
        Part::BqlWait if span.reason == Some(OffReason::Left(Reason::BqlFoundByBehaviour)) => {
            locked("blocked on QEMU's big lock (found by behaviour)", span)
        }
        Part::BqlWait => locked("blocked on QEMU's big lock", span),
        Part::LockWait => locked("blocked on a VMM lock", span),
        Part::HostFault => asleep("waiting for a host page fault", span),
        Part::IoSubmit => asleep("waiting for its own disk I/O", span),
        Part::Halt => asleep("halted", span),
        Part::OtherSleep => asleep("asleep in the host kernel", span),
        Part::Unknown => match span.why_unknown {
            Some(WhyUnknown::NoRule) => asleep("asleep, for an unknown reason", span),
            Some(WhyUnknown::NoStack) => asleep("asleep, no stack was recorded", span),
            Some(WhyUnknown::Lost) => "unknown: records were lost".to_owned(),
            Some(WhyUnknown::NotYetSeen) => "unknown: the thread had not been seen yet".to_owned(),
            Some(WhyUnknown::Ended) => "the thread had ended".to_owned(),
            Some(WhyUnknown::UnknownThread) => {
                "unknown: it is not known which vCPU took the interrupt".to_owned()
            }
            None => "unknown".to_owned(),
        },
    }
}

/// "1.200 ms in the guest, 0.300 ms in KVM, 0.100 ms in the VMM, 14 exits".
fn split_up(split: ModeSplit, length_ns: u64) -> String {
    let ModeSplit { guest_ns, kvm_ns, vmm_ns, halt_poll_ns, exits } = split;
    let recorded_ns = sum([guest_ns, kvm_ns, vmm_ns, halt_poll_ns]);
    let places = [
        (guest_ns, "in the guest"),
        (kvm_ns, "in KVM"),
        (vmm_ns, "in the VMM"),
        (halt_poll_ns, "halt polling"),
        (length_ns.saturating_sub(recorded_ns), "unrecorded"),
    ];
    let spent = places.into_iter().filter(|(spent_ns, _)| *spent_ns > 0);
    let mut text: Vec<String> =
        spent.map(|(spent_ns, place)| format!("{} {place}", milliseconds(spent_ns))).collect();
    if exits > 0 {
        text.push(counted(exits, "exit"));
    }
    text.join(", ")
}

/// Who ran in a wait; `None` if nobody is known.
fn antagonists(span: &ChainSpan) -> Option<String> {
    let named = span.antagonists.iter().take(LINE_ANTAGONISTS_MAX);
    let mut named: Vec<String> =
        named.map(|ran| format!("{} ({})", name(&ran.thread), milliseconds(ran.ran_ns))).collect();
    let more = span.antagonists.len().saturating_sub(LINE_ANTAGONISTS_MAX);
    if more > 0 || span.others_ns > 0 {
        named.push(if span.others_ns > 0 { "others".to_owned() } else { format!("{more} more") });
    }
    (!named.is_empty()).then(|| named.join(", "))
}

/// For how long nobody ran in a wait, if it was so.
fn idle(span: &ChainSpan) -> Option<String> {
    (span.idle_ns > 0).then(|| format!("idle ({})", milliseconds(span.idle_ns)))
}

/// A wait for a lock: the address proves which one, and who woke the thread let go of it.
fn locked(what: &str, span: &ChainSpan) -> String {
    let mut sentence = what.to_owned();
    if let Some(address) = span.lock_address {
        sentence.push_str(&format!(" at {address:#x}"));
    }
    if let Some(device) = &span.device {
        sentence.push_str(&format!(", accessing {}", shorten(device, NAME_CHARS_MAX)));
    }
    if let Some(waker) = &span.waker {
        sentence.push_str(&format!(", released by {}", name(waker)));
    }
    sentence
}

fn asleep(what: &str, span: &ChainSpan) -> String {
    let mut sentence = what.to_owned();
    if let Some(waker) = &span.waker {
        sentence.push_str(&format!(", woken by {}", name(waker)));
    }
    if !span.stack.is_empty() {
        let frames: Vec<String> = span
            .stack
            .iter()
            .take(LINE_FRAMES_MAX)
            .map(|frame| shorten(frame, NAME_CHARS_MAX))
            .collect();
        sentence.push_str(&format!("; {}", frames.join(" < ")));
    }
    sentence
}

fn name(thread: &NamedThread) -> String {
    shorten(&thread.name, NAME_CHARS_MAX)
}
