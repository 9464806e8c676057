//! What is read and recorded, with every engine.

use crate::run::{
    BLOCK_BYTES, directory_on_disk, file_of, prepare, results, run, run_into_ring_of, spec,
};
use libtest_mimic::{Completion, Failed, Trial};
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use vslice_spec::{Engine, Pattern, ReaderSpec};
use vslice_workload::reader::ReaderEnd;
use vslice_workload::ring::{DroppedRecords, Recorded, recording_ring};

const BLOCK: i32 = 4096;

/// More than any test reads: 2^28 blocks.
const ENDLESS_BLOCKS: u64 = 1 << 28;

type Body = fn(EngineUnderTest) -> Result<(), Failed>;

#[derive(Debug, Clone, Copy)]
struct EngineUnderTest {
    engine: Engine,
    depth: u16,
}

impl EngineUnderTest {
    fn spec(self, path: &Path, blocks: u64) -> Result<ReaderSpec, Failed> {
        let EngineUnderTest { engine, depth } = self;
        Ok(ReaderSpec { engine, depth, ..spec(path, blocks)? })
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    let engines = [
        ("psync", EngineUnderTest { engine: Engine::Psync, depth: 1 }),
        ("io_uring_1", EngineUnderTest { engine: Engine::IoUring, depth: 1 }),
        ("io_uring_7", EngineUnderTest { engine: Engine::IoUring, depth: 7 }),
        ("io_uring_4096", EngineUnderTest { engine: Engine::IoUring, depth: 4096 }),
    ];
    let bodies: [(&str, Body); 9] = [
        ("every_block_is_read_and_recorded_once", every_block_is_read_and_recorded_once),
        ("sequential_reads_start_over_at_the_end", sequential_reads_start_over_at_the_end),
        ("random_reads_follow_their_sequence", random_reads_follow_their_sequence),
        ("a_file_that_shrinks_gives_empty_reads", a_file_that_shrinks_gives_empty_reads),
        ("a_full_ring_loses_records_but_no_count", a_full_ring_loses_records_but_no_count),
        ("a_stop_before_the_start_reads_nothing", a_stop_before_the_start_reads_nothing),
        ("a_stop_ends_it_with_nothing_in_flight", a_stop_ends_it_with_nothing_in_flight),
        ("a_duration_ends_it", a_duration_ends_it),
        ("a_total_is_rounded_up_to_whole_blocks", a_total_is_rounded_up_to_whole_blocks),
    ];
    let mut trials = Vec::new();
    for (engine_name, engine) in engines {
        for (name, body) in bodies {
            trials.push(Trial::ignorable_test(format!("{engine_name}::{name}"), move || {
                if let (Engine::IoUring, Err(error)) = (engine.engine, io_uring::IoUring::new(1)) {
                    return Ok(Completion::ignored_with(format!("no io_uring here: {error}")));
                }
                body(engine).map(|()| Completion::Completed)
            }));
        }
    }
    trials
}

fn every_block_is_read_and_recorded_once(engine: EngineUnderTest) -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 64 * BLOCK_BYTES as usize)?;
    let spec = engine.spec(&path, 64)?;
    let reader = prepare(&spec)?;
    assert_eq!(reader.target(), path);
    assert_eq!(reader.target_bytes(), 64 * 4096);

    let (end, records) = run(reader)?;
    let expected =
        ReaderEnd { requests: 64, dropped: 0, completed: true, io_errors: 0, short_reads: 0 };
    assert_eq!(end, expected);
    assert_eq!(records.len(), 64);
    for (record, index) in records.iter().zip(0..) {
        assert_eq!(record.index, index);
        assert_eq!(record.result, BLOCK);
        assert!(record.completed > record.submitted, "{record:?}");
        assert_eq!((record.vcpu_submitted, record.vcpu_completed), (spec.vcpu, spec.vcpu));
    }
    let in_order = records.windows(2).all(|pair| pair[0].submitted <= pair[1].submitted);
    assert!(in_order, "indices count in order of submission");
    Ok(())
}

/// The last block of this file is half a block: where it is read shows in the results.
fn sequential_reads_start_over_at_the_end(engine: EngineUnderTest) -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 10240)?;
    let (end, records) = run(prepare(&engine.spec(&path, 8)?)?)?;
    assert_eq!(results(&records), [BLOCK, BLOCK, 2048, BLOCK, BLOCK, 2048, BLOCK, BLOCK]);
    assert_eq!((end.requests, end.short_reads, end.io_errors), (8, 2, 0));
    Ok(())
}

