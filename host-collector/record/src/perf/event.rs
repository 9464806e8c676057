//! Bytes of a ring -> records. Pure: the bytes are those of a batch, copied out by `ring`.
//!
//! Every record begins with `perf_event_header` (type u32, misc u16, size u16) and is 8-byte
//! aligned. With `sample_id_all` all but samples end with time u64 (`perf_event_open(2)`, for
//! sample_type TIME).
#![cfg_attr(test, expect(clippy::host_endian_bytes, reason = "the tests write as the kernel does"))]

use super::RingError;
use super::registers;
use perf_event_open_sys::bindings::{
    PERF_RECORD_CGROUP, PERF_RECORD_COMM, PERF_RECORD_EXIT, PERF_RECORD_FORK, PERF_RECORD_LOST,
    PERF_RECORD_SAMPLE,
};
use vslice_core::units::HostNs;
use vslice_perf::bytes::{u32_at, u64_at};
use vslice_perf::record::RawRecords;

const TIME_BYTES: usize = 8;

/// One record, borrowed from a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// A tracepoint's occurrence.
    Sample(Sample<'a>),
    /// Records that found no room, up to now.
    Lost { time: HostNs, count: u64 },
    /// A thread has a new name, NUL-terminated.
    Comm { time: HostNs, pid: u32, tid: u32, comm: &'a [u8] },
    /// A thread was born.
    Fork { time: HostNs, pid: u32, tid: u32, parent_pid: u32 },
    /// A thread has ended.
    Exit { time: HostNs, pid: u32, tid: u32 },
    /// A control group was made; its path is NUL-terminated.
    Group { time: HostNs, number: u64, path: &'a [u8] },
    /// Anything else; nothing else was asked for.
    Other,
}

/// A tracepoint's occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample<'a> {
    pub(super) time: HostNs,
    /// The callchain: 8 bytes a frame, with the kernel's context markers.
    pub(super) chain: Callchain<'a>,
    /// The tracepoint's own data, see `format`.
    pub(super) raw: &'a [u8],
    /// The first three arguments of the system call that the current task is in.
    pub(super) call_args: Option<[u64; 3]>,
}

/// A callchain as the ring holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Callchain<'a>(&'a [u8]);

impl Callchain<'_> {
    /// Whether there is none.
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The addresses, the innermost first, without the markers (`PERF_CONTEXT_*`, the top 4095
    /// values) that say where kernel and user frames begin.
    pub(super) fn frames(self) -> impl Iterator<Item = u64> {
        let words = self.0.chunks_exact(8).filter_map(|word| u64_at(word, 0));
        words.filter(|address| *address < u64::MAX - 4094)
    }
}

/// Takes a batch apart, record by record. After an error nothing more comes: where the next record
/// would begin is not known.
#[derive(Debug)]
pub(super) struct Records<'a> {
    raw: RawRecords<'a>,
}

impl<'a> Records<'a> {
    pub(super) fn new(batch: &'a [u8]) -> Self {
        Records { raw: RawRecords::new(batch) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.raw.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        Some(parse(record.kind, record.body).ok_or_else(|| record.is_short()))
    }
}

/// A record's body; `None` where it is too short for its type.
fn parse(kind: u32, body: &[u8]) -> Option<Record<'_>> {
    if kind == PERF_RECORD_SAMPLE {
        return parse_sample(body).map(Record::Sample);
    }
    let own = || {
        let (own, time) = body.split_at_checked(body.len().checked_sub(TIME_BYTES)?)?;
        Some((own, HostNs(u64_at(time, 0)?)))
    };
    Some(match kind {
        PERF_RECORD_LOST => {
            let (own, time) = own()?;
            Record::Lost { time, count: u64_at(own, 8)? }
        }
        PERF_RECORD_COMM => {
            let (own, time) = own()?;
            let (pid, tid, comm) = (u32_at(own, 0)?, u32_at(own, 4)?, own.get(8..)?);
            Record::Comm { time, pid, tid, comm }
        }
        PERF_RECORD_FORK => {
            let (own, time) = own()?;
            let (pid, parent_pid, tid) = (u32_at(own, 0)?, u32_at(own, 4)?, u32_at(own, 8)?);
            Record::Fork { time, pid, tid, parent_pid }
        }
        PERF_RECORD_EXIT => {
            let (own, time) = own()?;
            Record::Exit { time, pid: u32_at(own, 0)?, tid: u32_at(own, 8)? }
        }
        PERF_RECORD_CGROUP => {
            let (own, time) = own()?;
            Record::Group { time, number: u64_at(own, 0)?, path: own.get(8..)? }
        }
        _ => Record::Other,
    })
}

