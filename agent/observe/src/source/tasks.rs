//! Who asks for requests: threads by their numbers, told when a request of theirs is.

use super::titles::Titles;
use crate::matching::UNKNOWN_TASK;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;
use vslice_wire::ObservedTask;

/// Threads that are remembered at most, and tasks; beyond that all are forgotten, and named anew by other
/// numbers.
const TASKS_MAX: usize = 2048;

/// `TASK_COMM_LEN`: a name with its NUL.
const COMM_BYTES: usize = 16;

/// A process may give itself a title only after its first request (PostgreSQL's do), so it is asked
/// for once more.
const SECOND_LOOK: Duration = Duration::from_secs(2);

type Comm = [u8; COMM_BYTES];

/// A thread, as its last request told it.
#[derive(Debug, Clone, Copy)]
struct Thread {
    pid: u32,
    comm: Comm,
    number: u32,
}

/// A process under one of its threads' names.
#[derive(Debug)]
struct Task {
    pid: u32,
    comm: Comm,
    looks: Looks,
}

/// How often its title was asked for, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    None,
    One(Duration),
    Two,
}

/// The tasks that are known.
#[derive(Debug)]
pub(super) struct Tasks {
    threads: BTreeMap<u32, Thread>,
    numbers: BTreeMap<(u32, Comm), u32>,
    tasks: BTreeMap<u32, Task>,
    next: u32,
    titles: Titles,
}

impl Tasks {
    pub(super) fn new(titles: Titles) -> Tasks {
        Tasks {
            threads: BTreeMap::new(),
            numbers: BTreeMap::new(),
            tasks: BTreeMap::new(),
            next: 0,
            titles,
        }
    }

    /// The number of the task that the thread `tid` of the process `pid` is, by the name that it had.
    pub(super) fn number(&mut self, pid: u32, tid: u32, comm: &[u8]) -> u32 {
        let comm = raw_comm(comm);
        if let Some(thread) = self.threads.get(&tid)
            && (thread.pid, thread.comm) == (pid, comm)
        {
            return thread.number;
        }
        if self.threads.len() >= TASKS_MAX || self.tasks.len() >= TASKS_MAX {
            self.forget();
        }
        let number = match self.numbers.get(&(pid, comm)) {
            Some(number) => *number,
            None => self.add(pid, comm),
        };
        self.threads.insert(tid, Thread { pid, comm, number });
        number
    }

    /// The same where the event does not say the name: by the last one that did, or by what the thread
    /// is called now.
    pub(super) fn number_unnamed(&mut self, pid: u32, tid: u32) -> u32 {
        if let Some(thread) = self.threads.get(&tid).filter(|thread| thread.pid == pid) {
            return thread.number;
        }
        // Unlike a title, a name is read without a lock of the process's memory.
        match fs::read(format!("/proc/{pid}/task/{tid}/comm")) {
            Ok(comm) => self.number(pid, tid, comm.trim_ascii_end()),
            Err(_) => UNKNOWN_TASK,
        }
    }

    fn add(&mut self, pid: u32, comm: Comm) -> u32 {
        let number = self.next;
        // No guest lives so long that numbers begin anew; if one does, the unknown one is left out.
        self.next = if number + 1 == UNKNOWN_TASK { 0 } else { number + 1 };
        self.numbers.insert((pid, comm), number);
        self.tasks.insert(number, Task { pid, comm, looks: Looks::None });
        number
    }

    /// Requests that are open keep their numbers, which are told by nobody then.
    fn forget(&mut self) {
        self.threads.clear();
        self.numbers.clear();
        self.tasks.clear();
    }

    /// A request of this task is about to be told: what has to be told of the task before. Its title is
    /// asked for, and comes by [`Tasks::titled`].
    pub(super) fn tell(&mut self, number: u32, now: Duration) -> Option<ObservedTask> {
        let task = self.tasks.get_mut(&number)?;
        let is_first = match task.looks {
            Looks::None => true,
            Looks::One(at) if now.saturating_sub(at) >= SECOND_LOOK => false,
            Looks::One(_) | Looks::Two => return None,
        };
        task.looks = if is_first { Looks::One(now) } else { Looks::Two };
        self.titles.ask(number, task.pid);
        is_first.then(|| told(number, task, String::new()))
    }

    /// Tasks whose titles became known since this was last asked.
    pub(super) fn titled(&mut self) -> Vec<ObservedTask> {
        let answers = self.titles.answers();
        let named = answers.into_iter().filter_map(|(number, title)| {
            self.tasks.get(&number).map(|task| told(number, task, title))
        });
        named.collect()
    }

    /// Whether all titles that were asked for are known, or never will be.
    pub(super) fn are_titled(&self) -> bool {
        self.titles.are_all_read()
    }

    /// The time that reading titles took on vCPUs.
    pub(super) fn cpu_ns(&self) -> u64 {
        self.titles.cpu_ns()
    }
}

fn told(number: u32, task: &Task, title: String) -> ObservedTask {
    let name = task.comm.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    ObservedTask { number, pid: task.pid, name, title }
}

/// The bytes up to the NUL, at most 15 of them.
fn raw_comm(bytes: &[u8]) -> Comm {
    let mut comm = [0; COMM_BYTES];
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let length = name.len().min(COMM_BYTES - 1);
    comm[..length].copy_from_slice(&name[..length]);
    comm
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn tasks() -> Tasks {
        Tasks::new(Titles::none())
    }

    #[test]
    fn threads_of_one_name_are_one_task_and_it_is_told_once() {
        let mut tasks = tasks();
        let one = tasks.number(700, 700, b"postgres\0garbage");
        assert_eq!(tasks.number(700, 701, b"postgres\0"), one);
        let other = tasks.number(700, 702, b"walwriter");
        assert_ne!(other, one);
        assert_ne!(tasks.number(800, 800, b"postgres"), one, "another process");
        assert_eq!(tasks.number_unnamed(700, 702), other);
        let told = tasks.tell(one, NOW).unwrap();
        assert_eq!((told.number, told.pid, told.name.as_str()), (one, 700, "postgres"));
        assert_eq!(tasks.tell(one, NOW), None);
        assert_eq!(tasks.tell(UNKNOWN_TASK, NOW), None);
    }

    #[test]
    fn a_thread_with_a_new_name_is_another_task() {
        let mut tasks = tasks();
        let shell = tasks.number(5, 5, b"sh");
        let command = tasks.number(5, 5, b"dd");
        assert_ne!(shell, command);
        assert_eq!(tasks.number_unnamed(5, 5), command);
        assert_eq!(tasks.number_unnamed(6, 5), UNKNOWN_TASK, "its number is another process's now");
    }

    #[test]
    fn tasks_are_bounded_and_numbers_never_mean_two() {
        let mut tasks = tasks();
        let max = u32::try_from(TASKS_MAX).unwrap();
        let first = tasks.number(1, 1, b"x");
        for pid in 2..=max + 1 {
            tasks.number(pid, pid, b"x");
        }
        assert_eq!((tasks.threads.len(), tasks.tasks.len()), (1, 1));
        assert_ne!(tasks.number(1, 1, b"x"), first);
        assert_eq!(tasks.tell(first, NOW), None, "it is forgotten");
    }
}
