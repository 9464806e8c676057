//! The conversation with one guest, from `Hello` to `Bye`.
//!
//! A session runs on a thread of its own and reads top-down as the conversation does. Everything
//! that arrives meanwhile (requests, pongs, signs of life) is recorded by `Session::pump`, which
//! every phase calls; a phase only says what it waits for.

mod calibration;
mod frames;

pub(crate) use calibration::CALIBRATION_TIMEOUT;
pub(crate) use frames::{HOST_TIMES_MAX, NOTICES_MAX};

use super::connection::Connection;
use super::exchange::Exchanger;
use super::live::Live;
use super::observation::Observation;
use std::error::Error;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};
use vslice_core::clock::Exchange;
use vslice_core::clock::host_time::HostTimeSample;
use vslice_core::units::VcpuId;
use vslice_host::host_clock::host_now;
use vslice_trace::ObservedItem;
use vslice_wire::{
    Deframer, Done, Dropped, Frame, GuestFrame, Hello, HogCount, HogGap, HostFrame, Notice, Ready,
    Request,
};

/// How long a guest may take to answer when nothing slow is asked of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to check, or create, the reader's target.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two pings of a running guest: often enough to renew a lease of a second many times
/// over, rare enough to cost the guest's housekeeping vCPU next to nothing.
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// vCPUs of a guest that observes whose clocks are calibrated: more than KVM gives a guest on most hosts
/// (linux 6.1: arch/x86/include/asm/kvm_host.h, KVM_MAX_VCPUS is 1024).
const STAMPING_VCPUS_MAX: u16 = 1024;
/// Two visits are no closer than this, however many vCPUs share them: a visit is then in the place of a ping
/// that is sent anyway.
const VISIT_INTERVAL_MIN: Duration = PING_INTERVAL;
/// Longest wait in one turn of the loop: how late a command or a ping may be.
const POLL: Duration = Duration::from_millis(20);

/// Receives what a guest sends, in order of arrival.
pub trait GuestSink: Send {
    /// Requests, in order of completion.
    ///
    /// # Errors
    /// When they cannot be kept, on a full disk for instance; this ends the session.
    fn requests(&mut self, requests: &[Request]) -> Result<(), SinkError>;
    /// An interval in which the guest made requests without recording them.
    ///
    /// # Errors
    /// As `requests`.
    fn dropped(&mut self, dropped: &Dropped) -> Result<(), SinkError>;
    /// A completed clock exchange.
    ///
    /// # Errors
    /// As `requests`.
    fn exchange(&mut self, vcpu: VcpuId, exchange: &Exchange) -> Result<(), SinkError>;
    /// Gaps of one vCPU's hog, in the order in which they were told.
    ///
    /// # Errors
    /// As `requests`.
    fn hog_gaps(&mut self, vcpu: VcpuId, gaps: &[HogGap]) -> Result<(), SinkError>;
    /// What the guest observed, in the order in which it told it.
    ///
    /// # Errors
    /// As `requests`.
    fn observed(&mut self, items: &[ObservedItem]) -> Result<(), SinkError>;
    /// How many bytes what was observed has filled so far. It may be late by a block of the stream.
    fn observed_bytes(&self) -> u64;
}

/// The error of a sink that could not store something.
pub type SinkError = Box<dyn Error + Send + Sync>;

/// A command from the run to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Start the workload.
    Start,
    /// Stop the workload early.
    Stop,
    /// All guests have stopped: close the clock map and end the session.
    Close,
}

/// A message from a session to the run.
#[derive(Debug)]
pub enum Progress {
    /// The guest has connected.
    Connected(Hello),
    /// The guest has prepared its plan and its clock is calibrated.
    Ready(Ready),
    /// The guest has something to say to whoever watches.
    Noticed(String),
    /// The guest's workload has ended.
    Done(Done),
}

/// What a session recorded, and why it ended early if it did.
pub type Conversation = (SessionRecord, Result<(), SessionError>);

