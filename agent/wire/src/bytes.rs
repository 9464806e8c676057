//! Fields: how a value becomes bytes and how bytes become a checked value.

use crate::{DecodeError, EncodeError};

/// A varint takes this many bytes at most.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

/// What is left of a frame that is being decoded.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// The end of the frame must have been reached.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { count }),
        }
    }

    /// Everything that is left, if that is not more than the bound.
    pub(crate) fn take_rest(
        &mut self,
        what: &'static str,
        max_count: usize,
    ) -> Result<&'a [u8], DecodeError> {
        check_count(what, self.rest.len(), max_count)?;
        Ok(std::mem::take(&mut self.rest))
    }

    fn take(&mut self, needed_bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (field, rest) = self
            .rest
            .split_at_checked(needed_bytes)
            .ok_or(DecodeError::Truncated { needed_bytes, left_bytes: self.rest.len() })?;
        self.rest = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (field, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated { needed_bytes: N, left_bytes: self.rest.len() })?;
        self.rest = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::UnknownCase { what, value }),
        }
    }

    pub(crate) fn string(
        &mut self,
        what: &'static str,
        max_bytes: usize,
    ) -> Result<String, DecodeError> {
        let length_bytes = usize::from(self.u16()?);
        check_count(what, length_bytes, max_bytes)?;
        match std::str::from_utf8(self.take(length_bytes)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(DecodeError::NotUtf8 { what, valid_bytes: error.valid_up_to() }),
        }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for position in 0..VARINT_BYTES_MAX {
            let byte = self.u8()?;
            // Nine bytes carry 63 bits: the tenth can add only one, and nothing can follow it.
            if position == VARINT_BYTES_MAX - 1 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    pub(crate) fn zigzag(&mut self) -> Result<u64, DecodeError> {
        self.varint().map(from_zigzag)
    }

    /// A count that is checked against its bound before anyone allocates by it.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        max_count: usize,
    ) -> Result<usize, DecodeError> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= max_count => Ok(count),
            _ => Err(DecodeError::TooMany { what, count, max_count }),
        }
    }
}

fn check_count(what: &'static str, count: usize, max_count: usize) -> Result<(), DecodeError> {
    if count <= max_count {
        return Ok(());
    }
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    Err(DecodeError::TooMany { what, count, max_count })
}

/// Refuses to encode more than the protocol allows.
pub(crate) fn bound(what: &'static str, count: usize, max_count: usize) -> Result<(), EncodeError> {
    if count <= max_count { Ok(()) } else { Err(EncodeError::TooMany { what, count, max_count }) }
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_string(
    out: &mut Vec<u8>,
    what: &'static str,
    text: &str,
    max_bytes: usize,
) -> Result<(), EncodeError> {
    bound(what, text.len(), max_bytes)?;
    let length_bytes = u16::try_from(text.len()).expect("every text's bound fits 16 bits");
    put_u16(out, length_bytes);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        let low_bits = u8::try_from(value & 0x7f).expect("7 bits fit 8");
        out.push(low_bits | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("the loop has left less than 0x80"));
}

/// What [`put_varint`] will write.
pub(crate) fn varint_bytes(value: u64) -> u32 {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7)
}

pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    put_varint(out, u64::try_from(count).expect("a bounded count fits 64 bits"));
}

/// Maps a difference that wraps around 2^64 to a small number when it is small in either
/// direction: 0, -1, 1, -2 become 0, 1, 2, 3.
pub(crate) fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ 0_u64.wrapping_sub(difference >> 63)
}

fn from_zigzag(value: u64) -> u64 {
    (value >> 1) ^ 0_u64.wrapping_sub(value & 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn varint_of(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        out
    }

    #[test]
    fn varints_at_the_edges() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (0x7f, &[0x7f]),
            (0x80, &[0x80, 0x01]),
            (0x3fff, &[0xff, 0x7f]),
            (0x4000, &[0x80, 0x80, 0x01]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            assert_eq!(varint_of(value), bytes, "{value:#x}");
            assert_eq!(varint_bytes(value) as usize, bytes.len(), "{value:#x}");
            assert_eq!(Cursor::new(bytes).varint(), Ok(value));
        }
    }

    #[test]
    fn a_varint_beyond_64_bits_is_refused() {
        let mut bytes = [0xff; 10];
        bytes[9] = 0x02;
        assert_eq!(Cursor::new(&bytes).varint(), Err(DecodeError::VarintTooLong));
        bytes[9] = 0x81;
        assert_eq!(Cursor::new(&bytes).varint(), Err(DecodeError::VarintTooLong));
        let truncated = DecodeError::Truncated { needed_bytes: 1, left_bytes: 0 };
        assert_eq!(Cursor::new(&bytes[..9]).varint(), Err(truncated));
    }

    #[test]
    fn zigzag_is_small_for_small_differences() {
        for (difference, expected) in [(0_i64, 0), (-1, 1), (1, 2), (-2, 3), (i64::MIN, u64::MAX)] {
            assert_eq!(zigzag(difference.cast_unsigned()), expected);
        }
    }

    proptest! {
        #[test]
        fn varint_and_zigzag_return(value: u64) {
            let bytes = varint_of(zigzag(value));
            prop_assert_eq!(varint_bytes(zigzag(value)) as usize, bytes.len());
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.zigzag(), Ok(value));
            prop_assert_eq!(cursor.finish(), Ok(()));
        }
    }
}
