//! What a trace says of the run as a whole.

use super::trace::{Note, Place, Slice, Trace, Track, Value};
use super::{pcpus::Pcpus, requests::Requests};
use std::collections::BTreeMap;
use std::io::Write;
use vslice_core::units::{HostNs, PcpuId};
use vslice_report::analyse::observer::{Run, RunEnd};
use vslice_report::summary::clock::ClockMethod;
use vslice_trace::manifest::Status;

/// The run's own track, and one for each pCPU that lost records.
#[derive(Debug)]
pub(super) struct About {
    group: Track,
    losses: BTreeMap<PcpuId, Losses>,
    lost_records_count: u64,
    pub(super) unplaced_count: u64,
    pub(super) dropped_count: u64,
    pub(super) lost_observed_count: u64,
}

#[derive(Debug)]
struct Losses {
    track: Track,
    /// The end of the last one.
    until: HostNs,
}

impl About {
    pub(super) fn start<W: Write>(trace: &mut Trace<W>) -> About {
        About {
            group: trace.track(Place::Top, "vslice", 0),
            losses: BTreeMap::new(),
            lost_records_count: 0,
            unplaced_count: 0,
            dropped_count: 0,
            lost_observed_count: 0,
        }
    }

    /// Records of a pCPU were lost for a while.
    pub(super) fn lost<W: Write>(
        &mut self,
        pcpu: PcpuId,
        time: [HostNs; 2],
        count: u64,
        trace: &mut Trace<W>,
    ) {
        let group = self.group;
        let losses = self.losses.entry(pcpu).or_insert_with(|| {
            let name = format!("records lost on {pcpu}");
            let track = trace.track(Place::Below(group), &name, u64::from(pcpu.0) + 3);
            Losses { track, until: HostNs(0) }
        });
        self.lost_records_count += count;
        // One that begins within another goes on after it.
        let start = time[0].max(losses.until);
        let end = time[1].max(start);
        losses.until = end;
        let notes = [Note::new("records", Value::Count(count))];
        let slice =
            Slice { name: "records lost", category: "loss", notes: &notes, ..Slice::default() };
        trace.slice(losses.track, [start, end], &slice);
    }

    /// The measured window, with what is known of the run as a whole.
    pub(super) fn end<W: Write>(
        &self,
        run: &Run<'_>,
        end: &RunEnd<'_>,
        pcpus: &Pcpus,
        requests: &Requests,
        trace: &mut Trace<W>,
    ) {
        let manifest = run.manifest;
        let evidence = &manifest.evidence;
        let missing = evidence.missing.iter().map(|missing| {
            Value::Notes(vec![
                Note::new("what", Value::Text(&missing.name)),
                Note::new("costs", Value::Text(&missing.costs)),
            ])
        });
        let clocks = end.clocks.iter().map(|clock| {
            Value::Notes(vec![
                Note::new("vm", Value::Text(&clock.vm)),
                Note::new("vcpu", Value::Count(clock.vcpu.0.into())),
                Note::new("method", Value::Word(method(clock.method))),
                Note::new("bound_ns", Value::Count(clock.bound_ns)),
                Note::new("steps", Value::Count(clock.cut_count)),
            ])
        });
        let warnings: Vec<String> = end.warnings.iter().map(ToString::to_string).collect();
        let release = manifest.environment.as_ref().and_then(|host| host.kernel_release.as_ref());
        let mut notes = vec![
            Note::new("plan", Value::Text(&manifest.plan_name)),
            Note::new("status", Value::Text(status(&manifest.status, end.is_torn))),
            Note::new("evidence", Value::Word(evidence.level.name())),
            Note::new("evidence_because", Value::Text(&evidence.reason)),
            Note::new("host_events", Value::Count(end.events_count)),
            Note::new("contradicted_events", Value::Count(end.contradictions_count)),
            Note::new("lost_records", Value::Count(self.lost_records_count)),
            Note::new("requests", Value::Count(requests.told_count)),
            Note::new("requests_without_a_place_on_the_clock", Value::Count(self.unplaced_count)),
            Note::new("requests_dropped_by_guests", Value::Count(self.dropped_count)),
            Note::new("events_lost_in_guests", Value::Count(self.lost_observed_count)),
            Note::new("clocks", Value::List(clocks.collect())),
            Note::new("evidence_missing", Value::List(missing.collect())),
            Note::new(
                "warnings",
                Value::List(warnings.iter().map(|text| Value::Text(text)).collect()),
            ),
        ];
        notes.extend(release.map(|release| Note::new("host_kernel", Value::Text(release))));
        let part = run.part_sentence();
        notes.extend(part.as_deref().map(|part| Note::new("part", Value::Text(part))));
        let left_out = [
            ("events_of_further_pcpus_left_out", pcpus.left_out_count),
            ("requests_left_out_as_too_many_were_in_flight", requests.left_out_count),
        ];
        let left_out = left_out.into_iter().filter(|(_, count)| *count > 0);
        notes.extend(left_out.map(|(name, count)| Note::new(name, Value::Count(count))));
        let start = manifest.window.map_or(end.window_end, |window| window.start_ns);
        let track = trace.track(Place::Below(self.group), "measured", 1);
        let slice =
            Slice { name: "measured window", category: "run", notes: &notes, ..Slice::default() };
        trace.slice(track, [start, end.window_end.max(start)], &slice);
        if run.chosen.is_stretch() {
            let track = trace.track(Place::Below(self.group), "shown", 2);
            let slice = Slice { name: "part of the run", category: "run", ..Slice::default() };
            let stretch = [run.chosen.stretch().start.max(start), run.chosen.end(end.window_end)];
            trace.slice(track, stretch, &slice);
        }
    }
}

fn method(method: ClockMethod) -> &'static str {
    match method {
        ClockMethod::Exchange => "round trips",
        ClockMethod::TscOffset => "KVM's TSC offset and round trips",
    }
}

fn status(status: &Status, is_torn: bool) -> &str {
    match status {
        Status::Complete if is_torn => "complete, but its files were cut off",
        Status::Complete => "complete",
        Status::Partial { why } => why,
        Status::Recording => "its collector did not finish it, or is still running",
    }
}
