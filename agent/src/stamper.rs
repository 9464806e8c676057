//! Where the control thread runs, and what it stamps pongs with.

use crate::host_clock::HostClock;
use crate::load::Clock;
use crate::uptime::uptime;
use std::path::Path;
use std::time::Duration;
use vslice_spec::ClockChoice;
use vslice_wire::{GuestTicks, HostTime};
use vslice_workload::error::WorkloadError;
use vslice_workload::pin::{current_vcpu, pin_current_thread};

/// The host is asked for its time on another vCPU than the last time, or after so long.
const HOST_TIME_INTERVAL: Duration = Duration::from_secs(1);

/// Stamps on behalf of the thread that made it: the control thread, which lives on the
/// housekeeping vCPU.
///
/// A ping may ask for a stamp of another vCPU. While a load runs, the thread visits that vCPU for
/// the moment of the stamp. While nothing runs, it stays there until it is asked elsewhere, so that
/// the next ping wakes it there: then the way to the vCPU is no part of the round trip, and the
/// clock map of every vCPU is as good as that of the housekeeping one.
#[derive(Debug)]
pub(crate) struct Stamper {
    clock: Clock,
    /// The housekeeping vCPU, once the plan has named it.
    home: Option<u16>,
    /// Where the thread was last pinned to.
    at: Option<u16>,
    /// Whether a load runs.
    is_busy: bool,
    /// How the host tells its time, if it does.
    host_clock: Option<HostClock>,
    /// Where and when it was last asked.
    asked: Option<(u16, Duration)>,
}

impl Stamper {
    /// Before a plan the thread runs anywhere, and its stamps are of no use but for round trips.
    pub(crate) fn new() -> Self {
        Self {
            clock: Clock::choose(ClockChoice::Auto),
            home: None,
            at: None,
            is_busy: false,
            host_clock: None,
            asked: None,
        }
    }

    /// Takes the plan's clock and settles on its housekeeping vCPU.
    pub(crate) fn settle(&mut self, clock: Clock, home: u16) -> Result<(), WorkloadError> {
        self.clock = clock;
        pin_current_thread(home)?;
        self.home = Some(home);
        self.at = self.home;
        self.host_clock = HostClock::find(Path::new("/sys/class/ptp"), Path::new("/dev"));
        Ok(())
    }

    /// A load begins: the control belongs on the housekeeping vCPU.
    pub(crate) fn begin_load(&mut self) {
        self.is_busy = true;
        self.leave();
    }

    /// The load has ended.
    pub(crate) fn end_load(&mut self) {
        self.is_busy = false;
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn now(&self) -> GuestTicks {
        GuestTicks(self.clock.now())
    }

    /// What the host says of its time, if it is time to ask. A host that refuses is not asked again.
    pub(crate) fn host_time(&mut self) -> Option<HostTime> {
        let vcpu = self.at?;
        let clock = self.host_clock.as_ref()?;
        let now = uptime();
        let is_asked = |(last, at): (u16, Duration)| {
            last == vcpu && now.saturating_sub(at) < HOST_TIME_INTERVAL
        };
        if self.asked.is_some_and(is_asked) {
            return None;
        }
        self.asked = Some((vcpu, now));
        let told = clock.ask(vcpu, || self.now());
        if told.is_none() {
            self.host_clock = None;
        }
        told
    }

    /// The vCPU that a stamp taken now is of.
    pub(crate) fn vcpu(&self) -> u16 {
        current_vcpu()
    }

    /// Moves to `vcpu`. Where the machine has no such vCPU the thread stays where it is; the pong
    /// says which vCPU stamped it, so the collector sees that.
    pub(crate) fn visit(&mut self, vcpu: u16) {
        if self.at != Some(vcpu) && pin_current_thread(vcpu).is_ok() {
            self.at = Some(vcpu);
        }
    }

    /// Ends a visit if there is a load to which it would be in the way.
    pub(crate) fn leave(&mut self) {
        if let Some(home) = self.home.filter(|_| self.is_busy) {
            self.visit(home);
        }
    }
}
