//! The measured window of a recording: everything that begins just before it and ends just after it.

use crate::census::{Census, host_threads, newcomers};
use crate::error::RecordingError;
use crate::event_writers::EventWriters;
use crate::evidence::EvidencePlan;
use crate::host_recorder::{HostRecorder, record_plan};
use crate::interrupts;
use crate::kept::Kept;
use crate::live::{LiveBegun, LiveNews, LiveSink, LiveTap};
use crate::live_counters::LiveCounters;
use crate::other_vms::OtherVms;
use crate::perf::{KvmDetail, Recorder};
use crate::quota;
use crate::reserve::ReservingSink;
use crate::sampling::schedstat;
use crate::tsc_watch::TscWatch;
use crate::uninterrupted::Before;
use crate::watcher::Watcher;
use nix::sys::resource::{UsageWho, getrusage};
use vslice_core::clock::host_time::HostClocks;
use vslice_core::host_event::HostEvent;
use vslice_core::units::{PcpuId, Tid};
use vslice_host::host_clock::host_clocks_now;
use vslice_host::{frequency, procfs, steal};
use vslice_trace::StoreError;
use vslice_trace::date::DateSample;
use vslice_trace::evidence::{Evidence, EvidenceLevel};
use vslice_trace::manifest::{Manifest, Window, may_use_kvm};
use vslice_trace::thread::HostThread;

/// What goes on in the window.
pub(crate) trait Work {
    /// Goes on until the window is to be closed; also when the recorder has ended, which says why when
    /// it is finished.
    fn go_on(
        &mut self,
        recorder: &HostRecorder,
        tscs: &mut TscWatch,
        others: &mut OtherVms,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RecordingError>;

    /// Ends what goes on in guests, after the window and while they are still watched.
    fn wind_down(&mut self) -> Result<(), RecordingError>;
}

/// How a window is measured.
#[derive(Debug)]
pub(crate) struct Measurement<'a> {
    pub(crate) kept: &'a Kept,
    /// Whoever looks on.
    pub(crate) live: Option<&'a LiveTap>,
    /// Where the collector stays, if it has a pCPU.
    pub(crate) collector_pcpu: Option<PcpuId>,
    pub(crate) evidence: &'a EvidencePlan,
    /// Whether each exit is recorded, where there are any.
    pub(crate) exits: bool,
}

