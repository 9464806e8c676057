//! The sentence about the observed requests that matter most.
//!
//! Which these are is decided by what a user suffers: of the operations that somebody waits for (reads, flushes,
//! and writes marked so) the one whose slowest hundredth took longest together. So one that is often a little slow
//! comes before one that is seldom used, unless that is very slow, and how fast most are does not matter. What is
//! written back later comes only where nobody waits for anything. See [`Observed::answer`].
//!
//! [`Observed::answer`]: super::model::Observed::answer

use super::model::{ObservedEnd, ObservedGuest, ObservedOperation, ObservedProcess, Operation};
use crate::summary::members::Members;
use crate::summary::model::Summary;
use crate::summary::sentence::{ClassAnswer, Subject};
use crate::summary::totals::{share, sum};
use crate::summary::verdict::left_out;
use vslice_core::units::VcpuId;
use vslice_spec::quantity::{count, counted, duration, known_duration, whole_percent};
use vslice_trace::evidence::EvidenceLevel;

/// A process with at least this share of what was suffered is named.
const NAMED_SHARE: f64 = 0.1;

/// The requests of which the reader made this share are the reader's.
const READERS_SHARE_MIN: f64 = 0.9;

/// Processes that the sentence names at most.
const NAMED_MAX: usize = 2;

/// The operation that the answer is about, and its guest.
#[must_use]
pub fn subject(summary: &Summary) -> Option<(&ObservedOperation, &ObservedGuest)> {
    let observed = summary.observed.as_ref()?;
    let row = observed.operations.get(observed.answer?)?;
    let guest = observed.guests.iter().find(|guest| guest.vm == row.vm)?;
    Some((row, guest))
}

/// Whether what the answer is about are the requests of vslice's own reader, which have an answer of their own.
pub(in crate::summary) fn is_of_reader(summary: &Summary) -> bool {
    subject(summary).is_some_and(|(row, guest)| {
        let matched = guest.reader.as_ref().map_or(0, |check| check.matched);
        row.operation == Operation::Read && share(matched, row.count) >= READERS_SHARE_MIN
    })
}

/// What is said of observed requests; `None` if nobody observed. The names in it come from guests and hosts.
pub(in crate::summary) fn sentence(summary: &Summary) -> Option<String> {
    let observed = summary.observed.as_ref()?;
    if let Some(unobserved) = unobserved(summary) {
        return Some(format!("{unobserved}."));
    }
    let Some((row, guest)) = subject(summary) else {
        return Some(without_latencies(observed.operations.as_slice(), &observed.guests));
    };
    let limit = slower_than(guest);
    let p99 = match (row.latency_ns.p99, &limit) {
        (None, Some(limit)) => format!("below {limit}"),
        (p99, _) => known_duration(p99),
    };
    let opening =
        format!("99th percentile of {} of {} {}: {p99}.", row.plural(), row.vm, row.device);
    if summary.facts.evidence.level != EvidenceLevel::Recorded {
        return Some(format!("{opening} What happened to single requests was not recorded."));
    }
    let (class, io, causes) = if row.has_tail() {
        (&row.classes.p99, &row.io.p99, &row.causes.p99)
    } else {
        (&row.classes.all, &row.io.all, &row.causes.all)
    };
    if class.count == 0 {
        return Some(format!(
            "{opening} {} could be attributed to causes: they overlap losses, lie outside the recording, or \
             cannot be told from others.",
            if row.has_tail() { "No slower one" } else { "None of them" }
        ));
    }
    let which = match limit {
        _ if row.has_tail() => "In slower ones".to_owned(),
        Some(limit) if row.faster > 0 => format!("In those above {limit}"),
        _ => "Over all of them".to_owned(),
    };
    let subject = subject_of(row, guest);
    let told = ClassAnswer { summary, subject: &subject, class, io, causes };
    let because = format!("{opening} {which}, {}{}", told.because(), left_out(class));
    Some(format!("{because}{}", suffered(row, class.latency_ns)))
}

/// Why nothing was observed although that was asked for, as a sentence without its full stop; `None` if something was
/// looked at, or nobody asked for it.
pub(in crate::summary) fn unobserved(summary: &Summary) -> Option<String> {
    let guests = &summary.observed.as_ref()?.guests;
    let first = guests.first()?;
    let all = guests.iter().map(|guest| guest.unobserved.as_ref()).collect::<Option<Vec<_>>>()?;
    let why = all.first()?;
    let others = match guests.len() - 1 {
        0 => String::new(),
        others => format!(", nor those of {}", counted(others as u64, "other guest")),
    };
    Some(format!("The block requests of {} were not observed{others}: {why}", first.vm))
}

