//! Off-CPU time by stack, in the folded form that flame graph tools read: one line for each stack, frames from the
//! outermost to the innermost with `;` between them, a space, and how many nanoseconds it took.
//!
//! ```text
//! db1;vCPU0;timeslice over;entry_SYSCALL_64;...;schedule;ran instead: web1 vCPU2 41230877
//! db1;vCPU0;BQL;...;futex_wait_queue;schedule;released by: db1 main loop 1810442
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use vslice_core::host_event::StackId;
use vslice_core::task::{Task, ThreadKind};
use vslice_core::text::harmless;
use vslice_core::timeline::{Antagonist, Covers, Span, Tasks, ThreadState, UnknownCause, Who};
use vslice_core::units::Tid;
use vslice_report::analyse::observer::{MeasuredWindow, Observer, Run, RunEnd};
use vslice_report::summary::OffReason;
use vslice_report::who::VmNames;

/// What is told apart at most. What comes after that counts for its thread and reason, as [`FURTHER`].
const ROOM: Room = Room { rows: 1 << 15, names: 1 << 13 };

/// Letters of one frame; a symbol of the kernel has at most 511 (linux 6.1: include/linux/kallsyms.h, `KSYM_NAME_LEN`),
/// nearly all have less than this.
const FRAME_CHARS_MAX: usize = 128;

/// What stands for stacks that are not told apart.
const FURTHER: &str = "(further stacks)";

/// Off-CPU time of the VMs' threads by reason, kernel stack, and who ran instead or released the lock.
///
/// A span counts whole if a part of it is in the measured window, as in the summary: the lines of a vCPU and a reason
/// add up to what the summary says of them.
#[derive(Debug)]
pub struct OffCpuStacks {
    room: Room,
    window: MeasuredWindow,
    /// The VMs of the run, then the others of its host.
    vms: VmNames,
    /// What each thread counts as; those of one role are one.
    places: HashMap<Tid, u32>,
    /// The first two frames of each place.
    heads: Vec<String>,
    names: Names,
    rows: BTreeMap<Row, u64>,
    /// Kernel symbols from the outermost to the innermost.
    stacks: HashMap<StackId, String>,
}

#[derive(Debug, Clone, Copy)]
struct Room {
    rows: usize,
    names: usize,
}

/// What has a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    place: u32,
    reason: OffReason,
    stack: Stack,
    leaf: Leaf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stack {
    /// The thread was not switched out there.
    None,
    NotRecorded,
    Recorded(StackId),
    Further,
}

/// What caused it, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leaf {
    None,
    Ran(u32),
    /// Those whose names had no room.
    RanFurther,
    RanOthers,
    Idle,
    /// Who ran then was not recorded.
    RanUnseen,
    /// Known by its number until the run has come to its end.
    Woken(Tid),
    Released(u32),
    ReleasedUnseen,
    Unknown(UnknownCause),
}

/// The names of those that ran instead, each once.
#[derive(Debug, Default)]
struct Names {
    places: HashMap<(ThreadKind, bool), HashMap<String, u32>>,
    texts: Vec<String>,
}

impl Default for OffCpuStacks {
    fn default() -> OffCpuStacks {
        OffCpuStacks::with_room(ROOM)
    }
}

impl OffCpuStacks {
    fn with_room(room: Room) -> OffCpuStacks {
        OffCpuStacks {
            room,
            window: MeasuredWindow { start: Default::default(), end: Default::default() },
            vms: VmNames::default(),
            places: HashMap::new(),
            heads: Vec::new(),
            names: Names::default(),
            rows: BTreeMap::new(),
            stacks: HashMap::new(),
        }
    }

