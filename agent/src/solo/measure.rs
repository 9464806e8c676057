//! One run: loops, a reader, and the counters around them.

use super::counters::ThreadWitness;
use super::options::Solo;
use super::steal::{self, VcpuTimes};
use anyhow::{Context, anyhow, bail};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vslice_spec::{Engine, Pattern, ReaderSpec};
use vslice_workload::clock::Clock;
use vslice_workload::error::WorkloadError;
use vslice_workload::gap::{Outcome, Probe, Settings, TickRate, TickSample};
use vslice_workload::reader::{Reader, ReaderEnd};
use vslice_workload::ring::{Consumer, Record, Recorded, recording_ring};

/// The counters are read at least so often: what they say of a gap then includes at most so much
/// time around it.
const CHECKPOINT: Duration = Duration::from_millis(20);

/// Between two looks at the ring and at the signals.
const STEP: Duration = Duration::from_millis(50);

/// The time in which the clock's rate is measured before the run. The run itself measures it better.
const RATE_TIME: Duration = Duration::from_millis(20);

/// Gaps a second that there is room for, and the bounds of the room: 128 bytes each.
const GAPS_PER_S: u64 = 5_000;
const GAPS_MIN: u64 = 4_096;
const GAPS_MAX: u64 = 131_072;

/// Requests kept at most: 40 MiB.
const REQUESTS_MAX: usize = 1 << 20;
const RING_RECORDS: usize = 16 * 1024;

/// Runs longer than this say how far they are.
const PROGRESS_FROM: Duration = Duration::from_secs(2);

/// What one run left behind.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) vcpus: Vec<MeasuredVcpu>,
    pub(super) rate: TickRate,
    pub(super) has_schedstat: bool,
    /// One step of the steal clock.
    pub(super) step_ns: u64,
    pub(super) reading: Option<Reading>,
    /// Milliseconds since 1970, for the log.
    pub(super) wall_start_ms: u64,
    /// Whether a signal ended it.
    pub(super) interrupted: bool,
}

/// What one loop left behind, and what the steal clock said around it.
#[derive(Debug)]
pub(super) struct MeasuredVcpu {
    pub(super) vcpu: u16,
    pub(super) outcome: Outcome,
    pub(super) times: Option<(VcpuTimes, VcpuTimes)>,
}

/// What the reader left behind.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) vcpu: u16,
    pub(super) target: String,
    pub(super) requests: Vec<Record>,
    /// Requests that are not among them.
    pub(super) dropped: u64,
    pub(super) end: ReaderEnd,
}

/// The vCPUs to watch: those named, else all that the process may use.
pub(super) fn vcpus_of(solo: &Solo) -> anyhow::Result<Vec<u16>> {
    if !solo.vcpus.is_empty() {
        return Ok(solo.vcpus.clone());
    }
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot ask for the affinity")?;
    let is_allowed = |vcpu: &u16| allowed.is_set(usize::from(*vcpu)).unwrap_or(false);
    let count = u16::try_from(CpuSet::count()).unwrap_or(u16::MAX);
    let vcpus: Vec<u16> = (0..count).filter(is_allowed).collect();
    if vcpus.is_empty() { bail!("this process may use no vCPU") } else { Ok(vcpus) }
}

/// The clock's rate, measured for a moment.
pub(super) fn rate_of(clock: Clock) -> anyhow::Result<TickRate> {
    let first = TickSample::take(clock);
    thread::sleep(RATE_TIME);
    TickRate::between(first, TickSample::take(clock)).context("the clock stands still")
}

/// Runs what `solo` asks for.
pub(super) fn measure(
    solo: &Solo,
    interrupted: &AtomicBool,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Measured> {
    let vcpus = vcpus_of(solo)?;
    let first_rate = rate_of(solo.clock)?;
    let reader = solo.read.as_deref().map(|target| ReadingThread::prepare(target, solo, &vcpus));
    let mut reader = reader.transpose()?;
    let step_ns = steal::step_ns();
    // The log format wants the date of its start; nothing is measured by it.
    let wall_start = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME)?);
    let stat_before = steal::read();
    let sample = TickSample::take(solo.clock);
    let stop = Arc::new(AtomicBool::new(false));
    let watched = watch(solo, &vcpus, first_rate, &stop, interrupted, &mut reader, progress);
    // Whatever happened, nothing goes on.
    stop.store(true, Ordering::Relaxed);
    let probes = watched?;
    let joined = probes.into_iter().map(|probe| (probe.vcpu(), probe.join()));
    let outcomes: Vec<(u16, Option<Outcome>)> = joined.collect();
    let last_sample = TickSample::take(solo.clock);
    let stat_after = steal::read();
    let reading = reader.map(ReadingThread::end).transpose()?;
    let vcpu_of = |(vcpu, outcome): (u16, Option<Outcome>)| {
        let outcome = outcome.ok_or_else(|| anyhow!("the loop of vCPU{vcpu} has died"))?;
        let times = |stat: &str| steal::times_of(stat, vcpu, step_ns);
        Ok(MeasuredVcpu { vcpu, outcome, times: times(&stat_before).zip(times(&stat_after)) })
    };
    Ok(Measured {
        vcpus: outcomes.into_iter().map(vcpu_of).collect::<anyhow::Result<_>>()?,
        rate: TickRate::between(sample, last_sample).unwrap_or(first_rate),
        has_schedstat: ThreadWitness::new().has_schedstat(),
        step_ns,
        reading,
        wall_start_ms: u64::try_from(wall_start.as_millis()).unwrap_or(0),
        interrupted: interrupted.load(Ordering::Relaxed),
    })
}

