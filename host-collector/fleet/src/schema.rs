//! The columns of each table. `schema.md` beside this file lists them with what they mean, and a test holds the two
//! together: a table's columns are documented in their order.

use vslice_core::join::{Part, Phase};

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name, which is that of its folder.
    pub name: &'static str,
    /// Its columns, in order.
    pub columns: Vec<Column>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name. That of a number ends in its unit.
    pub name: String,
    /// What is in it.
    pub kind: Kind,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `BIGINT`.
    Integer,
    /// `DOUBLE`.
    Real,
    /// `BOOLEAN`.
    Flag,
    /// `VARCHAR`, in Spark `STRING`.
    Text,
    /// An instant to the microsecond.
    Time,
}

use Kind::{Flag, Integer, Text, Time};

/// Before the columns of each table but `runs`: whose row it is.
const OF_RUN: [(&str, Kind); 2] = [("run", Text), ("vm", Text)];

/// When something began, and how long it was.
const WHEN: [(&str, Kind); 3] =
    [("start_time", Time), ("start_ns", Integer), ("length_ns", Integer)];

impl Table {
    fn new(name: &'static str, columns: &[&[(&str, Kind)]]) -> Table {
        let columns = columns.iter().copied().flatten();
        let columns = columns.map(|(name, kind)| Column { name: (*name).to_owned(), kind: *kind });
        Table { name, columns: columns.collect() }
    }

    /// Each request that has a place on the host's clock.
    #[must_use]
    pub fn requests() -> Table {
        let mut table = Table::new(
            "requests",
            &[
                &OF_RUN,
                &[
                    ("made_by", Text),
                    ("start_time", Time),
                    ("start_ns", Integer),
                    ("latency_ns", Integer),
                    ("clock_bound_ns", Integer),
                    ("device", Text),
                    ("operation", Text),
                    ("is_sync", Flag),
                    ("sector", Integer),
                    ("bytes", Integer),
                    ("process", Text),
                    ("pid", Integer),
                    ("result", Integer),
                    ("vcpu_queued", Integer),
                    ("vcpu_issued", Integer),
                    ("vcpu_completed", Integer),
                    ("attribution", Text),
                    ("phases_unknown", Text),
                    ("waited_for", Text),
                    ("waited_for_vm", Text),
                    ("waited_for_ns", Integer),
                ],
            ],
        );
        let phases = Phase::ALL.map(|phase| format!("phase_{}_ns", phase.name()));
        let parts = Part::ALL.map(|part| format!("{}_ns", part.name()));
        let lengths = phases.into_iter().chain(parts);
        table.columns.extend(lengths.map(|name| Column { name, kind: Integer }));
        table
    }

    /// Each stay of a vCPU's thread off its pCPU.
    #[must_use]
    pub fn vcpu_waits() -> Table {
        let columns = [
            ("reason", Text),
            ("is_ready", Flag),
            ("pcpu", Integer),
            ("antagonist", Text),
            ("antagonist_vm", Text),
            ("antagonist_kind", Text),
            ("antagonist_ns", Integer),
        ];
        Table::new("vcpu_waits", &[&OF_RUN, &[("vcpu", Integer)], &WHEN, &columns])
    }

    /// Who ran on a pCPU while a vCPU's thread waited for it.
    #[must_use]
    pub fn ran_instead() -> Table {
        let columns = [
            ("wait_time", Time),
            ("wait_ns", Integer),
            ("pcpu", Integer),
            ("name", Text),
            ("name_vm", Text),
            ("kind", Text),
            ("ran_ns", Integer),
        ];
        Table::new("ran_instead", &[&OF_RUN, &[("vcpu", Integer)], &columns])
    }

    /// Each stay of a vCPU's thread on a pCPU whose ends were both seen.
    #[must_use]
    pub fn timeslices() -> Table {
        let (vcpu, pcpu) = ([("vcpu", Integer)], [("pcpu", Integer)]);
        Table::new("timeslices", &[&OF_RUN, &vcpu, &WHEN, &pcpu])
    }

