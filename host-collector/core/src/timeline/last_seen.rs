//! What was last seen of each thread that is off its pCPU. This tells whether a thread that is switched in
//! had just been woken or had been waiting for its turn.

use super::classify::Next;
use crate::units::{HostNs, PcpuId, Tid};
use rustc_hash::FxHashMap;

/// How many threads are remembered at most; beyond that all are forgotten, and how the next ones were
/// switched in is unknown.
const THREADS_MAX: usize = 1 << 16;

/// Priorities below this are those of real-time tasks (`MAX_RT_PRIO`, include/linux/sched/prio.h).
const REALTIME_PRIORITY_END: i16 = 100;

/// Whether a task of this priority (`task_struct.prio`) goes before all fair ones.
pub(super) fn is_realtime(priority: i16) -> bool {
    priority < REALTIME_PRIORITY_END
}

/// The last that was seen of a thread that is off.
#[derive(Debug, Clone, Copy)]
enum Last {
    LeftAsleep { pcpu: PcpuId },
    LeftRunnable { at: HostNs },
    Woken { at: HostNs },
}

/// A thread that was last seen so long ago has been somewhere else since, where it was not recorded:
/// nobody waits for a pCPU for so long.
const STALE_NS: u64 = 1_000_000_000;

/// What was last seen of every thread that is off its pCPU.
#[derive(Debug, Default)]
pub(super) struct LastSeen {
    last: FxHashMap<Tid, Last>,
}

impl LastSeen {
    /// A thread was woken.
    pub(super) fn woken(&mut self, tid: Tid, time: HostNs) {
        // Whoever is runnable already does not come on because of it.
        let is_waiting = match self.last.get(&tid) {
            Some(Last::LeftRunnable { at }) => time.since_ns(*at) < STALE_NS,
            _ => false,
        };
        if !is_waiting {
            self.remember(tid, Last::Woken { at: time });
        }
    }

    /// A thread left its pCPU.
    pub(super) fn left(&mut self, tid: Tid, at: HostNs, pcpu: PcpuId, is_runnable: bool) {
        let last = if is_runnable { Last::LeftRunnable { at } } else { Last::LeftAsleep { pcpu } };
        self.remember(tid, last);
    }

    /// How a thread came to be switched in, in place of a VM's thread.
    ///
    /// Every waking of a thread that last ran here is recorded if a VM's thread runs here meanwhile.
    /// So one that went to sleep here, and whose waking was not recorded, was woken before that.
    pub(super) fn next(&self, tid: Tid, priority: Option<i16>, now: HostNs, here: PcpuId) -> Next {
        if tid == Tid::IDLE {
            return Next::Idle;
        }
        if priority.is_some_and(is_realtime) {
            return Next::Realtime;
        }
        match self.last.get(&tid) {
            Some(Last::Woken { at }) if now.since_ns(*at) < STALE_NS => {
                Next::Woken { ago_ns: now.since_ns(*at) }
            }
            Some(Last::LeftRunnable { at }) if now.since_ns(*at) < STALE_NS => Next::Waiting,
            Some(Last::LeftAsleep { pcpu }) if *pcpu == here => Next::Waiting,
            _ => Next::Unseen,
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

    const HERE: PcpuId = PcpuId(1);

    #[test]
    fn the_last_that_was_seen_tells() {
        let (hog, sleeper) = (Tid(1), Tid(2));
        let mut last_seen = LastSeen::default();
        let next = |last_seen: &LastSeen, tid, priority, now| {
            last_seen.next(tid, priority, HostNs(now), HERE)
        };
        assert_eq!(next(&last_seen, hog, Some(120), 5), Next::Unseen);
        last_seen.left(hog, HostNs(5), HERE, true);
        last_seen.woken(hog, HostNs(6));
        assert_eq!(next(&last_seen, hog, Some(120), 9), Next::Waiting);
        last_seen.left(sleeper, HostNs(9), PcpuId(7), false);
        assert_eq!(next(&last_seen, sleeper, None, 9), Next::Unseen, "it slept elsewhere");
        last_seen.left(sleeper, HostNs(9), HERE, false);
        assert_eq!(next(&last_seen, sleeper, None, 9), Next::Waiting, "woken by a stranger");
        last_seen.woken(sleeper, HostNs(12));
        assert_eq!(next(&last_seen, sleeper, Some(120), 20), Next::Woken { ago_ns: 8 });
        assert_eq!(next(&last_seen, sleeper, Some(99), 20), Next::Realtime);
        assert_eq!(next(&last_seen, sleeper, Some(-1), 20), Next::Realtime);
        assert_eq!(next(&last_seen, Tid::IDLE, Some(120), 20), Next::Idle);
        // Where they were since then was not recorded.
        let late = STALE_NS + 20;
        assert_eq!(next(&last_seen, sleeper, Some(120), late), Next::Unseen);
        assert_eq!(next(&last_seen, hog, Some(120), late), Next::Unseen);
        last_seen.woken(hog, HostNs(late));
        assert_eq!(next(&last_seen, hog, Some(120), late + 3), Next::Woken { ago_ns: 3 });
    }

    #[test]
    fn memory_is_bounded() {
        let mut last_seen = LastSeen::default();
        for tid in 1..=u32::try_from(THREADS_MAX).unwrap() + 1 {
            last_seen.left(Tid(tid), HostNs(1), HERE, true);
        }
        assert_eq!(last_seen.last.len(), 1);
    }
}
