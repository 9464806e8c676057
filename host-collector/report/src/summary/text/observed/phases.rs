//! The phases of an operation's requests, and what the vCPUs did in each.

use super::{knows_inactivity, name_of, unphased};
use crate::summary::io::IoClass;
use crate::summary::model::Class;
use crate::summary::observed::model::{Observed, ObservedOperation};
use crate::summary::text::page::{Page, Table, Tone};
use crate::summary::text::tables::share_percent;
use crate::summary::totals::sum;
use crate::summary::verdict::label;
use vslice_core::join::{Part, Phase};
use vslice_spec::quantity::{count, counted, duration, percent};

/// Parts by phases, of the slow ones and of all.
pub(super) fn phases(page: &mut Page, observed: &Observed, row: &ObservedOperation) {
    let classes: Vec<(&str, &Class, &IoClass)> = if row.has_tail() && row.classes.p99.count > 0 {
        vec![("above p99", &row.classes.p99, &row.io.p99), ("all", &row.classes.all, &row.io.all)]
    } else {
        vec![("all", &row.classes.all, &row.io.all)]
    };
    let of_phase = |io: &IoClass, phase| io.phases_ns.get(&phase).copied().unwrap_or(0);
    let is_there = |phase: &Phase| classes.iter().any(|(.., io)| of_phase(io, *phase) > 0);
    let there: Vec<Phase> = Phase::ALL.into_iter().filter(is_there).collect();
    // Requests of no length have none.
    if there.is_empty() {
        return;
    }
    let name = name_of(observed, row);
    let note = format!("{name}: phase x vCPU state, share of the requests' latency");
    page.heading("Phases", &note);
    let group = format!(" {}", "r".repeat(there.len()));
    let mut table = Table::new(&format!("l{}", group.repeat(classes.len())));
    let rest = there.len().saturating_sub(1);
    let names = classes.iter().flat_map(|(name, ..)| [*name].into_iter().chain(vec![""; rest]));
    table.row(Tone::Dim, [""].into_iter().chain(names));
    let phase_names = classes.iter().flat_map(|_| there.iter().copied().map(phase_name));
    table.row(Tone::Dim, [""].into_iter().chain(phase_names));
    let cells = |of: &dyn Fn(&IoClass, Phase) -> u64| {
        let of_class = |(_, class, of_io): &(&str, &Class, &IoClass)| {
            let cell = |phase: &Phase| match of(of_io, *phase) {
                0 => String::new(),
                length_ns => share_percent(length_ns, class.latency_ns),
            };
            there.iter().map(cell).collect::<Vec<_>>()
        };
        classes.iter().flat_map(of_class).collect::<Vec<_>>()
    };
    for part in Part::ALL {
        let cells = cells(&|of_io, phase| of_io.get(phase, part));
        if cells.iter().any(|cell| !cell.is_empty()) {
            table.row(Tone::Plain, [label(part).to_owned()].into_iter().chain(cells));
        }
    }
    let total = cells(&of_phase);
    table.row(Tone::Dim, ["total".to_owned()].into_iter().chain(total));
    page.table(&table);
    known(page, row, &classes);
}

/// The name of a phase on a page.
#[must_use]
pub fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::GuestQueue => "guest queue",
        other => other.name(),
    }
}

fn known(page: &mut Page, row: &ObservedOperation, classes: &[(&str, &Class, &IoClass)]) {
    for (name, class, of_io) in classes {
        let context_ns = sum(Part::ALL.map(|part| of_io.queue_context(part)));
        let mut text = match knows_inactivity(of_io) {
            false => format!("{name}: I/O inactivity unknown"),
            true => format!(
                "{name}: I/O inactivity {} in {}, {} of the latency",
                duration(of_io.inactivity_ns),
                counted(of_io.inactive, "request"),
                percent(of_io.inactivity_share)
            ),
        };
        if context_ns > 0 {
            text.push_str(&format!(
                "; {} of it is guest queue until another vCPU issued the request, where the state is context",
                share_percent(context_ns, class.latency_ns)
            ));
        }
        page.paragraph("  ", &text, Tone::Plain);
    }
    if row.io.all.steered > 0 {
        let text = format!(
            "which vCPU took the interrupt is unknown for {}, as it may have had another complete the request: \
             while these were completed the state is unknown, and there may be more I/O inactivity",
            counted(row.io.all.steered, "request")
        );
        page.paragraph("  ", &text, Tone::Plain);
    }
    if row.io.all.unphased > 0 {
        let text = format!(
            "phases known for {}; unknown for {}: {}",
            counted(row.io.all.known, "request"),
            count(row.io.all.unphased),
            unphased(&row.io.all)
        );
        page.paragraph("  ", &text, Tone::Plain);
    }
}
