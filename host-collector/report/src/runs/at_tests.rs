use super::*;
use crate::analyse::drawn;
use std::time::Duration;
use vslice_core::units::HostNs;
use vslice_trace::date::DateSample;
use vslice_trace::manifest::Manifest;

/// 2026-11-30 00:00:00 UTC.
const MIDNIGHT_S: i64 = 1_795_996_800;

const AROUND_NS: u64 = 5 * S_NS;

fn utc(_: i64) -> i64 {
    0
}

/// A place one hour ahead of UTC, two until 2026-11-30 01:00 UTC, when its clocks are put back.
fn put_back(moment_s: i64) -> i64 {
    if moment_s < MIDNIGHT_S + 3_600 { 7_200 } else { 3_600 }
}

/// A run from one second after midnight, UTC, to another.
fn run(name: &str, from_s: f64, to_s: f64) -> DatedRun {
    let sample = |at_s: f64| {
        let at_ns = u64::try_from(Duration::from_secs_f64(at_s).as_nanos()).unwrap();
        DateSample { host_ns: HostNs(7 + at_ns), realtime_ns: nanoseconds(MIDNIGHT_S) + at_ns }
    };
    DatedRun {
        path: PathBuf::from(name),
        dates: RunDates::of(&[sample(from_s), sample(to_s)]).unwrap(),
        written_realtime_ns: 0,
    }
}

/// What the runs of a service have that begins a new one every 300 s, from 03:00 on.
fn rotated() -> Vec<DatedRun> {
    let start_s = |index: u32| f64::from(3 * 3_600 + 300 * index);
    let of = |index| run(&format!("run-{index}"), start_s(index), start_s(index + 1) + 0.5);
    (0..4).map(of).collect()
}

fn found(runs: &[DatedRun], wanted: &str, offset_s: &dyn Fn(i64) -> i64) -> Result<At, String> {
    let wanted = wanted.parse().expect("a time");
    find_at(&(runs.to_vec(), 0), wanted, AROUND_NS, offset_s).map_err(|error| error.to_string())
}

fn stretch(runs: &[DatedRun], wanted: &str) -> (String, u64, u64) {
    let at = found(runs, wanted, &utc).unwrap();
    (at.run.display().to_string(), at.since_ns / S_NS, at.until_ns / S_NS)
}

#[test]
fn a_time_is_the_minute_or_second_that_it_names_with_what_is_around_it() {
    let runs = rotated();
    assert_eq!(stretch(&runs, "03:12"), ("run-2".to_owned(), 115, 185));
    assert_eq!(stretch(&runs, "03:12:05"), ("run-2".to_owned(), 120, 131));
    assert_eq!(stretch(&runs, "2026-11-30 03:12:05"), ("run-2".to_owned(), 120, 131));
    assert_eq!(stretch(&runs, "2026-11-30T03:12:05Z"), ("run-2".to_owned(), 120, 131));
    assert_eq!(found(&runs, "03:12", &utc).unwrap().others, Vec::<PathBuf>::new());
}

#[test]
fn a_stretch_over_the_edge_of_two_runs_is_of_the_one_that_has_more_of_it() {
    let runs = rotated();
    let at = found(&runs, "03:10:03", &utc).unwrap();
    assert_eq!((at.run.to_str(), at.since_ns / S_NS, at.until_ns / S_NS), (Some("run-2"), 0, 9));
    assert_eq!(at.others, [PathBuf::from("run-1")]);
    let at = found(&runs, "03:09:56", &utc).unwrap();
    assert_eq!((at.run.to_str(), at.since_ns / S_NS), (Some("run-1"), 291));
    assert_eq!(at.others, [PathBuf::from("run-2")]);
    // Two have all of it: that is the overlap of a service that is ended and started again.
    let twice = [run("one", 0.0, 100.0), run("two", 0.0, 100.0)];
    assert_eq!(found(&twice, "00:00:50", &utc).unwrap().others, Vec::<PathBuf>::new());
}

#[test]
fn a_run_that_only_has_what_is_around_a_time_does_not_have_the_time() {
    let runs = [run("before", 0.0, 58.0)];
    let error = found(&runs, "00:01:00", &utc).unwrap_err();
    assert_eq!(
        error,
        "no run was being recorded then; there is before: 2026-11-30 00:00:00+00:00 to \
         2026-11-30 00:00:58+00:00"
    );
}

