//! The columns of the block requests that an agent observed in its guest.
//!
//! After kind (runs: 0 a request, 1 a loss, 2 a time up to which all is told) come the requests: device,
//! operation, flags, vCPU when queued, issued and completed, task, bytes (runs each), result (runs of
//! zigzag), sector minus the end of the request before (zigzag), queued (delta), issued minus queued,
//! completed minus issued (zigzag varint each); then the losses: count (varint), first, last (delta); then
//! the times: delta.

use super::column::{
    CodecError, ColumnReader, Columnar, StreamKind, put_deltas, put_runs, put_varints,
};
use vslice_wire::leb128::{from_zigzag, zigzag};
use vslice_wire::{BlockOperation, Dropped, GuestTicks, ObservedFlags, ObservedRequest};

const SECTOR_BYTES: u64 = 512;

/// One item of `observed-<vm>.vsr`, in the order in which the guest sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedItem {
    /// A block request of the guest's kernel.
    Request(ObservedRequest),
    /// Requests, or their parts, that the guest could not record; the count is that of its kernel's events. It is
    /// 0 where no event was lost: from then on some had not ended when observing did.
    Lost(Dropped),
    /// Every request that was queued before this has been told, or is lost.
    Settled(GuestTicks),
}

impl ObservedItem {
    fn number(&self) -> u64 {
        match self {
            ObservedItem::Request(_) => 0,
            ObservedItem::Lost(_) => 1,
            ObservedItem::Settled(_) => 2,
        }
    }

    fn request(&self) -> Option<&ObservedRequest> {
        match self {
            ObservedItem::Request(request) => Some(request),
            ObservedItem::Lost(_) | ObservedItem::Settled(_) => None,
        }
    }

    fn lost(&self) -> Option<&Dropped> {
        match self {
            ObservedItem::Lost(lost) => Some(lost),
            ObservedItem::Request(_) | ObservedItem::Settled(_) => None,
        }
    }

    fn settled(&self) -> Option<GuestTicks> {
        match self {
            ObservedItem::Settled(settled) => Some(*settled),
            ObservedItem::Request(_) | ObservedItem::Lost(_) => None,
        }
    }
}

impl Columnar for ObservedItem {
    const KIND: StreamKind = StreamKind::Observed;

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        put_runs(items.iter().map(ObservedItem::number), payload);
        let requests = || items.iter().filter_map(ObservedItem::request);
        for of in FACTS {
            put_runs(requests().map(of), payload);
        }
        let ends = requests().scan(0, |before, request| {
            let step = zigzag(request.sector.wrapping_sub(*before));
            *before = end_of(request);
            Some(step)
        });
        put_varints(ends, payload);
        put_deltas(requests().map(|request| request.queued.0), payload);
        put_varints(requests().map(|of| zigzag(of.issued.0.wrapping_sub(of.queued.0))), payload);
        put_varints(requests().map(|of| zigzag(of.completed.0.wrapping_sub(of.issued.0))), payload);
        let losses = || items.iter().filter_map(ObservedItem::lost);
        put_varints(losses().map(|lost| lost.count), payload);
        put_deltas(losses().map(|lost| lost.first.0), payload);
        put_deltas(losses().map(|lost| lost.last.0), payload);
        put_deltas(items.iter().filter_map(ObservedItem::settled).map(|at| at.0), payload);
    }

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
        let kinds = columns.runs::<u64>(count)?;
        let count_of = |kind| kinds.iter().filter(|of| **of == kind).count();
        if let Some(unknown) = kinds.iter().find(|kind| **kind > 2) {
            return Err(CodecError::OutOfRange(*unknown));
        }
        let mut requests = decode_requests(count_of(0), columns)?.into_iter();
        let mut losses = decode_losses(count_of(1), columns)?.into_iter();
        let mut settled = columns.deltas::<u64>(count_of(2))?.into_iter();
        let item = |kind: u64| {
            let item = match kind {
                0 => requests.next().map(ObservedItem::Request),
                1 => losses.next().map(ObservedItem::Lost),
                _ => settled.next().map(|at| ObservedItem::Settled(GuestTicks(at))),
            };
            item.ok_or(CodecError::OutOfRange(kind))
        };
        kinds.into_iter().map(item).collect()
    }
}

