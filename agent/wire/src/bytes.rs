//! Fields: how a value becomes bytes and how bytes become a checked value.

use crate::leb128::{self, Leb128Error};
use crate::{DecodeError, EncodeError};

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
        leb128::take(&mut self.rest).map_err(|error| match error {
            Leb128Error::Short => DecodeError::Truncated { needed_bytes: 1, left_bytes: 0 },
            Leb128Error::Long => DecodeError::VarintTooLong,
        })
    }

    pub(crate) fn zigzag(&mut self) -> Result<u64, DecodeError> {
        self.varint().map(leb128::from_zigzag)
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

pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    leb128::put(out, u64::try_from(count).expect("a bounded count fits 64 bits"));
}
