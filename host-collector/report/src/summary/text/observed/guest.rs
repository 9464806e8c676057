//! What was observed in each guest, what of it is missing, and what observing it cost.

use crate::summary::model::{Summary, UnattributableBy};
use crate::summary::observed::answer::slower_than;
use crate::summary::observed::model::{Observed, ObservedGuest, ReaderCheck};
use crate::summary::text::page::{Page, Tone, shorten};
use crate::summary::text::{NAME_CHARS_MAX, selection, under_way};
use crate::summary::totals::sum;
use vslice_spec::quantity::{count, counted, duration, known_duration};

/// What was observed in a guest, what of it is missing, and on which disks.
pub(super) fn said_of(guest: &ObservedGuest, observed: &Observed, is_part: bool) -> String {
    if let Some(why) = &guest.unobserved {
        return format!("{}: not observed, because {why}", shorten(&guest.vm, NAME_CHARS_MAX));
    }
    let mut text = format!(
        "{}: {} recorded",
        shorten(&guest.vm, NAME_CHARS_MAX),
        counted(guest.count, "request")
    );
    // How many of a part were not sent nobody counted.
    if let Some(limit) = slower_than(guest).filter(|_| is_part && guest.faster == 0) {
        text.push_str(&format!(", those faster than {limit} not sent"));
    } else if let Some(limit) = slower_than(guest) {
        text.push_str(&format!(", {} faster than {limit} not sent", count(guest.faster)));
    }
    if guest.lost_events > 0 {
        let events = counted(guest.lost_events, "event");
        let intervals = counted(guest.lost_intervals, "interval");
        text.push_str(&format!("; its kernel lost {events} in {intervals}"));
    }
    let of_guest = || observed.operations.iter().filter(|row| row.vm == guest.vm);
    let reasons = unattributable(of_guest().map(|row| &row.unattributable_by));
    if !reasons.is_empty() {
        text.push_str(&format!("; not attributed to causes: {}", reasons.join(", ")));
    }
    for (what, number) in [
        ("failed", sum(of_guest().map(|row| row.errors))),
        ("given back by the driver and issued again", sum(of_guest().map(|row| row.requeued))),
        ("whose queueing was not seen", sum(of_guest().map(|row| row.no_queue_time))),
        ("on more disks than are told apart", guest.beyond),
    ] {
        if number > 0 {
            text.push_str(&format!("; {} {what}", count(number)));
        }
    }
    text.push_str(&under_way::said_of(guest));
    for device in &guest.devices {
        let name = shorten(&device.name, NAME_CHARS_MAX);
        let on = match (&device.host_disk, &device.host_disk_unknown) {
            (Some(disk), _) => format!("on the host's {}", shorten(disk, NAME_CHARS_MAX)),
            (None, Some(why)) => format!("on an unknown disk of the host, because {why}"),
            (None, None) => "on an unknown disk of the host".to_owned(),
        };
        let scheduler = device.io_scheduler.as_deref().unwrap_or("unknown");
        let queues = device.hardware_queues.map_or_else(
            || "unknown hardware queues".to_owned(),
            |queues| counted(queues.into(), "hardware queue"),
        );
        text.push_str(&format!(
            "; {name} is {on}, with I/O scheduler {} and {queues}{}",
            shorten(scheduler, NAME_CHARS_MAX),
            completions(&device.completion_vcpu)
        ));
    }
    text
}

/// That requests of a disk may be completed by another vCPU than the one that took the interrupt.
fn completions(completion_vcpu: &str) -> &'static str {
    match completion_vcpu {
        "interrupted" => "",
        "unknown" => {
            "; the guest does not tell which vCPU takes the interrupts of what another completes"
        }
        _ => "; the vCPU that takes its interrupts may have another complete the requests",
    }
}

