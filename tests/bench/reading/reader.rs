//! vslice's reader, in a thread of this process, with someone who takes its records as the agent does.

use super::rounds::Setting;
use super::task::BLOCK_BYTES;
use crate::statistics::middle;
use anyhow::Context;
use nix::time::{ClockId, clock_gettime};
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};
use vslice_spec::{ClockChoice, Engine, Pattern, ReaderSpec};
use vslice_workload::clock::Clock;
use vslice_workload::pin::pin_current_thread;
use vslice_workload::reader::{Reader, run_without_reads};
use vslice_workload::ring::{Consumer, Recorded, recording_ring};

/// As many as the agent's ring holds.
const RING_RECORDS: usize = 16 * 1024;

/// As often the agent looks into its ring.
const LOOK: Duration = Duration::from_millis(1);

/// What a window came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Nanoseconds for a request that is not made, or requests a second.
    pub(crate) value: f64,
    pub(crate) requests_count: u64,
    /// Of these, those whose records came out of the ring.
    pub(crate) recorded_count: u64,
    /// The CPU time that the reader's thread took for each, in ns.
    pub(crate) processor_ns: f64,
}

/// Requests that are not made, a ring full at a time: whoever takes the records, on the other pCPU,
/// has the memory of the ring in his caches before each, as in an agent.
pub(crate) fn record(setting: &Setting<'_>, window: Duration) -> anyhow::Result<Window> {
    let total_bytes = RING_RECORDS as u64 * u64::from(BLOCK_BYTES);
    let spec = ReaderSpec { total_bytes, ..spec(setting, Engine::Psync, 1)? };
    let clock = Clock::choose(ClockChoice::Auto);
    let (mut costs, mut requests_count, mut recorded_count) = (Vec::new(), 0, 0);
    let begun = Instant::now();
    while begun.elapsed() < window {
        let (producer, mut consumer) = recording_ring(RING_RECORDS);
        let never = AtomicBool::new(false);
        let (end, took) = scope(|scope| {
            let run = || {
                // Not part of it: the thread comes to its pCPU.
                pin_current_thread(spec.vcpu)?;
                let begun = Instant::now();
                let end = run_without_reads(&spec, clock, producer, &never)?;
                anyhow::Ok((end, begun.elapsed()))
            };
            scope.spawn(run).join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
        })?;
        costs.push(took.as_secs_f64() * 1e9 / end.requests as f64);
        requests_count += end.requests;
        recorded_count += taken(&mut consumer);
    }
    // One that was interrupted says nothing of a record.
    let value = middle(costs).context("a window has a ring full")?.median;
    Ok(Window { value, requests_count, recorded_count, processor_ns: value })
}

/// Reads without pause.
pub(crate) fn read(
    setting: &Setting<'_>,
    engine: Engine,
    depth: u16,
    window: Duration,
) -> anyhow::Result<Window> {
    let duration_ms = Some(u64::try_from(window.as_millis())?);
    let spec = ReaderSpec { duration_ms, ..spec(setting, engine, depth)? };
    let clock = Clock::choose(ClockChoice::Auto);
    let (producer, mut consumer) = recording_ring(RING_RECORDS);
    let never = AtomicBool::new(false);
    scope(|scope| {
        let run = || {
            let reader = Reader::prepare(&spec, None, clock)?;
            let (begun, before) = (Instant::now(), processor_time()?);
            let end = reader.run(producer, &never)?;
            anyhow::Ok((end, begun.elapsed(), processor_time()? - before))
        };
        let reading = scope.spawn(run);
        let mut recorded_count = 0;
        while !consumer.is_finished() {
            recorded_count += taken(&mut consumer);
            sleep(LOOK);
        }
        let read = reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        let (end, took, on_pcpu) = read?;
        anyhow::ensure!(end.io_errors + end.short_reads == 0, "not all was read: {end:?}");
        let value = end.requests as f64 / took.as_secs_f64();
        let processor_ns = on_pcpu.as_secs_f64() * 1e9 / end.requests.max(1) as f64;
        Ok(Window { value, requests_count: end.requests, recorded_count, processor_ns })
    })
}

/// Writes the file that is read.
pub(crate) fn create(target: &Path, target_bytes: u64) -> anyhow::Result<()> {
    let spec = ReaderSpec {
        create: true,
        total_bytes: target_bytes,
        ..spec_of(target, Engine::Psync, 1, 0)?
    };
    Reader::prepare(&spec, None, Clock::MonotonicRaw)?;
    Ok(())
}

/// The size of what is read: a device has its end, and no length.
pub(crate) fn size_bytes(target: &Path) -> anyhow::Result<u64> {
    let file = std::fs::File::open(target);
    let mut file = file.with_context(|| format!("cannot open {}", target.display()))?;
    Ok(file.seek(SeekFrom::End(0))?)
}

/// The CPU time of this thread so far.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}

/// Takes what is there, and says how many of them are requests.
fn taken(consumer: &mut Consumer) -> u64 {
    let records = std::iter::from_fn(|| consumer.pop());
    records.filter(|recorded| matches!(recorded, Recorded::Request(_))).count() as u64
}

fn spec(setting: &Setting<'_>, engine: Engine, depth: u16) -> anyhow::Result<ReaderSpec> {
    spec_of(setting.target, engine, depth, u16::try_from(setting.places.measured.0)?)
}

fn spec_of(target: &Path, engine: Engine, depth: u16, vcpu: u16) -> anyhow::Result<ReaderSpec> {
    Ok(ReaderSpec {
        target: target.to_str().context("the target's name is no UTF-8")?.to_owned(),
        create: false,
        block_bytes: BLOCK_BYTES,
        // More than a window can read.
        total_bytes: 1 << 50,
        duration_ms: None,
        pattern: Pattern::Rand,
        engine,
        depth,
        vcpu,
    })
}
