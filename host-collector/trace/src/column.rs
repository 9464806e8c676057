//! Columns: how the values of one field, over all items of a block, become bytes and come back.
//!
//! Decoding trusts nothing: every error is a [`CodecError`], and no allocation is larger than what
//! the item count (bounded by the block) allows.

use vslice_wire::leb128::{self, Leb128Error, from_zigzag, zigzag};

/// What a stream holds, as written in its header. The numbers never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The host kernel's events of one pCPU.
    Events = 1,
    /// Requests of one guest.
    Requests = 2,
    /// Clock exchanges with one guest.
    Clock = 3,
    /// Kernel stacks.
    Stacks = 4,
    /// Looks at the threads of one VM.
    Samples = 5,
    /// Gaps of the hogs of one guest.
    HogGaps = 6,
    /// Control groups.
    Groups = 7,
    /// Observed requests of one guest.
    Observed = 8,
}

/// A payload that passed its CRC but says nothing sensible, or one that ends too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The payload ends inside a column.
    #[error("the payload ends inside a column")]
    Short,
    /// There are bytes after the last column.
    #[error("{0} bytes follow the last column")]
    Trailing(usize),
    /// A varint of more than 64 bits.
    #[error("a number has more than 64 bits")]
    LongVarint,
    /// A number that its field cannot hold.
    #[error("{0} is out of the range of its field")]
    OutOfRange(u64),
    /// Runs that cover more items than the block has.
    #[error("runs cover more items than the block has")]
    LongRun,
    /// A name that is not UTF-8.
    #[error("a name is not UTF-8")]
    NotText,
    /// A payload that is not packed as one is.
    #[error("the payload cannot be unpacked")]
    NotPacked,
}

/// A value that a stream can hold: how a block of them becomes columns and comes back.
///
/// The law is `decode(items.len(), encode(items)) == items`.
pub trait Columnar: Sized {
    /// The stream that holds such values.
    const KIND: StreamKind;

    /// How many parts a payload has, each of values of one kind, whose lengths in bytes (varints) it begins with. None:
    /// it is not parted.
    const PARTS: usize = 0;

    /// Brings the items of one block into the order in which they are stored.
    fn arrange(_items: &mut [Self]) {}

    /// Appends the columns of `items` to `payload`.
    fn encode(items: &[Self], payload: &mut Vec<u8>);

    /// Reads the columns of `count` items.
    ///
    /// # Errors
    /// When the columns are not what [`Columnar::encode`] writes.
    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError>;

    /// The same of a version before 6.
    ///
    /// # Errors
    /// When the columns are not what such a version wrote.
    fn decode_earlier(
        count: usize,
        columns: &mut ColumnReader<'_>,
    ) -> Result<Vec<Self>, CodecError> {
        Self::decode(count, columns)
    }
}

/// Appends a number.
pub(super) fn put_varint(value: u64, payload: &mut Vec<u8>) {
    leb128::put(payload, value);
}

/// Appends a column of differences.
pub(super) fn put_deltas(values: impl Iterator<Item = u64>, payload: &mut Vec<u8>) {
    let mut previous = 0u64;
    for value in values {
        put_varint(zigzag(value.wrapping_sub(previous)), payload);
        previous = value;
    }
}

/// Appends a column of plain numbers.
pub(super) fn put_varints(values: impl Iterator<Item = u64>, payload: &mut Vec<u8>) {
    for value in values {
        put_varint(value, payload);
    }
}

/// Appends a column that seldom changes.
pub(super) fn put_runs(values: impl Iterator<Item = u64>, payload: &mut Vec<u8>) {
    let mut run: Option<(u64, u64)> = None;
    for value in values {
        run = match run {
            Some((held, length)) if held == value => Some((held, length + 1)),
            earlier => {
                put_run(earlier, payload);
                Some((value, 1))
            }
        };
    }
    put_run(run, payload);
}

/// Appends parts, after their lengths.
pub(super) fn put_parts(parts: &[Vec<u8>], payload: &mut Vec<u8>) {
    put_varints(parts.iter().map(|part| part.len() as u64), payload);
    parts.iter().for_each(|part| payload.extend_from_slice(part));
}

fn put_run(run: Option<(u64, u64)>, payload: &mut Vec<u8>) {
    if let Some((value, length)) = run {
        put_varint(length - 1, payload);
        put_varint(value, payload);
    }
}

/// Reads columns one after the other from a payload.
#[derive(Debug)]
pub struct ColumnReader<'a> {
    rest: &'a [u8],
}