/// The result of a session.
#[derive(Debug, Default)]
pub struct SessionRecord {
    /// The guest's `Hello`, if it was received.
    pub hello: Option<Hello>,
    /// The guest's `Ready`, if it was received.
    pub ready: Option<Ready>,
    /// The guest's `Done`, if it was received.
    pub done: Option<Done>,
    /// The last count of each hog.
    pub hogs: Vec<HogCount>,
    /// The first hundred notices of the guest.
    pub notices: Vec<Notice>,
    /// The first few thousand readings of the host's clock through KVM.
    pub host_times: Vec<HostTimeSample>,
    /// The number of requests that were recorded.
    pub requests_count: u64,
    /// The number of requests that the guest reported as dropped.
    pub dropped_count: u64,
    /// Gaps of hogs that were recorded.
    pub hog_gaps_count: u64,
    /// What the guest observed; nothing where the plan does not ask for it.
    pub observation: Observation,
}

/// Why a session ended before its end.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is said in full by its message")]
pub enum SessionError {
    #[error("the guest's connection failed: {0}")]
    Connection(#[from] io::Error),
    #[error(
        "the guest did not connect within {seconds} s: its console log in the run directory says how \
        far it got; `boot_timeout` in the plan gives it more time"
    )]
    NeverConnected { seconds: u64 },
    #[error(
        "the guest closed its connection while {while_waiting_for}; its console log may say why \
         (in the run directory, unless the VM was attached)"
    )]
    Closed { while_waiting_for: &'static str },
    #[error(
        "the guest sent nothing for {seconds} s while {while_waiting_for}; its console log may say why \
        (in the run directory, unless the VM was attached)"
    )]
    Silent { seconds: u64, while_waiting_for: &'static str },
    #[error("the guest sent bytes that are not a frame: {0}")]
    Frame(#[from] vslice_wire::DecodeError),
    #[error("the plan does not fit the protocol: {0}")]
    Plan(#[from] vslice_wire::EncodeError),
    #[error(
        "the guest's agent speaks protocol {theirs}, but this vslice speaks {ours}: rebuild the \
             image"
    )]
    Version { theirs: u16, ours: u16 },
    #[error("the guest sent {frame} while {while_waiting_for}")]
    OutOfOrder { frame: &'static str, while_waiting_for: &'static str },
    #[error("the guest sent {frame} without content")]
    Empty { frame: &'static str },
    #[error("the guest sent more than the {max} requests that its plan allows")]
    TooManyRequests { max: u64 },
    #[error("the guest could not run its plan: {0}")]
    GuestFailed(String),
    #[error("what the guest sent could not be stored: {0}")]
    Sink(#[source] SinkError),
    #[error("the run was abandoned")]
    GivenUp,
}

/// What a session has to know about the plan.
#[derive(Debug, Clone)]
pub struct SessionPlan {
    /// The workload as JSON.
    pub plan_json: Vec<u8>,
    /// The most requests that the plan allows, dropped ones included. This bounds what a sink receives.
    pub requests_max: u64,
    /// Whether the plan asks the guest to observe its block requests.
    pub observes: bool,
    /// The vCPUs that stamp requests; each is calibrated on its own. Those of a guest that observes are
    /// all that it says it has.
    pub stamping_vcpus: Vec<VcpuId>,
    /// The number of exchanges on each of these vCPUs before the run, and again after it; fewer if that
    /// would take seconds.
    pub calibration_exchanges: u32,
    /// The interval at which each of these vCPUs is visited for an exchange while the guest runs; they
    /// take turns. Each visit takes the vCPU from its hog or its reader for a moment, so it must be seldom;
    /// without visits a clock that steps in the middle of a run would be noticed only at its end.
    pub visit_interval: Duration,
    /// A running guest that sends nothing for this long, not even a pong, is given up.
    pub silence_max: Duration,
}

/// The state of the session, which decides what the guest may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SessionState {
    /// Nothing has been said.
    Hello,
    /// The guest has said hello.
    Greeted,
    /// The plan is on its way to the guest, or has arrived.
    Preparing,
    /// The guest has said that it is ready.
    Prepared,
    /// The start is on its way to the guest, or has arrived.
    Running,
    /// The guest's workload has ended.
    Over,
}

/// The session with one guest.
#[derive(Debug)]
pub struct Session<'a, S: GuestSink> {
    connection: Connection,
    deframer: Deframer<GuestFrame>,
    buffer: Vec<u8>,
    out: Vec<u8>,
    exchanger: Exchanger,
    plan: SessionPlan,
    sink: S,
    commands: Receiver<Command>,
    progress: Sender<Progress>,
    live: &'a Live,
    record: SessionRecord,
    state: SessionState,
    stop_sent: bool,
    pinged_at: Instant,
    visited_at: Instant,
    visits_count: usize,
    heard_at: Instant,
}

