//! The drawn run of `tests`, of which no events were recorded.

use super::analyse;
use super::drawn::{BQL, VM1_VCPU1, host_at, killed_manifest, manifest, run_dir, stream, streams};
use tempfile::TempDir;
use vslice_core::samples::{Call, Look, SampleItem, Schedstat};
use vslice_core::units::{PcpuId, VcpuId};
use vslice_trace::evidence::{Evidence, EvidenceLevel};
use vslice_trace::manifest::{Manifest, SamplingRecord};
use vslice_trace::{RunDir, VmName};

/// A sampled run of ten looks at vm1's vCPU1, a microsecond apart: on the lock in the first six.
fn samples(run: &RunDir, finished: bool) {
    let read = |us, on_pcpu_us: u64, timeslices_count| {
        SampleItem::Schedstat(Schedstat {
            time: host_at(us),
            tid: VM1_VCPU1,
            on_pcpu_ns: on_pcpu_us * 1000,
            run_delay_ns: 0,
            timeslices_count,
        })
    };
    let look = |us| {
        let waits = us < 106;
        let call =
            if waits { Call::In { number: 202, args: [BQL, 0x80, 2] } } else { Call::Running };
        let (state, wchan) = (waits.then_some(b'S'), waits.then(|| "futex_do_wait".into()));
        SampleItem::Look(Look { time: host_at(us), tid: VM1_VCPU1, call, state, wchan })
    };
    let gap = SampleItem::Gap { time: host_at(200), until: host_at(300), rounds_count: 9 };
    let looks = (100..110).map(look);
    let items = [read(0, 7, 1)].into_iter().chain(looks).chain([gap, read(1100, 407, 5)]);
    stream(&run.samples_path(&VmName::try_from("vm1").unwrap()), items.collect(), finished);
}

/// The drawn run without its events.
fn sampled_run(manifest: Manifest, level: EvidenceLevel) -> (TempDir, RunDir) {
    let evidence = Evidence { level, reason: "drawn".to_owned(), missing: vec![] };
    let (scratch, run) = run_dir(&Manifest { evidence, ..manifest });
    streams(&run, &[0, 500, 1150], true);
    for pcpu in [0, 1] {
        std::fs::remove_file(run.events_path(PcpuId(pcpu))).unwrap();
    }
    (scratch, run)
}

#[test]
fn a_sampled_run_has_the_shares_that_were_drawn() {
    let record = SamplingRecord { own_ns: 55, elapsed_ns: 1100, ..SamplingRecord::default() };
    let manifest = Manifest { sampling: Some(record), ..manifest() };
    let (_scratch, run) = sampled_run(manifest, EvidenceLevel::Sampled);
    samples(&run, true);
    let summary = analyse(run.path()).unwrap();
    let requests = &summary.requests;
    assert_eq!((requests.count, requests.unattributable_by.not_recorded), (2, 2));
    let sampled = summary.facts.sampled.unwrap();
    assert_eq!((sampled.gaps, sampled.gap_rounds, sampled.own_share), (1, 9, Some(0.05)));
    let [vcpu] = &sampled.vcpus[..] else { panic!("{:?}", sampled.vcpus) };
    let [bql, runnable] = &vcpu.shares[..] else { panic!("{:?}", vcpu.shares) };
    assert_eq!((vcpu.vm.as_str(), vcpu.vcpu, vcpu.looks), ("vm1", VcpuId(1), 10));
    assert_eq!((bql.what.name(), bql.looks, bql.lock_address), ("bql", 6, Some(BQL)));
    assert_eq!((runnable.what.name(), runnable.looks, runnable.share), ("runnable", 4, 0.4));
    let [row] = &summary.facts.scheduled[..] else { panic!("{:?}", summary.facts.scheduled) };
    assert_eq!((row.observed_ns, row.on_pcpu_ns), (1_100_000, 400_000));
    assert_eq!((row.timeslices, row.timeslice_mean_ns), (4, Some(100_000)));
}

#[test]
fn a_killed_run_has_what_was_sampled_until_then() {
    let (_scratch, run) = sampled_run(killed_manifest(), EvidenceLevel::Sampled);
    samples(&run, false);
    let summary = analyse(run.path()).unwrap();
    assert_eq!(summary.facts.measured_ns, 1_100_000, "up to the last sample");
    let sampled = summary.facts.sampled.unwrap();
    assert_eq!((sampled.own_share, sampled.vcpus[0].looks), (None, 10));
}

#[test]
fn totals_alone_have_no_shares() {
    let (_scratch, run) = sampled_run(manifest(), EvidenceLevel::Totals);
    samples(&run, true);
    let summary = analyse(run.path()).unwrap();
    assert!(summary.facts.sampled.is_none());
    assert_eq!(summary.facts.scheduled.len(), 1);
}
