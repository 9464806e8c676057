//! Kernel stacks: the columns of their addresses, and the JSON of their names.

use super::column::{CodecError, ColumnReader, Columnar, StreamKind, put_deltas, put_varints};
use super::{RunDir, StoreError};
use serde::{Deserialize, Serialize};
use vslice_core::host_event::StackId;

/// Frames of one stack at most: `PERF_MAX_STACK_DEPTH`, the kernel's own default limit.
pub const FRAMES_MAX: usize = 127;

/// One item of `stacks.vsr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackFrames {
    /// The id by which events refer to it.
    pub id: StackId,
    /// Kernel addresses, the innermost frame first; at most [`FRAMES_MAX`], more are not stored.
    pub frames: Vec<u64>,
}

impl StackFrames {
    fn stored(&self) -> &[u64] {
        &self.frames[..self.frames.len().min(FRAMES_MAX)]
    }
}

impl Columnar for StackFrames {
    const KIND: StreamKind = StreamKind::Stacks;

    fn encode(items: &[Self], payload: &mut Vec<u8>) {
        put_deltas(items.iter().map(|stack| stack.id.0.into()), payload);
        put_varints(items.iter().map(|stack| stack.stored().len() as u64), payload);
        put_deltas(items.iter().flat_map(StackFrames::stored).copied(), payload);
    }

    fn decode(count: usize, columns: &mut ColumnReader<'_>) -> Result<Vec<Self>, CodecError> {
        let ids = columns.deltas::<u32>(count)?;
        let lengths = columns.varints::<usize>(count)?;
        if let Some(long) = lengths.iter().find(|length| **length > FRAMES_MAX) {
            return Err(CodecError::OutOfRange(*long as u64));
        }
        let frames = columns.deltas::<u64>(lengths.iter().sum())?;
        let mut rest = frames.as_slice();
        let stack = |(id, length): (u32, usize)| {
            let (frames, later) = rest.split_at(length);
            rest = later;
            StackFrames { id: StackId(id), frames: frames.to_vec() }
        };
        Ok(ids.into_iter().zip(lengths).map(stack).collect())
    }
}

/// One stack in `stacks.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackNames {
    /// The id by which events refer to it.
    pub id: u32,
    /// Symbol names, the innermost frame first; an address in hex where no symbol is known.
    pub frames: Vec<String>,
}

const NAMES_FILE: &str = "stacks.json";

impl RunDir {
    /// Writes the stacks' names, once, when the run has ended.
    ///
    /// # Errors
    /// As [`RunDir::write_json`].
    pub fn write_stack_names(&self, stacks: &[StackNames]) -> Result<(), StoreError> {
        self.write_json(NAMES_FILE, &stacks)
    }

    /// The stacks' names, indexed by nothing: look up by `id`. Empty if the run did not get as far
    /// as writing them.
    ///
    /// # Errors
    /// As [`RunDir::read_json`].
    pub fn read_stack_names(&self) -> Result<Vec<StackNames>, StoreError> {
        if !self.path().join(NAMES_FILE).exists() {
            return Ok(Vec::new());
        }
        self.read_json(NAMES_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_stacks_have_these_bytes() {
        let stacks = [
            StackFrames { id: StackId(0), frames: vec![5, 3] },
            StackFrames { id: StackId(1), frames: vec![4] },
        ];
        let mut payload = Vec::new();
        StackFrames::encode(&stacks, &mut payload);
        assert_eq!(payload, [0, 2, 2, 1, 10, 3, 2]);
    }

    #[test]
    fn a_stack_without_end_is_an_error() {
        let mut columns = ColumnReader::new(&[0, 0x80, 0x01]);
        assert_eq!(StackFrames::decode(1, &mut columns), Err(CodecError::OutOfRange(128)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            stacks in prop::collection::vec(
                (any::<u32>(), prop::collection::vec(any::<u64>(), 0..20)), 0..20),
        ) {
            let stack = |(id, frames)| StackFrames { id: StackId(id), frames };
            let stacks: Vec<StackFrames> = stacks.into_iter().map(stack).collect();
            let mut payload = Vec::new();
            StackFrames::encode(&stacks, &mut payload);
            let mut columns = ColumnReader::new(&payload);
            prop_assert_eq!(StackFrames::decode(stacks.len(), &mut columns).unwrap(), stacks);
            prop_assert_eq!(columns.finish(), Ok(()));
        }
    }
}
