//! What both engines share: when the reader is done, and what is recorded of each read.

use super::ReaderEnd;
use crate::clock::{Clock, coarse_now_ns};
use crate::pin::current_vcpu;
use crate::ring::{Producer, Record};
use std::sync::atomic::{AtomicBool, Ordering};
use vslice_spec::ReaderSpec;
use vslice_spec::offsets::Offsets;

/// The state of one run of a reader.
#[derive(Debug)]
pub(super) struct Session<'run> {
    clock: Clock,
    producer: Producer,
    stop: &'run AtomicBool,
    offsets: Offsets,
    block_bytes: u32,
    request_limit: u64,
    /// On the coarse clock.
    deadline_ns: Option<u64>,
    /// When the last completion was seen.
    completed: u64,
    requests: u64,
    phase: Phase,
    io_errors: u64,
    short_reads: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    Completed,
    Stopped,
}

/// A read that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) index: u64,
    pub(super) offset: u64,
}

/// When and where one end of a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    time: u64,
    vcpu: u16,
}

impl<'run> Session<'run> {
    pub(super) fn start(
        spec: &ReaderSpec,
        target_bytes: u64,
        clock: Clock,
        producer: Producer,
        stop: &'run AtomicBool,
    ) -> Session<'run> {
        const NS_PER_MS: u64 = 1_000_000;
        let duration_ns = spec.duration_ms.map(|ms| ms.saturating_mul(NS_PER_MS));
        Session {
            clock,
            producer,
            stop,
            offsets: Offsets::new(spec.pattern, spec.block_bytes, target_bytes),
            block_bytes: spec.block_bytes,
            request_limit: spec.total_bytes.div_ceil(u64::from(spec.block_bytes)),
            deadline_ns: duration_ns.map(|ns| coarse_now_ns().saturating_add(ns)),
            completed: 0,
            requests: 0,
            phase: Phase::Reading,
            io_errors: 0,
            short_reads: 0,
        }
    }

    /// The next read, or `None` from the moment on when no further one shall be made.
    #[inline]
    pub(super) fn next_request(&mut self) -> Option<Planned> {
        if self.phase == Phase::Reading {
            self.phase = self.phase_now();
        }
        if self.phase != Phase::Reading {
            return None;
        }
        let index = self.requests;
        self.requests += 1;
        let offset = self.offsets.next().expect("the offsets are endless");
        Some(Planned { index, offset })
    }

    /// Reading all of the total counts as completed, also if `stop` is set at that very moment.
    fn phase_now(&self) -> Phase {
        if self.requests == self.request_limit {
            Phase::Completed
        } else if self.stop.load(Ordering::Relaxed) {
            Phase::Stopped
        } else if self.deadline_ns.is_some_and(|deadline_ns| coarse_now_ns() >= deadline_ns) {
            Phase::Completed
        } else {
            Phase::Reading
        }
    }

    /// The last thing before a request goes to the kernel: the clock after the vCPU, so that looking up
    /// the vCPU is not part of the latency. It is not before the last [`Session::stamp_after`], which the
    /// processor may still be at.
    #[inline]
    pub(super) fn stamp_before(&self) -> Stamp {
        let (vcpu, completed) = (current_vcpu(), self.completed);
        Stamp { time: self.clock.beginning().max(completed), vcpu }
    }

    /// The first thing after a completion was seen: the clock before the vCPU.
    #[inline]
    pub(super) fn stamp_after(&mut self) -> Stamp {
        self.completed = self.clock.end();
        Stamp { time: self.completed, vcpu: current_vcpu() }
    }

    /// Records what became of a request; `result` is bytes, or the negated errno.
    #[inline]
    pub(super) fn record(&mut self, index: u64, submitted: Stamp, completed: Stamp, result: i32) {
        match u32::try_from(result) {
            Err(_) => self.io_errors += 1,
            Ok(bytes) if bytes < self.block_bytes => self.short_reads += 1,
            Ok(_) => {}
        }
        self.producer.push(Record {
            index,
            submitted: submitted.time,
            completed: completed.time,
            vcpu_submitted: submitted.vcpu,
            vcpu_completed: completed.vcpu,
            result,
        });
    }

    /// Ends the session, and with it the ring.
    pub(super) fn end(self) -> ReaderEnd {
        ReaderEnd {
            requests: self.requests,
            dropped: self.producer.dropped_count(),
            completed: self.phase == Phase::Completed,
            io_errors: self.io_errors,
            short_reads: self.short_reads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::recording_ring;
    use vslice_spec::ClockChoice;
    use vslice_spec::workload::{Engine, Pattern};

    #[test]
    fn no_request_is_told_to_begin_before_the_last_completion_was_seen() {
        let spec = ReaderSpec {
            target: "unused".to_owned(),
            create: false,
            block_bytes: 4096,
            total_bytes: 4096,
            duration_ms: None,
            pattern: Pattern::Seq,
            engine: Engine::Psync,
            depth: 1,
            vcpu: 0,
        };
        let (producer, _consumer) = recording_ring(1);
        let stop = AtomicBool::new(false);
        let clock = Clock::choose(ClockChoice::Auto);
        let mut session = Session::start(&spec, 4096, clock, producer, &stop);
        let completed = session.stamp_after();
        assert_eq!(session.completed, completed.time);
        // As if the processor had been quicker with the later reading of the two.
        session.completed = u64::MAX;
        assert_eq!(session.stamp_before().time, u64::MAX);
    }
}