/// The limit below which requests were not sent, if there is one.
pub(in crate::summary) fn slower_than(guest: &ObservedGuest) -> Option<String> {
    (guest.slower_than_us > 0).then(|| duration(guest.slower_than_us.saturating_mul(1_000)))
}

fn without_latencies(operations: &[ObservedOperation], guests: &[ObservedGuest]) -> String {
    let faster = operations.iter().any(|row| row.faster > 0);
    let limit = guests.iter().find_map(slower_than);
    let ends = || guests.iter().filter_map(|guest| guest.end.as_ref());
    let under_way = sum(ends().map(|end| end.under_way_count));
    let hides = ends().any(|end| end.hidden.is_some_and(|hidden| hidden.events() > 0));
    match limit {
        Some(limit) if faster && hides => format!(
            "No observed request of which perf recorded everything took {limit} or longer."
        ),
        Some(limit) if faster && ends().any(has_stalled) => {
            format!("No observed request that was completed took {limit} or longer.")
        }
        Some(limit) if faster => format!("No observed request took {limit} or longer."),
        _ if operations.is_empty() && hides => format!(
            "Of no block request of the guests everything was seen while they were observed, as a guest's kernel hid \
             events from perf; {} seemed to be under way at the end.",
            count(under_way)
        ),
        _ if operations.is_empty() && under_way > 0 => format!(
            "No block request of the guests was completed while they were observed, and {} under way at the end.",
            match under_way {
                1 => "1 was".to_owned(),
                number => format!("{} were", count(number)),
            }
        ),
        _ if operations.is_empty() => "No block request was observed in the guests.".to_owned(),
        _ => "No observed request could be placed on the host's clock, so there is no latency to explain."
            .to_owned(),
    }
}

fn has_stalled(end: &ObservedEnd) -> bool {
    end.under_way.iter().any(|row| row.is_stalled)
}

fn subject_of(row: &ObservedOperation, guest: &ObservedGuest) -> Subject {
    let device = guest.devices.iter().find(|device| device.name == row.device);
    let disk = device.and_then(|device| device.host_disk.clone());
    let scheduler = device.and_then(|device| device.io_scheduler.as_deref());
    let scheduler = scheduler.filter(|scheduler| *scheduler != "none");
    let vcpus: Vec<(String, VcpuId)> =
        row.vcpus.iter().map(|vcpu| (row.vm.clone(), *vcpu)).collect();
    let who = match row.vcpus.as_slice() {
        [vcpu] => format!("{} {vcpu}", row.vm),
        _ => format!("a vCPU of {}", row.vm),
    };
    let guest_queue = match scheduler {
        Some(scheduler) => {
            format!("the guest's own queue (its I/O scheduler {scheduler}, or for a tag)")
        }
        None => "the guest's own queue".to_owned(),
    };
    Subject { vcpus, who, disks: disk.into_iter().collect(), guest_queue, has_device_waits: false }
}

/// Who in the guest had most of it.
fn suffered(row: &ObservedOperation, latency_ns: u64) -> String {
    let of = |process: &ObservedProcess| match row.has_tail() {
        true => process.classes.p99.latency_ns,
        false => process.classes.all.latency_ns,
    };
    let is_named = |process: &&ObservedProcess| share(of(process), latency_ns) >= NAMED_SHARE;
    let named = row.processes.iter().filter(is_named).take(NAMED_MAX);
    let named =
        named.map(|process| (called(process), whole_percent(share(of(process), latency_ns))));
    let named: Vec<(String, String)> = named.collect();
    match named.as_slice() {
        [] => String::new(),
        [(one, percent)] => {
            format!(" In the guest, {one} suffered {percent} of these requests' time.")
        }
        [(one, percent), (other, less), ..] => {
            format!(
                " In the guest, {one} suffered {percent} of these requests' time, {other} {less}."
            )
        }
    }
}

/// A process with its number, or several of one name with theirs.
pub(in crate::summary) fn called(process: &ObservedProcess) -> String {
    let Members { count: processes, is_exact } = process.processes;
    match process.pid {
        Some(pid) if processes == 1 && is_exact => format!("{} (pid {pid})", process.name),
        _ if processes <= 1 => process.name.clone(),
        _ => {
            let at_least = if is_exact { "" } else { "at least " };
            format!("{} ({at_least}{} processes)", process.name, count(processes))
        }
    }
}