fn random_reads_follow_their_sequence(engine: EngineUnderTest) -> Result<(), Failed> {
    const READS: u64 = 500;
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 2 * 4096 + 512)?;
    let spec = ReaderSpec { pattern: Pattern::Rand, ..engine.spec(&path, READS)? };
    let (_, records) = run(prepare(&spec)?)?;

    // SplitMix64 from 0, its upper bits scaled to the 3 blocks: written once more, step by step.
    let mut state = 0_u64;
    let expected = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        if (u128::from(bits) * 3) >> 64 == 2 { 512 } else { BLOCK }
    });
    let expected: Vec<i32> = expected.take(500).collect();
    assert_eq!(results(&records), expected);
    Ok(())
}

fn a_file_that_shrinks_gives_empty_reads(engine: EngineUnderTest) -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 4 * 4096)?;
    let reader = prepare(&engine.spec(&path, 8)?)?;
    OpenOptions::new().write(true).open(&path)?.set_len(4096)?;
    let (end, records) = run(reader)?;
    assert_eq!(results(&records), [BLOCK, 0, 0, 0, BLOCK, 0, 0, 0]);
    assert_eq!((end.requests, end.short_reads, end.completed), (8, 6, true));
    Ok(())
}

fn a_full_ring_loses_records_but_no_count(engine: EngineUnderTest) -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 4 * 4096)?;
    let (end, recorded) = run_into_ring_of(prepare(&engine.spec(&path, 50)?)?, 10)?;
    assert_eq!((end.requests, end.dropped), (50, 40));
    assert_eq!(recorded.len(), 11);
    let last = recorded.last().ok_or("no record")?;
    assert!(matches!(last, Recorded::Dropped(DroppedRecords { count: 40, .. })), "{last:?}");
    Ok(())
}

fn a_stop_before_the_start_reads_nothing(engine: EngineUnderTest) -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 4 * 4096)?;
    let reader = prepare(&engine.spec(&path, ENDLESS_BLOCKS)?)?;
    let (producer, mut consumer) = recording_ring(16);
    let stop = AtomicBool::new(true);
    let end = std::thread::scope(|scope| {
        scope.spawn(|| reader.run(producer, &stop)).join().map_err(|_| "the reader panicked")
    })??;
    assert_eq!((end.requests, end.completed), (0, false));
    assert_eq!(consumer.pop(), None);
    assert!(consumer.is_finished());
    Ok(())
}

fn a_stop_ends_it_with_nothing_in_flight(engine: EngineUnderTest) -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 16 * 4096)?;
    let reader = prepare(&engine.spec(&path, ENDLESS_BLOCKS)?)?;
    let (producer, mut consumer) = recording_ring(256);
    let stop = AtomicBool::new(false);
    let (end, count) = std::thread::scope(|scope| -> Result<_, Failed> {
        let running = scope.spawn(|| reader.run(producer, &stop));
        let mut count = 0;
        while !consumer.is_finished() {
            match consumer.pop() {
                Some(Recorded::Request(_)) => count += 1,
                Some(Recorded::Dropped(dropped)) => count += dropped.count,
                None => std::thread::yield_now(),
            }
            if count >= 20 {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Ok((running.join().map_err(|_| "the reader panicked")??, count))
    })?;
    assert!(!end.completed);
    assert!(end.requests >= 20);
    assert_eq!(count, end.requests, "every request that was made is recorded or counted");
    Ok(())
}

fn a_duration_ends_it(engine: EngineUnderTest) -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 16 * 4096)?;
    let spec = ReaderSpec { duration_ms: Some(30), ..engine.spec(&path, ENDLESS_BLOCKS)? };
    let (end, _) = run_into_ring_of(prepare(&spec)?, 16)?;
    assert!(end.completed);
    assert!(end.requests > 0);
    Ok(())
}

fn a_total_is_rounded_up_to_whole_blocks(engine: EngineUnderTest) -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 4 * 4096)?;
    let spec = ReaderSpec { total_bytes: 2 * 4096 + 1, ..engine.spec(&path, 2)? };
    let (end, records) = run(prepare(&spec)?)?;
    assert_eq!(end.requests, 3);
    assert_eq!(results(&records), [BLOCK; 3]);
    Ok(())
}
