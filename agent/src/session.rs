//! The agent's part of the conversation that vslice-wire draws, in one thread.
//!
//! The reader never waits for this thread, and this thread never waits for the collector: when the
//! outbox has no room, records stay in the ring, and when the ring has none, they are counted as
//! dropped. So it always comes back, within [`POLL_MS`] at the latest, to look at the lease.

use crate::guest::{hello, ready, vcpu_count};
use crate::link::{Link, LinkError};
use crate::load::{Clock, Load};
use crate::observing::{self, Observing};
use crate::outbox::PendingPong;
use crate::stamper::Stamper;
use crate::streaming::Streaming;
use crate::uptime::uptime;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, mem};
use vslice_spec::{ObserveSpec, WorkloadSpec};
use vslice_wire::{
    Done, DoneReason, GuestFrame, GuestTicks, HostFrame, NOT_OBSERVED, Notice, Ping, Severity,
};

/// How often the ring is drained and the lease looked at while a load runs. Pings wake the thread
/// at once; this is only for what does not arrive on the socket, and each of it is a wakeup of the
/// housekeeping vCPU.
const POLL_MS: u16 = 10;

/// The same while nothing runs.
const IDLE_POLL_MS: u16 = 50;

/// While nothing runs, the thread looks so often for the next ping before it sleeps again: some
/// milliseconds. A vCPU that is awake takes a ping at once; waking an idle one may take its hypervisor
/// longer than all the rest of the way.
const LOOKS_FOR_PING: u32 = 1000;

/// How long a collector may take to say `Bye` to a guest that has failed before its lease began.
const FAILED_LEASE: Duration = Duration::from_secs(10);

/// How long the end of the session waits for the reader to put back what it set.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Why a session did not end with `Bye` after a load that ran.
#[derive(Debug)]
pub(crate) enum SessionError {
    /// The connection is of no use any more.
    Link(LinkError),
    /// The collector has sent nothing for as long as the lease allows.
    LeaseExpired { lease: Duration },
    /// A signal asked the agent to end.
    Interrupted,
    /// The collector sent a frame that this state does not allow.
    OutOfOrder { frame: &'static str, state: &'static str },
    /// The load failed, and the collector knows why.
    Failed { reason: String },
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(LinkError::Closed) => write!(f, "the collector closed the connection"),
            Self::Link(LinkError::Broken(errno)) => {
                write!(f, "the connection to the collector failed: {}", errno.desc())
            }
            Self::Link(LinkError::Garbled(error)) => {
                write!(f, "cannot decode what the collector sent: {error}")
            }
            Self::LeaseExpired { lease } => {
                write!(f, "the collector has been silent for {} ms", lease.as_millis())
            }
            Self::Interrupted => write!(f, "interrupted by a signal"),
            Self::OutOfOrder { frame, state } => {
                write!(f, "the collector sent {frame} while the agent {state}")
            }
            Self::Failed { reason } => write!(f, "{reason}"),
        }
    }
}

impl std::error::Error for SessionError {}

impl From<LinkError> for SessionError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// The state of the session.
#[derive(Debug)]
enum SessionState {
    AwaitingPlan,
    Preparing(Load),
    Prepared(Load),
    Running(Streaming),
    /// `Done` has been sent: pings are answered until `Bye`.
    Ended,
}

impl SessionState {
    fn name(&self) -> &'static str {
        match self {
            Self::AwaitingPlan => "was waiting for a plan",
            Self::Preparing(_) => "was preparing its load",
            Self::Prepared(_) => "was waiting for the start",
            Self::Running(_) => "was running its load",
            Self::Ended => "had finished its load",
        }
    }
}

#[derive(Debug)]
struct Session {
    link: Link,
    stamper: Stamper,
    state: SessionState,
    /// What the plan wants observed, until it is.
    observe: Option<ObserveSpec>,
    observing: Option<Observing>,
    /// The lease of the plan, which runs from the start on.
    plan_lease: Duration,
    /// The lease that runs now.
    lease: Option<Duration>,
    last_heard: Duration,
    /// How often to look for a ping before the thread sleeps.
    looks_left: u32,
    failure: Option<String>,
}