#[test]
fn a_time_that_was_recorded_on_two_days_is_asked_for_again() {
    let runs = [run("today", 3_600.0, 3_700.0), run("tomorrow", 90_000.0, 90_100.0)];
    let error = found(&runs, "01:00", &utc).unwrap_err();
    let told = "that time was recorded 2 times: at 2026-11-30 01:00:00+00:00 and at \
                2026-12-01 01:00:00+00:00; say which day, or the time in UTC with a Z";
    assert_eq!(error, told);
    assert_eq!(stretch(&runs, "2026-12-01 01:00").0, "tomorrow");
    assert_eq!(stretch(&runs[..1], "01:00").0, "today");
}

#[test]
fn an_hour_that_clocks_show_twice_is_told_by_its_offsets() {
    let runs = [run("summer", 1_800.0, 2_000.0), run("winter", 5_400.0, 5_600.0)];
    let error = found(&runs, "2026-11-30 02:31", &put_back).unwrap_err();
    assert!(error.contains("02:31:00+02:00 and at 2026-11-30 02:31:00+01:00"), "{error}");
    let one = found(&runs, "2026-11-30T01:31Z", &put_back).unwrap();
    assert_eq!((one.run.to_str(), one.since_ns / S_NS), (Some("winter"), 55));
    // A run over the change has both.
    let both = [run("both", 0.0, 9_000.0)];
    assert!(found(&both, "02:31", &put_back).unwrap_err().contains("2 times"));
    // 03:10 is shown once.
    assert_eq!(found(&both, "03:10", &put_back).unwrap().since_ns / S_NS, 7_795);
}

#[test]
fn many_runs_are_named_up_to_a_limit() {
    let runs: Vec<_> = (0..20)
        .map(|at| run(&format!("run-{at:02}"), f64::from(at) * 10.0, f64::from(at) * 10.0 + 9.0))
        .collect();
    let error = find_at(&(runs, 2), "05:00".parse().unwrap(), 0, &utc).unwrap_err().to_string();
    assert!(error.contains("there are run-08: ") && !error.contains("run-07"), "{error}");
    let end = ", and 8 more; 2 runs do not say when they were recorded";
    assert!(error.ends_with(end), "{error}");
    let none = find_at(&(vec![], 1), "05:00".parse().unwrap(), 0, &utc).unwrap_err().to_string();
    let told = "no run was being recorded then; there is no run; one run does not say when it was recorded";
    assert_eq!(none, told);
}

#[test]
fn what_is_no_time_of_day_is_refused_with_the_forms() {
    let texts = [
        "",
        "3:12",
        "03:12:",
        "24:00",
        "03:60",
        "03:12:60",
        "03:12:05.5",
        "noon",
        "+3:12",
        "2026-11-30",
        "2026-02-30 03:12",
        "2026-1-30 03:12",
        "26-11-30 03:12",
        "2026-11-30  03:12",
        "2026-11-30-1 03:12",
        "Z",
    ];
    for text in texts {
        let error = text.parse::<TimeOfDay>().expect_err(text).to_string();
        assert!(
            error.starts_with(&format!("'{text}' is not a time of day: write 03:12, ")),
            "{error}"
        );
    }
}

#[test]
fn runs_say_when_they_were_recorded_and_one_without_an_end_ends_with_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let date = |host_s: u64| DateSample {
        host_ns: HostNs(host_s * S_NS),
        realtime_ns: nanoseconds(MIDNIGHT_S) + host_s * S_NS,
    };
    let made =
        [("whole", vec![date(100), date(160)]), ("killed", vec![date(200)]), ("older", vec![])];
    let paths = made.map(|(name, dates)| {
        let path = folder.path().join(name);
        let _run = drawn::run_in(&path, &Manifest { dates, ..drawn::manifest() });
        let file = std::fs::File::create(path.join("events-0.vsr")).unwrap();
        let written = UNIX_EPOCH + Duration::from_secs(MIDNIGHT_S.unsigned_abs() + 250);
        file.set_modified(written).unwrap();
        let manifest = std::fs::File::options().append(true).open(path.join("run.json")).unwrap();
        manifest.set_modified(written - Duration::from_secs(50)).unwrap();
        path
    });
    let (runs, undated_count) = dated(&paths);
    assert_eq!(undated_count, 1);
    let spans: Vec<_> = runs
        .iter()
        .map(|run| [run.start_ns(), run.end_ns()].map(|ns| seconds(ns) - MIDNIGHT_S))
        .collect();
    assert_eq!(spans, [[100, 160], [200, 250]]);
}
