//! The window of an attached recording: until when it goes on.

use super::super::error::RunError;
use super::super::measurement::Work;
use super::super::observer::Observer;
use super::super::options::take_interrupt;
use super::super::seats::{LOOK_INTERVAL, Seats};
use super::super::stage::{ReadProgress, THREADS_INTERVAL};
use super::super::tsc_watch::TscWatch;
use super::super::watch::Watcher;
use super::Attachment;
use super::roles::Pinned;
use std::thread;
use std::time::Instant;

/// What goes on while attached VMs are recorded.
pub(super) struct Attached<'a, 'scope> {
    pub(super) of: &'a Attachment<'a>,
    pub(super) seats: Option<&'a mut Seats<'scope>>,
    pub(super) progress: ReadProgress,
    pub(super) pinned: Option<Pinned<'a>>,
}

impl Work for Attached<'_, '_> {
    fn go_on(
        &mut self,
        observer: &Observer,
        tscs: &mut TscWatch,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RunError> {
        watcher.stage(&self.of.what_goes_on());
        if let Some(seats) = &self.seats {
            seats.start();
        }
        let begun = Instant::now();
        let mut threads_at = begun;
        let is_over = || self.of.options.duration.is_some_and(|limit| begun.elapsed() >= limit);
        while !is_over() && !observer.has_ended() {
            // Who interrupts has seen enough, which is no failure.
            match self.look() {
                Err(RunError::Interrupted) => return Ok(()),
                looked => looked?,
            }
            if let Some(seats) = &self.seats {
                self.progress.look(seats, watcher)?;
                if let Some(result) = seats.readers_are_done() {
                    return result;
                }
            }
            if let Some(pinned) = &mut self.pinned
                && threads_at.elapsed() >= THREADS_INTERVAL
            {
                threads_at = Instant::now();
                pinned.again()?;
            }
            tscs.turn();
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn wind_down(&mut self) -> Result<(), RunError> {
        self.seats.as_mut().map_or(Ok(()), |seats| seats.stop())
    }
}

impl Attached<'_, '_> {
    /// Whether everything is still as it should be.
    fn look(&mut self) -> Result<(), RunError> {
        match &mut self.seats {
            Some(seats) => seats.look(|| self.of.check_vms()),
            None if take_interrupt(self.of.options.interrupted) => Err(RunError::Interrupted),
            None => self.of.check_vms(),
        }
    }
}
