//! The connection to the collector: frames in, frames out, never waiting for the other side.

use crate::outbox::{Outbox, PendingPong};
use crate::stamper::Stamper;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vslice_wire::{DecodeError, Deframer, GuestFrame, GuestTicks, HostFrame};

/// What one read takes at most: all that a collector sends but a plan fits in much less.
const READ_BYTES: usize = 4096;

/// Why a connection is of no use any more.
#[derive(Debug)]
pub(crate) enum LinkError {
    /// The collector closed it, or went away.
    Closed,
    /// The kernel says that it is broken.
    Broken(Errno),
    /// The collector said something that is no frame.
    Garbled(DecodeError),
}

/// Frames that arrived together.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Taken right after the bytes were read.
    pub(crate) received: GuestTicks,
    /// The vCPU of that stamp.
    pub(crate) vcpu: u16,
    pub(crate) frames: Vec<HostFrame>,
}

/// What became of those that were waited for beside the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// Nothing.
    Silent,
    /// One of them can be read.
    Readable,
    /// One of them has hung up for good: waiting for it again would not wait.
    Gone,
}

/// A connection to a collector.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    deframer: Deframer<HostFrame>,
    outbox: Outbox,
    /// The error of a write. What the collector said before it went away is still read: it may
    /// have been `Bye`.
    write_error: Option<Errno>,
}

impl Link {
    /// `socket` must be non-blocking.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, deframer: Deframer::new(), outbox: Outbox::default(), write_error: None }
    }

    /// Waits until there is something to read, or something to write and room for it, or one of `others` can
    /// be read, but not longer than `timeout_ms`. What became of the others comes back.
    pub(crate) fn wait<'a>(
        &self,
        others: impl Iterator<Item = BorrowedFd<'a>>,
        timeout_ms: u16,
    ) -> Result<Others, LinkError> {
        let mut wanted = PollFlags::POLLIN;
        if !self.outbox.is_empty() {
            wanted |= PollFlags::POLLOUT;
        }
        let own = PollFd::new(self.socket.as_fd(), wanted);
        let others = others.map(|other| PollFd::new(other, PollFlags::POLLIN));
        let mut all: Vec<PollFd<'_>> = std::iter::once(own).chain(others).collect();
        match poll(&mut all, timeout_ms) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(LinkError::Broken(errno)),
        }
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        let any =
            |flags| all[1..].iter().any(|fd| fd.revents().is_some_and(|are| are.intersects(flags)));
        Ok(if any(gone) {
            Others::Gone
        } else if any(PollFlags::POLLIN) {
            Others::Readable
        } else {
            Others::Silent
        })
    }

    /// Reads once. `None` if there is nothing to read.
    pub(crate) fn receive(&mut self, stamper: &Stamper) -> Result<Option<Arrival>, LinkError> {
        let mut buffer = [0; READ_BYTES];
        let count = match nix::unistd::read(&self.socket, &mut buffer) {
            Ok(0) => return Err(LinkError::Closed),
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => {
                return self.write_error.map_or(Ok(None), |errno| Err(LinkError::Broken(errno)));
            }
            Err(errno) => return Err(LinkError::Broken(errno)),
        };
        let received = stamper.now();
        let vcpu = stamper.vcpu();
        let mut input = &buffer[..count];
        let mut frames = Vec::new();
        while let Some(frame) = self.deframer.next_frame(&mut input).map_err(LinkError::Garbled)? {
            frames.push(frame);
        }
        Ok(Some(Arrival { received, vcpu, frames }))
    }

    /// Whether the outbox has room for another block.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// Puts a frame into the outbox.
    pub(crate) fn send(&mut self, frame: &GuestFrame) {
        self.outbox.push(frame);
    }

    /// Answers a ping at once if the kernel takes it, before everything else otherwise.
    pub(crate) fn answer(&mut self, pong: PendingPong, stamper: &mut Stamper) {
        self.outbox.push_pong(pong);
        self.flush(stamper);
    }

    /// Hands to the kernel what it takes.
    pub(crate) fn flush(&mut self, stamper: &mut Stamper) {
        if self.write_error.is_none() {
            self.write_error = self.outbox.flush(self.socket.as_fd(), stamper).err();
        }
        if self.write_error.is_some() {
            self.outbox.clear();
        }
    }
}
