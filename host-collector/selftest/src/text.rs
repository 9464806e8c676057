//! The outcome as a page. Pure.

use super::rows::{Verdict, rows};
use super::score::Score;
use super::{Outcome, Skipped};
use std::fmt::Write;
use vslice_core::timeline::Reason;
use vslice_report::summary::OffReason;

/// Stacks that no rule knows, of one scenario, that are shown, and frames of each.
const UNKNOWN_STACKS_MAX: usize = 4;
const UNKNOWN_FRAMES_MAX: usize = 8;

/// The confusion matrix of all scenarios, each scenario's part in it, and what falls short.
#[must_use]
pub fn render(outcomes: &[Outcome], skipped: &[Skipped]) -> String {
    let mut page = String::new();
    let mut total = Score::default();
    page.push_str("Injected causes  times that the vCPU thread left its pCPU for a known cause\n");
    let names = outcomes.iter().map(|outcome| &outcome.name);
    let names = names.chain(skipped.iter().map(|scenario| &scenario.name));
    let width = names.map(|name| name.chars().count()).max().unwrap_or_default();
    for outcome in outcomes {
        total.merge(&outcome.score);
        line(&mut page, outcome, width);
    }
    for Skipped { name, reason, .. } in skipped {
        put(&mut page, format_args!("  {name:<width$}  left out: {reason}\n"));
    }
    page.push_str("\nConfusion matrix  rows: injected cause; columns: what vslice says\n");
    matrix(&mut page, &total);
    let unknown = total.unknown_share() * 100.0;
    put(
        &mut page,
        format_args!(
            "\n{:.3} % of the off-CPU time has no known reason\n{} waits for the big lock, {} of them \
            without its address\n",
            unknown, total.bql_count, total.bql_unproven_count
        ),
    );
    unknown_stacks(&mut page, outcomes);
    for shortfall in total.shortfalls() {
        put(&mut page, format_args!("FALLS SHORT  {shortfall}\n"));
    }
    for row in rows(outcomes, skipped, &total) {
        let word = match row.verdict {
            // The shortfalls above have it.
            Verdict::Right | Verdict::FallsShort => continue,
            Verdict::TooFew => "TOO FEW",
            Verdict::NotTried => "NOT TRIED",
            Verdict::NotJudged => "NOT JUDGED",
            Verdict::LeftOut => "left out",
        };
        let (label, why) = (label(row.reason), row.why.unwrap_or_default());
        put(&mut page, format_args!("{word}  {label}: {why}\n"));
    }
    page
}

fn unknown_stacks(page: &mut String, outcomes: &[Outcome]) {
    for outcome in outcomes {
        for stack in outcome.unknown_stacks.iter().take(UNKNOWN_STACKS_MAX) {
            let state = if stack.is_runnable { "runnable" } else { "asleep" };
            let frames: Vec<&str> =
                stack.frames.iter().take(UNKNOWN_FRAMES_MAX).map(String::as_str).collect();
            let frames = if frames.is_empty() { "no stack".into() } else { frames.join(" < ") };
            put(
                page,
                format_args!(
                    "no matching rule, {}: {} {state}: {frames}\n",
                    outcome.name, stack.count
                ),
            );
        }
    }
}

/// Writing to a string does not fail.
fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    let written = page.write_fmt(text);
    debug_assert!(written.is_ok());
}

fn label(reason: Reason) -> &'static str {
    OffReason::Left(reason).label()
}

fn line(page: &mut String, outcome: &Outcome, width: usize) {
    let score = &outcome.score;
    let of_reason = |reason: Reason| {
        let (right, injected) = (score.count(reason, reason), score.injected(reason));
        format!("{} {right}/{injected}", label(reason))
    };
    let mut parts: Vec<String> = score.injected_reasons().into_iter().map(of_reason).collect();
    if score.undecided_count > 0 {
        parts.push(format!("not judged {}", score.undecided_count));
    }
    let parts = if parts.is_empty() { "nothing happened".to_owned() } else { parts.join(", ") };
    put(page, format_args!("  {:<width$}  {parts}\n", outcome.name));
}

/// Rows and columns are the same reasons in the same order, so a letter names each column.
fn matrix(page: &mut String, score: &Score) {
    let (injected, concluded) = (score.injected_reasons(), score.concluded_reasons());
    let is_there = |reason: &Reason| {
        let is_concluded = concluded.contains(reason) || score.not_injected.contains_key(reason);
        injected.contains(reason) || is_concluded
    };
    let reasons: Vec<Reason> = Reason::ALL.into_iter().filter(is_there).collect();
    put(page, format_args!("  {:<20}", ""));
    for (letter, _) in ('a'..='z').zip(&reasons) {
        put(page, format_args!("{letter:>6}"));
    }
    page.push_str("  precision  recall\n");
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.4}"));
    for (letter, row) in ('a'..='z').zip(&reasons) {
        put(page, format_args!("  {letter} {:<18}", label(*row)));
        for column in &reasons {
            match score.count(*row, *column) {
                0 => put(page, format_args!("{:>6}", ".")),
                count => put(page, format_args!("{count:>6}")),
            }
        }
        let (precision, recall) = (rate(score.precision(*row)), rate(score.recall(*row)));
        put(page, format_args!("{precision:>11}{recall:>8}\n"));
    }
    put(page, format_args!("    {:<18}", "not injected"));
    for column in &reasons {
        match score.not_injected.get(column) {
            None => put(page, format_args!("{:>6}", ".")),
            Some(count) => put(page, format_args!("{count:>6}")),
        }
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UnknownStack;

    #[test]
    fn the_matrix_shows_where_it_went_wrong() {
        let mut score = Score::default();
        (0..99).for_each(|_| score.add(Reason::Halt, Reason::Halt));
        score.add(Reason::Halt, Reason::Unknown);
        score.add(Reason::Yield, Reason::Timeslice);
        score.undecided_count = 5;
        let frames = vec!["schedule".into(), "a_new_function".into()];
        let unknown_stacks = vec![UnknownStack { count: 7, is_runnable: false, frames }];
        let made = vec![];
        let name = "idle guest, KVM".into();
        let outcome = Outcome { name, score, unknown_stacks, made, taken_share: 0.0, untold: None };
        let skipped = Skipped {
            name: "real-time task, KVM".into(),
            reason: "not allowed".into(),
            reasons: vec![Reason::PreemptRtOrStop],
        };
        let page = render(&[outcome], &[skipped]);
        assert!(
            page.contains("\n  idle guest, KVM      halt 99/100, yield 0/1, not judged 5\n"),
            "{page}"
        );
        assert!(page.contains("\n  real-time task, KVM  left out: not allowed\n"), "{page}");
        assert!(
            page.contains("left out  real-time task: real-time task, KVM: not allowed"),
            "{page}"
        );
        assert!(
            page.contains("NOT TRIED  poll or timer: 0 cases, but at least 100 are needed"),
            "{page}"
        );
        assert!(page.contains("7 asleep: schedule < a_new_function"), "{page}");
        assert!(page.contains("FALLS SHORT  yield: recall 0.0000"), "{page}");
        let halt = page.lines().find(|line| line.starts_with("  a halt ")).unwrap();
        assert!(halt.ends_with("1.0000  0.9900"), "{halt}");
        let columns: Vec<&str> = halt.split_whitespace().skip(2).collect();
        assert_eq!(columns[..4], ["99", ".", ".", "1"], "halt, timeslice over, yield, unknown");
    }
}
