//! The columns of a guest's requests before version 6.
//!
//! After kind (runs: 0 a request, 1 a drop) come the requests: index, submitted (delta each),
//! completed minus submitted (delta coded against 0: zigzag varint), vCPU at submission and at
//! completion (runs), result (runs of zigzag); then the drops: count (varint), first, last (delta).

use super::{RequestItem, decode_drops, items_of};
use crate::column::{CodecError, ColumnReader};
use vslice_wire::leb128::from_zigzag;
use vslice_wire::{GuestTicks, Request};

/// The items of a block.
pub(super) fn decode(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<RequestItem>, CodecError> {
    let kinds = columns.runs::<u64>(count)?;
    let drop_count = kinds.iter().filter(|kind| **kind == 1).count();
    let requests = decode_requests(count - drop_count, columns)?;
    items_of(&kinds, requests, decode_drops(drop_count, columns)?)
}

fn decode_requests(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<Request>, CodecError> {
    let indexes = columns.deltas::<u64>(count)?;
    let submissions = columns.deltas::<u64>(count)?;
    let latencies = columns.varints::<u64>(count)?;
    let vcpus_submitted = columns.runs::<u16>(count)?;
    let vcpus_completed = columns.runs::<u16>(count)?;
    let results = columns.runs::<u64>(count)?;
    let request = |place: usize| {
        let submitted = submissions[place];
        let latency = from_zigzag(latencies[place]);
        let result = from_zigzag(results[place]).cast_signed();
        Ok(Request {
            index: indexes[place],
            submitted: GuestTicks(submitted),
            completed: GuestTicks(submitted.wrapping_add(latency)),
            vcpu_submitted: vcpus_submitted[place],
            vcpu_completed: vcpus_completed[place],
            result: i32::try_from(result).map_err(|_| CodecError::OutOfRange(results[place]))?,
        })
    };
    (0..count).map(request).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::{put_deltas, put_runs, put_varints};
    use crate::requests::tests::any_item;
    use proptest::prelude::*;
    use vslice_wire::Dropped;
    use vslice_wire::leb128::zigzag;

    /// As it was done.
    fn encode(items: &[RequestItem], payload: &mut Vec<u8>) {
        put_runs(items.iter().map(|item| u64::from(item.dropped().is_some())), payload);
        let requests = || items.iter().filter_map(RequestItem::request);
        put_deltas(requests().map(|request| request.index), payload);
        put_deltas(requests().map(|request| request.submitted.0), payload);
        put_varints(
            requests().map(|request| zigzag(request.completed.0.wrapping_sub(request.submitted.0))),
            payload,
        );
        put_runs(requests().map(|request| request.vcpu_submitted.into()), payload);
        put_runs(requests().map(|request| request.vcpu_completed.into()), payload);
        put_runs(
            requests().map(|request| zigzag(i64::from(request.result).cast_unsigned())),
            payload,
        );
        let drops = || items.iter().filter_map(RequestItem::dropped);
        put_varints(drops().map(|dropped| dropped.count), payload);
        put_deltas(drops().map(|dropped| dropped.first.0), payload);
        put_deltas(drops().map(|dropped| dropped.last.0), payload);
    }

    #[test]
    fn one_request_and_one_drop_have_these_bytes() {
        let request = Request {
            index: 1,
            submitted: GuestTicks(100),
            completed: GuestTicks(103),
            vcpu_submitted: 2,
            vcpu_completed: 3,
            result: -5,
        };
        let dropped = Dropped { count: 9, first: GuestTicks(4), last: GuestTicks(6) };
        let items = [RequestItem::Request(request), RequestItem::Dropped(dropped)];
        let mut payload = Vec::new();
        encode(&items, &mut payload);
        assert_eq!(
            payload,
            [
                0, 0, 0, 1, /* request */ 2, 200, 1, 6, 0, 2, 0, 3, 0, 9, /* drop */ 9,
                8, 12
            ]
        );
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        let mut columns = ColumnReader::new(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode(1, &mut columns), Err(CodecError::OutOfRange(2)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(items in prop::collection::vec(any_item(), 0..80)) {
            let mut payload = Vec::new();
            encode(&items, &mut payload);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(decode(items.len(), &mut columns).unwrap(), items);
            prop_assert_eq!(columns.finish(), Ok(()));
        }
    }
}
