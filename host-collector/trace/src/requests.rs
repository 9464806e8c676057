//! The columns of a guest's requests.
//!
//! A reader with one block in flight submits about a microsecond after its last completion; one with several does so
//! after that of the request as many before. So a submission is stored as the time since what it follows, the block's
//! *reference*: 0 is the submission of the request before, and n is the completion of the n-th before it, if
//! there is one. The parts, in their order:
//!
//! | part | values |
//! |---|---|
//! | facts | kind (runs: 0 a request, 1 a drop); reference (byte); vCPU at submission, at completion (runs each); result (runs of zigzag); then the drops: count (varint), first, last (delta) |
//! | indexes | index less that of the request before plus 1 (zigzag varint) |
//! | low bytes of gaps | a byte each, of the submission after the reference (zigzag) |
//! | rest of gaps | that / 256 (varint) |
//! | low bytes of latencies | a byte each, of the completion after the submission (zigzag) |
//! | rest of latencies | that / 256 (varint) |

mod earlier;

use super::column::{
    CodecError, ColumnReader, Columnar, StreamKind, put_deltas, put_parts, put_runs, put_varint,
    put_varints,
};
use vslice_wire::leb128::{from_zigzag, length_bytes, zigzag};
use vslice_wire::{Dropped, GuestTicks, Request};

const PARTS: usize = 6;

/// References that are tried, and on how many requests of a block.
const REFERENCES: [u8; 9] = [1, 0, 2, 4, 8, 16, 32, 64, 128];
const TRIED_COUNT: usize = 256;

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
    const PARTS: usize = PARTS;

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        let requests: Vec<Request> =
            items.iter().filter_map(RequestItem::request).copied().collect();
        let reference = cheapest_reference(&requests);
        let mut parts = [const { Vec::new() }; PARTS];
        let [facts, indexes, gaps, times] = [0, 1, 2, 4];
        put_runs(items.iter().map(|item| u64::from(item.dropped().is_some())), &mut parts[facts]);
        parts[facts].push(reference);
        put_facts(&requests, &mut parts[facts]);
        let drops = || items.iter().filter_map(RequestItem::dropped);
        put_varints(drops().map(|dropped| dropped.count), &mut parts[facts]);
        put_deltas(drops().map(|dropped| dropped.first.0), &mut parts[facts]);
        put_deltas(drops().map(|dropped| dropped.last.0), &mut parts[facts]);
        let mut index = 0_u64;
        for (place, request) in requests.iter().enumerate() {
            put_varint(zigzag(request.index.wrapping_sub(index)), &mut parts[indexes]);
            index = request.index.wrapping_add(1);
            let gap = request.submitted.0.wrapping_sub(followed(&requests, place, reference));
            put_time(gap, &mut parts[gaps..]);
            let latency = request.completed.0.wrapping_sub(request.submitted.0);
            put_time(latency, &mut parts[times..]);
        }
        put_parts(&parts, payload);
    }

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
        let [mut facts, indexes, gaps, gaps_rest, latencies, latencies_rest] =
            columns.parts::<PARTS>()?;
        let kinds = facts.runs::<u64>(count)?;
        let drop_count = kinds.iter().filter(|kind| **kind == 1).count();
        let reference = facts.byte()?;
        let mut requests = take_facts(count - drop_count, &mut facts)?;
        let drops = decode_drops(drop_count, &mut facts)?;
        facts.finish()?;
        take_times(
            &mut requests,
            reference,
            [indexes, gaps, gaps_rest, latencies, latencies_rest],
        )?;
        items_of(&kinds, requests, drops)
    }

    fn decode_earlier(
        count: usize,
        columns: &mut ColumnReader<'_>,
    ) -> Result<Vec<Self>, CodecError> {
        earlier::decode(count, columns)
    }
}

/// What the submission of the request at `place` is stored relative to.
fn followed(requests: &[Request], place: usize, reference: u8) -> u64 {
    let back = usize::from(reference);
    if let (1.., Some(before)) = (back, place.checked_sub(back)) {
        return requests[before].completed.0;
    }
    place.checked_sub(1).map_or(0, |before| requests[before].submitted.0)
}

fn cheapest_reference(requests: &[Request]) -> u8 {
    let tried = &requests[..requests.len().min(TRIED_COUNT)];
    let cost_bytes = |reference: &u8| {
        let gap = |(place, request): (usize, &Request)| {
            request.submitted.0.wrapping_sub(followed(tried, place, *reference))
        };
        tried.iter().enumerate().map(gap).map(|gap| length_bytes(zigzag(gap))).sum::<u32>()
    };
    REFERENCES.into_iter().min_by_key(cost_bytes).unwrap_or_default()
}

/// A difference of times. What a hostile guest says may be negative, so the sign is kept.
fn put_time(difference: u64, parts: &mut [Vec<u8>]) {
    let code = zigzag(difference);
    parts[0].push(code.to_le_bytes()[0]);
    put_varint(code >> 8, &mut parts[1]);
}

fn take_time(low: &mut ColumnReader<'_>, rest: &mut ColumnReader<'_>) -> Result<u64, CodecError> {
    Ok(from_zigzag(rest.varint()? << 8 | u64::from(low.byte()?)))
}

fn put_facts(requests: &[Request], facts: &mut Vec<u8>) {
    put_runs(requests.iter().map(|request| request.vcpu_submitted.into()), facts);
    put_runs(requests.iter().map(|request| request.vcpu_completed.into()), facts);
    let results = requests.iter().map(|request| i64::from(request.result).cast_unsigned());
    put_runs(results.map(zigzag), facts);
}

