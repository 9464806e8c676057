//! The screen: a function of the view.

use super::view::{HISTORY_MAX, Row, View};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use vslice_core::text::{Letters, columns};
use vslice_report::live::Second;
use vslice_report::live::second::{LatencySecond, ReasonNs, VcpuSecond, VmSecond};

/// A column of the vCPUs' table.
struct Column {
    head: &'static str,
    width: u16,
    is_text: bool,
}

const fn figure(head: &'static str, width: u16) -> Column {
    Column { head, width, is_text: false }
}

const fn text(head: &'static str, width: u16) -> Column {
    Column { head, width, is_text: true }
}

/// The place of the column that gets what is left of a line: who caused the worst wait.
const BY: usize = 8;
/// As wide as a terminal of 80 columns has room for.
const COLUMNS: [Column; 12] = [
    text("VM", 8),
    figure("vCPU", 4),
    figure("run%", 5),
    figure("wait%", 5),
    figure("slp%", 5),
    figure("thr%", 4),
    figure("unk%", 4),
    figure("worst", 7),
    text("by", 8),
    figure("lock", 6),
    figure("stl%", 5),
    figure("poll", 5),
];

/// From this width on the longest latency has room.
const WITH_LONGEST: u16 = 60;

/// Rows of the lower part, at least and at most.
const DETAIL_ROWS: [u16; 2] = [8, 20];

pub(crate) fn draw(frame: &mut Frame<'_>, view: &View) {
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length((frame.area().height / 3).clamp(DETAIL_ROWS[0], DETAIL_ROWS[1])),
        Constraint::Length(2),
    ]);
    let [head, table, detail, foot] = areas.areas(frame.area());
    let paper = &mut Paper { buffer: frame.buffer_mut(), letters: view.letters, view };
    match view.shown() {
        Some(second) => {
            paper.head(head, second);
            paper.table(table, second);
            paper.detail(detail);
        }
        None => paper.line(head, 0, "vslice top: waiting for the first second", Style::new()),
    }
    paper.foot(foot);
}

struct Paper<'a> {
    buffer: &'a mut Buffer,
    letters: Letters,
    view: &'a View,
}

