//! The tables of the page.

use super::NAME_CHARS_MAX;
use super::page::{Page, Table, Tone, shorten};
use crate::summary::group::{AntagonistGroup, ClassAntagonistGroup, GroupKind};
use crate::summary::model::{Antagonist, Class, Members, Relation, StackTotal, Summary, Vcpu};
use crate::summary::reason::OffReason;
use crate::summary::totals::share;
use crate::summary::verdict::label;
use vslice_core::join::Part;
use vslice_core::timeline::Reason;
use vslice_core::units::{PcpuId, VcpuId};
use vslice_spec::quantity::{count, duration, known_duration, percent};

/// Characters of a bar that stands for 100 %.
const BAR_CHARS: usize = 12;

/// Below this share of the waits of every class an antagonist is counted with the others.
const LISTED_SHARE_MIN: f64 = 0.01;

/// Names of a group that are listed with it, and how long each may be.
const GROUP_NAMES_MAX: usize = 3;
const GROUP_NAME_CHARS_MAX: usize = 15;

/// Groups of antagonists listed for one vCPU.
const VCPU_GROUPS_MAX: usize = 4;

/// Rows of the table of lock waits; the JSON has more.
const LOCK_WAITS_SHOWN_MAX: usize = 8;

/// Frames of a stack that are shown.
const STACK_FRAMES_MAX: usize = 6;

/// Stacks shown of a reason that its name does not explain, and of one that it does.
const STACKS_UNEXPLAINED_MAX: usize = 3;
const STACKS_EXPLAINED_MAX: usize = 1;

pub(super) fn vcpu_name(vm: &str, vcpu: VcpuId) -> String {
    format!("{} {vcpu}", shorten(vm, NAME_CHARS_MAX))
}

/// Not of the summary's share, whose four digits would be rounded once more.
pub(super) fn share_percent(part: u64, whole: u64) -> String {
    percent(if whole == 0 { 0.0 } else { part as f64 / whole as f64 })
}

pub(super) fn latency(page: &mut Page, summary: &Summary) {
    let of_which = match summary.facts.selection {
        None => "of all recorded requests",
        Some(_) => "of the requests of this part",
    };
    let note = match summary.requests.unattributable_by.unplaced() {
        0 => of_which.to_owned(),
        unplaced => format!(
            "{of_which} but {} that could not be placed on the host's clock",
            count(unplaced)
        ),
    };
    page.heading("Latency", &note);
    percentiles(page, summary);
}

pub(super) fn percentiles(page: &mut Page, summary: &Summary) {
    let latency_ns = &summary.latency_ns;
    let columns = [
        ("min", latency_ns.min),
        ("mean", latency_ns.mean),
        ("p50", latency_ns.p50),
        ("p90", latency_ns.p90),
        ("p99", latency_ns.p99),
        ("p99.9", latency_ns.p999),
        ("p99.99", latency_ns.p9999),
        ("max", latency_ns.max),
    ];
    let mut table = Table::new(" r r r r r r r r");
    table.row(Tone::Dim, columns.map(|(name, _)| name));
    table.row(Tone::Plain, columns.map(|(_, length_ns)| known_duration(length_ns)));
    page.table(&table);
}