    /// Writes all lines. There are none of a run that was sampled, of which no thread's states are known.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, mut file: impl Write) -> std::io::Result<()> {
        for (row, off_ns) in &self.rows {
            writeln!(file, "{} {off_ns}", self.frames(row))?;
        }
        file.flush()
    }

    /// The lines as stacks and nanoseconds, the longest first; at most so many, and together at most so many bytes of
    /// stacks. What is left of each thread is one row more, or of all threads if there is no room for these; so the
    /// nanoseconds add up to the same, however few rows are asked for.
    #[must_use]
    pub fn rows(&self, count_max: usize, bytes_max: usize) -> Vec<(String, u64)> {
        let mut rows: Vec<(&Row, u64)> = self.rows.iter().map(|(row, ns)| (row, *ns)).collect();
        rows.sort_by_key(|(row, off_ns)| (std::cmp::Reverse(*off_ns), **row));
        let left_over = |head: &str| format!("{head};{FURTHER}");
        let reserved_bytes: usize = self.heads.iter().map(|head| left_over(head).len()).sum();
        let count = count_max.saturating_sub(self.heads.len().max(1));
        let mut bytes_left = bytes_max.saturating_sub(reserved_bytes.max(FURTHER.len()));
        let mut told = Vec::new();
        let mut rest = vec![0_u64; self.heads.len()];
        let mut is_full = false;
        for (row, off_ns) in rows {
            let stack = self.frames(row);
            is_full |= told.len() >= count || stack.len() > bytes_left;
            if is_full {
                let rest_ns = &mut rest[row.place as usize];
                *rest_ns = rest_ns.saturating_add(off_ns);
            } else {
                bytes_left -= stack.len();
                told.push((stack, off_ns));
            }
        }
        let rest = self.heads.iter().zip(rest).filter(|(_, rest_ns)| *rest_ns > 0);
        let rest: Vec<(String, u64)> = rest.map(|(head, ns)| (left_over(head), ns)).collect();
        if told.len() + rest.len() <= count_max && reserved_bytes <= bytes_max {
            told.extend(rest);
        } else {
            let rest_ns = rest.iter().fold(0_u64, |sum_ns, (_, ns)| sum_ns.saturating_add(*ns));
            told.push((FURTHER.to_owned(), rest_ns));
        }
        told
    }

    fn add(&mut self, row: Row, off_ns: u64) {
        if off_ns == 0 {
            return;
        }
        let mut row = row;
        if self.rows.len() >= self.room.rows && !self.rows.contains_key(&row) {
            // Of these there are only as many as threads and reasons.
            row = Row { stack: Stack::Further, leaf: Leaf::None, ..row };
        }
        let sum_ns = self.rows.entry(row).or_default();
        *sum_ns = sum_ns.saturating_add(off_ns);
    }

    /// Divides a wait for a pCPU among those that ran there.
    fn wait(&mut self, row: Row, span: &Span) {
        let mut left_ns = span.length_ns();
        for antagonist in &span.antagonists {
            let ran_ns = antagonist.ran_ns.min(left_ns);
            left_ns -= ran_ns;
            let leaf = self.leaf_of(antagonist);
            self.add(Row { leaf, ..row }, ran_ns);
        }
        self.add(Row { leaf: Leaf::RanUnseen, ..row }, left_ns);
    }

    fn leaf_of(&mut self, antagonist: &Antagonist) -> Leaf {
        match &antagonist.who {
            Who::Idle => Leaf::Idle,
            Who::Others => Leaf::RanOthers,
            Who::Thread(task) => {
                let is_group = antagonist.covers == Covers::Group;
                let place = self.names.place(task, is_group, self.room.names, || {
                    let name = self.vms.task(task);
                    if is_group { format!("{name} and others of its group") } else { name }
                });
                place.map_or(Leaf::RanFurther, Leaf::Ran)
            }
        }
    }

    /// Names whoever released a lock, as they are called last.
    fn name_wakers(&mut self, tasks: &Tasks) {
        let latest: HashMap<Tid, &Task> = tasks.all().map(|(tid, task)| (tid, &**task)).collect();
        for (row, off_ns) in std::mem::take(&mut self.rows) {
            let leaf = match row.leaf {
                Leaf::Woken(tid) => {
                    let unknown = Task::unknown(tid);
                    let task = latest.get(&tid).copied().unwrap_or(&unknown);
                    let name = || self.vms.task(task);
                    // Each has a row already: there are no more of these names than rows.
                    let place = self.names.place(task, false, usize::MAX, name);
                    place.map_or(Leaf::ReleasedUnseen, Leaf::Released)
                }
                leaf => leaf,
            };
            let sum_ns = self.rows.entry(Row { leaf, ..row }).or_default();
            *sum_ns = sum_ns.saturating_add(off_ns);
        }
    }

    fn frames(&self, row: &Row) -> String {
        let head = self.heads.get(row.place as usize).map_or("", String::as_str);
        let mut stack = format!("{head};{}", frame(row.reason.label()));
        let mut push = |text: &str| {
            stack.push(';');
            stack.push_str(text);
        };
        match row.stack {
            Stack::None => {}
            Stack::NotRecorded => push("(no stack recorded)"),
            Stack::Further => push(FURTHER),
            Stack::Recorded(id) => match self.stacks.get(&id) {
                Some(frames) => push(frames),
                None => push(&format!("(stack {} has no symbols)", id.0)),
            },
        }
        match row.leaf {
            Leaf::None => {}
            Leaf::Ran(name) => push(&self.caused("ran instead", name)),
            Leaf::RanFurther => push("ran instead: (further names)"),
            Leaf::RanOthers => push("ran instead: others"),
            Leaf::Idle => push("ran instead: nobody"),
            Leaf::RanUnseen => push("who ran instead is not recorded"),
            Leaf::Released(name) => push(&self.caused("released by", name)),
            Leaf::Woken(tid) => push(&format!("released by: tid {tid}")),
            Leaf::ReleasedUnseen => push("who released it is not recorded"),
            Leaf::Unknown(cause) => push(match cause {
                UnknownCause::NotYetSeen => "no event tells of it",
                UnknownCause::Lost => "records were lost",
                UnknownCause::Ended => "the thread has ended",
                UnknownCause::UnknownThread => "the thread is not known",
            }),
        }
        stack
    }

    fn caused(&self, how: &str, name: u32) -> String {
        let name = self.names.texts.get(name as usize).map_or("", String::as_str);
        frame(&format!("{how}: {name}"))
    }
}

