//! What the figures of observed requests say against themselves.

use super::answer::subject;
use super::model::{ObservedGuest, ObservedOperation};
use crate::summary::model::Summary;
use crate::summary::totals::{share, sum};
use crate::summary::warn::{
    CLASS_COUNT_MIN, CLOCK_SHARE_MAX, LEFT_OUT_SHARE_MAX, LEFT_OUT_TAIL_SHARE_MAX,
};
use crate::summary::warning::Warning;
use vslice_trace::evidence::EvidenceLevel;

pub(in crate::summary) fn warnings(summary: &Summary) -> Vec<Warning> {
    let Some(observed) = &summary.observed else { return Vec::new() };
    let mut warnings = Vec::new();
    for guest in &observed.guests {
        if guest.lost_events > 0 {
            let (vm, events) = (guest.vm.clone(), guest.lost_events);
            let intervals = guest.lost_intervals;
            warnings.push(Warning::ObservedLost { vm, events, intervals });
        }
        warnings.extend(hidden(guest));
        let checks = guest.reader.iter().filter(|check| check.violations > 0);
        warnings.extend(checks.map(|check| Warning::ReaderContradicted {
            vm: guest.vm.clone(),
            count: check.violations,
            worst_ns: check.worst_ns,
        }));
    }
    let is_recorded = summary.facts.evidence.level == EvidenceLevel::Recorded;
    if let Some((row, _)) = subject(summary).filter(|_| is_recorded) {
        warnings.extend(left_out(row));
        // What the readers' requests are said to rest on is said of them.
        if summary.requests.count == 0 {
            warnings.extend(answer(row));
        }
    }
    warnings
}

/// That a kernel hid events, if it did.
fn hidden(guest: &ObservedGuest) -> Option<Warning> {
    let end = guest.end.as_ref()?;
    let hidden = end.hidden.filter(|hidden| hidden.events() > 0)?;
    let may_have_ended = end.under_way.iter().filter(|row| row.may_have_ended);
    Some(Warning::ObservedHidden {
        vm: guest.vm.clone(),
        hidden,
        may_have_ended: sum(may_have_ended.map(|row| row.count)),
    })
}

fn left_out(row: &ObservedOperation) -> Option<Warning> {
    let count = row.unattributable_by.total();
    let tail = &row.classes.p99;
    let of_tail = share(tail.unattributable, tail.count.saturating_add(tail.unattributable));
    let is_felt = share(count, row.count) > LEFT_OUT_SHARE_MAX
        || tail.unattributable > 0 && of_tail > LEFT_OUT_TAIL_SHARE_MAX;
    is_felt.then(|| Warning::ObservedUnattributable {
        vm: row.vm.clone(),
        device: row.device.clone(),
        operation: row.plural().to_owned(),
        count,
        share: share(count, row.count),
    })
}

/// That the answer rests on few requests, or on a clock that is not exact enough for it.
fn answer(row: &ObservedOperation) -> Vec<Warning> {
    let (class, count) = match row.classes.p99.count {
        0 => ("all", row.classes.all.count),
        slow => ("p99", slow),
    };
    let few = (1..CLASS_COUNT_MIN).contains(&count);
    let thin = few.then(|| Warning::ThinTail { class: class.to_owned(), count });
    let typical_ns = row.latency_ns.p99.or(row.latency_ns.max);
    let bound = row.bound_ns.zip(typical_ns);
    let inexact = bound.filter(|(bound_ns, p99_ns)| share(*bound_ns, *p99_ns) > CLOCK_SHARE_MAX);
    let inexact = inexact.map(|(bound_ns, p99_ns)| Warning::ClockBound { bound_ns, p99_ns });
    thin.into_iter().chain(inexact).collect()
}
