//! Events as lines of text, and what comes out of them as well.
//!
//! ```text
//! 10 0 dd Q FWS 0+0          time, vCPU, task, what, letters, sector + sectors
//! 30 1 irq C WS 8+8 -5       a completion may have an error
//! lost 20 30                 events of this time were lost
//! ```
//! `Q` queue, `M` remap, or `M8` from sector 8 of a partition, `X` refused, `I` issue, `R` requeue, `C` complete. Tasks get numbers in the
//! order in which they come, and threads are those of their names, or of what follows a `#`. A name may end in `@1` for disk 1.

use super::flush::FLUSHES_MAX;
use super::*;
use crate::event::Rwbs;
use vslice_wire::ObservedIssue;

/// What comes out of these events, in one pass; nothing may stay open, and nothing be lost.
pub(super) fn told(events: &str) -> Vec<String> {
    told_of(1, events)
}

pub(super) fn told_of(hardware_queues: u16, events: &str) -> Vec<String> {
    let mut drawn = Drawn::settled(hardware_queues);
    let told = drawn.events(events);
    assert_eq!(drawn.under_way(u64::MAX), Vec::<String>::new());
    assert_eq!(drawn.matching.take_lost(), []);
    told
}

/// One event that was lost between these times, or what may have had it.
pub(super) fn lost(first: u64, last: u64) -> Dropped {
    Dropped { count: 1, first: GuestTicks(first), last: GuestTicks(last) }
}

impl Matching {
    /// What is longer than it may ever be.
    pub(super) fn beyond_limits(&self) -> Vec<&'static str> {
        // What a request leaves of a bio is two, until the next comes.
        let open_max = self.limits.open_max + 2;
        let of_disks = OBSERVED_DEVICES_MAX * BlockOperation::ALL.len() * 2;
        let own = [
            ("open", self.open_count(), open_max),
            ("early", self.early.len(), EARLY_MAX),
            ("unclear ends", self.unclear_ends.len(), EARLY_MAX),
            ("gaps", self.gaps.len(), GAPS_MAX),
            ("pieces", self.pieces.len(), open_max),
            ("losses", self.told.lost.len(), told::LOST_MAX),
            ("others", self.told.others().len(), of_disks),
            ("disks", self.disks.len(), OBSERVED_DEVICES_MAX),
        ];
        let of_flushes = self.disks.iter().flat_map(|disk| disk.flushes.lengths());
        let beyond = own.into_iter().chain(of_flushes).filter(|(_, length, most)| length > most);
        beyond.map(|(name, ..)| name).collect()
    }
}

/// A matching, with the names of its tasks.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) matching: Matching,
    tasks: Vec<String>,
    last: u64,
}

