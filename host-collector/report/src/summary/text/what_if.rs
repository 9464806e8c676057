//! What the percentiles would be without a cause.

use super::NAME_CHARS_MAX;
use super::page::{Page, Table, Tone, shorten};
use crate::summary::causes::{Kind, NAMED_SHARE};
use crate::summary::group::GroupKind;
use crate::summary::host_io::range;
use crate::summary::model::Summary;
use crate::summary::totals::share;
use crate::summary::verdict::label;
use crate::summary::what_if::{Percentiles, WhatIf, Without, WithoutGroup};
use std::cmp::Reverse;
use vslice_core::join::Part;
use vslice_spec::quantity::{count, duration, known_duration};

/// Lines of the table on the first page with its heading and the blank line before it, at 100 columns.
pub(super) const LINES_MAX: usize = 7;

/// The same with one row.
pub(super) const LINES_MIN: usize = 4;

/// Rows of that table.
pub(super) const ROWS_MAX: usize = 2;

/// The requests whose percentiles are told.
pub(super) struct Told<'a> {
    /// What they are called, `vdb flush`; none if they are those of the readers.
    pub(super) name: Option<String>,
    pub(super) what_if: &'a WhatIf,
    pub(super) measured: Percentiles,
    /// The limit below which requests were only counted, if any were.
    pub(super) limit: Option<String>,
}

/// What is thought away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What<'a> {
    Cause(Kind),
    Inactivity,
    Group(&'a WithoutGroup),
}

#[derive(Debug, Clone, Copy)]
struct Row<'a> {
    what: What<'a>,
    without: &'a Without,
}

impl Row<'_> {
    fn name(&self) -> String {
        match self.what {
            What::Cause(kind) => cause_name(kind).to_owned(),
            What::Inactivity => "I/O inactivity".to_owned(),
            What::Group(group) => group_name(group),
        }
    }
}

impl<'a> Told<'a> {
    pub(super) fn of_readers(summary: &'a Summary) -> Option<Told<'a>> {
        let measured = Percentiles::from(&summary.latency_ns);
        let what_if = summary.what_if.as_ref()?;
        Some(Told { name: None, what_if, measured, limit: None })
    }

    /// Everything that is thought away, what would be gained most by first.
    fn rows(&self) -> Vec<Row<'a>> {
        let causes = self.what_if.causes.iter();
        let causes = causes.map(|row| (What::Cause(row.cause), &row.without));
        let inactivity = self.what_if.inactivity.iter();
        let inactivity = inactivity.map(|without| (What::Inactivity, without));
        let groups = self.what_if.antagonist_groups.iter();
        let groups = groups.map(|row| (What::Group(row), &row.without));
        let rows = causes.chain(inactivity).chain(groups);
        let mut rows: Vec<_> = rows.map(|(what, without)| Row { what, without }).collect();
        let left = |row: &Row<'_>| {
            let Percentiles { p50, p99, p999 } = row.without.latency_ns;
            (p99, p999, p50, Reverse(row.without.taken_ns))
        };
        rows.sort_by_key(left);
        rows
    }

    /// Of those that matter, first the cause and the group that most would be gained by.
    fn first_rows(&self) -> Vec<Row<'a>> {
        // What is not known cannot be taken away.
        let is_unknown = |row: &Row<'_>| row.what == What::Cause(Kind::State(Part::Unknown));
        let mut rows = self.rows();
        rows.retain(|row| self.matters(row.without) && !is_unknown(row));
        let cause = rows.iter().position(|row| matches!(row.what, What::Cause(_)));
        let group = rows.iter().position(|row| matches!(row.what, What::Group(_)));
        let first: Vec<usize> = cause.into_iter().chain(group).collect();
        let others = (0..rows.len()).filter(|place| !first.contains(place));
        let order: Vec<usize> = first.iter().copied().chain(others).collect();
        order.into_iter().map(|place| rows[place]).collect()
    }

    /// Whether so much is gained at a percentile that the first page tells it: as much as makes a cause worth naming
    /// in its sentence, too.
    fn matters(&self, without: &Without) -> bool {
        let pairs = self.measured.all().into_iter().zip(without.latency_ns.all());
        pairs.into_iter().any(|(measured, left)| match (measured, left) {
            (Some(measured), Some(left)) => {
                share(measured.saturating_sub(left), measured) >= NAMED_SHARE
            }
            // It has gone where requests were only counted.
            (Some(_), None) => true,
            (None, _) => false,
        })
    }

    fn duration(&self, length_ns: Option<u64>) -> String {
        match (length_ns, &self.limit) {
            (None, Some(limit)) => format!("<{limit}"),
            (length_ns, _) => known_duration(length_ns),
        }
    }

    /// What clock errors and what is unknown could make of a percentile; empty where they make nothing of it.
    fn range(&self, low_ns: Option<u64>, high_ns: Option<u64>) -> String {
        match (low_ns, high_ns) {
            (low_ns, high_ns) if self.duration(low_ns) == self.duration(high_ns) => String::new(),
            (Some(low_ns), Some(high_ns)) => range(low_ns, high_ns),
            (low_ns, high_ns) => format!("{} to {}", self.duration(low_ns), self.duration(high_ns)),
        }
    }

    fn note(&self) -> String {
        let of = self.name.as_ref().map_or_else(String::new, |name| format!("{name}: "));
        let left_out = match self.what_if.unattributed {
            0 => String::new(),
            number => format!("; {} not attributed kept", count(number)),
        };
        format!("{of}bounds on the gain: each request by itself less its time in it{left_out}")
    }
}

