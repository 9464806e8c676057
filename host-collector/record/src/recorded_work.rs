//! What goes on while the measured window is open, and when it is over.

use crate::error::RecordingError;
use crate::guest_sessions::{GuestSessions, LOOK_INTERVAL};
use crate::guests::Guests;
use crate::host_recorder::HostRecorder;
use crate::interrupt::take_interrupt;
use crate::live::{LiveNews, LiveTap};
use crate::measurement::Work;
use crate::other_vms::OtherVms;
use crate::pins::KeptPins;
use crate::tsc_watch::TscWatch;
use crate::until::UntilOver;
use crate::watcher::Watcher;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};
use vslice_spec::WorkloadSpec;

/// Between two looks for threads that a VMM has started meanwhile.
const THREADS_INTERVAL: Duration = Duration::from_millis(500);

/// Readers that have read nothing for so long are given up: a disk may be slow, but a recording must
/// not go on for ever because a guest says that it lives and never that it is done.
const STALL_MAX: Duration = Duration::from_secs(300);

/// The work of one recording.
pub(crate) struct RecordedWork<'a, 'scope> {
    until: &'a UntilOver,
    interrupted: &'a AtomicBool,
    guests: &'a mut dyn Guests,
    sessions: Option<&'a mut GuestSessions<'scope>>,
    pins: Option<KeptPins>,
    progress: ReadProgress,
    live: Option<&'a LiveTap>,
}

impl<'a, 'scope> RecordedWork<'a, 'scope> {
    pub(crate) fn new(
        until: &'a UntilOver,
        interrupted: &'a AtomicBool,
        live: Option<&'a LiveTap>,
        workloads: impl Iterator<Item = WorkloadSpec>,
        guests: &'a mut dyn Guests,
        sessions: Option<&'a mut GuestSessions<'scope>>,
        pins: Option<KeptPins>,
    ) -> RecordedWork<'a, 'scope> {
        let progress = ReadProgress::new(workloads);
        RecordedWork { until, interrupted, guests, sessions, pins, progress, live }
    }

    /// Whether everything is still as it should be.
    fn look(&mut self) -> Result<(), RecordingError> {
        let guests = &mut self.guests;
        match &mut self.sessions {
            Some(sessions) => sessions.look(|| guests.check()),
            None if take_interrupt(self.interrupted) => Err(RecordingError::Interrupted),
            None => guests.check(),
        }
    }
}

impl Work for RecordedWork<'_, '_> {
    fn go_on(
        &mut self,
        recorder: &HostRecorder,
        tscs: &mut TscWatch,
        others: &mut OtherVms,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RecordingError> {
        watcher.stage(&self.until.announcement);
        if let Some(sessions) = &self.sessions {
            sessions.start();
        }
        let begun = Instant::now();
        let mut threads_at = begun;
        let is_over = |limit: Duration| begun.elapsed() >= limit;
        while !self.until.duration.is_some_and(is_over) {
            match self.look() {
                Err(RecordingError::Interrupted) if self.until.is_interrupt_the_end => {
                    return Ok(());
                }
                looked => looked?,
            }
            if let Some(sessions) = &mut self.sessions {
                sessions.tell_notices(watcher);
                self.progress.look(sessions, watcher)?;
                if let Some(live) = self.live {
                    tell_observed(live, sessions);
                }
                if let Some(result) = sessions.readers_are_done() {
                    return result;
                }
            }
            if recorder.has_ended() {
                return Ok(());
            }
            if let Some(pins) = &mut self.pins
                && threads_at.elapsed() >= THREADS_INTERVAL
            {
                threads_at = Instant::now();
                pins.apply_again()?;
            }
            tscs.turn();
            others.turn(recorder.strange_vcpus_count());
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn wind_down(&mut self) -> Result<(), RecordingError> {
        self.sessions.as_mut().map_or(Ok(()), |sessions| sessions.stop())
    }
}

/// What finds no room is left out: latencies of requests are told, not how many there were.
fn tell_observed(live: &LiveTap, sessions: &GuestSessions<'_>) {
    let observed = sessions.take_observed();
    if !observed.is_empty() {
        let _no_room = live.offer(LiveNews::Observed(observed));
    }
}

/// How far readers have come, for whoever watches.
#[derive(Debug)]
struct ReadProgress {
    expected_count: u64,
    /// The requests at the last progress, and when that was.
    read: (u64, Instant),
}

impl ReadProgress {
    /// Of the readers of these workloads, before they begin.
    fn new(workloads: impl Iterator<Item = WorkloadSpec>) -> ReadProgress {
        let readers = workloads.filter_map(|workload| workload.reader);
        let counts =
            readers.map(|reader| reader.total_bytes.div_ceil(reader.block_bytes.max(1).into()));
        ReadProgress { expected_count: counts.sum(), read: (0, Instant::now()) }
    }

    /// Tells the watcher.
    ///
    /// # Errors
    /// As [`ReadProgress::note`].
    fn look(
        &mut self,
        sessions: &GuestSessions<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RecordingError> {
        let figures = sessions.figures();
        watcher.progress(&figures, self.expected_count);
        self.note(figures.requests_count)
    }

    /// Takes how many requests there were until now.
    ///
    /// # Errors
    /// [`RecordingError::Stalled`] once nothing has been read for [`STALL_MAX`], if there is a reader.
    fn note(&mut self, requests_count: u64) -> Result<(), RecordingError> {
        if requests_count > self.read.0 {
            self.read = (requests_count, Instant::now());
        } else if self.expected_count > 0 && self.read.1.elapsed() > STALL_MAX {
            return Err(RecordingError::Stalled { seconds: STALL_MAX.as_secs() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readers_stall() {
        let long_ago = Instant::now().checked_sub(STALL_MAX + Duration::from_secs(1));
        let long_ago = long_ago.expect("seconds may be negative on Linux");
        let progress = |expected_count| ReadProgress { expected_count, read: (7, long_ago) };
        assert!(matches!(progress(8).note(7), Err(RecordingError::Stalled { .. })));
        assert!(progress(8).note(8).is_ok(), "it has read");
        assert!(progress(0).note(0).is_ok(), "nobody reads");
    }
}
