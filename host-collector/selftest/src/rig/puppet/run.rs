//! The puppet itself: its two threads, and what it writes at the end.

use super::steps::{self, Props, Request};
use super::{Act, Cast, FILE_BYTES, Occurrence, Orders, PuppetError, Script};
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

/// How long a puppet waits for its `go`: nobody who wants it needs longer.
const GO_LIMIT: Duration = Duration::from_secs(60);

/// How often the main thread looks for requests.
const LOOK: Duration = Duration::from_micros(50);

/// Does what the script says, and writes the log to `out` at the end.
///
/// # Errors
/// [`PuppetError`].
pub fn run(orders: &Orders, out: &mut impl Write) -> Result<(), PuppetError> {
    check(&orders.script)?;
    pin_self("main", orders.script.main_pcpu)?;
    let props = Arc::new(Props::new(&orders.file, &orders.script)?);
    let (go, wait_for_go) = channel();
    let (tell, told) = channel();
    let (script, on_stage) = (orders.script.clone(), Arc::clone(&props));
    let name = script.thread_name.clone();
    let play = move || play(&script, &on_stage, &tell, &wait_for_go);
    let error = |source| InjectError::Thread { name: "vCPU", source };
    let thread = Builder::new().name(name).spawn(play).map_err(error)?;
    let vcpu = told.recv().map_err(|_| PuppetError::Vcpu("did not start"))??;
    wait_for(&orders.go)?;
    // A vCPU thread that has ended tells why when it is joined.
    let _ = go.send(());
    while !thread.is_finished() {
        if props.serve()? == Request::Nothing {
            std::thread::sleep(LOOK);
        }
    }
    let occurrences = thread.join().map_err(|_| PuppetError::Vcpu("panicked"))??;
    let cast = props.cast(Tid(std::process::id()), vcpu);
    let path = Path::new("standard output");
    write_log(out, &cast, &occurrences)
        .map_err(|source| PuppetError::File { path: path.to_owned(), source })
}

/// The vCPU thread, from its birth to its end.
fn play(
    script: &Script,
    props: &Props,
    tell: &Sender<Result<Tid, InjectError>>,
    wait_for_go: &Receiver<()>,
) -> Result<Vec<Occurrence>, PuppetError> {
    // The main thread waits for it, and gives up only together with this process.
    let _ = tell.send(pin_self("vCPU", script.pcpu));
    let _ = wait_for_go.recv();
    steps::perform(script, props)
}

fn check(script: &Script) -> Result<(), PuppetError> {
    let page_count = FILE_BYTES / steps::PAGE_BYTES;
    for act in [Act::Fault, Act::FileFault] {
        let fault_count = script.count(act);
        if fault_count > page_count {
            return Err(PuppetError::TooManyFaults { fault_count, page_count });
        }
    }
    Ok(())
}

fn wait_for(go: &Path) -> Result<(), PuppetError> {
    let deadline = Instant::now() + GO_LIMIT;
    while !go.exists() {
        if Instant::now() >= deadline {
            return Err(PuppetError::TimedOut { what: "was not told to start", limit: GO_LIMIT });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

pub(super) fn write_log(
    out: &mut impl Write,
    cast: &Cast,
    occurrences: &[Occurrence],
) -> io::Result<()> {
    write_line(out, cast)?;
    occurrences.iter().try_for_each(|occurrence| write_line(out, occurrence))
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::puppet::Step;
    use vslice_core::units::PcpuId;

    #[test]
    fn no_page_can_fault_twice() {
        let step = Step { act: Act::FileFault, count: 257 };
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