pub(super) fn parts(page: &mut Page, summary: &Summary) {
    let errors = &summary.clock_error_ns;
    let classes = [
        (&summary.classes.all, &summary.parts.all, &errors.all),
        (&summary.classes.p99, &summary.parts.p99, &errors.p99),
        (&summary.classes.p999, &summary.parts.p999, &errors.p999),
    ];
    let has_errors = errors.all.total_ns() > 0;
    let note = if has_errors {
        "total, share of the requests' latency, uncertainty from clock error"
    } else {
        "total, share of the requests' latency"
    };
    page.heading("Where the time went", note);
    let mut table = Table::new(if has_errors { "l rrlb rrlb rrlb" } else { "l rrb rrb rrb" });
    let mut row = |tone, name: &str, cells: [[String; 4]; 3]| {
        let cells = cells.into_iter().flat_map(|[total, share, error, bar]| {
            let error = has_errors.then_some(error);
            [total, share].into_iter().chain(error).chain([bar])
        });
        table.row(tone, [name.to_owned()].into_iter().chain(cells));
    };
    let only = |text: String| [text, String::new(), String::new(), String::new()];
    let names = ["all", "above p99", "above p99.9"];
    row(Tone::Dim, "", names.map(|name| only(name.to_owned())));
    let took_time = |part: &Part| {
        classes.iter().any(|(_, parts, errors)| parts.get(*part) > 0 || errors.get(*part) > 0)
    };
    // The one that says how far the others may be believed is always there.
    for part in Part::ALL.into_iter().filter(|part| took_time(part) || *part == Part::Unknown) {
        row(
            Tone::Plain,
            label(part),
            classes.map(|(class, parts, errors)| {
                let part_ns = parts.get(part);
                let share = share(part_ns, class.latency_ns);
                let error = plus_minus(errors.get(part), class.latency_ns);
                [duration(part_ns), share_percent(part_ns, class.latency_ns), error, bar(share)]
            }),
        );
    }
    row(Tone::Dim, "latency", classes.map(|(class, ..)| only(duration(class.latency_ns))));
    row(Tone::Dim, "slower than", classes.map(|(class, ..)| only(threshold(class))));
    row(Tone::Dim, "requests", classes.map(|(class, ..)| only(count(class.count))));
    if has_errors {
        let unsure = classes.map(|(class, ..)| only(count(class.clock_uncertain)));
        row(Tone::Dim, "clock uncertain", unsure);
    }
    if summary.requests.unattributable > 0 {
        let left_out = classes.map(|(class, ..)| only(count(class.unattributable)));
        row(Tone::Dim, "not attributed", left_out);
    }
    page.table(&table);
}

/// So many percent more or less, rounded up to a tenth; nothing if it is nothing.
fn plus_minus(error_ns: u64, whole_ns: u64) -> String {
    if error_ns == 0 || whole_ns == 0 {
        return String::new();
    }
    let tenths = (error_ns as f64 * 1000.0 / whole_ns as f64).ceil();
    format!("+-{:.1}", tenths / 10.0)
}

fn threshold(class: &Class) -> String {
    known_duration(class.threshold_ns)
}

/// A share in [0, 1] as a bar; what is there but too little for a `#` is a dot.
fn bar(share: f64) -> String {
    let filled = (1..=BAR_CHARS).filter(|step| share * BAR_CHARS as f64 >= *step as f64 - 0.5);
    match filled.count() {
        0 if share > 0.0 => ".".to_owned(),
        filled => "#".repeat(filled),
    }
}

pub(super) fn class_antagonists(page: &mut Page, summary: &Summary) {
    let classes = [&summary.classes.all, &summary.classes.p99, &summary.classes.p999];
    if classes.iter().all(|class| class.wait_ns == 0) {
        return;
    }
    // Every class has the same rows, each in an order of its own.
    let [all, p99, p999] = classes;
    let rows = all
        .antagonist_groups
        .iter()
        .filter_map(|row| Some([row, same(p99, row)?, same(p999, row)?]));
    let rows: Vec<[&ClassAntagonistGroup; 3]> = rows.collect();
    let is_listed = |rows: &&[&ClassAntagonistGroup; 3]| {
        rows.iter().any(|row| row.group.share >= LISTED_SHARE_MIN)
    };
    page.heading("Who ran while requests waited for a pCPU", "total, share of the waits");
    let mut table = Table::new("l rr rr rr");
    table.row(Tone::Dim, ["", "all", "", "above p99", "", "above p99.9", ""]);
    let cells = |name: String, of_classes_ns: [u64; 3]| {
        let figures = classes.into_iter().zip(of_classes_ns).flat_map(|(class, length_ns)| {
            [duration(length_ns), share_percent(length_ns, class.wait_ns)]
        });
        [name].into_iter().chain(figures).collect::<Vec<_>>()
    };
    let mut rest_ns = classes.map(|class| {
        let ran_ns = class.antagonist_groups.iter().map(|row| row.group.ran_ns);
        ran_ns.fold(class.other_groups_ns, u64::saturating_add)
    });
    for row in rows.iter().filter(is_listed) {
        let of_classes_ns = row.map(|row| row.group.ran_ns);
        for (rest_ns, ran_ns) in rest_ns.iter_mut().zip(of_classes_ns) {
            *rest_ns = rest_ns.saturating_sub(ran_ns);
        }
        let [row, ..] = row;
        let name = format!(
            "{} on {}, {} waiting",
            group_name(&row.group),
            row.pcpu,
            vcpu_name(&row.victim_vm, row.victim_vcpu)
        );
        table.row(Tone::Plain, cells(name, of_classes_ns));
    }
    for (name, of_classes_ns) in [
        ("others", rest_ns),
        ("nobody (pCPU idle)", classes.map(|class| class.idle_ns)),
        ("not seen", classes.map(|class| class.unseen_ns)),
    ] {
        if of_classes_ns.iter().any(|length_ns| *length_ns > 0) {
            table.row(Tone::Dim, cells(name.to_owned(), of_classes_ns));
        }
    }
    page.table(&table);
}

