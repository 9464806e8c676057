//! The workload of a plan, behind the few calls that the session makes of it: the only module that
//! knows how vslice-workload is started and stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};
use vslice_spec::WorkloadSpec;
use vslice_wire::{Dropped, GuestTicks, HOG_GAPS_MAX, HogCount, HogGap, HogGaps, Request};
use vslice_workload::error::WorkloadError;
use vslice_workload::gap::{TickRate, TickSample};
use vslice_workload::hog::{self, Hog, Lookout};
use vslice_workload::reader::{DiskPlace, Reader, ReaderEnd};
use vslice_workload::ring::{Consumer, Producer, Record, Recorded, recording_ring};

pub(crate) use vslice_workload::clock::Clock;

/// Records that the ring holds while the streamer is away: at 32 bytes each it is 512 KiB, and at
/// 100,000 requests a second it is 160 ms.
const RING_RECORDS: usize = 16 * 1024;

/// What the reader reads; an empty path and 0 bytes where the plan has no reader.
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Where it is, if it is on a disk.
    pub(crate) place: Option<DiskPlace>,
}

/// One thing that the reader has left behind, as it goes on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Taken {
    Request(Request),
    Dropped(Dropped),
}

/// How a load ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadEnd {
    /// Whether the reader read all that it was asked for; false where there is no reader.
    pub(crate) completed: bool,
    /// Requests made, the dropped ones included.
    pub(crate) requests: u64,
    /// Requests that were not recorded.
    pub(crate) dropped: u64,
}

/// The hogs and the reader of one plan.
#[derive(Debug)]
pub(crate) struct Load {
    hog_vcpus: Vec<u16>,
    hogs: Vec<Hog>,
    lookout: Option<LookoutPlan>,
    reader: Option<ReaderThread>,
    /// One store ends all hogs and the reader.
    stop: Arc<AtomicBool>,
}

/// How the hogs shall look at the clock, whose rate is known by the time they start.
#[derive(Debug, Clone, Copy)]
struct LookoutPlan {
    clock: Clock,
    threshold_ns: u64,
    prepared: TickSample,
}

impl LookoutPlan {
    /// Only the TSC never leaves the guest.
    fn of(spec: &WorkloadSpec, clock: Clock) -> Option<LookoutPlan> {
        let threshold_ns = u64::from(spec.hog_gap_us?) * 1_000;
        let prepared = TickSample::take(clock);
        clock.is_tsc().then_some(LookoutPlan { clock, threshold_ns, prepared })
    }

    fn lookout(self) -> Option<Lookout> {
        let rate = TickRate::between(self.prepared, TickSample::take(self.clock))?;
        Some(Lookout { clock: self.clock, threshold_ticks: rate.ticks(self.threshold_ns) })
    }
}

/// The thread that prepares the reader, waits for the start, and then is the reader.
#[derive(Debug)]
struct ReaderThread {
    thread: JoinHandle<Option<Result<ReaderEnd, WorkloadError>>>,
    prepared: mpsc::Receiver<Result<Target, WorkloadError>>,
    /// Taken at the start; dropping it before tells the thread that there will be none.
    start: Option<mpsc::Sender<Producer>>,
    consumer: Option<Consumer>,
}

impl Load {
    /// Begins to prepare a plan that has been validated. Preparing may take long (it may create
    /// the target), so it happens on the reader's thread: ask [`Load::prepared`] for its outcome.
    pub(crate) fn prepare(spec: &WorkloadSpec, clock: Clock) -> anyhow::Result<Load> {
        let stop = Arc::new(AtomicBool::new(false));
        let reader = match spec.reader {
            Some(_) => Some(ReaderThread::spawn(spec.clone(), clock, Arc::clone(&stop))?),
            None => None,
        };
        let lookout = LookoutPlan::of(spec, clock);
        Ok(Load { hog_vcpus: spec.hogs.clone(), hogs: Vec::new(), lookout, reader, stop })
    }

    /// Whether nothing is asked for: no hogs and no reader.
    pub(crate) fn is_nothing(&self) -> bool {
        self.hog_vcpus.is_empty() && self.reader.is_none()
    }

    /// Whether preparing has ended, and how. To be asked until it says something.
    pub(crate) fn prepared(&self) -> Option<anyhow::Result<Target>> {
        let Some(reader) = &self.reader else { return Some(Ok(Target::default())) };
        match reader.prepared.try_recv() {
            Ok(prepared) => Some(prepared.map_err(anyhow::Error::from)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(anyhow!("the reader's thread has died"))),
        }
    }

