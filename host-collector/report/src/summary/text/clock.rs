//! What the page says of the clocks.

use super::NAME_CHARS_MAX;
use super::page::{Page, Tone, shorten};
use crate::summary::clock::{Clock, ClockCut, ClockMethod, HogCheck, WordCheck};
use crate::summary::model::Summary;
use crate::summary::totals::sum;
use vslice_spec::quantity::{count, counted, duration};

/// Steps that are shown; the JSON has more.
const CUTS_SHOWN_MAX: usize = 4;

const INDENT: &str = "          ";

/// How exact request times are, whether anything speaks against that, and where clocks stepped.
pub(super) fn clock(page: &mut Page, summary: &Summary) {
    let clock = &summary.clock;
    let method = match clock.method {
        ClockMethod::Exchange => "exchange",
        ClockMethod::TscOffset => "KVM's TSC offset",
    };
    let exchanges = sum(clock.vcpus.iter().map(|vcpu| vcpu.exchanges));
    let bound = match clock.bound_ns {
        Some(bound_ns) => format!("request times are within {} of the host's", duration(bound_ns)),
        None => "no request to place".to_owned(),
    };
    let maps = counted(clock.vcpus.len() as u64, "map");
    let (verdict, check, tone) = check(clock);
    let (kvm, ptp, hogs) = (clock.kvm_check(), clock.ptp_check(), clock.hog_check());
    let verdict = match verdict {
        _ if sum([kvm.violations, ptp.violations, hogs.violations]) > 0 => VIOLATED,
        NOT_CHECKED if hogs.absences > 0 => OK,
        verdict => verdict,
    };
    let stays = match sum(clock.vcpus.iter().map(|vcpu| vcpu.stays)) {
        0 => String::new(),
        stays => format!(" and {}", counted(stays, "hog stay")),
    };
    let text = format!(
        "{verdict}, {method}: {bound}; {maps} from {}{stays}; {check}",
        counted(exchanges, "round trip")
    );
    page.paragraph("Clock     ", &text, tone);
    if kvm.readings > 0 {
        let (text, tone) = told_by_kvm(kvm);
        page.paragraph(INDENT, &text, tone);
    }
    if ptp.readings > 0 {
        let (text, tone) = told_to_guests(ptp);
        page.paragraph(INDENT, &text, tone);
    }
    if hogs.absences > 0 {
        let (text, tone) = told_by_hogs(hogs);
        page.paragraph(INDENT, &text, tone);
    }
    let cuts = clock.vcpus.iter().flat_map(|vcpu| vcpu.cuts.iter().map(move |cut| (vcpu, cut)));
    let cut_count = sum(clock.vcpus.iter().map(|vcpu| vcpu.cut_count));
    let mut shown_count = 0;
    for (vcpu, cut) in cuts.take(CUTS_SHOWN_MAX) {
        let vm = shorten(&vcpu.vm, NAME_CHARS_MAX);
        page.paragraph(INDENT, &format!("{vm} {} {}", vcpu.vcpu, step(cut)), Tone::Alarm);
        shown_count += 1;
    }
    if cut_count > shown_count {
        let more = counted(cut_count - shown_count, "more step");
        page.paragraph(INDENT, &format!("and {more}"), Tone::Alarm);
    }
}

const VIOLATED: &str = "VIOLATED";
const OK: &str = "ok";
const NOT_CHECKED: &str = "not checked";

/// What the hogs say of when the host had their vCPUs off their pCPUs.
fn told_by_hogs(hogs: HogCheck) -> (String, Tone) {
    let absences = counted(hogs.absences, "time");
    if hogs.violations == 0 {
        let text =
            format!("hogs missed each of the {absences} that their vCPUs were off their pCPUs");
        return (text, Tone::Plain);
    }
    let (violations, worst) = (count(hogs.violations), duration(hogs.worst_ns));
    let text = format!(
        "hogs ran in {violations} of the {absences} that their vCPUs were off their pCPUs, by up to \
         {worst} more than times may be off"
    );
    (text, Tone::Alarm)
}

/// What KVM says of the maps that round trips alone make.
fn told_by_kvm(kvm: WordCheck) -> (String, Tone) {
    let readings = counted(kvm.readings, "time");
    if kvm.violations == 0 {
        let text =
            format!("KVM's word of the guests' TSCs was asked {readings} and lies within them");
        return (text, Tone::Plain);
    }
    let (violations, worst) = (counted(kvm.violations, "time"), duration(kvm.worst_ns));
    let text = format!(
        "KVM's word of the guests' TSCs was asked {readings} and {violations} lies beyond what \
         round trips allow, by up to {worst}"
    );
    (text, Tone::Alarm)
}

/// What KVM told the guests of the host's clock.
fn told_to_guests(ptp: WordCheck) -> (String, Tone) {
    let readings = counted(ptp.readings, "time");
    if ptp.violations == 0 {
        let text = format!("KVM told the guests the host's clock {readings}, within them");
        return (text, Tone::Plain);
    }
    let (violations, worst) = (counted(ptp.violations, "time"), duration(ptp.worst_ns));
    let text = format!(
        "KVM told the guests the host's clock {readings}, and {violations} beyond what round trips \
         allow, by up to {worst}"
    );
    (text, Tone::Alarm)
}

/// What the requests' I/O says: in a word, in a sentence, and how loud.
fn check(clock: &Clock) -> (&'static str, String, Tone) {
    let check = clock.check;
    let unseen = match check.unseen {
        0 => String::new(),
        unseen => format!("; that of {} more was not seen", count(unseen)),
    };
    let requests = counted(check.requests, "request");
    if check.violations > 0 {
        let (violations, worst) = (count(check.violations), duration(check.worst_ns));
        let text = format!(
            "the host's I/O of {violations} of {requests} lies beyond them, by up to {worst} more than \
             that{unseen}"
        );
        (VIOLATED, text, Tone::Alarm)
    } else if check.requests > 0 {
        (OK, format!("the host's I/O of {requests} lies within them{unseen}"), Tone::Plain)
    } else if check.unseen > 0 {
        let requests = counted(check.unseen, "request");
        (NOT_CHECKED, format!("no host I/O was seen near any of {requests}"), Tone::Alarm)
    } else {
        (NOT_CHECKED, "no host I/O that could contradict it".to_owned(), Tone::Plain)
    }
}

fn step(cut: &ClockCut) -> String {
    let seconds = |offset_ns: i64| format!("{:.3} s", offset_ns as f64 / 1e9);
    let between = format!("between {} and {}", seconds(cut.after_ns), seconds(cut.before_ns));
    match cut.step_ns {
        0 => format!("stepped or changed its rate {between}"),
        step_ns => format!("stepped by {} or more {between}", duration(step_ns)),
    }
}
