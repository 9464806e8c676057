//! Who in a guest made requests: by what its processes are called, in bounded memory.

use super::model::{ObservedProcess, PROCESSES_MAX, ProcessTotals};
use crate::summary::distribution::{Distribution, Precision};
use crate::summary::latency::Slower;
use crate::summary::members::{Budget, Roll};
use crate::summary::model::LatencyNs;
use crate::summary::totals::ByClass;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use vslice_core::join::{Attribution, Breakdown, Phase};
use vslice_core::text::harmless;
use vslice_core::units::{HostNs, Tid};
use vslice_trace::observation::ObservedTaskRecord;
use vslice_wire::{ObservedFlags, ObservedRequest};

/// Names that are told apart for each operation; those that come later count as others.
const NAMES_MAX: usize = 64;

/// Totals by name and bucket of latency for each operation; what has no room counts with the others.
const CELLS_MAX: usize = 1 << 13;

/// Process ids that are counted one by one for each operation.
const PIDS_MAX: usize = 1 << 12;

/// The longest name, in characters: a guest may call itself anything.
const NAME_CHARS_MAX: usize = 64;

/// What a task is called: its process by its title if it gave itself one, else its thread.
///
/// `titles` are all that its process was seen under. What they differ in is what it did at that moment, so the words
/// that they begin with in common are its name.
pub(super) fn label(task: &ObservedTaskRecord, titles: &[&str]) -> String {
    let own = [&task.title, &task.title_before].into_iter().flatten().find_map(|own| program(own));
    let name = match own {
        Some(program_word) => {
            let mut of_program = titles.iter().filter(|title| program(title) == Some(program_word));
            let first: Vec<&str> =
                of_program.next().map(|title| lasting(title)).unwrap_or_default();
            let name = of_program.fold(first, |name, title| in_common(name, &lasting(title)));
            name.join(" ").trim_end_matches(':').to_owned()
        }
        None => worker(&task.name).unwrap_or(&task.name).to_owned(),
    };
    let name = harmless(&name);
    let name = if name.trim().is_empty() { "a process without a name".to_owned() } else { name };
    name.chars().take(NAME_CHARS_MAX).collect()
}

/// The first word of a title, which tells it from a command line: that of the form `program: what it is`, as
/// `setproctitle(3)` writes it.
fn program(title: &str) -> Option<&str> {
    let first = title.split_whitespace().next()?;
    (first.len() > 1 && first.ends_with(':') && !first.contains('/')).then_some(first)
}

/// The words of a title that are not of a moment: those before whom it serves, `[local]` or `10.0.0.7(41234)`, or else
/// before the first with a digit, which differs from one process to the next. `postgres: 15/main: walwriter` has
/// the name of its cluster, as Debian calls it.
fn lasting(title: &str) -> Vec<&str> {
    let words: Vec<&str> = title.split_whitespace().collect();
    let is_client =
        |word: &&str| word.starts_with('[') || word.ends_with(')') && word.contains('(');
    let is_cluster = |word: &str| word.ends_with(':') && word.contains('/');
    let changes = |word: &&str| word.contains(|of: char| of.is_ascii_digit()) && !is_cluster(word);
    let end = words.iter().position(is_client);
    let end = end.or_else(|| words.iter().position(changes));
    words[..end.unwrap_or(words.len())].to_vec()
}

fn in_common<'t>(one: Vec<&'t str>, other: &[&str]) -> Vec<&'t str> {
    one.into_iter()
        .zip(other)
        .take_while(|(one, other)| one == *other)
        .map(|(one, _)| one)
        .collect()
}

/// The name of a kernel's worker without its number (linux: kernel/workqueue.c, io_uring/io-wq.c and sqpoll.c).
fn worker(name: &str) -> Option<&'static str> {
    let kinds = [("kworker/", "kworker"), ("iou-wrk-", "iou-wrk"), ("iou-sqp-", "iou-sqp")];
    kinds.into_iter().find(|(start, _)| name.starts_with(start)).map(|(_, name)| name)
}

