//! Gives the disk under the guests' images the I/O scheduler that a plan asks for, and the one before back,
//! also after the collector was killed: see [`super::journal`].
//!
//! The scheduler is one of the whole disk: while it is set, everybody's I/O on that disk goes through it,
//! and the change itself holds the disk's I/O up for a moment (linux/block/elevator.c, `elevator_switch`,
//! freezes the queue). What was tuned by hand goes with it: a new scheduler begins with its own defaults of
//! `queue/nr_requests` and `queue/iosched/*`, and those before do not come back.

use super::host::{disk_facts, parse_schedulers};
use super::journal::{self, Journal, JournalError, Undone};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The schedulers of the block layer with one queue, which Linux 5.0 has removed (commit f382fb0bcef4), and
/// what is nearest to each: BFQ began as a change of CFQ, the others were ported to many queues.
const HEIRS: [(&str, &str); 3] = [("cfq", "bfq"), ("deadline", "mq-deadline"), ("noop", "none")];

const KIND: &str = "io-scheduler";

/// Why a disk's I/O scheduler could not be set.
#[derive(Debug, Error)]
pub enum IoSchedulerError {
    /// The file system is not on one block device.
    #[error(
        "the guests' disks are in {}, which is not on one disk with an I/O scheduler", path.display()
    )]
    NoQueue {
        /// Where they are.
        path: PathBuf,
    },
    /// The kernel has it not, or not for this disk.
    #[error(
        "cannot set the I/O scheduler {wanted} on {device} ({source}): it offers {}",
        if offered.is_empty() { "none".to_owned() } else { offered.join(", ") }
    )]
    Refused {
        /// The disk.
        device: String,
        /// The scheduler that was asked for, or its successor in this kernel.
        wanted: String,
        /// The schedulers that the kernel offers now; modules may add more.
        offered: Vec<String>,
        /// The kernel's error; `EINVAL` if there is no scheduler of that name.
        source: io::Error,
    },
    /// Of two, the first to end would put it back under the other.
    #[error(
        "another vslice has set the I/O scheduler of {device} and will restore it when it ends"
    )]
    InUse {
        /// The disk.
        device: String,
    },
    /// See [`JournalError`].
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    /// The boot in which the disk had this name (`/proc/sys/kernel/random/boot_id`).
    boot: String,
    /// The file in sysfs.
    file: PathBuf,
    previous: String,
    set_to: String,
}

/// A disk's I/O scheduler that is set until this is dropped.
#[derive(Debug)]
pub struct HeldIoScheduler {
    /// `None` if the disk had it already, so that nothing is to be undone.
    change: Option<(Change, Journal)>,
    /// Locked against other collectors.
    _lock: File,
}

impl HeldIoScheduler {
    /// Sets the scheduler `wanted`, or its successor in this kernel, on the disk under `path`.
    ///
    /// # Errors
    /// Fails with [`IoSchedulerError`]; the disk is then unchanged.
    pub fn set(
        journals: &Path,
        path: &Path,
        wanted: &str,
    ) -> Result<HeldIoScheduler, IoSchedulerError> {
        let no_queue = || IoSchedulerError::NoQueue { path: path.to_owned() };
        let device = disk_facts(path).ok_or_else(no_queue)?.device;
        let file = Path::new("/sys/block").join(&device).join("queue/scheduler");
        let lock = lock(&file).ok_or(IoSchedulerError::InUse { device })?;
        // What another holder has put back until it let go of the lock.
        let disk = disk_facts(path).ok_or_else(no_queue)?;
        let set_to = nearest(wanted, &disk.schedulers).to_owned();
        let previous = disk.scheduler.ok_or_else(no_queue)?;
        if previous == set_to {
            return Ok(HeldIoScheduler { change: None, _lock: lock });
        }
        let mut journal = Journal::create(journals, KIND)?;
        let change = Change { boot: boot(), file, previous, set_to };
        journal.write(&change)?;
        match put(&change.file, &change.set_to).and_then(|()| is_in_use(&change)) {
            Ok(()) => Ok(HeldIoScheduler { change: Some((change, journal)), _lock: lock }),
            Err(source) => {
                // A kernel that takes a name which it does not know may have put another in its place.
                if put(&change.file, &change.previous).is_err() {
                    journal.keep();
                }
                Err(IoSchedulerError::Refused {
                    device: disk.device,
                    wanted: change.set_to,
                    offered: disk.schedulers,
                    source,
                })
            }
        }
    }

    /// The scheduler that the disk had before, if it was another one.
    #[must_use]
    pub fn previous(&self) -> Option<&str> {
        self.change.as_ref().map(|(change, _)| change.previous.as_str())
    }
}

impl Drop for HeldIoScheduler {
    fn drop(&mut self) {
        if let Some((change, journal)) = &mut self.change
            && restore(change).is_err()
        {
            journal.keep();
        }
    }
}

/// What is nearest to `wanted`: itself if the kernel offers it, or nothing is known of it.
fn nearest<'a>(wanted: &'a str, offered: &[String]) -> &'a str {
    let heir = HEIRS.iter().find(|(gone, _)| *gone == wanted).map(|(_, heir)| *heir);
    match heir {
        Some(heir) if !offered.iter().any(|name| name == wanted) => heir,
        _ => wanted,
    }
}

