//! The table of exits.

use super::NAME_CHARS_MAX;
use super::page::{Page, Table, Tone, shorten};
use super::tables::vcpu_name;
use crate::summary::model::{ExitKind, Exits, Summary};
use vslice_spec::quantity::{count, counted, duration};

/// Reasons listed for one vCPU and kind; the JSON has more.
const EXITS_SHOWN_MAX: usize = 6;

/// The exits of each vCPU, if any were recorded, and how many records they took.
pub(super) fn exits(page: &mut Page, summary: &Summary) {
    if summary.exits.is_empty() {
        return;
    }
    let note = "time until the guest is entered again; KVM_EXIT_* and restart: from KVM to the VMM";
    page.heading("Exits", note);
    let mut table = Table::new("ll r r r r rrr");
    let columns = ["", "reason", "count", "total", "mean", "max", "in KVM", "in VMM", "off pCPU"];
    table.row(Tone::Dim, columns);
    let mut before = None;
    let of_one = |left: &Exits, right: &Exits| {
        (&left.vm, left.vcpu, left.kind) == (&right.vm, right.vcpu, right.kind)
    };
    for rows in summary.exits.chunk_by(of_one) {
        let (shown, cut) = rows.split_at(rows.len().min(EXITS_SHOWN_MAX));
        for row in shown.iter().chain(&added_up(cut)) {
            let vcpu = (&row.vm, row.vcpu);
            let is_first = before.replace((row.vm.clone(), row.vcpu));
            let is_first = is_first.is_none_or(|(vm, number)| (&vm, number) != vcpu);
            let name = if is_first { vcpu_name(&row.vm, row.vcpu) } else { String::new() };
            table.row(
                Tone::Plain,
                [
                    name,
                    shorten(&row.reason, NAME_CHARS_MAX),
                    count(row.count),
                    duration(row.total_ns),
                    duration(row.total_ns / row.count.max(1)),
                    duration(row.max_ns),
                    duration(row.kvm_ns),
                    duration(row.vmm_ns),
                    duration(row.off_ns),
                ],
            );
        }
    }
    page.table(&table);
    page.paragraph("  ", &cost(summary), Tone::Dim);
}

/// Rows that are not shown, as one.
fn added_up(cut: &[Exits]) -> Option<Exits> {
    let (first, rest) = cut.split_first()?;
    let mut sum = Exits { reason: "others".to_owned(), ..first.clone() };
    for row in rest {
        sum.count = sum.count.saturating_add(row.count);
        sum.total_ns = sum.total_ns.saturating_add(row.total_ns);
        sum.max_ns = sum.max_ns.max(row.max_ns);
        sum.kvm_ns = sum.kvm_ns.saturating_add(row.kvm_ns);
        sum.vmm_ns = sum.vmm_ns.saturating_add(row.vmm_ns);
        sum.off_ns = sum.off_ns.saturating_add(row.off_ns);
    }
    Some(sum)
}

fn cost(summary: &Summary) -> String {
    let of_kind = |kind: ExitKind| -> u64 {
        let rows = summary.exits.iter().filter(|row| row.kind == kind);
        rows.fold(0, |sum, row| sum.saturating_add(row.count))
    };
    let (hardware, userspace) = (of_kind(ExitKind::Hardware), of_kind(ExitKind::Userspace));
    format!(
        "{} from the guest, {} from KVM to the VMM; recording them took {} of the {}, written on the \
         vCPUs' own time",
        counted(hardware, "exit"),
        count(userspace),
        count(summary.facts.cost.kvm_events),
        counted(summary.facts.cost.events, "record")
    )
}
