//! Numbers in as few bytes as they need: LEB128 of a u64, 7 bits a byte, the lowest first, the top bit set
//! on all but the last. Run directories hold the same.

/// A number takes this many bytes at most.
pub const BYTES_MAX: usize = 10;

/// Why there is no number at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leb128Error {
    /// The bytes end inside it.
    Short,
    /// It has more than 64 bits.
    Long,
}

/// Appends a number.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_seven_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_seven_bits(value));
}

fn low_seven_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// What [`put`] will write.
#[must_use]
pub fn length_bytes(value: u64) -> u32 {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7)
}

/// Takes the number at the beginning of `rest`, which then begins behind it.
///
/// # Errors
/// If there is none; `rest` stays as it is.
pub fn take(rest: &mut &[u8]) -> Result<u64, Leb128Error> {
    if let Some(word) = rest.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) {
        // The top bits of bytes that end a number.
        let ends = !word & 0x8080_8080_8080_8080;
        if ends != 0 {
            let length_bits = ends.trailing_zeros() + 1;
            *rest = rest.get(length_bits as usize / 8..).unwrap_or_default();
            return Ok(squeezed(word << (64 - length_bits) >> (64 - length_bits)));
        }
    }
    take_bytewise(rest)
}

/// The low seven bits of each byte, without the bits between them.
fn squeezed(bytes: u64) -> u64 {
    let pairs = (bytes & 0x007f_007f_007f_007f) | ((bytes & 0x7f00_7f00_7f00_7f00) >> 1);
    let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4)
}

/// The same of a number near the end of the bytes, or one of more than eight.
fn take_bytewise(rest: &mut &[u8]) -> Result<u64, Leb128Error> {
    let mut value = 0;
    for (position, byte) in rest.iter().take(BYTES_MAX).enumerate() {
        // Nine bytes carry 63 bits: the tenth can add only one, and nothing can follow it.
        if position == BYTES_MAX - 1 && *byte > 1 {
            return Err(Leb128Error::Long);
        }
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            *rest = &rest[position + 1..];
            return Ok(value);
        }
    }
    Err(Leb128Error::Short)
}

/// Maps a difference that wraps around 2^64 to a small number when it is small in either
/// direction: 0, -1, 1, -2 become 0, 1, 2, 3.
#[must_use]
pub fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ 0_u64.wrapping_sub(difference >> 63)
}

/// The inverse of [`zigzag`].
#[must_use]
pub fn from_zigzag(value: u64) -> u64 {
    (value >> 1) ^ 0_u64.wrapping_sub(value & 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, value);
        out
    }

    #[test]
    fn numbers_at_the_edges() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (0x7f, &[0x7f]),
            (0x80, &[0x80, 0x01]),
            (0x3fff, &[0xff, 0x7f]),
            (0x4000, &[0x80, 0x80, 0x01]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            assert_eq!(bytes_of(value), bytes, "{value:#x}");
            assert_eq!(length_bytes(value) as usize, bytes.len(), "{value:#x}");
            assert_eq!(take(&mut &*bytes), Ok(value));
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        let mut bytes = [0xff; 11];
        assert_eq!(take(&mut &bytes[..]), Err(Leb128Error::Long));
        for tenth in [0x02, 0x81] {
            bytes[9] = tenth;
            assert_eq!(take(&mut &bytes[..]), Err(Leb128Error::Long));
        }
        assert_eq!(take(&mut &bytes[..9]), Err(Leb128Error::Short));
        assert_eq!(take(&mut &[][..]), Err(Leb128Error::Short));
    }

    #[test]
    fn zigzag_is_small_for_small_differences() {
        for (difference, expected) in [(0_i64, 0), (-1, 1), (1, 2), (-2, 3), (i64::MIN, u64::MAX)] {
            assert_eq!(zigzag(difference.cast_unsigned()), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_taken(value: u64, behind: Vec<u8>) {
            let mut bytes = bytes_of(zigzag(value));
            prop_assert_eq!(length_bytes(zigzag(value)) as usize, bytes.len());
            bytes.extend(&behind);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take(&mut rest).map(from_zigzag), Ok(value));
            prop_assert_eq!(rest, behind.as_slice());
        }
    }
}