/// Whether a thread of this name is one that the kernel started for a process that has a ring.
fn is_of_io_uring(name: &str) -> bool {
    worker(name).is_some_and(|kind| kind != "kworker")
}

/// The tasks of a guest, by the numbers that requests call them.
#[derive(Debug, Default)]
pub struct Tasks(HashMap<u32, (String, u32)>);

impl Tasks {
    /// Of a guest's own words.
    #[must_use]
    pub fn of(records: &[ObservedTaskRecord]) -> Tasks {
        let mut titles: HashMap<u32, Vec<&str>> = HashMap::new();
        for task in records {
            let of_task = [&task.title, &task.title_before].into_iter().flatten();
            titles.entry(task.pid).or_default().extend(of_task.map(String::as_str));
        }
        let label = |task: &ObservedTaskRecord| {
            label(task, titles.get(&task.pid).map(Vec::as_slice).unwrap_or_default())
        };
        let labels: Vec<String> = records.iter().map(label).collect();
        let mut own: HashMap<u32, Vec<&str>> = HashMap::new();
        for (task, label) in records.iter().zip(&labels).filter(|(of, _)| !is_of_io_uring(&of.name))
        {
            own.entry(task.pid).or_default().push(label);
        }
        let named = |(task, label): (&ObservedTaskRecord, &String)| {
            let label = match own.get(&task.pid).map(Vec::as_slice) {
                // It works for the process that it is a thread of.
                Some([first, others @ ..]) if others.iter().all(|other| other == first) => *first,
                _ => label,
            };
            (task.number, (label.to_owned(), task.pid))
        };
        Tasks(records.iter().zip(&labels).map(named).collect())
    }

    /// What a task is called, and its process id.
    #[must_use]
    pub fn of_number(&self, number: u32) -> (String, Option<u32>) {
        match self.0.get(&number) {
            Some((name, pid)) => (name.clone(), Some(*pid)),
            None => ("a process that was not named".to_owned(), None),
        }
    }
}

/// The requests of one operation by who made them.
#[derive(Debug)]
pub(super) struct ProcessTally {
    by_name: BTreeMap<String, OfName>,
    /// Those beyond [`NAMES_MAX`].
    others: BTreeMap<u64, ProcessTotals>,
    cells_count: usize,
    budget: Budget,
}

#[derive(Debug)]
struct OfName {
    pids: Roll,
    /// Of the slowest request.
    pid: Option<u32>,
    count: u64,
    bytes: u64,
    merged: u64,
    latencies: Distribution,
    by_bucket: BTreeMap<u64, ProcessTotals>,
}

impl ProcessTally {
    pub(super) fn new() -> ProcessTally {
        ProcessTally {
            by_name: BTreeMap::new(),
            others: BTreeMap::new(),
            cells_count: 0,
            budget: Budget(PIDS_MAX),
        }
    }

    /// A request of this process, whose latency lies in this bucket of the operation.
    pub(super) fn add(
        &mut self,
        (name, pid): (String, Option<u32>),
        request: &ObservedRequest,
        breakdown: &Breakdown,
        bucket: u64,
    ) {
        let is_attributed = breakdown.attribution == Attribution::Attributed;
        if self.by_name.len() >= NAMES_MAX && !self.by_name.contains_key(&name) {
            if is_attributed {
                self.others.entry(bucket).or_default().add(breakdown);
            }
            return;
        }
        let of_name = self.by_name.entry(name).or_insert_with(|| OfName {
            pids: Roll::default(),
            pid: None,
            count: 0,
            bytes: 0,
            merged: 0,
            latencies: Distribution::new(Precision::Coarse),
            by_bucket: BTreeMap::new(),
        });
        match pid {
            Some(pid) => of_name.pids.add((Tid(pid), HostNs(0)), &mut self.budget),
            None => of_name.pids.and_more(),
        }
        if of_name.latencies.max_ns().is_none_or(|max_ns| breakdown.latency_ns() > max_ns) {
            of_name.pid = pid;
        }
        of_name.count += 1;
        of_name.bytes = of_name.bytes.saturating_add(request.bytes.into());
        of_name.merged += u64::from(request.flags.contains(ObservedFlags::MERGED));
        of_name.latencies.record(breakdown.latency_ns());
        if !is_attributed {
            return;
        }
        let is_new = !of_name.by_bucket.contains_key(&bucket);
        if is_new && self.cells_count >= CELLS_MAX {
            return self.others.entry(bucket).or_default().add(breakdown);
        }
        self.cells_count += usize::from(is_new);
        of_name.by_bucket.entry(bucket).or_default().add(breakdown);
    }