/// Speaks with the collector at the other end of `socket`, which must be non-blocking, until the
/// end, or until `interrupted` is set. Whatever the end is, hogs and reader have been told to stop
/// when this returns.
pub(crate) fn run(socket: OwnedFd, interrupted: &AtomicBool) -> Result<(), SessionError> {
    let mut session = Session {
        link: Link::new(socket),
        stamper: Stamper::new(),
        state: SessionState::AwaitingPlan,
        observe: None,
        observing: None,
        plan_lease: FAILED_LEASE,
        lease: None,
        last_heard: uptime(),
        looks_left: 0,
        failure: None,
    };
    session.link.send(&GuestFrame::Hello(hello()));
    let ended = session.converse(interrupted);
    match mem::replace(&mut session.state, SessionState::Ended) {
        SessionState::Preparing(mut load) | SessionState::Prepared(mut load) => {
            load.end(END_PATIENCE)
        }
        SessionState::Running(streaming) => streaming.end(END_PATIENCE),
        SessionState::AwaitingPlan | SessionState::Ended => {}
    }
    ended
}

impl Session {
    fn converse(&mut self, interrupted: &AtomicBool) -> Result<(), SessionError> {
        while !interrupted.load(Ordering::Relaxed) {
            self.link.flush(&mut self.stamper);
            self.wait()?;
            if let Some(arrival) = self.link.receive(&self.stamper)? {
                self.last_heard = uptime();
                let (received, vcpu) = (arrival.received, arrival.vcpu);
                for frame in arrival.frames {
                    match frame {
                        HostFrame::Ping(ping) => self.answer(ping, received, vcpu),
                        HostFrame::Plan(json) => self.plan(&json)?,
                        HostFrame::Start => self.start()?,
                        HostFrame::Stop => self.stop(),
                        HostFrame::Bye => return self.farewell(),
                    }
                }
            }
            self.advance();
            self.check_lease()?;
        }
        Err(SessionError::Interrupted)
    }

    fn wait(&mut self) -> Result<(), SessionError> {
        let timeout_ms = match (&self.state, self.looks_left) {
            // A ring that is about to be full wakes it.
            (SessionState::Running(streaming), _) if streaming.is_nothing() => {
                self.observing.as_ref().map_or(IDLE_POLL_MS, Observing::poll_ms)
            }
            (SessionState::Running(_), _) => POLL_MS,
            (_, 0) => IDLE_POLL_MS,
            _ => 0,
        };
        self.looks_left = self.looks_left.saturating_sub(1);
        let rings = self.observing.iter().flat_map(Observing::poll_fds);
        let woken = self.link.wait(rings, timeout_ms)?;
        if let Some(observing) = &mut self.observing {
            observing.woken(woken);
        }
        Ok(())
    }

    fn answer(&mut self, ping: Ping, read: GuestTicks, read_vcpu: u16) {
        if let Some(named_vcpu) = ping.vcpu {
            self.stamper.visit(named_vcpu);
        }
        let vcpu = self.stamper.vcpu();
        // The stamp of the read is the better one, but on another vCPU it is of another clock.
        let received = if vcpu == read_vcpu { read } else { self.stamper.now() };
        if let Some(told) = ping.vcpu.and_then(|_| self.stamper.host_time()) {
            self.link.send(&GuestFrame::HostTime(told));
        }
        self.link.answer(PendingPong { id: ping.id, vcpu, received }, &mut self.stamper);
        self.looks_left = LOOKS_FOR_PING;
    }

    fn plan(&mut self, json: &[u8]) -> Result<(), SessionError> {
        if !matches!(self.state, SessionState::AwaitingPlan) {
            return Err(self.out_of_order("Plan"));
        }
        match self.prepare(json) {
            Ok(load) => self.state = SessionState::Preparing(load),
            Err(error) => self.fail(&error),
        }
        Ok(())
    }

    fn prepare(&mut self, json: &[u8]) -> anyhow::Result<Load> {
        let spec: WorkloadSpec = serde_json::from_slice(json)
            .map_err(|error| anyhow::anyhow!("cannot read the plan: {error}"))?;
        spec.validate(vcpu_count())?;
        self.plan_lease = Duration::from_millis(u64::from(spec.lease_ms));
        let clock = Clock::choose(spec.clock);
        self.observe = spec.observe.clone();
        // Before any thread is started: threads inherit the affinity.
        self.stamper.settle(clock, spec.housekeeping_vcpu)?;
        Load::prepare(&spec, clock)
    }

