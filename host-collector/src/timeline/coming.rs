//! How a thread came onto a pCPU: because it was woken, or because it was its turn.

use super::classify::Next;
use crate::units::{HostNs, Tid};
use std::collections::HashMap;

/// Threads that are remembered at most; beyond that all are forgotten, and how the next ones come
/// on is not known.
const THREADS_MAX: usize = 1 << 16;

/// Priorities below this are those of real-time tasks (`MAX_RT_PRIO`, include/linux/sched/prio.h).
const REALTIME_PRIORITY_END: i16 = 100;

/// The last that was seen of a thread that is off.
#[derive(Debug, Clone, Copy)]
enum Last {
    LeftAsleep,
    LeftRunnable,
    Woken(HostNs),
}

/// What was last seen of every thread that is off.
#[derive(Debug, Default)]
pub(super) struct Comings {
    last: HashMap<Tid, Last>,
}

impl Comings {
    /// A thread was woken.
    pub(super) fn woken(&mut self, tid: Tid, time: HostNs) {
        // Whoever is runnable already does not come on because of it.
        if !matches!(self.last.get(&tid), Some(Last::LeftRunnable)) {
            self.remember(tid, Last::Woken(time));
        }
    }

    /// A thread left its pCPU.
    pub(super) fn left(&mut self, tid: Tid, is_runnable: bool) {
        let last = if is_runnable { Last::LeftRunnable } else { Last::LeftAsleep };
        self.remember(tid, last);
    }

    /// A thread comes on now.
    pub(super) fn next(&self, tid: Tid, priority: Option<i16>, now: HostNs) -> Next {
        if tid == Tid::IDLE {
            return Next::Idle;
        }
        if priority.is_some_and(|priority| priority < REALTIME_PRIORITY_END) {
            return Next::Realtime;
        }
        match self.last.get(&tid) {
            Some(Last::Woken(at)) => Next::Woken { ago_ns: now.since_ns(*at) },
            Some(Last::LeftRunnable) => Next::Waiting,
            Some(Last::LeftAsleep) | None => Next::Unseen,
        }
    }

    fn remember(&mut self, tid: Tid, last: Last) {
        if self.last.len() >= THREADS_MAX && !self.last.contains_key(&tid) {
            self.last.clear();
        }
        if tid != Tid::IDLE {
            self.last.insert(tid, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_was_seen_tells() {
        let (hog, sleeper) = (Tid(1), Tid(2));
        let mut comings = Comings::default();
        assert_eq!(comings.next(hog, Some(120), HostNs(5)), Next::Unseen);
        comings.left(hog, true);
        comings.woken(hog, HostNs(6));
        assert_eq!(comings.next(hog, Some(120), HostNs(9)), Next::Waiting);
        comings.left(sleeper, false);
        assert_eq!(comings.next(sleeper, None, HostNs(9)), Next::Unseen);
        comings.woken(sleeper, HostNs(12));
        assert_eq!(comings.next(sleeper, Some(120), HostNs(20)), Next::Woken { ago_ns: 8 });
        assert_eq!(comings.next(sleeper, Some(99), HostNs(20)), Next::Realtime);
        assert_eq!(comings.next(sleeper, Some(-1), HostNs(20)), Next::Realtime);
        assert_eq!(comings.next(Tid::IDLE, Some(120), HostNs(20)), Next::Idle);
    }

    #[test]
    fn memory_is_bounded() {
        let mut comings = Comings::default();
        for tid in 1..=u32::try_from(THREADS_MAX).unwrap() + 1 {
            comings.left(Tid(tid), true);
        }
        assert_eq!(comings.last.len(), 1);
    }
}
