//! For which reasons the self-test promises cases, and what became of each. Pure.

use super::{Outcome, Score, Skipped};
use serde::Serialize;
use vslice_core::timeline::Reason;

/// Cases below which nothing is concluded of a reason: fewer would not show a wrong one in a hundred.
const CASES_MIN: u64 = 100;

/// What the self-test promises of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// So many cases at least.
    Cases(u64),
    /// None, and why.
    None(&'static str),
}

/// What the self-test promises of a reason.
#[must_use]
pub const fn promise(reason: Reason) -> Promise {
    match reason {
        // Periods of a quota, timeslices and stops are long.
        Reason::Throttle => Promise::Cases(4),
        Reason::Timeslice => Promise::Cases(20),
        Reason::Stopped => Promise::Cases(50),
        Reason::KvmKernelLock => Promise::None(
            "cannot be injected: KVM holds its locks for microseconds, and nothing outside the kernel \
            can make it hold one for longer",
        ),
        Reason::MemoryLimit => Promise::None(
            "is not injected: it takes a control group of version 2 that limits memory, and the self-test \
            makes none",
        ),
        Reason::SignalWork => Promise::None(
            "cannot be injected: a thread's own work in the kernel takes a microsecond, too short to \
            preempt it on purpose",
        ),
        Reason::Unknown => Promise::None("is not a cause"),
        Reason::Bql
        | Reason::BqlFoundByBehaviour
        | Reason::BqlInferred
        | Reason::QemuLock
        | Reason::HaltUser
        | Reason::VmmLock
        | Reason::Halt
        | Reason::HostFault
        | Reason::IoSubmit
        | Reason::PreemptWakeup
        | Reason::PreemptRtOrStop
        | Reason::Yield
        | Reason::PollSleep => Promise::Cases(CASES_MIN),
    }
}

/// What an injector made of one cause, by its own log and the kernel's counts; nothing that vslice
/// recorded has a part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InjectionCount {
    /// The cause.
    pub reason: Reason,
    /// How often it was tried.
    pub tried_count: u64,
    /// How often it is proven to have happened.
    pub made_count: u64,
}

/// What became of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It had its cases, and precision and recall are what is promised.
    Right,
    /// Precision or recall are less.
    FallsShort,
    /// Too few cases to say anything.
    TooFew,
    /// No case at all, though it was promised.
    NotTried,
    /// Too few cases, because the witness did not see what tells the truth of them.
    NotJudged,
    /// It cannot be had on this host, or never.
    LeftOut,
}

/// A row of the confusion matrix, and what it is worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was injected.
    pub reason: Reason,
    /// How often that is known of a departure.
    pub cases: u64,
    /// How often it has to be; `None` where nothing is promised.
    pub cases_min: Option<u64>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, as a sentence without its end; `None` if it is right.
    pub why: Option<String>,
    /// The largest share of the vCPU's pCPU that others than the self-test had in the scenarios of this
    /// reason: what a shortage may be explained by.
    pub taken_share: f64,
}

impl Row {
    /// Whether nothing is to be concluded against it.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        matches!(self.verdict, Verdict::Right | Verdict::LeftOut)
    }
}

/// What became of every reason.
#[must_use]
pub fn rows(outcomes: &[Outcome], skipped: &[Skipped], total: &Score) -> Vec<Row> {
    let reasons = Reason::ALL.into_iter().filter(|reason| *reason != Reason::Unknown);
    reasons.map(|reason| row(reason, outcomes, skipped, total)).collect()
}

fn row(reason: Reason, outcomes: &[Outcome], skipped: &[Skipped], total: &Score) -> Row {
    let cases = total.injected(reason);
    let (cases_min, never) = match promise(reason) {
        Promise::Cases(count) => (Some(count), None),
        Promise::None(why) => (None, Some(why.to_owned())),
    };
    let left_out = skipped.iter().filter(|skipped| skipped.reasons.contains(&reason));
    let left_out = left_out.map(|skipped| format!("{}: {}", skipped.name, skipped.reason));
    let left_out = left_out.reduce(|all, one| format!("{all}; {one}")).or(never);
    let short = total.rate_shortfalls(reason);
    let (verdict, why) = if !short.is_empty() {
        (Verdict::FallsShort, Some(short.join("; ")))
    } else if cases >= cases_min.unwrap_or(1) {
        (Verdict::Right, None)
    } else if let Some(why) = left_out.filter(|_| cases == 0) {
        (Verdict::LeftOut, Some(why))
    } else {
        let is_untold = tries(reason, outcomes).any(|outcome| outcome.untold.is_some());
        let verdict = match cases {
            _ if is_untold => Verdict::NotJudged,
            0 => Verdict::NotTried,
            _ => Verdict::TooFew,
        };
        (verdict, Some(shortage(reason, cases, cases_min.unwrap_or(1), outcomes)))
    };
    let taken_share = tries(reason, outcomes).map(|outcome| outcome.taken_share);
    let taken_share = taken_share.fold(0.0, f64::max);
    Row { reason, cases, cases_min, verdict, why, taken_share }
}