    fn start(&mut self) -> Result<(), SessionError> {
        match mem::replace(&mut self.state, SessionState::Ended) {
            SessionState::Prepared(mut load) => {
                self.lease = Some(self.plan_lease);
                self.stamper.begin_load();
                if let Some(observing) = &mut self.observing {
                    observing.start(&mut self.link);
                }
                let started = load.start();
                self.state = SessionState::Running(Streaming::new(load));
                if let Err(error) = started {
                    self.fail(&error);
                }
                Ok(())
            }
            state => {
                self.state = state;
                // A load that has failed to prepare has said so already.
                if self.failure.is_some() { Ok(()) } else { Err(self.out_of_order("Start")) }
            }
        }
    }

    fn stop(&mut self) {
        match mem::replace(&mut self.state, SessionState::Ended) {
            SessionState::Running(mut streaming) => {
                streaming.stop();
                self.state = SessionState::Running(streaming);
            }
            SessionState::Preparing(mut load) | SessionState::Prepared(mut load) => {
                load.end(END_PATIENCE);
                self.done(DoneReason::Stopped, 0, 0);
            }
            SessionState::AwaitingPlan => self.done(DoneReason::Stopped, 0, 0),
            SessionState::Ended => {}
        }
    }

    fn farewell(&mut self) -> Result<(), SessionError> {
        match self.failure.take() {
            Some(reason) => Err(SessionError::Failed { reason }),
            None => Ok(()),
        }
    }

    /// Does what is due without being asked.
    fn advance(&mut self) {
        if let (SessionState::Running(_), Some(observing)) = (&self.state, &mut self.observing) {
            observing.advance(&mut self.link);
        }
        match mem::replace(&mut self.state, SessionState::Ended) {
            SessionState::Preparing(load) => match load.prepared() {
                None => self.state = SessionState::Preparing(load),
                Some(Ok(target)) => {
                    self.observe();
                    self.link.send(&GuestFrame::Ready(ready(self.stamper.clock(), &target)));
                    self.state = SessionState::Prepared(load);
                }
                Some(Err(error)) => {
                    self.state = SessionState::Preparing(load);
                    self.fail(&error);
                }
            },
            SessionState::Running(mut streaming) => match streaming.advance(&mut self.link) {
                None => self.state = SessionState::Running(streaming),
                Some(Ok(end)) => {
                    let stopped = streaming.stop_wanted() && !end.completed;
                    let reason = if stopped { DoneReason::Stopped } else { DoneReason::Completed };
                    self.done(reason, end.requests, end.dropped);
                }
                Some(Err(error)) => {
                    self.state = SessionState::Running(streaming);
                    self.fail(&error);
                }
            },
            state => self.state = state,
        }
    }

    /// Opens what is to be observed, after the reader has set its disk's scheduler. Where the guest cannot be
    /// observed the load runs without.
    fn observe(&mut self) {
        let Some(spec) = self.observe.take() else { return };
        match Observing::open(&spec, &mut self.link) {
            Ok(observing) => self.observing = Some(observing),
            Err(error) => observing::warn(&mut self.link, &format!("{NOT_OBSERVED}: {error}")),
        }
    }

    fn check_lease(&self) -> Result<(), SessionError> {
        match self.lease {
            Some(lease) if uptime().saturating_sub(self.last_heard) > lease => {
                Err(SessionError::LeaseExpired { lease })
            }
            _ => Ok(()),
        }
    }

    /// Ends the load in whatever state it is, and reports why it cannot go on.
    fn fail(&mut self, error: &anyhow::Error) {
        let (mut requests, mut dropped) = (0, 0);
        match mem::replace(&mut self.state, SessionState::Ended) {
            SessionState::Preparing(mut load) | SessionState::Prepared(mut load) => {
                load.end(END_PATIENCE)
            }
            SessionState::Running(streaming) => {
                (requests, dropped) = streaming.abandon(&mut self.link, END_PATIENCE);
            }
            SessionState::AwaitingPlan | SessionState::Ended => {}
        }
        let reason = format!("{error:#}");
        self.link.send(&GuestFrame::Notice(Notice::new(Severity::Error, reason.clone())));
        self.failure = Some(reason);
        self.lease.get_or_insert(FAILED_LEASE);
        self.done(DoneReason::Failed, requests, dropped);
    }

    fn done(&mut self, reason: DoneReason, requests: u64, dropped: u64) {
        if let Some(observing) = self.observing.take() {
            observing.end(&mut self.link);
        }
        self.link.send(&GuestFrame::Done(Done { reason, requests, dropped }));
        self.stamper.end_load();
        self.state = SessionState::Ended;
    }

    fn out_of_order(&self, frame: &'static str) -> SessionError {
        SessionError::OutOfOrder { frame, state: self.state.name() }
    }
}
