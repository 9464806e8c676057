//! What was sampled of each VM's threads, as the summary has it.

use super::run_warnings;
use super::vm_threads;
use crate::analyse::chosen::Chosen;
use crate::analyse::observer::MeasuredWindow;
use crate::analyse::timeline_facts::{lock_facts, user};
use crate::summary::evidence::{Sampled, SampledDoing, SampledShare, SampledVcpu, ScheduledVcpu};
use crate::summary::totals::round_4;
use crate::summary::{VmIndex, Warning};
use vslice_core::samples::{Gaps, SampleItem, Scheduled, Share, Tally, ThreadShares};
use vslice_core::timeline::LockUser;
use vslice_core::units::{HostNs, Tid};
use vslice_trace::evidence::EvidenceLevel;
use vslice_trace::manifest::{Manifest, SamplingRecord, VmRecord};

/// The samples of a run, added up as they come.
#[derive(Debug)]
pub(super) struct Samples {
    /// Of each VM; none where events were recorded.
    tallies: Vec<Tally>,
    /// The time of the last sample.
    last: HostNs,
}

/// What they come to.
#[derive(Debug, Default)]
pub(super) struct SamplesEnd {
    /// How each vCPU's thread was scheduled.
    pub(super) scheduled: Vec<ScheduledVcpu>,
    /// What each was seen to do; `None` if nobody looked.
    pub(super) sampled: Option<Sampled>,
    /// What contradicts itself, and was left out.
    pub(super) warnings: Vec<Warning>,
}

impl Samples {
    pub(super) fn new(manifest: &Manifest, window: MeasuredWindow) -> Samples {
        let is_recorded = manifest.evidence.level == EvidenceLevel::Recorded;
        let vms = manifest.vms.iter().filter(|_| !is_recorded);
        let tallies = vms.map(|_| Tally::new(window.start, window.end)).collect();
        Samples { tallies, last: HostNs(0) }
    }

    pub(super) fn push(&mut self, vm: VmIndex, sample: &SampleItem) {
        self.last = self.last.max(sample.time());
        if let Some(tally) = self.tallies.get_mut(vm.0) {
            tally.push(sample.clone());
        }
    }

    pub(super) fn finish(&self, manifest: &Manifest, chosen: &Chosen) -> SamplesEnd {
        let mut end = SamplesEnd::default();
        let mut vcpus = Vec::new();
        let mut gaps = Gaps::default();
        for ((place, vm), tally) in manifest.vms.iter().enumerate().zip(&self.tallies) {
            let vcpus_told = |vcpu| chosen.has_vcpu(VmIndex(place), vcpu);
            let rows = scheduled(vm, &tally.scheduled()).into_iter();
            for row in rows.filter(|row| vcpus_told(row.vcpu) && is_of(chosen, self.last, row)) {
                match run_warnings::counted_too_much(&vm.name, &row) {
                    Some(warning) => end.warnings.push(warning),
                    None => end.scheduled.push(row),
                }
            }
            let facts = lock_facts(manifest, place);
            let shares = tally.shares(&facts, |tid| user_of(vm, tid));
            let sampled = sampled_vcpus(vm, &shares).into_iter();
            vcpus.extend(sampled.filter(|row| vcpus_told(row.vcpu)));
            // One thread looks at all VMs: its gaps are in the stream of each.
            if tally.gaps().count > gaps.count {
                gaps = tally.gaps();
            }
        }
        if manifest.evidence.level == EvidenceLevel::Sampled {
            let own_share = |record: SamplingRecord| {
                round_4(record.own_ns as f64 / record.elapsed_ns.max(1) as f64)
            };
            end.sampled = Some(Sampled {
                rounds_hz: rounds_hz(manifest, chosen, &vcpus, self.last),
                own_share: manifest.sampling.map(own_share),
                gaps: gaps.count,
                gap_rounds: gaps.rounds_count,
                gaps_ns: gaps.total_ns,
                vcpus,
            });
        }
        end
    }
}

/// How often in a second each vCPU was looked at, of those that were there all the time.
fn rounds_hz(manifest: &Manifest, chosen: &Chosen, vcpus: &[SampledVcpu], last: HostNs) -> f64 {
    let Some(window) = manifest.window else { return 0.0 };
    let end = chosen.end(window.end_ns.unwrap_or(last));
    let length_ns = end.since_ns(chosen.stretch().start);
    let looks = vcpus.iter().map(|vcpu| vcpu.looks).max().unwrap_or(0);
    (looks as f64 * 1e10 / length_ns.max(1) as f64).round() / 10.0
}

/// Above this share more than a stretch, what was counted is not of it.
const BEYOND_STRETCH_MAX: f64 = 0.1;

/// Whether what was read of a thread at two times is of the stretch between these.
fn is_of(chosen: &Chosen, last: HostNs, row: &ScheduledVcpu) -> bool {
    let stretch_ns = chosen.end(last.max(chosen.stretch().start)).since_ns(chosen.stretch().start);
    let longest_ns = stretch_ns as f64 * (1.0 + BEYOND_STRETCH_MAX);
    !chosen.is_stretch() || row.observed_ns > 0 && row.observed_ns as f64 <= longest_ns
}

fn user_of(vm: &VmRecord, tid: Tid) -> LockUser {
    let thread = vm.threads.iter().find(|thread| thread.tid == tid);
    thread.map_or(LockUser::Other, user)
}

fn scheduled(vm: &VmRecord, rows: &[Scheduled]) -> Vec<ScheduledVcpu> {
    let row = |(vcpu, tid)| {
        let row = rows.iter().find(|row| row.tid == tid)?;
        Some(ScheduledVcpu {
            vm: vm.name.clone(),
            vcpu,
            tid,
            observed_ns: row.observed_ns,
            on_pcpu_ns: row.on_pcpu_ns,
            run_delay_ns: row.run_delay_ns,
            timeslices: row.timeslices_count,
            timeslice_mean_ns: row.on_pcpu_ns.checked_div(row.timeslices_count),
        })
    };
    vm_threads(vm).vcpus.into_iter().filter_map(row).collect()
}

fn sampled_vcpus(vm: &VmRecord, shares: &[ThreadShares]) -> Vec<SampledVcpu> {
    let row = |(vcpu, tid)| {
        let thread = shares.iter().find(|thread| thread.tid == tid)?;
        let shares = thread.shares.iter().map(share).collect();
        Some(SampledVcpu { vm: vm.name.clone(), vcpu, tid, looks: thread.looks_count, shares })
    };
    vm_threads(vm).vcpus.into_iter().filter_map(row).collect()
}

fn share(share: &Share) -> SampledShare {
    SampledShare {
        what: SampledDoing(share.doing),
        lock_address: share.lock,
        looks: share.hits_count,
        share: round_4(share.share),
        low: round_4(share.interval.0),
        high: round_4(share.interval.1),
    }
}
