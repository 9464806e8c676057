use super::*;

fn record(kind: u32, words: &[u32], rest: &[u8]) -> RawRecordBytes {
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    body.extend(rest);
    RawRecordBytes { kind, body }
}

struct RawRecordBytes {
    kind: u32,
    body: Vec<u8>,
}

impl RawRecordBytes {
    fn parse(&self) -> Option<Record<'_>> {
        parse(&RawRecord { kind: self.kind, body: &self.body })
    }
}

#[test]
fn a_sample_says_who_when_and_what() {
    let bytes = record(PERF_RECORD_SAMPLE, &[700, 701, 5, 0, 4], b"rawX");
    let sample = Sample { pid: 700, tid: 701, time: GuestTicks(5), raw: b"rawX" };
    assert_eq!(bytes.parse(), Some(Record::Sample(sample)));
    let endless = record(PERF_RECORD_SAMPLE, &[700, 701, 5, 0, 5], b"rawX");
    assert_eq!(endless.parse(), None, "its raw data is longer than itself");
    let lost = record(PERF_RECORD_LOST, &[9, 0, 3, 0, 700, 701, 8, 0], b"");
    assert_eq!(lost.parse(), Some(Record::Lost { time: GuestTicks(8), count: 3 }));
    assert_eq!(record(PERF_RECORD_LOST, &[9], b"").parse(), None);
    assert_eq!(record(77, &[], b"").parse(), Some(Record::Other));
}

#[test]
fn rings_are_powers_of_two_and_together_no_more_than_their_share_unless_that_is_no_page() {
    let expected = [(1, 512), (3, 512), (4, 256), (5, 256), (8, 128), (64, 16)];
    for (vcpus, kib) in expected {
        assert_eq!(ring_bytes(vcpus, 4096), kib << 10, "{vcpus}");
    }
    for vcpus in 1..=384 {
        let bytes = ring_bytes(vcpus, 4096);
        assert!(bytes.is_power_of_two() && bytes * vcpus <= RINGS_BYTES);
    }
    // docs/observing.md says from how many vCPUs on they take more.
    assert!(ring_bytes(385, 4096) * 385 > RINGS_BYTES);
    assert_eq!(ring_bytes(100_000, 4096), 4096, "a ring has a page at least");
    assert_eq!(ring_bytes(4, 65536), 256 << 10);
}

#[test]
fn a_ring_that_was_full_is_so_until_there_are_other_records() {
    let at = GuestTicks;
    let mut fill = Fill::of(4096);
    fill.emptied(4000, at(10));
    assert_eq!(fill.full_until, Some(at(10)));
    fill.emptied(0, at(20));
    assert_eq!(fill.full_until, Some(at(10)), "the next event has yet to say what was lost");
    fill.emptied(900, at(30));
    assert_eq!(fill.full_until, None, "it has, or there was nothing");
    fill.emptied(2700, at(40));
    assert_eq!(fill.full_until, Some(at(40)), "some came while what was there was read");
    fill.emptied(800, at(50));
    assert_eq!(fill.full_until, None);
}
