//! What the tests share: a directory on a disk, a spec, and a reader's run with all its records.

use libtest_mimic::Failed;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;
use vslice_spec::{ClockChoice, Engine, Pattern, ReaderSpec};
use vslice_workload::clock::Clock;
use vslice_workload::reader::{Reader, ReaderEnd};
use vslice_workload::ring::{Record, Recorded, recording_ring};

pub(crate) const BLOCK_BYTES: u32 = 4096;

/// A directory beside the build's own files, because `/tmp` may be in memory.
pub(crate) fn directory_on_disk() -> Result<TempDir, Failed> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// A file of `length` bytes, none of them a hole.
pub(crate) fn file_of(directory: &TempDir, length: usize) -> Result<PathBuf, Failed> {
    let path = directory.path().join("data");
    fs::write(&path, vec![0xa5; length])?;
    fs::File::open(&path)?.sync_all()?;
    Ok(path)
}

/// A vCPU that this process may run on.
pub(crate) fn usable_vcpu() -> Result<u16, Failed> {
    let cores = core_affinity::get_core_ids().ok_or("no affinity mask")?;
    let core = cores.last().ok_or("an empty affinity mask")?;
    Ok(u16::try_from(core.id)?)
}

/// `blocks` sequential reads of 4 KiB.
pub(crate) fn spec(path: &Path, blocks: u64) -> Result<ReaderSpec, Failed> {
    Ok(ReaderSpec {
        target: path.to_str().ok_or("not UTF-8")?.to_owned(),
        create: false,
        block_bytes: BLOCK_BYTES,
        total_bytes: blocks * u64::from(BLOCK_BYTES),
        duration_ms: None,
        pattern: Pattern::Seq,
        engine: Engine::Psync,
        depth: 1,
        vcpu: usable_vcpu()?,
    })
}

pub(crate) fn prepare(spec: &ReaderSpec) -> Result<Reader, Failed> {
    Ok(Reader::prepare(spec, None, Clock::choose(ClockChoice::Auto))?)
}

/// Runs a reader on a thread of its own, with a ring that has room for `capacity` records and is
/// emptied only afterwards.
pub(crate) fn run_into_ring_of(
    reader: Reader,
    capacity: usize,
) -> Result<(ReaderEnd, Vec<Recorded>), Failed> {
    let (producer, mut consumer) = recording_ring(capacity);
    let stop = AtomicBool::new(false);
    let end = std::thread::scope(|scope| {
        scope.spawn(|| reader.run(producer, &stop)).join().map_err(|_| "the reader panicked")
    })??;
    let recorded = std::iter::from_fn(|| consumer.pop()).collect();
    assert!(consumer.is_finished());
    Ok((end, recorded))
}

/// Runs a reader of a few requests, and returns their records in the order of submission.
pub(crate) fn run(reader: Reader) -> Result<(ReaderEnd, Vec<Record>), Failed> {
    let (end, recorded) = run_into_ring_of(reader, 1 << 14)?;
    let mut records = Vec::new();
    for recorded in recorded {
        match recorded {
            Recorded::Request(record) => records.push(record),
            Recorded::Dropped(dropped) => return Err(format!("{dropped:?}").into()),
        }
    }
    records.sort_by_key(|record| record.index);
    Ok((end, records))
}

pub(crate) fn results(records: &[Record]) -> Vec<i32> {
    records.iter().map(|record| record.result).collect()
}
