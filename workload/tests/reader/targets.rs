//! Which targets are taken, which are made, and which are refused with what sentence.

use crate::run::{directory_on_disk, file_of, prepare, run, spec};
use libtest_mimic::{Completion, Failed, Trial};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use vslice_spec::{ReaderSpec, SpecError};
use vslice_workload::clock::Clock;
use vslice_workload::error::WorkloadError;
use vslice_workload::reader::Reader;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("target::a_missing_file_is_created", a_missing_file_is_created),
        Trial::test("target::an_existing_file_is_not_touched", an_existing_file_is_not_touched),
        Trial::test("target::a_missing_file_is_refused", a_missing_file_is_refused),
        Trial::test("target::a_sparse_file_is_refused", a_sparse_file_is_refused),
        Trial::test("target::a_preallocated_file_is_refused", a_preallocated_file_is_refused),
        Trial::test("target::a_small_file_is_refused", a_small_file_is_refused),
        Trial::test("target::what_is_no_file_is_refused", what_is_no_file_is_refused),
        Trial::test("target::a_bad_spec_is_refused", a_bad_spec_is_refused),
        Trial::ignorable_test("target::memory_is_refused", memory_is_refused),
    ]
}

/// The error that preparing a reader must end with.
pub(crate) fn refusal(
    spec: &ReaderSpec,
    io_scheduler: Option<&str>,
) -> Result<WorkloadError, Failed> {
    match Reader::prepare(spec, io_scheduler, Clock::MonotonicRaw) {
        Ok(reader) => Err(format!("{} was taken", reader.target().display()).into()),
        Err(error) => Ok(error),
    }
}

fn creating(path: &Path, blocks: u64) -> Result<ReaderSpec, Failed> {
    Ok(ReaderSpec { create: true, ..spec(path, blocks)? })
}

fn a_missing_file_is_created() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = directory.path().join("created");
    let reader = prepare(&creating(&path, 300)?)?;
    assert_eq!(reader.target_bytes(), 300 * 4096);
    let (end, records) = run(reader)?;
    assert_eq!((end.requests, end.short_reads, end.io_errors), (300, 0, 0));
    assert_eq!(records.len(), 300);
    let data = fs::read(&path)?;
    assert!(!data.chunks(4096).any(|block| block.iter().all(|byte| *byte == 0)));
    Ok(())
}

fn an_existing_file_is_not_touched() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 8192)?;
    let reader = prepare(&creating(&path, 300)?)?;
    assert_eq!(reader.target_bytes(), 8192);
    assert_eq!(fs::read(&path)?, vec![0xa5; 8192]);
    Ok(())
}

fn a_missing_file_is_refused() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let error = refusal(&spec(&directory.path().join("missing"), 1)?, None)?;
    assert!(matches!(error, WorkloadError::TargetMissing { .. }), "{error}");
    assert!(error.to_string().contains("create = true"), "{error}");
    Ok(())
}

fn a_sparse_file_is_refused() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 1 << 20)?;
    let mut file = OpenOptions::new().write(true).open(&path)?;
    file.set_len(3 << 20)?;
    file.seek(SeekFrom::Start(2 << 20))?;
    file.write_all(&vec![1; 1 << 20])?;
    file.sync_all()?;
    let error = refusal(&spec(&path, 1)?, None)?;
    let WorkloadError::Sparse { data_bytes, target_bytes, .. } = error else {
        return Err(error.into());
    };
    assert_eq!((data_bytes, target_bytes), (1 << 20, 3 << 20));
    Ok(())
}

/// It has all its blocks, but none was ever written.
fn a_preallocated_file_is_refused() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = directory.path().join("preallocated");
    let file = File::create(&path)?;
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20)?;
    let error = refusal(&spec(&path, 1)?, None)?;
    assert!(matches!(error, WorkloadError::Sparse { data_bytes: 0, .. }), "{error}");
    assert!(error.to_string().contains("delete it and set create = true"), "{error}");
    Ok(())
}

fn a_small_file_is_refused() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    for length in [0, 4095] {
        let error = refusal(&spec(&file_of(&directory, length)?, 1)?, None)?;
        let expected = u64::try_from(length)?;
        assert!(
            matches!(error, WorkloadError::TargetTooSmall { target_bytes, block_bytes: 4096, .. }
                if target_bytes == expected),
            "{error}"
        );
    }
    Ok(())
}

fn what_is_no_file_is_refused() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)?;
    for path in [directory.path(), &fifo, Path::new("/dev/zero")] {
        let error = refusal(&spec(path, 1)?, None)?;
        assert!(matches!(error, WorkloadError::TargetKind { .. }), "{error}");
    }
    Ok(())
}

fn a_bad_spec_is_refused() -> Result<(), Failed> {
    let directory = directory_on_disk()?;
    let path = file_of(&directory, 8192)?;
    let spec = spec(&path, 1)?;
    let error = refusal(&ReaderSpec { block_bytes: 3000, ..spec.clone() }, None)?;
    assert!(
        matches!(error, WorkloadError::Spec(SpecError::BlockBytes { block_bytes: 3000 })),
        "{error}"
    );
    let error = refusal(&spec, Some("../none"))?;
    assert!(matches!(error, WorkloadError::Spec(SpecError::IoScheduler { .. })), "{error}");
    Ok(())
}

fn memory_is_refused() -> Result<Completion, Failed> {
    let memory = Path::new("/dev/shm");
    if !statfs(memory).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC) {
        return Ok(Completion::ignored_with("/dev/shm is not tmpfs here"));
    }
    let directory = tempfile::tempdir_in(memory)?;
    let path = directory.path().join("data");
    let error = refusal(&creating(&path, 1)?, None)?;
    assert!(matches!(error, WorkloadError::TargetInMemory { .. }), "{error}");
    assert!(!path.exists());
    let error = refusal(&spec(&file_of(&directory, 8192)?, 1)?, None)?;
    assert!(matches!(error, WorkloadError::TargetInMemory { .. }), "{error}");
    Ok(Completion::Completed)
}
