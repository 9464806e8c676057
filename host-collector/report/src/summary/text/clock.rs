//! The page's lines on clocks.

use super::NAME_CHARS_MAX;
use super::page::{Page, Tone, shorten};
use crate::summary::clock::{Clock, ClockCut, ClockMethod, HogCheck, KvmCheck};
use crate::summary::model::Summary;
use crate::summary::totals::sum;
use vslice_spec::quantity::{count, counted, duration};

/// Steps that are shown; the JSON has more.
const CUTS_SHOWN_MAX: usize = 4;

const INDENT: &str = "          ";

/// How accurate request times are, whether anything contradicts that, and where clocks stepped.
pub(super) fn clock(page: &mut Page, summary: &Summary) {
    let clock = &summary.clock;
    let method = match clock.method {
        ClockMethod::Exchange => "exchange",
        ClockMethod::TscOffset => "KVM's TSC offset",
    };
    let exchanges = sum(clock.vcpus.iter().map(|vcpu| vcpu.exchanges));
    let bound = match clock.bound_ns {
        Some(bound_ns) => format!("request times are accurate to within {}", duration(bound_ns)),
        None => "no request to place on the host's clock".to_owned(),
    };
    let maps = counted(clock.vcpus.len() as u64, "clock map");
    let (verdict, check, tone) = check(clock);
    let (kvm, ptp, hogs) = (clock.kvm_check(), clock.ptp_check(), clock.hog_check());
    let verdict = match verdict {
        _ if sum([kvm.violations, ptp.violations, hogs.violations]) > 0 => VIOLATED,
        NOT_CHECKED if hogs.absences > 0 => OK,
        verdict => verdict,
    };
    let stays = match sum(clock.vcpus.iter().map(|vcpu| vcpu.stays)) {
        0 => String::new(),
        stays => format!(" and {}", counted(stays, "hog timeslice")),
    };
    let text = format!(
        "{verdict} ({method}): {bound}; {maps} from {}{stays}; {check}",
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
        page.paragraph(
            INDENT,
            &format!("the clock of {vm} {} {}", vcpu.vcpu, step(cut)),
            Tone::Alarm,
        );
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
    let absences = counted(hogs.absences, "interval");
    if hogs.violations == 0 {
        let text = format!("no hog ran during the {absences} in which its vCPU was off its pCPU");
        return (text, Tone::Plain);
    }
    let (violations, worst) = (count(hogs.violations), duration(hogs.worst_ns));
    let text = format!(
        "hogs ran during {violations} of the {absences} in which their vCPUs were off their pCPUs, by up \
         to {worst} more than the clock error allows"
    );
    (text, Tone::Alarm)
}

/// What KVM says of the maps that round trips alone make.
fn told_by_kvm(kvm: KvmCheck) -> (String, Tone) {
    let readings = counted(kvm.readings, "time");
    if kvm.violations == 0 {
        let text = format!("KVM's TSC offsets were read {readings} and agree with the round trips");
        return (text, Tone::Plain);
    }
    let (violations, worst) = (counted(kvm.violations, "time"), duration(kvm.worst_ns));
    let text = format!(
        "KVM's TSC offsets were read {readings} and contradict the round trips {violations}, by up to {worst}"
    );
    (text, Tone::Alarm)
}

/// What KVM told the guests of the host's clock.
fn told_to_guests(ptp: KvmCheck) -> (String, Tone) {
    let readings = counted(ptp.readings, "time");
    if ptp.violations == 0 {
        let text = format!(
            "guests read the host's clock through KVM {readings}, in agreement with the round trips"
        );
        return (text, Tone::Plain);
    }
    let (violations, worst) = (counted(ptp.violations, "time"), duration(ptp.worst_ns));
    let text = format!(
        "guests read the host's clock through KVM {readings}, and it contradicted the round trips \
         {violations}, by up to {worst}"
    );
    (text, Tone::Alarm)
}

/// What the requests' I/O says: in a word, in a sentence, and how loud.
fn check(clock: &Clock) -> (&'static str, String, Tone) {
    let check = clock.check;
    let unseen = match check.unseen {
        0 => String::new(),
        unseen => format!("; none was seen for {} more", count(unseen)),
    };
    let requests = counted(check.requests, "request");
    if check.violations > 0 {
        let (violations, worst) = (count(check.violations), duration(check.worst_ns));
        let text = format!(
            "the host I/O for {violations} of {requests} lies outside them by up to {worst} more than \
             that{unseen}"
        );
        (VIOLATED, text, Tone::Alarm)
    } else if check.requests > 0 {
        (OK, format!("the host I/O for {requests} lies within them{unseen}"), Tone::Plain)
    } else if check.unseen > 0 {
        let requests = counted(check.unseen, "request");
        (NOT_CHECKED, format!("no host I/O was seen near any of {requests}"), Tone::Alarm)
    } else {
        (NOT_CHECKED, "there is no host I/O to check it against".to_owned(), Tone::Plain)
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