impl<'a, S: GuestSink> Session<'a, S> {
    /// Makes a session over `connection`, before its first byte.
    #[must_use]
    pub fn new(
        connection: Connection,
        plan: SessionPlan,
        sink: S,
        commands: Receiver<Command>,
        progress: Sender<Progress>,
        live: &'a Live,
    ) -> Self {
        Session {
            connection,
            deframer: Deframer::new(),
            buffer: vec![0; 64 * 1024],
            out: Vec::new(),
            exchanger: Exchanger::default(),
            plan,
            sink,
            commands,
            progress,
            live,
            record: SessionRecord::default(),
            state: SessionState::Hello,
            stop_sent: false,
            pinged_at: Instant::now(),
            visited_at: Instant::now(),
            visits_count: 0,
            heard_at: Instant::now(),
        }
    }

    /// Runs the whole session. The record has everything until the end or the error.
    pub fn converse(mut self, hello_timeout: Duration) -> Conversation {
        let result = self.phases(hello_timeout);
        // Of a guest that dies as well, what it could not tell any more is a loss with its interval.
        let left = self.record.observation.end();
        let stored = match left.as_slice() {
            [] => Ok(()),
            left => self.sink.observed(left).map_err(SessionError::Sink),
        };
        (self.record, result.and(stored))
    }

    fn phases(&mut self, hello_timeout: Duration) -> Result<(), SessionError> {
        let hello = self.wait_for(hello_timeout, "vslice waited for its hello", |session| {
            session.record.hello.clone()
        })?;
        if self.plan.observes {
            let vcpus_count = hello.vcpu_count.min(STAMPING_VCPUS_MAX);
            self.plan.stamping_vcpus = (0..vcpus_count).map(VcpuId).collect();
        }
        self.tell(Progress::Connected(hello));
        self.send(&HostFrame::Plan(self.plan.plan_json.clone()))?;
        self.state = SessionState::Preparing;
        let ready = self.wait_for(PREPARE_TIMEOUT, "it was preparing its plan", |session| {
            session.record.ready.clone()
        })?;
        self.calibrate()?;
        self.tell(Progress::Ready(ready));
        if self.await_command()? != Command::Close {
            self.run()?;
        }
        self.calibrate()?;
        self.send(&HostFrame::Bye)
    }

    /// From `Start` to `Done` and on until the run says `Close`.
    fn run(&mut self) -> Result<(), SessionError> {
        self.send(&HostFrame::Start)?;
        self.state = SessionState::Running;
        self.visited_at = Instant::now();
        let mut told = false;
        loop {
            match self.commands.try_recv() {
                Ok(Command::Stop) => self.stop()?,
                Ok(Command::Close) => return Ok(()),
                Ok(Command::Start) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(SessionError::GivenUp),
            }
            self.visit()?;
            self.keep_alive()?;
            self.pump(POLL, "it was running its load")?;
            self.check_silence("it was running its load")?;
            if let (Some(done), false) = (self.record.done, told) {
                told = true;
                self.tell(Progress::Done(done));
            }
        }
    }

    fn stop(&mut self) -> Result<(), SessionError> {
        if !self.stop_sent && self.record.done.is_none() {
            self.stop_sent = true;
            self.send(&HostFrame::Stop)?;
        }
        Ok(())
    }

    /// Waits for the run's next command, keeping the guest's lease alive. A `Stop` before the
    /// `Start` leaves nothing to run.
    fn await_command(&mut self) -> Result<Command, SessionError> {
        loop {
            match self.commands.recv_timeout(POLL) {
                Ok(Command::Start) => return Ok(Command::Start),
                Ok(Command::Stop | Command::Close) => return Ok(Command::Close),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(SessionError::GivenUp),
            }
            self.keep_alive()?;
            self.pump(Duration::ZERO, "it was waiting for the start")?;
            self.check_silence("it was waiting for the start")?;
        }
    }