impl Measurement<'_> {
    /// Measures while `work` goes on.
    pub(crate) fn make(
        &self,
        manifest: &mut Manifest,
        watcher: &mut dyn Watcher,
        work: &mut dyn Work,
    ) -> Result<(), RecordingError> {
        interrupts::note_vcpus(&mut manifest.vms);
        let evidence = self.evidence.clone();
        let recorder = |manifest: &Manifest| self.recorder(manifest);
        let recorder =
            HostRecorder::start(self.kept, self.collector_pcpu, evidence, manifest, recorder)?;
        let Evidence { level, reason, .. } = &manifest.evidence;
        if *level != EvidenceLevel::Recorded {
            watcher.stage(&format!("recording {} instead of events: {reason}", level.name()));
        }
        // After the start, so that the recorder's own threads are in it, and nobody is born between.
        let threads = self.keep("threads.json", host_threads(), manifest)?;
        let mut others = OtherVms::note(manifest);
        quota::note_start(&mut manifest.vms);
        let mut tscs = TscWatch::start(&manifest.vms);
        tscs.write(manifest);
        self.kept.fit_room(manifest)?;
        let before = Before::read(&manifest.vms);
        let counters = self.live.map(|live| (live, LiveCounters::start(manifest)));
        let stolen_before_ns = steal::stolen_ns();
        manifest.frequency.start = frequency::of_pcpus();
        let cpu_before_ns = own_cpu_ns();
        let delay_before_ns = own_run_delay_ns();
        let date = date_now();
        manifest.window = Some(Window { start_ns: date.host_ns, end_ns: None });
        manifest.dates = vec![date];
        self.kept.write_manifest(manifest)?;
        tell_begun(counters, manifest, &threads);
        let worked = work.go_on(&recorder, &mut tscs, &mut others, watcher);
        if let Some(window) = &mut manifest.window {
            let date = date_now();
            window.end_ns = Some(date.host_ns);
            manifest.dates.push(date);
            if let Some(live) = self.live {
                live.tell(LiveNews::Over(date.host_ns));
            }
        }
        before.note(&mut manifest.vms);
        manifest.frequency.end = frequency::of_pcpus();
        let stolen = steal::stolen_ns().zip(stolen_before_ns);
        manifest.stolen_ns = stolen.map(|(after_ns, before_ns)| after_ns.saturating_sub(before_ns));
        quota::note_end(&mut manifest.vms);
        tscs.finish(manifest);
        if matches!(worked, Err(RecordingError::Interrupted)) {
            watcher.stage("interrupted: closing the run; interrupt again to skip waiting");
        }
        // What comes after the window delays nobody.
        manifest.cost.run_delay_ns = own_run_delay_ns().saturating_sub(delay_before_ns);
        let wound_down = work.wind_down();
        manifest.cost.cpu_ns = own_cpu_ns().saturating_sub(cpu_before_ns);
        let recorded = recorder.finish(self.kept, manifest);
        // All of /proc is looked at here, so no load goes on any more, and nothing is recorded.
        others.finish(manifest);
        let came = self.keep("threads_end.json", newcomers(&threads), manifest);
        // What happened first is what the others follow from.
        worked.and(wound_down).and(recorded).and(came.map(drop))
    }

    /// Writes a census, and tells the manifest what is not in it.
    fn keep(
        &self,
        name: &str,
        census: Census,
        manifest: &mut Manifest,
    ) -> Result<Vec<HostThread>, RecordingError> {
        manifest.cost.threads_left_out_count += census.threads_left_out_count;
        manifest.cost.commands_left_out_count += census.commands_left_out_count;
        self.kept.write_private(name, &census.threads)?;
        Ok(census.threads)
    }

    fn recorder(&self, manifest: &Manifest) -> Result<Recorder, RecordingError> {
        let kvm = match (may_use_kvm(&manifest.vms), self.exits) {
            (true, true) => KvmDetail::Exits,
            (true, false) => KvmDetail::DeviceAccess,
            (false, _) => KvmDetail::None,
        };
        let plan = record_plan(manifest, kvm, self.collector_pcpu);
        let writers =
            |dir| Ok::<_, StoreError>(ReservingSink::new(EventWriters::create(dir)?, dir));
        let writers = self.kept.dir().map(writers).transpose()?;
        Ok(match (self.live, writers) {
            (Some(live), writers) => Recorder::start(&plan, LiveSink::new(writers, live.clone()))?,
            (None, Some(writers)) => Recorder::start(&plan, writers)?,
            (None, None) => Recorder::start(&plan, |_: PcpuId, _: &[HostEvent]| Ok(()))?,
        })
    }
}

fn tell_begun(live: Option<(&LiveTap, LiveCounters)>, manifest: &Manifest, threads: &[HostThread]) {
    if let Some((live, counters)) = live {
        let (manifest, threads) = (manifest.clone(), threads.to_vec());
        live.tell(LiveNews::Begun(Box::new(LiveBegun { manifest, threads, counters })));
    }
}

/// The host's clock, and its date at that moment but for the time of a system call.
fn date_now() -> DateSample {
    let HostClocks { before, realtime_ns, .. } = host_clocks_now();
    DateSample { host_ns: before, realtime_ns }
}

/// For how long this process's threads of now were runnable and had no pCPU.
fn own_run_delay_ns() -> u64 {
    let tids = procfs::tids(Tid(std::process::id())).unwrap_or_default();
    let delay_ns = |tid: Tid| {
        let text = std::fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
        schedstat(&text).map(|[_, run_delay_ns, _]| run_delay_ns)
    };
    tids.into_iter().filter_map(delay_ns).sum()
}

/// CPU time that this process has used, user and system.
pub(crate) fn own_cpu_ns() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0 };
    let ns = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
            + u64::try_from(time.tv_usec()).unwrap_or(0) * 1000
    };
    ns(usage.user_time()) + ns(usage.system_time())
}

#[cfg(test)]
mod tests;