/// The columns that repeat, in their order.
const FACTS: [fn(&ObservedRequest) -> u64; 9] = [
    |request| request.device.into(),
    |request| request.operation.number().into(),
    |request| request.flags.0.into(),
    |request| request.vcpu_queued.into(),
    |request| request.vcpu_issued.into(),
    |request| request.vcpu_completed.into(),
    |request| request.task.into(),
    |request| request.bytes.into(),
    |request| zigzag(i64::from(request.result).cast_unsigned()),
];

fn end_of(request: &ObservedRequest) -> u64 {
    request.sector.wrapping_add(u64::from(request.bytes).div_ceil(SECTOR_BYTES))
}

fn decode_requests(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<ObservedRequest>, CodecError> {
    let devices = columns.runs::<u16>(count)?;
    let operations = columns.runs::<u64>(count)?;
    let flags = columns.runs::<u16>(count)?;
    let vcpus_queued = columns.runs::<u16>(count)?;
    let vcpus_issued = columns.runs::<u16>(count)?;
    let vcpus_completed = columns.runs::<u16>(count)?;
    let tasks = columns.runs::<u32>(count)?;
    let lengths_bytes = columns.runs::<u32>(count)?;
    let results = columns.runs::<u64>(count)?;
    let steps = columns.varints::<u64>(count)?;
    let queued = columns.deltas::<u64>(count)?;
    let to_issue = columns.varints::<u64>(count)?;
    let to_completion = columns.varints::<u64>(count)?;
    let mut before = 0_u64;
    let request = |place: usize| {
        let (operation, result) = (operations[place], results[place]);
        let issued = queued[place].wrapping_add(from_zigzag(to_issue[place]));
        let request = ObservedRequest {
            device: devices[place],
            operation: BlockOperation::of_number(operation)
                .ok_or(CodecError::OutOfRange(operation))?,
            flags: ObservedFlags(flags[place]),
            sector: before.wrapping_add(from_zigzag(steps[place])),
            bytes: lengths_bytes[place],
            queued: GuestTicks(queued[place]),
            issued: GuestTicks(issued),
            completed: GuestTicks(issued.wrapping_add(from_zigzag(to_completion[place]))),
            vcpu_queued: vcpus_queued[place],
            vcpu_issued: vcpus_issued[place],
            vcpu_completed: vcpus_completed[place],
            task: tasks[place],
            result: i32::try_from(from_zigzag(result).cast_signed())
                .map_err(|_| CodecError::OutOfRange(result))?,
        };
        before = end_of(&request);
        Ok(request)
    };
    (0..count).map(request).collect()
}

fn decode_losses(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Dropped>, CodecError> {
    let counts = columns.varints::<u64>(count)?;
    let firsts = columns.deltas::<u64>(count)?;
    let lasts = columns.deltas::<u64>(count)?;
    let lost = |((count, first), last)| Dropped {
        count,
        first: GuestTicks(first),
        last: GuestTicks(last),
    };
    Ok(counts.into_iter().zip(firsts).zip(lasts).map(lost).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WRITE: ObservedRequest = ObservedRequest {
        device: 1,
        operation: BlockOperation::Write,
        flags: ObservedFlags(5),
        sector: 100,
        bytes: 4096,
        queued: GuestTicks(1000),
        issued: GuestTicks(1010),
        completed: GuestTicks(1310),
        vcpu_queued: 0,
        vcpu_issued: 1,
        vcpu_completed: 2,
        task: 3,
        result: -5,
    };

    fn any_item() -> impl Strategy<Value = ObservedItem> {
        let ticks = || any::<u64>().prop_map(GuestTicks);
        let what = (
            any::<u16>(),
            prop::sample::select(&BlockOperation::ALL[..]),
            any::<u16>(),
            any::<u64>(),
            any::<u32>(),
        );
        let vcpus = any::<(u16, u16, u16)>();
        let request = (what, (ticks(), ticks(), ticks()), vcpus, any::<u32>(), any::<i32>())
            .prop_map(|(what, (queued, issued, completed), vcpus, task, result)| {
                let (device, operation, flags, sector, bytes) = what;
                let flags = ObservedFlags(flags);
                let (vcpu_queued, vcpu_issued, vcpu_completed) = vcpus;
                ObservedItem::Request(ObservedRequest {
                    device,
                    operation,
                    flags,
                    sector,
                    bytes,
                    queued,
                    issued,
                    completed,
                    vcpu_queued,
                    vcpu_issued,
                    vcpu_completed,
                    task,
                    result,
                })
            });
        let lost = (any::<u64>(), ticks(), ticks())
            .prop_map(|(count, first, last)| ObservedItem::Lost(Dropped { count, first, last }));
        prop_oneof![4 => request, 1 => lost, 1 => ticks().prop_map(ObservedItem::Settled)]
    }

    #[test]
    fn a_request_a_loss_and_a_settled_time_have_these_bytes() {
        let lost = Dropped { count: 9, first: GuestTicks(4), last: GuestTicks(6) };
        let items = [
            ObservedItem::Request(WRITE),
            ObservedItem::Lost(lost),
            ObservedItem::Settled(GuestTicks(7)),
        ];
        let mut payload = Vec::new();
        ObservedItem::encode(&items, &mut payload);
        let expected = [
            &[0, 0, 0, 1, 0, 2][..],
            // device, operation, flags, vCPUs, task, bytes, result
            &[0, 1, 0, 1, 0, 5, 0, 0, 0, 1, 0, 2, 0, 3, 0, 0x80, 0x20, 0, 9],
            // sector, queued, to issue, to completion
            &[200, 1, 0xd0, 0x0f, 20, 0xd8, 4],
            // the loss, the time
            &[9, 8, 12, 14],
        ];
        assert_eq!(payload, expected.concat());
    }

    /// Random reads of 8 KiB by one process, as a database makes them.
    #[test]
    fn a_steady_load_costs_about_twelve_bytes_a_request() {
        let request = |index: u64| {
            let queued = 5_000_000_000_000 + index * 180_000 + index * 7919 % 50_000;
            let issued = queued + 4_000 + index * 31 % 3_000;
            ObservedItem::Request(ObservedRequest {
                operation: BlockOperation::Read,
                sector: index * 0x9e37_79b9 % (16 << 20) / 16 * 16,
                bytes: 8192,
                queued: GuestTicks(queued),
                issued: GuestTicks(issued),
                completed: GuestTicks(issued + 150_000 + index * 104_729 % 200_000),
                vcpu_issued: 0,
                vcpu_completed: 0,
                result: 0,
                ..WRITE
            })
        };
        let items: Vec<ObservedItem> = (0..4096).map(request).collect();
        let mut payload = Vec::new();
        ObservedItem::encode(&items, &mut payload);
        assert!(payload.len() <= 4096 * 13, "{} bytes", payload.len());
    }

    #[test]
    fn an_unknown_kind_or_operation_is_an_error() {
        let mut columns = ColumnReader::new(&[0, 3]);
        assert_eq!(ObservedItem::decode(1, &mut columns), Err(CodecError::OutOfRange(3)));
        let mut payload = Vec::new();
        ObservedItem::encode(&[ObservedItem::Request(WRITE)], &mut payload);
        payload[5] = 5;
        let mut columns = ColumnReader::new(&payload);
        assert_eq!(ObservedItem::decode(1, &mut columns), Err(CodecError::OutOfRange(5)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(items in prop::collection::vec(any_item(), 0..80)) {
            let mut payload = Vec::new();
            ObservedItem::encode(&items, &mut payload);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(ObservedItem::decode(items.len(), &mut columns).unwrap(), items);
            prop_assert_eq!(columns.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_an_error_or_items(
            count in 0..40_usize,
            bytes in prop::collection::vec(prop_oneof![0..3_u8, any::<u8>()], 0..200),
        ) {
            let decoded = ObservedItem::decode(count, &mut ColumnReader::new(&bytes));
            prop_assert!(decoded.is_err() || decoded.is_ok_and(|items| items.len() == count));
        }
    }
}
