//! Streams that are whole, cut, corrupt, foreign, or that met a full disk.

use super::*;
use crate::events::earlier::tests::encode as encode_earlier;
use crate::events::tests::{any_event, lively};
use proptest::prelude::*;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::{HostNs, PcpuId, Tid};

fn event(time: u64) -> HostEvent {
    let kind = HostEventKind::Comm { tid: Tid(4), comm: "CPU 0/KVM".into() };
    HostEvent { time: HostNs(time), pcpu: PcpuId(1), kind }
}

/// A finished stream of three blocks: two events, three events, one event.
fn three_blocks() -> (Vec<u8>, [usize; 5]) {
    let mut bytes = file_header(StreamKind::Events).to_vec();
    let mut ends = [bytes.len(); 5];
    let blocks = [vec![event(1), event(2)], vec![event(3), event(4), event(5)], vec![event(6)]];
    for (place, block) in blocks.iter().enumerate() {
        bytes.extend(block_bytes(block).unwrap());
        ends[place + 1] = bytes.len();
    }
    bytes.extend(block_bytes::<HostEvent>(&[]).unwrap());
    ends[4] = bytes.len();
    (bytes, ends)
}

fn read(bytes: &[u8]) -> Result<(Vec<HostEvent>, Tail), StoreError> {
    let mut reader = StreamReader::<HostEvent, _>::new(bytes, Path::new("x.vsr"))?;
    let mut all = Vec::new();
    while let Some(mut items) = reader.next_block()? {
        all.append(&mut items);
    }
    Ok((all, reader.tail().unwrap()))
}

#[test]
fn the_header_has_these_bytes() {
    let header = file_header(StreamKind::Requests);
    let expected = b"\x89VSR\r\n\x1a\n\x06\x00\x02\x00";
    assert_eq!(header[..12], expected[..12]);
    assert_eq!(header[12..], crc32fast::hash(&expected[..12]).to_le_bytes());
    let end = block_bytes::<HostEvent>(&[]).unwrap();
    assert_eq!(end[..8], [0; 8]);
    assert_eq!(end.len(), BLOCK_HEADER_BYTES);
}

#[test]
fn a_stream_cut_at_any_byte_reads_up_to_its_last_whole_block() {
    let (bytes, ends) = three_blocks();
    let counts = [0, 2, 5, 6];
    for cut in 0..bytes.len() {
        let (events, tail) = read(&bytes[..cut]).unwrap();
        let whole = ends[..4].iter().rposition(|end| *end <= cut);
        let expected_count = whole.map_or(0, |place| counts[place]);
        let rest = cut - whole.map_or(0, |place| ends[place]);
        assert_eq!(events.len(), expected_count, "cut at {cut}");
        assert_eq!(tail, Tail::Torn { bytes: rest as u64 }, "cut at {cut}");
        assert!(events.iter().map(|event| event.time.0).eq(1..=expected_count as u64));
    }
    assert_eq!(read(&bytes).unwrap().1, Tail::Finished);
}

#[test]
fn garbage_after_the_end_is_reported() {
    let (mut bytes, _) = three_blocks();
    bytes.extend([1, 2, 3]);
    let (events, tail) = read(&bytes).unwrap();
    assert_eq!((events.len(), tail), (6, Tail::Torn { bytes: 3 }));
}

