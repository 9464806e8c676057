//! What a vCPU thread does for each action, and what the main thread does for it meanwhile.

use super::fault_memory::FaultMemory;
use super::sys::{Clock, Condition, Lock, MappedFile};
use super::{
    Action, FILE_BYTES, Occurrence, ProcessInfo, Script, ScriptedProcessError, TRIES,
    UnavailableAction,
};
use crate::rig::inject::rival;
use crate::rig::inject::thread::LoggedThread;
use crate::rig::{sleep_for, spin_until};
use nix::errno::Errno;
use nix::poll::ppoll;
use nix::sched::sched_yield;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::uio::pread;
use nix::unistd::fdatasync;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use vslice_core::units::{HostNs, Tid};
use vslice_host::host_clock::host_now;

/// A page, and what [`Action::DirectRead`] reads at once.
pub(super) const PAGE_BYTES: u64 = 4096;

/// How long a lock is held, a condition is not signalled, a sleep lasts.
const HOLD: Duration = Duration::from_millis(1);

/// How long the thread runs between two occurrences, so that no two gaps are one.
const GAP_NS: u64 = 100_000;

/// How long one [`Action::Spin`] runs.
const SPIN_NS: u64 = 10_000_000;

/// How often a thread yields in vain before that counts as an occurrence all the same.
const YIELDS_MAX: u32 = 10_000;

/// What the vCPU thread wants of the main thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Request {
    Nothing,
    HoldPthreadLock,
    HoldRustLock,
    Signal,
    BringPage,
}

/// What the two threads share.
#[derive(Debug)]
pub(super) struct SharedState {
    request: AtomicU8,
    /// That the lock is held, until the vCPU thread has had it.
    held: AtomicBool,
    /// What the vCPU thread waits for at the condition.
    signalled: AtomicBool,
    pthread_lock: Lock,
    rust_lock: Mutex<()>,
    condition_lock: Lock,
    condition: Condition,
    timed_condition: Condition,
    direct_file: File,
    flushed_file: File,
    mapped_file: MappedFile,
    /// Not there where this host does not let it be.
    fault_memory: Result<FaultMemory, Errno>,
}

impl SharedState {
    pub(super) fn new(path: &Path, script: &Script) -> Result<SharedState, ScriptedProcessError> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
        let error = |source| ScriptedProcessError::File { path: path.to_owned(), source };
        let size_bytes = usize::try_from(FILE_BYTES).expect("pointers have 64 bits");
        let fault_count = u32::try_from(script.count(Action::Fault)).unwrap_or(u32::MAX);
        Ok(SharedState {
            request: AtomicU8::new(Request::Nothing as u8),
            held: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            pthread_lock: Lock::new(),
            rust_lock: Mutex::new(()),
            condition_lock: Lock::new(),
            condition: Condition::new(Clock::Default),
            timed_condition: Condition::new(Clock::Monotonic),
            direct_file: open(libc::O_DIRECT).map_err(error)?,
            flushed_file: OpenOptions::new().append(true).open(path).map_err(error)?,
            mapped_file: MappedFile::new(&open(0).map_err(error)?, size_bytes)
                .map_err(|errno| error(errno.into()))?,
            fault_memory: FaultMemory::new(fault_count.max(1)),
        })
    }

    pub(super) fn process(&self, pid: Tid, vcpu: Tid) -> ProcessInfo {
        ProcessInfo {
            pid,
            vcpu,
            pthread_lock_address: self.pthread_lock.address(),
            condition_address: self.condition.address(),
            timed_condition_address: self.timed_condition.address(),
            // The futex is the first field of std's mutex; the log's reader can check it by the
            // addresses that futex(2) was given.
            rust_lock_address: std::ptr::from_ref(&self.rust_lock).addr() as u64,
            unavailable: self.unavailable_actions(),
        }
    }

    fn unavailable_actions(&self) -> Vec<UnavailableAction> {
        let of_memory = self.fault_memory.as_ref().err();
        let why = |errno: &Errno| format!("userfaultfd(2) is not available: {errno}");
        of_memory
            .map(|errno| UnavailableAction { action: Action::Fault, why: why(errno) })
            .into_iter()
            .collect()
    }

    fn is_unavailable(&self, action: Action) -> bool {
        action == Action::Fault && self.fault_memory.is_err()
    }

    /// The main thread: does what is wanted, if anything is; returns what that was.
    ///
    /// # Errors
    /// [`ScriptedProcessError::Page`]: the vCPU thread would wait for ever.
    pub(super) fn serve(&self) -> Result<Request, ScriptedProcessError> {
        Ok(match self.bring_page()? {
            Request::Nothing => self.serve_locks(),
            request => request,
        })
    }

    fn bring_page(&self) -> Result<Request, ScriptedProcessError> {
        let Ok(memory) = &self.fault_memory else { return Ok(Request::Nothing) };
        let Some(address) = memory.wanted().map_err(ScriptedProcessError::Page)? else {
            return Ok(Request::Nothing);
        };
        sleep_for(HOLD);
        memory.bring(address).map_err(|errno| ScriptedProcessError::Page(errno.into()))?;
        Ok(Request::BringPage)
    }

    fn serve_locks(&self) -> Request {
        let request = self.request.load(Ordering::Acquire);
        if request == Request::HoldPthreadLock as u8 {
            let guard = self.pthread_lock.lock();
            self.hold();
            drop(guard);
            Request::HoldPthreadLock
        } else if request == Request::HoldRustLock as u8 {
            let guard = self.rust_lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.hold();
            drop(guard);
            Request::HoldRustLock
        } else if request == Request::Signal as u8 {
            self.request.store(Request::Nothing as u8, Ordering::Release);
            sleep_for(HOLD);
            let guard = self.condition_lock.lock();
            self.signalled.store(true, Ordering::Release);
            // Before the signal, or the vCPU thread would wake up only to wait for the lock.
            drop(guard);
            self.condition.signal();
            Request::Signal
        } else {
            Request::Nothing
        }
    }

    fn hold(&self) {
        self.request.store(Request::Nothing as u8, Ordering::Release);
        self.held.store(true, Ordering::Release);
        sleep_for(HOLD);
    }

    /// The vCPU thread: asks, and returns once the lock is held.
    fn ask_to_hold(&self, request: Request) {
        self.held.store(false, Ordering::Release);
        self.request.store(request as u8, Ordering::Release);
        while !self.held.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
    }
}

