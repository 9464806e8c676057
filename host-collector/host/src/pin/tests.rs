use super::*;
use std::fs;
use std::sync::mpsc;

/// A thread of this process that waits until it is dropped.
struct Sleeper {
    tid: Tid,
    release: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sleeper {
    fn new() -> Sleeper {
        let (report, reported) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            report.send(nix::unistd::gettid().as_raw()).expect("the test waits for it");
            let _ = released.recv();
        });
        let tid = Tid(u32::try_from(reported.recv().expect("it began")).expect("positive"));
        Sleeper { tid, release: Some(release), thread: Some(thread) }
    }

    fn pin(&self, pcpu: PcpuId) -> Pin {
        Pin { pid: Tid(std::process::id()), tid: self.tid, pcpu }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.release.take();
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn undone(count: usize) -> Undone {
    Undone { count, failed_count: 0 }
}

fn files_in(directory: &Path) -> usize {
    fs::read_dir(directory).expect("the directory is there").count()
}

#[test]
fn a_pinned_thread_goes_back_and_the_journal_goes_away() {
    let directory = tempfile::tempdir().expect("scratch");
    let sleeper = Sleeper::new();
    let before = affinity(sleeper.tid).expect("it runs");
    let target = *before.last().expect("it may run somewhere");
    let mut pinning = Pinning::new(directory.path()).expect("a journal");
    pinning.apply(&[sleeper.pin(target)]).expect("its own thread");
    assert_eq!(affinity(sleeper.tid), Ok(vec![target]));
    pinning.apply(&[sleeper.pin(before[0])]).expect("it may be pinned again");
    assert_eq!(affinity(sleeper.tid), Ok(vec![before[0]]));
    assert_eq!(files_in(directory.path()), 1);
    drop(pinning);
    assert_eq!(affinity(sleeper.tid), Ok(before));
    assert_eq!(files_in(directory.path()), 0);
}

/// A journal as a collector leaves it that is killed: `owner` names one that is not there.
fn stale_journal(directory: &Path, entries: &[Entry]) {
    let lines: Vec<String> =
        entries.iter().map(|entry| serde_json::to_string(entry).expect("JSON")).collect();
    let path = directory.join(format!("affinity-{}-1-0.journal", std::process::id()));
    fs::write(path, lines.join("\n") + "\n{\"tid\":1,\"sta").expect("scratch is writable");
}

fn entry(sleeper: &Sleeper, pinned_to: PcpuId, previous: &[PcpuId]) -> Entry {
    let start = procfs::start_ticks(sleeper.tid).expect("it runs");
    Entry { tid: sleeper.tid, start, pinned_to, previous: previous.to_vec() }
}

#[test]
fn what_a_killed_collector_left_is_undone() {
    let directory = tempfile::tempdir().expect("scratch");
    let sleeper = Sleeper::new();
    let before = affinity(sleeper.tid).expect("it runs");
    set_affinity(sleeper.tid, &before[..1]).expect("its own thread");
    stale_journal(directory.path(), &[entry(&sleeper, before[0], &before)]);
    assert_eq!(undo_stale_journals(directory.path()).expect("readable"), undone(1));
    assert_eq!(affinity(sleeper.tid), Ok(before));
    assert_eq!(files_in(directory.path()), 0);
}

#[test]
fn what_cannot_be_undone_stays_in_its_journal() {
    let directory = tempfile::tempdir().expect("scratch");
    let sleeper = Sleeper::new();
    let before = affinity(sleeper.tid).expect("it runs");
    set_affinity(sleeper.tid, &before[..1]).expect("its own thread");
    let no_pcpu_now = PcpuId(1023);
    stale_journal(directory.path(), &[entry(&sleeper, before[0], &[no_pcpu_now])]);
    let failed = Undone { count: 0, failed_count: 1 };
    assert_eq!(undo_stale_journals(directory.path()).expect("readable"), failed);
    assert_eq!(files_in(directory.path()), 1, "the next may have more luck");
}

#[test]
fn a_thread_that_only_has_the_same_id_is_not_touched() {
    let directory = tempfile::tempdir().expect("scratch");
    let sleeper = Sleeper::new();
    let before = affinity(sleeper.tid).expect("it runs");
    set_affinity(sleeper.tid, &before[..1]).expect("its own thread");
    let mut earlier = entry(&sleeper, before[0], &before);
    earlier.start = StartTicks(earlier.start.0 - 1);
    stale_journal(directory.path(), &[earlier]);
    assert_eq!(undo_stale_journals(directory.path()).expect("readable"), undone(0));
    assert_eq!(affinity(sleeper.tid), Ok(before[..1].to_vec()));
}

#[test]
fn a_thread_that_somebody_else_has_moved_stays_there() {
    let directory = tempfile::tempdir().expect("scratch");
    let sleeper = Sleeper::new();
    let before = affinity(sleeper.tid).expect("it runs");
    let elsewhere = PcpuId(before.last().expect("it may run somewhere").0 + 1);
    stale_journal(directory.path(), &[entry(&sleeper, elsewhere, &before[..1])]);
    assert_eq!(undo_stale_journals(directory.path()).expect("readable"), undone(0));
    assert_eq!(affinity(sleeper.tid), Ok(before));
}

#[test]
fn a_journal_that_somebody_else_may_have_written_is_not_done() {
    let (directory, elsewhere) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
    let sleeper = Sleeper::new();
    let previous = affinity(sleeper.tid).expect("it waits");
    set_affinity(sleeper.tid, &previous[..1]).expect("a pCPU that it may use");
    stale_journal(elsewhere.path(), &[entry(&sleeper, previous[0], &previous)]);
    let journals = fs::read_dir(elsewhere.path()).expect("readable");
    let journal = journals.flatten().next().expect("just written").path();
    let link = directory.path().join(journal.file_name().expect("it has one"));
    std::os::unix::fs::symlink(&journal, &link).expect("writable");
    assert_eq!(undo_stale_journals(directory.path()).expect("readable"), undone(0));
    assert!(link.is_symlink(), "it is not ours to remove");
    assert_eq!(affinity(sleeper.tid).expect("it waits"), previous[..1]);
}

#[test]
fn the_journal_of_a_living_collector_is_left_alone() {
    let directory = tempfile::tempdir().expect("scratch");
    let sleeper = Sleeper::new();
    let target = affinity(sleeper.tid).expect("it runs")[0];
    let mut pinning = Pinning::new(directory.path()).expect("a journal");
    pinning.apply(&[sleeper.pin(target)]).expect("its own thread");
    assert_eq!(undo_stale_journals(directory.path()).expect("readable"), undone(0));
    assert_eq!(affinity(sleeper.tid), Ok(vec![target]));
    let nowhere = directory.path().join("none");
    assert_eq!(undo_stale_journals(&nowhere).expect("no directory, no journal"), undone(0));
}

#[test]
fn a_thread_born_later_goes_back_to_what_its_process_had() {
    let directory = tempfile::tempdir().expect("scratch");
    let (first, born_later) = (Sleeper::new(), Sleeper::new());
    let before = affinity(first.tid).expect("it runs");
    let mut pinning = Pinning::new(directory.path()).expect("a journal");
    let pin = |tid, pcpu| Pin { pid: first.tid, tid, pcpu };
    pinning.apply(&[pin(first.tid, before[0])]).expect("its own thread");
    set_affinity(born_later.tid, &before[..1]).expect("as if it had inherited the pin");
    pinning.apply(&[pin(born_later.tid, before[0])]).expect("its own thread");
    drop(pinning);
    assert_eq!(affinity(born_later.tid), Ok(before));
}

#[test]
fn a_pcpu_that_is_not_there_is_an_error_and_a_thread_that_is_gone_is_not() {
    let directory = tempfile::tempdir().expect("scratch");
    let sleeper = Sleeper::new();
    let mut pinning = Pinning::new(directory.path()).expect("a journal");
    let gone = Pin { pid: Tid(1), tid: Tid(i32::MAX.unsigned_abs()), pcpu: PcpuId(0) };
    assert!(pinning.apply(&[gone]).is_ok());
    let error = pinning.apply(&[sleeper.pin(PcpuId(1023))]).expect_err("no such pCPU");
    assert!(error.to_string().contains("cannot be pinned to pCPU1023: EINVAL"), "{error}");
}
