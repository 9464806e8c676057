//! The waits of a VMM's threads in `fdatasync(2)` and `fsync(2)` for one of its images, and whose they are.
//!
//! A guest's flush is a call of one of these, by a thread of the VMM's (qemu: block/file-posix.c,
//! `handle_aiocb_flush`). The kernel's stack of a thread that falls asleep says that it is in the call, and its
//! registers say for which descriptor. What the thread waits for there is the host's I/O for the flush: data that
//! the page cache has, the file's own inode, the file system's journal, which a thread of the kernel may write, and
//! the flush of the disk. So the host has the flush while the thread sleeps, and does not while it runs, or waits
//! for a pCPU, between two sleeps. What is certain:
//!
//! - A sleep is for a request of the image if it lies within it, give or take how far the request's ends may be off,
//!   and in no other request that may ask for a flush, but those that the guest's kernel made one of.
//! - Of a raw image, nothing else than such requests makes the VMM flush. Of others, whose metadata may need to be
//!   durable first (qemu: block/qcow2-cache.c, `qcow2_cache_flush_dependency`), any request of the disk may.
//! - Of a new thread not all is recorded at once. It is once it has left a pCPU with its stack, and what it slept for
//!   a request is known if that was before the request began.
//!
//! A thread that did not sleep has waited for nothing, and then nothing is said: the VMM may have had nothing to
//! flush (qemu: block/io.c, `bdrv_co_flush`, `flushed_gen`), or have had the kernel's own threads do it.

use super::phase::NoPhase;
use super::windows::Window;
use crate::host_event::{PrevState, Switch};
use crate::timeline::StackTable;
use crate::timeline::stack::{Mark, Marks};
use crate::units::{HostNs, Tid};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::ops::Range;

/// Sleeps that are kept at most.
const KEPT_MAX: usize = 4096;

/// Threads of which is remembered since when they are recorded, at most.
const THREADS_MAX: usize = 4096;

/// Of which file a thread has called for a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncCall {
    /// That which the VMM has open by this number.
    Of(u32),
    /// It was not told: any of them.
    Unknown,
}

impl SyncCall {
    /// The call in which a thread has fallen asleep, if it has in one.
    #[must_use]
    pub fn of(switch: &Switch, stacks: &StackTable) -> Option<SyncCall> {
        if !matches!(switch.prev_state, PrevState::Sleep | PrevState::DiskSleep) {
            return None;
        }
        let Some(marks) = stacks.marks(switch.stack) else {
            // Without its stack it may be in any call that waits for a disk.
            return (switch.prev_state == PrevState::DiskSleep).then_some(SyncCall::Unknown);
        };
        let is_in_one = marks.intersects(Marks::of(&[Mark::SyncCall]));
        // The number is an `unsigned int` (linux: fs/sync.c): the upper half of its register is nothing.
        let file = |[first, ..]: [u64; 3]| u32::try_from(first & u64::from(u32::MAX)).ok();
        let call = switch.call_args.and_then(file).map_or(SyncCall::Unknown, SyncCall::Of);
        is_in_one.then_some(call)
    }
}

/// A thread's sleep in a call that flushes.
#[derive(Debug, Clone, Copy)]
struct Sleep {
    from: HostNs,
    /// When it ended; once it has.
    until: HostNs,
    /// Since when all is recorded of the thread.
    recorded_since: Option<HostNs>,
    /// Whether it is known to be for this image.
    is_for_this: bool,
}

/// The waits for the flushes of an image, or perhaps of that image.
#[derive(Debug, Default)]
pub(super) struct SyncCalls {
    asleep: FxHashMap<Tid, Sleep>,
    /// In order of their ends.
    over: VecDeque<Sleep>,
    recorded_since: FxHashMap<Tid, HostNs>,
    /// Of what was before this, not all is known any more.
    forgotten_until: HostNs,
}

impl SyncCalls {
    /// A thread of the VMM fell asleep in a call for this image, or perhaps for it.
    pub(super) fn asleep(&mut self, time: HostNs, thread: Tid, is_for_this: bool) {
        if self.asleep.len() >= THREADS_MAX {
            self.asleep.clear();
            self.forgotten_until = HostNs(u64::MAX);
        }
        let recorded_since = self.recorded_since.get(&thread).copied();
        self.asleep.insert(thread, Sleep { from: time, until: time, recorded_since, is_for_this });
    }