impl Paper<'_> {
    fn line(&mut self, area: Rect, row: u16, text: &str, style: Style) {
        if row < area.height {
            self.put(area.x, area.y + row, area.width, text, style);
        }
    }

    /// Nothing is written beyond `width` columns.
    fn put(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) {
        let text = self.letters.show(text);
        self.buffer.set_stringn(x, y, text, usize::from(width), style);
    }

    fn colour(&self, colour: Color) -> Style {
        if self.view.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn head(&mut self, area: Rect, second: &Second) {
        let vcpus: usize = second.vms.iter().map(|vm| vm.vcpus.len()).sum();
        let when = match (self.view.back(), self.view.is_paused()) {
            (0, false) => "now".to_owned(),
            (back, true) => format!("PAUSED, {back} s ago"),
            (back, false) => format!("{back} s ago"),
        };
        let line = format!(
            "vslice top  {} VMs, {vcpus} vCPUs  second {} ({when})  sorted by {}",
            second.vms.len(),
            second.number,
            self.view.sort.name()
        );
        self.line(area, 0, &line, Style::new().add_modifier(Modifier::BOLD));
        let cpu = second.cost.cpu_ns.map_or("?".to_owned(), |ns| percent(ns, second.length_ns));
        let stolen = second.stolen_ns.map_or("?".to_owned(), milliseconds);
        let line = format!(
            "{} events  own CPU {cpu}%  stolen from this host {stolen}",
            second.cost.events
        );
        self.line(area, 1, &line, Style::new());
        if let Some(losses) = losses(second) {
            let x = u16::try_from(columns(&line)).unwrap_or(u16::MAX).saturating_add(2);
            let style = self.colour(Color::Red).add_modifier(Modifier::BOLD);
            let width = area.width.saturating_sub(x);
            self.put(area.x.saturating_add(x), area.y + 1, width, &losses, style);
        }
    }

    fn table(&mut self, area: Rect, second: &Second) {
        let rest = area.width.saturating_sub(table_width());
        let heads = COLUMNS.map(|column| column.head.to_owned());
        let style = Style::new().add_modifier(Modifier::REVERSED);
        self.cells(area, 0, rest, &heads, |_| style);
        let rows = self.view.rows();
        let chosen = self.view.chosen().map(|(row, ..)| row);
        // The chosen one is always among those that are shown.
        let room = usize::from(area.height.saturating_sub(1));
        let place = rows.iter().position(|row| Some(*row) == chosen).unwrap_or(0);
        let first = (place + 1).saturating_sub(room);
        for (line, row) in (1..).zip(rows.iter().skip(first).take(room)) {
            let Some(vm) = second.vms.get(row.0) else { continue };
            let Some(vcpu) = vm.vcpus.get(row.1) else { continue };
            let is_chosen = Some(*row) == chosen;
            let styles = self.styles(vcpu, is_chosen);
            let cells = cells(vm, vcpu, second.length_ns);
            self.cells(area, line, rest, &cells, |column| styles[column]);
        }
        if rows.len() > first + room {
            let more = format!(" +{} more ", rows.len() - first - room);
            let width = u16::try_from(more.len()).unwrap_or(0).min(area.width);
            let (x, y) = (area.right() - width, area.bottom().saturating_sub(1));
            self.put(x, y, width, &more, Style::new().add_modifier(Modifier::REVERSED));
        }
    }

    fn styles(&self, vcpu: &VcpuSecond, is_chosen: bool) -> [Style; COLUMNS.len()] {
        let base = if is_chosen { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        let mut styles = [base; COLUMNS.len()];
        if is_chosen {
            styles[0] = base.add_modifier(Modifier::REVERSED);
            styles[1] = styles[0];
        }
        let total = vcpu.total_ns().max(1);
        let is_much = |ns: u64| ns.saturating_mul(10) >= total;
        if is_much(vcpu.waiting_ns) {
            styles[3] = base.patch(self.colour(Color::Red));
        }
        if vcpu.throttled_ns > 0 {
            styles[5] = base.patch(self.colour(Color::Red));
        }
        if vcpu.unknown_ns > 0 {
            styles[6] = base.patch(self.colour(Color::Yellow));
        }
        if is_much(vcpu.lock_waits.total_ns) {
            styles[9] = base.patch(self.colour(Color::Magenta));
        }
        styles
    }

    /// A row of the table; `rest` columns are left for who caused the worst wait.
    fn cells(
        &mut self,
        area: Rect,
        row: u16,
        rest: u16,
        cells: &[String; COLUMNS.len()],
        style: impl Fn(usize) -> Style,
    ) {
        if row >= area.height {
            return;
        }
        let mut x = area.x;
        for (place, (column, cell)) in COLUMNS.iter().zip(cells).enumerate() {
            // Names get what is left: of it the VM's a part, as far as it is not too long.
            let vm_extra = (rest / 3).min(24);
            let width = match place {
                0 => column.width + vm_extra,
                BY => column.width + rest - vm_extra,
                _ => column.width,
            };
            let shown = self.letters.show(cell);
            let used = u16::try_from(columns(&shown)).unwrap_or(width).min(width);
            let indent = if column.is_text { 0 } else { width - used };
            let left = area.right().saturating_sub(x);
            if left > indent {
                let room = (width - indent).min(left - indent);
                self.put(x + indent, area.y + row, room, cell, style(place));
            }
            x = x.saturating_add(width + 1);
        }
    }

    /// Of the chosen vCPU and its VM.
    fn detail(&mut self, area: Rect) {
        let Some((row, vm, vcpu)) = self.view.chosen() else { return };
        let head = format!(
            "--- {} {} (thread {}) {}",
            vm.name,
            vcpu.vcpu,
            vcpu.tid,
            "-".repeat(usize::from(area.width))
        );
        self.line(area, 0, &head, Style::new().add_modifier(Modifier::DIM));
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(50), Constraint::Fill(1)]).areas(area);
        let left = Rect { width: left.width.saturating_sub(1), ..left };
        let total_ns = vcpu.total_ns().max(1);
        let asleep = reasons(&vcpu.asleep_by, total_ns);
        let waiting = reasons(&vcpu.waiting_by, total_ns);
        let lines = [
            format!("asleep   {}", or_none(asleep)),
            format!("waiting  {}", or_none(waiting)),
            format!("worst    {}", worst_wait(vcpu)),
            format!("locks    {}", locks(vcpu)),
            format!("halt polling  {}", halt_poll(vm, vcpu)),
        ];
        for (row, line) in (1..).zip(&lines) {
            self.line(left, row, line, Style::new());
        }
        self.history(left, row);
        self.vm(right, vm);
    }

    /// Waiting over the minute, a column a second.
    fn history(&mut self, area: Rect, row: Row) {
        let waited = self
            .view
            .history(row, |vcpu| vcpu.waiting_ns.saturating_mul(100) / vcpu.total_ns().max(1));
        let label = "waited   ";
        let room = usize::from(area.width).saturating_sub(label.len()).min(HISTORY_MAX);
        let shown = waited.len().saturating_sub(room);
        let bars: String = waited[shown..].iter().map(|share| bar(*share, self.letters)).collect();
        let y = area.y + 6;
        if area.height > 6 {
            self.put(area.x, y, area.width, &format!("{label}{}", plain(&bars)), Style::new());
            // Bars are no letters, so they are not shown as those are.
            let x = area.x + u16::try_from(label.len()).unwrap_or(0);
            self.buffer.set_stringn(x, y, &bars, room, self.colour(Color::Cyan));
        }
    }

    fn vm(&mut self, area: Rect, vm: &VmSecond) {
        let mut lines = Vec::new();
        let waited_ns: u64 = vm.vcpus.iter().map(|vcpu| vcpu.waiting_ns).sum();
        lines.push(format!("who ran while {} waited {}", vm.name, milliseconds(waited_ns)));
        // What they leave is for I/O.
        let groups = vm.antagonists.iter().take(usize::from(area.height / 2).saturating_sub(1));
        lines.extend(
            groups.map(|group| format!("  {:>8}  {}", milliseconds(group.ran_ns), group.name)),
        );
        let rest = [("nobody", vm.idle_ns), ("others", vm.others_ns), ("not known", vm.unseen_ns)];
        let rest = rest.into_iter().filter(|(_, ns)| *ns > 0);
        let rest: Vec<String> =
            rest.map(|(name, ns)| format!("{name} {}", milliseconds(ns))).collect();
        if !rest.is_empty() {
            lines.push(format!("  {}", rest.join(", ")));
        }
        let observed = vm.observed.iter().flat_map(|observed| &observed.operations);
        let mut ios: Vec<String> = observed
            .map(|of| format!("guest's {}: {}", of.operation, latency(&of.latency, area.width)))
            .collect();
        ios.extend(vm.host_io.iter().map(|io| {
            let device = io.device.as_deref().unwrap_or("no known disk");
            format!("{device} {}: {}", io.operation, latency(&io.latency, area.width))
        }));
        if ios.is_empty() {
            ios.push("no I/O".to_owned());
        }
        let room = usize::from(area.height).saturating_sub(lines.len() + 1);
        lines.extend(ios.into_iter().take(room));
        for (row, line) in (1..).zip(&lines) {
            self.line(area, row, line, Style::new());
        }
    }

    fn foot(&mut self, area: Rect) {
        let writes = match &self.view.writes {
            Some(dir) => format!("writing {dir} (w ends it)  {}", self.view.status),
            None if self.view.status.is_empty() => "nothing is recorded (w records)".to_owned(),
            None => self.view.status.clone(),
        };
        self.line(area, 0, &writes, Style::new());
        let keys =
            "q quit  w write  space pause  left/right history  up/down pick  v one VM  s sort";
        self.line(area, 1, keys, Style::new().add_modifier(Modifier::DIM));
    }
}