/// Restores the disks that dead collectors have left changed. Returns how many were restored and how many
/// could not be; the next call tries those again.
///
/// # Errors
/// Fails if the directory cannot be read; a directory that does not exist counts as empty.
pub fn undo_stale_journals(directory: &Path) -> io::Result<Undone> {
    journal::undo_stale(directory, KIND, |changes: Vec<Change>| {
        // After a boot every disk has its own scheduler again, and another may have this one's name.
        let changes = changes.iter().filter(|change| change.boot == boot());
        changes.fold(Undone::default(), |undone, change| undone.add(&undo(change)))
    })
}

/// A disk that has gone has nothing to be undone; one that another collector holds is for later.
fn undo(change: &Change) -> io::Result<bool> {
    if !change.file.exists() {
        return Ok(false);
    }
    let _lock = lock(&change.file).ok_or(io::ErrorKind::WouldBlock)?;
    restore(change)
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// `None` if another collector has it, or it cannot be opened; the lock goes with the file.
fn lock(file: &Path) -> Option<File> {
    let file = File::open(file).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// Puts one disk back, unless somebody else has given it another scheduler since, and says whether it did.
fn restore(change: &Change) -> io::Result<bool> {
    let now = fs::read_to_string(&change.file)?;
    let is_ours = parse_schedulers(&now).0.as_ref() == Some(&change.set_to);
    if is_ours {
        put(&change.file, &change.previous)?;
    }
    Ok(is_ours)
}

/// Linux 6.18 was seen to take any name without an error, and to have `none` in use then.
fn is_in_use(change: &Change) -> io::Result<()> {
    match parse_schedulers(&fs::read_to_string(&change.file)?).0 {
        Some(now) if now == change.set_to => Ok(()),
        now => Err(io::Error::other(format!(
            "the kernel accepted the name, but uses {}",
            now.as_deref().unwrap_or("nothing")
        ))),
    }
}

fn put(file: &Path, scheduler: &str) -> io::Result<()> {
    // Without `create`: this file is there, or the disk has gone.
    fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| io::Write::write_all(&mut file, scheduler.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_scheduler_that_left_linux_has_an_heir() {
        let today = offered(&["mq-deadline", "kyber", "none"]);
        for (wanted, expected) in [
            ("cfq", "bfq"),
            ("deadline", "mq-deadline"),
            ("noop", "none"),
            ("kyber", "kyber"),
            ("nonesuch", "nonesuch"),
        ] {
            assert_eq!(nearest(wanted, &today), expected, "{wanted}");
        }
        assert_eq!(nearest("cfq", &offered(&["noop", "deadline", "cfq"])), "cfq");
    }

    /// A disk of which only the one file is there, as sysfs does not show it to everybody.
    fn stale(directory: &Path, now: &str) -> PathBuf {
        let file = directory.join("scheduler");
        fs::write(&file, now).expect("writable");
        let change = Change {
            boot: boot(),
            file: file.clone(),
            previous: "kyber".to_owned(),
            set_to: "bfq".to_owned(),
        };
        let line = serde_json::to_string(&change).expect("JSON");
        let name = format!("{KIND}-{}-1-0.journal", std::process::id());
        fs::write(directory.join(name), line + "\n").expect("writable");
        file
    }

    fn undone(count: usize) -> Undone {
        Undone { count, failed_count: 0 }
    }

    #[test]
    fn a_disk_that_another_holds_is_for_later() {
        let directory = tempfile::tempdir().expect("scratch");
        let file = stale(directory.path(), "none [bfq]");
        let other = lock(&file).expect("nobody has it");
        let undone_later = undo_stale_journals(directory.path()).expect("readable");
        assert_eq!(undone_later, Undone { count: 0, failed_count: 1 });
        drop(other);
        assert_eq!(undo_stale_journals(directory.path()).expect("readable"), undone(1));
        fs::remove_file(stale(directory.path(), "none [bfq]")).expect("there");
        assert_eq!(undo_stale_journals(directory.path()).expect("readable"), undone(0));
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 0, "it has gone");
    }

    #[test]
    fn what_a_killed_collector_set_goes_back_unless_somebody_else_has_set_it_since() {
        let directory = tempfile::tempdir().expect("scratch");
        let file = stale(directory.path(), "none mq-deadline [bfq]");
        assert_eq!(undo_stale_journals(directory.path()).expect("readable"), undone(1));
        assert!(fs::read_to_string(&file).expect("there").starts_with("kyber"));
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1, "no journal");
        let file = stale(directory.path(), "none [mq-deadline] bfq");
        assert_eq!(undo_stale_journals(directory.path()).expect("readable"), undone(0));
        assert_eq!(fs::read_to_string(&file).expect("there"), "none [mq-deadline] bfq");
    }

    #[test]
    fn a_file_system_without_a_disk_is_an_error() {
        let journals = tempfile::tempdir().expect("scratch");
        let error = HeldIoScheduler::set(journals.path(), Path::new("/proc"), "bfq")
            .expect_err("not on a disk");
        assert_eq!(
            error.to_string(),
            "the guests' disks are in /proc, which is not on one disk with an I/O scheduler"
        );
    }
}
