//! What processes call themselves, read by a thread of its own: reading it takes a lock of the process's
//! memory, which a process that waits for a disk may hold.

use crate::clock_cost::thread_cpu_ns;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;
use vslice_wire::NAME_BYTES_MAX;

/// Titles that are asked for and not read yet, at most; those beyond are never known.
const ASKED_MAX: usize = 64;

/// Asks for titles, and has them when they are known.
#[derive(Debug)]
pub(super) struct Titles {
    asked: Option<SyncSender<(u32, u32)>>,
    answers: Receiver<(u32, String)>,
    /// Titles that were asked for and are neither read nor given up.
    open_count: Arc<AtomicUsize>,
    cpu_ns: Arc<AtomicU64>,
}

impl Titles {
    /// Starts the thread, which ends when this is gone. A read that hangs does not keep the process from
    /// ending.
    pub(super) fn start() -> io::Result<Titles> {
        let (asked, orders) = sync_channel::<(u32, u32)>(ASKED_MAX);
        let (told, answers) = sync_channel(ASKED_MAX);
        let cpu_ns = Arc::new(AtomicU64::new(0));
        let open_count = Arc::new(AtomicUsize::new(0));
        let (used, open) = (Arc::clone(&cpu_ns), Arc::clone(&open_count));
        let read_all = move || {
            for (number, pid) in orders {
                let title = title_of(pid).unwrap_or_default();
                // ATOMICS: relaxed, because it stands for itself.
                used.store(thread_cpu_ns(), Ordering::Relaxed);
                if !title.is_empty() && told.send((number, title)).is_err() {
                    return;
                }
                // ATOMICS: release pairs with the acquire of `are_all_read`: the answer was sent before.
                open.fetch_sub(1, Ordering::Release);
            }
        };
        Builder::new().name("titles".into()).spawn(read_all)?;
        Ok(Titles { asked: Some(asked), answers, open_count, cpu_ns })
    }

    /// Nobody reads titles, and none is ever known.
    #[cfg(test)]
    pub(super) fn none() -> Titles {
        let answers = sync_channel(0).1;
        Titles { asked: None, answers, open_count: Arc::default(), cpu_ns: Arc::default() }
    }

    /// Asks for the title of a process; `number` comes back with it.
    pub(super) fn ask(&self, number: u32, pid: u32) {
        // The idle tasks are processes of nobody.
        if let Some(asked) = self.asked.as_ref().filter(|_| pid != 0) {
            // ATOMICS: relaxed, because the channel orders it.
            self.open_count.fetch_add(1, Ordering::Relaxed);
            if asked.try_send((number, pid)).is_err() {
                self.open_count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Titles that became known.
    pub(super) fn answers(&self) -> Vec<(u32, String)> {
        self.answers.try_iter().take(ASKED_MAX).collect()
    }

    /// Whether nothing that was asked for is yet to be answered.
    pub(super) fn are_all_read(&self) -> bool {
        self.open_count.load(Ordering::Acquire) == 0
    }

    /// The thread's time on vCPUs.
    pub(super) fn cpu_ns(&self) -> u64 {
        self.cpu_ns.load(Ordering::Relaxed)
    }
}

/// From the command line's beginning.
fn title_of(pid: u32) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    file.take(NAME_BYTES_MAX as u64).read_to_end(&mut bytes).ok()?;
    Some(title(&bytes))
}

/// A process that writes a title there leaves no other words: it fills the rest with zeroes, or the kernel ends it at
/// the first (linux: `get_mm_cmdline` in fs/proc/base.c). Of one that has other words only the program's name is
/// told, as these are its arguments, and may be a password.
fn title(bytes: &[u8]) -> String {
    let mut words = bytes.split(|byte| *byte == 0);
    let first = words.next().unwrap_or_default();
    let text = String::from_utf8_lossy(first);
    let has_arguments = words.any(|word| !word.is_empty());
    let text = if has_arguments { program(&text) } else { text.trim() };
    text[..text.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

/// `mysqld` of `/usr/sbin/mysqld`. A word with blanks may be a title of which other words are a remnant.
fn program(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_title_is_what_a_process_wrote_and_never_its_arguments() {
        assert_eq!(title(b"postgres: checkpointer \0\0\0\0"), "postgres: checkpointer");
        assert_eq!(title(b"nginx: worker process"), "nginx: worker process");
        assert_eq!(title(b"/usr/sbin/mysqld\0--user=x\0--password=secret\0"), "mysqld");
        assert_eq!(title(b"/usr/bin/fio\0\0--name=a\0"), "fio", "the first argument is empty");
        assert_eq!(title(b"/x/y z: w\0secret\0"), "y");
        assert_eq!(title(b"cat\0"), "cat");
        assert_eq!(title(b"\0secret\0"), "");
        assert_eq!(title(b""), "", "a thread of the kernel");
        let long = title(&[0xff; 300]);
        assert!(long.len() <= NAME_BYTES_MAX && long.ends_with('\u{fffd}'));
    }

    #[test]
    fn titles_come_later_and_only_where_there_is_one() {
        let titles = Titles::start().unwrap();
        titles.ask(1, std::process::id());
        titles.ask(2, u32::MAX);
        let begun = Instant::now();
        let mut answers = Vec::new();
        while answers.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no answer");
            answers = titles.answers();
        }
        let own = std::env::args().next().unwrap();
        assert!(answers.len() == 1 && answers[0].0 == 1);
        let own = own.rsplit('/').next().unwrap();
        assert!(answers[0].1.ends_with(own), "{answers:?} {own}");
        assert!(titles.cpu_ns() > 0);
    }
}