fn table_width() -> u16 {
    COLUMNS.iter().map(|column| column.width + 1).sum::<u16>() - 1
}

fn cells(vm: &VmSecond, vcpu: &VcpuSecond, length_ns: u64) -> [String; COLUMNS.len()] {
    let share = |ns| percent(ns, length_ns);
    let some = |ns: u64| if ns == 0 { "-".to_owned() } else { share(ns) };
    let worst = vcpu.worst_wait.as_ref();
    let worst_ns = worst.map_or("-".to_owned(), |wait| {
        let sign = if wait.goes_on { ">" } else { "" };
        format!("{sign}{}", milliseconds(wait.length_ns))
    });
    let by = worst.and_then(|wait| wait.by.as_ref()).map_or(String::new(), |by| by.name.clone());
    let locks = vcpu.lock_waits.total_ns;
    [
        vm.name.clone(),
        vcpu.vcpu.0.to_string(),
        share(vcpu.running_ns),
        some(vcpu.waiting_ns),
        share(vcpu.asleep_ns),
        some(vcpu.throttled_ns),
        some(vcpu.unknown_ns),
        worst_ns,
        by,
        if locks == 0 { "-".to_owned() } else { milliseconds(locks) },
        vcpu.steal_ns.map_or("?".to_owned(), some),
        vcpu.modes.map_or("?".to_owned(), |modes| some(modes.halt_poll_ns)),
    ]
}

