//! A cgroup with a quota: the threads in it may run for so long in each period, and then wait.

pub mod group;

use super::{Episode, InjectError};
use group::Group;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use vslice_core::units::{HostNs, Tid};
use vslice_host::host_clock::host_now;
use vslice_trace::quota::Throttling;

/// Whose time is limited, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaConfig {
    /// The thread's process.
    pub pid: Tid,
    /// The thread; the others of its process keep all their time.
    pub tid: Tid,
    /// How long it may run in each period, at least 1 ms.
    pub quota: Duration,
    /// The period, in [1 ms, 1 s].
    pub period: Duration,
}

impl QuotaConfig {
    /// 20 ms of every 50 ms.
    #[must_use]
    pub fn new(pid: Tid, tid: Tid) -> QuotaConfig {
        let (quota, period) = (Duration::from_millis(20), Duration::from_millis(50));
        QuotaConfig { pid, tid, quota, period }
    }
}

/// What a quota has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaLog {
    /// From before the thread was in the group until after it had left.
    pub episode: Episode,
    /// The group's counts at the start.
    pub before: Throttling,
    /// The same at the end.
    pub after: Throttling,
}

/// A thread's quota. Dropping it puts the thread back and removes the group.
#[derive(Debug)]
pub struct CgroupQuota {
    group: Group,
    start: HostNs,
    before: Throttling,
}

impl CgroupQuota {
    /// Makes a group, and puts the thread into it.
    ///
    /// # Errors
    /// [`InjectError::NoCgroup`] and [`InjectError::Cgroup`]; nothing is changed then.
    pub fn start(config: &QuotaConfig) -> Result<CgroupQuota, InjectError> {
        let hierarchy = group::find()?;
        let group = Group::create(&hierarchy, config)?;
        let before = group.throttling()?;
        let start = host_now();
        group.enter(config.tid)?;
        Ok(CgroupQuota { group, start, before })
    }

    /// Where the group is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.group.path()
    }

    /// The group's counts now.
    ///
    /// # Errors
    /// [`InjectError::Cgroup`].
    pub fn throttling(&self) -> Result<Throttling, InjectError> {
        self.group.throttling()
    }

    /// Puts the thread back, and removes the group.
    ///
    /// # Errors
    /// [`InjectError::Cgroup`]; what could be undone is undone.
    pub fn stop(self) -> Result<QuotaLog, InjectError> {
        self.group.leave()?;
        let episode = Episode { start: self.start, end: host_now() };
        Ok(QuotaLog { episode, before: self.before, after: self.group.throttling()? })
    }
}