/// Requests without index and times.
fn take_facts(count: usize, facts: &mut ColumnReader<'_>) -> Result<Vec<Request>, CodecError> {
    let vcpus_submitted = facts.runs::<u16>(count)?;
    let vcpus_completed = facts.runs::<u16>(count)?;
    let results = facts.runs::<u64>(count)?;
    let rest = vcpus_completed.into_iter().zip(results);
    let request = |(vcpu_submitted, (vcpu_completed, result)): (u16, (u16, u64))| {
        let (submitted, completed) = (GuestTicks(0), GuestTicks(0));
        let result = i32::try_from(from_zigzag(result).cast_signed())
            .map_err(|_| CodecError::OutOfRange(result))?;
        Ok(Request { index: 0, submitted, completed, vcpu_submitted, vcpu_completed, result })
    };
    vcpus_submitted.into_iter().zip(rest).map(request).collect()
}

fn take_times(
    requests: &mut [Request],
    reference: u8,
    [mut indexes, mut gaps, mut gaps_rest, mut latencies, mut latencies_rest]: [ColumnReader<'_>;
        5],
) -> Result<(), CodecError> {
    let mut index = 0_u64;
    for place in 0..requests.len() {
        index = index.wrapping_add(from_zigzag(indexes.varint()?));
        let gap = take_time(&mut gaps, &mut gaps_rest)?;
        let submitted = followed(requests, place, reference).wrapping_add(gap);
        let latency = take_time(&mut latencies, &mut latencies_rest)?;
        let request = &mut requests[place];
        request.index = index;
        index = index.wrapping_add(1);
        request.submitted = GuestTicks(submitted);
        request.completed = GuestTicks(submitted.wrapping_add(latency));
    }
    let parts = [indexes, gaps, gaps_rest, latencies, latencies_rest];
    parts.into_iter().try_for_each(ColumnReader::finish)
}

/// Requests and drops in the order of their kinds.
fn items_of(
    kinds: &[u64],
    requests: Vec<Request>,
    drops: Vec<Dropped>,
) -> Result<Vec<RequestItem>, CodecError> {
    let (mut requests, mut drops) = (requests.into_iter(), drops.into_iter());
    let item = |kind: &u64| {
        let item = match *kind {
            0 => requests.next().map(RequestItem::Request),
            1 => drops.next().map(RequestItem::Dropped),
            _ => None,
        };
        item.ok_or(CodecError::OutOfRange(*kind))
    };
    kinds.iter().map(item).collect()
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
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn any_item() -> impl Strategy<Value = RequestItem> {
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

    fn request(index: u64, submitted: u64, completed: u64) -> Request {
        let (vcpu_submitted, vcpu_completed, result) = (2, 3, -5);
        let (submitted, completed) = (GuestTicks(submitted), GuestTicks(completed));
        Request { index, submitted, completed, vcpu_submitted, vcpu_completed, result }
    }

    fn encoded(items: &[RequestItem]) -> Vec<u8> {
        let mut payload = Vec::new();
        RequestItem::encode(items, &mut payload);
        payload
    }

    #[test]
    fn requests_and_a_drop_have_these_bytes() {
        let dropped = Dropped { count: 9, first: GuestTicks(4), last: GuestTicks(6) };
        let items = [
            RequestItem::Request(request(1, 100, 400)),
            RequestItem::Request(request(2, 405, 404)),
            RequestItem::Dropped(dropped),
        ];
        let expected: [&[u8]; 7] = [
            &[14, 2, 2, 2, 2, 2],
            // Kinds, reference, vCPUs, result, the drop.
            &[1, 0, 0, 1, 1, 1, 2, 1, 3, 1, 9, 9, 8, 12],
            &[],
            // Indexes.
            &[2, 0],
            // 100 after nothing, 5 after the completion.
            &[200, 10, 0, 0],
            // 300, which is 600 as a zigzag; 1 back.
            &[0x58, 1, 2, 0],
            &[],
        ];
        assert_eq!(encoded(&items), expected.concat());
    }

    #[test]
    fn the_reference_is_what_a_reader_of_that_depth_waits_for() {
        for depth in [1_u64, 4, 32] {
            // Each submits 1,000 ticks after its predecessor in the same place, whose latency changes.
            let mut requests: Vec<Request> = Vec::new();
            for index in 0..1000_u64 {
                let after = index.checked_sub(depth).and_then(|at| usize::try_from(at).ok());
                let start = after.map_or(index * 100_000, |at| requests[at].completed.0 + 1000);
                let latency = 3_000_000 + index * 7919 % 1_000_000;
                requests.push(request(index, start, start + latency));
            }
            assert_eq!(u64::from(cheapest_reference(&requests)), depth);
        }
        // All at once: each follows the one before it.
        let requests: Vec<Request> =
            (0..1000).map(|index| request(index, index * 10, 5_000_000 + index * 7919)).collect();
        assert_eq!(cheapest_reference(&requests), 0);
    }

    #[test]
    fn nonsense_is_an_error() {
        let items = [RequestItem::Request(request(1, 100, 400))];
        let payload = encoded(&items);
        let with = |place: usize, byte: u8| {
            let mut payload = payload.clone();
            payload[place] = byte;
            RequestItem::decode(1, &mut ColumnReader::new(&payload))
        };
        assert_eq!(with(7, 0).unwrap(), items);
        assert_eq!(with(7, 2), Err(CodecError::OutOfRange(2)), "a kind");
        // A reference to none before it is to nothing.
        assert_eq!(with(8, 255).unwrap(), items);
        assert_eq!(with(5, 0), Err(CodecError::Short));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(items in prop::collection::vec(any_item(), 0..80)) {
            let payload = encoded(&items);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(RequestItem::decode(items.len(), &mut columns).unwrap(), items);
            prop_assert_eq!(columns.finish(), Ok(()));
        }
    }
}
