//! What a vCPU thread does for each act, and what the main thread does for it meanwhile.

use super::sys::{Clock, Condition, Lock, MappedFile};
use super::{Act, Cast, FILE_BYTES, Occurrence, PuppetError, Script};
use crate::host_clock::host_now;
use crate::rig::inject::rival;
use crate::rig::{sleep_for, spin_until};
use crate::units::{HostNs, Tid};
use nix::errno::Errno;
use nix::poll::ppoll;
use nix::sched::sched_yield;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::uio::pread;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A page, and what [`Act::DirectRead`] reads at once.
pub(super) const PAGE_BYTES: u64 = 4096;

/// How long a lock is held, a condition is not signalled, a sleep lasts.
const HOLD: Duration = Duration::from_millis(1);

/// How long the thread runs between two occurrences, so that no two gaps are one.
const GAP_NS: u64 = 100_000;

/// How long one [`Act::Spin`] runs.
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
}

/// What the two threads share.
#[derive(Debug)]
pub(super) struct Props {
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
    mapped_file: MappedFile,
}

impl Props {
    pub(super) fn new(path: &Path) -> Result<Props, PuppetError> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
        let error = |source| PuppetError::File { path: path.to_owned(), source };
        let size_bytes = usize::try_from(FILE_BYTES).expect("pointers have 64 bits");
        Ok(Props {
            request: AtomicU8::new(Request::Nothing as u8),
            held: AtomicBool::new(false),
            signalled: AtomicBool::new(false),
            pthread_lock: Lock::new(),
            rust_lock: Mutex::new(()),
            condition_lock: Lock::new(),
            condition: Condition::new(Clock::Default),
            timed_condition: Condition::new(Clock::Monotonic),
            direct_file: open(libc::O_DIRECT).map_err(error)?,
            mapped_file: MappedFile::new(&open(0).map_err(error)?, size_bytes)
                .map_err(|errno| error(errno.into()))?,
        })
    }

    pub(super) fn cast(&self, pid: Tid, vcpu: Tid) -> Cast {
        Cast {
            pid,
            vcpu,
            pthread_lock_address: self.pthread_lock.address(),
            condition_address: self.condition.address(),
            timed_condition_address: self.timed_condition.address(),
            // The futex is the first field of std's mutex; the log's reader can check it by the
            // addresses that futex(2) was given.
            rust_lock_address: std::ptr::from_ref(&self.rust_lock).addr() as u64,
        }
    }

    /// The main thread: does what is wanted, if anything is; returns what that was.
    pub(super) fn serve(&self) -> Request {
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
pub(super) fn perform(script: &Script, props: &Props) -> Result<Vec<Occurrence>, PuppetError> {
    let counts = script.steps.iter().map(|step| step.count as usize);
    let mut occurrences = Vec::with_capacity(counts.sum());
    let mut actor = Actor { props, buffer: AlignedPage::new(), next_page: 0 };
    for step in &script.steps {
        // It is there for the whole step, and yields are to it.
        let rival = (step.act == Act::Yield).then(|| rival::start(script.pcpu)).transpose()?;
        for index in 0..step.count {
            spin_until(HostNs(host_now().0 + GAP_NS));
            occurrences.push(actor.act(step.act, index)?);
        }
        drop(rival);
    }
    Ok(occurrences)
}

/// The vCPU thread, and what it has at hand.
struct Actor<'a> {
    props: &'a Props,
    buffer: AlignedPage,
    /// The next page of the mapped file that has not been touched.
    next_page: usize,
}

