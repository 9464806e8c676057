use super::*;
use crate::evidence::EvidenceSetting;
use crate::guest::live::LiveFigures;
use std::os::unix::fs::PermissionsExt;
use vslice_report::analyse::drawn::{manifest, run_in};
use vslice_trace::RunDir;
use vslice_trace::date::RunDates;

/// In 2020, before which nothing was recorded.
const LONG_AGO_NS: u64 = 1_577_836_800_000_000_000;

struct Nobody;

impl Watcher for Nobody {
    fn stage(&mut self, _: &str) {}
    fn progress(&mut self, _: &LiveFigures, _: u64) {}
}

/// A load that goes on until it is wound down.
struct Load<'a> {
    dir: &'a RunDir,
    ends: fn() -> Result<(), RecordingError>,
    /// Whether it was wound down, and the last census was not there yet.
    is_over: bool,
}

impl Work for Load<'_> {
    fn go_on(
        &mut self,
        _: &HostRecorder,
        _: &mut TscWatch,
        _: &mut OtherVms,
        _: &mut dyn Watcher,
    ) -> Result<(), RecordingError> {
        (self.ends)()
    }

    fn wind_down(&mut self) -> Result<(), RecordingError> {
        self.is_over = !self.dir.path().join("threads_end.json").exists();
        Ok(())
    }
}

/// A window of VMs that are nobody's, and so without any right.
fn measured(ends: fn() -> Result<(), RecordingError>) -> Result<(), RecordingError> {
    let mut manifest = Manifest { vms: Vec::new(), ..manifest() };
    let scratch = tempfile::tempdir().unwrap();
    let dir = run_in(&scratch.path().join("run"), &manifest);
    let kept = Kept::in_directory(dir.clone());
    let evidence = EvidencePlan::of_host(EvidenceSetting::Totals).unwrap();
    let measurement = Measurement {
        kept: &kept,
        live: None,
        collector_pcpu: None,
        evidence: &evidence,
        exits: false,
    };
    let mut load = Load { dir: &dir, ends, is_over: false };
    let result = measurement.make(&mut manifest, &mut Nobody, &mut load);
    assert!(load.is_over, "the census was taken while the load went on");
    let window = manifest.window.unwrap();
    let moments: Vec<_> = manifest.dates.iter().map(|date| Some(date.host_ns)).collect();
    assert_eq!(
        moments,
        [Some(window.start_ns), window.end_ns],
        "the dates of both edges are noted"
    );
    assert!(RunDates::of(&manifest.dates).unwrap().start_realtime_ns() > LONG_AGO_NS);
    for name in ["threads.json", "threads_end.json"] {
        dir.read_json::<Vec<HostThread>>(name).unwrap();
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others can read the command lines in {name}");
    }
    result
}

#[test]
fn what_censuses_had_no_room_for_is_noted() {
    let mut manifest = manifest();
    let scratch = tempfile::tempdir().unwrap();
    let dir = run_in(&scratch.path().join("run"), &manifest);
    let kept = Kept::in_directory(dir.clone());
    let evidence = EvidencePlan::of_host(EvidenceSetting::Totals).unwrap();
    let measurement = Measurement {
        kept: &kept,
        live: None,
        collector_pcpu: None,
        evidence: &evidence,
        exits: false,
    };
    for (threads_left_out_count, commands_left_out_count) in [(300, 20), (1, 4)] {
        let threads = Vec::new();
        let census = Census { threads, threads_left_out_count, commands_left_out_count };
        measurement.keep("threads.json", census, &mut manifest).unwrap();
    }
    let cost = &manifest.cost;
    assert_eq!((cost.threads_left_out_count, cost.commands_left_out_count), (301, 24));
}

#[test]
fn who_came_is_looked_for_once_the_load_is_over() {
    measured(|| Ok(())).unwrap();
}

#[test]
fn who_came_is_written_also_when_a_run_ends_early() {
    let result = measured(|| Err(RecordingError::Stalled { seconds: 7 }));
    assert!(matches!(result, Err(RecordingError::Stalled { seconds: 7 })), "{result:?}");
}
