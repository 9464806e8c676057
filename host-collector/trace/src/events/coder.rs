//! Writing and reading the parts of a block of events, by the same steps.

use crate::column::{CodecError, ColumnReader, narrow, put_varint};
use rustc_hash::FxHashMap;
use vslice_core::units::Tid;

/// The parts of a block, in their order; see the module above.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Shapes,
    TimesLow,
    TimesHigh,
    Threads,
    Woken,
    NewThreads,
    States,
    Priorities,
    Stacks,
    CallArgs,
    FirstArgs,
    SecondArgs,
    ThirdArgs,
    Targets,
    Steps,
    Sectors,
    Lengths,
    Kvm,
    Others,
    Pcpus,
}

pub(super) const PARTS: usize = Part::Pcpus as usize + 1;

/// Either side. A value is given and comes back: the writer gives what is so, and what the reader gives is not used.
pub(super) trait Coder {
    /// The event's kind and flags, as one byte.
    fn shape(&self) -> u8;

    /// Whether something is not as expected, which the shape says by a bit.
    fn differs(&mut self, flag: u8, differs: bool) -> bool;

    fn number(&mut self, part: Part, value: u64) -> Result<u64, CodecError>;

    fn byte(&mut self, part: Part, value: u8) -> Result<u8, CodecError>;

    /// A thread's place among those met so far, or behind them if it is not one of them.
    fn place(&mut self, tid: Tid, met: usize) -> usize;
}

/// Writes.
#[derive(Debug, Default)]
pub(super) struct Writer {
    parts: [Vec<u8>; PARTS],
    shape: u8,
    places: FxHashMap<Tid, usize>,
}

impl Writer {
    /// Before an event.
    pub(super) fn begin(&mut self, shape: u8) {
        self.shape = shape;
    }

    /// Behind it.
    pub(super) fn end(&mut self) {
        let shape = self.shape;
        self.part(Part::Shapes).push(shape);
    }

    pub(super) fn part(&mut self, part: Part) -> &mut Vec<u8> {
        &mut self.parts[part as usize]
    }

    pub(super) fn parts(&self) -> &[Vec<u8>] {
        &self.parts
    }
}

impl Coder for Writer {
    fn shape(&self) -> u8 {
        self.shape
    }

    fn differs(&mut self, flag: u8, differs: bool) -> bool {
        if differs {
            self.shape |= flag;
        }
        differs
    }

    fn number(&mut self, part: Part, value: u64) -> Result<u64, CodecError> {
        put_varint(value, self.part(part));
        Ok(value)
    }

    fn byte(&mut self, part: Part, value: u8) -> Result<u8, CodecError> {
        self.part(part).push(value);
        Ok(value)
    }

    fn place(&mut self, tid: Tid, met: usize) -> usize {
        *self.places.entry(tid).or_insert(met)
    }
}

/// Reads.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    parts: [ColumnReader<'a>; PARTS],
    shape: u8,
}

impl<'a> Reader<'a> {
    pub(super) fn new(parts: [ColumnReader<'a>; PARTS]) -> Reader<'a> {
        Reader { parts, shape: 0 }
    }

    /// Before an event.
    pub(super) fn begin(&mut self) -> Result<(), CodecError> {
        self.shape = self.byte(Part::Shapes, 0)?;
        Ok(())
    }

    pub(super) fn part(&mut self, part: Part) -> &mut ColumnReader<'a> {
        &mut self.parts[part as usize]
    }

    /// That nothing is left.
    pub(super) fn finish(self) -> Result<(), CodecError> {
        self.parts.into_iter().try_for_each(ColumnReader::finish)
    }
}

impl Coder for Reader<'_> {
    fn shape(&self) -> u8 {
        self.shape
    }

    fn differs(&mut self, flag: u8, _differs: bool) -> bool {
        self.shape & flag != 0
    }

    fn number(&mut self, part: Part, _value: u64) -> Result<u64, CodecError> {
        self.part(part).varint()
    }

    fn byte(&mut self, part: Part, _value: u8) -> Result<u8, CodecError> {
        self.part(part).byte()
    }

    fn place(&mut self, _tid: Tid, _met: usize) -> usize {
        0
    }
}

/// A number that is told only where it differs from what is expected.
pub(super) fn expected<C: Coder>(
    coder: &mut C,
    (flag, part): (u8, Part),
    value: u64,
    expected: u64,
) -> Result<u64, CodecError> {
    if coder.differs(flag, value != expected) { coder.number(part, value) } else { Ok(expected) }
}

/// The same as a number of fewer bits.
pub(super) fn expected_short<C: Coder, T: TryFrom<u64>>(
    coder: &mut C,
    place: (u8, Part),
    value: u64,
    other: u64,
) -> Result<T, CodecError> {
    narrow(expected(coder, place, value, other)?)
}
