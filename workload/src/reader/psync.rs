//! Reads by `pread(2)`, one at a time: what a plain program does.

use super::buffer::AlignedBuffer;
use super::session::Session;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The engine, with the one buffer that it reads into again and again; nobody looks at the data.
#[derive(Debug)]
pub(super) struct Psync {
    buffer: AlignedBuffer,
}

impl Psync {
    pub(super) fn prepare(block_bytes: u32) -> Psync {
        Psync { buffer: AlignedBuffer::new(block_bytes as usize) }
    }

    /// Reads until the session says that it is enough.
    pub(super) fn run(&mut self, file: &File, session: &mut Session<'_>) {
        let block = self.buffer.as_mut_slice();
        while let Some(planned) = session.next_request() {
            let submitted = session.stamp_before();
            let outcome = file.read_at(block, planned.offset);
            let completed = session.stamp_after();
            session.record(planned.index, submitted, completed, result_of(&outcome));
        }
    }
}

/// Bytes, or the negated errno, as `io_uring` gives it without being asked.
fn result_of(outcome: &io::Result<usize>) -> i32 {
    match outcome {
        Ok(bytes) => i32::try_from(*bytes).expect("BLOCK_BYTES ends far below 2 GiB"),
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_read_becomes_its_negated_errno() {
        assert_eq!(result_of(&Ok(512)), 512);
        assert_eq!(result_of(&Err(io::Error::from_raw_os_error(libc::EINVAL))), -22);
    }
}
