//! Who ran on a pCPU while a thread waited for it.

use super::span::Antagonist;
use crate::units::{HostNs, Tid};

/// Distinct antagonists that one wait keeps at most.
///
/// A wait that sees more (dozens of kernel threads that each run for some microseconds) keeps the
/// longest ones that it can; the time of the others is credited to nobody, so that the sum falls
/// short of the span's length and no `ran_ns` is ever too large.
pub const ANTAGONISTS_MAX: usize = 32;

/// The antagonists of one wait that has not ended yet.
#[derive(Debug, Default)]
pub(super) struct Wait {
    /// Everything before this moment is credited already.
    credited_until: HostNs,
    ran: Vec<Antagonist>,
}

impl Wait {
    /// Forgets all credits and starts anew at `at`.
    pub(super) fn restart(&mut self, at: HostNs) {
        self.credited_until = at;
        self.ran.clear();
    }

    /// Credits the time since the last credit to `who`, or to nobody where that is not known.
    pub(super) fn credit(&mut self, who: Option<Tid>, until: HostNs) {
        let ran_ns = until.since_ns(self.credited_until);
        self.credited_until = self.credited_until.max(until);
        let Some(tid) = who else { return };
        if ran_ns == 0 {
            return;
        }
        if let Some(known) = self.ran.iter_mut().find(|known| known.tid == tid) {
            known.ran_ns += ran_ns;
        } else if self.ran.len() < ANTAGONISTS_MAX {
            self.ran.push(Antagonist { tid, ran_ns });
        } else if let Some(shortest) = self.ran.iter_mut().min_by_key(|known| known.ran_ns)
            && shortest.ran_ns < ran_ns
        {
            *shortest = Antagonist { tid, ran_ns };
        }
    }

    /// The antagonists so far, the longest first; equal ones by thread id.
    pub(super) fn take(&mut self) -> Vec<Antagonist> {
        let mut ran = std::mem::take(&mut self.ran);
        ran.sort_unstable_by_key(|antagonist| {
            (std::cmp::Reverse(antagonist.ran_ns), antagonist.tid)
        });
        ran
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_most_keeps_the_longest_and_overstates_nobody() {
        let mut wait = Wait::default();
        let mut now_ns = 0;
        // Thread 1 runs for 1 ns, thread 2 for 2 ns and so on: the first ones are pushed out.
        for tid in 1..=40_u32 {
            now_ns += u64::from(tid);
            wait.credit(Some(Tid(tid)), HostNs(now_ns));
        }
        now_ns += 1;
        wait.credit(Some(Tid(99)), HostNs(now_ns));
        let ran = wait.take();
        assert_eq!(ran.len(), ANTAGONISTS_MAX);
        assert_eq!(ran[0], Antagonist { tid: Tid(40), ran_ns: 40 });
        assert!(ran.iter().all(|antagonist| antagonist.ran_ns == u64::from(antagonist.tid.0)));
        assert!(ran.iter().map(|antagonist| antagonist.ran_ns).sum::<u64>() <= now_ns);
        assert!(!ran.iter().any(|antagonist| [Tid(1), Tid(99)].contains(&antagonist.tid)));
    }

    #[test]
    fn time_of_an_unknown_occupant_is_credited_to_nobody() {
        let mut wait = Wait::default();
        wait.restart(HostNs(10));
        wait.credit(Some(Tid(7)), HostNs(15));
        wait.credit(None, HostNs(25));
        wait.credit(Some(Tid(7)), HostNs(28));
        assert_eq!(wait.take(), [Antagonist { tid: Tid(7), ran_ns: 8 }]);
    }
}