/// In per cent, with as many digits as there is room for.
fn percent(ns: u64, of_ns: u64) -> String {
    let tenths = ns.saturating_mul(1_000) / of_ns.max(1);
    // What is there is not told as nothing.
    let tenths = if ns > 0 { tenths.max(1) } else { tenths };
    if tenths >= 1_000 {
        (tenths / 10).to_string()
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    }
}

fn milliseconds(ns: u64) -> String {
    let us = ns / 1_000;
    match us {
        0..100_000 => format!("{}.{}ms", us / 1_000, us % 1_000 / 100),
        100_000..10_000_000 => format!("{}ms", us / 1_000),
        _ => format!("{}s", us / 1_000_000),
    }
}

fn reasons(rows: &[ReasonNs], of_ns: u64) -> String {
    let one = |row: &ReasonNs| format!("{} {}%", row.reason.label(), percent(row.ns, of_ns));
    rows.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn or_none(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn worst_wait(vcpu: &VcpuSecond) -> String {
    let Some(wait) = &vcpu.worst_wait else { return "-".to_owned() };
    let goes_on = if wait.goes_on { ", goes on" } else { "" };
    let by = wait
        .by
        .as_ref()
        .map_or(String::new(), |by| format!(", {} ran {}", by.name, milliseconds(by.ran_ns)));
    let (length, reason) = (milliseconds(wait.length_ns), wait.reason.label());
    format!("{length}{goes_on}, {reason}, {}{by}", wait.pcpu)
}

fn locks(vcpu: &VcpuSecond) -> String {
    let waits = &vcpu.lock_waits;
    let Some(worst) = &waits.worst else { return "-".to_owned() };
    format!(
        "{} in {}, worst {} of {}, let go by {}",
        waits.count,
        milliseconds(waits.total_ns),
        milliseconds(worst.length_ns),
        worst.reason.label(),
        worst.released_by
    )
}

fn halt_poll(vm: &VmSecond, vcpu: &VcpuSecond) -> String {
    let of_vm = vm.halt_poll_ns.map_or("?".to_owned(), milliseconds);
    match vcpu.modes {
        Some(modes) => format!("{}, all vCPUs {of_vm}", milliseconds(modes.halt_poll_ns)),
        None => format!("all vCPUs {of_vm} (each with --exits)"),
    }
}

/// The longest too, if there is room: a figure that is cut off is a wrong one.
fn latency(latency: &LatencySecond, width: u16) -> String {
    let of = |ns: Option<u64>| ns.map_or("-".to_owned(), milliseconds);
    let percentiles =
        format!("{}, p50 {} p99 {}", latency.count, of(latency.p50_ns), of(latency.p99_ns));
    if width < WITH_LONGEST {
        percentiles
    } else {
        format!("{percentiles} max {}", of(latency.max_ns))
    }
}

fn losses(second: &Second) -> Option<String> {
    let losses = second.losses;
    let all = [
        (losses.lost_events, "events lost"),
        (losses.left_out_events, "left out"),
        (losses.late_events, "late"),
        (losses.dropped_seconds, "seconds dropped"),
    ];
    let some: Vec<String> = all
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!some.is_empty()).then(|| some.join(", "))
}

/// A bar for a share in per cent.
fn bar(share: u64, letters: Letters) -> char {
    let bars: &[char] = match letters {
        Letters::Unicode => &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
        Letters::Ascii => &[' ', '.', ':', '-', '=', '+', '*', '%', '#'],
    };
    let steps = bars.len() as u64 - 1;
    // What is there is not drawn as nothing.
    let step = (share.min(100) * steps).div_ceil(100);
    usize::try_from(step).ok().and_then(|step| bars.get(step)).copied().unwrap_or(' ')
}

/// As many blanks.
fn plain(bars: &str) -> String {
    " ".repeat(bars.chars().count())
}
