//! Who in the guest made the requests of an operation.

use super::{asked_of, knows_inactivity, limit_of, total_of};
use crate::summary::io::IoClass;
use crate::summary::model::{Class, LatencyNs, Summary};
use crate::summary::observed::answer::called;
use crate::summary::observed::model::{ObservedOperation, ObservedProcess, ProcessTotals};
use crate::summary::text::NAME_CHARS_MAX;
use crate::summary::text::page::{Page, Table, Tone, shorten};
use crate::summary::text::tables::share_percent;
use crate::summary::totals::{share, sum};
use vslice_core::join::Phase;
use vslice_spec::quantity::{count, known_duration};

/// A process with less than this share of what its operation's slow requests took has no line.
const LISTED_SHARE_MIN: f64 = 0.01;

/// Who in the guest made the requests of an operation.
pub(super) fn suffered(
    page: &mut Page,
    summary: &Summary,
    row: &ObservedOperation,
    rows_max: usize,
) {
    let (class, of_io) = asked_of(row);
    let which = if row.has_tail() { " above p99" } else { "" };
    let waited = if row.is_sync { "waited for" } else { "made" };
    let note = format!(
        "who in the guest {waited} {}{which} of {} {} ({})",
        row.plural(),
        shorten(&row.vm, NAME_CHARS_MAX),
        shorten(&row.device, NAME_CHARS_MAX),
        total_of(row, class)
    );
    page.heading("Suffered", &note);
    let mut table = process_table();
    let is_listed = |process: &&ObservedProcess| {
        share(of_class(process, row).latency_ns, class.latency_ns) >= LISTED_SHARE_MIN
    };
    let listed: Vec<&ObservedProcess> =
        row.processes.iter().filter(is_listed).take(rows_max).collect();
    let mut rest = class.latency_ns;
    let limit = summary.observed.as_ref().and_then(|observed| limit_of(observed, row));
    for process in &listed {
        let totals = of_class(process, row);
        rest = rest.saturating_sub(totals.latency_ns);
        table.row(Tone::Plain, process_cells(process, totals, (class, of_io), limit.as_deref()));
    }
    if rest > 0 {
        let cells = ["others", "", "", ""].map(str::to_owned);
        let share = share_percent(rest, class.latency_ns);
        table.row(Tone::Dim, cells.into_iter().chain([share]));
    }
    page.table(&table);
}

fn process_table() -> Table {
    let mut table = Table::new("l rrr rrrr");
    let names = ["", "requests", "p99", "max", "share", "guest queue", "disk", "inactivity"];
    table.row(Tone::Dim, names);
    table
}

fn of_class<'a>(process: &'a ObservedProcess, row: &ObservedOperation) -> &'a ProcessTotals {
    if row.has_tail() { &process.classes.p99 } else { &process.classes.all }
}

fn process_cells(
    process: &ObservedProcess,
    totals: &ProcessTotals,
    (class, of_io): (&Class, &IoClass),
    limit: Option<&str>,
) -> Vec<String> {
    let merged = match process.merged {
        0 => String::new(),
        merged => format!(", {} merged", count(merged)),
    };
    let name = shorten(&process.name, NAME_CHARS_MAX);
    let name = format!("{}{merged}", called(&ObservedProcess { name, ..process.clone() }));
    let LatencyNs { p99, max, .. } = process.latency_ns;
    // Which of those that were not sent were this process's is unknown.
    let known = |length_ns: Option<u64>| match (length_ns, limit) {
        (None, Some(_)) => "?".to_owned(),
        (length_ns, _) => known_duration(length_ns),
    };
    let of = |phase| totals.phases_ns.get(&phase).copied().unwrap_or(0);
    let own = [of(Phase::GuestQueue), of(Phase::Device), totals.inactivity_ns];
    let [queue, disk, inactivity] = own.map(|length_ns| match totals.latency_ns {
        0 => String::new(),
        latency_ns => share_percent(length_ns, latency_ns),
    });
    // Requests whose phases are known are for some time in one of these.
    let in_known = sum([Phase::Queued, Phase::Device, Phase::Completed].map(of));
    let is_unknown = in_known == 0 && of(Phase::Unknown) > 0;
    let is_late_unknown = totals.inactivity_ns == 0 && !knows_inactivity(of_io);
    let told = |is_unknown, text| if is_unknown { "unknown".to_owned() } else { text };
    let own = [queue, told(is_unknown, disk), told(is_unknown || is_late_unknown, inactivity)];
    let share = share_percent(totals.latency_ns, class.latency_ns);
    let head = [name, count(process.count), known(p99), known_duration(max), share];
    head.into_iter().chain(own).collect()
}
