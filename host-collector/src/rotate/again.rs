//! When what has failed is tried again.

use std::time::{Duration, Instant};

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// Between two tries at most.
const LONGEST: Duration = Duration::from_secs(60);

/// How long is waited between tries: twice as long after each failure, up to a minute.
#[derive(Debug)]
pub(crate) struct Again {
    next: Duration,
    not_before: Option<Instant>,
}

impl Again {
    /// Nothing has failed.
    pub(crate) fn new() -> Again {
        Again { next: FIRST, not_before: None }
    }

    /// Takes a failure; says how long is waited.
    pub(crate) fn failed(&mut self, now: Instant) -> Duration {
        let wait = self.next;
        self.not_before = now.checked_add(wait);
        self.next = (wait * 2).min(LONGEST);
        wait
    }

    /// Waits for so long without a failure.
    pub(crate) fn wait(&mut self, now: Instant, wait: Duration) {
        self.not_before = now.checked_add(wait);
    }

    /// What was tried has gone well to its end.
    pub(crate) fn went_well(&mut self) {
        *self = Again::new();
    }

    /// Whether it may be tried.
    pub(crate) fn may(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| now >= time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_less_and_less_often_but_at_least_once_a_minute() {
        let now = Instant::now();
        let mut again = Again::new();
        assert!(again.may(now));
        let waits: Vec<u64> = (0..9).map(|_| again.failed(now).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(!again.may(now + Duration::from_millis(59_999)));
        assert!(again.may(now + Duration::from_secs(60)));
        again.went_well();
        assert!(again.may(now));
        assert_eq!(again.failed(now).as_secs(), 1);
    }
}