/// time u64, frames u64, frames, raw size u32, raw; of an event that asks for user registers then
/// abi u64, registers (see `registers`).
fn parse_sample(body: &[u8]) -> Option<Sample<'_>> {
    let time = HostNs(u64_at(body, 0)?);
    let chain_bytes = usize::try_from(u64_at(body, 8)?).ok()?.checked_mul(8)?;
    let (chain, rest) = body.get(16..)?.split_at_checked(chain_bytes)?;
    let raw_bytes = usize::try_from(u32_at(rest, 0)?).ok()?;
    let (raw, registers) = rest.get(4..)?.split_at_checked(raw_bytes)?;
    Some(Sample { time, chain: Callchain(chain), raw, call_args: registers::call_args(registers) })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use vslice_perf::record::HEADER_BYTES;

    /// Builds the bytes of records as the kernel writes them.
    #[derive(Debug, Default)]
    pub(in crate::perf) struct Bytes(pub(in crate::perf) Vec<u8>);

    impl Bytes {
        pub(in crate::perf) fn record(&mut self, kind: u32, body: &[u8]) {
            let size = u16::try_from(HEADER_BYTES + body.len()).unwrap();
            assert_eq!(size % 8, 0, "the kernel aligns records");
            self.0.extend(kind.to_ne_bytes());
            self.0.extend([0; 2]);
            self.0.extend(size.to_ne_bytes());
            self.0.extend(body);
        }

        pub(in crate::perf) fn sample(&mut self, time: u64, chain: &[u64], raw: &[u8]) {
            self.sample_in_call(time, chain, raw, &[]);
        }

        /// `registers` are the words that follow the raw data: the ABI and the registers.
        pub(in crate::perf) fn sample_in_call(
            &mut self,
            time: u64,
            chain: &[u64],
            raw: &[u8],
            registers: &[u64],
        ) {
            let mut body = time.to_ne_bytes().to_vec();
            body.extend((chain.len() as u64).to_ne_bytes());
            body.extend(chain.iter().flat_map(|address| address.to_ne_bytes()));
            // The kernel pads raw data so that its size and itself fill whole words.
            let padded = (raw.len() + 4).next_multiple_of(8) - 4;
            body.extend(words(&[u32::try_from(padded).unwrap()]));
            body.extend(raw);
            body.resize(body.len() + padded - raw.len(), 0);
            body.extend(registers.iter().flat_map(|word| word.to_ne_bytes()));
            self.record(PERF_RECORD_SAMPLE, &body);
        }

        /// A record that is no sample: its own words, then the sample id.
        pub(in crate::perf) fn other(&mut self, kind: u32, time: u64, own: &[u8]) {
            let body = [own, &time.to_ne_bytes()].concat();
            self.record(kind, &body);
        }

        pub(in crate::perf) fn lost(&mut self, time: u64, count: u64) {
            let own = [7u64.to_ne_bytes(), count.to_ne_bytes()].concat();
            self.other(PERF_RECORD_LOST, time, &own);
        }

        pub(in crate::perf) fn comm(&mut self, time: u64, tid: u32, comm: &[u8]) {
            let mut own = words(&[tid, tid]);
            own.extend(comm);
            own.resize(own.len().next_multiple_of(8), 0);
            self.other(PERF_RECORD_COMM, time, &own);
        }

        /// A birth or a death: pid, parent pid, tid, parent tid, time.
        pub(in crate::perf) fn life(&mut self, kind: u32, time: u64, ids: [u32; 4]) {
            let mut own = words(&ids);
            own.extend(time.to_ne_bytes());
            self.other(kind, time, &own);
        }
    }

    pub(in crate::perf) fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn each_record_says_what_the_kernel_wrote() {
        let mut bytes = Bytes::default();
        bytes.sample(100, &[u64::MAX - 127, 0xffff_8000_0000_1000, 0xffff_8000_0000_2000], b"abcd");
        bytes.lost(101, 9);
        bytes.comm(102, 61, b"worker\0");
        bytes.life(PERF_RECORD_FORK, 103, [60, 40, 61, 41]);
        bytes.life(PERF_RECORD_EXIT, 104, [60, 40, 61, 41]);
        bytes.record(10, &[0; 8]);
        let records: Vec<Record<'_>> = Records::new(&bytes.0).map(Result::unwrap).collect();
        let Record::Sample(sample) = records[0] else { panic!("{:?}", records[0]) };
        assert_eq!((sample.time, &sample.raw[..4]), (HostNs(100), &b"abcd"[..]));
        let frames: Vec<u64> = sample.chain.frames().collect();
        assert_eq!(frames, [0xffff_8000_0000_1000, 0xffff_8000_0000_2000]);
        let rest = [
            Record::Lost { time: HostNs(101), count: 9 },
            Record::Comm { time: HostNs(102), pid: 61, tid: 61, comm: b"worker\0\0" },
            Record::Fork { time: HostNs(103), pid: 60, tid: 61, parent_pid: 40 },
            Record::Exit { time: HostNs(104), pid: 60, tid: 61 },
            Record::Other,
        ];
        assert_eq!(records[1..], rest);
    }

    #[test]
    fn sizes_that_cannot_be_are_errors() {
        let mut bytes = Bytes::default();
        bytes.lost(1, 1);
        let whole = bytes.0;
        let left_bytes = whole.len() - 1;
        let cut = Records::new(&whole[..left_bytes]).next();
        let size_bytes = whole.len();
        assert_eq!(cut, Some(Err(RingError::RecordSize { size_bytes, left_bytes })));
        for size in [0u16, 7] {
            let mut bad = whole.clone();
            bad[6..8].copy_from_slice(&size.to_ne_bytes());
            let read: Vec<_> = Records::new(&bad).collect();
            let (size_bytes, left_bytes) = (size.into(), bad.len());
            assert_eq!(read, [Err(RingError::RecordSize { size_bytes, left_bytes })]);
        }
        let mut short = Bytes::default();
        short.record(PERF_RECORD_LOST, &[0; 8]);
        let expected = RingError::RecordShort { kind: PERF_RECORD_LOST, size_bytes: 16 };
        assert_eq!(Records::new(&short.0).next(), Some(Err(expected)));
        let mut endless = Bytes::default();
        endless.sample(1, &[], b"abcd");
        let count_at = HEADER_BYTES + 8;
        endless.0[count_at..count_at + 8].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert!(matches!(Records::new(&endless.0).next(), Some(Err(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_run_on(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400),
            kind in 0u32..16,
            size in 0u16..400,
        ) {
            if bytes.len() >= 8 {
                bytes[..4].copy_from_slice(&kind.to_ne_bytes());
                bytes[6..8].copy_from_slice(&size.to_ne_bytes());
            }
            let count = Records::new(&bytes).map(|record| {
                if let Ok(Record::Sample(sample)) = record {
                    sample.chain.frames().count();
                }
            }).count();
            prop_assert!(count <= bytes.len() / HEADER_BYTES + 1);
        }
    }
}
