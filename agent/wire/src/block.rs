//! A block of requests as columns of varints.
//!
//! A reader that reads one block after the other submits about a microsecond after its last
//! completion, on the same vCPU, the next index, with the same result. So the columns that repeat
//! are stored as runs and cost a few bytes a block, and each request costs its gap (2 bytes) and
//! its latency (3 bytes up to 2^21 ticks: 838 us at 2.5 GHz).
//!
//! ```text
//! block     := count:varint                at most BLOCK_REQUESTS_MAX
//!              reference:u8                0: previous completion, 1: previous submission
//!              runs of index               zigzag(index - (previous index + 1))
//!              runs of vcpu_submitted      varint
//!              runs of vcpu_completed      varint
//!              runs of result              zigzag
//!              count x submitted           zigzag(submitted - reference)
//!              count x latency             varint(completed - submitted)
//! runs      := { value length:varint }     lengths of at least 1 that add up to count
//! ```
//!
//! The first request has no previous one: its index and its submission are stored whole. All
//! differences wrap around 2^64, so that any values return as they were, the senseless ones too:
//! what a guest's clock says is for the reader of the run to judge.

use crate::bytes::{Cursor, bound, put_count};
use crate::leb128::{self, zigzag};
use crate::{BLOCK_REQUESTS_MAX, DecodeError, EncodeError, GuestTicks, Request};

/// What a request's submission is stored relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reference {
    /// Cheaper with one request in flight: the gap is the reader's own time.
    PreviousCompletion,
    /// Cheaper with many in flight: completions are far from the next submission.
    PreviousSubmission,
}

impl Reference {
    fn of(self, previous: &Request) -> u64 {
        match self {
            Self::PreviousCompletion => previous.completed.0,
            Self::PreviousSubmission => previous.submitted.0,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::PreviousCompletion => 0,
            Self::PreviousSubmission => 1,
        }
    }
}

pub(crate) fn put_block(out: &mut Vec<u8>, requests: &[Request]) -> Result<(), EncodeError> {
    bound("requests", requests.len(), BLOCK_REQUESTS_MAX)?;
    let reference = cheaper_reference(requests);
    put_count(out, requests.len());
    out.push(reference.number());
    put_runs(out, index_steps(requests));
    put_runs(out, requests.iter().map(|request| u64::from(request.vcpu_submitted)));
    put_runs(out, requests.iter().map(|request| u64::from(request.vcpu_completed)));
    put_runs(out, requests.iter().map(|request| zigzag(i64::from(request.result).cast_unsigned())));
    for gap in submission_gaps(requests, reference) {
        leb128::put(out, gap);
    }
    for request in requests {
        leb128::put(out, request.completed.0.wrapping_sub(request.submitted.0));
    }
    Ok(())
}

/// How far each index is from the one that was to be expected: 0 but for the first, with one
/// request in flight.
fn index_steps(requests: &[Request]) -> impl Iterator<Item = u64> {
    requests.iter().scan(0_u64, |expected, request| {
        let step = zigzag(request.index.wrapping_sub(*expected));
        *expected = request.index.wrapping_add(1);
        Some(step)
    })
}

fn submission_gaps(requests: &[Request], reference: Reference) -> impl Iterator<Item = u64> {
    requests.iter().scan(0_u64, move |from, request| {
        let gap = zigzag(request.submitted.0.wrapping_sub(*from));
        *from = reference.of(request);
        Some(gap)
    })
}

fn cheaper_reference(requests: &[Request]) -> Reference {
    let cost_bytes =
        |reference| submission_gaps(requests, reference).map(leb128::length_bytes).sum::<u32>();
    if cost_bytes(Reference::PreviousSubmission) < cost_bytes(Reference::PreviousCompletion) {
        Reference::PreviousSubmission
    } else {
        Reference::PreviousCompletion
    }
}

pub(crate) fn put_runs(out: &mut Vec<u8>, values: impl Iterator<Item = u64>) {
    let mut values = values.peekable();
    while let Some(value) = values.next() {
        let mut run_count = 1;
        while values.next_if_eq(&value).is_some() {
            run_count += 1;
        }
        leb128::put(out, value);
        put_count(out, run_count);
    }
}

pub(crate) fn take_block(cursor: &mut Cursor<'_>) -> Result<Vec<Request>, DecodeError> {
    let count = cursor.count("requests", BLOCK_REQUESTS_MAX)?;
    let reference = match cursor.u8()? {
        0 => Reference::PreviousCompletion,
        1 => Reference::PreviousSubmission,
        value => return Err(DecodeError::UnknownCase { what: "reference", value }),
    };
    let mut requests = vec![BLANK; count];
    take_indices(cursor, &mut requests)?;
    take_runs(cursor, &mut requests, "vcpu_submitted", take_vcpu, |request, vcpu| {
        request.vcpu_submitted = vcpu;
    })?;
    take_runs(cursor, &mut requests, "vcpu_completed", take_vcpu, |request, vcpu| {
        request.vcpu_completed = vcpu;
    })?;
    take_runs(cursor, &mut requests, "result", take_result, |request, result| {
        request.result = result;
    })?;
    for request in &mut requests {
        request.submitted = GuestTicks(cursor.zigzag()?);
    }
    let mut from = 0_u64;
    for request in &mut requests {
        let gap = request.submitted.0;
        let submitted = from.wrapping_add(gap);
        let latency = cursor.varint()?;
        request.submitted = GuestTicks(submitted);
        request.completed = GuestTicks(submitted.wrapping_add(latency));
        from = reference.of(request);
    }
    Ok(requests)
}

/// Every field of it is overwritten by a column.
const BLANK: Request = Request {
    index: 0,
    submitted: GuestTicks(0),
    completed: GuestTicks(0),
    vcpu_submitted: 0,
    vcpu_completed: 0,
    result: 0,
};

fn take_indices(cursor: &mut Cursor<'_>, requests: &mut [Request]) -> Result<(), DecodeError> {
    let mut expected = 0_u64;
    take_runs(
        cursor,
        requests,
        "index",
        |cursor| cursor.zigzag(),
        |request, step| {
            request.index = expected.wrapping_add(step);
            expected = request.index.wrapping_add(1);
        },
    )
}

fn take_vcpu(cursor: &mut Cursor<'_>) -> Result<u16, DecodeError> {
    let value = cursor.varint()?;
    u16::try_from(value).map_err(|_| DecodeError::OutOfRange { what: "vCPU", value })
}

fn take_result(cursor: &mut Cursor<'_>) -> Result<i32, DecodeError> {
    let value = cursor.zigzag()?;
    i32::try_from(value.cast_signed())
        .map_err(|_| DecodeError::OutOfRange { what: "result", value })
}

pub(crate) fn take_runs<Of, T: Copy>(
    cursor: &mut Cursor<'_>,
    mut left: &mut [Of],
    column: &'static str,
    take_value: impl Fn(&mut Cursor<'_>) -> Result<T, DecodeError>,
    mut set: impl FnMut(&mut Of, T),
) -> Result<(), DecodeError> {
    while !left.is_empty() {
        let value = take_value(cursor)?;
        let run_count = cursor.varint()?;
        let left_count = left.len();
        let length = usize::try_from(run_count)
            .ok()
            .filter(|&length| (1..=left_count).contains(&length))
            .ok_or(DecodeError::RunLength { column, run_count, left_count })?;
        let (run, rest) = left.split_at_mut(length);
        for request in run {
            set(request, value);
        }
        left = rest;
    }
    Ok(())
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