/// Starts the loops and the reader, and waits until the time is over.
fn watch(
    solo: &Solo,
    vcpus: &[u16],
    rate: TickRate,
    stop: &Arc<AtomicBool>,
    interrupted: &AtomicBool,
    reader: &mut Option<ReadingThread>,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Probe>> {
    let ticks = |time: Duration| rate.ticks(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let room = solo.duration.as_secs().saturating_add(1).saturating_mul(GAPS_PER_S);
    let settings = Settings {
        clock: solo.clock,
        threshold_ticks: ticks(solo.threshold),
        checkpoint_ticks: ticks(CHECKPOINT),
        gaps_max: usize::try_from(room.clamp(GAPS_MIN, GAPS_MAX)).unwrap_or(usize::MAX),
    };
    let start = |&vcpu| Probe::start(vcpu, settings, ThreadWitness::new, Arc::clone(stop));
    let probes = vcpus.iter().map(start).collect::<Result<Vec<Probe>, WorkloadError>>()?;
    if let Some(reader) = reader {
        reader.start(Arc::clone(stop))?;
    }
    let begun = Instant::now();
    let mut told_s = 0;
    while begun.elapsed() < solo.duration && !interrupted.load(Ordering::Relaxed) {
        thread::sleep(STEP.min(solo.duration.saturating_sub(begun.elapsed())));
        if let Some(reader) = reader {
            reader.drain();
        }
        let elapsed_s = begun.elapsed().as_secs();
        if solo.duration > PROGRESS_FROM && elapsed_s > told_s {
            told_s = elapsed_s;
            progress(&format!("measuring: {elapsed_s} of {} s", solo.duration.as_secs()));
        }
    }
    Ok(probes)
}

/// The reader, on a thread of its own.
#[derive(Debug)]
struct ReadingThread {
    vcpu: u16,
    target: String,
    prepared: Option<Reader>,
    thread: Option<JoinHandle<Result<ReaderEnd, WorkloadError>>>,
    consumer: Option<Consumer>,
    requests: Vec<Record>,
    dropped: u64,
}

impl ReadingThread {
    fn prepare(target: &str, solo: &Solo, vcpus: &[u16]) -> anyhow::Result<Self> {
        let vcpu = *vcpus.last().context("no vCPU to read on")?;
        let spec = ReaderSpec {
            target: target.to_owned(),
            create: false,
            block_bytes: 4096,
            total_bytes: u64::MAX / 2,
            duration_ms: None,
            pattern: Pattern::Seq,
            engine: Engine::Psync,
            depth: 1,
            vcpu,
        };
        let reader = Reader::prepare(&spec, None, solo.clock)?;
        let target = reader.target().display().to_string();
        let requests = Vec::new();
        let (prepared, thread, consumer, dropped) = (Some(reader), None, None, 0);
        Ok(Self { vcpu, target, prepared, thread, consumer, requests, dropped })
    }

    fn start(&mut self, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        let reader = self.prepared.take().context("the reader has already been started")?;
        let (producer, consumer) = recording_ring(RING_RECORDS);
        let thread = thread::Builder::new().name("reader".to_owned());
        let thread = thread.spawn(move || reader.run(producer, &stop));
        self.thread = Some(thread.context("cannot start the reader's thread")?);
        self.consumer = Some(consumer);
        Ok(())
    }

    fn drain(&mut self) {
        let Some(consumer) = &mut self.consumer else { return };
        while let Some(recorded) = consumer.pop() {
            match recorded {
                Recorded::Request(record) if self.requests.len() < REQUESTS_MAX => {
                    self.requests.push(record);
                }
                Recorded::Request(_) => self.dropped += 1,
                Recorded::Dropped(dropped) => self.dropped += dropped.count,
            }
        }
    }

    /// Waits for the reader, which has been told to stop.
    fn end(mut self) -> anyhow::Result<Reading> {
        let thread = self.thread.take().context("the reader was not started")?;
        let end = thread.join().map_err(|_| anyhow!("the reader's thread has died"))??;
        self.drain();
        let Self { vcpu, target, requests, dropped, .. } = self;
        Ok(Reading { vcpu, target, requests, dropped, end })
    }
}
