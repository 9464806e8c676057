//! All guests of a run: a session each, from the first word to the last.

use crate::error::RecordingError;
use crate::guest::live::{Live, LiveFigures};
use crate::guest::session::{CALIBRATION_TIMEOUT, Command};
use crate::guest_record::guest_record;
use crate::guest_session::GuestSession;
use crate::guest_streams::GuestStreams;
use crate::guests::GuestPlan;
use crate::interrupt::take_interrupt;
use crate::kept::Kept;
use crate::live::LiveObserved;
use crate::observed_disks;
use crate::watcher::Watcher;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};
use vslice_trace::manifest::Manifest;
use vslice_wire::{DoneReason, Ready};

/// Between two looks at guests, sessions and the recorder.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long the workloads may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the sessions may take to end after that: a guest of many vCPUs has much to exchange, and its
/// session ends that by itself.
const CLOSE_TIMEOUT: Duration = CALIBRATION_TIMEOUT.saturating_add(STOP_TIMEOUT);
/// How long a process may take from closing its connections to its end.
const ENDING_TIME: Duration = Duration::from_secs(2);

/// The guests' sessions, in the order of the manifest's VMs.
#[derive(Debug)]
pub(crate) struct GuestSessions<'scope> {
    sessions: Vec<GuestSession<'scope>>,
    lives: &'scope [Live],
    interrupted: &'scope AtomicBool,
}

/// How the sessions ended.
#[derive(Debug)]
pub(crate) struct SessionsEnd {
    /// Why the run ended early, if it did.
    pub(crate) result: Result<(), RecordingError>,
    /// Whether every guest has been told that the run is over; one that never was ready has not.
    pub(crate) all_were_told: bool,
}

