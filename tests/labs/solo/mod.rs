//! `vslice-agent solo` in a guest against the host's truth of the same run: the switches of the
//! vCPU's thread, as the kernel told them, and what was stolen from it between them.

mod guest;
mod judge;
mod judge_tests;
mod stolen;
mod truth;

use crate::Case;
use guest::Guest;
use judge::{Agreement, Own, Verdict, WayBack, agreement};
use libtest_mimic::Failed;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use stolen::{Testimony, Witness};
use truth::{Interval, Seen, distance, off_intervals};
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::{PcpuId, Tid};
use vslice_record::perf::{RecordPlan, Recorder, SinkError};
use vslice_selftest::rig::inject::rival;
use vslice_spec::ClockChoice;
use vslice_tests::{Lab, not_judged};
use vslice_workload::clock::Clock;
use vslice_workload::gap::{TickRate, TickSample};

const NAME: &str = "solo_sees_what_the_host_took";

pub(crate) const CASES: &[Case] = &[(NAME, agrees)];

pub(crate) use judge_tests::CASES as JUDGE_CASES;

/// Where vCPU1 and its rival are; everything else of the guest is on the other one.
const CONTENDED: PcpuId = PcpuId(1);
const OTHERS: PcpuId = PcpuId(0);

/// As much steal as `/proc/stat`, in its steps, cannot be wrong about.
const STOLEN_SURELY_NS: u64 = 50_000_000;

fn agrees(lab: &Lab) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let clock = Clock::choose(ClockChoice::Tsc);
    let first = TickSample::take(clock);
    let mut guest = Guest::new(lab.image(), dir.path())?;
    let vcpu = guest.place(CONTENDED, OTHERS)?;
    let switches = Arc::new(Mutex::new(Vec::new()));
    let recorder = record(vcpu, &switches)?;
    let witness = Witness::start(CONTENDED)?;
    let stolen_before_ns = stolen_ns();
    let rival = rival::start(CONTENDED)?;
    let begun = guest.go()?;
    let report = guest.report();
    drop(rival);
    let stolen_ns = stolen_ns().saturating_sub(stolen_before_ns);
    let testimony = witness.finish()?;
    let totals = recorder.stop()?;
    let report = report?;
    // The guest's TSC runs at the host's rate.
    let rate = TickRate::between(first, TickSample::take(clock)).ok_or("the TSC stands still")?;
    if totals.counters.lost_count > 0 {
        return Err("the host lost events, so there is no truth".into());
    }
    let told_ns: u64 = testimony.stretches.iter().map(|one| one.stolen_ns).sum();
    if stolen_ns > STOLEN_SURELY_NS && told_ns * 2 < stolen_ns {
        let because = format!(
            "{stolen_ns} ns of {CONTENDED} were stolen from this host, and its kernel tells when of \
             {told_ns} ns"
        );
        return not_judged(NAME, &because);
    }
    let switches = switches.lock().unwrap_or_else(PoisonError::into_inner);
    let truth = off_intervals(&switches, vcpu);
    let seen = seen_by(&report["vcpus"][0], rate)?;
    let Testimony { mut stretches, interrupts } = testimony;
    stretches.retain(|one| one.tid == vcpu);
    let of_vcpu = Testimony { stretches, interrupts };
    let begun = (begun.0.0, begun.1.0);
    let agreement = distance(&truth, &seen, begun)
        .and_then(|distance_ns| agreement(&truth, &of_vcpu, &seen, distance_ns))
        .ok_or_else(|| {
            let (of_guest, of_host) = (seen.gaps.len(), truth.len());
            format!("none of {of_guest} gaps of the guest fits any of {of_host} of the host")
        })?;
    say(&agreement, stolen_ns, begun.1 - begun.0);
    match agreement.verdict(seen.unsaid_up_to) {
        Verdict::Right => Ok(()),
        Verdict::NotJudged(because) => not_judged(NAME, &because),
        Verdict::Wrong(what) => Err(format!("{what}: {agreement:#?}").into()),
    }
}