impl<'a> ColumnReader<'a> {
    /// Reads from the start of `payload`.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        ColumnReader { rest: payload }
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// That nothing is left.
    pub(super) fn finish(self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Trailing(self.rest.len())) }
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(CodecError::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, CodecError> {
        let (byte, rest) = self.rest.split_first().ok_or(CodecError::Short)?;
        self.rest = rest;
        Ok(*byte)
    }

    /// The next parts, after their lengths.
    pub(super) fn parts<const COUNT: usize>(
        &mut self,
    ) -> Result<[ColumnReader<'a>; COUNT], CodecError> {
        let lengths = self.varints::<usize>(COUNT)?;
        let mut parts = [const { ColumnReader { rest: &[] } }; COUNT];
        for (part, length) in parts.iter_mut().zip(lengths) {
            part.rest = self.bytes(length)?;
        }
        Ok(parts)
    }

    /// The next number.
    pub(super) fn varint(&mut self) -> Result<u64, CodecError> {
        leb128::take(&mut self.rest).map_err(|error| match error {
            Leb128Error::Short => CodecError::Short,
            Leb128Error::Long => CodecError::LongVarint,
        })
    }

    /// The next number, which has to fit into the field's type.
    pub(super) fn number<T: TryFrom<u64>>(&mut self) -> Result<T, CodecError> {
        narrow(self.varint()?)
    }

    /// A column of plain numbers.
    pub(super) fn varints<T: TryFrom<u64>>(&mut self, count: usize) -> Result<Vec<T>, CodecError> {
        self.numbers(count, |number| number)
    }

    /// A column of differences.
    pub(super) fn deltas<T: TryFrom<u64>>(&mut self, count: usize) -> Result<Vec<T>, CodecError> {
        let mut value = 0u64;
        self.numbers(count, |difference| {
            value = value.wrapping_add(from_zigzag(difference));
            value
        })
    }

    /// What `count` numbers come to, one after the other.
    fn numbers<T: TryFrom<u64>>(
        &mut self,
        count: usize,
        mut value_of: impl FnMut(u64) -> u64,
    ) -> Result<Vec<T>, CodecError> {
        // Each takes a byte at least, so this is small whatever `count` says.
        let mut values = Vec::with_capacity(count.min(self.rest.len()));
        for _ in 0..count {
            values.push(narrow(value_of(self.varint()?))?);
        }
        Ok(values)
    }

    /// A column of runs.
    pub(super) fn runs<T: TryFrom<u64> + Clone>(
        &mut self,
        count: usize,
    ) -> Result<Vec<T>, CodecError> {
        // A block has few items, so this is small whatever the payload says.
        let mut values: Vec<T> = Vec::with_capacity(count.min(super::BLOCK_ITEMS_MAX));
        while values.len() < count {
            let more: usize = self.number()?;
            let value = self.number()?;
            if more >= count - values.len() {
                return Err(CodecError::LongRun);
            }
            values.resize(values.len() + 1 + more, value);
        }
        Ok(values)
    }
}

/// A decoded number as the type of its field.
pub(super) fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, CodecError> {
    T::try_from(value).map_err(|_| CodecError::OutOfRange(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_have_these_bytes() {
        let mut payload = Vec::new();
        put_varints([0, 127, 128, u64::MAX].into_iter(), &mut payload);
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(payload, [&[0x00, 0x7f, 0x80, 0x01][..], &max].concat());
        payload.clear();
        put_deltas([10, 9, 9, 10].into_iter(), &mut payload);
        assert_eq!(payload, [20, 1, 0, 2]);
        payload.clear();
        put_runs([7, 7, 7, 5].into_iter(), &mut payload);
        assert_eq!(payload, [2, 7, 0, 5]);
    }

    #[test]
    fn nonsense_is_an_error() {
        let eleven = [0x80; 11];
        assert_eq!(ColumnReader::new(&eleven).varint(), Err(CodecError::LongVarint));
        let too_big = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(ColumnReader::new(&too_big).varint(), Err(CodecError::LongVarint));
        assert_eq!(ColumnReader::new(&[0x80]).varint(), Err(CodecError::Short));
        assert_eq!(ColumnReader::new(&[3, 9]).runs::<u64>(3), Err(CodecError::LongRun));
        let wide = ColumnReader::new(&[0x80, 0x80, 0x04]).varints::<u16>(1);
        assert_eq!(wide, Err(CodecError::OutOfRange(65_536)));
        assert_eq!(ColumnReader::new(&[1, 2]).finish(), Err(CodecError::Trailing(2)));
    }

    proptest! {
        #[test]
        fn every_column_comes_back(values in prop::collection::vec(any::<u64>(), 0..50)) {
            let mut payload = Vec::new();
            put_varints(values.iter().copied(), &mut payload);
            put_deltas(values.iter().copied(), &mut payload);
            put_runs(values.iter().map(|value| value % 3), &mut payload);
            let mut reader = ColumnReader::new(&payload);
            prop_assert_eq!(&reader.varints::<u64>(values.len()).unwrap(), &values);
            prop_assert_eq!(&reader.deltas::<u64>(values.len()).unwrap(), &values);
            let thirds: Vec<u64> = values.iter().map(|value| value % 3).collect();
            prop_assert_eq!(reader.runs::<u64>(values.len()).unwrap(), thirds);
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
