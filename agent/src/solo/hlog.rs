//! Gap and timeslice lengths as an HdrHistogram interval log, which `HistogramLogAnalyzer`,
//! `hdrhistogram.github.io` and others read.
//!
//! The agent writes the format itself: the crate's serialization would bring flate2, nom and base64
//! into an image that is counted in kilobytes. The format is that of HdrHistogram's Java original:
//! `HistogramLogWriter` for the lines, `encodeIntoCompressedByteBuffer` (V2) for what is in them.
//! The zlib stream has only stored blocks (RFC 1951, 3.2.4), which every inflater reads.

use super::analyse::{Analysed, VcpuSpans};
use std::collections::BTreeMap;
use vslice_workload::gap::{Kind, Span};

/// Three significant digits: 2048 sub-buckets, of which each further bucket has the upper half.
const DIGITS: u32 = 3;
const SUB_BUCKETS_LOG2: u32 = 11;
const HALF_LOG2: u32 = SUB_BUCKETS_LOG2 - 1;

/// An hour, the largest length that can be told.
const HIGHEST_NS: u64 = 3_600_000_000_000;

const V2_COOKIE: u32 = 0x1c84_9313;
const V2_COMPRESSED_COOKIE: u32 = 0x1c84_9314;

const INTERVAL_NS: u64 = 1_000_000_000;

/// The log: for each second, vCPU and kind one line. `wall_start_ms` is the start of the run in
/// milliseconds since 1970.
pub(super) fn render(analysed: &Analysed, wall_start_ms: u64) -> String {
    let (seconds, millis) = (wall_start_ms / 1_000, wall_start_ms % 1_000);
    let mut text = format!(
        "#[Histogram log format version 1.3]\n\
         #[vslice-agent solo: lengths in nanoseconds, Interval_Max in milliseconds]\n\
         #[StartTime: {seconds}.{millis:03} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
    );
    let mut lines: BTreeMap<(u64, String), Vec<u64>> = BTreeMap::new();
    for spans in &analysed.spans {
        for (tag, span) in tagged(spans) {
            // A length belongs to the second in which it ended.
            lines.entry((span.end_ns / INTERVAL_NS, tag)).or_default().push(span.length_ns());
        }
    }
    for ((second, tag), lengths_ns) in lines {
        let max_ns = lengths_ns.iter().copied().max().unwrap_or(0);
        let encoded = base64(&compressed(&encoded(&lengths_ns)));
        let max_ms = format!("{}.{:03}", max_ns / 1_000_000, max_ns / 1_000 % 1_000);
        text.push_str(&format!("Tag={tag},{second}.000,1.000,{max_ms},{encoded}\n"));
    }
    text
}

fn tagged(spans: &VcpuSpans) -> impl Iterator<Item = (String, Span)> {
    let vcpu = spans.vcpu;
    let gap = move |(kind, span): &(Kind, Span)| (format!("vcpu{vcpu}_{}", kind.name()), *span);
    let timeslice = move |span: &Span| (format!("vcpu{vcpu}_timeslice"), *span);
    spans.gaps.iter().map(gap).chain(spans.timeslices.iter().map(timeslice))
}

/// The index of a value's counter, for a lowest discernible value of 1.
fn index_of(value_ns: u64) -> usize {
    let value_ns = value_ns.min(HIGHEST_NS);
    let mask = (1 << SUB_BUCKETS_LOG2) - 1;
    let bucket = u64::BITS - (value_ns | mask).leading_zeros() - SUB_BUCKETS_LOG2;
    let sub_bucket = value_ns >> bucket;
    let index = (u64::from(bucket) << HALF_LOG2) + sub_bucket;
    usize::try_from(index).expect("32 buckets of 1024")
}

/// The V2 encoding: a header, and the counters up to the last one that counted, as zigzag LEB128
/// with 9 bytes at most; a negative number is a run of zeros.
fn encoded(lengths_ns: &[u64]) -> Vec<u8> {
    let mut counts: BTreeMap<usize, i64> = BTreeMap::new();
    for &length_ns in lengths_ns {
        *counts.entry(index_of(length_ns)).or_default() += 1;
    }
    let mut payload = Vec::new();
    let mut next = 0;
    for (index, count) in counts {
        let zeros = i64::try_from(index - next).expect("32 buckets of 1024");
        match zeros {
            0 => {}
            1 => put_zigzag(&mut payload, 0),
            _ => put_zigzag(&mut payload, -zeros),
        }
        put_zigzag(&mut payload, count);
        next = index + 1;
    }
    let mut bytes = Vec::new();
    put_u32(&mut bytes, V2_COOKIE);
    put_u32(&mut bytes, length_of(&payload));
    // The normalizing index offset, which only shifted histograms have.
    put_u32(&mut bytes, 0);
    put_u32(&mut bytes, DIGITS);
    put_u64(&mut bytes, 1);
    put_u64(&mut bytes, HIGHEST_NS);
    // The ratio of integers to doubles.
    put_u64(&mut bytes, 1.0_f64.to_bits());
    bytes.extend(payload);
    bytes
}