/// For whoever wants to know how good it was, and not only that it was good enough.
fn say(agreement: &Agreement, stolen_ns: u64, begun_within_ns: u64) {
    let Agreement {
        host_gaps,
        host_gaps_unsaid,
        recall,
        guest_gaps,
        guest_gaps_unjudged,
        precision,
        stolen_gaps,
        timeslices,
        timeslice_mean_ns,
        timeslice_p50_ns,
        way_back,
        own,
        ..
    } = agreement;
    let WayBack { longer_p1_ns, p50_ns, mean_ns } = way_back;
    let Own { mean_ns: own_mean_ns, p90_ns, p99_ns, max_ns } = own;
    let text = format!(
        "solo: {host_gaps} host gaps and {host_gaps_unsaid} that may be slow ticks, recall {recall:.3}; \
         {guest_gaps} guest gaps ({stolen_gaps} by steal or interrupts) and {guest_gaps_unjudged} not judged, \
         precision {precision:.3}; {} of {} timeslices without steal, by guest and host: mean \
         {timeslice_mean_ns:.0?} ns, p50 {timeslice_p50_ns:?} ns; gaps longer than absences by {longer_p1_ns} ns at p1; way back: p50 {p50_ns} \
         ns, mean {mean_ns:.0} ns; of gaps the vCPU's own: mean {own_mean_ns:.0} ns, p90 {p90_ns} ns, p99 {p99_ns} ns, max {max_ns} ns; of {CONTENDED} {} ms were stolen from this host itself, {} ms of them \
         from the vCPU; the guest began within {} us",
        timeslices.0,
        timeslices.1,
        stolen_ns / 1_000_000,
        agreement.stolen_ns / 1_000_000,
        begun_within_ns / 1_000,
    );
    // Nothing hangs on it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What this host's own hypervisor has taken of the contended pCPU since the boot. 0 if the kernel does
/// not say.
fn stolen_ns() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{}", CONTENDED.0);
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name));
    // The eighth number, in hundredths of a second (proc_stat(5)).
    let steal = line.and_then(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    steal.unwrap_or(0) * 10_000_000
}

/// Records every switch of the vCPU's thread.
fn record(vcpu: Tid, switches: &Arc<Mutex<Vec<HostEvent>>>) -> Result<Recorder, Failed> {
    let kept = Arc::clone(switches);
    let sink = move |_: PcpuId, events: &[HostEvent]| -> Result<(), SinkError> {
        let is_ours = |event: &&HostEvent| match &event.kind {
            HostEventKind::Switch(switch) => switch.prev == vcpu || switch.next == vcpu,
            _ => false,
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(events.iter().filter(is_ours).cloned());
        Ok(())
    };
    let plan = RecordPlan {
        vcpu_tids: vec![vcpu],
        vm_tids: vec![vcpu],
        pcpus: vec![CONTENDED],
        reader_pcpu: Some(OTHERS),
        ..RecordPlan::default()
    };
    Ok(Recorder::start(&plan, sink)?)
}

/// What the guest saw, on a clock that runs like the host's but begins elsewhere.
fn seen_by(vcpu: &Value, rate: TickRate) -> Result<Seen, Failed> {
    let number = |value: &Value| value.as_u64().ok_or_else(|| format!("no number in {vcpu:#}"));
    let mut gaps = Vec::new();
    for gap in vcpu["gap_list"].as_array().ok_or("no list of gaps")? {
        let start = rate.ns(number(&gap["start_ticks"])?);
        let is_host = gap["kind"].as_str().is_some_and(|kind| kind.starts_with("host"));
        // The handler of a pending tick at the end of a host gap is the guest's.
        let handler_ns =
            if is_host { gap["parts_ns"]["guest_interrupt"].as_u64().unwrap_or(0) } else { 0 };
        let end = start + number(&gap["length_ns"])?.saturating_sub(handler_ns);
        let interval = Interval { start, end };
        gaps.push((interval, is_host));
    }
    let (begun, _) = gaps.first().ok_or("the guest saw no gap")?;
    let offset = number(&vcpu["gap_list"][0]["start_ns"])?;
    let begun = begun.start.saturating_sub(offset);
    let ended = begun + number(&vcpu["measured_ns"])?;
    let unsaid_up_to = number(&vcpu["slow_tick_max_ns"])?;
    Ok(Seen { gaps, begun, ended, unsaid_up_to })
}
