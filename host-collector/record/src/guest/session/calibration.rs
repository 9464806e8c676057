//! How the clocks of a guest's vCPUs are exchanged before its run and after it.

use super::{ANSWER_TIMEOUT, GuestSink, Session, SessionError};
use std::time::{Duration, Instant};

/// Where a round trip takes long, so many exchanges must do once the time is up.
pub(super) const CALIBRATION_EXCHANGES_MIN: u32 = 100;
/// Where there are many vCPUs, these are shared among them.
pub(super) const CALIBRATION_EXCHANGES_MIN_OF_ALL: u32 = 2_000;
/// But so many each vCPU has.
pub(super) const CALIBRATION_EXCHANGES_LEAST: u32 = 10;
/// Exchanges of one vCPU before the next one's turn. An agent without a load stays where it was last asked, so
/// that of the first one alone the way there is a part.
pub(super) const CALIBRATION_TURN: u32 = 5;
/// The time of one vCPU.
pub(super) const CALIBRATION_TIME: Duration = Duration::from_secs(2);
/// The time of all vCPUs together, where there are many.
pub(super) const CALIBRATION_TIME_OF_ALL: Duration = Duration::from_secs(10);
/// How long the exchanges before the run, or those after it, may take together; what there
/// is then must do.
pub(crate) const CALIBRATION_TIMEOUT: Duration = Duration::from_secs(60);

impl<S: GuestSink> Session<'_, S> {
    /// Exchanges pings one at a time on each vCPU that stamps: the fewer there are in flight, the
    /// shorter the round trips and the tighter the bound. The vCPUs take turns of some exchanges, so that the
    /// clock of none is read long before or after the run, however many they are. A ping that was never
    /// answered, for instance because the guest had no room for its pong, is not waited for.
    pub(super) fn calibrate(&mut self) -> Result<(), SessionError> {
        let began = Instant::now();
        let vcpus = self.plan.stamping_vcpus.clone();
        let (least, time) = calibration_of(u32::try_from(vcpus.len()).unwrap_or(u32::MAX));
        let mut done_count = 0;
        while done_count < self.plan.calibration_exchanges
            && (done_count < least || began.elapsed() <= time)
        {
            let turn = (self.plan.calibration_exchanges - done_count).min(CALIBRATION_TURN);
            for vcpu in &vcpus {
                for _ in 0..turn {
                    if began.elapsed() > CALIBRATION_TIMEOUT {
                        return Ok(());
                    }
                    let id = self.ping(Some(*vcpu))?;
                    self.wait_for(ANSWER_TIMEOUT, "vslice calibrated its clock", |session| {
                        (!session.exchanger.awaits(id)).then_some(())
                    })?;
                }
            }
            done_count += turn;
        }
        Ok(())
    }
}

/// How many exchanges each of so many vCPUs does at least, and how long all may take to do more.
pub(super) fn calibration_of(vcpus_count: u32) -> (u32, Duration) {
    let least = CALIBRATION_EXCHANGES_MIN_OF_ALL / vcpus_count.max(1);
    let time = CALIBRATION_TIME.saturating_mul(vcpus_count).min(CALIBRATION_TIME_OF_ALL);
    (least.clamp(CALIBRATION_EXCHANGES_LEAST, CALIBRATION_EXCHANGES_MIN), time)
}
