//! A real disk of this host gets another I/O scheduler, and has its own back afterwards.
//!
//! Where this process may not, or the disk has no other, the test is reported as ignored and says why.

use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::geteuid;
use std::fs;
use std::path::{Path, PathBuf};
use vslice_host::host::disk_facts;
use vslice_host::io_scheduler::{HeldIoScheduler, IoSchedulerError, undo_stale_journals};
use vslice_host::journal::Undone;
use vslice_trace::host::DiskFacts;

/// What it has, and what it can have instead.
#[derive(Debug)]
struct Disk {
    before: DiskFacts,
    scheduler: String,
    other: String,
}

fn main() {
    let arguments = Arguments::from_args();
    let name = "a_disk_has_the_scheduler_until_its_holder_goes";
    let trial = match disk(&std::env::temp_dir()) {
        Ok(disk) => Trial::test(name, move || held_and_put_back(&disk)),
        Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

/// The disk under this directory, if its scheduler may be changed.
fn disk(path: &Path) -> Result<Disk, String> {
    if !geteuid().is_root() {
        return Err("a disk's scheduler is for root to set".to_owned());
    }
    let unfit = || format!("{} is on no disk with an I/O scheduler", path.display());
    let before = disk_facts(path).ok_or_else(unfit)?;
    let scheduler = before.scheduler.clone().ok_or_else(unfit)?;
    let file = PathBuf::from("/sys/block").join(&before.device).join("queue/scheduler");
    if let Err(error) = fs::OpenOptions::new().write(true).open(&file) {
        return Err(format!("{} cannot be written: {error}", file.display()));
    }
    let mut others = before.schedulers.iter().filter(|name| **name != scheduler);
    let first = others.clone().next();
    let other = others.find(|name| *name == "bfq").or(first).cloned();
    let other = other.ok_or_else(|| format!("{} offers one scheduler only", before.device))?;
    Ok(Disk { before, scheduler, other })
}

fn held_and_put_back(disk: &Disk) -> Result<(), Failed> {
    let journals = tempfile::tempdir()?;
    let path = std::env::temp_dir();
    let facts = || disk_facts(&path).ok_or("the disk is still there");
    let set = |name: &str| HeldIoScheduler::set(journals.path(), &path, name);
    let held = set(&disk.other)?;
    assert_eq!(facts()?.scheduler.as_ref(), Some(&disk.other));
    assert_eq!(held.previous(), Some(disk.scheduler.as_str()));
    assert_eq!(undo_stale_journals(journals.path())?, Undone::default(), "its owner lives");
    let again = set(&disk.other);
    assert!(matches!(again, Err(IoSchedulerError::InUse { .. })), "{again:?}");
    assert_eq!(facts()?.scheduler.as_ref(), Some(&disk.other));
    drop(held);
    assert_eq!(facts()?, disk.before);
    let error = set("nonesuch").err().ok_or("no kernel has it")?;
    assert!(error.to_string().contains("cannot set the I/O scheduler nonesuch"), "{error}");
    assert_eq!(facts()?, disk.before);
    assert_eq!(fs::read_dir(journals.path())?.count(), 0, "nothing is left to undo");
    Ok(())
}
