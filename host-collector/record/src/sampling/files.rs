//! The files of one thread in `/proc`, kept open.

use super::parse;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use vslice_core::samples::{Call, Look, Schedstat};
use vslice_core::units::Tid;
use vslice_host::host_clock::host_now;

/// Longer than any of the texts that are read, as far as they are of interest.
const TEXT_BYTES: usize = 512;

/// Functions that threads sleep in, each kept once.
#[derive(Debug, Default)]
pub(super) struct Functions(HashSet<Arc<str>>);

impl Functions {
    fn keep(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// One thread's files. A thread that has ended makes every read fail with `ESRCH`, also after its id
/// was given to another one.
#[derive(Debug)]
pub(super) struct ThreadFiles {
    tid: Tid,
    syscall: Option<File>,
    wchan: Option<File>,
    stat: File,
    schedstat: File,
}

impl ThreadFiles {
    /// # Errors
    /// If the thread is not there, or the kernel keeps no `schedstat` (CONFIG_SCHED_INFO).
    pub(super) fn open(tid: Tid) -> io::Result<ThreadFiles> {
        // `/proc/TID` is there for every thread, though it is listed only for processes.
        let open = |name| File::open(format!("/proc/{tid}/task/{tid}/{name}"));
        // The numbers of system calls are those of x86-64 in all that follows.
        let syscall = if cfg!(target_arch = "x86_64") { open("syscall").ok() } else { None };
        Ok(ThreadFiles {
            tid,
            syscall,
            wchan: open("wchan").ok(),
            stat: open("stat")?,
            schedstat: open("schedstat")?,
        })
    }

    /// What the thread does now; `None` if it has ended.
    pub(super) fn look(&mut self, functions: &mut Functions) -> Option<Look> {
        let mut buffer = [0; TEXT_BYTES];
        let (time, tid) = (host_now(), self.tid);
        let call = match self.call(&mut buffer) {
            Ok(call) => call,
            Err(error) if has_ended(&error) => return None,
            Err(_) => {
                // It stays refused: not asked again.
                self.syscall = None;
                Call::Hidden
            }
        };
        if call == Call::Running {
            return Some(Look { time, tid, call, state: None, wchan: None });
        }
        let wchan = match self.wchan.as_ref().map(|file| text(file, &mut buffer)) {
            Some(Ok(name)) => parse::wchan(name).map(|name| functions.keep(name)),
            Some(Err(error)) if has_ended(&error) => return None,
            Some(Err(_)) | None => None,
        };
        let length = self.stat.read_at(&mut buffer, 0).ok()?;
        let state = Some(parse::state(&buffer[..length])?);
        Some(Look { time, tid, call, state, wchan })
    }

    fn call(&self, buffer: &mut [u8; TEXT_BYTES]) -> io::Result<Call> {
        let Some(file) = &self.syscall else { return Ok(Call::Hidden) };
        Ok(parse::call(text(file, buffer)?).unwrap_or(Call::Hidden))
    }

    /// What the scheduler has counted of the thread; `None` if it has ended.
    pub(super) fn schedstat(&self) -> Option<Schedstat> {
        let mut buffer = [0; TEXT_BYTES];
        let time = host_now();
        let text = text(&self.schedstat, &mut buffer).ok()?;
        let [on_pcpu_ns, run_delay_ns, timeslices_count] = parse::schedstat(text)?;
        Some(Schedstat { time, tid: self.tid, on_pcpu_ns, run_delay_ns, timeslices_count })
    }
}

/// One read gives all of a file that is shorter than the buffer: `/proc` makes the text anew for
/// each read at offset 0 (linux: fs/seq_file.c).
fn text<'a>(file: &File, buffer: &'a mut [u8]) -> io::Result<&'a str> {
    let length = file.read_at(buffer, 0)?;
    str::from_utf8(&buffer[..length]).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// `ESRCH`: the thread is gone.
fn has_ended(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}
