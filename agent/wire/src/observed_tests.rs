use super::*;

fn encoded(requests: Vec<ObservedRequest>) -> Vec<u8> {
    let mut out = Vec::new();
    let block = ObservedBlock { settled: GuestTicks(u64::MAX), requests };
    put_observed(&mut out, &Observed::Requests(block)).expect("within the bound");
    out
}

fn decoded(bytes: &[u8]) -> Result<Vec<ObservedRequest>, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let observed = take_observed(&mut cursor)?;
    cursor.finish()?;
    let Observed::Requests(block) = observed else { panic!("{observed:?} is no block") };
    assert_eq!(block.settled, GuestTicks(u64::MAX));
    Ok(block.requests)
}

/// Requests of a database: reads of 8 KiB anywhere, and now and then a write and a flush of another
/// process, on two vCPUs.
fn database(count: u64) -> Vec<ObservedRequest> {
    let request = |index: u64| {
        let is_flush = index % 16 == 15;
        let is_write = index % 16 == 14;
        let queued = 5_000_000_000_000 + index * 180_000 + index * 7919 % 50_000;
        let issued = queued + 4_000 + index * 31 % 3_000;
        ObservedRequest {
            device: 0,
            operation: match (is_flush, is_write) {
                (true, _) => BlockOperation::Flush,
                (_, true) => BlockOperation::Write,
                _ => BlockOperation::Read,
            },
            flags: ObservedFlags::SYNC,
            sector: if is_flush { 0 } else { index * 0x9e37_79b9 % (16 << 20) / 16 * 16 },
            bytes: if is_flush { 0 } else { 8192 },
            queued: GuestTicks(queued),
            issued: GuestTicks(issued),
            completed: GuestTicks(issued + 150_000 + index * 104_729 % 200_000),
            vcpu_queued: u16::from(index / 8 % 2 == 1),
            vcpu_issued: u16::from(index / 8 % 2 == 1),
            vcpu_completed: u16::from(index / 8 % 2 == 1),
            task: u32::from(is_flush || is_write),
            result: 0,
        }
    };
    (0..count).map(request).collect()
}

#[test]
fn a_request_of_a_database_costs_about_fourteen_bytes() {
    let requests = database(512);
    let bytes = encoded(requests.clone());
    println!("{:.2} bytes a request", bytes.len() as f64 / 512.0);
    assert!(bytes.len() <= 15 * 512, "{} bytes", bytes.len());
    assert_eq!(decoded(&bytes), Ok(requests));
}

#[test]
fn the_worst_block_fits_a_frame() {
    let request = |order: usize| {
        let odd = u8::from(order % 2 == 1);
        let vcpu = u16::MAX - u16::from(odd);
        let far = GuestTicks((1 << 63) * u64::from(odd));
        ObservedRequest {
            device: vcpu,
            operation: [BlockOperation::Read, BlockOperation::Other][usize::from(odd)],
            flags: ObservedFlags(vcpu),
            sector: (1 << 63) * u64::from(odd),
            bytes: u32::MAX - u32::from(vcpu),
            queued: far,
            issued: GuestTicks(far.0 ^ (1 << 63)),
            completed: far,
            vcpu_queued: vcpu,
            vcpu_issued: vcpu,
            vcpu_completed: vcpu,
            task: u32::MAX - u32::from(odd),
            result: i32::MIN + i32::from(odd),
        }
    };
    let requests: Vec<_> = (0..OBSERVED_MAX).map(request).collect();
    let bytes = encoded(requests.clone());
    assert!(bytes.len() >= 75 * OBSERVED_MAX, "not the worst: {} bytes", bytes.len());
    assert!(bytes.len() + 5 <= crate::FRAME_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(decoded(&bytes), Ok(requests));
}

#[test]
fn one_too_many_is_refused_on_both_sides() {
    let block = ObservedBlock { settled: GuestTicks(0), requests: vec![BLANK; OBSERVED_MAX + 1] };
    let (what, count, max_count) = ("observed requests", OBSERVED_MAX + 1, OBSERVED_MAX);
    let refused = put_observed(&mut Vec::new(), &Observed::Requests(block));
    assert_eq!(refused, Err(EncodeError::TooMany { what, count, max_count }));
    let bytes = [&[REQUESTS][..], &[0; 8], &[0x81, 0x04]].concat();
    let refused = decoded(&bytes);
    assert_eq!(refused, Err(DecodeError::TooMany { what, count: 513, max_count }));
}

#[test]
fn what_no_operation_has_is_refused() {
    let block = [&[REQUESTS][..], &[0; 8], &[1, /* device */ 0, 1, /* operation */ 5, 1]].concat();
    let refused = DecodeError::OutOfRange { what: "operation", value: 5 };
    assert_eq!(decoded(&block), Err(refused));
    for (place, operation) in (0..).zip(BlockOperation::ALL) {
        assert_eq!(operation.number(), place);
        assert_eq!(BlockOperation::of_number(place.into()), Some(operation));
    }
    assert_eq!(BlockOperation::of_number(u64::MAX), None);
}

#[test]
fn who_waits_is_told_as_the_kernel_tells_it() {
    let is_sync = |operation, flags| ObservedRequest { operation, flags, ..BLANK }.is_sync();
    let (none, ahead) = (ObservedFlags(0), ObservedFlags::READ_AHEAD);
    for (operation, flags, expected) in [
        (BlockOperation::Read, none, true),
        (BlockOperation::Read, ahead, true),
        (BlockOperation::Flush, none, true),
        (BlockOperation::Write, none, false),
        (BlockOperation::Write, ObservedFlags::META, false),
        (BlockOperation::Write, ObservedFlags::SYNC, true),
        (BlockOperation::Write, ObservedFlags::FUA, true),
        (BlockOperation::Write, ObservedFlags::PREFLUSH.with(ObservedFlags::MERGED), true),
        (BlockOperation::Discard, none, false),
        (BlockOperation::Other, ObservedFlags::SYNC, true),
    ] {
        assert_eq!(is_sync(operation, flags), expected, "{operation:?} {flags:?}");
    }
}
