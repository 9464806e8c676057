//! What a guest sends: whether it may say that now, what is kept of it, and how much.

use super::{GuestSink, Progress, Session, SessionError, SessionState};
use vslice_core::clock::host_time::HostTimeSample;
use vslice_core::text::harmless;
use vslice_core::units::{HostNs, VcpuId};
use vslice_host::host_clock::host_clocks_now;
use vslice_wire::{
    Done, DoneReason, Dropped, GuestDisk, GuestFrame, Hello, HogGaps, HostTime, Notice, Observed,
    PROTOCOL_VERSION, Ready, Request, Severity,
};

/// Notices kept of one guest; what it has to say beyond them is passed over.
pub(crate) const NOTICES_MAX: usize = 100;
/// Gaps kept of the hogs of one guest: 96 MiB in memory when they are read. Those beyond are passed
/// over, and the clock is not checked by them.
pub(super) const HOG_GAPS_KEPT_MAX: u64 = 4 << 20;
/// Times kept that KVM told one guest: of a longer run, the first hour or so.
pub(crate) const HOST_TIMES_MAX: usize = 4096;

impl<S: GuestSink> Session<'_, S> {
    pub(super) fn take(
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
            GuestFrame::Observed(observed) => self.take_observed(observed),
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
            GuestFrame::Observed(Observed::Devices(_)) => {
                let can_name = state >= SessionState::Preparing && state < SessionState::Over;
                ("its disks", self.plan.observes && can_name)
            }
            GuestFrame::Observed(_) => {
                ("what it observed", self.plan.observes && state == SessionState::Running)
            }
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

    fn take_observed(&mut self, observed: Observed) -> Result<(), SessionError> {
        if let Observed::Requests(block) = &observed {
            self.live.observed(&block.requests);
        }
        let items = self.record.observation.take(observed, self.sink.observed_bytes());
        self.sink.observed(&items).map_err(SessionError::Sink)
    }

    /// Every request of the reader uses up some of what the plan allows, so that no flood of them fills
    /// the disk.
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
            let notice = Notice { severity: notice.severity, text: harmless(&notice.text) };
            self.tell(Progress::Noticed(notice.text.clone()));
            self.record.notices.push(notice);
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