    /// Starts the hogs, then the reader: its first request meets the contention that its last will.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let lookout = self.lookout.and_then(LookoutPlan::lookout);
        for &vcpu in &self.hog_vcpus {
            self.hogs.push(Hog::start(vcpu, Arc::clone(&self.stop), lookout)?);
        }
        if let Some(reader) = &mut self.reader {
            let (producer, consumer) = recording_ring(RING_RECORDS);
            reader.consumer = Some(consumer);
            let start = reader.start.take().context("the load has already been started")?;
            start.send(producer).ok().context("the reader's thread has died")?;
        }
        Ok(())
    }

    /// Tells the hogs and the reader to end. They see it within a loop and a request.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The next request or loss, in the order in which the reader recorded them.
    pub(crate) fn take(&mut self) -> Option<Taken> {
        let recorded = self.reader.as_mut()?.consumer.as_mut()?.pop()?;
        Some(match recorded {
            Recorded::Request(record) => Taken::Request(request_of(&record)),
            Recorded::Dropped(dropped) => Taken::Dropped(Dropped {
                count: dropped.count,
                first: GuestTicks(dropped.first),
                last: GuestTicks(dropped.last),
            }),
        })
    }

    /// How far each hog has counted.
    pub(crate) fn hog_counts(&self) -> Vec<HogCount> {
        self.hogs.iter().map(|hog| HogCount { vcpu: hog.vcpu(), count: hog.count() }).collect()
    }

    /// What each hog has missed since it was last asked, where it missed anything.
    pub(crate) fn hog_gaps(&mut self) -> Vec<HogGaps> {
        let wire =
            |gap: hog::HogGap| HogGap { start: GuestTicks(gap.start), end: GuestTicks(gap.end) };
        let taken = self.hogs.iter_mut().map(|hog| HogGaps {
            vcpu: hog.vcpu(),
            gaps: std::iter::from_fn(|| hog.take_gap()).take(HOG_GAPS_MAX).map(wire).collect(),
        });
        taken.filter(|taken| !taken.gaps.is_empty()).collect()
    }

    /// Whether a started load has ended and everything has been taken from it, and how it ended.
    /// Without a reader it ends when it is stopped. To be asked until it says something.
    pub(crate) fn ended(&mut self) -> Option<anyhow::Result<LoadEnd>> {
        let Some(reader) = self.reader.as_mut() else {
            let stopped = self.stop.load(Ordering::Relaxed);
            return stopped.then_some(Ok(LoadEnd { completed: false, requests: 0, dropped: 0 }));
        };
        if !reader.thread.is_finished() || !reader.consumer.as_ref()?.is_finished() {
            return None;
        }
        let reader = self.reader.take()?;
        self.stop();
        Some(match reader.thread.join() {
            Ok(Some(Ok(end))) => Ok(LoadEnd {
                completed: end.completed,
                requests: end.requests,
                dropped: end.dropped,
            }),
            Ok(Some(Err(error))) => Err(anyhow::Error::from(error)),
            Ok(None) | Err(_) => Err(anyhow!("the reader's thread has died")),
        })
    }

    /// Stops everything and waits for the reader to put back what it set, but not longer than
    /// `patience`: a read may hang, and the end of the process must not.
    pub(crate) fn end(&mut self, patience: Duration) {
        const STEP: Duration = Duration::from_millis(5);
        self.stop();
        let Some(reader) = &mut self.reader else { return };
        reader.start = None;
        let mut waited = Duration::ZERO;
        while !reader.thread.is_finished() && waited < patience {
            thread::sleep(STEP);
            waited += STEP;
        }
    }
}

impl ReaderThread {
    fn spawn(spec: WorkloadSpec, clock: Clock, stop: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let (send_prepared, prepared) = mpsc::channel();
        let (start, wait_for_start) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                let spec_reader = spec.reader.as_ref()?;
                let reader = match Reader::prepare(spec_reader, spec.io_scheduler.as_deref(), clock)
                {
                    Ok(reader) => reader,
                    Err(error) => {
                        // Nobody listens if the session has ended; then nobody wants to know.
                        let _ = send_prepared.send(Err(error));
                        return None;
                    }
                };
                let target = Target {
                    path: reader.target().to_owned(),
                    bytes: reader.target_bytes(),
                    place: reader.place(),
                };
                send_prepared.send(Ok(target)).ok()?;
                let producer = wait_for_start.recv().ok()?;
                Some(reader.run(producer, &stop))
            })
            .context("cannot start the reader's thread")?;
        Ok(Self { thread, prepared, start: Some(start), consumer: None })
    }
}

fn request_of(record: &Record) -> Request {
    Request {
        index: record.index,
        submitted: GuestTicks(record.submitted),
        completed: GuestTicks(record.completed),
        vcpu_submitted: record.vcpu_submitted,
        vcpu_completed: record.vcpu_completed,
        result: record.result,
    }
}
