//! Which runs are removed: a function of what there is.

use std::fmt;
use std::time::{Duration, SystemTime};
use vslice_spec::quantity::bytes;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Runs that ended longer ago are removed.
    pub(crate) keep: Duration,
    /// The runs together take no more than this on the disk, but for what is written within a second.
    pub(crate) keep_bytes: u64,
}

/// A run of the folder that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndedRun {
    /// The name of its directory. Names are in the order in which runs began.
    pub(crate) name: String,
    /// When its files were last written.
    pub(crate) ended: SystemTime,
    /// What its files take on the disk.
    pub(crate) bytes: u64,
}

/// Why a run is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It has ended too long ago.
    Old,
    /// There is no room for it.
    Room(u64),
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Old => formatter.write_str("it ended longer ago than runs are kept"),
            Reason::Room(limit_bytes) => {
                write!(formatter, "the runs take more than {}", bytes(*limit_bytes))
            }
        }
    }
}

/// The runs to remove, of those in order of their names, while others that are being recorded take so much.
pub(crate) fn to_remove(
    runs: &[EndedRun],
    recording_bytes: u64,
    now: SystemTime,
    limits: &Limits,
) -> Vec<(String, Reason)> {
    let sum = runs.iter().fold(recording_bytes, |sum, run| sum.saturating_add(run.bytes));
    let mut excess_bytes = sum.saturating_sub(limits.keep_bytes);
    let reason = |run: &EndedRun| {
        // A date that was set back makes runs of the future, which are not old.
        let age = now.duration_since(run.ended).unwrap_or_default();
        let reason = match excess_bytes {
            _ if age > limits.keep => Reason::Old,
            0 => return None,
            _ => Reason::Room(limits.keep_bytes),
        };
        excess_bytes = excess_bytes.saturating_sub(run.bytes);
        Some((run.name.clone(), reason))
    };
    // Old ones first: what they leave may be room enough.
    let mut ordered: Vec<&EndedRun> = runs.iter().collect();
    ordered.sort_by_key(|run| now.duration_since(run.ended).unwrap_or_default() <= limits.keep);
    ordered.into_iter().filter_map(reason).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_S: u64 = 1_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Of so many bytes, ended so many seconds ago.
    fn runs(made: &[(u64, u64)]) -> Vec<EndedRun> {
        let run = |(index, (bytes, ago_s)): (usize, &(u64, u64))| EndedRun {
            name: format!("{index:03}"),
            ended: at(NOW_S - ago_s),
            bytes: *bytes,
        };
        made.iter().enumerate().map(run).collect()
    }

    fn removed(
        made: &[(u64, u64)],
        recording_bytes: u64,
        keep_bytes: u64,
    ) -> Vec<(String, Reason)> {
        let limits = Limits { keep: Duration::from_secs(100), keep_bytes };
        to_remove(&runs(made), recording_bytes, at(NOW_S), &limits)
    }

    #[test]
    fn what_ended_too_long_ago_goes_and_nothing_else() {
        let made = [(10, 300), (10, 101), (10, 100), (10, 1)];
        let old = |name: &str| (name.to_owned(), Reason::Old);
        assert_eq!(removed(&made, 5, 1_000), [old("000"), old("001")]);
        assert_eq!(removed(&made[2..], 5, 1_000), []);
    }

    #[test]
    fn the_oldest_go_until_there_is_room_for_what_is_recorded_too() {
        let made = [(10, 50), (20, 40), (30, 30)];
        let room = |name: &str| (name.to_owned(), Reason::Room(50));
        assert_eq!(removed(&made[1..], 0, 50), []);
        assert_eq!(removed(&made, 0, 50), [room("000")]);
        assert_eq!(removed(&made, 1, 50), [room("000"), room("001")]);
        assert_eq!(removed(&made, 1_000, 50).len(), 3, "all that have ended");
    }

    #[test]
    fn old_ones_make_room_whatever_they_are_called() {
        // The date was set back: the first one by its name has ended last.
        let made = [(10, 50), (10, 200)];
        assert_eq!(removed(&made, 0, 15), [("001".to_owned(), Reason::Old)]);
    }

    #[test]
    fn a_run_of_the_future_is_not_old() {
        let mut runs = runs(&[(10, 0)]);
        runs[0].ended = at(NOW_S + 5_000);
        let limits = Limits { keep: Duration::from_secs(100), keep_bytes: 10 };
        assert_eq!(to_remove(&runs, 0, at(NOW_S), &limits), []);
        assert_eq!(
            to_remove(&runs, 1, at(NOW_S), &limits).len(),
            1,
            "it is only removed for its room"
        );
    }

    proptest! {
        #[test]
        fn what_is_left_fits_and_no_more_is_removed_than_must_be(
            made in proptest::collection::vec((0_u64..100, 0_u64..200), 0..12),
            recording_bytes in 0_u64..100,
            keep_bytes in 0_u64..500,
        ) {
            let removed = removed(&made, recording_bytes, keep_bytes);
            let is_removed = |name: &str| removed.iter().any(|(of, _)| of == name);
            let left: Vec<_> = runs(&made).into_iter().filter(|run| !is_removed(&run.name)).collect();
            let left_bytes: u64 = left.iter().map(|run| run.bytes).sum();
            prop_assert!(left.is_empty() || left_bytes + recording_bytes <= keep_bytes);
            prop_assert!(left.iter().all(|run| run.ended >= at(NOW_S - 100)));
            // Without the last that went for its room there would be too little.
            if let Some((last, Reason::Room(_))) = removed.last() {
                let last = runs(&made).into_iter().find(|run| run.name == *last).unwrap();
                prop_assert!(left_bytes + last.bytes + recording_bytes > keep_bytes);
            }
        }
    }
}
