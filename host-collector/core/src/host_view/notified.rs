//! Since when a VMM's own threads, those that run no vCPU, all sleep: what it was handed before, it has told its guest.

use crate::units::{HostNs, Tid};
use std::collections::BTreeSet;

/// The VMM's threads that run no vCPU.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    /// Those that have work to do.
    busy: BTreeSet<Tid>,
    /// When the last of them went to sleep, if all sleep.
    asleep_since: Option<HostNs>,
}

impl Notifier {
    /// Takes that a thread has work, or has none any more.
    pub(super) fn note(&mut self, time: HostNs, tid: Tid, has_work: bool) {
        if has_work {
            self.busy.insert(tid);
            self.asleep_since = None;
        } else {
            // What it did until now was work, also if it had begun before anything was recorded.
            self.busy.remove(&tid);
            self.asleep_since = self.busy.is_empty().then_some(time);
        }
    }

    /// Wakings may have been missed: whoever has work is known again by what comes.
    pub(super) fn lost(&mut self) {
        (self.busy, self.asleep_since) = (BTreeSet::new(), None);
    }

    /// Since when all of them sleep, if they do.
    pub(super) fn asleep_since(&self) -> Option<HostNs> {
        self.asleep_since
    }

    /// Whether none of them has work.
    pub(super) fn is_quiet(&self) -> bool {
        self.busy.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Tid = Tid(1);
    const SECOND: Tid = Tid(2);

    fn at(ns: u64) -> HostNs {
        HostNs(1000 + ns)
    }

    fn of(notifier: &Notifier) -> (bool, Option<HostNs>) {
        (notifier.is_quiet(), notifier.asleep_since())
    }

    #[test]
    fn it_is_quiet_once_all_sleep_who_had_work() {
        let mut notifier = Notifier::default();
        notifier.note(at(0), FIRST, true);
        notifier.note(at(60), SECOND, true);
        notifier.note(at(70), FIRST, false);
        assert_eq!(of(&notifier), (false, None), "the second works");
        notifier.note(at(80), SECOND, false);
        assert_eq!(of(&notifier), (true, Some(at(80))));
        notifier.note(at(90), FIRST, true);
        assert_eq!(of(&notifier), (false, None), "the first works again");
    }

    #[test]
    fn who_is_first_seen_to_fall_asleep_had_work() {
        let mut notifier = Notifier::default();
        notifier.note(at(10), FIRST, false);
        assert_eq!(of(&notifier), (true, Some(at(10))));
        notifier.note(at(20), SECOND, false);
        assert_eq!(of(&notifier), (true, Some(at(20))), "until then the second worked");
    }

    #[test]
    fn after_a_loss_nobody_is_known_to_work_or_sleep() {
        let mut notifier = Notifier::default();
        notifier.note(at(0), FIRST, false);
        notifier.lost();
        assert_eq!(notifier.asleep_since(), None);
        notifier.note(at(20), SECOND, true);
        notifier.lost();
        notifier.note(at(30), FIRST, false);
        assert_eq!(of(&notifier), (true, Some(at(30))), "that the second sleeps was lost, perhaps");
    }
}
