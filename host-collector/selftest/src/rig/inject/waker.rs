//! A thread that wakes often and preempts whoever runs on its pCPU.
//!
//! Whether a waking thread preempts is the scheduler's choice. Under EEVDF (Linux 6.6 and later) the
//! running thread is protected until its slice is over, unless the waking one has a shorter slice
//! (`PREEMPT_SHORT`; linux: kernel/sched/fair.c, `check_preempt_wakeup_fair`). So the waker asks for
//! the shortest slice there is, and for the highest weight, by which its deadline is the earliest.
//!
//! A kernel that preempts lazily (`PREEMPT_LAZY`, Linux 6.13 and later) may let the one who runs go on
//! until the next tick. A waker that sleeps from one tick to another would come on just as the other's
//! slice is over as well, and nobody could tell the two apart. So it runs for more than half of a tick
//! and sleeps for little: the other one comes on in the middle of a tick, and at the next one it has
//! most of its slice left.

use super::InjectError;
use super::scheduling::{NICE_MIN, SLICE_NS_MIN, become_normal};
use super::thread::{LoggedThread, PinnedThread, wake_and_run};
use nix::sys::prctl;
use std::time::Duration;
use vslice_core::units::PcpuId;
use vslice_host::host;

/// The longest tick there is, where it is not known: `CONFIG_HZ` is 100 at least.
const TICK_MAX: Duration = Duration::from_millis(10);

/// What a waker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WakerConfig {
    /// Where.
    pub pcpu: PcpuId,
    /// How long it sleeps.
    pub sleep: Duration,
    /// How long it runs after that.
    pub run: Duration,
    /// Its nice value, [`NICE_MIN`] for the highest weight.
    pub nice: i32,
    /// The slice that it asks for, [`SLICE_NS_MIN`] for the shortest; 0 for the kernel's default.
    pub slice_ns: u64,
}

impl WakerConfig {
    /// One that preempts as reliably as a normal thread can: a tenth of a tick asleep, six tenths
    /// running.
    #[must_use]
    pub fn new(pcpu: PcpuId) -> WakerConfig {
        let tick = host::tick_ns().map_or(TICK_MAX, Duration::from_nanos);
        WakerConfig {
            pcpu,
            sleep: tick / 10,
            run: tick * 6 / 10,
            nice: NICE_MIN,
            slice_ns: SLICE_NS_MIN,
        }
    }
}

/// Starts a thread of this process that wakes often. Its log has one episode for each waking.
///
/// # Errors
/// [`InjectError::Thread`] and [`InjectError::Scheduling`].
pub fn start(config: WakerConfig) -> Result<LoggedThread, InjectError> {
    let prepare = move || prepare(&config);
    let work = move |stop: &_| wake_and_run(stop, config.sleep, config.run);
    PinnedThread::start("rig-waker", config.pcpu, prepare, work)
}

fn prepare(config: &WakerConfig) -> Result<(), InjectError> {
    let error = |what: String| {
        move |errno| InjectError::Scheduling {
            name: "rig-waker",
            what,
            errno,
            hint: ": a negative nice value needs root or CAP_SYS_NICE",
        }
    };
    become_normal(config.nice, config.slice_ns)
        .map_err(error(format!("given nice {} and a slice", config.nice)))?;
    // Timers of a normal thread may be late by 50 us otherwise, PR_SET_TIMERSLACK of prctl(2).
    prctl::set_timerslack(1).map_err(error("woken on time".to_owned()))
}