    /// Each sleep of a VM's thread on a lock of its VMM.
    #[must_use]
    pub fn lock_waits() -> Table {
        let columns = [
            ("reason", Text),
            ("address", Text),
            ("released_by", Text),
            ("released_by_vm", Text),
            ("held_ns", Integer),
            ("device", Text),
        ];
        let who = [("vcpu", Integer), ("thread", Text)];
        Table::new("lock_waits", &[&OF_RUN, &who, &WHEN, &columns])
    }

    /// How each vCPU's thread was scheduled over the run.
    #[must_use]
    pub fn vcpus() -> Table {
        let columns = [
            ("vcpu", Integer),
            ("observed_ns", Integer),
            ("on_pcpu_ns", Integer),
            ("ready_ns", Integer),
            ("timeslices", Integer),
            ("timeslice_mean_ns", Integer),
            ("timeslice_p50_ns", Integer),
            ("timeslice_p99_ns", Integer),
            ("timeslice_max_ns", Integer),
        ];
        Table::new("vcpus", &[&OF_RUN, &columns])
    }

    /// The run itself, a row.
    #[must_use]
    pub fn runs() -> Table {
        let columns = [
            ("run", Text),
            ("start_time", Time),
            ("measured_ns", Integer),
            ("plan", Text),
            ("status", Text),
            ("status_reason", Text),
            ("evidence", Text),
            ("accelerator", Text),
            ("kernel_release", Text),
            ("qemu_version", Text),
            ("processor_model", Text),
            ("pcpus", Integer),
            ("tick_hz", Integer),
            ("vms", Integer),
            ("requests", Integer),
            ("requests_unattributable", Integer),
            ("requests_dropped", Integer),
            ("latency_mean_ns", Integer),
            ("latency_p50_ns", Integer),
            ("latency_p99_ns", Integer),
            ("latency_p999_ns", Integer),
            ("latency_max_ns", Integer),
            ("requests_observed", Integer),
            ("clock_bound_ns", Integer),
            ("events", Integer),
            ("events_lost", Integer),
            ("warnings", Integer),
        ];
        Table::new("runs", &[&columns])
    }

    /// All of them.
    #[must_use]
    pub fn all() -> [Table; 7] {
        [
            Table::requests(),
            Table::vcpu_waits(),
            Table::ran_instead(),
            Table::timeslices(),
            Table::lock_waits(),
            Table::vcpus(),
            Table::runs(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA_MD: &str = include_str!("schema.md");

    /// The tables of the page, with the columns of each and their types.
    fn documented() -> Vec<(String, Vec<(String, String)>)> {
        let mut tables: Vec<(String, Vec<(String, String)>)> = Vec::new();
        for line in SCHEMA_MD.lines() {
            if let Some(name) = line.strip_prefix("## `") {
                tables.push((name.trim_end_matches('`').to_owned(), Vec::new()));
            }
            if let (Some(row), Some((_, columns))) = (line.strip_prefix("| `"), tables.last_mut()) {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                columns.push((cells[0].trim_end_matches('`').to_owned(), cells[1].to_owned()));
            }
        }
        tables
    }

    #[test]
    fn every_column_is_documented_with_its_type_in_order_and_none_beside() {
        let word = |kind| match kind {
            Kind::Integer => "integer",
            Kind::Real => "real",
            Kind::Flag => "boolean",
            Kind::Text => "text",
            Kind::Time => "time",
        };
        let here = Table::all().map(|table| {
            let columns = table.columns.into_iter();
            let columns = columns.map(|column| (column.name, word(column.kind).to_owned()));
            (table.name.to_owned(), columns.collect::<Vec<_>>())
        });
        assert_eq!(documented(), here);
        assert!(SCHEMA_MD.contains(&format!("# `{}`", crate::table::SCHEMA)));
    }
}
