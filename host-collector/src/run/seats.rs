//! All guests of a run: a session each, from the first word to the last.

use super::error::RunError;
use super::guest_record::guest_record;
use super::options::take_interrupt;
use super::seat::{Seat, SeatPlan};
use super::sink::GuestStreams;
use crate::guest::live::{Glance, Live};
use crate::guest::session::Command;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};
use vslice_trace::manifest::Manifest;
use vslice_trace::{RunDir, VmName};
use vslice_wire::{DoneReason, Ready};

/// Between two looks at guests, sessions and the recorder.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long the workloads may take to stop, and after that the sessions to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a process may take from closing its connections to its end.
const ENDING_TIME: Duration = Duration::from_secs(2);

/// The guests' sessions, in the order of the manifest's VMs.
#[derive(Debug)]
pub(super) struct Seats<'scope> {
    seats: Vec<Seat<'scope>>,
    lives: &'scope [Live],
    interrupted: &'scope AtomicBool,
}

/// How guests parted.
#[derive(Debug)]
pub(super) struct Parted {
    /// Why the run ended early, if it did.
    pub(super) result: Result<(), RunError>,
    /// Whether every guest has been told that the run is over; one that never was ready has not.
    pub(super) all_were_told: bool,
}

/// Holds a session with each guest, writes their streams into the run directory, lets `play` go on
/// meanwhile, and ends them whichever way that ends. What the guests said of themselves is in the
/// manifest afterwards.
///
/// # Errors
/// Those of making the streams; then nothing has begun.
pub(super) fn seated(
    dir: &RunDir,
    plans: Vec<SeatPlan>,
    interrupted: &AtomicBool,
    manifest: &mut Manifest,
    play: impl FnOnce(&mut Seats<'_>, &mut Manifest) -> Result<(), RunError>,
) -> Result<Parted, RunError> {
    let mut streams = Vec::new();
    for plan in &plans {
        streams.push(GuestStreams::create(dir, &VmName::try_from(plan.vm.as_str())?)?);
    }
    let lives: Vec<Live> = plans.iter().map(|_| Live::default()).collect();
    let (result, all_were_told) = thread::scope(|scope| {
        let guests = plans.into_iter().zip(&mut streams).zip(&lives);
        let seats = guests.map(|((plan, streams), live)| Seat::take(scope, plan, streams, live));
        let mut seats = Seats { seats: seats.collect(), lives: &lives, interrupted };
        let result = play(&mut seats, manifest);
        let result = seats.end(result);
        for (vm, seat) in manifest.vms.iter_mut().zip(&seats.seats) {
            let hello = seat.record.hello.as_ref();
            vm.guest = hello.map(|hello| guest_record(&seat.record, hello));
        }
        (result, seats.seats.iter().all(|seat| seat.is_ready()))
    });
    let finished = streams.into_iter().try_for_each(GuestStreams::finish);
    Ok(Parted { result: result.and(finished.map_err(RunError::from)), all_were_told })
}

impl Seats<'_> {
    /// Waits until every guest is ready to start. `check` says whether their VMMs are as they should
    /// be, here and below.
    pub(super) fn wait_until_ready(
        &mut self,
        mut check: impl FnMut() -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        loop {
            self.look(&mut check)?;
            if self.seats.iter().all(|seat| seat.is_ready()) {
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// What each guest said when it was ready; `None` of those that are not.
    pub(super) fn ready(&self) -> impl Iterator<Item = Option<&Ready>> {
        self.seats.iter().map(|seat| seat.ready.as_ref())
    }

    /// Tells every guest to start its workload.
    pub(super) fn start(&self) {
        self.seats.iter().for_each(|seat| seat.tell(Command::Start));
    }

    /// `None` while a reader reads, and if there is none. One that was stopped, and not by this run, has
    /// not read all.
    pub(super) fn readers_are_done(&self) -> Option<Result<(), RunError>> {
        let mut readers = self.seats.iter().filter(|seat| seat.has_reader).peekable();
        readers.peek()?;
        for seat in readers {
            if seat.done?.reason != DoneReason::Completed {
                return Some(Err(RunError::StoppedItself { vm: seat.vm.clone() }));
            }
        }
        Some(Ok(()))
    }

    /// Tells every guest to stop its workload, and waits until all have.
    pub(super) fn stop(&mut self) -> Result<(), RunError> {
        self.seats.iter().for_each(|seat| seat.tell(Command::Stop));
        self.wait_for_all("end its workload", |seat| seat.done.is_some() || seat.is_over())
    }

    /// Ends the sessions: in peace with guests that were ready, at once with those that were not.
    /// The first error is the one that counts.
    fn end(&mut self, result: Result<(), RunError>) -> Result<(), RunError> {
        for seat in &mut self.seats {
            if seat.is_ready() {
                seat.tell(Command::Close);
            } else {
                seat.give_up();
            }
        }
        let closed = self.wait_for_all("close its clock map", |seat| seat.is_over());
        self.seats.iter_mut().for_each(Seat::give_up);
        let joined = self.seats.iter_mut().map(Seat::join).fold(Ok(()), Result::and);
        result.and(closed).and(joined)
    }

    /// Waits until every guest has done what it was told, for [`STOP_TIMEOUT`] at most. A guest that
    /// fails meanwhile does not hinder the others. An interrupt ends the waiting: either it is the
    /// second one, or all that is left to do is to close what has been recorded.
    fn wait_for_all(
        &mut self,
        task: &'static str,
        has_done: impl Fn(&Seat<'_>) -> bool,
    ) -> Result<(), RunError> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut result = Ok(());
        loop {
            result = result.and(self.look_at_sessions());
            let waiting = self.seats.iter().filter(|seat| !has_done(seat));
            let waiting: Vec<&str> = waiting.map(|seat| seat.vm.as_str()).collect();
            if waiting.is_empty() {
                return result;
            }
            if take_interrupt(self.interrupted) {
                return result.and(Err(RunError::Interrupted));
            }
            if Instant::now() >= deadline {
                let (waiting, seconds) = (waiting.join(" and "), STOP_TIMEOUT.as_secs());
                return result.and(Err(RunError::Unresponsive { waiting, task, seconds }));
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Whether everything is still as it should be.
    pub(super) fn look(
        &mut self,
        mut check: impl FnMut() -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        if take_interrupt(self.interrupted) {
            return Err(RunError::Interrupted);
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
    fn look_at_sessions(&mut self) -> Result<(), RunError> {
        self.seats.iter_mut().map(Seat::look).fold(Ok(()), Result::and)
    }

    /// All readers together: their requests, and the percentiles of the slowest.
    pub(super) fn glance(&self) -> Glance {
        let later = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        self.lives.iter().map(Live::glance).fold(Glance::default(), |sum, one| Glance {
            requests_count: sum.requests_count + one.requests_count,
            p50_ns: later(sum.p50_ns, one.p50_ns),
            p99_ns: later(sum.p99_ns, one.p99_ns),
        })
    }
}
