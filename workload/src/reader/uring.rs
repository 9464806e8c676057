//! Reads by `io_uring(7)`, up to `depth` in flight.
//!
//! Requests are made in batches: all that are due go to the kernel by one `io_uring_enter`, which
//! then waits for the first completion. All requests of a batch have the stamp from just before
//! that call, and all completions that are found together have the stamp from just after they were
//! found: a request that waits behind its batch waits in the kernel, and that is latency.
//!
//! Where the kernel allows it, the file and the memory are registered, so that it need not look them
//! up for each request, and it works off completions within that call, rather than by interrupting
//! the reader on its way there.
#![expect(unsafe_code, reason = "the kernel writes to memory that it is given by address")]

use super::buffer::AlignedBuffer;
use super::session::{Session, Stamp};
use crate::error::WorkloadError;
use io_uring::{IoUring, opcode, squeue, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;
use std::{fmt, io};

/// The most memory that the reads in flight may fill together. Beyond it they share blocks: two
/// reads then write to the same place at once, which spoils the data, but nobody looks at the data.
/// At 4 KiB, up to 256 reads have a block of their own.
const BUFFERS_BYTES: usize = 1 << 20;

/// How often in a row the kernel may say that it is too busy to take requests, with
/// [`BUSY_PAUSE`] after each, before the reader gives up.
const BUSY_LIMIT: u32 = 1000;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// The engine. Everything is allocated before the first request.
pub(super) struct Uring {
    ring: IoUring,
    /// Whether the ring knows the file as its file 0, and `buffer` as its buffer 0.
    is_registered: bool,
    /// `None` only while being dropped.
    buffer: Option<AlignedBuffer>,
    block_bytes: u32,
    block_count: usize,
    /// What is known of the request in each slot; the slot is the request's `user_data`.
    slots: Vec<Slot>,
    /// The slots without a request in flight.
    free: Vec<usize>,
    /// The slots of the batch that is being put together.
    batch: Vec<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    index: u64,
    submitted: Stamp,
}

impl fmt::Debug for Uring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Uring")
            .field("depth", &self.slots.len())
            .field("block_bytes", &self.block_bytes)
            .field("block_count", &self.block_count)
            .field("in_flight_count", &self.in_flight_count())
            .finish_non_exhaustive()
    }
}

impl Uring {
    /// Sets up a ring for `depth` requests in flight, at least 1, and the blocks they read into.
    pub(super) fn prepare(block_bytes: u32, depth: u16) -> Result<Uring, WorkloadError> {
        // The kernel rounds up to a power of two and makes the completion queue twice as long, so
        // with `depth` requests in flight neither queue can overflow.
        let ring = set_up(u32::from(depth))
            .map_err(|source| WorkloadError::IoUringSetup { depth, source })?;
        let depth = usize::from(depth);
        let block_count = (BUFFERS_BYTES / block_bytes as usize).clamp(1, depth);
        Ok(Uring {
            ring,
            is_registered: false,
            buffer: Some(AlignedBuffer::new(block_count * block_bytes as usize)),
            block_bytes,
            block_count,
            slots: vec![Slot::default(); depth],
            free: (0..depth).rev().collect(),
            batch: Vec::with_capacity(depth),
        })
    }

    /// Reads until the session says that it is enough and nothing is in flight any more.
    pub(super) fn run(
        &mut self,
        file: &File,
        session: &mut Session<'_>,
    ) -> Result<(), WorkloadError> {
        self.begin(file)?;
        self.read(file, session)
    }