impl Actor<'_> {
    fn act(&mut self, act: Act, index: u32) -> Result<Occurrence, PuppetError> {
        let props = self.props;
        match act {
            Act::PthreadLock => {
                props.ask_to_hold(Request::HoldPthreadLock);
                observe(act, || {
                    drop(props.pthread_lock.lock());
                    Ok(())
                })
            }
            Act::RustLock => {
                props.ask_to_hold(Request::HoldRustLock);
                let lock = || props.rust_lock.lock().unwrap_or_else(PoisonError::into_inner);
                observe(act, || {
                    drop(lock());
                    Ok(())
                })
            }
            Act::Condition => wait_for_signal(props),
            Act::TimedCondition => wait_in_vain(props),
            Act::Poll => observe(act, || poll_nothing().map(drop)),
            Act::Nanosleep => observe(act, || {
                sleep_for(HOLD);
                Ok(())
            }),
            Act::Yield => yield_until_it_helps(),
            Act::DirectRead => {
                observe(act, || read_direct(&props.direct_file, index, self.buffer.page()))
            }
            Act::Fault => {
                let page = self.next_page;
                self.next_page += 1;
                observe(act, || {
                    let _ = props.mapped_file.touch(page);
                    Ok(())
                })
            }
            Act::Spin => observe(act, || {
                spin_until(HostNs(host_now().0 + SPIN_NS));
                Ok(())
            }),
        }
    }
}

/// Does it between two looks at the clock, and those between two looks at the kernel's counts.
fn observe(
    act: Act,
    work: impl FnOnce() -> Result<(), PuppetError>,
) -> Result<Occurrence, PuppetError> {
    let before = switches()?;
    let start = host_now();
    work()?;
    let end = host_now();
    let after = switches()?;
    Ok(Occurrence {
        act,
        start,
        end,
        voluntary_switches: after.0 - before.0,
        involuntary_switches: after.1 - before.1,
    })
}

/// How often this thread has left its pCPU: asleep, and runnable.
fn switches() -> Result<(u64, u64), PuppetError> {
    let usage = call("getrusage", getrusage(UsageWho::RUSAGE_THREAD))?;
    let counts = [usage.voluntary_context_switches(), usage.involuntary_context_switches()];
    Ok((counts[0].cast_unsigned(), counts[1].cast_unsigned()))
}

fn wait_for_signal(props: &Props) -> Result<Occurrence, PuppetError> {
    let mut guard = props.condition_lock.lock();
    props.signalled.store(false, Ordering::Release);
    props.request.store(Request::Signal as u8, Ordering::Release);
    observe(Act::Condition, || {
        // A condition may wake up without a signal, pthread_cond_wait(3).
        while !props.signalled.load(Ordering::Acquire) {
            props.condition.wait(&mut guard);
        }
        Ok(())
    })
}

fn wait_in_vain(props: &Props) -> Result<Occurrence, PuppetError> {
    let mut guard = props.condition_lock.lock();
    observe(Act::TimedCondition, || {
        call("pthread_cond_timedwait", props.timed_condition.wait_for(&mut guard, HOLD))
    })
}

/// The scheduler may find that who yields is still the one to run; EEVDF does in two of three times
/// (Linux 6.18, one rival). Those are no occurrences: the thread stayed.
fn yield_until_it_helps() -> Result<Occurrence, PuppetError> {
    let mut occurrence = observe(Act::Yield, || call("sched_yield", sched_yield()))?;
    for _ in 0..YIELDS_MAX {
        if occurrence.involuntary_switches > 0 {
            break;
        }
        occurrence = observe(Act::Yield, || call("sched_yield", sched_yield()))?;
    }
    Ok(occurrence)
}

fn poll_nothing() -> Result<i32, PuppetError> {
    call("ppoll", ppoll(&mut [], Some(HOLD.into()), None))
}

fn read_direct(file: &File, index: u32, page: &mut [u8]) -> Result<(), PuppetError> {
    let offset = u64::from(index) % (FILE_BYTES / PAGE_BYTES) * PAGE_BYTES;
    call("pread", pread(file, page, offset.cast_signed())).map(drop)
}

fn call<T>(what: &'static str, result: Result<T, Errno>) -> Result<T, PuppetError> {
    result.map_err(|errno| PuppetError::Call { what, errno })
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