    /// Pumps until `found` finds something, for `timeout` at most.
    fn wait_for<T>(
        &mut self,
        timeout: Duration,
        what: &'static str,
        found: impl Fn(&Self) -> Option<T>,
    ) -> Result<T, SessionError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(value) = found(self) {
                return Ok(value);
            }
            self.check_given_up()?;
            if Instant::now() >= deadline {
                let seconds = timeout.as_secs();
                return Err(SessionError::Silent { seconds, while_waiting_for: what });
            }
            self.pump(POLL, what)?;
        }
    }

    /// While a phase waits for the guest, the run says nothing but that it is given up, by dropping
    /// its end of the channel.
    fn check_given_up(&self) -> Result<(), SessionError> {
        match self.commands.try_recv() {
            Err(TryRecvError::Disconnected) => Err(SessionError::GivenUp),
            Ok(_) | Err(TryRecvError::Empty) => Ok(()),
        }
    }

    /// To be called right after [`Session::pump`]: of a collector that was stopped itself, the silence
    /// was its own.
    fn check_silence(&self, what: &'static str) -> Result<(), SessionError> {
        let limit = self.plan.silence_max;
        if self.heard_at.elapsed() > limit {
            let seconds = limit.as_secs();
            return Err(SessionError::Silent { seconds, while_waiting_for: what });
        }
        Ok(())
    }

    /// Exchanges stamps with the next of the vCPUs that stamp, if it is time to.
    fn visit(&mut self) -> Result<(), SessionError> {
        let vcpus = &self.plan.stamping_vcpus;
        let turn = visit_turn(self.plan.visit_interval, vcpus.len());
        if self.visited_at.elapsed() >= turn && !vcpus.is_empty() {
            let vcpu = vcpus[self.visits_count % vcpus.len()];
            self.visited_at = Instant::now();
            self.visits_count += 1;
            self.ping(Some(vcpu))?;
        }
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), SessionError> {
        if self.pinged_at.elapsed() >= PING_INTERVAL {
            self.ping(None)?;
        }
        Ok(())
    }

    /// Sends a ping; returns its id.
    fn ping(&mut self, vcpu: Option<VcpuId>) -> Result<u64, SessionError> {
        self.pinged_at = Instant::now();
        let ping = self.exchanger.ping(vcpu, host_now());
        self.send(&HostFrame::Ping(ping))?;
        Ok(ping.id)
    }

    fn send(&mut self, frame: &HostFrame) -> Result<(), SessionError> {
        self.out.clear();
        frame.encode(&mut self.out)?;
        self.connection.write_all(&self.out, ANSWER_TIMEOUT)?;
        Ok(())
    }

    /// A run that no longer listens is noticed at the next command; nothing is lost here.
    fn tell(&self, progress: Progress) {
        drop(self.progress.send(progress));
    }

    /// Reads once, if something comes within `timeout`, and records every whole frame.
    fn pump(&mut self, timeout: Duration, what: &'static str) -> Result<(), SessionError> {
        if !self.connection.wait_readable(timeout)? {
            return Ok(());
        }
        let length = match self.connection.read_available(&mut self.buffer)? {
            None => return Ok(()),
            Some(0) => return Err(SessionError::Closed { while_waiting_for: what }),
            Some(length) => length,
        };
        let read_at = host_now();
        self.heard_at = Instant::now();
        // Taken out for the time of the loop, so that the frames' takers can have all of `self`.
        let buffer = std::mem::take(&mut self.buffer);
        let mut input = &buffer[..length];
        while let Some(frame) = self.deframer.next_frame(&mut input)? {
            self.take(frame, read_at, what)?;
        }
        self.buffer = buffer;
        Ok(())
    }
}

/// How long after one vCPU the next of so many is visited, where each is to be visited so often.
fn visit_turn(of_each: Duration, vcpus_count: usize) -> Duration {
    let vcpus_count = u32::try_from(vcpus_count).unwrap_or(u32::MAX);
    (of_each / vcpus_count.max(1)).max(VISIT_INTERVAL_MIN).min(of_each)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
