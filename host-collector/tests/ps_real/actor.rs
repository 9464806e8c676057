//! A process that looks like a VMM and sleeps.

use super::{Case, Kvm};
use libtest_mimic::Failed;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;

/// The variable that makes this binary an actor; it has the threads.
pub(crate) const ACTS: &str = "VSLICE_TEST_ACTS";

/// The variable that makes an actor open a VM of KVM.
const OPENS_KVM: &str = "VSLICE_TEST_OPENS_KVM";

/// KVM's device.
pub(crate) const KVM: &str = "/dev/kvm";

/// What an actor says once it is as it should be.
const READY: &str = "ready";

/// A running actor, which ends with this value.
#[derive(Debug)]
pub(crate) struct Actor {
    child: Child,
    /// Its program's file, if it has one of its own.
    exe: Option<PathBuf>,
}

impl Actor {
    /// Starts one, and waits until its threads have their names.
    pub(crate) fn start(case: &Case) -> Result<Actor, Failed> {
        let own = std::env::current_exe()?;
        let exe = case.exe.map(|name| linked(&own, name)).transpose()?;
        let words = super::words(case.line);
        let (name, rest) = words.split_first().ok_or("a command line has a program")?;
        let mut command = Command::new(exe.as_ref().unwrap_or(&own));
        command.arg0(name).args(rest).env(ACTS, case.threads);
        if case.kvm == Kvm::Opened {
            command.env(OPENS_KVM, "1");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut actor = Actor { child: command.spawn()?, exe };
        let out = actor.child.stdout.as_mut().ok_or("piped")?;
        let mut said = String::new();
        BufReader::new(out).read_line(&mut said)?;
        if said.trim() == READY {
            Ok(actor)
        } else {
            Err(format!("the actor says {said:?}").into())
        }
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
pub(crate) fn act() -> ExitCode {
    let said = prepare().map_or_else(|error| error.to_string(), |()| READY.to_owned());
    let mut out = std::io::stdout();
    let _test_may_have_ended = writeln!(out, "{said}").and_then(|()| out.flush());
    // The other end closes when the test ends, however it does.
    let _closed = std::io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

fn prepare() -> Result<(), Box<dyn Error>> {
    if std::env::var_os(OPENS_KVM).is_some() {
        open_kvm()?;
    }
    let threads = std::env::var(ACTS).unwrap_or_default();
    let (named, names) = mpsc::channel();
    for thread in threads.split(';').filter(|thread| !thread.is_empty()) {
        let (name, pcpu) = match thread.rsplit_once('@') {
            Some((name, pcpu)) => (name.to_owned(), pcpu.parse().ok()),
            None => (thread.to_owned(), None),
        };
        let named = named.clone();
        // One after the other, so that their ids ascend.
        std::thread::spawn(move || {
            // The kernel cuts it off after 15 bytes, as it does for a VMM; Rust would do so at a letter's end.
            let written = fs::write("/proc/thread-self/comm", name);
            let _tests_wait = named.send(written.and_then(|()| pcpu.map_or(Ok(()), pin)));
            loop {
                std::thread::park();
            }
        });
        names.recv()??;
    }
    Ok(())
}

fn pin(pcpu: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(pcpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

nix::ioctl_write_int_bad!(kvm_create_vm, 0xae01);
nix::ioctl_write_int_bad!(kvm_create_vcpu, 0xae41);

/// Opens a VM of KVM with one vCPU, for as long as this process lives.
#[expect(unsafe_code, reason = "KVM is asked by ioctls")]
fn open_kvm() -> Result<(), Box<dyn Error>> {
    let kvm = fs::File::options().read(true).write(true).open(KVM)?;
    // SAFETY: KVM_CREATE_VM takes a machine type, of which 0 is the default.
    let vm = unsafe { kvm_create_vm(kvm.as_raw_fd(), 0) }?;
    // SAFETY: KVM_CREATE_VCPU takes the id of the vCPU; `vm` is the VM that was just made.
    unsafe { kvm_create_vcpu(vm, 0) }?;
    Ok(())
}
