//! The scripted process itself: its two threads, and what it writes at the end.

use super::steps::{self, Request, SharedState};
use super::{
    Action, FILE_BYTES, Occurrence, ProcessInfo, Script, ScriptArgument, ScriptedProcessError,
};
use crate::rig::inject::InjectError;
use crate::rig::pin_self;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};
use vslice_core::units::Tid;

/// How long the process waits for its `go`: nobody who wants it needs longer.
const GO_LIMIT: Duration = Duration::from_secs(60);

/// How often the main thread looks for requests.
const LOOK: Duration = Duration::from_micros(50);

/// Does what the script says, and writes the log to `out` at the end.
///
/// # Errors
/// [`ScriptedProcessError`].
pub fn run(argument: &ScriptArgument, out: &mut impl Write) -> Result<(), ScriptedProcessError> {
    check(&argument.script)?;
    pin_self("main", argument.script.main_pcpu)?;
    let shared = Arc::new(SharedState::new(&argument.file, &argument.script)?);
    let (go, wait_for_go) = channel();
    let (report, reported) = channel();
    let (script, shared_with_vcpu) = (argument.script.clone(), Arc::clone(&shared));
    let name = script.thread_name.clone();
    let run_vcpu = move || run_vcpu(&script, &shared_with_vcpu, &report, &wait_for_go);
    let error = |source| InjectError::Thread { name: "vCPU", source };
    let thread = Builder::new().name(name).spawn(run_vcpu).map_err(error)?;
    let vcpu = reported.recv().map_err(|_| ScriptedProcessError::Vcpu("did not start"))??;
    wait_for(&argument.go)?;
    // A vCPU thread that has ended tells why when it is joined.
    let _ = go.send(());
    while !thread.is_finished() {
        if shared.serve()? == Request::Nothing {
            std::thread::sleep(LOOK);
        }
    }
    let occurrences = thread.join().map_err(|_| ScriptedProcessError::Vcpu("panicked"))??;
    let process = shared.process(Tid(std::process::id()), vcpu);
    let path = Path::new("standard output");
    write_log(out, &process, &occurrences)
        .map_err(|source| ScriptedProcessError::File { path: path.to_owned(), source })
}

/// The vCPU thread, from its birth to its end.
fn run_vcpu(
    script: &Script,
    shared: &SharedState,
    report: &Sender<Result<Tid, InjectError>>,
    wait_for_go: &Receiver<()>,
) -> Result<Vec<Occurrence>, ScriptedProcessError> {
    // The main thread waits for it, and gives up only together with this process.
    let _ = report.send(pin_self("vCPU", script.pcpu));
    let _ = wait_for_go.recv();
    steps::perform(script, shared)
}

fn check(script: &Script) -> Result<(), ScriptedProcessError> {
    let page_count = FILE_BYTES / steps::PAGE_BYTES;
    for action in [Action::Fault, Action::FileFault] {
        let fault_count = script.count(action);
        if fault_count > page_count {
            return Err(ScriptedProcessError::TooManyFaults { fault_count, page_count });
        }
    }
    Ok(())
}

fn wait_for(go: &Path) -> Result<(), ScriptedProcessError> {
    let deadline = Instant::now() + GO_LIMIT;
    while !go.exists() {
        if Instant::now() >= deadline {
            return Err(ScriptedProcessError::TimedOut {
                what: "was not told to start",
                limit: GO_LIMIT,
            });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

pub(super) fn write_log(
    out: &mut impl Write,
    process: &ProcessInfo,
    occurrences: &[Occurrence],
) -> io::Result<()> {
    write_line(out, process)?;
    occurrences.iter().try_for_each(|occurrence| write_line(out, occurrence))
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::scripted_process::Step;
    use vslice_core::units::PcpuId;

    #[test]
    fn no_page_can_fault_twice() {
        let step = Step { action: Action::FileFault, count: 257 };
        let script = Script {
            program_name: "qemu-system-x86_64".to_owned(),
            thread_name: "CPU 0/KVM".to_owned(),
            pcpu: PcpuId(0),
            main_pcpu: PcpuId(0),
            steps: vec![step; 2],
        };
        let message = check(&script).expect_err("too many").to_string();
        assert!(message.contains("at most 2048 faults"), "{message}");
        assert!(check(&Script { steps: vec![step], ..script }).is_ok());
    }
}
