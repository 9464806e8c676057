//! No reads at all: what a request costs the reader itself.

use super::ReaderEnd;
use super::session::Session;
use crate::clock::Clock;
use crate::error::WorkloadError;
use crate::pin::pin_current_thread;
use crate::ring::Producer;
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use vslice_spec::workload::ReaderSpec;

/// Does for each request of `spec`, on a target as long as its total, all that [`super::Reader::run`]
/// does for it but the read. It is there to be measured; the records say that a block was read.
///
/// # Errors
///
/// Whatever is wrong with the spec, or [`WorkloadError::Pin`].
pub fn run_without_reads(
    spec: &ReaderSpec,
    clock: Clock,
    producer: Producer,
    stop: &AtomicBool,
) -> Result<ReaderEnd, WorkloadError> {
    spec.validate()?;
    pin_current_thread(spec.vcpu)?;
    let result = i32::try_from(spec.block_bytes).expect("BLOCK_BYTES ends far below 2 GiB");
    let mut session = Session::start(spec, spec.total_bytes, clock, producer, stop);
    while let Some(planned) = session.next_request() {
        black_box(planned.offset);
        let submitted = session.stamp_before();
        let completed = session.stamp_after();
        session.record(planned.index, submitted, completed, result);
    }
    Ok(session.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::current_vcpu;
    use crate::ring::{Recorded, recording_ring};
    use vslice_spec::{ClockChoice, Engine, Pattern};

    #[test]
    fn every_request_is_recorded_as_if_it_were_read() {
        let spec = ReaderSpec {
            target: "unused".to_owned(),
            create: false,
            block_bytes: 4096,
            total_bytes: 20 * 4096,
            duration_ms: None,
            pattern: Pattern::Seq,
            engine: Engine::Psync,
            depth: 1,
            vcpu: current_vcpu(),
        };
        let (producer, mut consumer) = recording_ring(64);
        let clock = Clock::choose(ClockChoice::Auto);
        let run = || run_without_reads(&spec, clock, producer, &AtomicBool::new(false));
        let end = std::thread::scope(|scope| scope.spawn(run).join().unwrap()).unwrap();
        let expected =
            ReaderEnd { requests: 20, dropped: 0, completed: true, io_errors: 0, short_reads: 0 };
        assert_eq!(end, expected);
        for index in 0..20 {
            let Some(Recorded::Request(record)) = consumer.pop() else { panic!("no {index}") };
            assert_eq!((record.index, record.result), (index, 4096));
            assert!(record.completed >= record.submitted, "{record:?}");
            assert_eq!((record.vcpu_submitted, record.vcpu_completed), (spec.vcpu, spec.vcpu));
        }
        assert_eq!(consumer.pop(), None);
    }
}