    /// Those that suffered most in the class that the answer is about, and all others.
    pub(super) fn rows(
        &self,
        classes: [Slower; 3],
        has_tail: bool,
        has_faster: bool,
    ) -> (Vec<ObservedProcess>, ByClass<ProcessTotals>) {
        let mut rows: Vec<ObservedProcess> = Vec::new();
        for (name, of) in &self.by_name {
            rows.push(ObservedProcess {
                name: name.clone(),
                pid: of.pid,
                processes: of.pids.count(),
                count: of.count,
                bytes: of.bytes,
                merged: of.merged,
                latency_ns: latency_ns(&of.latencies, has_faster),
                classes: by_class(&of.by_bucket, classes),
            });
        }
        let suffered = |row: &ObservedProcess| match has_tail {
            true => row.classes.p99.latency_ns,
            false => row.classes.all.latency_ns,
        };
        rows.sort_by_key(|row| (Reverse(suffered(row)), Reverse(row.classes.all.latency_ns)));
        let mut others = by_class(&self.others, classes);
        for row in rows.drain(PROCESSES_MAX.min(rows.len())..) {
            others.all.add_all(&row.classes.all);
            others.p99.add_all(&row.classes.p99);
            others.p999.add_all(&row.classes.p999);
        }
        (rows, others)
    }
}

fn by_class(
    buckets: &BTreeMap<u64, ProcessTotals>,
    classes: [Slower; 3],
) -> ByClass<ProcessTotals> {
    let [all, p99, p999] = classes.map(|slower| {
        let mut totals = ProcessTotals::default();
        buckets.range(slower.buckets()).for_each(|(_, of)| totals.add_all(of));
        totals
    });
    ByClass { all, p99, p999 }
}

fn latency_ns(latencies: &Distribution, has_faster: bool) -> LatencyNs {
    if has_faster {
        return LatencyNs { max: latencies.max_ns(), ..LatencyNs::default() };
    }
    latencies.latency_ns(0)
}

impl ProcessTotals {
    fn add(&mut self, breakdown: &Breakdown) {
        let of_phase = |phase| (phase, breakdown.phases.of(phase).total_ns());
        self.add_all(&ProcessTotals {
            count: 1,
            latency_ns: breakdown.latency_ns(),
            phases_ns: Phase::ALL.into_iter().map(of_phase).collect(),
            inactivity_ns: breakdown.phases.inactivity_ns(),
            wait_ns: crate::summary::latency::wait_ns(breakdown),
        });
    }

    fn add_all(&mut self, other: &ProcessTotals) {
        self.count += other.count;
        self.latency_ns = self.latency_ns.saturating_add(other.latency_ns);
        for (phase, length_ns) in &other.phases_ns {
            let total_ns = self.phases_ns.entry(*phase).or_insert(0);
            *total_ns = total_ns.saturating_add(*length_ns);
        }
        self.inactivity_ns = self.inactivity_ns.saturating_add(other.inactivity_ns);
        self.wait_ns = self.wait_ns.saturating_add(other.wait_ns);
    }
}
