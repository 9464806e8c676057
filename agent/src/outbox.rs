//! What waits to be sent: bounded, and pongs first.

use crate::stamper::Stamper;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use vslice_wire::{Frame, GuestFrame, GuestTicks, Pong};

/// Above this many waiting bytes, the outbox has no room: the ring of the reader is the next to
/// fill, and it counts what it drops. One frame may still go over it, so that [`Outbox::push`]
/// need not fail.
const QUEUED_BYTES_MAX: usize = 256 * 1024;

/// Pongs that wait at most. A collector that lets more of its pings wait has no use for them: a
/// round trip that long says nothing about a clock.
const PONGS_MAX: usize = 64;

/// A ping that has been read and not answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingPong {
    /// The ping's id.
    pub(crate) id: u64,
    /// The vCPU that took the first stamp and must take the second: each has a clock of its own.
    pub(crate) vcpu: u16,
    /// The first stamp: when the ping had been read.
    pub(crate) received: GuestTicks,
}

/// Frames on their way to a socket that may not take them at once.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The frame that is being written; nothing can go before the rest of it.
    current: Vec<u8>,
    /// So much of it has been taken by the kernel.
    written_bytes: usize,
    pongs: VecDeque<PendingPong>,
    frames: VecDeque<Vec<u8>>,
    queued_bytes: usize,
}

impl Outbox {
    /// Whether there is room for another block.
    pub(crate) fn has_room(&self) -> bool {
        self.queued_bytes < QUEUED_BYTES_MAX
    }

    /// Whether everything has been taken by the kernel.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.pongs.is_empty() && self.frames.is_empty()
    }

    /// Appends a frame, which must be within the protocol's bounds.
    pub(crate) fn push(&mut self, frame: &GuestFrame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).expect("whoever makes a frame cuts it to the protocol's bounds");
        bytes.shrink_to_fit();
        self.queued_bytes += bytes.len();
        self.frames.push_back(bytes);
    }

    /// Lets a pong go before all frames of which nothing has been written.
    pub(crate) fn push_pong(&mut self, pong: PendingPong) {
        if self.pongs.len() < PONGS_MAX {
            self.pongs.push_back(pong);
        }
    }

    /// Forgets everything: nobody will read it.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes until everything is written or the kernel takes no more. `socket` is non-blocking.
    pub(crate) fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        stamper: &mut Stamper,
    ) -> Result<(), Errno> {
        let flushed = self.write_all(socket, stamper);
        stamper.leave();
        flushed
    }

    fn write_all(&mut self, socket: BorrowedFd<'_>, stamper: &mut Stamper) -> Result<(), Errno> {
        loop {
            if self.current.is_empty() {
                if let Some(&pong) = self.pongs.front() {
                    if !self.write_pong(socket, pong, stamper)? {
                        return Ok(());
                    }
                    self.pongs.pop_front();
                } else if let Some(frame) = self.frames.pop_front() {
                    self.queued_bytes -= frame.len();
                    self.current = frame;
                } else {
                    return Ok(());
                }
            }
            if !self.write_current(socket)? {
                return Ok(());
            }
        }
    }

    /// Stamps a pong and hands its first bytes to the kernel. Whether the kernel took any: if not,
    /// the stamp is not worth keeping, and the pong will be stamped anew.
    fn write_pong(
        &mut self,
        socket: BorrowedFd<'_>,
        pong: PendingPong,
        stamper: &mut Stamper,
    ) -> Result<bool, Errno> {
        let PendingPong { id, vcpu, received } = pong;
        let mut bytes = Vec::with_capacity(64);
        stamper.visit(vcpu);
        let frame = Pong { id, vcpu, received, sent: stamper.now() };
        GuestFrame::Pong(frame).encode(&mut bytes).expect("a pong has a fixed size");
        let written_bytes = write(socket, &bytes)?;
        if written_bytes == 0 {
            return Ok(false);
        }
        self.current = bytes;
        self.written_bytes = written_bytes;
        Ok(true)
    }

    /// Writes what is left of the current frame. Whether the kernel took all of it.
    fn write_current(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Errno> {
        while self.written_bytes < self.current.len() {
            let taken_bytes = write(socket, &self.current[self.written_bytes..])?;
            if taken_bytes == 0 {
                return Ok(false);
            }
            self.written_bytes += taken_bytes;
        }
        self.current = Vec::new();
        self.written_bytes = 0;
        Ok(true)
    }
}