impl Drawn {
    pub(super) fn new() -> Drawn {
        Drawn::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Drawn {
        Drawn { matching: Matching::new(limits), tasks: Vec::new(), last: 0 }
    }

    /// One whose disk's flushes were seen for long enough to be sure of them.
    pub(super) fn settled(hardware_queues: u16) -> Drawn {
        let mut drawn = Drawn::new();
        drawn.matching.set_hardware_queues(0, hardware_queues);
        for _ in 0..FLUSHES_MAX {
            drawn.line("0 0 irq I FF 0+0");
            drawn.line("0 0 irq C FF 0+0");
        }
        drawn.pass(4);
        drawn
    }

    /// Gives the events of `text`, in one pass.
    pub(super) fn events(&mut self, text: &str) -> Vec<String> {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .for_each(|line| self.line(line));
        self.pass(self.last)
    }

    pub(super) fn pass(&mut self, until: u64) -> Vec<String> {
        self.matching.pass(GuestTicks(until));
        let requests = self.matching.take_requests();
        requests.iter().map(|request| self.told(request)).collect()
    }

    /// How much was lost since this or the losses were last asked.
    pub(super) fn lost_count(&mut self) -> u64 {
        self.matching.take_lost().iter().map(|lost| lost.count).sum()
    }

    /// `Write sync 2: 8+8 dd 10 NotYet`: how many, the oldest of them, and whether it is issued.
    pub(super) fn under_way(&self, at: u64) -> Vec<String> {
        let rows = self.matching.under_way(GuestTicks(at));
        let told = rows.iter().map(|row| {
            let known = usize::try_from(row.task).ok().and_then(|task| self.tasks.get(task));
            let issue = match row.issue {
                ObservedIssue::At(at) => at.0.to_string(),
                other => format!("{other:?}"),
            };
            format!(
                "{:?}{} {}: {}+{} {} {} {issue}",
                row.operation,
                if row.is_sync { " sync" } else { "" },
                row.count,
                row.sector,
                row.bytes / 512,
                known.map_or("?", String::as_str),
                row.queued.0,
            )
        });
        told.collect()
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "lost" {
            let (first, last) = (words[1].parse().unwrap(), words[2].parse().unwrap());
            self.matching.lose(lost(first, last));
            return;
        }
        let event = self.event(&words);
        self.last = event.time.0;
        self.matching.take(&event);
    }

    fn event(&mut self, words: &[&str]) -> BlockTrace {
        let (name, device) = words[2].split_once('@').unwrap_or((words[2], "0"));
        // Who was called otherwise before is the same thread yet.
        let (name, thread) = name.split_once('#').unwrap_or((name, name));
        let (sector, sectors) = words[5].split_once('+').unwrap();
        let result = words.get(6).map_or(0, |word| word.parse().unwrap());
        BlockTrace {
            time: GuestTicks(words[0].parse().unwrap()),
            vcpu: words[1].parse().unwrap(),
            device: device.parse().unwrap(),
            task: self.task(name),
            thread: thread.bytes().fold(0, |sum: u32, byte| sum.wrapping_mul(31) + u32::from(byte)),
            kind: match words[3] {
                "Q" => BlockTraceKind::Queue,
                "M" => BlockTraceKind::Remap { from: None },
                "X" => BlockTraceKind::Refused,
                "I" => BlockTraceKind::Issue,
                "R" => BlockTraceKind::Requeue,
                "C" => BlockTraceKind::Complete { result },
                other => match other.strip_prefix('M') {
                    Some(from) => BlockTraceKind::Remap { from: Some(from.parse().unwrap()) },
                    None => panic!("{other} is no event"),
                },
            },
            sector: sector.parse().unwrap(),
            sectors: sectors.parse().unwrap(),
            rwbs: Rwbs::of_letters(words[4].as_bytes()),
        }
    }

    fn task(&mut self, name: &str) -> u32 {
        let place = self.tasks.iter().position(|task| task == name);
        let place = place.unwrap_or_else(|| {
            self.tasks.push(name.to_owned());
            self.tasks.len() - 1
        });
        u32::try_from(place).unwrap()
    }

    /// `Write 8+8 dd 10@0 20@1 30@0 SYNC AMBIGUOUS -5`, times with their vCPUs.
    fn told(&self, request: &ObservedRequest) -> String {
        let known = usize::try_from(request.task).ok().and_then(|task| self.tasks.get(task));
        let mut told = format!(
            "{:?} {}+{} {} {}@{} {}@{} {}@{}",
            request.operation,
            request.sector,
            request.bytes / 512,
            known.map_or("?", String::as_str),
            request.queued.0,
            request.vcpu_queued,
            request.issued.0,
            request.vcpu_issued,
            request.completed.0,
            request.vcpu_completed,
        );
        for (name, flag) in FLAGS {
            if request.flags.contains(flag) {
                told.push(' ');
                told.push_str(name);
            }
        }
        if request.result != 0 {
            told.push_str(&format!(" {}", request.result));
        }
        told
    }
}

const FLAGS: [(&str, ObservedFlags); 7] = [
    ("FUA", ObservedFlags::FUA),
    ("PREFLUSH", ObservedFlags::PREFLUSH),
    ("MERGED", ObservedFlags::MERGED),
    ("REQUEUED", ObservedFlags::REQUEUED),
    ("AMBIGUOUS", ObservedFlags::AMBIGUOUS),
    ("OVERLAPPED", ObservedFlags::OVERLAPPED),
    ("NO_QUEUE_TIME", ObservedFlags::NO_QUEUE_TIME),
];