fn put_zigzag(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    // Counts here stay below 2^32, so the ninth byte, which would have 8 bits, is never reached.
    while rest >= 0x80 {
        bytes.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    bytes.push(low_byte(rest));
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// The compressed V2 encoding: a header, and a zlib stream (RFC 1950).
fn compressed(bytes: &[u8]) -> Vec<u8> {
    // The largest stored block.
    const BLOCK_BYTES: usize = u16::MAX as usize;
    // Deflate with a window of 32 KiB, no dictionary; a multiple of 31 as the check demands.
    let mut zlib = vec![0x78, 0x01];
    let blocks = bytes.chunks(BLOCK_BYTES);
    let last = blocks.len().saturating_sub(1);
    for (index, block) in blocks.enumerate() {
        let length = u16::try_from(block.len()).expect("a chunk is not larger");
        zlib.push(u8::from(index == last));
        zlib.extend(length.to_le_bytes());
        zlib.extend((!length).to_le_bytes());
        zlib.extend(block);
    }
    put_u32(&mut zlib, adler32(bytes));
    let mut framed = Vec::new();
    put_u32(&mut framed, V2_COMPRESSED_COOKIE);
    put_u32(&mut framed, length_of(&zlib));
    framed.extend(zlib);
    framed
}

fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % MODULUS;
        (low, (high + low) % MODULUS)
    });
    high << 16 | low
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..4 {
            let sextet = (bits >> (18 - 6 * letter)) & 0x3f;
            let is_padding = letter > chunk.len();
            text.push(if is_padding { '=' } else { char::from(LETTERS[sextet as usize]) });
        }
    }
    text
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("32 buckets of 1024, 9 bytes each at most")
}

#[expect(clippy::big_endian_bytes, reason = "the order of Java's ByteBuffer, and of zlib")]
fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_be_bytes());
}

#[expect(clippy::big_endian_bytes, reason = "the order of Java's ByteBuffer")]
fn put_u64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend(value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_its_padding() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text, "RFC 4648, 10");
        }
    }

    #[test]
    fn the_checksum_is_adlers() {
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(adler32(b""), 1);
    }

    #[test]
    fn values_have_three_digits() {
        assert_eq!((index_of(0), index_of(2047)), (0, 2047));
        assert_eq!((index_of(2048), index_of(2049), index_of(2050)), (2048, 2048, 2049));
        assert_eq!((index_of(4095), index_of(4096), index_of(4100)), (3071, 3072, 3073));
        assert_eq!(index_of(u64::MAX), index_of(HIGHEST_NS));
    }

    #[test]
    fn counters_are_zigzag_numbers_and_runs_of_zeros() {
        let payload = |lengths_ns: &[u64]| encoded(lengths_ns)[40..].to_vec();
        assert_eq!(payload(&[0, 0]), [4]);
        assert_eq!(payload(&[1]), [0, 2], "one zero is a zero");
        assert_eq!(payload(&[2, 4, 4]), [3, 2, 0, 4], "two zeros are -2");
        assert_eq!(payload(&[300]), [0xd7, 0x04, 2], "-300 zeros are 599, in two bytes");
        assert_eq!(encoded(&[1])[..8], [0x1c, 0x84, 0x93, 0x13, 0, 0, 0, 2]);
    }

    #[test]
    fn long_data_is_several_stored_blocks() {
        let framed = compressed(&vec![7; 70_000]);
        assert_eq!(framed[8..15], [0x78, 0x01, 0, 0xff, 0xff, 0, 0]);
        let second = 8 + 2 + 5 + 65_535;
        assert_eq!(framed[second..second + 5], [1, 0x71, 0x11, 0x8e, 0xee]);
        assert_eq!(framed.len(), second + 5 + 4_465 + 4);
    }
}
