//! A realtime thread: it preempts every normal one, whatever slice that has left.

use super::InjectError;
use super::quota::group;
use super::scheduling::become_fifo;
use super::thread::{LoggedThread, PinnedThread, wake_and_run};
use nix::errno::Errno;
use std::time::Duration;
use vslice_core::units::PcpuId;

/// What a realtime thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealtimeConfig {
    /// Where.
    pub pcpu: PcpuId,
    /// How long it sleeps.
    pub sleep: Duration,
    /// How long it runs after that.
    pub run: Duration,
    /// Its `SCHED_FIFO` priority, in [1, 99]; the kernel's own threads have 50 and 99.
    pub priority: i32,
}

impl RealtimeConfig {
    /// 3 ms asleep, 100 us running, at the lowest priority: that is above all normal threads.
    #[must_use]
    pub fn new(pcpu: PcpuId) -> RealtimeConfig {
        RealtimeConfig {
            pcpu,
            sleep: Duration::from_millis(3),
            run: Duration::from_micros(100),
            priority: 1,
        }
    }
}

/// Starts a thread of this process that is `SCHED_FIFO`. Its log has one episode for each waking.
///
/// Where this process is in a v1 `cpu` cgroup that has no realtime, the new thread, and it alone,
/// goes to the root group, which always has some.
///
/// # Errors
/// [`InjectError::Thread`] and [`InjectError::Scheduling`].
pub fn start(config: RealtimeConfig) -> Result<LoggedThread, InjectError> {
    let prepare = move || prepare(config.priority);
    let work = move |stop: &_| wake_and_run(stop, config.sleep, config.run);
    PinnedThread::start("rig-fifo", config.pcpu, prepare, work)
}

fn prepare(priority: i32) -> Result<(), InjectError> {
    let first = become_fifo(priority);
    // With CONFIG_RT_GROUP_SCHED a v1 group begins with cpu.rt_runtime_us = 0, and its threads get
    // EPERM (linux: Documentation/scheduler/sched-rt-group.rst).
    let result = match first {
        Err(Errno::EPERM) if group::own_thread_to_root().is_ok() => become_fifo(priority),
        other => other,
    };
    result.map_err(|errno| InjectError::Scheduling {
        name: "rig-fifo",
        what: "made SCHED_FIFO".to_owned(),
        errno,
        hint: ": that needs root or CAP_SYS_NICE, kernel.sched_rt_runtime_us other than 0, and, with \
            real-time group scheduling, a cgroup with cpu.rt_runtime_us above 0",
    })
}