impl Observer for OffCpuStacks {
    fn start(&mut self, run: &Run<'_>) {
        self.window = run.window;
        self.vms = VmNames::of(run.manifest);
        let mut place_of: HashMap<String, u32> = HashMap::new();
        for vm in &run.manifest.vms {
            for thread in &vm.threads {
                let role = thread.vcpu.map_or_else(|| thread.role.to_string(), |of| of.to_string());
                let head = format!("{};{}", frame(&vm.name), frame(&role));
                let next = u32::try_from(self.heads.len()).unwrap_or(u32::MAX);
                let place = *place_of.entry(head.clone()).or_insert(next);
                if place == next {
                    self.heads.push(head);
                }
                self.places.insert(thread.tid, place);
            }
        }
        let outermost_first = |frames: &[String]| {
            let frames: Vec<String> = frames.iter().rev().map(|name| frame(name)).collect();
            frames.join(";")
        };
        let stacks = run.stacks.iter().filter(|stack| !stack.frames.is_empty());
        self.stacks =
            stacks.map(|stack| (StackId(stack.id), outermost_first(&stack.frames))).collect();
    }

    fn span(&mut self, span: &Span) {
        let Some(place) = self.places.get(&span.tid).copied() else { return };
        let Some(reason) = OffReason::of(&span.state) else { return };
        if !self.window.touches(span.start, span.end) {
            return;
        }
        let recorded = |stack: Option<StackId>| stack.map_or(Stack::NotRecorded, Stack::Recorded);
        let (stack, leaf) = match span.state {
            ThreadState::Running { .. } => return,
            ThreadState::Blocked(sleep) => {
                // Only a lock is released by whoever wakes: other wakings are often an interrupt's, which is told as
                // the thread that it interrupted.
                let released = || sleep.waker.map_or(Leaf::ReleasedUnseen, Leaf::Woken);
                let leaf = if sleep.reason.is_lock() { released() } else { Leaf::None };
                (recorded(sleep.stack), leaf)
            }
            ThreadState::PreemptWait { stack, .. } => (recorded(stack), Leaf::None),
            ThreadState::WakeupDelay { .. } => (Stack::None, Leaf::None),
            ThreadState::Unknown { cause } => (Stack::None, Leaf::Unknown(cause)),
        };
        let row = Row { place, reason, stack, leaf };
        if span.state.waits_for().is_some() {
            self.wait(row, span);
        } else {
            self.add(row, span.length_ns());
        }
    }

    fn end(&mut self, _: &Run<'_>, end: &RunEnd<'_>) {
        self.name_wakers(end.tasks);
    }
}

impl Names {
    /// The place of a thread's name; `None` if it is new and there is no room.
    fn place(
        &mut self,
        task: &Task,
        is_group: bool,
        count_max: usize,
        name: impl FnOnce() -> String,
    ) -> Option<u32> {
        let key = (task.kind, is_group);
        if let Some(place) = self.places.get(&key).and_then(|of| of.get(&task.name)) {
            return Some(*place);
        }
        let place =
            u32::try_from(self.texts.len()).ok().filter(|_| self.texts.len() < count_max)?;
        self.places.entry(key).or_default().insert(task.name.clone(), place);
        self.texts.push(name());
        Some(place)
    }
}

/// A name as a frame: `;` is between frames, and a tool may cut what a frame begins or ends with.
fn frame(name: &str) -> String {
    let name: String = harmless(name).replace(';', ",").chars().take(FRAME_CHARS_MAX).collect();
    match name.trim() {
        "" => "(no name)".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
#[path = "folded_tests.rs"]
mod tests;
