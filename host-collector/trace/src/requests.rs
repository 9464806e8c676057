//! The columns of a guest's requests.
//!
//! After kind (runs: 0 a request, 1 a drop) come the requests: index, submitted (delta each),
//! completed minus submitted (delta coded against 0: zigzag varint), vCPU at submission and at
//! completion (runs), result (runs of zigzag); then the drops: count (varint), first, last (delta).

use super::column::{
    CodecError, ColumnReader, Columnar, StreamKind, put_deltas, put_runs, put_varints,
};
use vslice_wire::leb128::{from_zigzag, zigzag};
use vslice_wire::{Dropped, GuestTicks, Request};

/// One item of `requests-<vm>.vsr`, in the order in which the guest sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestItem {
    /// A request as the guest saw it.
    Request(Request),
    /// Requests that the guest made but could not record.
    Dropped(Dropped),
}

impl RequestItem {
    fn request(&self) -> Option<&Request> {
        match self {
            RequestItem::Request(request) => Some(request),
            RequestItem::Dropped(_) => None,
        }
    }

    fn dropped(&self) -> Option<&Dropped> {
        match self {
            RequestItem::Request(_) => None,
            RequestItem::Dropped(dropped) => Some(dropped),
        }
    }
}

impl Columnar for RequestItem {
    const KIND: StreamKind = StreamKind::Requests;

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        put_runs(items.iter().map(|item| u64::from(item.dropped().is_some())), payload);
        let requests = || items.iter().filter_map(RequestItem::request);
        put_deltas(requests().map(|request| request.index), payload);
        put_deltas(requests().map(|request| request.submitted.0), payload);
        put_varints(requests().map(latency_code), payload);
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

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
        let kinds = columns.runs::<u64>(count)?;
        let drop_count = kinds.iter().filter(|kind| **kind == 1).count();
        let mut requests = decode_requests(count - drop_count, columns)?.into_iter();
        let mut drops = decode_drops(drop_count, columns)?.into_iter();
        let item = |kind: u64| {
            let item = match kind {
                0 => requests.next().map(RequestItem::Request),
                1 => drops.next().map(RequestItem::Dropped),
                _ => None,
            };
            item.ok_or(CodecError::OutOfRange(kind))
        };
        kinds.into_iter().map(item).collect()
    }
}

/// A hostile guest may say that it completed before it submitted, so the sign is kept.
fn latency_code(request: &Request) -> u64 {
    zigzag(request.completed.0.wrapping_sub(request.submitted.0))
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

fn decode_drops(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Dropped>, CodecError> {
    let counts = columns.varints::<u64>(count)?;
    let firsts = columns.deltas::<u64>(count)?;
    let lasts = columns.deltas::<u64>(count)?;
    let dropped = |((count, first), last)| Dropped {
        count,
        first: GuestTicks(first),
        last: GuestTicks(last),
    };
    Ok(counts.into_iter().zip(firsts).zip(lasts).map(dropped).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_item() -> impl Strategy<Value = RequestItem> {
        let ticks = || any::<u64>().prop_map(GuestTicks);
        let request = (any::<u64>(), ticks(), ticks(), any::<u16>(), any::<u16>(), any::<i32>())
            .prop_map(|(index, submitted, completed, vcpu_submitted, vcpu_completed, result)| {
                RequestItem::Request(Request {
                    index,
                    submitted,
                    completed,
                    vcpu_submitted,
                    vcpu_completed,
                    result,
                })
            });
        let dropped = (any::<u64>(), ticks(), ticks())
            .prop_map(|(count, first, last)| RequestItem::Dropped(Dropped { count, first, last }));
        prop_oneof![4 => request, 1 => dropped]
    }

    #[test]
    fn a_steady_reader_costs_about_six_bytes_a_request() {
        let request = |index: u64| {
            let submitted = 1_000_000_000_000 + index * 250_000;
            RequestItem::Request(Request {
                index,
                submitted: GuestTicks(submitted),
                completed: GuestTicks(submitted + 180_000 + index % 1000),
                vcpu_submitted: 2,
                vcpu_completed: 2,
                result: 4096,
            })
        };
        let items: Vec<RequestItem> = (0..4096).map(request).collect();
        let mut payload = Vec::new();
        RequestItem::encode(&items, &mut payload);
        assert!(payload.len() <= 4096 * 7 + 64, "{} bytes", payload.len());
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
        RequestItem::encode(&items, &mut payload);
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
        assert_eq!(RequestItem::decode(1, &mut columns), Err(CodecError::OutOfRange(2)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(items in prop::collection::vec(any_item(), 0..80)) {
            let mut payload = Vec::new();
            RequestItem::encode(&items, &mut payload);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(RequestItem::decode(items.len(), &mut columns).unwrap(), items);
            prop_assert_eq!(columns.finish(), Ok(()));
        }
    }
}
