//! Bytes of a ring -> records. Pure: the bytes are those of a batch, copied out by `ring`.
//!
//! Every record begins with `perf_event_header` (type u32, misc u16, size u16) and is 8-byte
//! aligned; what follows depends on what was asked for, `perf_event_open(2)`.

use crate::RingError;
use crate::bytes::{u16_at, u32_at};

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 8;

/// One record, borrowed from a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Its type, `PERF_RECORD_*`.
    pub kind: u32,
    /// What follows its header.
    pub body: &'a [u8],
}

impl RawRecord<'_> {
    /// That it is too short for its type.
    #[must_use]
    pub fn is_short(&self) -> RingError {
        RingError::RecordShort { kind: self.kind, size_bytes: HEADER_BYTES + self.body.len() }
    }
}

/// Takes a batch apart, record by record. After an error nothing more comes: where the next record
/// would begin is not known.
#[derive(Debug, Clone)]
pub struct RawRecords<'a> {
    rest: &'a [u8],
}

impl<'a> RawRecords<'a> {
    /// Those of a batch.
    #[must_use]
    pub fn new(batch: &'a [u8]) -> Self {
        RawRecords { rest: batch }
    }
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = Result<RawRecord<'a>, RingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let left_bytes = self.rest.len();
        if left_bytes == 0 {
            return None;
        }
        let size_bytes = u16_at(self.rest, 6).map_or(0, usize::from);
        if size_bytes < HEADER_BYTES || size_bytes > left_bytes {
            self.rest = &[];
            return Some(Err(RingError::RecordSize { size_bytes, left_bytes }));
        }
        let (record, rest) = self.rest.split_at(size_bytes);
        self.rest = rest;
        let kind = u32_at(record, 0).unwrap_or_default();
        Some(Ok(RawRecord { kind, body: &record[HEADER_BYTES..] }))
    }
}