/// Does all steps; the log has its room from the start, so that growing it is not among the causes.
pub(super) fn perform(
    script: &Script,
    shared: &SharedState,
) -> Result<Vec<Occurrence>, ScriptedProcessError> {
    let tries = script.steps.iter().map(|step| (step.count * TRIES) as usize);
    let mut occurrences = Vec::with_capacity(tries.sum());
    let mut actor = Actor { shared, buffer: AlignedPage::new(), next_page: 0, rival: None };
    for step in script.steps.iter().filter(|step| !shared.is_unavailable(step.action)) {
        // It is there for the whole step, and yields are to it.
        let rival =
            (step.action == Action::Yield).then(|| rival::start(script.pcpu)).transpose()?;
        actor.rival = rival.as_ref().map(LoggedThread::tid);
        let (mut proven_count, mut tried_count) = (0, 0);
        while proven_count < step.count && tried_count < step.count * TRIES {
            spin_until(HostNs(host_now().0 + GAP_NS));
            let occurrence = actor.act(step.action, tried_count)?;
            occurrences.push(occurrence);
            tried_count += 1;
            proven_count += u32::from(occurrence.is_proven());
        }
        drop(rival);
    }
    Ok(occurrences)
}

/// The vCPU thread, and what it has at hand.
struct Actor<'a> {
    shared: &'a SharedState,
    buffer: AlignedPage,
    /// The next page of the mapped file that has not been touched.
    next_page: usize,
    /// Whom it yields to.
    rival: Option<Tid>,
}

impl Actor<'_> {
    fn act(&mut self, action: Action, index: u32) -> Result<Occurrence, ScriptedProcessError> {
        let shared = self.shared;
        match action {
            Action::PthreadLock => {
                shared.ask_to_hold(Request::HoldPthreadLock);
                observe(action, || {
                    drop(shared.pthread_lock.lock());
                    Ok(())
                })
            }
            Action::RustLock => {
                shared.ask_to_hold(Request::HoldRustLock);
                let lock = || shared.rust_lock.lock().unwrap_or_else(PoisonError::into_inner);
                observe(action, || {
                    drop(lock());
                    Ok(())
                })
            }
            Action::Condition => wait_for_signal(shared),
            Action::TimedCondition => wait_in_vain(shared),
            Action::Poll => observe(action, || poll_nothing().map(drop)),
            Action::Nanosleep => observe(action, || {
                sleep_for(HOLD);
                Ok(())
            }),
            Action::Yield => Ok(Occurrence { rival: self.rival, ..yield_until_it_helps()? }),
            Action::DirectRead => {
                observe(action, || read_direct(&shared.direct_file, index, self.buffer.page()))
            }
            Action::Flush => {
                write_to_end(&shared.flushed_file)?;
                observe(action, || call("fdatasync", fdatasync(&shared.flushed_file)))
            }
            Action::Fault => {
                let memory = shared.fault_memory.as_ref();
                let memory = memory.map_err(|errno| ScriptedProcessError::Page((*errno).into()))?;
                let mut was_brought = false;
                let occurrence = observe(action, || {
                    was_brought = memory.touch(index as usize);
                    Ok(())
                })?;
                let other = || ScriptedProcessError::Page(io::Error::other("it is another page"));
                was_brought.then_some(occurrence).ok_or_else(other)
            }
            Action::FileFault => {
                let page = self.absent_page()?;
                observe(action, || {
                    let _ = shared.mapped_file.touch(page);
                    Ok(())
                })
            }
            Action::Spin => observe(action, || {
                spin_until(HostNs(host_now().0 + SPIN_NS));
                Ok(())
            }),
        }
    }

    /// A page of the mapped file that is not in memory, after those that have been touched: reading may
    /// have brought more than one. Where all are there it is the last one, and no fault.
    fn absent_page(&mut self) -> Result<usize, ScriptedProcessError> {
        let last = usize::try_from(FILE_BYTES / PAGE_BYTES).expect("pointers have 64 bits") - 1;
        loop {
            let page = self.next_page.min(last);
            self.next_page = page + 1;
            if page == last || !call("mincore", self.shared.mapped_file.is_resident(page))? {
                return Ok(page);
            }
        }
    }
}

