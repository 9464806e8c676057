//! What keeps a disk busy, and a witness of how busy it is.

use nix::libc::O_DIRECT;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Reads in flight at once. Large ones, that keep the disk busy and hardly a pCPU: each waits for the others, and so does the guest.
const READERS_COUNT: usize = 32;
const READ_BYTES: usize = 1 << 20;
const FILE_BYTES: usize = 128 << 20;

/// Everything but the vCPU that is looked at is here, so the load is as well.
const PCPU: usize = 0;

/// `O_DIRECT` wants its buffers and offsets at multiples of a block.
const ALIGNMENT_BYTES: usize = 4096;

/// Between two reads of the witness, which is not to be a load.
const PAUSE: Duration = Duration::from_millis(2);

/// Threads that do one thing again and again until they are dropped.
struct Workers<T> {
    threads: Vec<JoinHandle<io::Result<T>>>,
    is_over: Arc<AtomicBool>,
}

impl<T: Send + 'static> Workers<T> {
    fn start(
        count: usize,
        work: impl Fn(usize, &AtomicBool) -> io::Result<T> + Clone + Send + 'static,
    ) -> Workers<T> {
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = |index| {
            let (work, is_over) = (work.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut pcpus = CpuSet::new();
                pcpus.set(PCPU)?;
                sched_setaffinity(Pid::from_raw(0), &pcpus)?;
                work(index, &is_over)
            })
        };
        let threads = (0..count).map(thread).collect();
        Workers { threads, is_over }
    }

    fn finish(mut self) -> io::Result<Vec<T>> {
        self.is_over.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads).into_iter();
        let of_thread = |thread: JoinHandle<io::Result<T>>| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
        };
        threads.map(of_thread).collect()
    }
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A load on the disk that a directory is on.
pub(super) struct DiskLoad {
    path: PathBuf,
    workers: Option<Workers<()>>,
}

impl DiskLoad {
    /// Writes the file that is read.
    pub(super) fn prepare(directory: &Path) -> io::Result<DiskLoad> {
        let path = directory.join("load");
        let file = open(OpenOptions::new().write(true).create(true), &path)?;
        let block = vec![0xa5_u8; READ_BYTES + ALIGNMENT_BYTES];
        let block = &block[misfit(&block)..][..READ_BYTES];
        for offset in (0..FILE_BYTES).step_by(READ_BYTES) {
            file.write_all_at(block, offset as u64)?;
        }
        file.sync_all()?;
        Ok(DiskLoad { path, workers: None })
    }

    pub(super) fn file(&self) -> &Path {
        &self.path
    }

    pub(super) fn start(self) -> io::Result<DiskLoad> {
        let file = Arc::new(open(OpenOptions::new().read(true), &self.path)?);
        let read = move |index, is_over: &AtomicBool| {
            let mut place = index * FILE_BYTES / READERS_COUNT;
            while !is_over.load(Ordering::Relaxed) {
                place = (place + READ_BYTES) % FILE_BYTES;
                let at = place / READ_BYTES * READ_BYTES;
                read_at(&file, at, READ_BYTES)?;
            }
            Ok(())
        };
        Ok(DiskLoad { workers: Some(Workers::start(READERS_COUNT, read)), ..self })
    }

    /// Ends it; an error if it was none.
    pub(super) fn stop(mut self) -> io::Result<()> {
        self.workers.take().map_or(Ok(()), |workers| workers.finish().map(drop))
    }
}

/// Reads now and then, and keeps how long the disk took.
pub(super) struct Witness(Workers<Vec<u64>>);

impl Witness {
    pub(super) fn start(path: &Path) -> io::Result<Witness> {
        let file = Arc::new(open(OpenOptions::new().read(true), path)?);
        let witness = move |_, is_over: &AtomicBool| {
            let (mut lengths_ns, mut at) = (Vec::new(), 0);
            while !is_over.load(Ordering::Relaxed) {
                let (begun, waited_ns) = (Instant::now(), run_delay_ns()?);
                read_at(&file, at, ALIGNMENT_BYTES)?;
                let length_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                // That it waited for its pCPU is not the disk's doing.
                lengths_ns
                    .push(length_ns.saturating_sub(run_delay_ns()?.saturating_sub(waited_ns)));
                // Another block each time, and no two neighbours.
                at = (at + (READ_BYTES + ALIGNMENT_BYTES)) % FILE_BYTES;
                std::thread::sleep(PAUSE);
            }
            Ok(lengths_ns)
        };
        Ok(Witness(Workers::start(1, witness)))
    }

    /// How long each read took, without what its thread waited for a pCPU.
    pub(super) fn finish(self) -> io::Result<Vec<u64>> {
        Ok(self.0.finish()?.concat())
    }
}

/// The value below which this share of them is; 0 of none.
pub(super) fn percentile(lengths_ns: &[u64], share: f64) -> u64 {
    let mut sorted = lengths_ns.to_vec();
    sorted.sort_unstable();
    let below = sorted
        .iter()
        .enumerate()
        .take_while(|(place, _)| (*place as f64) <= share * (sorted.len() as f64 - 1.0));
    below.last().map_or(0, |(_, length_ns)| *length_ns)
}

/// For how long this thread was runnable and not on a pCPU: the second figure of proc_pid_schedstat.
fn run_delay_ns() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let delay = text.split_whitespace().nth(1).and_then(|figure| figure.parse().ok());
    delay.ok_or_else(|| io::Error::other("/proc/thread-self/schedstat has no run delay"))
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(O_DIRECT).open(path)
}

/// Bytes until the next multiple of the alignment.
fn misfit(buffer: &[u8]) -> usize {
    buffer.as_ptr().align_offset(ALIGNMENT_BYTES)
}

fn read_at(file: &File, offset: usize, length: usize) -> io::Result<()> {
    let mut buffer = vec![0; length + ALIGNMENT_BYTES];
    let start = misfit(&buffer);
    file.read_exact_at(&mut buffer[start..start + length], offset as u64)
}