#[test]
fn a_foreign_file_is_a_sentence() {
    let not = read(b"{\"schema\": \"vslice\"}").unwrap_err();
    assert_eq!(not.to_string(), "x.vsr is not a vslice stream");
    let not = read(b"MZ").unwrap_err();
    assert_eq!(not.to_string(), "x.vsr is not a vslice stream");
    let kind = read(&file_header(StreamKind::Clock)).unwrap_err();
    assert_eq!(kind.to_string(), "x.vsr holds a stream of kind 3, expected Events");
    let mut newer = file_header(StreamKind::Events);
    newer[8] = 7;
    let crc = crc32fast::hash(&newer[..12]);
    newer[12..].copy_from_slice(&crc.to_le_bytes());
    let newer = read(&newer).unwrap_err();
    assert_eq!(
        newer.to_string(),
        "x.vsr has format version 7, this vslice reads up to 6; use a newer vslice"
    );
    let mut older = file_header(StreamKind::Events);
    older[8] = 1;
    let crc = crc32fast::hash(&older[..12]);
    older[12..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(
        read(&older).unwrap_err().to_string(),
        "x.vsr has format version 1, this vslice reads from 2 on; use the vslice that recorded it"
    );
}

/// A block whose payload is on disk as it is given.
fn raw_block(count: usize, payload: &[u8]) -> Vec<u8> {
    let lengths = [payload.len(), count].map(|length| u32::try_from(length).unwrap());
    let lengths = lengths.map(u32::to_le_bytes).concat();
    let crc = block_crc(&lengths, payload).to_le_bytes();
    [&lengths, &crc[..], payload].concat()
}

fn packed(payload: &[u8], parts_count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(payload, parts_count, &mut bytes).unwrap();
    bytes
}

#[test]
fn streams_of_earlier_versions_are_read() {
    for version in 2..6 {
        let mut bytes = file_header_of(StreamKind::Events, version).to_vec();
        for block in [vec![event(1), event(2)], vec![event(3)]] {
            let mut payload = Vec::new();
            encode_earlier(&block, &mut payload);
            bytes.extend(raw_block(block.len(), &payload));
        }
        bytes.extend(raw_block(0, &[]));
        let all = vec![event(1), event(2), event(3)];
        assert_eq!(read(&bytes).unwrap(), (all, Tail::Finished), "{version}");
        // A block of today's is none of theirs.
        bytes.truncate(bytes.len() - BLOCK_HEADER_BYTES);
        bytes.extend(block_bytes(&[event(4)]).unwrap());
        assert!(matches!(read(&bytes).unwrap().1, Tail::Torn { bytes: 1.. }), "{version}");
        let (events, tail) = read(&bytes[..10]).unwrap();
        assert_eq!((events.len(), tail), (0, Tail::Torn { bytes: 10 }));
    }
}

#[test]
fn a_payload_that_unpacks_to_too_much_or_to_what_it_does_not_say_is_refused() {
    let length = |packed: &[u8]| unpack(packed).map(|payload| payload.len());
    assert_eq!(length(&packed(&vec![7; BLOCK_BYTES_MAX], 0)), Ok(BLOCK_BYTES_MAX));
    assert_eq!(length(&packed(&vec![7; BLOCK_BYTES_MAX + 1], 0)), Err(CodecError::NotPacked));
    // 1,000 bytes: a frame header with two bytes of length less 256, then one block.
    let whole = packed(&[7; 1000], 0);
    assert_eq!(whole[..7], [0x28, 0xb5, 0x2f, 0xfd, 0x60, 0xe8, 0x02]);
    assert_eq!(length(&whole), Ok(1000));
    for (said, place) in [(0xe7, 5), (0xe9, 5), (0x03, 6), (0x01, 6)] {
        let mut other = whole.clone();
        other[place] = said;
        assert_eq!(length(&other), Err(CodecError::NotPacked), "{said:#x} at {place}");
    }
    for cut in 0..whole.len() {
        assert_eq!(length(&whole[..cut]), Err(CodecError::NotPacked), "cut at {cut}");
    }
    // Two frames, the second of which is not in what the first says.
    assert_eq!(length(&[&whole[..], &whole].concat()), Err(CodecError::NotPacked));
}

#[test]
fn a_block_that_claims_too_much_allocates_nothing() {
    for (payload_bytes, count) in [(u32::MAX, 1), (1, u32::MAX), (0, 4096)] {
        let mut bytes = file_header(StreamKind::Events).to_vec();
        let lengths = [payload_bytes.to_le_bytes(), count.to_le_bytes()].concat();
        bytes.extend(&lengths);
        bytes.extend(block_crc(&lengths, &[]).to_le_bytes());
        assert_eq!(read(&bytes).unwrap(), (vec![], Tail::Torn { bytes: 12 }));
    }
}

#[test]
fn a_block_with_too_many_items_is_refused_even_if_they_are_there() {
    let block = |count: usize| {
        let events: Vec<HostEvent> = (0..count as u64).map(event).collect();
        let mut payload = Vec::new();
        HostEvent::encode(&events, &mut payload);
        let payload = packed(&payload, HostEvent::PARTS);
        let bytes = [&file_header(StreamKind::Events)[..], &raw_block(count, &payload)].concat();
        read(&bytes).unwrap().0.len()
    };
    assert_eq!(block(BLOCK_ITEMS_MAX), BLOCK_ITEMS_MAX);
    assert_eq!(block(BLOCK_ITEMS_MAX + 1), 0);
}

#[test]
fn a_block_is_sorted_when_it_is_written_and_losses_stay_behind() {
    let lost = HostEvent {
        time: HostNs(5),
        pcpu: PcpuId(1),
        kind: HostEventKind::Lost { until: HostNs(9), count: 1 },
    };
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::new(&mut bytes, Path::new("x.vsr")).unwrap();
    for event in [event(5), lost.clone(), event(4)] {
        writer.push(event).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(read(&bytes).unwrap(), (vec![event(4), event(5), lost], Tail::Finished));
}

#[test]
fn a_writer_that_is_dropped_leaves_its_items_but_no_end() {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::new(&mut bytes, Path::new("x.vsr")).unwrap();
    writer.push(event(1)).unwrap();
    drop(writer);
    assert_eq!(read(&bytes).unwrap(), (vec![event(1)], Tail::Torn { bytes: 0 }));
}

/// A disk with room for `left` bytes.
struct SmallDisk {
    bytes: Vec<u8>,
    left: usize,
}

impl Write for &mut SmallDisk {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let count = buffer.len().min(self.left);
        self.bytes.extend(&buffer[..count]);
        self.left -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_names_the_file_and_what_was_written_stays_readable() {
    let first_block_bytes = FILE_HEADER_BYTES + block_bytes(&[event(1)]).unwrap().len();
    let mut disk = SmallDisk { bytes: Vec::new(), left: first_block_bytes + 7 };
    let mut writer = StreamWriter::new(&mut disk, Path::new("run/events-1.vsr")).unwrap();
    writer.push(event(1)).unwrap();
    writer.flush().unwrap();
    writer.push(event(2)).unwrap();
    let error = writer.flush().unwrap_err();
    assert_eq!(error.to_string(), "cannot write run/events-1.vsr");
    let StoreError::Io { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
    assert!(matches!(writer.push(event(3)), Err(StoreError::WriteFailedBefore(_))));
    assert!(matches!(writer.finish(), Err(StoreError::WriteFailedBefore(_))));
    assert_eq!(read(&disk.bytes).unwrap(), (vec![event(1)], Tail::Torn { bytes: 7 }));
}

#[test]
fn a_device_that_is_full_refuses_the_header() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = StreamWriter::<HostEvent>::new(full, Path::new("run/a.vsr")).unwrap_err();
    assert_eq!(error.to_string(), "cannot write run/a.vsr");
}

proptest! {
    #[test]
    fn what_is_written_is_read(events in prop::collection::vec(any_event(), 1..100)) {
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::new(&mut bytes, Path::new("x.vsr")).unwrap();
        for event in events.clone() {
            writer.push(event).unwrap();
        }
        writer.finish().unwrap();
        let mut expected = events;
        expected.sort_by_key(|event| event.time);
        prop_assert_eq!(read(&bytes).unwrap(), (expected, Tail::Finished));
    }

    #[test]
    fn equal_items_make_equal_bytes(events in lively(0..700)) {
        prop_assert_eq!(block_bytes(&events).unwrap(), block_bytes(&events.clone()).unwrap());
    }

    #[test]
    fn corrupt_bytes_never_panic_and_never_change_a_whole_block(
        place in 16usize..300,
        flip in 1u8..,
    ) {
        let (mut bytes, ends) = three_blocks();
        let place = 16 + (place - 16) % (bytes.len() - 16);
        bytes[place] ^= flip;
        let (events, tail) = read(&bytes).unwrap();
        // Exactly the blocks before the corrupt one survive.
        let counts = [0, 2, 5, 6];
        let whole = ends[..4].iter().rposition(|end| *end <= place).unwrap();
        prop_assert_eq!(events.len(), counts[whole]);
        prop_assert_eq!(tail, Tail::Torn { bytes: (bytes.len() - ends[whole]) as u64 });
    }

    #[test]
    fn payloads_that_pass_their_crc_never_panic(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        count in 0_usize..5000,
        version in FORMAT_VERSION_MIN..=FORMAT_VERSION,
        is_packed: bool,
    ) {
        let payload = if is_packed { packed(&payload, 0) } else { payload };
        let header = file_header_of(StreamKind::Events, version);
        let (events, _) = read(&[&header[..], &raw_block(count, &payload)].concat()).unwrap();
        prop_assert!(events.len() <= BLOCK_ITEMS_MAX);
    }
}