/// Holds a session with each guest, writes their streams into the run directory, lets `work` go on
/// meanwhile, and ends them whichever way that ends. What the guests said of themselves is in the
/// manifest afterwards.
///
/// # Errors
/// Those of making the streams; then nothing has begun.
pub(crate) fn with_sessions(
    kept: &Kept,
    plans: Vec<GuestPlan>,
    interrupted: &AtomicBool,
    manifest: &mut Manifest,
    work: impl FnOnce(&mut GuestSessions<'_>, &mut Manifest) -> Result<(), RecordingError>,
) -> Result<SessionsEnd, RecordingError> {
    let mut streams = Vec::new();
    for plan in &plans {
        streams.push(GuestStreams::create(kept, &plan.vm, plan.workload.observe.is_some())?);
    }
    let lives: Vec<Live> = plans.iter().map(|_| Live::default()).collect();
    let (result, all_were_told) = thread::scope(|scope| {
        let guests = plans.into_iter().zip(&mut streams).zip(&lives);
        let sessions =
            guests.map(|((plan, streams), live)| GuestSession::start(scope, plan, streams, live));
        let mut sessions =
            GuestSessions { sessions: sessions.collect(), lives: &lives, interrupted };
        let result = work(&mut sessions, manifest);
        let result = sessions.end(result);
        for (vm, session) in manifest.vms.iter_mut().zip(&sessions.sessions) {
            let hello = session.record.hello.as_ref();
            vm.guest = hello.map(|hello| guest_record(&session.record, hello));
            vm.observation = session.observation_record();
            if let Some(observation) = &mut vm.observation {
                observed_disks::place(observation, &vm.disks, vm.disks_missing.as_deref());
            }
        }
        (result, sessions.sessions.iter().all(|session| session.is_ready()))
    });
    let finished = streams.into_iter().try_for_each(GuestStreams::finish);
    Ok(SessionsEnd { result: result.and(finished.map_err(RecordingError::from)), all_were_told })
}

impl GuestSessions<'_> {
    /// Waits until every guest is ready to start. `check` says whether their VMMs are as they should
    /// be, here and below. What guests have to say until then is told to the watcher.
    pub(crate) fn wait_until_ready(
        &mut self,
        mut check: impl FnMut() -> Result<(), RecordingError>,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RecordingError> {
        loop {
            let looked = self.look(&mut check);
            self.tell_notices(watcher);
            looked?;
            if self.sessions.iter().all(|session| session.is_ready()) {
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// What each guest said when it was ready; `None` of those that are not.
    pub(crate) fn ready(&self) -> impl Iterator<Item = Option<&Ready>> {
        self.sessions.iter().map(|session| session.ready.as_ref())
    }

    /// Tells the watcher what guests have said since this was last done, each under its VM's name.
    pub(crate) fn tell_notices(&mut self, watcher: &mut dyn Watcher) {
        for session in &mut self.sessions {
            for text in session.notices.drain(..) {
                watcher.stage(&format!("{}: {text}", session.vm.as_str()));
            }
        }
    }

    /// Tells every guest to start its workload.
    pub(crate) fn start(&self) {
        self.sessions.iter().for_each(|session| session.tell(Command::Start));
    }

    /// `None` while a reader reads, and if there is none. One that was stopped, and not by this run, has
    /// not read all.
    pub(crate) fn readers_are_done(&self) -> Option<Result<(), RecordingError>> {
        let mut readers = self.sessions.iter().filter(|session| session.has_reader).peekable();
        readers.peek()?;
        for session in readers {
            if session.done?.reason != DoneReason::Completed {
                return Some(Err(RecordingError::StoppedItself {
                    vm: session.vm.as_str().to_owned(),
                }));
            }
        }
        Some(Ok(()))
    }

    /// Tells every guest to stop its workload, and waits until all have.
    pub(crate) fn stop(&mut self) -> Result<(), RecordingError> {
        self.sessions.iter().for_each(|session| session.tell(Command::Stop));
        self.wait_for_all("end its workload", STOP_TIMEOUT, |session| {
            session.done.is_some() || session.is_over()
        })
    }

    /// Ends the sessions: in peace with guests that were ready, at once with those that were not.
    /// The first error is the one that counts.
    fn end(&mut self, result: Result<(), RecordingError>) -> Result<(), RecordingError> {
        for session in &mut self.sessions {
            if session.is_ready() {
                session.tell(Command::Close);
            } else {
                session.give_up();
            }
        }
        let closed =
            self.wait_for_all("close its clock map", CLOSE_TIMEOUT, |session| session.is_over());
        self.sessions.iter_mut().for_each(GuestSession::give_up);
        let joined = self.sessions.iter_mut().map(GuestSession::join).fold(Ok(()), Result::and);
        result.and(closed).and(joined)
    }

    /// Waits until every guest has done what it was told, for `timeout` at most. A guest that fails
    /// meanwhile does not hinder the others. An interrupt ends the waiting: either it is the
    /// second one, or all that is left to do is to close what has been recorded.
    fn wait_for_all(
        &mut self,
        task: &'static str,
        timeout: Duration,
        has_done: impl Fn(&GuestSession<'_>) -> bool,
    ) -> Result<(), RecordingError> {
        let deadline = Instant::now() + timeout;
        let mut result = Ok(());
        loop {
            result = result.and(self.look_at_sessions());
            let waiting = self.sessions.iter().filter(|session| !has_done(session));
            let waiting: Vec<&str> = waiting.map(|session| session.vm.as_str()).collect();
            if waiting.is_empty() {
                return result;
            }
            if take_interrupt(self.interrupted) {
                return result.and(Err(RecordingError::Interrupted));
            }
            if Instant::now() >= deadline {
                let (waiting, seconds) = (waiting.join(" and "), timeout.as_secs());
                return result.and(Err(RecordingError::Unresponsive { waiting, task, seconds }));
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Whether everything is still as it should be.
    pub(crate) fn look(
        &mut self,
        mut check: impl FnMut() -> Result<(), RecordingError>,
    ) -> Result<(), RecordingError> {
        if take_interrupt(self.interrupted) {
            return Err(RecordingError::Interrupted);
        }
        // The VMMs first: why one ended says more than that its connection did.
        check()?;
        let Err(error) = self.look_at_sessions() else { return Ok(()) };
        // A VMM that is ending closes its connections before its end can be seen.
        let deadline = Instant::now() + ENDING_TIME;
        while error.is_lost_connection() && Instant::now() < deadline {
            check()?;
            thread::sleep(LOOK_INTERVAL);
        }
        Err(error)
    }

    /// Takes all sessions' news; the first error of one that has ended before its end.
    fn look_at_sessions(&mut self) -> Result<(), RecordingError> {
        self.sessions.iter_mut().map(GuestSession::look).fold(Ok(()), Result::and)
    }

    /// The observed requests that have come since this was last asked, of each VM that has any.
    pub(crate) fn take_observed(&self) -> Vec<LiveObserved> {
        let lives = self.lives.iter().enumerate();
        let taken = lives.map(|(vm, live)| LiveObserved { vm, latencies: live.take_observed() });
        taken.filter(|observed| !observed.latencies.is_empty()).collect()
    }

    /// All readers together: their requests, and the percentiles of the slowest.
    pub(crate) fn figures(&self) -> LiveFigures {
        let later = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        self.lives.iter().map(Live::now).fold(LiveFigures::default(), |sum, one| LiveFigures {
            requests_count: sum.requests_count + one.requests_count,
            observed_count: sum.observed_count + one.observed_count,
            p50_ns: later(sum.p50_ns, one.p50_ns),
            p99_ns: later(sum.p99_ns, one.p99_ns),
        })
    }
}