/// How many for which reason.
fn unattributable<'a>(of: impl Iterator<Item = &'a UnattributableBy>) -> Vec<String> {
    let mut reasons = [0; 10];
    for by in of {
        let all = [
            by.lost,
            by.moved,
            by.steered,
            by.not_recorded,
            by.ambiguous,
            by.hidden,
            by.forgotten,
            by.no_clock,
            by.clock_stepped,
            by.clock_ambiguous,
        ];
        reasons.iter_mut().zip(all).for_each(|(sum, count)| *sum += count);
    }
    let why = [
        "overlap losses",
        "were completed on another vCPU, and until when they waited for which is unknown",
        "waited, from when is unknown, for whichever vCPU took the interrupt",
        "lie outside the recording",
        "cannot be told from others like them",
        "may have others' ends, as completions were hidden",
        "met more than vslice keeps",
        "were on a vCPU whose clock is unknown",
        "met a step of the clock",
        "may have been at two times",
    ];
    let there = reasons.into_iter().zip(why).filter(|(number, _)| *number > 0);
    there.map(|(number, why)| format!("{} {why}", count(number))).collect()
}

/// What the guests' kernels lost of their block requests, or hid, if they did.
pub(in crate::summary::text) fn losses(summary: &Summary) -> Option<String> {
    let guests = || summary.observed.iter().flat_map(|observed| &observed.guests);
    let events = sum(guests().map(|guest| guest.lost_events));
    let intervals = sum(guests().map(|guest| guest.lost_intervals));
    let lost = (events > 0)
        .then(|| format!("{} in {}", counted(events, "event"), counted(intervals, "interval")));
    let hidden = hidden_events(summary);
    let hidden = (hidden > 0)
        .then(|| format!("{} that the guests' kernels hid from perf", counted(hidden, "event")));
    let words: Vec<String> = lost.into_iter().chain(hidden).collect();
    (!words.is_empty()).then(|| format!("of the guests' block requests: {}", words.join(", ")))
}

/// Events of block requests that the guests' kernels hid.
pub(in crate::summary::text) fn hidden_events(summary: &Summary) -> u64 {
    let guests = summary.observed.iter().flat_map(|observed| &observed.guests);
    sum(guests.filter_map(|guest| Some(guest.end.as_ref()?.hidden?.events())))
}

/// What observing cost the guests, and how far the reader's stamps and the kernel's agree.
pub(in crate::summary::text) fn footing(page: &mut Page, summary: &Summary) {
    let Some(observed) = &summary.observed else { return };
    for guest in &observed.guests {
        let vm = shorten(&guest.vm, NAME_CHARS_MAX);
        if let Some(cost) = &guest.cost {
            let each = cost
                .cpu_ns_per_request
                .map_or_else(String::new, |each_ns| format!(", {} a request", duration(each_ns)));
            let text = format!(
                "in {vm}: {} of CPU time for the agent{each}, {}; reading its clock takes {}; what its \
                 kernel took is not in it",
                duration(cost.cpu_ns),
                counted(cost.events, "event"),
                duration(cost.clock_read_ns)
            );
            let text = format!("{text}{}", selection::of_whole_run(summary));
            page.paragraph("Observing ", &text, Tone::Plain);
        }
        if let Some(check) = &guest.reader {
            agreement(page, &vm, check);
        }
    }
}

fn agreement(page: &mut Page, vm: &str, check: &ReaderCheck) {
    let (text, tone) = match &check.unchecked {
        Some(why) => (format!("{vm}: not compared, because {why}"), Tone::Dim),
        None => {
            let word = if check.violations > 0 { "VIOLATED" } else { "ok" };
            let mut text = format!(
                "{vm}: {word}, {} of the reader and of the kernel compared",
                counted(check.matched, "request")
            );
            if check.matched > 0 {
                text.push_str(&format!(
                    ": queued {} (p99 {}) after the reader's submission, completed {} (p99 {}) before its \
                     completion",
                    known_duration(check.before_ns.p50),
                    known_duration(check.before_ns.p99),
                    known_duration(check.after_ns.p50),
                    known_duration(check.after_ns.p99)
                ));
            }
            if check.violations > 0 {
                text.push_str(&format!(
                    "; {} of them outside by up to {} more than the clock error",
                    count(check.violations),
                    duration(check.worst_ns)
                ));
            }
            if check.unmatched > 0 {
                text.push_str(&format!("; none of the kernel for {}", count(check.unmatched)));
            }
            (text, if check.violations > 0 { Tone::Alarm } else { Tone::Plain })
        }
    };
    page.paragraph("Stamps    ", &text, tone);
}
