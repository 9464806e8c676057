//! A process that looks like a VMM and sleeps.

use libtest_mimic::Failed;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// The variable that makes this binary an actor; it has the threads.
pub(crate) const ACTS: &str = "VSLICE_TEST_ACTS";

/// A running actor, which ends with this value.
#[derive(Debug)]
pub(crate) struct Actor {
    child: Child,
    /// Its program's file, if it has one of its own.
    exe: Option<PathBuf>,
}

impl Actor {
    /// Starts one, and waits until its threads have their names.
    pub(crate) fn start(
        words: &[String],
        exe: Option<&str>,
        threads: &str,
    ) -> Result<Actor, Failed> {
        let own = std::env::current_exe()?;
        let exe = exe.map(|name| linked(&own, name)).transpose()?;
        let (name, rest) = words.split_first().ok_or("a command line has a program")?;
        let mut command = Command::new(exe.as_ref().unwrap_or(&own));
        command.arg0(name).args(rest).env(ACTS, threads);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut actor = Actor { child: command.spawn()?, exe };
        let mut ready = [0];
        actor.child.stdout.as_mut().ok_or("piped")?.read_exact(&mut ready)?;
        Ok(actor)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _status = self.child.wait();
        if let Some(exe) = &self.exe {
            let _gone = exe.parent().map(fs::remove_dir_all);
        }
    }
}

/// This binary under another name.
fn linked(own: &Path, name: &str) -> Result<PathBuf, Failed> {
    let beside = own.parent().ok_or("it lies in a directory")?;
    let directory = tempfile::Builder::new().prefix("actor-").tempdir_in(beside)?.keep();
    let link = directory.join(name);
    fs::hard_link(own, &link)?;
    Ok(link)
}

/// Takes the names and pCPUs of the threads, and sleeps until the test has ended.
pub(crate) fn act() -> ! {
    let threads = std::env::var(ACTS).unwrap_or_default();
    let (named, names) = mpsc::channel();
    for thread in threads.split(';').filter(|thread| !thread.is_empty()) {
        let (name, pcpu) = match thread.rsplit_once('@') {
            Some((name, pcpu)) => (name.to_owned(), pcpu.parse().ok()),
            None => (thread.to_owned(), None),
        };
        let named = named.clone();
        std::thread::spawn(move || {
            // The kernel cuts it off after 15 bytes, as it does for a VMM; Rust would do so at a letter's end.
            let _written = fs::write("/proc/thread-self/comm", name);
            if let Some(pcpu) = pcpu {
                pin(pcpu);
            }
            let _tests_wait = named.send(());
            loop {
                std::thread::park();
            }
        });
    }
    drop(named);
    let count = threads.split(';').filter(|thread| !thread.is_empty()).count();
    names.iter().take(count).count();
    let mut out = std::io::stdout();
    let _test_may_have_ended = out.write_all(b"!").and_then(|()| out.flush());
    // The other end closes when the test ends, however it does.
    let _closed = std::io::stdin().read(&mut [0]);
    std::process::exit(0)
}

fn pin(pcpu: usize) {
    let mut set = CpuSet::new();
    let pinned = set.set(pcpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        eprintln!("a thread cannot be pinned to pCPU{pcpu}: {error}");
    }
}