/// The scenarios that are about a reason.
fn tries(reason: Reason, outcomes: &[Outcome]) -> impl Iterator<Item = &Outcome> {
    outcomes.iter().filter(move |outcome| outcome.made.iter().any(|made| made.reason == reason))
}

fn shortage(reason: Reason, cases: u64, cases_min: u64, outcomes: &[Outcome]) -> String {
    let mut text = format!("{cases} cases, but at least {cases_min} are needed");
    for outcome in tries(reason, outcomes) {
        let made = outcome.made.iter().filter(|made| made.reason == reason);
        for InjectionCount { tried_count, made_count, .. } in made {
            text.push_str(&format!(
                "; {}: injected in {made_count} of {tried_count} tries, seen {} times, while others \
                used {:.1} % of the pCPU",
                outcome.name,
                outcome.score.injected(reason),
                outcome.taken_share * 100.0
            ));
        }
        if let Some(untold) = &outcome.untold {
            text.push_str(&format!("; {untold}"));
        }
    }
    if tries(reason, outcomes).next().is_none() {
        text.push_str("; no scenario injects it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(reason: Reason, concluded: &[(Reason, u64)], made_count: u64) -> Outcome {
        let mut score = Score::default();
        for (concluded, count) in concluded {
            (0..*count).for_each(|_| score.add(reason, *concluded));
        }
        Outcome {
            name: "rival hog, KVM".to_owned(),
            score,
            unknown_stacks: vec![],
            made: vec![InjectionCount { reason, tried_count: 200, made_count }],
            taken_share: 0.37,
            untold: None,
        }
    }

    fn row_of(reason: Reason, outcomes: &[Outcome], skipped: &[Skipped]) -> Row {
        let mut total = Score::default();
        outcomes.iter().for_each(|outcome| total.merge(&outcome.score));
        let rows = rows(outcomes, skipped, &total);
        rows.into_iter().find(|row| row.reason == reason).expect("every reason has one")
    }

    #[test]
    fn a_row_without_a_case_was_not_tried() {
        let none = outcome(Reason::PreemptWakeup, &[], 0);
        for outcomes in [&[][..], &[none]] {
            let row = row_of(Reason::PreemptWakeup, outcomes, &[]);
            assert_eq!(row.verdict, Verdict::NotTried);
            assert!(!row.is_fine());
        }
    }

    #[test]
    fn a_row_with_too_few_cases_says_how_many_were_made() {
        let few = outcome(Reason::HostFault, &[(Reason::HostFault, 2)], 3);
        let row = row_of(Reason::HostFault, &[few], &[]);
        assert_eq!((row.verdict, row.is_fine()), (Verdict::TooFew, false));
        let why = row.why.expect("a reason");
        assert_eq!(
            why,
            "2 cases, but at least 100 are needed; rival hog, KVM: injected in 3 of 200 tries, seen 2 \
            times, while others used 37.0 % of the pCPU"
        );
    }

    #[test]
    fn without_a_truth_a_row_is_not_judged() {
        let none = outcome(Reason::Bql, &[], 90);
        let none = Outcome { untold: Some("nobody shared a lock".to_owned()), ..none };
        let row = row_of(Reason::Bql, std::slice::from_ref(&none), &[]);
        assert_eq!((row.verdict, row.is_fine()), (Verdict::NotJudged, false));
        assert!(row.why.expect("a reason").ends_with("37.0 % of the pCPU; nobody shared a lock"));
        let enough = outcome(Reason::Bql, &[(Reason::Bql, 100)], 100);
        assert_eq!(row_of(Reason::Bql, &[none, enough], &[]).verdict, Verdict::Right);
    }

    #[test]
    fn what_cannot_be_had_here_is_named_with_why() {
        let skipped = Skipped {
            name: "real-time task, KVM".to_owned(),
            reason: "EPERM".to_owned(),
            reasons: vec![Reason::PreemptRtOrStop],
        };
        let row = row_of(Reason::PreemptRtOrStop, &[], &[skipped]);
        assert_eq!(row.verdict, Verdict::LeftOut);
        assert_eq!(row.why.as_deref(), Some("real-time task, KVM: EPERM"));
        assert_eq!(row_of(Reason::SignalWork, &[], &[]).verdict, Verdict::LeftOut);
        assert_eq!(row_of(Reason::Yield, &[], &[]).verdict, Verdict::NotTried, "another one");
    }

    #[test]
    fn enough_cases_are_right_or_fall_short() {
        let right = outcome(Reason::Yield, &[(Reason::Yield, 100)], 100);
        assert_eq!(row_of(Reason::Yield, &[right], &[]).verdict, Verdict::Right);
        let wrong = outcome(Reason::Yield, &[(Reason::Yield, 98), (Reason::Timeslice, 2)], 100);
        let row = row_of(Reason::Yield, &[wrong], &[]);
        assert_eq!(row.verdict, Verdict::FallsShort);
        assert_eq!(row.why.as_deref(), Some("yield: recall 0.9800, below 0.99"));
    }
}