    /// From now on all is recorded of a thread of the VMM.
    pub(super) fn recorded(&mut self, time: HostNs, thread: Tid) {
        if self.recorded_since.len() < THREADS_MAX || self.recorded_since.contains_key(&thread) {
            self.recorded_since.entry(thread).or_insert(time);
        }
    }

    /// A thread of the VMM was woken, or is on a pCPU.
    pub(super) fn awake(&mut self, time: HostNs, thread: Tid) {
        let Some(sleep) = self.asleep.remove(&thread) else { return };
        self.over.push_back(Sleep { until: time, ..sleep });
        if self.over.len() > KEPT_MAX
            && let Some(gone) = self.over.pop_front()
        {
            self.forgotten_until = self.forgotten_until.max(gone.until);
        }
    }

    /// A thread of the VMM has ended: another one may have its number.
    pub(super) fn ended(&mut self, thread: Tid) {
        self.recorded_since.remove(&thread);
        self.asleep.remove(&thread);
    }

    /// Lets go of what was over before `time`.
    pub(super) fn forget_before(&mut self, time: HostNs) {
        while self.over.pop_front_if(|sleep| sleep.until < time).is_some() {}
    }

    /// When the host had what this request has to flush; `is_anothers` is whether another request may have asked
    /// for what took so long. Empty where no thread slept.
    pub(super) fn of(
        &self,
        request: &Window,
        is_anothers: impl Fn(&Range<HostNs>) -> bool,
    ) -> Result<Vec<Range<HostNs>>, NoPhase> {
        if request.earliest < self.forgotten_until {
            return Err(NoPhase::Forgotten);
        }
        // What began before the request, or goes on when it is over, is not for it.
        let lies_within =
            |sleep: &&Sleep| request.earliest <= sleep.from && sleep.until <= request.latest;
        let own = |sleep: &Sleep| {
            let time = sleep.from..sleep.until;
            let was_recorded = sleep.recorded_since.is_some_and(|since| since < request.earliest);
            let is_own = was_recorded && sleep.is_for_this && !is_anothers(&time);
            if is_own { Ok(time) } else { Err(NoPhase::Ambiguous) }
        };
        self.over.iter().filter(lies_within).map(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_event::StackId;

    #[test]
    fn the_stack_and_the_registers_of_a_thread_say_what_it_flushes() {
        let stacks = StackTable::from(
            [
                // Linux 6.18, a file of ext4 without a journal, and with one.
                &[
                    "io_schedule",
                    "bit_wait_io",
                    "ext4_sync_file",
                    "do_fsync",
                    "__x64_sys_fdatasync",
                ][..],
                &[
                    "schedule",
                    "jbd2_log_wait_commit",
                    "ext4_sync_file",
                    "do_fsync",
                    "__x64_sys_fsync",
                ],
                &["schedule", "io_schedule", "filemap_read", "__x64_sys_preadv"],
            ]
            .map(|frames| frames.iter().map(|frame| (*frame).to_owned()).collect())
            .to_vec(),
        );
        let of = |prev_state, stack: Option<u32>, call_args| {
            let (stack, tid) = (stack.map(StackId), Tid(1));
            SyncCall::of(&Switch { stack, call_args, ..Switch::new(tid, prev_state, tid) }, &stacks)
        };
        let args = Some([14, 0, 0]);
        let asleep = PrevState::DiskSleep;
        assert_eq!(of(asleep, Some(0), args), Some(SyncCall::Of(14)));
        assert_eq!(of(PrevState::Sleep, Some(1), args), Some(SyncCall::Of(14)));
        assert_eq!(of(asleep, Some(0), Some([(7 << 32) + 14, 0, 0])), Some(SyncCall::Of(14)));
        assert_eq!(of(asleep, Some(0), None), Some(SyncCall::Unknown));
        assert_eq!(of(asleep, None, None), Some(SyncCall::Unknown), "it may be in any");
        assert_eq!(of(asleep, Some(2), args), None, "in another call");
        for state in [PrevState::Runnable, PrevState::RunnablePreempted, PrevState::Stopped] {
            assert_eq!(of(state, Some(0), args), None, "it does not wait: {state:?}");
        }
        assert_eq!(of(PrevState::Sleep, None, None), None, "as threads do that have nothing to do");
    }
}