/// Does it between two looks at the kernel's counts, and those between two looks at the clock.
fn observe(
    action: Action,
    work: impl FnOnce() -> Result<(), ScriptedProcessError>,
) -> Result<Occurrence, ScriptedProcessError> {
    let start = host_now();
    let before = call("getrusage", getrusage(UsageWho::RUSAGE_THREAD))?;
    work()?;
    let after = call("getrusage", getrusage(UsageWho::RUSAGE_THREAD))?;
    let end = host_now();
    let count = |of: fn(&Usage) -> i64| (of(&after) - of(&before)).cast_unsigned();
    Ok(Occurrence {
        action,
        start,
        end,
        voluntary_switches: count(Usage::voluntary_context_switches),
        involuntary_switches: count(Usage::involuntary_context_switches),
        major_faults: count(Usage::major_page_faults),
        rival: None,
    })
}

fn wait_for_signal(shared: &SharedState) -> Result<Occurrence, ScriptedProcessError> {
    let mut guard = shared.condition_lock.lock();
    shared.signalled.store(false, Ordering::Release);
    shared.request.store(Request::Signal as u8, Ordering::Release);
    observe(Action::Condition, || {
        // A condition may wake up without a signal, pthread_cond_wait(3).
        while !shared.signalled.load(Ordering::Acquire) {
            shared.condition.wait(&mut guard);
        }
        Ok(())
    })
}

fn wait_in_vain(shared: &SharedState) -> Result<Occurrence, ScriptedProcessError> {
    let mut guard = shared.condition_lock.lock();
    observe(Action::TimedCondition, || {
        call("pthread_cond_timedwait", shared.timed_condition.wait_for(&mut guard, HOLD))
    })
}

/// The scheduler may find that who yields is still the one to run; EEVDF does in two of three times
/// (Linux 6.18, one rival). Those are no occurrences: the thread stayed.
fn yield_until_it_helps() -> Result<Occurrence, ScriptedProcessError> {
    let mut occurrence = observe(Action::Yield, || call("sched_yield", sched_yield()))?;
    for _ in 0..YIELDS_MAX {
        if occurrence.involuntary_switches > 0 {
            break;
        }
        occurrence = observe(Action::Yield, || call("sched_yield", sched_yield()))?;
    }
    Ok(occurrence)
}

fn write_to_end(mut file: &File) -> Result<(), ScriptedProcessError> {
    let path = Path::new("what is flushed");
    let written = file.write_all(&[1; AlignedPage::BYTES]);
    written.map_err(|source| ScriptedProcessError::File { path: path.to_owned(), source })
}

fn poll_nothing() -> Result<i32, ScriptedProcessError> {
    call("ppoll", ppoll(&mut [], Some(HOLD.into()), None))
}

fn read_direct(file: &File, index: u32, page: &mut [u8]) -> Result<(), ScriptedProcessError> {
    let offset = u64::from(index) % (FILE_BYTES / PAGE_BYTES) * PAGE_BYTES;
    call("pread", pread(file, page, offset.cast_signed())).map(drop)
}

fn call<T>(what: &'static str, result: Result<T, Errno>) -> Result<T, ScriptedProcessError> {
    result.map_err(|errno| ScriptedProcessError::Call { what, errno })
}

/// Memory for a direct read, which has to begin at a multiple of the device's block size.
struct AlignedPage {
    bytes: Vec<u8>,
}

impl AlignedPage {
    const BYTES: usize = 4096;

    fn new() -> AlignedPage {
        // Written to, so that no read is the first to touch it.
        AlignedPage { bytes: vec![1; 2 * Self::BYTES] }
    }

    fn page(&mut self) -> &mut [u8] {
        let offset = self.bytes.as_ptr().align_offset(Self::BYTES);
        &mut self.bytes[offset..offset + Self::BYTES]
    }
}
