//! From the reader's ring to the outbox.

use crate::link::Link;
use crate::load::{Load, LoadEnd, Taken};
use crate::uptime::uptime;
use std::time::Duration;
use vslice_wire::{BLOCK_REQUESTS_MAX, GuestFrame, Request};

/// A block that is not full is sent when its first request is this old, for the live view.
const BLOCK_AGE: Duration = Duration::from_millis(200);

const HOGS_PERIOD: Duration = Duration::from_secs(1);

/// A hog that is taken off its pCPU every 4 ms has 50 gaps in this time.
const GAPS_PERIOD: Duration = Duration::from_millis(200);

/// A load that runs, and what has been taken from it and not sent yet.
#[derive(Debug)]
pub(crate) struct Streaming {
    load: Load,
    block: Vec<Request>,
    /// When the first request of the block was taken.
    block_begun: Duration,
    hogs_sent: Duration,
    gaps_sent: Duration,
    /// Requests taken so far, the dropped ones included.
    requests: u64,
    dropped: u64,
    stop_wanted: bool,
}

impl Streaming {
    pub(crate) fn new(load: Load) -> Self {
        Self {
            load,
            block: Vec::with_capacity(BLOCK_REQUESTS_MAX),
            block_begun: Duration::ZERO,
            hogs_sent: uptime(),
            gaps_sent: uptime(),
            requests: 0,
            dropped: 0,
            stop_wanted: false,
        }
    }

    /// Tells the load to end; what it has recorded is still sent.
    pub(crate) fn stop(&mut self) {
        self.load.stop();
        self.stop_wanted = true;
    }

    /// Whether there is nothing to stream.
    pub(crate) fn is_nothing(&self) -> bool {
        self.load.is_nothing()
    }

    /// Whether someone asked for the end.
    pub(crate) fn stop_wanted(&self) -> bool {
        self.stop_wanted
    }

    /// Sends what is due, as far as there is room. How the load ended, once everything of it has
    /// been sent.
    pub(crate) fn advance(&mut self, link: &mut Link) -> Option<anyhow::Result<LoadEnd>> {
        while link.has_room() && self.take(link) {}
        let now = uptime();
        if now.saturating_sub(self.block_begun) >= BLOCK_AGE {
            self.send_block(link);
        }
        if now.saturating_sub(self.hogs_sent) >= HOGS_PERIOD && link.has_room() {
            self.hogs_sent = now;
            self.send_hogs(link);
        }
        if now.saturating_sub(self.gaps_sent) >= GAPS_PERIOD && link.has_room() {
            self.gaps_sent = now;
            self.send_gaps(link);
        }
        let end = self.load.ended()?;
        self.send_block(link);
        self.send_gaps(link);
        self.send_hogs(link);
        Some(end)
    }

    /// Ends a load that cannot go on, and sends what it has left behind, which is at most a ring
    /// full, whether there is room or not. Returns the requests made and those of them dropped.
    pub(crate) fn abandon(mut self, link: &mut Link, patience: Duration) -> (u64, u64) {
        self.load.end(patience);
        while self.take(link) {}
        self.send_block(link);
        (self.requests, self.dropped)
    }

    /// Ends a load that nobody listens to any more.
    pub(crate) fn end(mut self, patience: Duration) {
        self.load.end(patience);
    }

    /// Takes one record or loss; false if there is none.
    fn take(&mut self, link: &mut Link) -> bool {
        match self.load.take() {
            None => return false,
            Some(Taken::Request(request)) => {
                if self.block.is_empty() {
                    self.block_begun = uptime();
                }
                self.requests += 1;
                self.block.push(request);
                if self.block.len() == BLOCK_REQUESTS_MAX {
                    self.send_block(link);
                }
            }
            Some(Taken::Dropped(dropped)) => {
                self.requests += dropped.count;
                self.dropped += dropped.count;
                self.send_block(link);
                link.send(&GuestFrame::Dropped(dropped));
            }
        }
        true
    }

    fn send_block(&mut self, link: &mut Link) {
        if self.block.is_empty() {
            return;
        }
        let frame = GuestFrame::Requests(std::mem::take(&mut self.block));
        link.send(&frame);
        if let GuestFrame::Requests(mut block) = frame {
            block.clear();
            self.block = block;
        }
    }

    fn send_gaps(&mut self, link: &mut Link) {
        self.load.hog_gaps().into_iter().for_each(|gaps| link.send(&GuestFrame::HogGaps(gaps)));
    }

    fn send_hogs(&mut self, link: &mut Link) {
        let hogs = self.load.hog_counts();
        if !hogs.is_empty() {
            link.send(&GuestFrame::Hogs(hogs));
        }
    }
}
