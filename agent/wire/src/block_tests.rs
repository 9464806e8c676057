use super::*;
use proptest::prelude::*;

fn encoded(requests: &[Request]) -> Vec<u8> {
    let mut out = Vec::new();
    put_block(&mut out, requests).expect("within the bound");
    out
}

fn decoded(bytes: &[u8]) -> Result<Vec<Request>, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    let requests = take_block(&mut cursor)?;
    cursor.finish()?;
    Ok(requests)
}

/// Numbers that are the same in every run: xorshift64.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

const TICKS_PER_US: u64 = 2500;

/// Latencies around 300 us; one in a hundred is late by up to 20 ms, as when its vCPU is off.
fn latency_ticks(sequence: &mut Sequence) -> u64 {
    let usual_us = 220 + sequence.below(80) + sequence.below(80);
    let late_us = if sequence.below(100) == 0 { 1000 + sequence.below(19_000) } else { 0 };
    (usual_us + late_us) * TICKS_PER_US + sequence.below(TICKS_PER_US)
}

/// A reader with one request in flight on vCPU 2.
fn psync(count: u64, sequence: &mut Sequence) -> Vec<Request> {
    let mut now = 5_000_000_000_000;
    (0..count)
        .map(|index| {
            let submitted = now + TICKS_PER_US / 2 + sequence.below(2 * TICKS_PER_US);
            now = submitted + latency_ticks(sequence);
            Request {
                index,
                submitted: GuestTicks(submitted),
                completed: GuestTicks(now),
                vcpu_submitted: 2,
                vcpu_completed: 2,
                result: 4096,
            }
        })
        .collect()
}

/// A reader with 160 requests in flight on a device that ends one every 5 us, in order of
/// completion.
fn deep(count: u64, sequence: &mut Sequence) -> Vec<Request> {
    let mut requests = psync(count, sequence);
    for request in &mut requests {
        let submitted = (1_000_000 + request.index * 5) * TICKS_PER_US;
        let latency = 800 * TICKS_PER_US + sequence.below(20 * TICKS_PER_US);
        request.submitted = GuestTicks(submitted);
        request.completed = GuestTicks(submitted + latency);
    }
    requests.sort_by_key(|request| request.completed);
    requests
}

/// The blocks of an agent that sends every few hundred requests, with their frames' headers.
fn bytes_per_request(requests: &[Request]) -> f64 {
    const HEADER_BYTES: usize = 5;
    let bytes: usize = requests.chunks(256).map(|block| HEADER_BYTES + encoded(block).len()).sum();
    let ratio = |count: usize| f64::from(u32::try_from(count).unwrap());
    ratio(bytes) / ratio(requests.len())
}

#[test]
fn a_request_of_one_in_flight_costs_about_six_bytes() {
    let average = bytes_per_request(&psync(20_000, &mut Sequence(1)));
    println!("psync: {average:.2} bytes a request");
    assert!(average <= 6.5, "{average} bytes a request");
}

#[test]
fn many_in_flight_are_stored_relative_to_the_last_submission() {
    let requests = deep(1024, &mut Sequence(2));
    assert_eq!(cheaper_reference(&requests), Reference::PreviousSubmission);
    assert_eq!(cheaper_reference(&psync(1024, &mut Sequence(2))), Reference::PreviousCompletion);
    let average = bytes_per_request(&requests);
    println!("160 in flight: {average:.2} bytes a request");
    assert!(average <= 9.0, "{average} bytes a request");
    assert_eq!(decoded(&encoded(&requests)), Ok(requests));
}

#[test]
fn the_worst_block_fits_a_frame() {
    let requests: Vec<_> = (0..u64::try_from(BLOCK_REQUESTS_MAX).unwrap())
        .map(|order| {
            let odd = order % 2;
            let vcpu = u16::MAX - u16::try_from(odd).unwrap();
            Request {
                index: (1 << 63) * odd + order * order,
                submitted: GuestTicks((1 << 63) * odd),
                completed: GuestTicks(((1 << 63) * odd).wrapping_sub(1)),
                vcpu_submitted: vcpu,
                vcpu_completed: vcpu,
                result: i32::MIN + i32::try_from(odd).unwrap(),
            }
        })
        .collect();
    let bytes = encoded(&requests);
    assert!(bytes.len() >= 44 * BLOCK_REQUESTS_MAX, "not the worst: {} bytes", bytes.len());
    assert!(bytes.len() + 5 <= crate::FRAME_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(decoded(&bytes), Ok(requests));
}

#[test]
fn one_request_too_many_is_refused_on_both_sides() {
    let requests = vec![BLANK; BLOCK_REQUESTS_MAX + 1];
    let max_count = BLOCK_REQUESTS_MAX;
    assert_eq!(
        put_block(&mut Vec::new(), &requests),
        Err(EncodeError::TooMany { what: "requests", count: max_count + 1, max_count })
    );
    let mut bytes = Vec::new();
    put_count(&mut bytes, max_count + 1);
    assert_eq!(
        decoded(&bytes),
        Err(DecodeError::TooMany { what: "requests", count: 1025, max_count })
    );
}

#[test]
fn senseless_blocks_are_refused() {
    let run_length =
        |run_count| DecodeError::RunLength { column: "index", run_count, left_count: 2 };
    let truncated = DecodeError::Truncated { needed_bytes: 1, left_bytes: 0 };
    for (bytes, error) in [
        (&[2, 2][..], DecodeError::UnknownCase { what: "reference", value: 2 }),
        (&[2, 0, 0, 0], run_length(0)),
        (&[2, 0, 0, 3], run_length(3)),
        (
            &[2, 0, 0, 2, 0x80, 0x80, 0x04, 2],
            DecodeError::OutOfRange { what: "vCPU", value: 65536 },
        ),
        (
            &[1, 0, 0, 1, 0, 1, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x10, 1],
            DecodeError::OutOfRange { what: "result", value: 1 << 31 },
        ),
        (&[1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0], truncated),
        (&[1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 9], DecodeError::TrailingBytes { count: 1 }),
    ] {
        assert_eq!(decoded(bytes), Err(error), "{bytes:?}");
    }
}

prop_compose! {
    fn any_request()(
        index: u64, submitted: u64, completed: u64,
        vcpu_submitted: u16, vcpu_completed: u16, result: i32,
    ) -> Request {
        Request {
            index,
            submitted: GuestTicks(submitted),
            completed: GuestTicks(completed),
            vcpu_submitted,
            vcpu_completed,
            result,
        }
    }
}

/// Values as they are in a run, so that runs, both references and repeats all occur.
fn likely_requests() -> impl Strategy<Value = Vec<Request>> {
    (any::<u64>(), 0..60_u64, any::<bool>()).prop_map(|(seed, count, is_deep)| {
        let mut sequence = Sequence(seed | 1);
        let mut requests =
            if is_deep { deep(count, &mut sequence) } else { psync(count, &mut sequence) };
        for request in &mut requests {
            if sequence.below(8) == 0 {
                request.vcpu_completed = 3;
                request.result = -5;
            }
        }
        requests
    })
}

proptest! {
    #[test]
    fn any_block_returns(requests in prop::collection::vec(any_request(), 0..40)) {
        prop_assert_eq!(decoded(&encoded(&requests)), Ok(requests));
    }

    #[test]
    fn a_likely_block_returns(requests in likely_requests()) {
        prop_assert_eq!(decoded(&encoded(&requests)), Ok(requests));
    }
}
