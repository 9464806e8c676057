//! What the recorder sees of a real disk, where a thread of this process reads it and nobody keeps its
//! pCPU from idling meanwhile.
//!
//! Needs the right to record the whole machine, and a disk whose I/O can be recorded under the scratch
//! directory; where either is missing, each test is reported as ignored and says why.

use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::gettid;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use vslice_core::host_event::{BlockEvent, BlockStep, HostEvent, HostEventKind};
use vslice_core::units::{PcpuId, Tid};
use vslice_host::host::whole_disk;
use vslice_record::perf::{
    RecordPlan, Recorder, SchedulerSource, SinkError, check_disk_programs, check_rights,
};
use vslice_trace::host::WholeDisk;

const BLOCK_BYTES: usize = 4096;
const FILE_BYTES: usize = 1 << 20;
/// Reads of a recording: enough that some end while a pCPU idles, also where others are busy.
const READS_COUNT: usize = 2048;

type Outcome = Result<(), Failed>;
type Test = fn() -> Outcome;

fn main() {
    let mut arguments = Arguments::from_args();
    // One records what the other one reads.
    arguments.test_threads = Some(1);
    let missing = missing();
    let tests: [(&str, Test); 3] = [
        ("whoever_is_woken_by_a_disk_is_so_by_a_completion_that_was_seen", completions_are_seen),
        ("programs_tell_of_a_disk_what_tracepoints_tell", programs_tell_the_same),
        ("programs_tell_of_no_disk_that_nobody_asked_for", programs_are_silent),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        let trial = Trial::test(name, test);
        match &missing {
            None => trial,
            Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// Why nothing can be judged here. A program that the kernel refuses is a defect, and no such reason.
fn missing() -> Option<String> {
    let rights = check_rights().err().map(|error| error.to_string());
    let programs =
        || check_disk_programs().err().filter(|reason| !reason.contains("load a BPF program"));
    rights.or_else(|| Scratch::create().err()).or_else(programs)
}

/// A file that is read past the page cache.
struct Scratch {
    directory: TempDir,
    file: File,
    disk: WholeDisk,
}

impl Scratch {
    fn create() -> Result<Scratch, String> {
        let text = |error: std::io::Error| error.to_string();
        let directory =
            tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).map_err(text)?;
        let path = directory.path().join("scratch");
        std::fs::write(&path, vec![1; FILE_BYTES]).map_err(text)?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(text)?;
        let disk = whole_disk(&path)?;
        let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path);
        let file = direct.map_err(|error| format!("no O_DIRECT under the target: {error}"))?;
        Ok(Scratch { directory, file, disk })
    }

    /// Has something written, and the disk's cache with it, as anybody may do at any time.
    fn flush(&self) -> std::io::Result<()> {
        let mut file = File::create(self.directory.path().join("written"))?;
        file.write_all(&[1; BLOCK_BYTES])?;
        file.sync_all()
    }

    fn read(&self) -> std::io::Result<()> {
        #[repr(align(4096))]
        struct Block([u8; BLOCK_BYTES]);
        let mut block = Block([0; BLOCK_BYTES]);
        for place in 0..READS_COUNT {
            let offset = place * BLOCK_BYTES % FILE_BYTES;
            self.file.read_exact_at(&mut block.0, offset as u64)?;
        }
        Ok(())
    }
}

/// What a recording has told.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<HostEvent>>>);

impl Seen {
    fn record(&self, disk: &WholeDisk, source: SchedulerSource) -> Result<Recorder, Failed> {
        let seen = self.clone();
        let sink = move |_: PcpuId, events: &[HostEvent]| -> Result<(), SinkError> {
            let mut told = seen.0.lock().map_err(|_| "a holder of this lock has panicked")?;
            told.extend_from_slice(events);
            Ok(())
        };
        let plan = RecordPlan {
            vm_tids: vec![own_tid()],
            disks: vec![disk.device],
            scheduler_source: source,
            ..RecordPlan::default()
        };
        Ok(Recorder::start(&plan, sink)?)
    }

    /// In order of time.
    fn told(&self) -> Vec<HostEvent> {
        let mut told = self.0.lock().expect("no holder of this lock panics").clone();
        told.sort_by_key(|event| event.time);
        told
    }

    fn of_the_disk(&self) -> impl Iterator<Item = BlockEvent> {
        self.told().into_iter().filter_map(|event| match event.kind {
            HostEventKind::Block(block) => Some(block),
            _ => None,
        })
    }
}

fn stop(recorder: Recorder) -> Outcome {
    let totals = recorder.stop()?;
    check(totals.missing.is_empty(), || format!("without {:?}", totals.missing))?;
    let lost = totals.counters.lost_count;
    check(lost == 0, || format!("{lost} records were lost"))?;
    totals.ended_early.map_or(Ok(()), |error| Err(error.into()))
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// What this machine does not let a test judge; the test passes by what it could.
fn not_judged(why: &str) {
    let written = writeln!(std::io::stderr(), "not judged, because {why}");
    written.expect("the test's output");
}

fn own_tid() -> Tid {
    Tid(gettid().as_raw().cast_unsigned())
}

/// Reads of this thread, and how they ended.
#[derive(Debug, Default)]
struct Reads {
    submitted: usize,
    /// The completion was seen.
    completed: usize,
    /// The thread was seen to be woken, by a completion that was not seen.
    woken_only: usize,
}

impl Reads {
    fn of(told: &[HostEvent]) -> Reads {
        let mut reads = Reads::default();
        let mut open: Option<BlockEvent> = None;
        for event in told {
            match event.kind {
                HostEventKind::Block(block) => match block.step {
                    BlockStep::Submitted if block.tid == own_tid() => {
                        reads.submitted += 1;
                        open = Some(block);
                    }
                    BlockStep::Completed => {
                        let end = |block: &BlockEvent| block.sector + u64::from(block.sectors);
                        let covers = |bio: &BlockEvent| {
                            block.sector <= bio.sector && end(bio) <= end(&block)
                        };
                        reads.completed += usize::from(open.take_if(|bio| covers(bio)).is_some());
                    }
                    BlockStep::Submitted | BlockStep::Issued => {}
                },
                HostEventKind::Waking { tid, .. } if tid == own_tid() => {
                    reads.woken_only += usize::from(open.take().is_some());
                }
                _ => {}
            }
        }
        reads
    }
}

/// A completion interrupts whoever has the pCPU, and wakes the reader. Where nobody has it that is the
/// idle task, which some kernels hide from perf's tracepoint events. There are kernels that hide some
/// other tasks from every kind of tracing (see `perf::assemble`): then the waking is not seen either, and
/// nothing can be judged.
fn completions_are_seen() -> Outcome {
    let scratch = Scratch::create()?;
    let seen = Seen::default();
    let recorder = seen.record(&scratch.disk, SchedulerSource::Programs)?;
    scratch.read()?;
    stop(recorder)?;
    let reads = Reads::of(&seen.told());
    check(reads.submitted == READS_COUNT, || format!("{reads:?}"))?;
    check(reads.woken_only == 0, || format!("completions were missed: {reads:?}"))?;
    if reads.completed <= READS_COUNT / 2 {
        not_judged(&format!("the ends of too few reads were seen: {reads:?}"));
    }
    Ok(())
}

/// Both hear of each step at the same hit of a tracepoint. Tracepoints may be kept from hearing of some.
/// Programs pass over a flush, which has no place on the disk; tracepoints tell of it without sectors.
fn programs_tell_the_same() -> Outcome {
    let scratch = Scratch::create()?;
    let (by_programs, by_tracepoints) = (Seen::default(), Seen::default());
    let programs = by_programs.record(&scratch.disk, SchedulerSource::Programs)?;
    let tracepoints = by_tracepoints.record(&scratch.disk, SchedulerSource::Tracepoints)?;
    scratch.read()?;
    scratch.flush()?;
    stop(tracepoints)?;
    stop(programs)?;
    let mut ours: BTreeMap<String, usize> = BTreeMap::new();
    for event in by_programs.of_the_disk() {
        *ours.entry(format!("{event:?}")).or_default() += 1;
    }
    let has_place = |event: &BlockEvent| event.sectors > 0;
    let theirs: Vec<BlockEvent> = by_tracepoints.of_the_disk().filter(has_place).collect();
    for event in &theirs {
        let left = ours.get_mut(&format!("{event:?}")).filter(|left| **left > 0);
        *left.ok_or_else(|| format!("no program told of {event:?}"))? -= 1;
    }
    for step in [BlockStep::Submitted, BlockStep::Issued, BlockStep::Completed] {
        let count = theirs.iter().filter(|event| event.step == step).count();
        check(count > 0, || format!("no tracepoint told of any {step:?}"))?;
    }
    Ok(())
}

/// Others' I/O would fill the rings, and is nobody's business.
fn programs_are_silent() -> Outcome {
    let scratch = Scratch::create()?;
    let seen = Seen::default();
    let another = WholeDisk { device: scratch.disk.device ^ 1, ..scratch.disk.clone() };
    let recorder = seen.record(&another, SchedulerSource::Programs)?;
    scratch.read()?;
    stop(recorder)?;
    let told = seen.of_the_disk().find(|event| event.device != another.device);
    told.map_or(Ok(()), |event| Err(format!("nobody asked for {event:?}").into()))
}