    fn read(&mut self, file: &File, session: &mut Session<'_>) -> Result<(), WorkloadError> {
        let mut busy_count = 0;
        loop {
            self.queue_due(file, session);
            if self.in_flight_count() == 0 {
                return Ok(());
            }
            let submitted = session.stamp_before();
            for slot in self.batch.drain(..) {
                self.slots[slot].submitted = submitted;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => busy_count = 0,
                // What was not taken stays queued, and what has completed can be reaped.
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) if is_busy(&error) && busy_count < BUSY_LIMIT => {
                    busy_count += 1;
                    std::thread::sleep(BUSY_PAUSE);
                }
                Err(source) => {
                    let in_flight_count = self.in_flight_count();
                    return Err(WorkloadError::IoUringEnter { in_flight_count, source });
                }
            }
            self.reap(session);
        }
    }

    /// Makes the ring the calling thread's, and registers the file and the memory with it. A kernel
    /// that does not register them, as for want of locked memory, looks them up for each request.
    fn begin(&mut self, file: &File) -> Result<(), WorkloadError> {
        let depth = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        let submitter = self.ring.submitter();
        if self.ring.params().is_setup_single_issuer() {
            let enabled = submitter.register_enable_rings();
            enabled.map_err(|source| WorkloadError::IoUringSetup { depth, source })?;
        }
        let length_bytes = self.block_count * self.block_bytes as usize;
        let buffer = self.buffer.as_mut().expect("the buffer is there until `Drop`");
        let memory = libc::iovec { iov_base: buffer.address_of(0).cast(), iov_len: length_bytes };
        if submitter.register_files(&[file.as_raw_fd()]).is_err() {
            return Ok(());
        }
        // SAFETY: the memory is `buffer`'s, which is `length_bytes` long. The kernel holds its pages
        // until the ring is closed, and nothing but the reads of this ring is done to them.
        self.is_registered = unsafe { submitter.register_buffers(&[memory]) }.is_ok();
        Ok(())
    }

    /// Queues a read for every free slot, as long as the session has one.
    fn queue_due(&mut self, file: &File, session: &mut Session<'_>) {
        while let Some(&slot) = self.free.last() {
            let Some(planned) = session.next_request() else { return };
            let read = self.read_of(file, slot, planned.offset).user_data(slot as u64);
            // SAFETY: `file` is open until `run` returns, by which time nothing is in flight, or
            // the kernel holds its own reference to it (io_uring takes one as it accepts the
            // request). The block lies within `buffer`, which is neither read, written nor moved by
            // this program, and which `Drop` does not free while a request is in flight.
            let queued = unsafe { self.ring.submission().push(&read) };
            queued.expect("the queue has at least as many entries as there are slots");
            self.free.pop();
            self.slots[slot].index = planned.index;
            self.batch.push(slot);
        }
    }

    /// The request for the block at `offset`, into the memory of `slot`.
    fn read_of(&mut self, file: &File, slot: usize, offset: u64) -> squeue::Entry {
        let (block, length) = (self.block_of(slot), self.block_bytes);
        if self.is_registered {
            opcode::ReadFixed::new(types::Fixed(0), block, length, 0).offset(offset).build()
        } else {
            opcode::Read::new(types::Fd(file.as_raw_fd()), block, length).offset(offset).build()
        }
    }

    /// Records every completion that is there now.
    fn reap(&mut self, session: &mut Session<'_>) {
        let completions = self.ring.completion();
        if completions.is_empty() {
            return;
        }
        let completed = session.stamp_after();
        for completion in completions {
            let slot = usize::try_from(completion.user_data()).expect("a slot was put there");
            let Slot { index, submitted } = self.slots[slot];
            session.record(index, submitted, completed, completion.result());
            self.free.push(slot);
        }
    }

    fn block_of(&mut self, slot: usize) -> *mut u8 {
        let start = slot % self.block_count * self.block_bytes as usize;
        self.buffer.as_mut().expect("the buffer is there until `Drop`").address_of(start)
    }

    fn in_flight_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// A ring that the kernel's newest way of completing works with, or a plain one.
///
/// With `SINGLE_ISSUER` and `DEFER_TASKRUN`, of Linux 6.1, completions are worked off in the reader's
/// `io_uring_enter`. The one issuer is who enables the ring, and that is not who prepares it.
fn set_up(entries: u32) -> io::Result<IoUring> {
    let mut newest = IoUring::builder();
    newest.setup_single_issuer().setup_defer_taskrun().setup_r_disabled();
    match newest.build(entries) {
        // What a kernel does not know of, it takes for an error (io_uring_setup(2)).
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries),
        built => built,
    }
}

/// `EAGAIN`: no memory for a request now; `EBUSY`: completions must be reaped first
/// (`io_uring_enter(2)`).
fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY))
}

impl Drop for Uring {
    /// Gives up the memory rather than hand it to somebody else while the kernel may write to it:
    /// requests in flight outlive the ring's file descriptor.
    fn drop(&mut self) {
        if self.in_flight_count() > 0 {
            std::mem::forget(self.buffer.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::ring::recording_ring;
    use std::io::Write;
    use std::sync::atomic::AtomicBool;
    use vslice_spec::workload::{Engine, Pattern};
    use vslice_spec::{ClockChoice, ReaderSpec};

    const BLOCKS: usize = 4;

    /// What lies in the memory after each of four blocks was read, by whatever `how` does.
    fn read(how: fn(&mut Uring, &File, &mut Session<'_>), uring: &mut Uring) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        (1..=4).for_each(|block| file.write_all(&[block; 512]).unwrap());
        let spec = ReaderSpec {
            target: "unused".to_owned(),
            create: false,
            block_bytes: 512,
            total_bytes: 4 * 512,
            duration_ms: None,
            pattern: Pattern::Seq,
            engine: Engine::IoUring,
            depth: 4,
            vcpu: 0,
        };
        let (producer, _consumer) = recording_ring(BLOCKS);
        let stop = AtomicBool::new(false);
        let clock = Clock::choose(ClockChoice::Auto);
        let mut session = Session::start(&spec, spec.total_bytes, clock, producer, &stop);
        how(uring, &file, &mut session);
        let end = session.end();
        assert_eq!((end.requests, end.io_errors, end.short_reads), (4, 0, 0));
        let mut memory = uring.buffer.take().unwrap();
        memory.as_mut_slice().chunks(512).map(|block| block[0]).collect()
    }

    /// Where io_uring is forbidden, the integration tests say that they were ignored.
    #[test]
    fn each_block_is_read_to_its_place_registered_or_not() {
        if let Ok(mut uring) = Uring::prepare(512, 4) {
            let blocks = read(|uring, file, session| uring.run(file, session).unwrap(), &mut uring);
            assert_eq!((blocks, uring.is_registered), (vec![1, 2, 3, 4], true));
        }
        if let (Ok(mut uring), Ok(plain)) = (Uring::prepare(512, 4), IoUring::new(4)) {
            uring.ring = plain;
            let blocks =
                read(|uring, file, session| uring.read(file, session).unwrap(), &mut uring);
            assert_eq!((blocks, uring.is_registered), (vec![1, 2, 3, 4], false));
        }
    }
}
