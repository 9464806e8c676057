//! Which run has a time of day, and where.
//!
//! Of time zones nothing is known here: whoever asks says by how much a place's clocks are ahead of UTC at a moment.

use super::find::last_written;
use crate::analyse::manifest_of;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use vslice_core::calendar::{DAY_S, Day, DayTime};
use vslice_core::text::harmless;
use vslice_trace::RunDir;
use vslice_trace::date::RunDates;

/// How a time of day may be written, for help texts and errors.
pub const FORMS: &str = "03:12, 03:12:05, or with a date before it, as in \"2026-11-30 03:12\"; with a Z behind it, \
                         it is UTC";

const S_NS: u64 = 1_000_000_000;

/// Runs and times that a sentence names at most.
const NAMED_MAX: usize = 12;

/// A time as people name it: a minute or a second, of a day or of any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOfDay {
    day: Option<Day>,
    second: u32,
    length_s: u32,
    is_utc: bool,
}

/// That a text is no time of day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a time of day: write {FORMS}")]
pub struct TimeOfDayError(String);

impl std::str::FromStr for TimeOfDay {
    type Err = TimeOfDayError;

    fn from_str(text: &str) -> Result<TimeOfDay, TimeOfDayError> {
        TimeOfDay::read(text).ok_or_else(|| TimeOfDayError(text.to_owned()))
    }
}

impl TimeOfDay {
    fn read(text: &str) -> Option<TimeOfDay> {
        let local = text.strip_suffix('Z');
        let (is_utc, text) = (local.is_some(), local.unwrap_or(text));
        let (day, clock) = match text.split_once([' ', 'T']) {
            Some((day, clock)) => (Some(read_day(day)?), clock),
            None => (None, text),
        };
        let mut parts = clock.split(':');
        let (hour, minute) = (two_digits(parts.next()?, 24)?, two_digits(parts.next()?, 60)?);
        let second = parts.next().map(|part| two_digits(part, 60).ok_or(()));
        let second = second.transpose().ok()?;
        let of_day = hour * 3_600 + minute * 60 + second.unwrap_or(0);
        let length_s = if second.is_some() { 1 } else { 60 };
        let is_all = parts.next().is_none();
        is_all.then_some(TimeOfDay { day, second: of_day, length_s, is_utc })
    }

    /// The moments between two at which a clock shows it, in seconds since 1970.
    fn between(self, first_s: i64, last_s: i64, offset_s: &dyn Fn(i64) -> i64) -> BTreeSet<i64> {
        let offset_s = |moment: i64| if self.is_utc { 0 } else { offset_s(moment) };
        let offsets = BTreeSet::from([offset_s(first_s), offset_s(last_s)]);
        let day_of = |moment: i64, offset: i64| moment.saturating_add(offset).div_euclid(DAY_S);
        let mut moments = BTreeSet::new();
        for offset in offsets {
            let days = day_of(first_s, offset)..=day_of(last_s, offset);
            let days: Vec<Day> = match self.day {
                Some(day) => vec![day],
                None => days.take(DAYS_MAX).map(Day::of_number).collect(),
            };
            let times = days.into_iter().map(|day| DayTime { day, second: self.second });
            let there = times.map(|time| time.unix_s(offset)).filter(|moment| {
                // Where clocks are put forward or back, the other offset may not be the one of this moment.
                offset_s(*moment) == offset
                    && moment.saturating_add(self.length_s.into()) > first_s
                    && *moment <= last_s
            });
            moments.extend(there);
        }
        moments
    }
}

/// Days of one run in which a time without a date is looked for at most.
const DAYS_MAX: usize = 400;

fn read_day(text: &str) -> Option<Day> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let is_year = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    if !is_year || parts.next().is_some() {
        return None;
    }
    let small = |text| u8::try_from(two_digits(text, 100)?).ok();
    Day::new(year.parse().ok()?, small(month)?, small(day)?)
}

fn two_digits(text: &str, below: u32) -> Option<u32> {
    let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number < below)
}

/// A run whose dates are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatedRun {
    /// Where it is.
    pub path: PathBuf,
    dates: RunDates,
    /// Of one that has no end: when its files were last written.
    written_realtime_ns: u64,
}

/// The runs that say when they were recorded, and how many do not.
#[must_use]
pub fn dated(paths: &[PathBuf]) -> (Vec<DatedRun>, usize) {
    let runs: Vec<DatedRun> = paths.iter().filter_map(|path| dated_run(path)).collect();
    let undated_count = paths.len() - runs.len();
    (runs, undated_count)
}

fn dated_run(path: &Path) -> Option<DatedRun> {
    let manifest = manifest_of(&RunDir::open(path).ok()?).ok()?;
    let dates = RunDates::of(&manifest.dates)?;
    let written = last_written(path).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let written_realtime_ns =
        written.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0);
    Some(DatedRun { path: path.to_owned(), dates, written_realtime_ns })
}

impl DatedRun {
    fn start_ns(&self) -> u64 {
        self.dates.start_realtime_ns()
    }

    fn end_ns(&self) -> u64 {
        self.dates.end_realtime_ns().unwrap_or(self.written_realtime_ns).max(self.start_ns())
    }

    /// How much of a stretch it has.
    fn share_ns(&self, [from_ns, until_ns]: [u64; 2]) -> u64 {
        self.end_ns().min(until_ns).saturating_sub(self.start_ns().max(from_ns))
    }