/// How many bytes the kernel took; 0 when it takes none now.
fn write(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match nix::unistd::write(socket, bytes) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(0),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use vslice_wire::{Deframer, Notice, Severity};

    fn notice(text: &str) -> GuestFrame {
        GuestFrame::Notice(Notice::new(Severity::Warning, text))
    }

    fn pending(id: u64) -> PendingPong {
        PendingPong { id, vcpu: 0, received: GuestTicks(1) }
    }

    /// A congested outbox: the socket is full, in the middle of the first frame.
    fn congested() -> (Outbox, UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::default();
        while outbox.is_empty() {
            for _ in 0..8 {
                outbox.push(&notice(&"x".repeat(4000)));
            }
            outbox.flush(ours.as_fd(), &mut Stamper::new()).unwrap();
        }
        (outbox, ours, theirs)
    }

    /// Reads and flushes until nothing is left, and returns the frames in the order of arrival.
    fn deliver(outbox: &mut Outbox, ours: &UnixStream, theirs: &mut UnixStream) -> Vec<GuestFrame> {
        theirs.set_nonblocking(true).unwrap();
        let mut deframer = Deframer::new();
        let mut frames = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count) = theirs.read(&mut buffer) {
            let mut input = &buffer[..count];
            while let Some(frame) = deframer.next_frame(&mut input).unwrap() {
                frames.push(frame);
            }
            outbox.flush(ours.as_fd(), &mut Stamper::new()).unwrap();
        }
        assert_eq!(deframer.partial_bytes(), 0);
        frames
    }

    #[test]
    fn a_pong_overtakes_what_has_not_begun_to_be_written() {
        let (mut outbox, ours, mut theirs) = congested();
        let full = outbox.queued_bytes;
        outbox.push(&notice("last"));
        outbox.push_pong(pending(7));
        outbox.flush(ours.as_fd(), &mut Stamper::new()).unwrap();
        assert!(outbox.queued_bytes > full, "nothing was taken");
        let frames = deliver(&mut outbox, &ours, &mut theirs);
        assert!(outbox.is_empty());
        assert_eq!(outbox.queued_bytes, 0);
        let place = frames.iter().position(|frame| matches!(frame, GuestFrame::Pong(_))).unwrap();
        assert_eq!(frames.last(), Some(&notice("last")));
        assert!(place < frames.len() - 1, "the pong went {place} of {}", frames.len());
    }

    #[test]
    fn a_pong_is_stamped_when_the_kernel_takes_it() {
        let (mut outbox, ours, mut theirs) = congested();
        let stamper = Stamper::new();
        outbox.push_pong(pending(7));
        outbox.flush(ours.as_fd(), &mut Stamper::new()).unwrap();
        let unblocked = stamper.now();
        let frames = deliver(&mut outbox, &ours, &mut theirs);
        let sent = frames.iter().find_map(|frame| match frame {
            GuestFrame::Pong(pong) => Some(pong.sent),
            _ => None,
        });
        assert!(sent.unwrap() > unblocked);
    }

    #[test]
    fn it_is_bounded() {
        let (mut outbox, ours, _theirs) = congested();
        while outbox.has_room() {
            outbox.push(&notice(&"x".repeat(4000)));
        }
        assert!(outbox.queued_bytes <= QUEUED_BYTES_MAX + 5000);
        for id in 0..1000 {
            outbox.push_pong(pending(id));
        }
        outbox.flush(ours.as_fd(), &mut Stamper::new()).unwrap();
        assert_eq!(outbox.pongs.len(), PONGS_MAX);
        outbox.clear();
        assert!(outbox.is_empty() && outbox.has_room());
    }

    #[test]
    fn a_peer_that_is_gone_is_an_error() {
        let (mut outbox, ours, theirs) = congested();
        drop(theirs);
        let error = outbox.flush(ours.as_fd(), &mut Stamper::new()).unwrap_err();
        assert!(matches!(error, Errno::EPIPE | Errno::ECONNRESET), "{error}");
    }
}
