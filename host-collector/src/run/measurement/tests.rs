use super::super::analyse::tests::{manifest, run_dir};
use super::super::evidence::EvidenceSetting;
use super::*;
use crate::guest::live::Glance;

struct Nobody;

impl Watcher for Nobody {
    fn stage(&mut self, _: &str) {}
    fn progress(&mut self, _: &Glance, _: u64) {}
}

/// A load that goes on until it is wound down.
struct Load<'a> {
    dir: &'a RunDir,
    ends: fn() -> Result<(), RunError>,
    /// Whether it was wound down, and the last census was not there yet.
    is_over: bool,
}

impl Work for Load<'_> {
    fn go_on(
        &mut self,
        _: &Observer,
        _: &mut TscWatch,
        _: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        (self.ends)()
    }

    fn wind_down(&mut self) -> Result<(), RunError> {
        self.is_over = !self.dir.path().join("threads_end.json").exists();
        Ok(())
    }
}

/// A window of VMs that are nobody's, and so without any right.
fn measured(ends: fn() -> Result<(), RunError>) -> Result<(), RunError> {
    let mut manifest = Manifest { vms: Vec::new(), ..manifest() };
    let (_scratch, dir) = run_dir(&manifest);
    let evidence = EvidencePlan::of_host(EvidenceSetting::Totals).unwrap();
    let measurement = Measurement {
        dir: &dir,
        home: None,
        evidence: &evidence,
        accelerator: Accelerator::Tcg,
        exits: false,
    };
    let mut load = Load { dir: &dir, ends, is_over: false };
    let result = measurement.make(&mut manifest, &mut Nobody, &mut load);
    assert!(load.is_over, "the census was taken while the load went on");
    dir.read_json::<Vec<HostThread>>("threads_end.json").unwrap();
    result
}

#[test]
fn who_came_is_looked_for_once_the_load_is_over() {
    measured(|| Ok(())).unwrap();
}

#[test]
fn who_came_is_written_also_when_a_run_ends_early() {
    let result = measured(|| Err(RunError::Stalled { seconds: 7 }));
    assert!(matches!(result, Err(RunError::Stalled { seconds: 7 })), "{result:?}");
}