fn same<'a>(class: &'a Class, row: &ClassAntagonistGroup) -> Option<&'a ClassAntagonistGroup> {
    class.antagonist_groups.iter().find(|other| met(other) == met(row))
}

/// What tells a row of [`class_antagonists`] from another.
fn met(row: &ClassAntagonistGroup) -> (&str, VcpuId, PcpuId, GroupKind, &str, Option<&str>) {
    let group = &row.group;
    let path = group.path.as_deref();
    (&row.victim_vm, row.victim_vcpu, row.pcpu, group.kind, &group.name, path)
}

/// What a group is called, with the names in it and how many they are: `build.service: cc1, make (2 processes)`.
/// A VM of which one thread ran is called by that; a name alone by itself.
pub(super) fn group_name(group: &AntagonistGroup) -> String {
    let names: Vec<&str> = group.members.iter().map(|member| member.name.as_str()).collect();
    let own = format!("{} ", group.name);
    let listed: Vec<String> = names
        .iter()
        .take(GROUP_NAMES_MAX)
        .map(|name| shorten(name.strip_prefix(&own).unwrap_or(name), GROUP_NAME_CHARS_MAX))
        .collect();
    let is_vm = matches!(group.kind, GroupKind::OwnVm | GroupKind::OtherVm);
    let is_alone = matches!(group.kind, GroupKind::KernelThread | GroupKind::Unknown)
        || names.is_empty()
        || is_vm && group.only().is_some();
    let name = match names.first() {
        Some(first) if is_alone => shorten(first, NAME_CHARS_MAX),
        _ if is_alone => shorten(&group.name, NAME_CHARS_MAX),
        _ => {
            let more = if group.names > listed.len() as u64 { ", .." } else { "" };
            format!("{}: {}{more}", shorten(&group.name, NAME_CHARS_MAX), listed.join(", "))
        }
    };
    format!("{name}{}", counted_members(group.threads, group.processes))
}

/// " (1,204 threads of 1,203 processes)", if they are several.
pub(super) fn members(row: &Antagonist) -> String {
    counted_members(row.threads, row.processes)
}

fn counted_members(threads: Members, processes: Members) -> String {
    let number = |members: Members| {
        let at_least = if members.is_exact { "" } else { "at least " };
        format!("{at_least}{}", count(members.count))
    };
    if threads.count <= 1 && threads.is_exact {
        return String::new();
    }
    if threads == processes {
        return format!(" ({} processes)", number(processes));
    }
    if processes.count == 0 || processes.count == 1 && processes.is_exact {
        return format!(" ({} threads)", number(threads));
    }
    if processes.count == 1 {
        return format!(" ({} threads of one process or more)", number(threads));
    }
    format!(" ({} threads of {} processes)", number(threads), number(processes))
}

pub(super) fn timeslices(page: &mut Page, summary: &Summary) {
    if summary.vcpus.is_empty() {
        return;
    }
    page.heading("Timeslices", "stays on a pCPU whose start and end were both seen");
    let mut table = Table::new("l r r r r r r r r r r");
    table.row(
        Tone::Dim,
        ["", "tid", "on pCPU", "count", "mean", "CV", "p10", "p50", "p90", "p99", "max"],
    );
    for vcpu in &summary.vcpus {
        let slices = &vcpu.timeslices;
        let mut cells = vec![
            vcpu_name(&vcpu.vm, vcpu.vcpu),
            vcpu.tid.to_string(),
            share_percent(vcpu.on_pcpu_ns, vcpu.observed_ns),
            count(slices.count),
        ];
        if slices.count > 0 {
            cells.push(known_duration(slices.mean_ns));
            cells.push(slices.cv.map_or_else(|| "-".to_owned(), |cv| format!("{cv:.2}")));
            let lengths =
                [slices.p10_ns, slices.p50_ns, slices.p90_ns, slices.p99_ns, slices.max_ns];
            cells.extend(lengths.map(known_duration));
        }
        table.row(Tone::Plain, cells);
    }
    page.table(&table);
}