/// The few that matter.
pub(super) fn short(page: &mut Page, told: &Told<'_>, rows_max: usize) {
    let rows: Vec<Row<'_>> = told.first_rows().into_iter().take(rows_max).collect();
    if rows.is_empty() {
        return;
    }
    page.heading("What if", &told.note());
    let mut table = Table::new("l rrrl");
    let measured = told.measured.all().into_iter().zip(["p50", "p99", "p99.9"]);
    let measured = measured.map(|(of, name)| format!("{name} of {}", told.duration(of)));
    let head = ["without".to_owned()].into_iter().chain(measured);
    table.row(Tone::Dim, head.chain(["p99 may be".to_owned()]));
    for row in rows {
        let Without { latency_ns, low_ns, high_ns, .. } = *row.without;
        let range = told.range(low_ns.p99, high_ns.p99);
        let left = latency_ns.all().map(|length_ns| told.duration(length_ns));
        table.row(Tone::Plain, [row.name()].into_iter().chain(left).chain([range]));
    }
    page.table(&table);
}

/// All of them.
pub(super) fn full(page: &mut Page, told: &Told<'_>) {
    page.heading("What if", &told.note());
    let mut table = Table::new("l rr rn rn rn");
    let names =
        ["without", "requests", "total", "p50", "may be", "p99", "may be", "p99.9", "may be"];
    table.row(Tone::Dim, names);
    let measured = told.measured.all().map(|length_ns| [told.duration(length_ns), String::new()]);
    let head = ["(as measured)".to_owned(), count(told.what_if.attributed), String::new()];
    table.row(Tone::Plain, head.into_iter().chain(measured.into_iter().flatten()));
    for row in told.rows() {
        let Without { requests, taken_ns, latency_ns, low_ns, high_ns } = *row.without;
        let ranges = low_ns.all().into_iter().zip(high_ns.all());
        let figures = latency_ns
            .all()
            .into_iter()
            .zip(ranges)
            .flat_map(|(left, (low, high))| [told.duration(left), told.range(low, high)]);
        let head = [row.name(), count(requests), duration(taken_ns)];
        table.row(Tone::Plain, head.into_iter().chain(figures));
    }
    page.table(&table);
    if told.what_if.other_groups_ns > 0 {
        let others = duration(told.what_if.other_groups_ns);
        let text = format!("others who ran while requests waited for a pCPU had at most {others}");
        page.paragraph("  ", &text, Tone::Dim);
    }
}

fn cause_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Device => "the host's disk",
        Kind::GuestQueue => "the guest's own queue",
        Kind::PcpuWait => "waiting for a pCPU",
        Kind::OnPcpu => "time on a pCPU",
        Kind::State(part) => label(part),
    }
}

fn group_name(row: &WithoutGroup) -> String {
    let name = shorten(&row.name, NAME_CHARS_MAX);
    match row.kind {
        GroupKind::OwnVm => format!("the rest of {name}"),
        GroupKind::OtherVm
        | GroupKind::ControlGroup
        | GroupKind::Collector
        | GroupKind::OtherVslice
        | GroupKind::KernelThread
        | GroupKind::Unknown => name,
    }
}