    /// `runs/a: 2026-11-30 03:10:00 to 03:15:01`.
    fn line(&self, offset_s: &dyn Fn(i64) -> i64) -> String {
        let [start, end] = [self.start_ns(), self.end_ns()].map(|ns| shown(seconds(ns), offset_s));
        format!("{}: {start} to {end}", harmless(&self.path.display().to_string()))
    }
}

fn seconds(realtime_ns: u64) -> i64 {
    i64::try_from(realtime_ns / S_NS).unwrap_or(i64::MAX)
}

fn nanoseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(S_NS)
}

/// `2026-11-30 03:12:05+01:00`, so that an hour that a clock shows twice is two.
fn shown(moment_s: i64, offset_s: &dyn Fn(i64) -> i64) -> String {
    let offset = offset_s(moment_s);
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.abs() / 60;
    let time = DayTime::of_unix_s(moment_s, offset);
    format!("{time}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// Where a time is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The run that has most of it and of what is around it.
    pub run: PathBuf,
    /// Where the stretch begins in that run, in nanoseconds since its window began.
    pub since_ns: u64,
    /// Where it ends, likewise.
    pub until_ns: u64,
    /// The other runs that have some of the stretch which this one has not.
    pub others: Vec<PathBuf>,
    /// By how much somebody has set the host's date while the run was recorded, in nanoseconds.
    pub set_by_ns: i64,
}

/// Why no stretch of a run is the one that is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No run was being recorded then.
    #[error("no run was being recorded then; there {}{}", there_are(.there, *.more_count), undated(*.undated_count))]
    Nowhere {
        /// Those nearest to it, or the latest, as `path: from to`.
        there: Vec<String>,
        /// How many others there are.
        more_count: usize,
        /// How many runs do not say when they were recorded.
        undated_count: usize,
    },
    /// A clock has shown this time more than once.
    #[error("that time was recorded {} times: at {}{}; say which day, or the time in UTC with a Z", .times.len(), .times[..].join(" and at "), more(*.more_count))]
    Ambiguous {
        /// When.
        times: Vec<String>,
        /// How many more times.
        more_count: usize,
    },
}

fn there_are(runs: &[String], more_count: usize) -> String {
    match runs.len() {
        0 => "is no run".to_owned(),
        1 => format!("is {}", runs[0]),
        _ => format!("are {}{}", runs.join("; "), more(more_count)),
    }
}

fn more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(", and {count} more") }
}

fn undated(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "; one run does not say when it was recorded".to_owned(),
        _ => format!("; {count} runs do not say when they were recorded"),
    }
}

/// Finds the run that has a time, and the stretch of it that is that time with so much around it on either side.
///
/// # Errors
/// If no run has it, or it was more than once.
pub fn find_at(
    (runs, undated_count): &(Vec<DatedRun>, usize),
    wanted: TimeOfDay,
    around_ns: u64,
    offset_s: &dyn Fn(i64) -> i64,
) -> Result<At, NotFound> {
    let of_run =
        |run: &DatedRun| wanted.between(seconds(run.start_ns()), seconds(run.end_ns()), offset_s);
    let moments: BTreeSet<i64> = runs.iter().flat_map(of_run).collect();
    let moment = match (moments.first(), moments.len()) {
        (Some(moment), 1) => *moment,
        (None, _) => return Err(nowhere(runs, *undated_count, offset_s)),
        (_, count) => {
            let times = moments.iter().take(NAMED_MAX).map(|moment| shown(*moment, offset_s));
            let more_count = count.saturating_sub(NAMED_MAX);
            return Err(NotFound::Ambiguous { times: times.collect(), more_count });
        }
    };
    let named = [moment, moment + i64::from(wanted.length_s)].map(nanoseconds);
    let stretch = [named[0].saturating_sub(around_ns), named[1].saturating_add(around_ns)];
    // One that begins with what is around the time has nothing of the time itself.
    let have_it = runs.iter().filter(|run| run.share_ns(named) > 0);
    let best = have_it.max_by_key(|run| (run.share_ns(stretch), run.start_ns()));
    best.map(|best| of(best, runs, stretch)).ok_or_else(|| nowhere(runs, *undated_count, offset_s))
}

fn of(best: &DatedRun, runs: &[DatedRun], [from_ns, until_ns]: [u64; 2]) -> At {
    let missing =
        [[from_ns, best.start_ns().min(until_ns)], [best.end_ns().max(from_ns), until_ns]];
    let has_some = |run: &&DatedRun| missing.iter().any(|part| run.share_ns(*part) > 0);
    At {
        run: best.path.clone(),
        since_ns: best.dates.in_run_ns(from_ns),
        until_ns: best.dates.in_run_ns(until_ns),
        others: runs.iter().filter(has_some).map(|run| run.path.clone()).collect(),
        set_by_ns: best.dates.set_by_ns(),
    }
}

/// Tells of the latest runs.
fn nowhere(runs: &[DatedRun], undated_count: usize, offset_s: &dyn Fn(i64) -> i64) -> NotFound {
    let mut sorted: Vec<&DatedRun> = runs.iter().collect();
    sorted.sort_by_key(|run| (run.start_ns(), &run.path));
    let latest = sorted.iter().rev().take(NAMED_MAX).rev();
    NotFound::Nowhere {
        there: latest.map(|run| run.line(offset_s)).collect(),
        more_count: runs.len().saturating_sub(NAMED_MAX),
        undated_count,
    }
}

#[cfg(test)]
#[path = "at_tests.rs"]
mod tests;
