//! Which host and day a run is of, and what its files are called.

use crate::table::Cell;
use std::path::{Path, PathBuf};
use vslice_core::calendar::DayTime;
use vslice_core::units::HostNs;
use vslice_trace::date::DateSample;
use vslice_trace::manifest::Manifest;

/// What Hive, and so DuckDB and Spark, take for a partition of which the value is not known.
const UNKNOWN: &str = "__HIVE_DEFAULT_PARTITION__";

/// Letters of a name at most: a file's name has up to 255 bytes.
const NAME_CHARS_MAX: usize = 100;

/// The host and day of a run, and its name among all runs of that host.
#[derive(Debug)]
pub(crate) struct Place {
    host: Option<String>,
    /// The host's date when the run began; `None` in older runs.
    date: Option<DateSample>,
    /// When it was first measured.
    start: HostNs,
    /// The name of its directory, and the date when it was first measured or, of older runs, what the host's clock was
    /// then: the directory's alone may be that of another run.
    pub(crate) run: String,
}

impl Place {
    pub(crate) fn of(manifest: &Manifest, directory: &Path) -> Place {
        let start = manifest.window.map_or(HostNs(0), |window| window.start_ns);
        // `.` has no name.
        let whole = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let name = whole.file_name().unwrap_or_default().to_string_lossy();
        let host = manifest.environment.as_ref().and_then(|host| host.host_name.as_deref());
        let date = manifest.dates.first().copied();
        Place {
            host: host.map(plain).filter(|name| !name.is_empty()),
            date,
            start,
            run: format!("{}-{}", plain(&name), date.map_or(start.0, |date| date.realtime_ns)),
        }
    }

    /// Where the files of a table of this run are, below the folder of all.
    pub(crate) fn folder(&self, all: &Path, table: &str) -> PathBuf {
        let host = self.host.as_deref().unwrap_or(UNKNOWN);
        let second = self.micros(self.start).map(|micros| micros.div_euclid(1_000_000));
        let day = second.map(|second| DayTime::of_unix_s(second, 0).day.to_string());
        let day = day.as_deref().unwrap_or(UNKNOWN);
        all.join(table).join(format!("host={host}")).join(format!("day={day}"))
    }

    /// The date of an instant, if the run has dates.
    pub(crate) fn time(&self, at: HostNs) -> Cell<'static> {
        self.micros(at).map_or(Cell::None, Cell::Time)
    }

    /// The same in microseconds since 1970, as the host's clock went on from the run's first date.
    fn micros(&self, at: HostNs) -> Option<i64> {
        let DateSample { host_ns, realtime_ns } = self.date?;
        let later_ns = i128::from(at.0) - i128::from(host_ns.0);
        i64::try_from((i128::from(realtime_ns) + later_ns).div_euclid(1_000)).ok()
    }

    /// How long after the first measured moment it was; negative before.
    pub(crate) fn since_start(&self, at: HostNs) -> Cell<'static> {
        let ns = i128::from(at.0) - i128::from(self.start.0);
        Cell::Integer(i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX }))
    }
}

/// A name in letters that mean nothing to a file system, a glob or a partition.
fn plain(name: &str) -> String {
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "._-".contains(*letter);
    let letters = name.chars().map(|letter| if is_plain(&letter) { letter } else { '_' });
    letters.take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_report::analyse::drawn;

    #[test]
    fn a_name_is_no_other_folder_and_what_is_unknown_is_the_partition_without_a_value() {
        let mut manifest = drawn::manifest();
        let place = Place::of(&manifest, Path::new("/runs/a b=../c*"));
        let unknown = "all/runs/host=__HIVE_DEFAULT_PARTITION__/day=__HIVE_DEFAULT_PARTITION__";
        assert_eq!(place.folder(Path::new("all"), "runs"), Path::new(unknown));
        assert_eq!(place.run, "c_-1000000000");
        assert_eq!(place.time(HostNs(0)), Cell::None);
        let realtime_ns = 951_868_799_999_999_999;
        manifest.dates = vec![DateSample { host_ns: drawn::host_at(0), realtime_ns }];
        let environment = serde_json::json!({ "host_name": "../k vm7", "environment_lines": [] });
        manifest.environment = Some(drawn_host(environment));
        let place = Place::of(&manifest, Path::new("/runs/demo"));
        assert_eq!(place.run, "demo-951868799999999999");
        assert_eq!(
            place.folder(Path::new("all"), "runs"),
            Path::new("all/runs/host=.._k_vm7/day=2000-02-29")
        );
        assert_eq!(place.time(drawn::host_at(3)), Cell::Time(951_868_800_000_002));
        assert_eq!(place.since_start(HostNs(drawn::START_NS - 7)), Cell::Integer(-7));
    }

    fn drawn_host(known: serde_json::Value) -> vslice_trace::host::HostFacts {
        let mut all = serde_json::json!({
            "kernel_release": null, "processor_model": null, "pcpus_online": null,
            "memory_bytes": null, "tick_hz": null, "governor": null, "clocksource": null,
            "qemu_version": null,
        });
        if let (Some(all), Some(known)) = (all.as_object_mut(), known.as_object()) {
            all.extend(known.clone());
        }
        serde_json::from_value(all).unwrap()
    }
}
