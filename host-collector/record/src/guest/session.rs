//! The conversation with one guest, from `Hello` to `Bye`.
//!
//! A session runs on a thread of its own and reads top-down as the conversation does. Everything
//! that arrives meanwhile (requests, pongs, signs of life) is recorded by `Session::pump`, which
//! every phase calls; a phase only says what it waits for.

use super::connection::Connection;
use super::exchange::Exchanger;
use super::live::Live;
use std::error::Error;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};
use vslice_core::clock::Exchange;
use vslice_core::clock::host_time::HostTimeSample;
use vslice_core::text::harmless;
use vslice_core::units::{HostNs, VcpuId};
use vslice_host::host_clock::{host_clocks_now, host_now};
use vslice_wire::{
    Deframer, Done, DoneReason, Dropped, Frame, GuestDisk, GuestFrame, Hello, HogCount, HogGap,
    HogGaps, HostFrame, HostTime, Notice, PROTOCOL_VERSION, Ready, Request, Severity,
};

/// How long a guest may take to answer when nothing slow is asked of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to check, or create, the reader's target.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two pings of a running guest: often enough to renew a lease of a second many times
/// over, rare enough to cost the guest's housekeeping vCPU next to nothing.
const PING_INTERVAL: Duration = Duration::from_millis(100);
/// Where a round trip takes long, so many exchanges must do once a vCPU has taken up its time.
const CALIBRATION_EXCHANGES_MIN: u32 = 100;
/// The time of one vCPU.
const CALIBRATION_TIME: Duration = Duration::from_secs(2);
/// How long the exchanges before the run, or those after it, may take together.
const CALIBRATION_TIMEOUT: Duration = Duration::from_secs(60);
/// Notices kept of one guest; what it has to say beyond them is passed over.
pub(crate) const NOTICES_MAX: usize = 100;
/// Gaps kept of the hogs of one guest: 96 MiB in memory when they are read. Those beyond are passed
/// over, and the clock is not checked by them.
const HOG_GAPS_KEPT_MAX: u64 = 4 << 20;
/// Times kept that KVM told one guest: of a longer run, the first hour or so.
pub(crate) const HOST_TIMES_MAX: usize = 4096;
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
    /// The vCPUs that stamp requests; each is calibrated on its own.
    pub stamping_vcpus: Vec<VcpuId>,
    /// The number of exchanges on each of these vCPUs before the run, and again after it; fewer if that
    /// would take seconds.
    pub calibration_exchanges: u32,
    /// The interval at which one of these vCPUs in turn is visited for an exchange while the guest runs.
    /// Each visit takes the vCPU from its hog or its reader for a moment, so it must be seldom; without
    /// visits a clock that steps in the middle of a run would be noticed only at its end.
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
        (self.record, result)
    }

    fn phases(&mut self, hello_timeout: Duration) -> Result<(), SessionError> {
        let hello = self.wait_for(hello_timeout, "vslice waited for its hello", |session| {
            session.record.hello.clone()
        })?;
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

    /// Exchanges pings one at a time on each vCPU that stamps: the fewer there are in flight, the
    /// shorter the round trips and the tighter the bound. A ping that was never answered, for
    /// instance because the guest had no room for its pong, is not waited for.
    fn calibrate(&mut self) -> Result<(), SessionError> {
        let deadline = Instant::now() + CALIBRATION_TIMEOUT;
        for vcpu in self.plan.stamping_vcpus.clone() {
            let began = Instant::now();
            for count in 0..self.plan.calibration_exchanges {
                if count >= CALIBRATION_EXCHANGES_MIN && began.elapsed() > CALIBRATION_TIME {
                    break;
                }
                let id = self.ping(Some(vcpu))?;
                let left = deadline.saturating_duration_since(Instant::now());
                self.wait_for(
                    left.min(ANSWER_TIMEOUT),
                    "vslice calibrated its clock",
                    |session| (!session.exchanger.awaits(id)).then_some(()),
                )?;
            }
        }
        Ok(())
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
        if self.visited_at.elapsed() >= self.plan.visit_interval && !vcpus.is_empty() {
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

    fn take(
        &mut self,
        frame: GuestFrame,
        read_at: HostNs,
        what: &'static str,
    ) -> Result<(), SessionError> {
        self.check_order(&frame, what)?;
        match frame {
            GuestFrame::Hello(hello) => self.take_hello(hello),
            GuestFrame::Ready(ready) => {
                self.state = SessionState::Prepared;
                let disk = ready
                    .disk
                    .map(|disk| GuestDisk { io_scheduler: harmless(&disk.io_scheduler), ..disk });
                let target = harmless(&ready.target);
                let clock_source = harmless(&ready.clock_source);
                self.record.ready = Some(Ready { target, clock_source, disk, ..ready });
                Ok(())
            }
            GuestFrame::Pong(pong) => match self.exchanger.pong(&pong, read_at) {
                Some((vcpu, exchange)) => {
                    self.live.exchanged(&exchange);
                    self.sink.exchange(vcpu, &exchange).map_err(SessionError::Sink)
                }
                None => Ok(()),
            },
            GuestFrame::HostTime(told) => {
                self.take_host_time(&told);
                Ok(())
            }
            GuestFrame::Requests(requests) => self.take_requests(&requests),
            GuestFrame::Dropped(dropped) => self.take_dropped(&dropped),
            GuestFrame::Hogs(hogs) => {
                self.record.hogs = hogs;
                Ok(())
            }
            GuestFrame::HogGaps(gaps) => self.take_hog_gaps(&gaps),
            GuestFrame::Notice(notice) => {
                self.take_notice(&notice);
                Ok(())
            }
            GuestFrame::Done(done) => self.take_done(done),
        }
    }

    /// Rejects a frame that an agent would not send in this state, so that a hostile guest cannot get it
    /// recorded.
    fn check_order(&self, frame: &GuestFrame, what: &'static str) -> Result<(), SessionError> {
        let state = self.state;
        let (frame, is_in_order) = match frame {
            GuestFrame::Hello(_) => ("a second hello", state == SessionState::Hello),
            GuestFrame::Ready(_) => {
                ("a message that it is ready", state == SessionState::Preparing)
            }
            GuestFrame::Requests(_) => ("requests", state == SessionState::Running),
            GuestFrame::Dropped(_) => {
                ("a count of dropped requests", state == SessionState::Running)
            }
            GuestFrame::Hogs(_) => ("the counts of hogs", state == SessionState::Running),
            GuestFrame::HogGaps(_) => ("the gaps of a hog", state == SessionState::Running),
            GuestFrame::Pong(_) => ("a pong", state != SessionState::Hello),
            GuestFrame::HostTime(_) => ("the host's time", state >= SessionState::Preparing),
            GuestFrame::Notice(_) => ("a notice", state != SessionState::Hello),
            GuestFrame::Done(done) => {
                let has_plan = matches!(state, SessionState::Preparing | SessionState::Prepared);
                let may_fail = has_plan && done.reason == DoneReason::Failed;
                ("a message that it is done", state == SessionState::Running || may_fail)
            }
        };
        if is_in_order {
            return Ok(());
        }
        Err(SessionError::OutOfOrder { frame, while_waiting_for: what })
    }

    fn take_hello(&mut self, hello: Hello) -> Result<(), SessionError> {
        if hello.protocol_version != PROTOCOL_VERSION {
            let (theirs, ours) = (hello.protocol_version, PROTOCOL_VERSION);
            return Err(SessionError::Version { theirs, ours });
        }
        self.state = SessionState::Greeted;
        self.record.hello = Some(Hello {
            agent_version: harmless(&hello.agent_version),
            kernel_release: harmless(&hello.kernel_release),
            ..hello
        });
        Ok(())
    }

    fn take_host_time(&mut self, told: &HostTime) {
        if self.record.host_times.len() < HOST_TIMES_MAX {
            self.record.host_times.extend(HostTimeSample::place(told, &host_clocks_now()));
        }
    }

    fn take_requests(&mut self, requests: &[Request]) -> Result<(), SessionError> {
        let count = requests.len() as u64;
        self.check_allowance(count, "a block of requests")?;
        self.sink.requests(requests).map_err(SessionError::Sink)?;
        self.live.requested(requests);
        self.record.requests_count += count;
        Ok(())
    }

    fn take_dropped(&mut self, dropped: &Dropped) -> Result<(), SessionError> {
        self.check_allowance(dropped.count, "a count of dropped requests")?;
        self.sink.dropped(dropped).map_err(SessionError::Sink)?;
        self.record.dropped_count += dropped.count;
        Ok(())
    }

    fn take_hog_gaps(&mut self, gaps: &HogGaps) -> Result<(), SessionError> {
        if gaps.gaps.is_empty() {
            return Err(SessionError::Empty { frame: "the gaps of a hog" });
        }
        let left = HOG_GAPS_KEPT_MAX - self.record.hog_gaps_count;
        let kept = gaps.gaps.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.record.hog_gaps_count += kept as u64;
        let kept = &gaps.gaps[..kept];
        self.sink.hog_gaps(VcpuId(gaps.vcpu), kept).map_err(SessionError::Sink)
    }

    /// Every frame that goes to the sink uses up some of what the plan allows, so that no flood of
    /// them fills the disk.
    fn check_allowance(&self, count: u64, frame: &'static str) -> Result<(), SessionError> {
        let max = self.plan.requests_max;
        let left = max - self.record.requests_count - self.record.dropped_count;
        match count {
            0 => Err(SessionError::Empty { frame }),
            count if count > left => Err(SessionError::TooManyRequests { max }),
            _ => Ok(()),
        }
    }

    fn take_notice(&mut self, notice: &Notice) {
        if self.record.notices.len() < NOTICES_MAX {
            let Notice { severity, text } = notice;
            self.record.notices.push(Notice { severity: *severity, text: harmless(text) });
        }
    }

    fn take_done(&mut self, done: Done) -> Result<(), SessionError> {
        self.state = SessionState::Over;
        self.record.done = Some(done);
        if done.reason == DoneReason::Failed {
            let is_error = |notice: &&Notice| notice.severity == Severity::Error;
            let why = self.record.notices.iter().rev().find(is_error);
            let text = why.map_or("it did not give a reason", |notice| &notice.text);
            return Err(SessionError::GuestFailed(text.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
