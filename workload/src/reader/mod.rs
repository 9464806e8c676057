//! Reads that go past the page cache, one after the other or many in flight, every one recorded.
//!
//! ```text
//! target      which file or disk, and whether a read from it means anything
//! create      a file of real data where there is none
//! disk        the disk under a file: its block size, its I/O scheduler
//! offsets     where each read goes
//! session     when the reader is done, and what is recorded of each read
//! psync       pread(2), one at a time
//! uring       io_uring(7), many in flight
//! null        no reads: what a request costs the reader itself
//! ```

mod buffer;
mod create;
mod disk;
mod null;
mod psync;
mod session;
mod target;
mod uring;

use crate::clock::Clock;
use crate::error::WorkloadError;
use crate::pin::pin_current_thread;
use crate::ring::Producer;
pub use disk::DiskPlace;
use disk::SchedulerSetting;
pub use null::run_without_reads;
use psync::Psync;
use session::Session;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use target::Target;
use uring::Uring;
use vslice_spec::workload::{Engine, ReaderSpec, validate_io_scheduler};

/// A reader that has everything it needs: after [`Reader::prepare`], only reads are left to do.
///
/// The I/O scheduler that it set is put back when it is dropped, or has run.
#[derive(Debug)]
pub struct Reader {
    spec: ReaderSpec,
    clock: Clock,
    target: Target,
    engine: PreparedEngine,
    /// Held for its `Drop`.
    _scheduler: Option<SchedulerSetting>,
}

#[derive(Debug)]
enum PreparedEngine {
    Psync(Psync),
    IoUring(Box<Uring>),
}

/// How a reader's run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderEnd {
    /// Requests made; each one was recorded or is among the dropped.
    pub requests: u64,
    /// Requests whose records found the ring full.
    pub dropped: u64,
    /// Whether it read to the end of its total or duration; false if it was stopped.
    pub completed: bool,
    /// Requests that failed; their records have the errno.
    pub io_errors: u64,
    /// Requests that did not fail but read less than a block, 0 bytes included.
    pub short_reads: u64,
}

impl Reader {
    /// Finds the target or creates it, checks that reading it means something, sets the scheduler
    /// of its disk if one is named, and allocates everything that the reads will need.
    ///
    /// Creating a target takes as long as writing it does; looking for `auto` takes up to 10 s.
    ///
    /// # Errors
    ///
    /// Every [`WorkloadError`] about specs, targets, schedulers and `io_uring`.
    pub fn prepare(
        spec: &ReaderSpec,
        io_scheduler: Option<&str>,
        clock: Clock,
    ) -> Result<Reader, WorkloadError> {
        spec.validate()?;
        if let Some(name) = io_scheduler {
            validate_io_scheduler(name)?;
        }
        let engine = match spec.engine {
            Engine::Psync => PreparedEngine::Psync(Psync::prepare(spec.block_bytes)),
            Engine::IoUring => {
                PreparedEngine::IoUring(Box::new(Uring::prepare(spec.block_bytes, spec.depth)?))
            }
        };
        let target = Target::open(spec)?;
        let scheduler = io_scheduler.map(|name| target.set_scheduler(name)).transpose()?;
        Ok(Reader { spec: spec.clone(), clock, target, engine, _scheduler: scheduler })
    }

    /// What is read: the path of a file or block device.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target.path
    }

    /// The size of the target in bytes.
    #[must_use]
    pub fn target_bytes(&self) -> u64 {
        self.target.target_bytes
    }

    /// The whole disk under the target and where the target is on it; `None` if it is on no disk
    /// that sysfs knows.
    #[must_use]
    pub fn place(&self) -> Option<DiskPlace> {
        self.target.place()
    }

    /// Reads on the calling thread, which it pins to the spec's vCPU and leaves there, until the
    /// total is read, the duration is over, or `stop` is true. Requests in flight are always seen
    /// to their end. Dropping the producer, which happens before this returns, tells the consumer
    /// that there is no more.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::Pin`] before the first request; [`WorkloadError::IoUringEnter`] at any
    /// time. A request that fails is not an error but a record.
    pub fn run(
        mut self,
        producer: Producer,
        stop: &AtomicBool,
    ) -> Result<ReaderEnd, WorkloadError> {
        pin_current_thread(self.spec.vcpu)?;
        let mut session =
            Session::start(&self.spec, self.target.target_bytes, self.clock, producer, stop);
        match &mut self.engine {
            PreparedEngine::Psync(psync) => psync.run(&self.target.file, &mut session),
            PreparedEngine::IoUring(uring) => uring.run(&self.target.file, &mut session)?,
        }
        Ok(session.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Recorded, recording_ring};
    use std::fs::OpenOptions;
    use vslice_spec::{ClockChoice, Pattern};

    /// A file that is open for writing only: every read of it fails with `EBADF`.
    fn unreadable() -> std::fs::File {
        OpenOptions::new().write(true).open("/dev/null").unwrap()
    }

    fn spec(engine: Engine, depth: u16) -> ReaderSpec {
        ReaderSpec {
            target: "unused".to_owned(),
            create: false,
            block_bytes: 4096,
            total_bytes: 20 * 4096,
            duration_ms: None,
            pattern: Pattern::Seq,
            engine,
            depth,
            vcpu: 0,
        }
    }

    fn read_unreadable(spec: &ReaderSpec, engine: &mut PreparedEngine) -> (ReaderEnd, Vec<i32>) {
        let (producer, mut consumer) = recording_ring(64);
        let stop = AtomicBool::new(false);
        let clock = Clock::choose(ClockChoice::MonotonicRaw);
        let mut session = Session::start(spec, 1 << 20, clock, producer, &stop);
        match engine {
            PreparedEngine::Psync(psync) => psync.run(&unreadable(), &mut session),
            PreparedEngine::IoUring(uring) => uring.run(&unreadable(), &mut session).unwrap(),
        }
        let end = session.end();
        let results = std::iter::from_fn(|| consumer.pop()).map(|recorded| match recorded {
            Recorded::Request(record) => record.result,
            Recorded::Dropped(dropped) => panic!("{dropped:?}"),
        });
        (end, results.collect())
    }

    /// Failing reads are results, and a target that only fails is done after as many of them.
    #[test]
    fn a_target_that_always_fails_ends_after_its_total() {
        let psync = PreparedEngine::Psync(Psync::prepare(4096));
        let mut engines = vec![(spec(Engine::Psync, 1), psync)];
        // Where io_uring is forbidden, the integration tests say that they were ignored.
        if let Ok(uring) = Uring::prepare(4096, 8) {
            engines.push((spec(Engine::IoUring, 8), PreparedEngine::IoUring(Box::new(uring))));
        }
        for (spec, mut engine) in engines {
            let (end, results) = read_unreadable(&spec, &mut engine);
            let expected = ReaderEnd {
                requests: 20,
                dropped: 0,
                completed: true,
                io_errors: 20,
                short_reads: 0,
            };
            assert_eq!(end, expected, "{engine:?}");
            assert_eq!(results, [-libc::EBADF; 20], "{engine:?}");
        }
    }
}