pub(super) fn off_cpu(page: &mut Page, summary: &Summary) {
    let was_off = |vcpu: &Vcpu| vcpu.off_cpu.iter().any(|row| row.count > 0);
    if !summary.vcpus.iter().any(was_off) {
        return;
    }
    page.heading("Off-CPU", "share of the vCPU's time");
    let mut table = Table::new("ll r r r r r");
    table.row(Tone::Dim, ["", "reason", "count", "total", "share", "mean", "max"]);
    for vcpu in &summary.vcpus {
        let mut name = vcpu_name(&vcpu.vm, vcpu.vcpu);
        for row in vcpu.off_cpu.iter().filter(|row| row.count > 0) {
            table.row(
                Tone::Plain,
                [
                    std::mem::take(&mut name),
                    row.reason.label().to_owned(),
                    count(row.count),
                    duration(row.total_ns),
                    share_percent(row.total_ns, vcpu.observed_ns),
                    duration(row.total_ns / row.count),
                    known_duration(row.max_ns),
                ],
            );
        }
    }
    page.table(&table);
}

pub(super) fn lock_waits(page: &mut Page, summary: &Summary) {
    if summary.lock_waits.is_empty() {
        return;
    }
    page.heading(
        "Lock waits",
        "from going to sleep until woken by the thread that released the lock",
    );
    let mut table = Table::new("lll r r r r l");
    let columns = ["", "lock", "released by", "count", "total", "mean", "max", "for"];
    table.row(Tone::Dim, columns);
    for row in summary.lock_waits.iter().take(LOCK_WAITS_SHOWN_MAX) {
        let device = row.device.as_deref().unwrap_or("");
        table.row(
            Tone::Plain,
            [
                vcpu_name(&row.vm, row.vcpu),
                OffReason::Left(row.reason).label().to_owned(),
                shorten(&row.released_by.name, NAME_CHARS_MAX),
                count(row.count),
                duration(row.total_ns),
                duration(row.total_ns / row.count.max(1)),
                duration(row.max_ns),
                shorten(device, NAME_CHARS_MAX),
            ],
        );
    }
    page.table(&table);
}

/// What waits for QEMU's big lock rest on.
pub(super) fn big_locks(page: &mut Page, summary: &Summary) {
    if summary.facts.big_locks.is_empty() || summary.lock_waits.is_empty() {
        return;
    }
    page.heading("Big lock", "how QEMU's is known, one line a VM");
    for lock in &summary.facts.big_locks {
        page.paragraph("  ", &lock.sentence(), Tone::Plain);
    }
}

pub(super) fn antagonists(page: &mut Page, summary: &Summary) {
    if summary.vcpus.iter().all(|vcpu| vcpu.wait_ns == 0) {
        return;
    }
    page.heading("Antagonists", "who ran while the vCPU waited for a pCPU; share of its waits");
    let mut table = Table::new("ll l r r r");
    table.row(Tone::Dim, ["", "who", "", "tid", "ran", "share"]);
    for vcpu in summary.vcpus.iter().filter(|vcpu| vcpu.wait_ns > 0) {
        let mut name = vcpu_name(&vcpu.vm, vcpu.vcpu);
        let (listed, cut) =
            vcpu.antagonist_groups.split_at(vcpu.antagonist_groups.len().min(VCPU_GROUPS_MAX));
        let mut row = |tone, [who, what, tid, ran, share]: [String; 5]| {
            table.row(tone, [std::mem::take(&mut name), who, what, tid, ran, share]);
        };
        for group in listed {
            let of_group = vcpu.antagonists.iter().filter(|thread| is_member(thread, group));
            let threads: Vec<&Antagonist> = of_group.take(GROUP_NAMES_MAX).collect();
            let kind = group_kind(group).to_owned();
            let (ran, share) = (duration(group.ran_ns), share_percent(group.ran_ns, vcpu.wait_ns));
            // One name alone is the group's only row.
            let only = threads.first().filter(|_| group.names == 1);
            let tid = only.map_or_else(String::new, |thread| thread.thread.tid.to_string());
            row(Tone::Plain, [group_name(group), kind, tid, ran, share]);
            for thread in threads.into_iter().filter(|_| group.names > 1) {
                let name = shorten(&thread.thread.name, NAME_CHARS_MAX);
                let name = format!("  {name}{}", members(thread));
                let tid = thread.thread.tid.to_string();
                let (ran, share) =
                    (duration(thread.ran_ns), share_percent(thread.ran_ns, vcpu.wait_ns));
                row(Tone::Dim, [name, relation(thread.thread.kind).to_owned(), tid, ran, share]);
            }
        }
        let cut = cut.iter().map(|group| group.ran_ns);
        let others_ns = cut.fold(vcpu.other_groups_ns, u64::saturating_add);
        for (who, length_ns) in [
            ("others", others_ns),
            ("nobody (pCPU idle)", vcpu.idle_ns),
            ("not seen", vcpu.unseen_ns),
        ] {
            if length_ns > 0 {
                let (ran, share) = (duration(length_ns), share_percent(length_ns, vcpu.wait_ns));
                row(Tone::Dim, [who.to_owned(), String::new(), String::new(), ran, share]);
            }
        }
    }
    page.table(&table);
    let groups = summary.vcpus.iter().flat_map(|vcpu| &vcpu.antagonist_groups);
    let reason = &summary.facts.control_groups.reason;
    if groups.into_iter().any(|group| group.kind == GroupKind::Unknown) && !reason.is_empty() {
        page.paragraph("  ", &format!("control groups unknown: {reason}"), Tone::Dim);
    }
}

