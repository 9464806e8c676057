//! What the requests waited for that the answer is about, and who ran meanwhile: the tables of readers' requests and of
//! observed ones alike.

use super::page::{Page, Table, Tone};
use super::tables;
use crate::summary::causes::Cause;
use crate::summary::group::ClassAntagonistGroup;
use crate::summary::model::{Class, Summary};
use crate::summary::totals::{ByClass, share};
use vslice_spec::quantity::duration;

/// Lines of the tables on the first page with their headings and the blank lines before them, at 100 columns.
pub(super) const CAUSES_LINES_MAX: usize = 9;
pub(super) const WHO_LINES_MAX: usize = 8;

/// Causes and antagonists that are listed, and the share that makes them worth a line.
pub(super) const CAUSES_MAX: usize = 5;
pub(super) const ANTAGONISTS_MAX: usize = 4;
const LISTED_SHARE_MIN: f64 = 0.01;

/// The class that the answer is about, as the sentence chooses it: the slow requests, or all of them where
/// none is slower than the others; beside them all.
pub(super) struct Asked<'a> {
    pub(super) name: &'static str,
    /// What the requests are called.
    pub(super) requests: String,
    pub(super) class: &'a Class,
    pub(super) causes: &'a [Cause],
    pub(super) all: &'a Class,
    pub(super) all_causes: &'a [Cause],
}

impl<'a> Asked<'a> {
    pub(super) fn of(
        requests: String,
        classes: &'a ByClass<Class>,
        causes: &'a ByClass<Vec<Cause>>,
    ) -> Asked<'a> {
        let is_tail = classes.p99.count > 0;
        let (name, class, of_class) = if is_tail {
            ("above p99", &classes.p99, &causes.p99)
        } else {
            ("all", &classes.all, &causes.all)
        };
        let (all, all_causes) = (&classes.all, &causes.all);
        Asked { name, requests, class, causes: of_class, all, all_causes }
    }

    pub(super) fn of_readers(summary: &'a Summary) -> Asked<'a> {
        Asked::of("requests".to_owned(), &summary.classes, &summary.causes)
    }
}

pub(super) fn causes(page: &mut Page, asked: &Asked<'_>, rows_max: usize) {
    let Asked { name, requests, class, causes, all, all_causes } = asked;
    if class.latency_ns == 0 {
        return;
    }
    page.heading(
        "Causes",
        &format!("what the {requests} waited for: total, share of their latency"),
    );
    let mut table = Table::new("l rr rr");
    let has_both = class.threshold_ns.is_some();
    let head = ["", *name, "", "all", ""];
    table.row(Tone::Dim, head.into_iter().take(if has_both { 5 } else { 3 }));
    let mut row = |tone, name: String, of_class_ns: u64, of_all_ns: u64| {
        let figures = [(of_class_ns, class.latency_ns), (of_all_ns, all.latency_ns)];
        let figures = figures.into_iter().take(if has_both { 2 } else { 1 });
        let cells = figures.flat_map(|(part_ns, whole_ns)| {
            [duration(part_ns), tables::share_percent(part_ns, whole_ns)]
        });
        table.row(tone, [name].into_iter().chain(cells));
    };
    let same = |cause: &Cause| {
        let key = |cause: &Cause| (cause.phase, cause.part);
        let found = all_causes.iter().find(|other| key(other) == key(cause));
        found.map_or(0, |cause| cause.total_ns)
    };
    let is_listed = |cause: &&Cause| cause.share >= LISTED_SHARE_MIN;
    let listed: Vec<&Cause> = causes.iter().filter(is_listed).take(rows_max).collect();
    let (mut rest_ns, mut rest_of_all_ns) = (class.latency_ns, all.latency_ns);
    for cause in listed {
        let (of_class_ns, of_all_ns) = (cause.total_ns, same(cause));
        rest_ns = rest_ns.saturating_sub(of_class_ns);
        rest_of_all_ns = rest_of_all_ns.saturating_sub(of_all_ns);
        row(Tone::Plain, cause.label(), of_class_ns, of_all_ns);
    }
    if rest_ns > 0 || rest_of_all_ns > 0 {
        row(Tone::Dim, "others".to_owned(), rest_ns, rest_of_all_ns);
    }
    page.table(&table);
}

pub(super) fn who(page: &mut Page, asked: &Asked<'_>, rows_max: usize) {
    let Asked { requests, class, .. } = asked;
    if share(class.wait_ns, class.latency_ns) < LISTED_SHARE_MIN {
        return;
    }
    let which = if class.threshold_ns.is_some() { " above p99" } else { "" };
    let waited = tables::share_percent(class.wait_ns, class.latency_ns);
    let note = format!(
        "while {requests}{which} waited for a pCPU ({}, {waited} of their latency)",
        duration(class.wait_ns)
    );
    page.heading("Who ran", &note);
    let mut table = Table::new("l l rr");
    let is_listed = |row: &&ClassAntagonistGroup| row.group.share >= LISTED_SHARE_MIN;
    let groups = &class.antagonist_groups;
    let rows: Vec<&ClassAntagonistGroup> = groups.iter().filter(is_listed).take(rows_max).collect();
    let all_ns = groups.iter().map(|row| row.group.ran_ns);
    let mut others_ns = all_ns.fold(class.other_groups_ns, u64::saturating_add);
    for row in rows {
        let group = &row.group;
        others_ns = others_ns.saturating_sub(group.ran_ns);
        let name = tables::group_name(group);
        let waiting = format!(
            "on {}, {} waiting",
            row.pcpu,
            tables::vcpu_name(&row.victim_vm, row.victim_vcpu)
        );
        let cells = [
            name,
            waiting,
            duration(group.ran_ns),
            tables::share_percent(group.ran_ns, class.wait_ns),
        ];
        table.row(Tone::Plain, cells);
    }
    for (name, length_ns) in [
        ("others", others_ns),
        ("nobody (pCPU idle)", class.idle_ns),
        ("not seen", class.unseen_ns),
    ] {
        if length_ns > 0 {
            let share = tables::share_percent(length_ns, class.wait_ns);
            let cells = [name.to_owned(), String::new(), duration(length_ns), share];
            table.row(Tone::Dim, cells);
        }
    }
    page.table(&table);
}
