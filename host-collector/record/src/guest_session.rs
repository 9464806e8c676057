//! The session with one guest's agent: its thread, and what is known of the guest so far.

use crate::error::RecordingError;
use crate::guest::connection::GuestListener;
use crate::guest::live::Live;
use crate::guest::session::{
    Command, Conversation, Progress, Session, SessionError, SessionPlan, SessionRecord,
};
use crate::guest_streams::GuestStreams;
use crate::guests::GuestPlan;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use vslice_core::units::VcpuId;
use vslice_spec::{ObserveSpec, WorkloadSpec};
use vslice_trace::VmName;
use vslice_trace::observation::ObservationRecord;
use vslice_wire::{Done, Ready};

/// Between two looks for a guest that has not connected yet.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(20);

/// Requests that a guest may make beyond its plan: what is in flight when it stops.
const REQUESTS_SLACK: u64 = 4096;

/// Exchanges on each vCPU before the run, and after it. What counts is the shortest way there and the
/// shortest way back of all of them, so the more there are the tighter is the bound.
const CALIBRATION_EXCHANGES: u32 = 1000;

/// Between two exchanges with a vCPU that has work to do: seldom, because a visit takes the vCPU from
/// its hog or its reader. What it costs a request has not been measured.
const VISIT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a running guest may leave all pings unanswered: far longer than any contention makes a
/// housekeeping vCPU wait.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What a session with an agent that is to do this needs to know.
fn session_plan(workload: &WorkloadSpec) -> SessionPlan {
    let requests_max = workload.reader.as_ref().map_or(0, |reader| {
        reader.total_bytes.div_ceil(reader.block_bytes.max(1).into()) + REQUESTS_SLACK
    });
    SessionPlan {
        plan_json: serde_json::to_vec(workload).expect("a spec has only strings and numbers"),
        requests_max,
        observes: workload.observe.is_some(),
        stamping_vcpus: workload.reader.iter().map(|reader| VcpuId(reader.vcpu)).collect(),
        calibration_exchanges: CALIBRATION_EXCHANGES,
        visit_interval: VISIT_INTERVAL,
        silence_max: SILENCE_MAX,
    }
}

/// One guest of a running plan.
#[derive(Debug)]
pub(crate) struct GuestSession<'scope> {
    pub(crate) vm: VmName,
    pub(crate) has_reader: bool,
    /// What the guest said when it was ready.
    pub(crate) ready: Option<Ready>,
    pub(crate) done: Option<Done>,
    /// What the guest said since it was last asked for.
    pub(crate) notices: Vec<String>,
    observe: Option<ObserveSpec>,
    /// Dropping it gives the session up.
    commands: Option<Sender<Command>>,
    progress: Receiver<Progress>,
    thread: Option<ScopedJoinHandle<'scope, Conversation>>,
    /// What the session recorded, once it is over.
    pub(crate) record: SessionRecord,
}

impl<'scope> GuestSession<'scope> {
    /// Starts the session's thread.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        plan: GuestPlan,
        streams: &'env mut GuestStreams,
        live: &'env Live,
    ) -> GuestSession<'scope> {
        let (commands, session_commands) = channel();
        let (session_progress, progress) = channel();
        let (vm, has_reader) = (plan.vm.clone(), plan.workload.reader.is_some());
        let observe = plan.workload.observe.clone();
        let session = session_plan(&plan.workload);
        let thread = scope.spawn(move || {
            let deadline = Instant::now() + plan.connect_timeout;
            let waited = wait_for_guest(&plan.listener, deadline, &session_commands);
            let connection = match waited {
                Ok(connection) => connection,
                Err(error) => return (SessionRecord::default(), Err(error)),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            Session::new(connection, session, streams, session_commands, session_progress, live)
                .converse(left.max(Duration::from_secs(1)))
        });
        GuestSession {
            vm,
            has_reader,
            ready: None,
            done: None,
            notices: Vec::new(),
            observe,
            commands: Some(commands),
            progress,
            thread: Some(thread),
            record: SessionRecord::default(),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Takes the session's news.
    ///
    /// # Errors
    /// Why the session has ended, if it ended before its end.
    pub(crate) fn look(&mut self) -> Result<(), RecordingError> {
        loop {
            match self.progress.try_recv() {
                Ok(Progress::Connected(_)) => {}
                Ok(Progress::Ready(ready)) => self.ready = Some(ready),
                Ok(Progress::Noticed(text)) => self.notices.push(text),
                Ok(Progress::Done(done)) => self.done = Some(done),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return self.join(),
            }
        }
    }

    /// What the guest observed, for the manifest; `None` if it was not asked to.
    pub(crate) fn observation_record(&self) -> Option<ObservationRecord> {
        let observe = self.observe.as_ref()?;
        Some(self.record.observation.record(observe.slower_than_us))
    }

    /// Tells the session; one that is over is found at the next look.
    pub(crate) fn tell(&self, command: Command) {
        if let Some(commands) = &self.commands {
            let _session_may_be_over = commands.send(command);
        }
    }

    /// Gives the session up: it ends at its next turn.
    pub(crate) fn give_up(&mut self) {
        self.commands = None;
    }

    /// Whether the session is over and its record taken.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_none()
    }

    /// Waits for the session's end and takes its record.
    ///
    /// # Errors
    /// Why it ended before its end.
    pub(crate) fn join(&mut self) -> Result<(), RecordingError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let vm = self.vm.as_str().to_owned();
        let (record, result) =
            thread.join().map_err(|_| RecordingError::SessionPanicked { vm: vm.clone() })?;
        self.record = record;
        result.map_err(|source| RecordingError::Session { vm, source })
    }
}

fn wait_for_guest(
    listener: &GuestListener,
    deadline: Instant,
    commands: &Receiver<Command>,
) -> Result<crate::guest::connection::Connection, SessionError> {
    let started = Instant::now();
    loop {
        if let Some(connection) = listener.try_accept()? {
            return Ok(connection);
        }
        if let Err(TryRecvError::Disconnected) = commands.try_recv() {
            return Err(SessionError::GivenUp);
        }
        if Instant::now() >= deadline {
            return Err(SessionError::NeverConnected { seconds: started.elapsed().as_secs() });
        }
        std::thread::sleep(ACCEPT_INTERVAL);
    }
}