/// Whether a row of threads is of a group that has several.
pub(super) fn is_member(thread: &Antagonist, group: &AntagonistGroup) -> bool {
    match group.kind {
        GroupKind::KernelThread => {
            thread.thread.kind == Relation::KernelThread && thread.thread.name == group.name
        }
        GroupKind::Unknown => thread.group.is_none() && thread.thread.name == group.name,
        // Two control groups may be called alike, and a VM as a control group.
        _ => thread.group.as_ref() == Some(&group.name) && thread.group_path == group.path,
    }
}

fn group_kind(group: &AntagonistGroup) -> &'static str {
    match group.kind {
        GroupKind::OwnVm => "own VM",
        GroupKind::OtherVm => "other VM",
        GroupKind::ControlGroup => "control group",
        GroupKind::Collector => "vslice",
        GroupKind::OtherVslice => "another vslice",
        GroupKind::KernelThread => "kernel thread",
        GroupKind::Unknown => {
            group.members.first().map_or("unknown", |member| relation(member.kind))
        }
    }
}

fn relation(kind: Relation) -> &'static str {
    match kind {
        Relation::Idle => "nobody",
        Relation::OtherVmVcpu | Relation::OtherVmThread => "other VM",
        Relation::OwnVmVcpu | Relation::OwnVmThread => "own VM",
        Relation::Collector => "vslice",
        Relation::OtherVslice => "another vslice",
        Relation::KernelThread => "kernel thread",
        Relation::HostTask => "host task",
        Relation::Unknown => "unknown",
    }
}

pub(super) fn stacks(page: &mut Page, summary: &Summary) {
    let mut shown = Vec::new();
    for reason in OffReason::all() {
        let is_unexplained = matches!(reason, OffReason::Left(Reason::Unknown | Reason::PollSleep));
        let stacks_max = if is_unexplained { STACKS_UNEXPLAINED_MAX } else { STACKS_EXPLAINED_MAX };
        let is_told = |stack: &&StackTotal| stack.reason == reason;
        // Only where a stack could have explained something is it worth a line that there is none.
        let has_frames = |stack: &&StackTotal| {
            is_unexplained || stack.frames.first().is_some_and(|frame| !frame.starts_with('('))
        };
        let of_reason = summary.stacks.iter().filter(is_told).filter(has_frames);
        shown.extend(of_reason.take(stacks_max));
    }
    if shown.is_empty() {
        return;
    }
    page.heading("Kernel stacks", "where vCPU threads left the pCPU, innermost frame first");
    for stack in shown {
        let frames: Vec<String> = stack
            .frames
            .iter()
            .take(STACK_FRAMES_MAX)
            .map(|frame| shorten(frame, NAME_CHARS_MAX))
            .collect();
        let lead = format!(
            "  {:<15}  {:>9}  {:>8}  ",
            stack.reason.label(),
            count(stack.count),
            duration(stack.total_ns)
        );
        page.paragraph(&lead, &frames.join(" < "), Tone::Plain);
    }
}
