//! What was under way when observing ended.

use super::NAME_CHARS_MAX;
use super::page::{Page, Tone, shorten};
use crate::summary::model::Summary;
use crate::summary::observed::model::{ObservedEnd, ObservedGuest, UnderWay, UnderWayState};
use vslice_spec::quantity::{bytes, count, counted, duration};

/// Rows of requests that hang that the first page has.
const STALLED_MAX: usize = 2;

/// The requests that hang: whatever else there is to tell, nobody waited longer.
pub(super) fn stalled(page: &mut Page, summary: &Summary, lines_max: usize) {
    let guests = summary.observed.iter().flat_map(|observed| &observed.guests);
    let rows = guests.flat_map(|guest| {
        let rows = guest.end.iter().flat_map(|end| &end.under_way);
        rows.filter(|row| row.is_stalled).map(move |row| (guest, row))
    });
    for (place, (guest, row)) in rows.take(STALLED_MAX).enumerate() {
        if place == 0 {
            page.blank();
        }
        page.short_paragraph("Stalled  ", &told(guest, row), Tone::Alarm, lines_max);
    }
}

fn told(guest: &ObservedGuest, row: &UnderWay) -> String {
    let (what, were) = match row.count {
        1 => (row.operation.label(row.is_sync), "was"),
        _ => (row.operation.plural(row.is_sync), "were"),
    };
    let oldest = if row.count == 1 { "" } else { "the oldest " };
    let state = match (row.state, row.issued_ns) {
        (UnderWayState::Issued, Some(after_ns)) => {
            format!("; issued to the disk's driver {} later", duration(after_ns))
        }
        (UnderWayState::GuestQueue, _) => "; not issued to the disk's driver".to_owned(),
        (UnderWayState::Issued | UnderWayState::Unknown, _) => String::new(),
    };
    format!(
        "{} {what} of {} {} {were} still under way when observing ended, {oldest}queued {} before: {}{state}; longer \
         than any like it took that was completed",
        count(row.count),
        shorten(&guest.vm, NAME_CHARS_MAX),
        shorten(&row.device, NAME_CHARS_MAX),
        duration(row.age_ns),
        of_whom(row)
    )
}

/// `4.00 KiB at sector 8 of postgres (pid 7)`.
fn of_whom(row: &UnderWay) -> String {
    let process = shorten(&row.process, NAME_CHARS_MAX);
    let pid = row.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    match row.bytes {
        0 => format!("of {process}{pid}"),
        length => format!("{} at sector {} of {process}{pid}", bytes(length), row.sector),
    }
}

/// What the guest's kernel hid, as more of a sentence.
fn hidden(end: &ObservedEnd) -> String {
    let Some(hidden) = end.hidden else { return String::new() };
    let what_follows = match end.under_way.iter().any(|row| row.may_have_ended) {
        true => ", and what follows may have ended",
        false => "",
    };
    match hidden.named() {
        Some(named) => format!(
            "; its kernel hid {named} from perf, so that as many requests may be missing{what_follows}"
        ),
        None if hidden.is_exact => String::new(),
        None => "; whether its kernel hid events from perf cannot be told".to_owned(),
    }
}

/// What of a guest is not among those recorded, as more of a sentence.
pub(super) fn said_of(guest: &ObservedGuest) -> String {
    let Some(end) = &guest.end else { return String::new() };
    let mut text = hidden(end);
    if let Some(oldest) = end.under_way.iter().max_by_key(|row| row.age_ns) {
        let were = match end.under_way_count {
            _ if end.under_way.iter().any(|row| row.may_have_ended) => "seemed to be",
            1 => "was",
            _ => "were",
        };
        text.push_str(&format!(
            "; {} {were} still under way when observing ended, the oldest a {} on {} queued {} before: {}",
            counted(end.under_way_count, "request"),
            oldest.operation.label(oldest.is_sync),
            shorten(&oldest.device, NAME_CHARS_MAX),
            duration(oldest.age_ns),
            of_whom(oldest)
        ));
    }
    for (number, what) in [
        (end.earlier, "under way when observing began, and not recorded"),
        (end.passthrough, "passthrough commands, which are no block I/O"),
    ] {
        if number > 0 {
            text.push_str(&format!("; {} {what}", count(number)));
        }
    }
    text
}
