//! A recorder that is a program: started, interrupted, and ended whatever happens.

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For a program to start or to end. Never reached unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why a program cannot be run.
pub(crate) fn missing(program: &str, package: &str) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("recording needs root".into());
    }
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(_) => None,
        Err(error) => Some(format!("cannot run {program} ({error}): install {package}")),
    }
}

/// A program in a process group of its own.
#[derive(Debug)]
pub(crate) struct Tool {
    child: Child,
    said: PathBuf,
}

impl Tool {
    /// Starts a program; what it says goes to `said`. When the bench is killed, it is interrupted:
    /// `setpriv` asks for that before it becomes the program.
    pub(crate) fn start(program: &Command, said: &Path) -> anyhow::Result<Tool> {
        let output = File::create(said)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "INT", "--"])
            .arg(program.get_program())
            .args(program.get_args())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program:?} through setpriv (util-linux)"))?;
        Ok(Tool { child, said: said.to_owned() })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Until `is_ready`, or an error with what the program said.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        mut is_ready: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        while !is_ready()? {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}) before {what}: {}", self.last_words());
            }
            if start.elapsed() > DEADLINE {
                bail!("not {what} within {DEADLINE:?}: {}", self.last_words());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Interrupts the program as Ctrl-C would, and waits for its end.
    pub(crate) fn interrupt(&mut self) -> anyhow::Result<()> {
        kill(self.pid(), Signal::SIGINT)?;
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > DEADLINE {
                bail!("it did not end within {DEADLINE:?}: {}", self.last_words());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Kills the program and what it has started.
    pub(crate) fn end(&mut self) {
        // The group is its own, so nobody else is hit; what has ended by itself is not found.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// The CPU time so far of the program and of what it has started, as far as that still runs.
    pub(crate) fn processor_ns(&self) -> u64 {
        let group = self.pid().to_string();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let of_group = processes.filter(|process| {
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            // After the name in brackets: state, parent, process group (proc_pid_stat(5)).
            let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' '));
            fields.and_then(|mut fields| fields.nth(2)) == Some(&*group)
        });
        let tasks = of_group.flat_map(|process| fs::read_dir(process.path().join("task")));
        let on_pcpu_ns = tasks.flatten().flatten().filter_map(|task| {
            // Whoever has ended meanwhile is missing.
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        on_pcpu_ns.sum()
    }

    fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.said).unwrap_or_default();
        said.trim().lines().rev().take(4).collect::<Vec<_>>().join(" / ")
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.end();
    }
}
